//! The compiled BPF programs, embedded. `build.rs` makes them from `bpf/`.
//!
//! Pure: bytes and names. Imports nothing of this crate; only `kernel` and tests have a use for it.

/// An ELF object and what is in it.
#[derive(Clone, Copy, Debug)]
pub struct Object {
    /// Cilium's name for it.
    pub name: &'static str,
    /// The ELF file, aligned for a parser that reads it in place.
    pub bytes: &'static [u8],
    /// Names of its programs: classifiers, or those of sockets or drivers.
    pub programs: &'static [&'static str],
}

/// All objects, by name. Each uses maps from [`crate::bpf_abi::MAPS`] only.
pub const OBJECTS: &[Object] = &[
    Object {
        name: "bpf_host",
        bytes: aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bpf_host.o")),
        programs: &["cil_from_host", "cil_from_netdev", "cil_to_host", "cil_to_netdev"],
    },
    Object {
        name: "bpf_lxc",
        bytes: aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bpf_lxc.o")),
        programs: &["cil_from_container"],
    },
    Object {
        name: "bpf_overlay",
        bytes: aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bpf_overlay.o")),
        programs: &["cil_from_overlay", "cil_to_overlay"],
    },
    Object {
        name: "bpf_sock",
        bytes: aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bpf_sock.o")),
        programs: &[
            "cil_sock4_connect",
            "cil_sock4_getpeername",
            "cil_sock4_post_bind",
            "cil_sock4_recvmsg",
            "cil_sock4_sendmsg",
            "cil_sock6_connect",
            "cil_sock6_getpeername",
            "cil_sock6_post_bind",
            "cil_sock6_recvmsg",
            "cil_sock6_sendmsg",
            "cil_sock_release",
        ],
    },
    Object {
        name: "bpf_wireguard",
        bytes: aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bpf_wireguard.o")),
        programs: &["cil_from_wireguard", "cil_to_wireguard"],
    },
    Object {
        name: "bpf_xdp",
        bytes: aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bpf_xdp.o")),
        programs: &["cil_xdp_entry"],
    },
];
