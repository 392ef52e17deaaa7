//! Files below /proc/sys. /proc/sys/net shows the namespace of the thread that opens them.

use std::fs;
use std::io;
use std::path::PathBuf;

fn file(path: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(path)
}

/// The value without white space around it, or `None` where there is no such setting.
///
/// # Errors
/// The file exists and can't be read.
pub fn read(path: &str) -> io::Result<Option<String>> {
    match fs::read_to_string(file(path)) {
        Ok(text) => Ok(Some(text.trim().to_string())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Sets a value.
///
/// # Errors
/// There is no such setting, it is read-only, or the kernel refuses the value.
pub fn write(path: &str, value: &str) -> io::Result<()> {
    fs::write(file(path), value)
}
