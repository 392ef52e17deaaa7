//! Maps that were made anew with another layout, as long as they are needed: attached programs go on
//! writing to them until they are swapped. Then what was written since the copy is carried over, and the
//! pin goes.
//!
//! ```text
//! op                     pins                        attached programs use
//!                        ct4 = A                     A
//! -/+ bpf-map            ct4 = B (copy), ct4-old = A A
//! -/+ bpf-program, ~ bpf-link                        B
//! -   bpf-old-map        ct4 = B                     B
//! ```
//!
//! Nobody asks for such a map: it is what a replaced map leaves behind, and a removal in the same plan.
//! Killed anywhere, the next round finds the pins and goes on from there.
//!
//! Ownership: the pin, `<paths.bpf>/maps/<name>-old`. Pure but for `exec.rs`.

mod carry;
pub mod exec;

use serde::{Deserialize, Serialize};

use super::bpf_map::MapName;
use super::{Field, Kind};

pub use carry::is_carried;

/// The kind. The key is the name of the map that took the place of the old one.
#[derive(Debug, Clone, PartialEq)]
pub struct BpfOldMap;

/// Never asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec;

/// One is there, or more after several changes in short order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen;

impl Kind for BpfOldMap {
    type Key = MapName;
    type Spec = Spec;
    type Seen = Seen;
    const NAME: &'static str = "bpf-old-map";
    const REMOVED_LATE: bool = true;

    fn realise(_key: &MapName, _spec: &Spec) -> Seen {
        Seen
    }

    fn fields(_key: &MapName, _spec: &Spec, _seen: &Seen) -> Vec<Field> {
        Vec::new()
    }

    fn describe_spec(_key: &MapName, _spec: &Spec) -> String {
        String::new()
    }

    fn describe_seen(_key: &MapName, _seen: &Seen) -> String {
        "what was written to it is carried over".into()
    }
}
