//! TOML files → [`Document`]: which files, in which order, and what each key says.
//!
//! Imports nothing of this crate. `search` and `load` are the only files here that read the disk (the
//! directories are their argument); everything else is pure. A document keeps, for every key, the
//! place it was written at, so that every later complaint can show it.
//!
//! # Which files
//!
//! A main file and drop-ins, as with systemd (systemd.syntax, "configuration directories and
//! precedence"), with one difference: what the administrator writes always wins over what a package
//! or a program writes.
//!
//! 1. First come the drop-ins, `*.toml`, of `/usr/lib/ciliate/conf.d` and `/run/ciliate/conf.d`, in the
//!    order of their file names, whichever of the two directories they are in.
//! 2. Then the main file `/etc/ciliate/ciliate.toml`, if it is there, and after it the drop-ins of
//!    `/etc/ciliate/conf.d` in the order of their names.
//! 3. Of two drop-ins with the same name only the one of the higher directory is read: `/etc` over
//!    `/run` over `/usr/lib`.
//! 4. An empty drop-in, or a link to `/dev/null`, is read as "none": it hides its namesakes in lower
//!    directories.
//!
//! `--config PATH` replaces all of this: a file is read alone, a directory's `*.toml` in the order of
//! their names. Names that begin with `.` or `#`, or end in anything but `.toml`, are ignored: that
//! covers what editors, `dpkg` and ConfigMap mounts leave behind.
//!
//! # What they make together
//!
//! Sections are merged key by key, the later file wins; a value is replaced as a whole, lists too.
//! `[[peer]]`, `[[endpoint]]` and `[[service]]` are joined. See `merge`.
//!
//! # What can be wrong
//!
//! Everything that is wrong becomes a [`Diagnostic`] of the document, whether the disk, the TOML or the
//! shape is at fault; `crate::intent::read` adds what is wrong with the values and returns all of them
//! at once.

mod cat;
mod diagnostic;
mod document;
mod kept;
mod load;
mod merge;
mod reference;
mod render;
mod schema;
mod search;
mod shape;
mod span;
mod suggest;
mod syntax;
mod unsupported;

pub use cat::{Entry, cat_config, entries};
pub use diagnostic::{Diagnostic, Located, Place, locate};
pub use document::{
    Acceleration, Algorithm, AttachMode, Backend, BackendEntry, BackendState, Conntrack, Datapath,
    Encryption, EncryptionMode, Endpoint, Health, HealthCheck, HealthCheckType, HostRouting,
    LoadBalancing, LoadBalancingMode, Masquerade, MasqueradeMode, NoBackend, Node, Paths, Peer,
    PeerEndpoint, Root, Routing, RoutingMode, Service, ServiceProtocol, TrafficPolicy,
    TunnelProtocol, UnderlayProtocol,
};
pub use kept::Kept;
pub use load::{Document, Files, limits};
pub use reference::{Key, Section, reference};
pub use render::render;
pub use schema::schema;
pub use search::Search;
pub use span::{Position, Source, Sources, Span};
pub use suggest::nearest;
