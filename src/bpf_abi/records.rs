//! The keys and values of the maps, as C lays them out, and their bytes.
//!
//! Pure. Imports the parent module only. Fields that end in `_be` are in network order, others in host
//! order. Padding is spelt out and written as zero; reading keeps it, so that foreign bytes survive.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{FAMILY_IPV4, FAMILY_IPV6, IPCACHE_STATIC_BITS};

/// A C structure as bytes.
pub trait Record: Copy + Sized {
    /// In bytes, equal to the C `sizeof`.
    const SIZE: usize;
    /// The fields in memory order.
    const FIELDS: &'static [Field];
}

/// Where a field lies in its structure; units are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    pub name: &'static str,
    pub offset: usize,
    pub size: usize,
}

/// The types a field may have.
pub trait Scalar: Sized {
    fn put(&self, out: &mut [u8]);
    fn take(bytes: &[u8]) -> Self;
}

macro_rules! scalar {
    ($($int:ty),*) => {$(
        impl Scalar for $int {
            fn put(&self, out: &mut [u8]) {
                out.copy_from_slice(&self.to_ne_bytes());
            }

            fn take(bytes: &[u8]) -> Self {
                let mut array = [0; size_of::<$int>()];
                array.copy_from_slice(bytes);
                <$int>::from_ne_bytes(array)
            }
        }
    )*};
}

scalar!(u8, u16, u32, u64, i8);

impl<const N: usize> Scalar for [u8; N] {
    fn put(&self, out: &mut [u8]) {
        out.copy_from_slice(self);
    }

    fn take(bytes: &[u8]) -> Self {
        let mut array = [0; N];
        array.copy_from_slice(bytes);
        array
    }
}

macro_rules! record {
    ($(#[$doc:meta])* $name:ident, $size:literal {
        $($(#[$field_doc:meta])* $field:ident: $type:ty,)*
    }) => {
        $(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }

        const _: () = assert!(size_of::<$name>() == $size);

        /// Zero, as arrays are in the kernel before they are written.
        impl Default for $name {
            fn default() -> Self {
                Self::from_bytes(&[0; $size])
            }
        }

        impl Record for $name {
            const SIZE: usize = $size;
            const FIELDS: &'static [Field] = &[$(Field {
                name: stringify!($field),
                offset: std::mem::offset_of!($name, $field),
                size: size_of::<$type>(),
            },)*];
        }

        impl $name {
            /// Returns the bytes the kernel stores.
            pub fn to_bytes(&self) -> [u8; $size] {
                let mut out = [0; $size];
                $(
                    let at = std::mem::offset_of!($name, $field);
                    self.$field.put(&mut out[at..at + size_of::<$type>()]);
                )*
                out
            }

            /// Returns what the kernel's bytes stand for.
            pub fn from_bytes(bytes: &[u8; $size]) -> Self {
                Self {$(
                    $field: {
                        let at = std::mem::offset_of!($name, $field);
                        <$type>::take(&bytes[at..at + size_of::<$type>()])
                    },
                )*}
            }
        }
    };
}

record! {
    /// Key of `cilium_lxc`: an address of this node.
    EndpointKey, 20 {
        /// IPv4 in the first four bytes, the rest zero.
        address_be: [u8; 16],
        /// [`FAMILY_IPV4`] or [`FAMILY_IPV6`].
        family: u8,
        key: u8,
        cluster_id: u16,
    }
}

record! {
    /// Value of `cilium_lxc`: who has the address.
    EndpointValue, 48 {
        /// Host side of the endpoint's veth; zero for the node's own addresses.
        ifindex: u32,
        unused: u16,
        endpoint_id: u16,
        /// `ENDPOINT_FLAG_*`.
        flags: u32,
        pad: u32,
        /// Of the endpoint's own interface.
        mac: [u8; 6],
        mac_pad: [u8; 2],
        /// Of the host side.
        node_mac: [u8; 6],
        node_mac_pad: [u8; 2],
        identity: u32,
        parent_ifindex: u32,
        reserved: [u8; 8],
    }
}

record! {
    /// Key of `cilium_ipcache_v2`: a prefix.
    IpcacheKey, 24 {
        /// In bits, the [`IPCACHE_STATIC_BITS`] before the address included.
        prefix_len: u32,
        cluster_id: u16,
        pad: u8,
        /// [`FAMILY_IPV4`] or [`FAMILY_IPV6`].
        family: u8,
        /// IPv4 in the first four bytes, the rest zero.
        address_be: [u8; 16],
    }
}

