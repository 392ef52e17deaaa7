//! Veths as wires between machines.
//!
//! A veth leaves checksums to a device that there is not: both ends know. A program at the driver can't tell, so what is
//! to be handled there has to have its checksum; `ethtool -K <device> tx off` does what is done here. And what a veth's
//! driver sends back (`XDP_TX`) the other end takes only where it has a program of its own; with GRO alone it is given
//! the frame, and not told.

use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, OwnedFd};

use ciliate::kernel::bpf;

use crate::foreign::load_program;
use crate::space::Space;

/// `SIOCETHTOOL` (linux/sockios.h).
const SIOCETHTOOL: libc::c_ulong = 0x8946;
/// `ETHTOOL_STXCSUM` (linux/ethtool.h).
const SET_TX_CHECKSUMS: u32 = 0x17;
/// `BPF_PROG_TYPE_XDP`, and `XDP_PASS`.
const XDP: u32 = 6;
const PASS: i32 = 2;

/// Packets leave a device with their checksums.
pub fn finish_checksums(space: &Space, device: &str) {
    space.run(|| turn_off(device, SET_TX_CHECKSUMS)).expect("no offload of checksums");
}

/// A program that passes everything, at a device's driver for as long as what is returned lives.
pub fn pass(space: &Space, device: &str) -> OwnedFd {
    let index = ifindex(space, device);
    let program = load_program(XDP, PASS).expect("load a program");
    let link = space.run(|| bpf::xdp_link_create(&program, index, bpf::XDP_NATIVE));
    link.expect("attach a program")
}

/// The number of a device.
pub fn ifindex(space: &Space, device: &str) -> u32 {
    let shown = space.sh(&format!("ip -o link show dev {device}"));
    shown.split(':').next().and_then(|index| index.parse().ok()).expect("a number")
}

#[allow(unsafe_code, reason = "there is no safe wrapper of this ioctl(2)")]
fn turn_off(device: &str, command: u32) -> io::Result<()> {
    /// `struct ifreq`, whose union holds an address here.
    #[repr(C)]
    struct Request {
        name: [u8; 16],
        data: *mut [u32; 2],
        rest: [u8; 16],
    }
    let socket = UdpSocket::bind(("127.0.0.1", 0))?;
    // `struct ethtool_value`.
    let mut value = [command, 0];
    let mut request = Request { name: [0; 16], data: &raw mut value, rest: [0; 16] };
    request.name[..device.len()].copy_from_slice(device.as_bytes());
    // SAFETY: the kernel reads a name that ends in a NUL, and reads and writes two words at the address, which both
    // live past the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
