//! bpf(2): what the program loader (`aya`) doesn't offer: batches, pins of maps and links, links by
//! ifindex, and what the kernel knows of an object. Loading programs is aya's work.
//!
//! Layouts are those of `union bpf_attr` and the `bpf_*_info` structs in linux/bpf.h; they are part of
//! the kernel's ABI and only ever grow at the end.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

pub(super) mod command {
    pub const MAP_CREATE: i32 = 0;
    pub const MAP_LOOKUP_ELEM: i32 = 1;
    pub const MAP_UPDATE_ELEM: i32 = 2;
    pub const MAP_DELETE_ELEM: i32 = 3;
    pub const OBJ_PIN: i32 = 6;
    pub const OBJ_GET: i32 = 7;
    pub const OBJ_GET_INFO_BY_FD: i32 = 15;
    pub const PROG_GET_FD_BY_ID: i32 = 13;
    pub const PROG_QUERY: i32 = 16;
    pub const MAP_LOOKUP_AND_DELETE_ELEM: i32 = 21;
    pub const MAP_LOOKUP_BATCH: i32 = 24;
    pub const MAP_UPDATE_BATCH: i32 = 26;
    pub const MAP_DELETE_BATCH: i32 = 27;
    pub const LINK_CREATE: i32 = 28;
    pub const LINK_UPDATE: i32 = 29;
    pub const LINK_DETACH: i32 = 34;
}

/// Length of an object's name, with the NUL (`BPF_OBJ_NAME_LEN`).
pub const NAME_LEN: usize = 16;

/// `BPF_TCX_INGRESS` (Linux 6.6).
pub const TCX_INGRESS: u32 = 46;
/// `BPF_TCX_EGRESS` (Linux 6.6).
pub const TCX_EGRESS: u32 = 47;

/// `BPF_XDP`.
const XDP: u32 = 37;
/// Run by the driver (`XDP_FLAGS_DRV_MODE`, linux/if_link.h).
pub const XDP_NATIVE: u32 = 1 << 2;
/// Run by the kernel (`XDP_FLAGS_SKB_MODE`).
pub const XDP_GENERIC: u32 = 1 << 1;

/// `union bpf_attr`, written field by field. 128 bytes is more than any command used here reads.
#[repr(C, align(8))]
pub(super) struct Attr([u8; 128]);

impl Attr {
    pub(super) fn new() -> Self {
        Self([0; 128])
    }

    pub(super) fn u32(mut self, offset: usize, value: u32) -> Self {
        self.0[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
        self
    }

    pub(super) fn fd(self, offset: usize, fd: BorrowedFd<'_>) -> Self {
        self.u32(offset, fd.as_raw_fd() as u32)
    }

    pub(super) fn u64(mut self, offset: usize, value: u64) -> Self {
        self.0[offset..offset + 8].copy_from_slice(&value.to_ne_bytes());
        self
    }

    /// Text in a field, filled up with NULs.
    pub(super) fn text(mut self, offset: usize, text: &str) -> Self {
        self.0[offset..offset + text.len()].copy_from_slice(text.as_bytes());
        self
    }

    pub(super) fn read_u32(&self, offset: usize) -> u32 {
        let b = &self.0[offset..offset + 4];
        u32::from_ne_bytes([b[0], b[1], b[2], b[3]])
    }
}

/// Makes the system call.
///
/// # Safety
/// Each address in `attr` that `command` reads from or writes to must be that of live memory of the
/// size that the command, the object's key and value size and the counts in `attr` call for.
pub(super) unsafe fn call(command: i32, attr: &mut Attr) -> io::Result<i32> {
    // SAFETY: `attr` is a live, exclusively borrowed buffer of the size that is passed; what it
    // points to is the caller's promise.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, attr.0.as_mut_ptr(), attr.0.len()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

/// The same for commands whose result is a file descriptor.
///
/// # Safety
/// As [`call`], and `command` must return a new descriptor.
pub(super) unsafe fn call_fd(command: i32, attr: &mut Attr) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise is ours to `call`.
    let fd = unsafe { call(command, attr)? };
    // SAFETY: the command succeeded, so `fd` is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Opens a pinned object.
///
/// # Errors
/// Nothing is pinned there, or it may not be opened.
pub fn obj_get(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut attr = Attr::new().u64(0, path.as_ptr() as u64);
    // SAFETY: the path is a NUL-terminated string that lives through the call; OBJ_GET returns a new
    // descriptor.
    unsafe { call_fd(command::OBJ_GET, &mut attr) }
}

/// Pins an object.
///
/// # Errors
/// The path exists, its folder doesn't, or it isn't on a BPF file system.
pub fn obj_pin(fd: impl AsFd, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attr = Attr::new().u64(0, path.as_ptr() as u64).fd(8, fd.as_fd());
    // SAFETY: the path is a NUL-terminated string that lives through the call.
    unsafe { call(command::OBJ_PIN, &mut attr).map(drop) }
}

/// The first bytes of the object's `bpf_*_info`, as many as the kernel fills.
///
/// # Safety
/// What `info` holds at the place of an address must be 0, or the address of live memory with room for as
/// many items as `info` says beside it.
pub(super) unsafe fn info<const SIZE: usize>(
    fd: impl AsFd,
    mut info: [u8; SIZE],
) -> io::Result<[u8; SIZE]> {
    let mut attr =
        Attr::new().fd(0, fd.as_fd()).u32(4, SIZE as u32).u64(8, info.as_mut_ptr() as u64);
    // SAFETY: the kernel writes at most `SIZE` bytes to `info`, which lives through the call; addresses
    // in it are the caller's promise.
    unsafe { call(command::OBJ_GET_INFO_BY_FD, &mut attr)? };
    Ok(info)
}

pub(super) fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    let b = &bytes[offset..offset + 4];
    u32::from_ne_bytes([b[0], b[1], b[2], b[3]])
}

/// What the kernel knows of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramInfo {
    pub id: u32,
    /// The first 15 bytes of it.
    pub name: String,
    pub map_ids: Vec<u32>,
}