record! {
    /// Value of `cilium_ipcache_v2`: who is behind the prefix.
    IpcacheValue, 24 {
        identity: u32,
        /// IPv4 in the first four bytes, the rest zero.
        tunnel_endpoint_be: [u8; 16],
        pad: u16,
        /// Encryption key: 0 plain text, 255 WireGuard.
        key: u8,
        /// `IPCACHE_FLAG_*`.
        flags: u8,
    }
}

record! {
    /// Key of `cilium_metrics`: what happened, and where in the programs.
    MetricsKey, 8 {
        /// See [`super::reason_text`].
        reason: u8,
        /// `DIRECTION_*`.
        direction: u8,
        line: u16,
        /// See [`super::source_file`].
        file: u8,
        reserved: [u8; 3],
    }
}

record! {
    /// Value of `cilium_metrics`, of one CPU.
    MetricsValue, 16 {
        packets: u64,
        bytes: u64,
    }
}

record! {
    /// Key of `ciliate_device`: the host side of an endpoint's veth.
    DeviceKey, 4 {
        ifindex: u32,
    }
}

record! {
    /// Value of `ciliate_device`: the endpoint behind that veth.
    DeviceValue, 48 {
        endpoint_id: u16,
        /// None defined yet; zero.
        flags: u16,
        identity: u32,
        /// Zero when the endpoint has none.
        ipv4_be: [u8; 4],
        /// Zero when the endpoint has none.
        ipv6_be: [u8; 16],
        /// Of the endpoint's own interface.
        mac: [u8; 6],
        mac_pad: [u8; 2],
        /// Of the host side: what the endpoint takes for everyone's address.
        node_mac: [u8; 6],
        node_mac_pad: [u8; 2],
        reserved: u32,
    }
}

record! {
    /// Key of `ciliate_node`: zero.
    NodeKey, 4 {
        index: u32,
    }
}

record! {
    /// Value of `ciliate_node`: this node.
    NodeValue, 64 {
        /// Zero when the node has none.
        router_ipv4_be: [u8; 4],
        /// Zero when the node has none.
        router_ipv6_be: [u8; 16],
        host_ifindex: u32,
        net_ifindex: u32,
        /// Of `cilium_host`.
        host_mac: [u8; 6],
        /// Ports that the tunnel's device sends from, from this one on; zero where programs send nothing into
        /// the tunnel.
        tunnel_source_min: u16,
        /// Of `cilium_net`.
        net_mac: [u8; 6],
        /// The last of these ports.
        tunnel_source_max: u16,
        /// `NODE_FLAG_*`.
        flags: u32,
        /// Of `cilium_vxlan` or `cilium_geneve`; zero with native routing.
        tunnel_ifindex: u32,
        tunnel_mac: [u8; 6],
        tunnel_mac_pad: [u8; 2],
        /// UDP port that tunnels end at, which endpoints may not send to; zero with native routing.
        tunnel_port_be: [u8; 2],
        /// Longest packet, in bytes, that endpoints may send into the tunnel; zero is no limit.
        tunnel_mtu: u16,
    }
}

record! {
    /// Value of `ciliate_encryption`: how packets are encrypted. Zero: not at all.
    EncryptionValue, 16 {
        /// Of `cilium_wg0`; zero: there is none, and what has to be encrypted is dropped.
        ifindex: u32,
        /// `ENCRYPTION_FLAG_*`.
        flags: u32,
        /// UDP port of WireGuard.
        port_be: [u8; 2],
        /// Longest packet, in bytes, that it takes.
        mtu: u16,
        reserved: u32,
    }
}

record! {
    /// Key of `cilium_ct4_global` and `cilium_ct_any4_global`: a flow. As in Cilium, addresses are those of
    /// its replies, and ports those of its own packets.
    Ct4Key, 14 {
        /// Who began the flow.
        daddr_be: [u8; 4],
        /// Who it went to.
        saddr_be: [u8; 4],
        /// Port it went to.
        dport_be: [u8; 2],
        /// Port of who began the flow; of an ICMP echo the identifier.
        sport_be: [u8; 2],
        /// IP protocol number.
        protocol: u8,
        /// `CT_FLAG_*`.
        flags: u8,
    }
}

record! {
    /// Key of `cilium_ct6_global` and `cilium_ct_any6_global`: as [`Ct4Key`].
    Ct6Key, 38 {
        daddr_be: [u8; 16],
        saddr_be: [u8; 16],
        dport_be: [u8; 2],
        sport_be: [u8; 2],
        protocol: u8,
        flags: u8,
    }
}

