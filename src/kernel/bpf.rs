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

/// Entries in one batch call.
const BATCH_ENTRIES_MAX: usize = 4096;

mod command {
    pub const MAP_CREATE: i32 = 0;
    pub const MAP_LOOKUP_ELEM: i32 = 1;
    pub const MAP_UPDATE_ELEM: i32 = 2;
    pub const MAP_DELETE_ELEM: i32 = 3;
    pub const MAP_GET_NEXT_KEY: i32 = 4;
    pub const OBJ_PIN: i32 = 6;
    pub const OBJ_GET: i32 = 7;
    pub const OBJ_GET_INFO_BY_FD: i32 = 15;
    pub const PROG_QUERY: i32 = 16;
    pub const MAP_LOOKUP_BATCH: i32 = 24;
    pub const MAP_UPDATE_BATCH: i32 = 26;
    pub const MAP_DELETE_BATCH: i32 = 27;
    pub const LINK_CREATE: i32 = 28;
    pub const LINK_UPDATE: i32 = 29;
}

/// `BPF_TCX_INGRESS` (Linux 6.6).
pub const TCX_INGRESS: u32 = 46;
/// `BPF_TCX_EGRESS` (Linux 6.6).
pub const TCX_EGRESS: u32 = 47;

/// `union bpf_attr`, written field by field. 128 bytes is more than any command used here reads.
#[repr(C, align(8))]
struct Attr([u8; 128]);

impl Attr {
    fn new() -> Self {
        Self([0; 128])
    }

