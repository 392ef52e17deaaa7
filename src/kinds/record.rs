//! The keys of the records in `ciliate_before`. What belongs to a device is named by its ifindex, which stays
//! when the device is given another name. Pure; imports `net`.

use crate::net::IfName;

/// What a record of a setting begins with; its path follows, with the ifindex in place of the device.
const SETTING: &str = "sysctl:";

/// What the record of a clsact qdisc that we added to a foreign device begins with; the device follows.
const CLSACT: &str = "clsact:";

/// The record of the network namespace that the node is in.
pub const NAMESPACE: &str = "namespace";

/// What a record holds whose value nobody knows any more: it was lost while the setting had our value already.
/// `destroy` leaves such a setting as it is. No setting has this value.
pub const LOST: &str = "?";

/// What stands for a device. No device has such a name: there is no colon in names.
const IFINDEX: &str = "ifindex:";

/// Where the device is in `net/ipv4/conf/<device>/forwarding`.
const DEVICE_PART: usize = 3;

fn ifindex_in(text: &str) -> Option<u32> {
    text.strip_prefix(IFINDEX)?.parse().ok()
}

/// The path with another device, if it has one and `other` knows what to write there.
fn with_device(path: &str, other: impl FnOnce(&str) -> Option<String>) -> Option<String> {
    let mut parts: Vec<&str> = path.split('/').collect();
    let device = other(parts.get(DEVICE_PART)?)?;
    parts[DEVICE_PART] = &device;
    Some(parts.join("/"))
}

/// The record of a setting; `ifindex` is asked for that of a device.
pub fn of_setting(path: &str, ifindex: impl Fn(&str) -> Option<u32>) -> String {
    let of_device = with_device(path, |name| Some(format!("{IFINDEX}{}", ifindex(name)?)));
    format!("{SETTING}{}", of_device.as_deref().unwrap_or(path))
}

/// The setting that a record is about, under the name that its device has now. `None`: it is about
/// something else, or the device is gone.
pub fn setting(record: &str, name: impl Fn(u32) -> Option<IfName>) -> Option<String> {
    let path = record.strip_prefix(SETTING)?;
    match path.split('/').nth(DEVICE_PART).and_then(ifindex_in) {
        None => Some(path.to_string()),
        Some(ifindex) => with_device(path, |_| Some(name(ifindex)?.to_string())),
    }
}

/// The record of a clsact qdisc.
pub fn of_clsact(ifindex: u32) -> String {
    format!("{CLSACT}{IFINDEX}{ifindex}")
}

/// The device of whose clsact qdisc a record is.
pub fn clsact(record: &str) -> Option<u32> {
    ifindex_in(record.strip_prefix(CLSACT)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXTERNAL: &str = "net/ipv4/conf/eth0.100/forwarding";

    #[test]
    fn records_follow_their_devices() {
        let index = |name: &str| (name == "eth0.100").then_some(7);
        let record = of_setting(EXTERNAL, index);
        assert_eq!(record, "sysctl:net/ipv4/conf/ifindex:7/forwarding");
        let renamed = |ifindex| (ifindex == 7).then(|| "wan".parse().ok()).flatten();
        assert_eq!(setting(&record, renamed).as_deref(), Some("net/ipv4/conf/wan/forwarding"));
        assert_eq!(setting(&record, |_| None), None, "the device is gone");
        for of_all in ["net/ipv4/conf/all/forwarding", "net/core/somaxconn", "kernel/threads-max"] {
            let record = of_setting(of_all, index);
            assert_eq!(record, format!("sysctl:{of_all}"));
            assert_eq!(setting(&record, |_| None).as_deref(), Some(of_all));
        }
        assert_eq!(clsact(&of_clsact(7)), Some(7));
        assert_eq!(clsact(&record), None);
        assert_eq!(setting(&of_clsact(7), renamed), None);
    }
}