/// Maps a program can hold (`MAX_USED_MAPS`, linux/bpf_verifier.h).
const PROGRAM_MAPS_MAX: usize = 64;

/// Reads a program's properties (`struct bpf_prog_info`).
///
/// # Errors
/// The descriptor is not a program.
pub fn program_info(fd: impl AsFd) -> io::Result<ProgramInfo> {
    let mut ids = [0u32; PROGRAM_MAPS_MAX];
    let mut request = [0u8; 80];
    request[52..56].copy_from_slice(&(ids.len() as u32).to_ne_bytes());
    request[56..64].copy_from_slice(&(ids.as_mut_ptr() as u64).to_ne_bytes());
    // SAFETY: `request` says that `ids` has room for `ids.len()` ids, and `ids` lives past the call.
    let bytes = unsafe { info(fd, request)? };
    let count = (u32_at(&bytes, 52) as usize).min(ids.len());
    let name = bytes[64..].split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(ProgramInfo {
        id: u32_at(&bytes, 4),
        name: String::from_utf8_lossy(name).into_owned(),
        map_ids: ids[..count].to_vec(),
    })
}

/// Opens a program by its id; `None` where there is none (any more).
///
/// # Errors
/// The kernel's answer.
pub fn program_by_id(id: u32) -> io::Result<Option<OwnedFd>> {
    let mut attr = Attr::new().u32(0, id);
    // SAFETY: the command reads no addresses and returns a new descriptor.
    match unsafe { call_fd(command::PROG_GET_FD_BY_ID, &mut attr) } {
        Ok(program) => Ok(Some(program)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// `enum bpf_link_type` of a link (`struct bpf_link_info`).
///
/// # Errors
/// The descriptor is not that of a BPF object.
pub fn link_type(fd: impl AsFd) -> io::Result<u32> {
    // SAFETY: the bytes hold no address.
    Ok(u32_at(&unsafe { info(fd, [0u8; 32])? }, 0))
}

/// What the kernel knows of a TCX link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcxLinkInfo {
    pub program_id: u32,
    /// 0 once the device is gone.
    pub ifindex: u32,
    pub attach_type: u32,
}

/// Reads a link's properties (`struct bpf_link_info`, union member `tcx`).
///
/// # Errors
/// The descriptor is not a link.
pub fn tcx_link_info(fd: impl AsFd) -> io::Result<TcxLinkInfo> {
    // SAFETY: the bytes hold no address.
    let bytes = unsafe { info(fd, [0u8; 32])? };
    Ok(TcxLinkInfo {
        program_id: u32_at(&bytes, 8),
        ifindex: u32_at(&bytes, 16),
        attach_type: u32_at(&bytes, 20),
    })
}

/// What the kernel knows of a link to a control group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CgroupLinkInfo {
    pub program_id: u32,
    /// 0 once the group is gone.
    pub cgroup_id: u64,
}

/// Reads a link's properties (`struct bpf_link_info`, union member `cgroup`).
///
/// # Errors
/// The descriptor is not a link.
pub fn cgroup_link_info(fd: impl AsFd) -> io::Result<CgroupLinkInfo> {
    // SAFETY: the bytes hold no address.
    let bytes = unsafe { info(fd, [0u8; 32])? };
    let cgroup_id = bytes[16..24].iter().rev().fold(0, |id, byte| id << 8 | u64::from(*byte));
    Ok(CgroupLinkInfo { program_id: u32_at(&bytes, 8), cgroup_id })
}

/// Attaches a program to a control group, beside those that are attached already.
///
/// # Errors
/// The descriptor is not that of a group, or the program is not of the attach type.
pub fn cgroup_link_create(
    program: impl AsFd,
    group: impl AsFd,
    attach_type: u32,
) -> io::Result<OwnedFd> {
    let mut attr = Attr::new().fd(0, program.as_fd()).fd(4, group.as_fd()).u32(8, attach_type);
    // SAFETY: LINK_CREATE reads no addresses for control groups and returns a new descriptor.
    unsafe { call_fd(command::LINK_CREATE, &mut attr) }
}

/// Attaches a program to a device behind those that are attached already (Linux 6.6). The device is
/// looked up in the calling thread's namespace.
///
/// # Errors
/// `EINVAL` where the kernel has no TCX, `ENODEV` without the device.
pub fn tcx_link_create(program: impl AsFd, ifindex: u32, attach_type: u32) -> io::Result<OwnedFd> {
    let mut attr = Attr::new().fd(0, program.as_fd()).u32(4, ifindex).u32(8, attach_type);
    // SAFETY: LINK_CREATE reads no addresses for TCX and returns a new descriptor.
    unsafe { call_fd(command::LINK_CREATE, &mut attr) }
}

/// What the kernel knows of an XDP link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XdpLinkInfo {
    pub program_id: u32,
    /// 0 once the device is gone, or the program was taken off it.
    pub ifindex: u32,
}

