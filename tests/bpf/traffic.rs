//! The programs attached, with two endpoints in namespaces of their own: that redirects end where they
//! should, and that the kernel takes what the programs make.

use std::process::Command;

use aya::programs::TcAttachType;
use rustix::mount::MountFlags;

use crate::frames::Mac;
use crate::lab::{self, Lab};
use crate::sandbox::ip;
use crate::world::*;

fn mac(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Moves `eth_<name>` into a namespace `<name>` and sets both ends up as the agent would.
fn endpoint(name: &str, addresses: [String; 2], macs: [Mac; 2]) {
    ip(&format!("netns add {name}"));
    ip(&format!("link set lxc_{name} address {} up", mac(macs[1])));
    ip(&format!("link set eth_{name} address {} netns {name} name eth0", mac(macs[0])));
    ip(&format!("-n {name} link set eth0 up"));
    ip(&format!("-n {name} address add {}/32 dev eth0", addresses[0]));
    ip(&format!("-n {name} address add {}/128 dev eth0 nodad", addresses[1]));
    for router in [ROUTER4.to_string(), ROUTER6.to_string()] {
        let family = if router.contains(':') { "-6" } else { "-4" };
        ip(&format!("{family} -n {name} route add {router} dev eth0"));
        ip(&format!("{family} -n {name} route add default via {router} dev eth0"));
    }
}

fn node() {
    ip(&format!("link set cilium_net address {} arp off up", mac(NET_MAC)));
    ip(&format!("link set cilium_host address {} arp off up", mac(HOST_MAC)));
    ip(&format!("address add {ROUTER4}/32 dev cilium_host"));
    ip(&format!("address add {ROUTER6}/128 dev cilium_host nodad"));
    ip(&format!("route add {ROUTER4}/32 dev cilium_host scope link"));
    ip(&format!("route add 10.244.0.0/24 via {ROUTER4} dev cilium_host src {ROUTER4}"));
    ip(&format!("-6 route add fd00:10:244::/80 dev cilium_host src {ROUTER6}"));
    for device in ["all", "lxc_a", "lxc_b", "cilium_host", "cilium_net"] {
        let path = format!("/proc/sys/net/ipv4/conf/{device}/rp_filter");
        std::fs::write(path, "0").expect("write rp_filter");
    }
}

/// The node and both endpoints, with the programs attached.
pub fn set_up(lab: &mut Lab) {
    // For `ip netns`: its directory must not be the machine's.
    rustix::mount::mount("run", "/run", "tmpfs", MountFlags::empty(), None).expect("mount /run");
    node();
    endpoint("a", [A4.to_string(), A6.to_string()], [MAC_A, LXC_MAC_A]);
    endpoint("b", [B4.to_string(), B6.to_string()], [MAC_B, LXC_MAC_B]);
    lab.attach("cil_from_container", "lxc_a", TcAttachType::Ingress);
    lab.attach("cil_from_container", "lxc_b", TcAttachType::Ingress);
    lab.attach("cil_from_host", "cilium_host", TcAttachType::Egress);
    lab.attach("cil_to_host", "cilium_host", TcAttachType::Ingress);
    lab.attach("cil_to_host", "cilium_net", TcAttachType::Ingress);
}

/// Output of one ping; `namespace` is empty for the node.
fn ping(namespace: &str, arguments: &str) -> String {
    let prefix = if namespace.is_empty() { vec![] } else { vec!["netns", "exec", namespace] };
    let ping = ["ping", "-n", "-c1", "-W2"].into_iter().chain(arguments.split(' '));
    let output = if prefix.is_empty() {
        Command::new("ping").args(ping.skip(1)).output()
    } else {
        Command::new("ip").args(prefix).args(ping).output()
    };
    let output = output.expect("run ping");
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn endpoints_reach_each_other_and_the_host() {
    lab::run(|lab| {
        set_up(lab);
        let pings = [
            ("a", B4.to_string(), "ttl=63"),
            ("b", A4.to_string(), "ttl=63"),
            ("a", B6.to_string(), "ttl=63"),
            ("a", ROUTER4.to_string(), "ttl=63"),
            ("a", ROUTER6.to_string(), "ttl=63"),
            ("", B4.to_string(), "ttl=63"),
            ("", A6.to_string(), "ttl=63"),
        ];
        for (from, to, expected) in pings {
            let text = ping(from, &to);
            assert!(
                text.contains(expected),
                "ping {to} from {from:?}: {text}\n{:?}",
                lab.counted()
            );
        }
    });
}

#[test]
fn senders_are_told_of_used_up_hop_limits() {
    lab::run(|lab| {
        set_up(lab);
        for from in ["a", ""] {
            let text = ping(from, &format!("-t1 {B6}"));
            let expected = format!("From {ROUTER6} icmp_seq=1 Time exceeded: Hop limit");
            assert!(text.contains(&expected), "from {from:?}: {text}\n{:?}", lab.counted());
        }
    });
}

#[test]
fn any_neighbour_is_the_host_side() {
    lab::run(|lab| {
        set_up(lab);
        for neighbour in [ROUTER4.to_string(), ROUTER6.to_string()] {
            ping("a", &neighbour);
            let show = ["-n", "a", "neighbour", "show", &neighbour];
            let output = Command::new("ip").args(show).output().expect("run ip");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(text.contains(&mac(LXC_MAC_A)), "{text}");
        }
    });
}
