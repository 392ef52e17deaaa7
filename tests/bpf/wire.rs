//! Raw frames in and out of a device of the sandbox, for what a test run does not accept or show.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Longer than a busy machine puts off a soft interrupt; no test waits for it to pass.
const PATIENCE_S: i64 = 20;

/// A packet socket on one device. A frame sent is at the other end's ingress when `send` returns, or
/// soon after: the receiving side is a soft interrupt, which a busy machine puts off.
pub struct Wire {
    socket: OwnedFd,
    ifindex: i32,
}

impl Wire {
    /// A device of the sandbox's own namespace. Sends, and receives nothing.
    pub fn open(device: &str) -> Self {
        Self::new(device, 0)
    }

    /// The same, and receives what is on the device from now on, in both directions.
    pub fn tap(device: &str) -> Self {
        Self::new(device, libc::ETH_P_ALL)
    }

    /// [`Self::tap`] in the named namespace.
    pub fn tap_in(namespace: &str, device: &str) -> Self {
        let network = Some(LinkNameSpaceType::Network);
        let enter = |path: &str| {
            let file = File::open(path).expect(path);
            move |()| move_into_link_name_space(file.as_fd(), network).expect("setns")
        };
        let back = enter("/proc/thread-self/ns/net");
        enter(&format!("/run/netns/{namespace}"))(());
        let wire = Self::tap(device);
        back(());
        wire
    }

    #[allow(unsafe_code, reason = "packet sockets are in libc only")]
    fn new(device: &str, protocol: i32) -> Self {
        let name = CString::new(device).expect("a name");
        // SAFETY: the name is a NUL-terminated string that lives through the call.
        let ifindex = unsafe { libc::if_nametoindex(name.as_ptr()) } as i32;
        assert_ne!(ifindex, 0, "{device}: {}", io::Error::last_os_error());
        // SAFETY: a system call with numbers for arguments.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        assert!(fd >= 0, "packet socket: {}", io::Error::last_os_error());
        // SAFETY: the descriptor was just returned and is nobody else's.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let patience = libc::timeval { tv_sec: PATIENCE_S, tv_usec: 0 };
        // SAFETY: the option's value is live for the call, and its length is told.
        let set = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVTIMEO,
                (&raw const patience).cast(),
                size_of_val(&patience) as libc::socklen_t,
            )
        };
        assert_eq!(set, 0, "SO_RCVTIMEO: {}", io::Error::last_os_error());
        let wire = Self { socket, ifindex };
        if protocol != 0 {
            wire.bind((protocol as u16).to_be());
        }
        wire
    }

    #[allow(unsafe_code, reason = "packet sockets are in libc only")]
    fn bind(&self, protocol_be: u16) {
        let address = self.address(protocol_be);
        // SAFETY: the address is live for the call, and its length is told.
        let bound = unsafe {
            libc::bind(
                self.socket.as_raw_fd(),
                (&raw const address).cast(),
                size_of_val(&address) as libc::socklen_t,
            )
        };
        assert_eq!(bound, 0, "bind: {}", io::Error::last_os_error());
    }

    fn address(&self, protocol_be: u16) -> libc::sockaddr_ll {
        libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: protocol_be,
            sll_ifindex: self.ifindex,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 6,
            sll_addr: [0; 8],
        }
    }

    /// The next frame that came into the device and is of the kind that is waited for.
    #[allow(unsafe_code, reason = "packet sockets are in libc only")]
    pub fn receive(&self, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        const OUTGOING: usize = offset_of!(libc::sockaddr_ll, sll_pkttype);
        loop {
            let (mut frame, mut from) = (vec![0; 4096], [0_u8; size_of::<libc::sockaddr_ll>()]);
            let mut from_len = from.len() as libc::socklen_t;
            // SAFETY: all three buffers are live for the call, and their lengths are told.
            let len = unsafe {
                libc::recvfrom(
                    self.socket.as_raw_fd(),
                    frame.as_mut_ptr().cast(),
                    frame.len(),
                    0,
                    from.as_mut_ptr().cast(),
                    &raw mut from_len,
                )
            };
            let error = io::Error::last_os_error();
            if len < 0 && error.kind() == io::ErrorKind::Interrupted {
                continue;
            }
            assert!(len >= 0, "nothing of the kind came: {error}");
            frame.truncate(len as usize);
            if from[OUTGOING] != libc::PACKET_OUTGOING && wanted(&frame) {
                return frame;
            }
        }
    }

    /// Sends a frame that claims to need a checksum over what begins at `start`, as virtual machines send.
    #[allow(unsafe_code, reason = "packet sockets are in libc only")]
    pub fn send_unfinished(&self, frame: &[u8], start: u16) {
        /// `PACKET_VNET_HDR` (linux/if_packet.h): `struct virtio_net_hdr` stands in front of frames.
        const VNET_HDR: libc::c_int = 15;
        let set = |on: libc::c_int| {
            // SAFETY: the option's value is live for the call, and its length is told.
            let set = unsafe {
                libc::setsockopt(
                    self.socket.as_raw_fd(),
                    libc::SOL_PACKET,
                    VNET_HDR,
                    (&raw const on).cast(),
                    size_of_val(&on) as libc::socklen_t,
                )
            };
            assert_eq!(set, 0, "PACKET_VNET_HDR: {}", io::Error::last_os_error());
        };
        set(1);
        // Needs a checksum; no segments, no length of headers; where it begins, and where it goes.
        let [low, high] = start.to_ne_bytes();
        self.send_behind(&[1, 0, 0, 0, 0, 0, low, high, 0, 0], frame);
        set(0);
    }

    pub fn send(&self, frame: &[u8]) {
        self.send_behind(&[], frame);
    }

    #[allow(unsafe_code, reason = "packet sockets are in libc only")]
    fn send_behind(&self, head: &[u8], frame: &[u8]) {
        let address = self.address(u16::from_ne_bytes([frame[12], frame[13]]));
        let bytes = [head, frame].concat();
        // SAFETY: bytes and address are live for the call, and the lengths are theirs.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                bytes.as_ptr().cast(),
                bytes.len(),
                0,
                (&raw const address).cast(),
                size_of_val(&address) as libc::socklen_t,
            )
        };
        assert_eq!(sent, bytes.len() as isize, "send: {}", io::Error::last_os_error());
    }
}
