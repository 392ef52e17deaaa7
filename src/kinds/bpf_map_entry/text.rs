//! Keys and values of our maps as text. Pure; imports `bpf_abi`.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::bpf_abi::{
    self, DeviceKey, DeviceValue, EncryptionValue, EndpointKey, EndpointValue, IpcacheKey,
    IpcacheValue, NodeValue, UnderlayValue,
};
use crate::kinds::bpf_map::{self, MapName};
use crate::kinds::record;
use crate::net::Mac;

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes that hexadecimal digits stand for.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).ok()).collect()
}

/// A key as an operator knows it; hexadecimal where the bytes make no sense.
pub fn key(map: MapName, bytes: &[u8]) -> String {
    let decoded = match map.def().name {
        bpf_abi::CILIUM_LXC => <&[u8; 20]>::try_from(bytes)
            .ok()
            .and_then(|b| EndpointKey::from_bytes(b).address())
            .map(|address| address.to_string()),
        bpf_abi::CILIUM_IPCACHE => <&[u8; 24]>::try_from(bytes)
            .ok()
            .and_then(|b| IpcacheKey::from_bytes(b).prefix())
            .map(|(address, len)| format!("{address}/{len}")),
        bpf_abi::CILIATE_DEVICE => <&[u8; 4]>::try_from(bytes)
            .ok()
            .map(|b| format!("ifindex {}", DeviceKey::from_bytes(b).ifindex)),
        bpf_abi::CILIATE_ENCRYPTION | bpf_abi::CILIATE_NODE | bpf_abi::CILIATE_UNDERLAY => {
            Some("node".to_string())
        }
        bpf_map::BEFORE_NAME => Some(c_text(bytes)),
        _ => None,
    };
    decoded.unwrap_or_else(|| hex(bytes))
}

/// A value as an operator knows it; hexadecimal where the bytes make no sense.
pub fn value(map: MapName, bytes: &[u8]) -> String {
    let decoded = match map.def().name {
        bpf_abi::CILIUM_LXC => {
            <&[u8; 48]>::try_from(bytes).ok().map(|b| endpoint(&EndpointValue::from_bytes(b)))
        }
        bpf_abi::CILIUM_IPCACHE => {
            <&[u8; 24]>::try_from(bytes).ok().map(|b| ipcache(&IpcacheValue::from_bytes(b)))
        }
        bpf_abi::CILIATE_DEVICE => {
            <&[u8; 48]>::try_from(bytes).ok().map(|b| device(&DeviceValue::from_bytes(b)))
        }
        bpf_abi::CILIATE_NODE => {
            <&[u8; 64]>::try_from(bytes).ok().map(|b| node(&NodeValue::from_bytes(b)))
        }
        bpf_abi::CILIATE_UNDERLAY => {
            <&[u8; 24]>::try_from(bytes).ok().map(|b| underlay(&UnderlayValue::from_bytes(b)))
        }
        bpf_abi::CILIATE_ENCRYPTION => {
            <&[u8; 16]>::try_from(bytes).ok().map(|b| encryption(&EncryptionValue::from_bytes(b)))
        }
        bpf_map::BEFORE_NAME if c_text(bytes) == record::LOST => Some("was not known".into()),
        bpf_map::BEFORE_NAME => Some(format!("was {:?}", c_text(bytes))),
        _ => None,
    };
    decoded.unwrap_or_else(|| hex(bytes))
}

fn endpoint(value: &EndpointValue) -> String {
    let host = if value.flags & bpf_abi::ENDPOINT_FLAG_HOST != 0 { " (localhost)" } else { "" };
    format!(
        "id={} sec_id={} flags=0x{:04x} ifindex={} mac={} nodemac={}{host}",
        value.endpoint_id,
        value.identity,
        value.flags,
        value.ifindex,
        Mac(value.mac),
        Mac(value.node_mac),
    )
}

