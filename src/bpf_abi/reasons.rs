//! The numbers in counters and events, and what Cilium calls them.
//!
//! Pure. Imports nothing. The programs use few of them; tables are whole, so that counters another
//! version left in a pinned map still read well.

/// The source address is not the endpoint's own.
pub const DROP_INVALID_SOURCE_IP: u8 = 132;
/// Cut off, or not what its Ethernet type says.
pub const DROP_INVALID_PACKET: u8 = 134;
/// Ports or what stands for them cut off.
pub const DROP_CT_INVALID_HEADER: u8 = 135;
/// Too long for the tunnel, and nobody may be told.
pub const DROP_FRAG_NEEDED: u8 = 136;
/// Neither TCP, UDP, SCTP nor ICMP of the family.
pub const DROP_CT_UNKNOWN_PROTOCOL: u8 = 137;
/// Neither IPv4, IPv6 nor ARP; or of a VLAN.
pub const DROP_UNSUPPORTED_L3: u8 = 139;
/// The kernel refused to change the packet's size.
pub const DROP_WRITE_ERROR: u8 = 141;
/// From the tunnel's device, but not by the tunnel.
pub const DROP_NO_TUNNEL_KEY: u8 = 147;
/// A neighbour solicitation for an address nobody here has.
pub const DROP_UNKNOWN_TARGET: u8 = 150;
/// Sent to an endpoint CIDR, but no endpoint has the address.
pub const DROP_UNROUTABLE: u8 = 151;
/// A packet to or from a service whose transport checksum can't be corrected: it is cut off, or SCTP's, of
/// which no program can make one.
pub const DROP_L4_CHECKSUM: u8 = 154;
/// The conntrack map takes no more entries.
pub const DROP_CT_INSERT_FAILED: u8 = 155;
/// Extension headers cut off, or too many, or nothing behind them.
pub const DROP_INVALID_EXTENSION_HEADER: u8 = 156;
/// A service without backends, or one whose entries are half there.
pub const DROP_NO_BACKEND: u8 = 158;
/// The ipcache says by tunnel, but not where to.
pub const DROP_NO_TUNNEL_ENDPOINT: u8 = 160;
/// From a device that `ciliate_device` does not have.
pub const DROP_NO_CONFIG: u8 = 165;
/// Not Ethernet II.
pub const DROP_UNSUPPORTED_L2: u8 = 166;
/// All ports of the node are in use for a client's backend, or what a flow went by is not known any more.
pub const DROP_NO_MAPPING: u8 = 167;
/// No route to a backend, or back to a client; or the packet is too long for it.
pub const DROP_NO_ROUTE: u8 = 169;
/// An endpoint sends to the port that tunnels end at.
pub const DROP_ENCAP_PROHIBITED: u8 = 170;
/// Another node says it was this one.
pub const DROP_INVALID_IDENTITY: u8 = 171;
/// From outside to what is for endpoints and the node alone.
pub const DROP_CLUSTER_IP: u8 = 174;
/// A fragment came before the first one of its packet, or too long after it.
pub const DROP_FRAGMENT_NOT_FOUND: u8 = 175;
/// The service is not for this client.
pub const DROP_SOURCE_RANGE: u8 = 177;
/// Of a VLAN, in the tunnel.
pub const DROP_VLAN_FILTERED: u8 = 182;
/// Would have left in plain text.
pub const DROP_UNENCRYPTED: u8 = 195;
/// Time to live or hop limit used up.
pub const DROP_TTL_EXCEEDED: u8 = 196;

/// Reasons from here on are drops.
pub const DROP_FIRST: u8 = 130;

