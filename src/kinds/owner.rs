//! How an object shows that it is ours. Pure; imports nothing.

/// `rtm_protocol` of our routes, rules and neighbours, and `IFA_PROTO` of our addresses. Not in
/// /etc/iproute2/rt_protos of any distribution we know, nor used by FRR, BIRD, Cilium (2) or
/// Calico (80).
pub const PROTOCOL: u8 = 203;

/// `IFLA_GROUP` of our links: the letters "cili".
pub const LINK_GROUP: u32 = 0x6369_6c69;

/// Kinds of link that we make (`IFLA_INFO_KIND`). A link of another kind is foreign, whatever group
/// somebody put it into.
pub const LINK_KINDS: [&str; 4] = ["veth", "vxlan", "geneve", "wireguard"];

/// Groups of our links on their way out: this bit and the ifindex of one of them. `ip` takes no number
/// as high, so nobody is in such a group by accident.
pub const LINK_GROUP_DOOMED: u32 = 1 << 31;

/// What the alias of each of our links begins with.
pub const LINK_ALIAS_PREFIX: &str = "ciliate";

/// Our nftables table, family `inet`.
pub const NFTABLES_TABLE: &str = "ciliate";
