//! Names of devices by index, in the calling thread's namespace. Imports nothing of this crate.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};

/// A socket of the namespace, which knows its devices.
pub struct Devices(OwnedFd);

impl Devices {
    /// Opens the namespace that the calling thread is in.
    ///
    /// # Errors
    /// No socket is to be had.
    pub fn open() -> io::Result<Self> {
        let kind = (AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC);
        Ok(Self(socket_with(kind.0, kind.1, kind.2, None)?))
    }

    /// The name that a device has now; `None` if there is no such device.
    pub fn name(&self, ifindex: u32) -> Option<String> {
        netdevice::index_to_name(&self.0, ifindex).ok()
    }
}