/// Reads a link's properties (`struct bpf_link_info`, union member `xdp`).
///
/// # Errors
/// The descriptor is not a link.
pub fn xdp_link_info(fd: impl AsFd) -> io::Result<XdpLinkInfo> {
    // SAFETY: the bytes hold no address.
    let bytes = unsafe { info(fd, [0u8; 32])? };
    Ok(XdpLinkInfo { program_id: u32_at(&bytes, 8), ifindex: u32_at(&bytes, 16) })
}

/// Attaches a program to a device at its driver, or where the kernel has the frame from that: [`XDP_NATIVE`] or
/// [`XDP_GENERIC`]. The device is looked up in the calling thread's namespace.
///
/// # Errors
/// `EOPNOTSUPP` where the driver has no XDP, `ERANGE` where the MTU is too large for it, `ENOSPC` where it has too
/// few queues; `EBUSY` or `EEXIST` where another program is attached; `ENODEV` without the device.
pub fn xdp_link_create(program: impl AsFd, ifindex: u32, mode: u32) -> io::Result<OwnedFd> {
    let mut attr = Attr::new().fd(0, program.as_fd()).u32(4, ifindex).u32(8, XDP).u32(12, mode);
    // SAFETY: LINK_CREATE reads no addresses for XDP and returns a new descriptor.
    unsafe { call_fd(command::LINK_CREATE, &mut attr) }
}

/// Takes a link's program off what it is attached to; the link stays, attached nowhere.
///
/// # Errors
/// The descriptor is not a link of a kind that can be detached.
pub fn link_detach(link: impl AsFd) -> io::Result<()> {
    let mut attr = Attr::new().fd(0, link.as_fd());
    // SAFETY: the command reads no addresses.
    unsafe { call(command::LINK_DETACH, &mut attr).map(drop) }
}

/// Swaps the program of a link; a packet meets the old one or the new one.
///
/// # Errors
/// The program's type doesn't fit the link's.
pub fn link_update(link: impl AsFd, program: impl AsFd) -> io::Result<()> {
    let mut attr = Attr::new().fd(0, link.as_fd()).fd(4, program.as_fd());
    // SAFETY: the command reads no addresses.
    unsafe { call(command::LINK_UPDATE, &mut attr).map(drop) }
}

/// Whether the kernel has TCX (6.6): asked for the programs of an ifindex that no device has, one
/// with TCX says `ENODEV`, one without says `EINVAL`.
pub fn has_tcx() -> bool {
    let mut attr = Attr::new().u32(0, i32::MAX as u32).u32(4, TCX_INGRESS);
    // SAFETY: the command is given no address of a buffer.
    let answer = unsafe { call(command::PROG_QUERY, &mut attr) };
    // A device may have that number after all.
    answer.map_or_else(|error| error.raw_os_error() == Some(libc::ENODEV), |_| true)
}
