//! Objects as whoever may write one could write them: what comes of them is a configuration all the same. ciliate
//! refuses one as a whole, so that one object would otherwise stop every node from following the cluster.
//!
//! Values are what the API server lets through, or nearly; there are few of each, so that objects are in each other's
//! way. The first ones of each are good, and are used more often.

use serde_json::{Value, json};

use crate::cluster::{Cluster, NAMESPACES, NODES, PODS, SERVICES, SLICES, node, pod};
use crate::product::complaints;
use crate::{Scratch, settle, start};

const WORLDS: u64 = 5;
const ROUNDS: u64 = 25;
const CHANGES: u64 = 20;
/// So many are good at least.
const GOOD: usize = 6;

const NODE_ADDRESSES: &[&str] = &[
    "172.18.0.2",
    "172.18.0.4",
    "172.18.0.5",
    "172.18.0.6",
    "fd00:18::2",
    "172.18.0.7",
    "172.18.0.3",
    "10.244.0.7",
    "10.244.2.7",
    "10.96.0.2",
    "127.0.0.1",
    "0.0.0.0",
    "169.254.7.7",
    "224.0.0.1",
    "255.255.255.255",
    "fd00:18::3",
    "fd00:10:244:2::7",
    "fe80::1",
    "::1",
    "::",
    "ff02::1",
    "::ffff:172.18.0.9",
    "",
    "none",
];

const CIDRS: &[&str] = &[
    "10.244.2.0/24",
    "10.244.3.0/24",
    "10.244.6.0/24",
    "fd00:10:244:2::/80",
    "fd00:10:244:6::/80",
    "10.244.7.0/24",
    "10.244.0.0/24",
    "10.244.0.0/16",
    "10.244.3.0/31",
    "10.244.4.1/32",
    "10.244.5.7/24",
    "10.0.0.0/7",
    "0.0.0.0/0",
    "127.1.0.0/16",
    "127.0.0.1/32",
    "169.254.0.0/16",
    "169.254.7.7/32",
    "172.18.0.0/16",
    "172.18.0.3/32",
    "224.0.0.0/8",
    "10.96.0.0/12",
    "fd00:10:244:3::7/128",
    "fd00:18::/64",
    "fd00::/8",
    "::/0",
    "fe80::/64",
    "fe80::7/128",
    "ff00::/8",
    "::1/128",
    "::ffff:0:0/96",
    "none",
];

const ADDRESSES: &[&str] = &[
    "10.96.0.1",
    "10.96.0.2",
    "192.0.2.1",
    "10.244.0.9",
    "10.244.0.10",
    "10.244.2.9",
    "10.96.0.3",
    "192.0.2.2",
    "172.18.0.2",
    "172.18.0.3",
    "10.244.0.1",
    "10.244.0.254",
    "10.245.0.1",
    "127.0.0.1",
    "0.0.0.0",
    "169.254.7.7",
    "224.0.0.5",
    "255.255.255.255",
    "fd00:96::1",
    "fd00:96::2",
    "fd00:18::3",
    "fd00:10:244:2::9",
    "2001:db8::1",
    "fe80::9",
    "::1",
    "::ffff:10.96.0.1",
    "None",
    "",
];

const UIDS: &[&str] =
    &["1", "2", "3", "../../../proc/1/ns/net", "..", ".", "", "a/b", "\n", "\u{0}"];

/// Always the same numbers.
struct Dice(u64);

impl Dice {
    /// Less than `faces`.
    fn roll(&mut self, faces: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % faces
    }

    fn one_of<T: Clone>(&mut self, all: &[T]) -> T {
        all[usize::try_from(self.roll(all.len() as u64)).unwrap()].clone()
    }

    fn up_to<T>(&mut self, most: u64, one: impl Fn(&mut Self) -> T) -> Vec<T> {
        (0..self.roll(most + 1)).map(|_| one(self)).collect()
    }

    /// One of the good ones every other time.
    fn text(&mut self, all: &[&str]) -> String {
        let all = if self.roll(2) == 0 { &all[..GOOD.min(all.len())] } else { all };
        self.one_of(all).to_owned()
    }

    fn texts(&mut self, most: u64, all: &[&str]) -> Vec<String> {
        self.up_to(most, |dice| dice.text(all))
    }

    /// Objects are of different ages, and some of the same.
    fn created(&mut self) -> String {
        format!("2026-11-21T04:04:{:02}Z", self.roll(8))
    }

    fn node(&mut self) -> Value {
        let name = format!("node-{}", self.one_of(&["b", "c", "d", "e"]));
        let addresses = self.up_to(4, |dice| {
            let kind = dice.one_of(&["InternalIP", "InternalIP", "ExternalIP", "Hostname"]);
            json!({"type": kind, "address": dice.text(NODE_ADDRESSES)})
        });
        json!({"metadata": {"name": name, "creationTimestamp": self.created()},
            "spec": {"podCIDRs": self.texts(2, CIDRS)}, "status": {"addresses": addresses}})
    }