record! {
    /// Value of the conntrack maps. Times are seconds of the monotonic clock.
    CtValue, 56 {
        reserved0: u64,
        backend_id: u64,
        packets: u64,
        bytes: u64,
        /// When the entry ends.
        lifetime: u32,
        /// `CT_BIT_*`.
        bits: u16,
        rev_nat: u16,
        reserved1: u16,
        /// TCP flags of packets out of the endpoint.
        tx_flags: u8,
        /// TCP flags of packets into the endpoint.
        rx_flags: u8,
        source_identity: u32,
        /// When a flag was new, or five seconds had gone by; by direction.
        last_tx_report: u32,
        last_rx_report: u32,
    }
}

record! {
    /// Key of `cilium_ipv4_frag_datagrams`: a packet in pieces.
    Frag4Key, 12 {
        daddr_be: [u8; 4],
        saddr_be: [u8; 4],
        id_be: [u8; 2],
        protocol: u8,
        pad: u8,
    }
}

record! {
    /// Key of `cilium_ipv6_frag_datagrams`: a packet in pieces.
    Frag6Key, 40 {
        id_be: [u8; 4],
        protocol: u8,
        pad: [u8; 3],
        saddr_be: [u8; 16],
        daddr_be: [u8; 16],
    }
}

record! {
    /// Value of both: what the first piece said.
    FragValue, 4 {
        sport_be: [u8; 2],
        dport_be: [u8; 2],
    }
}

record! {
    /// Value of `ciliate_monitor`: who listens to events.
    MonitorValue, 104 {
        /// Bit n: slot n of `ciliate_events` is read.
        readers: u32,
        /// Event types that anybody wants, as `1 << type`; zero when nobody listens.
        types: u32,
        /// [`MONITOR_SLOTS`](super::MONITOR_SLOTS) of [`MonitorFilter`].
        filters: [u8; 96],
    }
}

record! {
    /// What one reader wants to see. Zero: any endpoint.
    MonitorFilter, 12 {
        /// As `1 << type`.
        types: u32,
        from: u16,
        to: u16,
        related: u16,
        pad: u16,
    }
}

record! {
    /// Stands before each record in a ring of events.
    EventHead, 16 {
        /// Of the monotonic clock.
        time_ns: u64,
        cpu: u32,
        /// In bytes: the record and what was captured of the packet.
        len: u32,
    }
}

/// An address in the 16 bytes the maps have for one, and its family.
fn address_bytes(address: IpAddr) -> ([u8; 16], u8) {
    match address {
        IpAddr::V4(v4) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&v4.octets());
            (bytes, FAMILY_IPV4)
        }
        IpAddr::V6(v6) => (v6.octets(), FAMILY_IPV6),
    }
}

/// The reverse of [`address_bytes`]; `None` for an unknown family.
fn bytes_address(bytes: [u8; 16], family: u8) -> Option<IpAddr> {
    match family {
        FAMILY_IPV4 => Some(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into()),
        FAMILY_IPV6 => Some(Ipv6Addr::from(bytes).into()),
        _ => None,
    }
}

impl EndpointKey {
    /// The key of an address.
    pub fn new(address: IpAddr) -> Self {
        let (address_be, family) = address_bytes(address);
        Self { address_be, family, ..Self::default() }
    }

    /// The address, unless the family is unknown.
    pub fn address(&self) -> Option<IpAddr> {
        bytes_address(self.address_be, self.family)
    }
}

impl IpcacheKey {
    /// The key of a prefix. Bits of the address behind `prefix_len` are cleared, since the kernel
    /// keeps them and a dump would show them.
    pub fn new(address: IpAddr, prefix_len: u8) -> Self {
        let (mut address_be, family) = address_bytes(address);
        for (index, byte) in address_be.iter_mut().enumerate() {
            let kept = usize::from(prefix_len).saturating_sub(index * 8).min(8);
            *byte &= (0xff00_u16 >> kept) as u8;
        }
        let prefix_len = IPCACHE_STATIC_BITS + u32::from(prefix_len);
        Self { prefix_len, family, address_be, ..Self::default() }
    }

    /// The address and the length of its prefix, unless the family is unknown.
    pub fn prefix(&self) -> Option<(IpAddr, u8)> {
        let len = self.prefix_len.checked_sub(IPCACHE_STATIC_BITS)?;
        Some((bytes_address(self.address_be, self.family)?, u8::try_from(len).ok()?))
    }
}

