//! What an operator of Cilium sees, to the letter: the ARP exchange, `ip route`, `ip neigh`, devices,
//! settings, marks of ownership.

use crate::capture::Capture;
use crate::lab::{DUAL, Lab, V4, V6};
use crate::space::Space;
use crate::traffic::ping;

/// The lines without the spaces that `ip` leaves at their ends.
fn lines(space: &Space, command: &str) -> Vec<String> {
    space.sh(command).lines().map(|line| line.trim_end().to_string()).collect()
}

/// The one `lxc` device of an endpoint, found by its alias.
fn lxc(space: &Space, endpoint: &str) -> String {
    let text = space.sh("ip -o link show type veth");
    let line =
        text.lines().find(|line| line.ends_with(&format!("alias ciliate endpoint {endpoint}")));
    let line = line.unwrap_or_else(|| panic!("no device of {endpoint} in {text}"));
    let name = line.split(": ").nth(1).and_then(|name| name.split('@').next());
    name.expect("a name").to_string()
}

fn mac(space: &Space, device: &str) -> String {
    let text = space.sh(&format!("ip -o link show {device}"));
    let mac = text.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next());
    mac.expect("an Ethernet address").to_string()
}

#[test]
fn arp_is_answered_by_the_lxc_device() {
    let Some(lab) = Lab::new(V4) else { return };
    let (client, _, _) = lab.walk_through();
    lab.a.apply();
    let lxc = mac(&lab.a.space, &lxc(&lab.a.space, "client"));
    let own = mac(&client, "eth0");
    let capture = Capture::start(&client, "eth0", 2, "arp");
    ping(&client, "10.244.0.26");
    let exchange = capture.lines();
    let expected = [
        format!(
            "{own} > ff:ff:ff:ff:ff:ff, ethertype ARP (0x0806), length 42: \
             Request who-has 10.244.0.26 tell 10.244.0.49, length 28"
        ),
        format!(
            "{lxc} > {own}, ethertype ARP (0x0806), length 42: \
             Reply 10.244.0.26 is-at {lxc}, length 28"
        ),
    ];
    assert_eq!(exchange, expected);
    // A single entry: the gateway, at the address of the host's end.
    let neighbours = lines(&client, "ip -4 neigh");
    assert_eq!(neighbours.len(), 1, "{neighbours:?}");
    let entry = format!("10.244.0.26 dev eth0 lladdr {lxc} ");
    assert!(neighbours[0].starts_with(&entry), "{neighbours:?}");
}

#[test]
fn neighbour_discovery_is_answered_by_the_lxc_device() {
    let Some(lab) = Lab::new(V6) else { return };
    let (client, ..) = lab.walk_through();
    lab.a.apply();
    let lxc = mac(&lab.a.space, &lxc(&lab.a.space, "client"));
    let own = mac(&client, "eth0");
    let filter = "icmp6 and (ip6[40] = 135 or ip6[40] = 136) and not src host ::";
    let capture = Capture::start(&client, "eth0", 2, filter);
    ping(&client, "fd00:10:244::1");
    let exchange = capture.lines();
    assert!(exchange.len() == 2, "{exchange:#?}");
    assert!(exchange[0].starts_with(&format!("{own} > 33:33:ff:00:00:01")), "{exchange:#?}");
    assert!(exchange[0].contains("who has fd00:10:244::1"), "{exchange:#?}");
    assert!(exchange[1].starts_with(&format!("{lxc} > {own}")), "{exchange:#?}");
    let answer = "neighbor advertisement, tgt is fd00:10:244::1";
    assert!(exchange[1].contains(answer), "{exchange:#?}");
    let neighbour = client.sh("ip -6 neigh show fd00:10:244::1");
    let entry = format!("fd00:10:244::1 dev eth0 lladdr {lxc} router ");
    assert!(neighbour.starts_with(&entry), "{neighbour}");
}