    fn service(&mut self) -> Value {
        let name = format!("s{}", self.roll(8));
        let numbers = [80, 80, 443, 65_535, 30_080];
        let mut ports = self.up_to(3, |dice| {
            json!({"port": dice.one_of(&numbers), "targetPort": "named",
                "protocol": dice.one_of(&[json!("TCP"), json!("UDP"), json!("SCTP"), json!("QUIC"), Value::Null]),
                "nodePort": dice.one_of(&[Value::Null, json!(30_000), json!(30_080), json!(32_767), json!(80)])})
        });
        for (port, name) in ports.iter_mut().zip(["", "http", "fifteen-letters"]) {
            port["name"] = json!(name);
        }
        let ingress = self.up_to(2, |dice| {
            json!({"ip": dice.text(ADDRESSES), "ipMode": dice.one_of(&[Value::Null, json!("VIP"), json!("Proxy")])})
        });
        let ranges = ["0.0.0.0/0", "::/0", "10.0.0.7/8", " 192.0.2.0/24 ", "2001:db8::/32", "none"];
        json!({"metadata": {"name": name, "namespace": "default", "creationTimestamp": self.created()},
            "spec": {
                "type": self.one_of(&["ClusterIP", "NodePort", "LoadBalancer", "LoadBalancer", "ExternalName"]),
                "clusterIPs": self.texts(2, ADDRESSES),
                "externalIPs": self.texts(2, ADDRESSES),
                "loadBalancerSourceRanges": self.texts(2, &ranges),
                "sessionAffinity": self.one_of(&["None", "ClientIP"]),
                "sessionAffinityConfig":
                    {"clientIP": {"timeoutSeconds": self.one_of(&[Value::Null, json!(1), json!(86_400)])}},
                "externalTrafficPolicy": self.one_of(&["Cluster", "Local", ""]),
                "internalTrafficPolicy": self.one_of(&["Cluster", "Local"]),
                "ports": ports,
            },
            "status": {"loadBalancer": {"ingress": ingress}}})
    }

    fn slice(&mut self) -> Value {
        let endpoints = self.up_to(4, |dice| {
            let condition =
                |dice: &mut Self| dice.one_of(&[Value::Null, json!(true), json!(false)]);
            json!({"addresses": [dice.text(ADDRESSES)], "conditions": {"ready": condition(dice),
                "serving": condition(dice), "terminating": condition(dice)}})
        });
        let ports = self.up_to(3, |dice| {
            json!({"name": dice.one_of(&["", "http", "fifteen-letters"]),
                "protocol": dice.one_of(&["TCP", "UDP", "SCTP"]),
                "port": dice.one_of(&[Value::Null, json!(1), json!(80), json!(65_535), json!(0)])})
        });
        json!({"metadata": {"name": format!("x{}", self.roll(12)), "namespace": "default",
                "creationTimestamp": self.created(),
                "labels": {"kubernetes.io/service-name": format!("s{}", self.roll(8))}},
            "addressType": self.one_of(&["IPv4", "IPv6", "FQDN"]),
            "endpoints": self.one_of(&[json!(endpoints), json!(endpoints), Value::Null]),
            "ports": self.one_of(&[json!(ports), json!(ports), Value::Null])})
    }

    fn pod(&mut self) -> Value {
        let mut pod = pod(&format!("p{}", self.roll(8)), "");
        pod["metadata"]["creationTimestamp"] = json!(self.created());
        pod["metadata"]["uid"] = json!(format!("uid-{}", self.roll(1000)));
        let mirrored = json!({"kubernetes.io/config.mirror": self.one_of(UIDS)});
        pod["metadata"]["annotations"] = self.one_of(&[Value::Null, mirrored]);
        for number in 0..self.roll(80) {
            let value = self.one_of(&["", "a", "A.b_c-9"]);
            pod["metadata"]["labels"][format!("{number}.example/key")] = json!(value);
        }
        let ips = self.up_to(3, |dice| json!({"ip": dice.text(ADDRESSES)}));
        pod["status"]["podIPs"] = json!(ips);
        pod
    }

    fn namespace(&mut self) -> Value {
        // As long as a key can be.
        let prefix = vec!["a".repeat(62); 4].join(".") + "x";
        let key = self.one_of(&["a".to_owned(), format!("{prefix}/{}", "k".repeat(63))]);
        json!({"metadata": {"name": "default", "labels": {key: "v".repeat(63)}}})
    }

    /// Puts something into a cluster, or takes something out of it.
    fn change(&mut self, cluster: &Cluster) {
        let (path, object) = match self.roll(12) {
            0..2 => (NODES, self.node()),
            2..6 => (SERVICES, self.service()),
            6..9 => (SLICES, self.slice()),
            9..11 => (PODS, self.pod()),
            _ => (NAMESPACES, self.namespace()),
        };
        cluster.put(path, object);
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_is_written_is_a_configuration() {
    let mut written = 0;
    for world in 0..WORLDS {
        let (scratch, cluster, mut dice) = (Scratch::make(), Cluster::new(), Dice(world));
        let _adapter = start(cluster.clone(), &scratch);
        for round in 0..ROUNDS {
            (0..CHANGES).for_each(|_| dice.change(&cluster));
            // This node has an address of the one family or the other, and is the youngest.
            let mut own = node("node-a", "172.18.0.3", "10.244.0.0/24");
            if round % 3 == 1 {
                own["status"]["addresses"][0]["address"] = json!("fd00:18::3");
            }
            own["metadata"]["creationTimestamp"] = json!("2026-11-21T04:04:59Z");
            cluster.put(NODES, own);
            settle().await;
            assert_eq!(complaints(scratch.path()), None, "world {world}, round {round}");
            written += scratch.files().values().filter(|text| text.contains("\n[[")).count();
        }
    }
    let rounds = usize::try_from(WORLDS * ROUNDS).unwrap();
    assert!(written > 2 * rounds, "{written} files in {rounds} rounds had something in them");
}
