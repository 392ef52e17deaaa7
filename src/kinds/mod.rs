//! The kinds of kernel object ciliate makes, one folder each.
//!
//! A kind has three nouns: `Spec` (what is asked for, built by `lower`), `Seen` (what the kernel
//! has), and [`Change`] (the op that leads from one to the other). The pure half is [`Kind`]: how a
//! spec compares with what was seen, what the kernel will show after a change, what a change needs.
//! `diff` and `predict` follow from it and are the same for every kind. The other half, `exec.rs` in
//! each folder, is the only file of a kind that touches the kernel.
//!
//! [`for_each_kind!`](crate::for_each_kind) is the registry: the closed types [`Desired`], [`Observed`], [`Op`] and
//! [`ObjectKey`] are made from it, so matches over kinds stay exhaustive.
//!
//! Everything here but the `exec.rs` files is pure: may import `net` and `bpf_abi` only.

pub mod address;
pub mod bpf_link;
pub mod bpf_map;
pub mod bpf_map_entry;
pub mod bpf_old_map;
pub mod bpf_program;
pub mod cgroup_link;
mod change;
pub mod lb_backend;
pub mod lb_service;
pub mod link;
pub mod maglev_table;
pub mod neighbour;
pub mod netns;
pub mod nftables;
mod objects;
pub mod occupied;
pub mod owner;
pub mod record;
pub mod route;
pub mod rule;
pub mod sysctl;
pub mod tunnel;
pub mod wireguard;
pub mod wireguard_key;
pub mod wireguard_peer;
pub mod xdp_link;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Debug, Display};

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use change::{Action, Change, Field, counted};
pub(crate) use objects::plan_all;
pub use objects::{
    Blocked, BlockedReason, Desired, ObjectKey, Observed, Op, Origin, Phase, Wanted,
};

