//! Raw sockets for ICMP echo. They see answers to everybody's requests on the machine; the kernel keeps
//! all other messages away from them. (Datagram sockets, which would see their own only, are closed to
//! root too unless `net.ipv4.ping_group_range` says otherwise.)

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};

/// `SOL_RAW`, `ICMP_FILTER` (linux/icmp.h).
const LEVEL_V4: libc::c_int = 255;
/// `SOL_ICMPV6`, `ICMPV6_FILTER` (linux/icmpv6.h).
const LEVEL_V6: libc::c_int = 58;
const FILTER: libc::c_int = 1;

/// Types of echo answers.
const ECHO_REPLY_V4: u32 = 0;
const ECHO_REPLY_V6: usize = 129;

/// Opens a socket that sends what it is told to and receives echo answers, without waiting.
///
/// # Errors
/// Not permitted (`CAP_NET_RAW`), or the family isn't there.
pub fn open(v6: bool) -> io::Result<OwnedFd> {
    let (family, protocol) = match v6 {
        false => (AddressFamily::INET, ipproto::ICMP),
        true => (AddressFamily::INET6, ipproto::ICMPV6),
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::RAW, flags, Some(protocol))?;
    // A bit that is set keeps a type away. For IPv4 the kernel knows 32 of them.
    if v6 {
        let mut filter = [u32::MAX; 8];
        filter[ECHO_REPLY_V6 / 32] &= !(1 << (ECHO_REPLY_V6 % 32));
        set(&socket, LEVEL_V6, &filter)?;
    } else {
        set(&socket, LEVEL_V4, &[!(1u32 << ECHO_REPLY_V4)])?;
    }
    Ok(socket)
}

fn set<const WORDS: usize>(
    socket: &OwnedFd,
    level: libc::c_int,
    filter: &[u32; WORDS],
) -> io::Result<()> {
    let size = size_of_val(filter) as libc::socklen_t;
    // SAFETY: the pointer and the size are those of one array of plain numbers, which outlives the call;
    // the kernel reads it and keeps no reference.
    let done = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, FILTER, filter.as_ptr().cast(), size)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
