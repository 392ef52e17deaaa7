//! Raw frames out of a device of the sandbox, for what a test run does not accept.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// A packet socket on one device. A frame sent is at the other end's ingress when `send` returns, or
/// soon after: the receiving side is a soft interrupt, which a busy machine puts off.
pub struct Wire {
    socket: OwnedFd,
    ifindex: i32,
}

impl Wire {
    #[allow(unsafe_code, reason = "packet sockets are in libc only")]
    pub fn open(device: &str) -> Self {
        let path = format!("/sys/class/net/{device}/ifindex");
        let ifindex = fs::read_to_string(path).expect("read ifindex").trim().parse();
        // SAFETY: a system call with numbers for arguments.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        assert!(fd >= 0, "packet socket: {}", io::Error::last_os_error());
        // SAFETY: the descriptor was just returned and is nobody else's.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        Self { socket, ifindex: ifindex.expect("a number") }
    }

    #[allow(unsafe_code, reason = "packet sockets are in libc only")]
    pub fn send(&self, frame: &[u8]) {
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: u16::from_ne_bytes([frame[12], frame[13]]),
            sll_ifindex: self.ifindex,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 6,
            sll_addr: [0; 8],
        };
        // SAFETY: frame and address are live for the call, and the lengths are theirs.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const address).cast(),
                size_of_val(&address) as libc::socklen_t,
            )
        };
        assert_eq!(sent, frame.len() as isize, "send: {}", io::Error::last_os_error());
    }
}
