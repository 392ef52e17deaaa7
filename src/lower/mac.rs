//! Ethernet addresses of our devices: derived from names, so that a device that has to be made anew
//! keeps its address and nobody's neighbour table goes stale. Pure.

use sha2::{Digest, Sha256};

use crate::net::Mac;

/// The address of a device that plays `role` for `name`: locally administered, unicast.
pub fn derive(role: &str, name: &str) -> Mac {
    let digest = Sha256::new().chain_update(role).chain_update([0]).chain_update(name).finalize();
    let mut bytes = [0; 6];
    bytes.copy_from_slice(&digest[..6]);
    bytes[0] = bytes[0] & 0xfc | 0x02;
    Mac(bytes)
}

/// The address of the device in the endpoint's namespace.
pub fn of_endpoint(name: &str) -> Mac {
    derive("endpoint", name)
}

/// The addresses of the health endpoint's device, and of the host's end of its veth.
pub fn of_health() -> (Mac, Mac) {
    (derive("health", ""), derive("lxc_health", ""))
}

/// The address of the host's end of the endpoint's veth.
pub fn of_lxc(name: &str) -> Mac {
    derive("lxc", name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_local_unicast_and_differ_by_role_and_name() {
        let (a, b, c) = (of_endpoint("client"), of_lxc("client"), of_endpoint("server"));
        assert!(a != b && a != c && b != c);
        assert!([a, b, c].iter().all(|mac| mac.is_unicast() && mac.0[0] & 2 == 2));
        assert_eq!(a, of_endpoint("client"));
    }
}
