//! Memory that this process has freed and still holds. Imports nothing of this crate.

/// Gives it back to the kernel: a round over many objects needs several times what is kept until the next one, and
/// the allocator would keep all of that. Other C libraries than glibc see to it themselves, or have no such call.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: `malloc_trim` takes no pointer and touches only memory that nobody has allocated; it takes the
    // allocator's own locks, so other threads may allocate meanwhile.
    unsafe {
        libc::malloc_trim(0);
    }
}