/// The pure half of a kind.
///
/// Laws, checked by the property tests for every kind:
/// * `fields(key, spec, realise(key, spec))` is empty: what a change leads to is what was asked.
/// * a `Seen` that is not `owned` is never part of a change.
pub trait Kind: Sized + 'static {
    /// What tells two objects apart. Ordered: plans list objects in this order.
    type Key: Clone + Ord + Debug + Display + Serialize + DeserializeOwned;
    /// What is asked for.
    type Spec: Clone + PartialEq + Debug + Serialize + DeserializeOwned;
    /// What the kernel has, reduced to what we can predict and want to repair.
    type Seen: Clone + PartialEq + Debug + Serialize + DeserializeOwned;

    /// The kind's name in plans, JSON and logs.
    const NAME: &'static str;

    /// Whether objects are removed after those of the other kinds: what hangs on devices, after them.
    const REMOVED_LATE: bool = false;

    /// What the kernel shows once the object is as asked.
    fn realise(key: &Self::Key, spec: &Self::Spec) -> Self::Seen;

    /// The properties in which the object is not as asked. Empty: nothing to do.
    fn fields(key: &Self::Key, spec: &Self::Spec, seen: &Self::Seen) -> Vec<Field>;

    /// Whether the object is as asked; the quick answer to whether `fields` is empty.
    fn is_as_asked(key: &Self::Key, spec: &Self::Spec, seen: &Self::Seen) -> bool {
        Self::fields(key, spec, seen).is_empty()
    }

    /// Whether the object carries our mark.
    fn owned(_seen: &Self::Seen) -> bool {
        true
    }

    /// What is said of a foreign object under the key.
    fn in_the_way(key: &Self::Key, _seen: &Self::Seen) -> BlockedReason {
        BlockedReason::Foreign { object: format!("{} {key}", Self::NAME) }
    }

    /// Whether a foreign object under the key does what is asked for, so that nothing has to be done.
    fn foreign_serves(_key: &Self::Key, _spec: &Self::Spec, _seen: &Self::Seen) -> bool {
        false
    }

    /// Whether an object of ours that is not desired goes away. False for things that always exist
    /// and can only be given a value.
    const REMOVABLE: bool = true;

    /// The object's properties as an operator would type them, after the kind and the key.
    fn describe_spec(key: &Self::Key, spec: &Self::Spec) -> String;

    /// The same for what was seen.
    fn describe_seen(key: &Self::Key, seen: &Self::Seen) -> String;

    /// The objects that have to be there before this one can be made.
    fn needs(_key: &Self::Key, _spec: &Self::Spec) -> Vec<ObjectKey> {
        Vec::new()
    }

    /// The objects without which this one makes no sense. If one of them can't be had because its
    /// place is taken by something foreign, this one is left alone too. More than `needs` for what is
    /// made before the thing that it is about.
    fn stands_on(key: &Self::Key, spec: &Self::Spec) -> Vec<ObjectKey> {
        Self::needs(key, spec)
    }

    /// The objects that have to be there before a value that is in force gives way to this one: those
    /// that it sends packets to. A change that has any comes after all other additions; where nothing is
    /// in force, there is nothing to keep.
    fn gives_way_to(_key: &Self::Key, _spec: &Self::Spec) -> Vec<ObjectKey> {
        Vec::new()
    }

    /// What the object has to do with the tunnel. Where that takes the place of native routing, what has to
    /// do with it comes after all other additions, and after the node's entry.
    fn tunnel(_key: &Self::Key, _spec: &Self::Spec) -> tunnel::Part {
        tunnel::Part::None
    }

    /// Whether others of the kind wait for this object: it is done before them, in a batch of its own.
    fn is_awaited(_key: &Self::Key) -> bool {
        false
    }

    /// Of the objects whose ops failed, one that can't be told or mended without this one, or that was to
    /// take its place: then this one is not removed.
    fn outlives<'a>(
        _key: &Self::Key,
        _seen: &Self::Seen,
        _failed: &'a BTreeSet<ObjectKey>,
    ) -> Option<&'a ObjectKey> {
        None
    }

    /// Whether a change of one object may change others of the same kind, by `effects`.
    const WRITES_THROUGH: bool = false;

    /// What else changes in `observed` when the object is made or changed, as the kernel does it by
    /// itself.
    fn effects(_key: &Self::Key, _spec: &Self::Spec, _observed: &mut Observed) {}

    /// What else is lost in `observed` when the object goes away or is made anew, as the kernel does
    /// it by itself.
    fn cascade(_key: &Self::Key, _gone: &Self::Seen, _observed: &mut Observed) {}

    /// What stays behind in `observed` when the object is made anew, to be removed in the same plan.
    fn remainder(_key: &Self::Key, _observed: &mut Observed) {}
}

/// Objects of one kind as found.
pub type SeenMap<K> = BTreeMap<<K as Kind>::Key, <K as Kind>::Seen>;
/// Objects of one kind as asked for.
pub type WantedMap<K> = BTreeMap<<K as Kind>::Key, Wanted<<K as Kind>::Spec>>;

/// The registry: calls the macro `$callback` with a row `Variant field module` for each kind.
///
/// The order is the order of creation; removal runs the other way.
#[macro_export]
macro_rules! for_each_kind {
    ($callback:ident) => {
        $callback! {
            BpfMap bpf_maps bpf_map,
            BpfOldMap bpf_old_maps bpf_old_map,
            LbBackend lb_backends lb_backend,
            MaglevTable maglev_tables maglev_table,
            LbService lb_services lb_service,
            BpfMapEntry bpf_map_entries bpf_map_entry,
            Netns namespaces netns,
            Link links link,
            WireguardKey wireguard_keys wireguard_key,
            Wireguard wireguards wireguard,
            Sysctl sysctls sysctl,
            Address addresses address,
            BpfProgram bpf_programs bpf_program,
            BpfLink bpf_links bpf_link,
            CgroupLink cgroup_links cgroup_link,
            XdpLink xdp_links xdp_link,
            Neighbour neighbours neighbour,
            Rule rules rule,
            Route routes route,
            Nftables nftables nftables,
            WireguardPeer wireguard_peers wireguard_peer,
        }
    };
}