/// Without what is as good as always the same.
fn ipcache(value: &IpcacheValue) -> String {
    let mut text = format!("identity={}", value.identity);
    if value.key != 0 {
        text += &format!(" encryptkey={}", value.key);
    }
    if let Some(endpoint) = value.tunnel_endpoint() {
        text += &format!(" tunnelendpoint={endpoint}");
    }
    if value.flags != 0 {
        text += &format!(" flags={}", ipcache_flags(value.flags));
    }
    text
}

/// The flags of an entry of the ipcache, in Cilium's words.
pub fn ipcache_flags(flags: u8) -> String {
    let names = [
        (bpf_abi::IPCACHE_FLAG_SKIP_TUNNEL, "skiptunnel"),
        (bpf_abi::IPCACHE_FLAG_HAS_TUNNEL_ENDPOINT, "hastunnel"),
        (bpf_abi::IPCACHE_FLAG_IPV6_TUNNEL_ENDPOINT, "ipv6tunnel"),
        (bpf_abi::IPCACHE_FLAG_REMOTE_CLUSTER, "remotecluster"),
        (bpf_abi::IPCACHE_FLAG_ENDPOINTS, "endpoints"),
    ];
    let set: Vec<&str> =
        names.iter().filter(|(flag, _)| flags & flag != 0).map(|(_, name)| *name).collect();
    if set.is_empty() { "<none>".into() } else { set.join(",") }
}

fn underlay(value: &UnderlayValue) -> String {
    let UnderlayValue { ipv4_be, ipv6_be, port_min, port_max } = *value;
    let (v4, v6) = (Ipv4Addr::from(ipv4_be), Ipv6Addr::from(ipv6_be));
    format!("ipv4={v4} ipv6={v6} ports={port_min}-{port_max}")
}

fn device(value: &DeviceValue) -> String {
    format!(
        "id={} sec_id={} ipv4={} ipv6={} mac={} nodemac={}",
        value.endpoint_id,
        value.identity,
        Ipv4Addr::from(value.ipv4_be),
        Ipv6Addr::from(value.ipv6_be),
        Mac(value.mac),
        Mac(value.node_mac),
    )
}

fn node(value: &NodeValue) -> String {
    let mut text = format!(
        "router={} router6={} host-ifindex={} net-ifindex={}",
        Ipv4Addr::from(value.router_ipv4_be),
        Ipv6Addr::from(value.router_ipv6_be),
        value.host_ifindex,
        value.net_ifindex,
    );
    if value.tunnel_ifindex != 0 {
        let mac = Mac(value.tunnel_mac);
        let port = u16::from_be_bytes(value.tunnel_port_be);
        let (ifindex, mtu) = (value.tunnel_ifindex, value.tunnel_mtu);
        text += &format!(" tunnel-ifindex={ifindex} tunnel-mac={mac}");
        text += &format!(" tunnel-port={port} tunnel-mtu={mtu}");
    }
    if value.tunnel_source_max != 0 {
        let (min, max) = (value.tunnel_source_min, value.tunnel_source_max);
        text += &format!(" tunnel-sources={min}-{max}");
    }
    if value.flags != 0 {
        text += &format!(" flags=0x{:04x}", value.flags);
    }
    text
}

fn encryption(value: &EncryptionValue) -> String {
    let port = u16::from_be_bytes(value.port_be);
    let (ifindex, mtu, flags) = (value.ifindex, value.mtu, value.flags);
    format!("ifindex={ifindex} port={port} mtu={mtu} flags=0x{flags:04x}")
}

/// Text that fills the rest of its room with NULs.
pub fn c_text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// Bytes in JSON: hexadecimal text.
pub mod serde_hex {
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes hexadecimal text.
    pub fn serialize<S: Serializer>(bytes: &[u8], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&super::hex(bytes))
    }

    /// Reads hexadecimal text.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(d)?;
        super::unhex(&text).ok_or_else(|| serde::de::Error::custom("hexadecimal digits expected"))
    }
}