/// Every reason and its text, by number.
pub const REASONS: &[(u8, &str)] = &[
    (0, "Forwarded"),
    (3, "Interface"),
    (4, "Interface decrypted"),
    (5, "No backend slot"),
    (6, "No backend entry"),
    (7, "Reverse NAT update failed"),
    (8, "Reverse NAT stale"),
    (9, "Fragmented packet"),
    (10, "Fragment update failed"),
    (11, "Missed custom tail call"),
    (12, "Decrypting"),
    (13, "Encrypting"),
    (14, "Reverse NAT deleted"),
    (130, "Invalid source mac"),
    (131, "Invalid destination mac"),
    (132, "Invalid source ip"),
    (133, "Policy denied"),
    (134, "Invalid packet"),
    (135, "CT: Truncated or invalid header"),
    (136, "Fragmentation needed"),
    (137, "CT: Unknown L4 protocol"),
    (139, "Unsupported L3 protocol"),
    (140, "Missed tail call"),
    (141, "Error writing to packet"),
    (142, "Unknown L4 protocol"),
    (143, "Unknown ICMPv4 code"),
    (144, "Unknown ICMPv4 type"),
    (145, "Unknown ICMPv6 code"),
    (146, "Unknown ICMPv6 type"),
    (147, "Error retrieving tunnel key"),
    (150, "Unknown L3 target address"),
    (151, "Stale or unroutable IP"),
    (153, "Error while correcting L3 checksum"),
    (154, "Error while correcting L4 checksum"),
    (155, "CT: Map insertion failed"),
    (156, "Invalid IPv6 extension header"),
    (157, "IP fragmentation not supported"),
    (158, "Service backend not found"),
    (160, "No tunnel/encapsulation endpoint"),
    (161, "NAT 46/64 not enabled"),
    (162, "Reached EDT rate-limiting drop horizon"),
    (163, "Unknown connection tracking state"),
    (164, "Local host is unreachable"),
    (165, "No configuration available"),
    (166, "Unsupported L2 protocol"),
    (167, "No mapping for NAT masquerade"),
    (168, "Unsupported protocol for NAT masquerade"),
    (169, "FIB lookup failed"),
    (170, "Encapsulation traffic is prohibited"),
    (171, "Invalid identity"),
    (172, "Unknown sender"),
    (173, "NAT not needed"),
    (174, "Is a ClusterIP"),
    (175, "First logical datagram fragment not found"),
    (176, "Forbidden ICMPv6 message"),
    (177, "Denied by LB src range check"),
    (178, "Socket lookup failed"),
    (179, "Socket assign failed"),
    (180, "Proxy redirection not supported for protocol"),
    (181, "Policy denied by denylist"),
    (182, "VLAN traffic disallowed by VLAN filter"),
    (183, "Incorrect VNI from VTEP"),
    (184, "Failed to update or lookup TC buffer"),
    (185, "No SID was found for the IP address"),
    (186, "SRv6 state removed during tail call"),
    (187, "NAT46 translation failed"),
    (188, "NAT64 translation failed"),
    (189, "Authentication required"),
    (190, "No conntrack map found"),
    (191, "No nat map found"),
    (192, "Invalid ClusterID"),
    (193, "Unsupported packet protocol for DSR encapsulation"),
    (194, "No egress gateway found"),
    (195, "Traffic is unencrypted"),
    (196, "TTL exceeded"),
    (197, "No node ID found"),
    (198, "Rate limited"),
    (199, "IGMP handled"),
    (200, "IGMP subscribed"),
    (201, "Multicast handled"),
    (202, "Host datapath not ready"),
    (203, "Endpoint policy program not available"),
    (204, "No Egress IP configured"),
    (205, "Punt to proxy"),
];

/// Every source file that counts and its number.
pub const SOURCE_FILES: &[(u8, &str)] = &[
    (1, "bpf_host.c"),
    (2, "bpf_lxc.c"),
    (3, "bpf_overlay.c"),
    (4, "bpf_xdp.c"),
    (5, "bpf_sock.c"),
    (6, "bpf_network.c"),
    (7, "bpf_wireguard.c"),
    (101, "arp.h"),
    (102, "drop.h"),
    (103, "srv6.h"),
    (104, "icmp6.h"),
    (105, "nodeport.h"),
    (106, "lb.h"),
    (107, "mcast.h"),
    (108, "ipv4.h"),
    (109, "conntrack.h"),
    (110, "local_delivery.h"),
    (111, "trace.h"),
    (112, "encap.h"),
    (113, "encrypt.h"),
    (114, "host_firewall.h"),
    (115, "nodeport_egress.h"),
    (116, "ipv6.h"),
    (117, "classifiers.h"),
];

/// Returns the text of a reason, `None` for one Cilium does not use.
pub fn reason_text(reason: u8) -> Option<&'static str> {
    find(REASONS, reason)
}

/// Returns the name of a source file, `None` for an unknown one.
pub fn source_file(file: u8) -> Option<&'static str> {
    find(SOURCE_FILES, file)
}

fn find(table: &[(u8, &'static str)], number: u8) -> Option<&'static str> {
    let at = table.binary_search_by_key(&number, |(number, _)| *number).ok()?;
    Some(table[at].1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_sorted() {
        assert!(REASONS.is_sorted_by(|a, b| a.0 < b.0));
        assert!(SOURCE_FILES.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn numbers_have_texts() {
        assert_eq!(reason_text(DROP_UNKNOWN_TARGET), Some("Unknown L3 target address"));
        assert_eq!(reason_text(159), None);
        assert_eq!(source_file(2), Some("bpf_lxc.c"));
        assert_eq!(source_file(0), None);
    }
}