    fn u32(mut self, offset: usize, value: u32) -> Self {
        self.0[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
        self
    }

    fn fd(self, offset: usize, fd: BorrowedFd<'_>) -> Self {
        self.u32(offset, fd.as_raw_fd() as u32)
    }

    fn u64(mut self, offset: usize, value: u64) -> Self {
        self.0[offset..offset + 8].copy_from_slice(&value.to_ne_bytes());
        self
    }

    fn read_u32(&self, offset: usize) -> u32 {
        let b = &self.0[offset..offset + 4];
        u32::from_ne_bytes([b[0], b[1], b[2], b[3]])
    }
}

/// Makes the system call.
///
/// # Safety
/// Each address in `attr` that `command` reads from or writes to must be that of live memory of the
/// size that the command, the object's key and value size and the counts in `attr` call for.
unsafe fn call(command: i32, attr: &mut Attr) -> io::Result<i32> {
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
unsafe fn call_fd(command: i32, attr: &mut Attr) -> io::Result<OwnedFd> {
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

/// What a map is made with. Sizes in bytes; `map_type` is `enum bpf_map_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapShape {
    pub map_type: u32,
    pub key_size: u32,
    pub value_size: u32,
    pub max_entries: u32,
    pub flags: u32,
}

/// Length of an object's name, with the NUL (`BPF_OBJ_NAME_LEN`).
pub const NAME_LEN: usize = 16;

/// A name as the kernel keeps it: cut to 15 bytes.
pub fn kernel_name(name: &str) -> &str {
    &name[..name.len().min(NAME_LEN - 1)]
}

/// Makes a map.
///
/// # Errors
/// The kernel doesn't know the type, or has no memory for it.
pub fn map_create(name: &str, shape: MapShape) -> io::Result<OwnedFd> {
    let mut attr = Attr::new()
        .u32(0, shape.map_type)
        .u32(4, shape.key_size)
        .u32(8, shape.value_size)
        .u32(12, shape.max_entries)
        .u32(16, shape.flags);
    let name = kernel_name(name).as_bytes();
    attr.0[28..28 + name.len()].copy_from_slice(name);
    // SAFETY: MAP_CREATE reads no addresses from these fields and returns a new descriptor.
    unsafe { call_fd(command::MAP_CREATE, &mut attr) }
}

/// The first bytes of the object's `bpf_*_info`, as many as the kernel fills.
fn info<const SIZE: usize>(fd: impl AsFd, mut info: [u8; SIZE]) -> io::Result<[u8; SIZE]> {
    let mut attr =
        Attr::new().fd(0, fd.as_fd()).u32(4, SIZE as u32).u64(8, info.as_mut_ptr() as u64);
    // SAFETY: the kernel writes at most `SIZE` bytes to `info`, which lives through the call. Callers
    // that put addresses into `info` answer for what those point to.
    unsafe { call(command::OBJ_GET_INFO_BY_FD, &mut attr)? };
    Ok(info)
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    let b = &bytes[offset..offset + 4];
    u32::from_ne_bytes([b[0], b[1], b[2], b[3]])
}

/// What the kernel knows of a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapInfo {
    pub id: u32,
    pub shape: MapShape,
}

/// Reads a map's properties (`struct bpf_map_info`).
///
/// # Errors
/// The descriptor is not a map.
pub fn map_info(fd: impl AsFd) -> io::Result<MapInfo> {
    let bytes = info(fd, [0u8; 40])?;
    let field = |offset| u32_at(&bytes, offset);
    Ok(MapInfo {
        id: field(4),
        shape: MapShape {
            map_type: field(0),
            key_size: field(8),
            value_size: field(12),
            max_entries: field(16),
            flags: field(20),
        },
    })
}

/// What the kernel knows of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramInfo {
    pub id: u32,
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
    // The kernel writes at most `ids.len()` ids to `ids`, which lives past the call.
    let bytes = info(fd, request)?;
    let count = (u32_at(&bytes, 52) as usize).min(ids.len());
    Ok(ProgramInfo { id: u32_at(&bytes, 4), map_ids: ids[..count].to_vec() })
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
    let bytes = info(fd, [0u8; 32])?;
    Ok(TcxLinkInfo {
        program_id: u32_at(&bytes, 8),
        ifindex: u32_at(&bytes, 16),
        attach_type: u32_at(&bytes, 20),
    })
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

/// Swaps the program of a link; a packet meets the old one or the new one.
///
/// # Errors
/// The program's type doesn't fit the link's.
pub fn link_update(link: impl AsFd, program: impl AsFd) -> io::Result<()> {
    let mut attr = Attr::new().fd(0, link.as_fd()).fd(4, program.as_fd());
    // SAFETY: the command reads no addresses.
    unsafe { call(command::LINK_UPDATE, &mut attr).map(drop) }
}

/// The value under a key, or `None`. `value_size` counts all CPUs for a per-CPU map.
///
/// # Errors
/// The descriptor is not a map.
pub fn map_lookup(
    map: impl AsFd,
    shape: MapShape,
    key: &[u8],
    value_size: usize,
) -> io::Result<Option<Vec<u8>>> {
    check_size(key, shape.key_size)?;
    // At least what the kernel writes for a map with values per CPU.
    let all_cpus = possible_cpus()? * (shape.value_size as usize).next_multiple_of(8);
    let mut value = vec![0; value_size.max(all_cpus)];
    let mut attr = Attr::new()
        .fd(0, map.as_fd())
        .u64(8, key.as_ptr() as u64)
        .u64(16, value.as_mut_ptr() as u64);
    // SAFETY: `key` has the map's key size (checked above) and `value` at least its value size.
    match unsafe { call(command::MAP_LOOKUP_ELEM, &mut attr) } {
        Ok(_) => {
            value.truncate(value_size);
            Ok(Some(value))
        }
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

fn check_size(bytes: &[u8], size: u32) -> io::Result<()> {
    if bytes.len() == size as usize { Ok(()) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

/// How many values a per-CPU map has under each key.
///
/// # Errors
/// /sys can't be read.
pub fn possible_cpus() -> io::Result<usize> {
    // "0-3" or "0": the kernel numbers possible CPUs without gaps.
    let text = std::fs::read_to_string("/sys/devices/system/cpu/possible")?;
    let last = text.trim().rsplit(['-', ',']).next().and_then(|last| last.parse::<usize>().ok());
    last.map(|last| last + 1).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// All keys of a map. An entry that is removed while it is read makes the walk start over.
///
/// # Errors
/// The descriptor is not a map.
pub fn map_keys(map: impl AsFd, shape: MapShape) -> io::Result<Vec<Vec<u8>>> {
    let mut keys: Vec<Vec<u8>> = Vec::new();
    let mut next = vec![0; shape.key_size as usize];
    loop {
        let previous = keys.last().map_or(0, |key| key.as_ptr() as u64);
        let mut attr =
            Attr::new().fd(0, map.as_fd()).u64(8, previous).u64(16, next.as_mut_ptr() as u64);
        // SAFETY: `previous` is null or a key of the map's key size, `next` has that size too.
        match unsafe { call(command::MAP_GET_NEXT_KEY, &mut attr) } {
            Ok(_) => keys.push(next.clone()),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(keys),
            Err(error) => return Err(error),
        }
        if keys.len() > 2 * shape.max_entries as usize {
            return Err(io::Error::other("the map changes faster than it can be read"));
        }
    }
}

/// All entries of a map whose values are not per CPU, in batches where the kernel can (5.6).
///
/// # Errors
/// The descriptor is not a map.
pub fn map_entries(map: impl AsFd, shape: MapShape) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let (key_size, value_size) = (shape.key_size as usize, shape.value_size as usize);
    let (mut entries, mut room) = (Vec::new(), BATCH_ENTRIES_MAX);
    // The cursor is a bucket number for hashes and a key for tries and arrays.
    let mut cursor: Option<Vec<u8>> = None;
    loop {
        let (mut keys, mut values) = (vec![0; room * key_size], vec![0; room * value_size]);
        let mut after = vec![0u8; key_size.max(8)];
        let mut attr = Attr::new()
            .u64(0, cursor.as_ref().map_or(0, |c| c.as_ptr() as u64))
            .u64(8, after.as_mut_ptr() as u64)
            .u64(16, keys.as_mut_ptr() as u64)
            .u64(24, values.as_mut_ptr() as u64)
            .u32(32, room as u32)
            .fd(36, map.as_fd());
        // SAFETY: `keys` and `values` have room for the `room` entries that are asked for, and both
        // cursors have at least 8 bytes and at least the key's size.
        let result = unsafe { call(command::MAP_LOOKUP_BATCH, &mut attr) };
        let errno = result.err().and_then(|error| error.raw_os_error());
        match errno {
            None | Some(libc::ENOENT) => {}
            // One bucket has more entries than there was room for.
            Some(libc::ENOSPC) if room < shape.max_entries as usize + BATCH_ENTRIES_MAX => {
                room *= 2;
                continue;
            }
            Some(errno) => return Err(io::Error::from_raw_os_error(errno)),
        }
        let count = attr.read_u32(32) as usize;
        let pairs = keys.chunks(key_size).zip(values.chunks(value_size)).take(count.min(room));
        entries.extend(pairs.map(|(key, value)| (key.to_vec(), value.to_vec())));
        if errno.is_some() {
            return Ok(entries);
        }
        cursor = Some(after);
    }
}

/// Writes entries, many in one system call, and returns how many were written before the first that
/// failed.
///
/// # Errors
/// The kernel's answer to the first that failed, with the number written before it.
pub fn map_update(
    map: impl AsFd,
    shape: MapShape,
    entries: &[(&[u8], &[u8])],
) -> Result<u64, (usize, io::Error)> {
    let mut calls = 0;
    for (index, chunk) in entries.chunks(BATCH_ENTRIES_MAX).enumerate() {
        let base = index * BATCH_ENTRIES_MAX;
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        for (key, value) in chunk {
            check_size(key, shape.key_size).map_err(|error| (base, error))?;
            check_size(value, shape.value_size).map_err(|error| (base, error))?;
            keys.extend_from_slice(key);
            values.extend_from_slice(value);
        }
        let mut attr = Attr::new()
            .u64(16, keys.as_ptr() as u64)
            .u64(24, values.as_ptr() as u64)
            .u32(32, chunk.len() as u32)
            .fd(36, map.as_fd());
        calls += 1;
        // SAFETY: `keys` and `values` hold `chunk.len()` items of the map's sizes (checked above).
        if let Err(error) = unsafe { call(command::MAP_UPDATE_BATCH, &mut attr) } {
            return Err((base + attr.read_u32(32) as usize, error));
        }
    }
    Ok(calls)
}

/// Writes one entry.
///
/// # Errors
/// The map is full, or the sizes don't fit.
pub fn map_update_one(map: impl AsFd, shape: MapShape, key: &[u8], value: &[u8]) -> io::Result<()> {
    check_size(key, shape.key_size)?;
    check_size(value, shape.value_size)?;
    let mut attr =
        Attr::new().fd(0, map.as_fd()).u64(8, key.as_ptr() as u64).u64(16, value.as_ptr() as u64);
    // SAFETY: both have the map's sizes (checked above).
    unsafe { call(command::MAP_UPDATE_ELEM, &mut attr).map(drop) }
}

/// Removes entries; one that is not there is no error.
///
/// # Errors
/// The descriptor is not a map, or the sizes don't fit.
pub fn map_delete(map: impl AsFd, shape: MapShape, keys: &[&[u8]]) -> io::Result<u64> {
    let mut calls = 0;
    for chunk in keys.chunks(BATCH_ENTRIES_MAX) {
        let mut bytes = Vec::with_capacity(chunk.len() * shape.key_size as usize);
        for key in chunk {
            check_size(key, shape.key_size)?;
            bytes.extend_from_slice(key);
        }
        let mut attr = Attr::new()
            .u64(16, bytes.as_ptr() as u64)
            .u32(32, chunk.len() as u32)
            .fd(36, map.as_fd());
        calls += 1;
        // SAFETY: `bytes` holds `chunk.len()` keys of the map's size (checked above).
        if unsafe { call(command::MAP_DELETE_BATCH, &mut attr) }.is_err() {
            // The batch stops at the first key that is not there: take the rest one by one.
            calls += map_delete_each(&map, shape, chunk)?;
        }
    }
    Ok(calls)
}

fn map_delete_each(map: impl AsFd, shape: MapShape, keys: &[&[u8]]) -> io::Result<u64> {
    for key in keys {
        check_size(key, shape.key_size)?;
        let mut attr = Attr::new().fd(0, map.as_fd()).u64(8, key.as_ptr() as u64);
        // SAFETY: `key` has the map's key size (checked above).
        match unsafe { call(command::MAP_DELETE_ELEM, &mut attr) } {
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => return Err(error),
            _ => {}
        }
    }
    Ok(keys.len() as u64)
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