/// What an endpoint sends from an address that isn't its own is dropped, and counted.
#[test]
fn spoofed_sources_are_dropped_and_counted() {
    let Some(lab) = Lab::new(V4) else { return };
    let (client, ..) = lab.walk_through();
    lab.a.apply();
    ping(&client, "10.244.0.50");
    let drops = || -> u64 {
        let text = lab.a.ciliate(&["bpf", "metrics", "list"]).stdout;
        // REASON DIRECTION PACKETS BYTES …, the reason has three words; a row for each place in the code.
        let rows = text.lines().filter(|line| line.contains("Invalid source ip"));
        let packets = rows.filter_map(|line| line.split_whitespace().nth(4));
        packets.map(|packets| packets.parse::<u64>().expect("a number of packets")).sum()
    };
    // Multicast listener reports of a device that just came up are among them.
    let before = drops();
    client.sh("ip addr add 10.244.0.99/32 dev lo");
    let spoofed = client.try_sh("ping -n -c 50 -i 0.01 -W 1 -I 10.244.0.99 10.244.0.50");
    assert!(spoofed.is_err(), "{spoofed:?}");
    client.sh("ip addr del 10.244.0.99/32 dev lo");
    let dropped = drops() - before;
    assert!((50..60).contains(&dropped), "50 sent, {dropped} counted as dropped: {spoofed:?}");
}

#[test]
fn routes_are_those_of_the_walk_through() {
    let Some(lab) = Lab::new(DUAL) else { return };
    let (client, ..) = lab.walk_through();
    lab.a.apply();
    assert_eq!(
        lines(&client, "ip route"),
        [
            "default via 10.244.0.26 dev eth0 proto 203 mtu 1500",
            "10.244.0.26 dev eth0 proto 203 scope link",
        ]
    );
    assert_eq!(
        lines(&lab.a.space, "ip route"),
        [
            "default via 172.18.0.1 dev eth0",
            "10.244.0.0/24 via 10.244.0.26 dev cilium_host proto 203 src 10.244.0.26",
            "10.244.0.26 dev cilium_host proto 203 scope link",
            "10.244.1.0/24 via 172.18.0.2 dev eth0 proto 203",
            "172.18.0.0/16 dev eth0 proto kernel scope link src 172.18.0.3",
        ]
    );
    let v6 = lines(&client, "ip -6 route show proto 203");
    assert_eq!(
        v6,
        [
            "fd00:10:244::1 dev eth0 metric 1024 pref medium",
            "default via fd00:10:244::1 dev eth0 metric 1024 mtu 1500 pref medium",
        ]
    );
    let v6 = lines(&lab.a.space, "ip -6 route show proto 203");
    assert_eq!(
        v6,
        [
            "fd00:10:244::/80 dev cilium_host src fd00:10:244::1 metric 1024 pref medium",
            "fd00:10:244:1::/80 via fc00:18::2 dev eth0 metric 1024 pref medium",
        ]
    );
    // What the kernel makes of them.
    let get = lines(&lab.a.space, "ip route get 10.244.0.49");
    assert!(get[0].starts_with("10.244.0.49 dev cilium_host src 10.244.0.26"), "{get:?}");
}

#[test]
fn addresses_are_host_prefixes() {
    let Some(lab) = Lab::new(DUAL) else { return };
    let (client, ..) = lab.walk_through();
    lab.a.apply();
    let of = |space: &Space, device: &str| -> Vec<String> {
        let text = space.sh(&format!("ip -o addr show dev {device}"));
        text.lines()
            .filter(|line| !line.contains("inet6 fe80"))
            .map(|line| line.split_whitespace().skip(2).take(2).collect::<Vec<_>>().join(" "))
            .collect()
    };
    assert_eq!(of(&client, "eth0"), ["inet 10.244.0.49/32", "inet6 fd00:10:244::49/128"]);
    let host = of(&lab.a.space, "cilium_host");
    assert_eq!(host, ["inet 10.244.0.26/32", "inet6 fd00:10:244::1/128"]);
    assert!(of(&lab.a.space, "cilium_net").is_empty());
    // Usable at once: no duplicate address detection.
    let tentative = client.sh("ip -6 addr show dev eth0 scope global tentative");
    assert_eq!(tentative, "");
}

