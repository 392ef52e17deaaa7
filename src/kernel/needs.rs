//! What every look at the kernel needs: a kernel that is new enough, and the capabilities. Asked once, before
//! anything is tried, so that one message says what is wrong, and not each object on its own.
//!
//! Imports the parent module only.

use rustix::system::uname;
use rustix::thread::{CapabilitySet, capabilities};

use super::KernelError;

/// The oldest Linux whose verifier, links and netlink are known to take what ciliate asks for.
const OLDEST: (u32, u32) = (6, 1);

/// Without these hardly anything works, reading included. `CAP_SYS_ADMIN` stands for `CAP_BPF` and
/// `CAP_PERFMON` too; what else is needed for single features is said where that fails.
const NEEDED: &[(CapabilitySet, &str)] =
    &[(CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"), (CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN")];

/// Checks both.
///
/// # Errors
/// [`KernelError::TooOld`], [`KernelError::Incapable`].
pub fn check() -> Result<(), KernelError> {
    let name = uname();
    let release = name.release().to_string_lossy();
    // One that doesn't say so in numbers is given the chance.
    if version(&release).is_some_and(|version| version < OLDEST) {
        let (major, minor) = OLDEST;
        let oldest = format!("{major}.{minor}");
        return Err(KernelError::TooOld { release: release.into_owned(), oldest });
    }
    // What can't be asked is found out by trying.
    let Ok(sets) = capabilities(None) else { return Ok(()) };
    let missing = missing(sets.effective);
    if missing.is_empty() { Ok(()) } else { Err(KernelError::Incapable { missing }) }
}

fn missing(effective: CapabilitySet) -> String {
    let missing = NEEDED.iter().filter(|(capability, _)| !effective.contains(*capability));
    missing.map(|(_, name)| *name).collect::<Vec<_>>().join(" and ")
}

/// The first two numbers of a release, as of `6.1.0-18-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_as_numbers() {
        assert_eq!(version("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(version("6.18.44"), Some((6, 18)));
        assert_eq!(version("7.0-rc1"), Some((7, 0)));
        assert_eq!(version("next"), None);
        assert!(version("5.19.17") < Some(OLDEST) && version("6.10.1") > Some(OLDEST));
    }

    #[test]
    fn all_that_is_missing_is_named() {
        assert_eq!(missing(CapabilitySet::all()), "");
        assert_eq!(missing(CapabilitySet::NET_ADMIN), "CAP_SYS_ADMIN");
        assert_eq!(missing(CapabilitySet::empty()), "CAP_NET_ADMIN and CAP_SYS_ADMIN");
    }
}