impl IpcacheValue {
    /// A prefix reached without a tunnel.
    pub fn new(identity: u32) -> Self {
        Self { identity, ..Self::default() }
    }

    /// A prefix of a peer that is reached past the host's stack.
    pub fn direct(identity: u32) -> Self {
        Self { identity, flags: super::IPCACHE_FLAG_SKIP_TUNNEL, ..Self::default() }
    }

    /// A prefix behind the tunnel that ends at a node's address.
    pub fn behind_tunnel(identity: u32, endpoint: IpAddr) -> Self {
        let (tunnel_endpoint_be, family) = address_bytes(endpoint);
        let mut flags = super::IPCACHE_FLAG_HAS_TUNNEL_ENDPOINT;
        if family == FAMILY_IPV6 {
            flags |= super::IPCACHE_FLAG_IPV6_TUNNEL_ENDPOINT;
        }
        Self { identity, tunnel_endpoint_be, flags, ..Self::default() }
    }

    /// The node's address that the tunnel ends at, if the prefix is behind one.
    pub fn tunnel_endpoint(&self) -> Option<IpAddr> {
        if self.flags & super::IPCACHE_FLAG_HAS_TUNNEL_ENDPOINT == 0 {
            return None;
        }
        let is_ipv6 = self.flags & super::IPCACHE_FLAG_IPV6_TUNNEL_ENDPOINT != 0;
        bytes_address(self.tunnel_endpoint_be, if is_ipv6 { FAMILY_IPV6 } else { FAMILY_IPV4 })
    }
}

impl DeviceKey {
    /// The key of an interface index.
    pub fn new(ifindex: u32) -> Self {
        Self { ifindex }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_round_trip() {
        let bytes: [u8; 48] = std::array::from_fn(|index| index as u8);
        assert_eq!(EndpointValue::from_bytes(&bytes).to_bytes(), bytes);
        assert_eq!(DeviceValue::from_bytes(&bytes).to_bytes(), bytes);
        let bytes: [u8; 64] = std::array::from_fn(|index| index as u8);
        assert_eq!(NodeValue::from_bytes(&bytes).to_bytes(), bytes);
        let bytes: [u8; 56] = std::array::from_fn(|index| index as u8);
        assert_eq!(CtValue::from_bytes(&bytes).to_bytes(), bytes);
    }

    #[test]
    fn keys_are_the_documented_bytes() {
        let key = EndpointKey::new(Ipv4Addr::new(10, 244, 0, 49).into());
        let mut expected = [0; 20];
        expected[..4].copy_from_slice(&[10, 244, 0, 49]);
        expected[16] = 1;
        assert_eq!(key.to_bytes(), expected);

        let key = IpcacheKey::new(Ipv4Addr::new(10, 244, 255, 255).into(), 17);
        let bytes = key.to_bytes();
        assert_eq!(bytes[..4], 49_u32.to_ne_bytes());
        assert_eq!(bytes[4..12], [0, 0, 0, 1, 10, 244, 128, 0]);
        assert_eq!(key.prefix(), Some((Ipv4Addr::new(10, 244, 128, 0).into(), 17)));
    }

    #[test]
    fn prefixes_of_length_zero_and_full_length() {
        let all = IpcacheKey::new(Ipv6Addr::from([0xff; 16]).into(), 0);
        assert_eq!((all.prefix_len, all.address_be), (32, [0; 16]));
        let host = IpcacheKey::new(Ipv6Addr::from([0xff; 16]).into(), 128);
        assert_eq!((host.prefix_len, host.address_be), (160, [0xff; 16]));
    }

    #[test]
    fn fields_leave_no_gap() {
        fn check<R: Record>() {
            let mut at = 0;
            for field in R::FIELDS {
                assert_eq!(field.offset, at, "{field:?}");
                at += field.size;
            }
            assert_eq!(at, R::SIZE);
        }
        check::<EndpointKey>();
        check::<EndpointValue>();
        check::<IpcacheKey>();
        check::<IpcacheValue>();
        check::<MetricsKey>();
        check::<MetricsValue>();
        check::<DeviceValue>();
        check::<NodeValue>();
        check::<EncryptionValue>();
        check::<Ct4Key>();
        check::<Ct6Key>();
        check::<CtValue>();
        check::<Frag4Key>();
        check::<Frag6Key>();
        check::<MonitorValue>();
        check::<MonitorFilter>();
    }
}