#[test]
fn devices_have_their_flags_and_marks() {
    let Some(lab) = Lab::new(V4) else { return };
    let (client, ..) = lab.walk_through();
    lab.a.apply();
    let node = &lab.a.space;
    let show = |space: &Space, device: &str| space.sh(&format!("ip -d -o link show {device}"));
    for device in ["cilium_host", "cilium_net"] {
        let text = show(node, device);
        assert!(text.contains("<BROADCAST,MULTICAST,NOARP,UP,LOWER_UP> mtu 1500"), "{text}");
        assert!(text.contains("alias ciliate router") && text.contains(" veth "), "{text}");
    }
    assert!(show(node, "cilium_host").contains("cilium_host@cilium_net"));
    let lxc = lxc(node, "client");
    assert!(lxc.len() == 15 && lxc[3..].bytes().all(|b| b.is_ascii_hexdigit()), "{lxc}");
    for (space, device) in [(node, lxc.as_str()), (&client, "eth0")] {
        let text = show(space, device);
        assert!(text.contains("<BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500"), "{text}");
        assert!(text.contains("alias ciliate endpoint client"), "{text}");
    }
    // 0x63696c69, the group of our links: cilium_host, cilium_net and two lxc devices.
    let ours = lines(node, "ip -o link show group 1667853417");
    assert_eq!(ours.len(), 4, "{ours:?}");
    assert_eq!(lines(&client, "ip -o link show group 1667853417").len(), 1);
    // `ip` of Debian 12 shows no protocol of addresses.
    let addresses = lab.a.view().observed.addresses;
    assert!(addresses.len() == 3 && addresses.values().all(|seen| seen.owned), "{addresses:?}");
    let pins = crate::snapshot::tree(&lab.a.bpf);
    for pin in ["maps/cilium_lxc", "maps/cilium_ipcache_v2", "links/eth0/cil_from_netdev"] {
        assert!(pins.iter().any(|path| path.ends_with(pin)), "no {pin} in {pins:#?}");
    }
}

#[test]
fn settings_are_those_of_cilium() {
    let Some(lab) = Lab::new(DUAL) else { return };
    lab.walk_through();
    lab.a.apply();
    let node = &lab.a.space;
    let lxc = lxc(node, "client");
    let mut expected = vec![
        ("ipv4/conf/all/rp_filter".to_string(), "0"),
        ("ipv4/conf/all/forwarding".into(), "1"),
        ("ipv4/ip_forward".into(), "1"),
        ("ipv6/conf/all/forwarding".into(), "1"),
        (format!("ipv4/conf/{lxc}/rp_filter"), "0"),
    ];
    for device in ["cilium_host", "cilium_net"] {
        for (setting, value) in [
            ("ipv4/conf/DEV/forwarding", "1"),
            ("ipv4/conf/DEV/rp_filter", "0"),
            ("ipv4/conf/DEV/accept_local", "1"),
            ("ipv4/conf/DEV/send_redirects", "0"),
            ("ipv6/conf/DEV/forwarding", "1"),
        ] {
            expected.push((setting.replace("DEV", device), value));
        }
    }
    for (setting, value) in expected {
        let path = format!("/proc/sys/net/{setting}");
        let found = node.run(|| std::fs::read_to_string(&path)).expect("read a setting");
        assert_eq!(found.trim(), value, "{setting}");
    }
    let rules = lines(node, "ip rule");
    assert_eq!(rules[0], "0:\tfrom all lookup local", "rule 0 stays where it is");
}
