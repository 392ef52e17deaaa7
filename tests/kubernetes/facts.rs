//! What a real API server does that one would not think of, one by one.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::{Cluster, NODES, PODS, SERVICES, SLICES, node, pod, service, slice};
use crate::{Scratch, pass, settle, start};

const WEB: &str = "kubernetes-service-default.web.toml";

/// What follows from a service and its slices, without comments.
async fn toml_of(service: Value, slices: &[Value]) -> (String, String) {
    let (scratch, cluster) = (Scratch::make(), Cluster::new());
    cluster.put(SERVICES, service);
    slices.iter().for_each(|slice| cluster.put(SLICES, slice.clone()));
    let _adapter = start(cluster, &scratch);
    settle().await;
    (scratch.toml(WEB), scratch.comments(WEB))
}

#[tokio::test(start_paused = true)]
async fn an_empty_slice_has_null_for_its_lists() {
    let mut empty = slice("web", &[], 80);
    (empty["endpoints"], empty["ports"]) = (Value::Null, Value::Null);
    let (toml, _) = toml_of(service("web", "10.96.0.9", 80), &[empty]).await;
    assert!(toml.contains("backends = []"), "{toml}");
}

#[tokio::test(start_paused = true)]
async fn nodes_come_bare_and_send_signs_of_life() {
    let (scratch, cluster) = (Scratch::make(), Cluster::new());
    let adapter = start(cluster.clone(), &scratch);
    settle().await;
    cluster.put(NODES, json!({"metadata": {"name": "node-c"}, "spec": {}, "status": {}}));
    settle().await;
    assert_eq!(scratch.names(), ["kubernetes-node-node-a.toml", "kubernetes-peer-node-b.toml"]);
    cluster.put(NODES, node("node-c", "172.18.0.4", "10.244.2.0/24"));
    settle().await;
    let peer = "kubernetes-peer-node-c.toml";
    assert!(
        scratch.toml(peer).contains("addresses = [\"172.18.0.4\"]\ncidrs = [\"10.244.2.0/24\"]")
    );
    let written = adapter.metric("files_written_total");
    let batches = adapter.metric("batches_total");
    for beat in 0..5 {
        let heartbeat =
            |node: &mut Value| node["status"]["conditions"] = json!([{"type": "Ready", "n": beat}]);
        cluster.change(NODES, "node-c", heartbeat);
    }
    pass(Duration::from_millis(900)).await;
    assert_eq!(adapter.metric("files_written_total"), written);
    assert_eq!(adapter.metric("batches_total"), batches, "what is not kept wakes nobody");
    cluster.change(NODES, "node-c", |node| {
        node["status"]["addresses"][0]["address"] = json!("172.18.0.44");
    });
    settle().await;
    assert!(scratch.toml(peer).contains("172.18.0.44"));
    assert_eq!(adapter.metric("files_written_total"), written + 1);
}

#[tokio::test(start_paused = true)]
async fn conditions_of_endpoints() {
    let mut slices = slice("web", &[], 80);
    slices["endpoints"] = json!([
        {"addresses": ["10.244.1.1"], "conditions": {"ready": true, "serving": true, "terminating": false}},
        {"addresses": ["10.244.1.2"], "conditions": {"ready": false, "serving": true, "terminating": true}},
        {"addresses": ["10.244.1.3"], "conditions": {"ready": true, "serving": false, "terminating": true}},
        {"addresses": ["10.244.1.4"], "conditions": {"ready": false, "serving": false, "terminating": true}},
        {"addresses": ["10.244.1.5"], "conditions": {"ready": false, "serving": false, "terminating": false}},
        {"addresses": ["10.244.1.6"], "conditions": {}},
        {"addresses": ["10.244.1.7"]},
        {"addresses": ["10.244.1.8"], "conditions": {"ready": false}},
    ]);
    let (toml, _) = toml_of(service("web", "10.96.0.9", 80), &[slices]).await;
    let backends = "backends = [\"10.244.1.1:80\", { address = \"10.244.1.2:80\", state = \"terminating\" }, \
                    \"10.244.1.3:80\", \"10.244.1.6:80\", \"10.244.1.7:80\"]";
    assert!(toml.contains(backends), "{toml}");
}

#[tokio::test(start_paused = true)]
async fn ports_are_matched_by_name() {
    let mut web = service("web", "10.96.0.9", 80);
    web["spec"]["ports"] = json!([
        {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": "dns"},
        {"name": "dns-udp", "port": 53, "protocol": "UDP", "targetPort": "dns"},
        {"name": "dia", "port": 3868, "protocol": "SCTP"},
    ]);
    let mut turned = slice("web", &["10.244.1.1"], 80);
    turned["ports"] = json!([
        {"name": "dns-udp", "port": 5353, "protocol": "UDP"},
        {"name": "dia", "port": 3868, "protocol": "SCTP"},
        {"name": "dns-tcp", "port": 5354, "protocol": "TCP"},
    ]);
    // Pods of another version have the named port elsewhere: a slice of its own.
    let mut other = slice("web", &["10.244.1.2"], 80);
    other["metadata"]["name"] = json!("web-other");
    other["ports"] = json!([{"name": "dns-udp", "port": 53, "protocol": "UDP"}]);
    let (toml, _) = toml_of(web, &[turned, other]).await;
    let tables: Vec<&str> = toml.split("[[service]]").skip(1).collect();
    assert!(tables[0].contains("name = \"default/web:dns-tcp\"\nprotocol = \"TCP\""), "{toml}");
    assert!(tables[0].contains("backends = [\"10.244.1.1:5354\"]"), "{toml}");
    assert!(tables[1].contains("backends = [\"10.244.1.1:5353\", \"10.244.1.2:53\"]"), "{toml}");
    assert!(
        tables[2].contains("protocol = \"SCTP\"") && tables[2].contains("10.244.1.1:3868"),
        "{toml}"
    );
    // One port without a name: `""` in slices, nothing in the service.
    let (toml, _) =
        toml_of(service("web", "10.96.0.9", 80), &[slice("web", &["10.244.1.1"], 8080)]).await;
    assert!(
        toml.contains("name = \"default/web\"") && toml.contains("[\"10.244.1.1:8080\"]"),
        "{toml}"
    );
}

#[tokio::test(start_paused = true)]
async fn services_and_slices_come_and_go_in_any_order() {
    let (scratch, cluster) = (Scratch::make(), Cluster::new());
    let _adapter = start(cluster.clone(), &scratch);
    settle().await;
    // A slice without a service is nothing.
    cluster.put(SLICES, slice("web", &["10.244.1.1"], 80));
    settle().await;
    assert!(!scratch.names().contains(&WEB.to_owned()));
    cluster.put(SERVICES, service("web", "10.96.0.9", 80));
    settle().await;
    assert!(scratch.toml(WEB).contains("10.244.1.1:80"));
    cluster.remove(SERVICES, "default/web");
    settle().await;
    assert!(!scratch.names().contains(&WEB.to_owned()));
    // Again, at another address, with other slices, while the old one is still there; and dual stack.
    let mut again = service("web", "10.96.0.10", 80);
    again["spec"]["clusterIPs"] = json!(["10.96.0.10", "fd00:10:96::10"]);
    let (mut first, mut second) =
        (slice("web", &["10.244.1.2"], 80), slice("web", &["fd00:10:244:1::2"], 80));
    first["metadata"]["name"] = json!("web-z");
    (second["metadata"]["name"], second["addressType"]) = (json!("web-6"), json!("IPv6"));
    cluster.put(SERVICES, again);
    cluster.put(SLICES, first);
    cluster.put(SLICES, second);
    settle().await;
    let toml = scratch.toml(WEB);
    assert!(toml.contains("[\"10.96.0.10:80\", \"[fd00:10:96::10]:80\"]"), "{toml}");
    assert!(
        toml.contains("[\"10.244.1.1:80\", \"10.244.1.2:80\", \"[fd00:10:244:1::2]:80\"]"),
        "{toml}"
    );
    cluster.remove(SLICES, "default/web-x2k4d");
    settle().await;
    assert!(!scratch.toml(WEB).contains("10.244.1.1:80"));
}

/// A slice that is given to another service is no longer the first one's.
#[tokio::test(start_paused = true)]
async fn a_slice_that_changes_hands() {
    let (scratch, cluster) = (Scratch::make(), Cluster::new());
    for (name, ip) in [("web", "10.96.0.9"), ("db", "10.96.0.10")] {
        cluster.put(SERVICES, service(name, ip, 80));
    }
    cluster.put(SLICES, slice("web", &["10.244.1.1"], 80));
    let _adapter = start(cluster.clone(), &scratch);
    settle().await;
    let has = |name: &str| {
        scratch.toml(&format!("kubernetes-service-default.{name}.toml")).contains("10.244.1.1:80")
    };
    assert_eq!([has("web"), has("db")], [true, false]);
    cluster.change(SLICES, "default/web-x2k4d", |slice| {
        slice["metadata"]["labels"]["kubernetes.io/service-name"] = json!("db");
    });
    settle().await;
    assert_eq!([has("web"), has("db")], [false, true]);
    cluster.change(SLICES, "default/web-x2k4d", |slice| slice["metadata"]["labels"] = json!({}));
    settle().await;
    assert_eq!([has("web"), has("db")], [false, false]);
}

/// The API server gives a node port out once; external addresses are whatever somebody writes.
#[tokio::test(start_paused = true)]
async fn what_two_services_claim_is_given_once() {
    let (scratch, cluster) = (Scratch::make(), Cluster::new());
    let mut web = service("web", "10.96.0.9", 80);
    web["spec"]["type"] = json!("NodePort");
    web["spec"]["ports"][0]["nodePort"] = json!(30494);
    web["spec"]["externalIPs"] =
        json!(["192.0.2.1", "192.0.2.1", "10.96.0.10", "172.18.0.2", "10.244.1.7", "127.0.0.1"]);
    let mut later = service("later", "10.96.0.10", 80);
    later["spec"]["type"] = json!("NodePort");
    later["spec"]["ports"][0]["nodePort"] = json!(30494);
    later["spec"]["externalIPs"] = json!(["192.0.2.1"]);
    later["metadata"]["creationTimestamp"] = json!("2026-11-22T04:04:13Z");
    cluster.put(SERVICES, web);
    cluster.put(SERVICES, later);
    let adapter = start(cluster.clone(), &scratch);
    settle().await;
    let toml = scratch.toml(WEB);
    assert!(
        toml.contains("external-ips = [\"192.0.2.1:80\"]\n") && toml.contains("node-port = 30494"),
        "{toml}"
    );
    let said = scratch.comments(WEB);
    for why in [
        "192.0.2.1:80/TCP: default/web has it",
        "10.96.0.10:80/TCP: default/later has it",
        "172.18.0.2:80/TCP: 172.18.0.2/32 overlaps 172.18.0.2/32 of node node-b",
        "10.244.1.7:80/TCP: 10.244.1.7/32 overlaps 10.244.1.0/24 of node node-b",
        "127.0.0.1:80/TCP: 127.0.0.1 can't be reached by others",
    ] {
        assert!(said.contains(why), "{why}: {said}");
    }
    let later = "kubernetes-service-default.later.toml";
    let toml = scratch.toml(later);
    assert!(toml.contains("cluster-ips = [\"10.96.0.10:80\"]\nbackends"), "{toml}");
    assert!(scratch.comments(later).contains("node port 30494/TCP: default/web has it"));
    assert_eq!(adapter.metric("left_out"), 7);
    // Once it is free, the other one gets it.
    cluster.remove(SERVICES, "default/web");
    settle().await;
    assert!(scratch.toml(later).contains("node-port = 30494\nexternal-ips = [\"192.0.2.1:80\"]"));
}

#[tokio::test(start_paused = true)]
async fn load_balancers() {
    let mut web = service("web", "10.96.0.9", 80);
    let spec = &mut web["spec"];
    spec["type"] = json!("LoadBalancer");
    spec["externalTrafficPolicy"] = json!("Local");
    spec["internalTrafficPolicy"] = json!("Local");
    spec["healthCheckNodePort"] = json!(31999);
    spec["allocateLoadBalancerNodePorts"] = json!(false);
    spec["sessionAffinity"] = json!("ClientIP");
    spec["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": 600}});
    spec["loadBalancerSourceRanges"] = json!([" 10.0.0.7/8", "fd00::/8"]);
    web["status"] = json!({"loadBalancer": {"ingress": [
        {"ip": "203.0.113.5", "ipMode": "VIP"},
        {"ip": "203.0.113.6", "ipMode": "Proxy"},
        {"ip": "203.0.113.7"},
        {"hostname": "lb.example.org"},
    ]}});
    let (toml, _) = toml_of(web.clone(), &[]).await;
    let expected = "\n[[service]]\nname = \"default/web\"\nprotocol = \"TCP\"\ncluster-ips = [\"10.96.0.9:80\"]\n\
        load-balancer-ips = [\"203.0.113.5:80\", \"203.0.113.7:80\"]\nsession-affinity = \"600s\"\n\
        external-traffic-policy = \"local\"\ninternal-traffic-policy = \"local\"\n\
        source-ranges = [\"10.0.0.0/8\", \"fd00::/8\"]\nbackends = []\n";
    assert_eq!(toml, expected);
    // Who may come in can't be read: nobody may, which is not everybody.
    web["spec"]["loadBalancerSourceRanges"] = json!(["10.0.0.0/8", "all"]);
    web["spec"]["ports"][0]["nodePort"] = json!(30001);
    let (toml, said) = toml_of(web, &[]).await;
    assert!(!toml.contains("load-balancer-ips") && !toml.contains("node-port"), "{toml}");
    assert!(
        toml.contains("cluster-ips") && said.contains("can't read its source ranges"),
        "{said}"
    );
}

/// No service for these, and no file.
#[tokio::test(start_paused = true)]
async fn what_has_no_address_to_balance() {
    let (scratch, cluster) = (Scratch::make(), Cluster::new());
    let mut headless = service("headless", "None", 80);
    headless["spec"]["publishNotReadyAddresses"] = json!(true);
    cluster.put(SERVICES, headless);
    let mut external = service("external", "", 80);
    external["spec"] = json!({"type": "ExternalName", "externalName": "example.org"});
    cluster.put(SERVICES, external);
    let mut proxied = service("proxied", "10.96.0.11", 80);
    proxied["metadata"]["labels"] = json!({"service.kubernetes.io/service-proxy-name": "other"});
    cluster.put(SERVICES, proxied);
    let mut ports = service("ports", "10.96.0.12", 80);
    ports["spec"]["ports"][0]["nodePort"] = json!(20000);
    cluster.put(SERVICES, ports);
    let _adapter = start(cluster, &scratch);
    settle().await;
    let file = "kubernetes-service-default.ports.toml";
    let services: Vec<_> =
        scratch.names().into_iter().filter(|name| name.contains("service")).collect();
    assert_eq!(services, [file]);
    assert!(scratch.comments(file).contains("node port 20000/TCP: it is outside 30000 to 32767"));
}

#[tokio::test(start_paused = true)]
async fn pods_of_this_node() {
    let (scratch, cluster) = (Scratch::make(), Cluster::new());
    cluster.put(PODS, pod("client", "10.244.0.49"));
    let mut other = pod("server", "10.244.1.124");
    other["spec"]["nodeName"] = json!("node-b");
    cluster.put(PODS, other);
    let mut pending = pod("pending", "");
    pending["status"] = json!({"phase": "Pending"});
    cluster.put(PODS, pending);
    let mut host = pod("host", "172.18.0.3");
    host["spec"]["hostNetwork"] = json!(true);
    cluster.put(PODS, host);
    for (name, address) in [
        ("twin", "10.244.0.49"),
        ("router", "10.244.0.1"),
        ("last", "10.244.0.254"),
        ("stray", "10.9.9.9"),
    ] {
        let mut pod = pod(name, address);
        pod["metadata"]["creationTimestamp"] = json!("2026-11-22T04:04:13Z");
        cluster.put(PODS, pod);
    }
    let adapter = start(cluster.clone(), &scratch);
    settle().await;
    let client = "kubernetes-endpoint-default.client.toml";
    let expected = "\n[[endpoint]]\nname = \"default/client\"\nnetns = \"/run/ciliate/sandboxes/uid-of-client\"\n\
        addresses = [\"10.244.0.49\"]\n\n[endpoint.labels]\n\"k8s:io.cilium.k8s.policy.cluster\" = \"default\"\n\
        \"k8s:io.cilium.k8s.policy.serviceaccount\" = \"default\"\n\"k8s:io.kubernetes.pod.namespace\" = \"default\"\n\
        \"k8s:run\" = \"client\"\n";
    assert_eq!(scratch.toml(client), expected);
    for (name, why) in [
        ("twin", "10.244.0.49: another pod has it"),
        ("router", "10.244.0.1: the node's router or health endpoint has it"),
        ("last", "10.244.0.254: the node's router or health endpoint has it"),
        ("stray", "10.9.9.9: it is outside the node's CIDRs"),
    ] {
        let file = format!("kubernetes-endpoint-default.{name}.toml");
        assert!(scratch.comments(&file).contains(why), "{}", scratch.comments(&file));
        assert_eq!(scratch.toml(&file).trim(), "");
    }
    assert_eq!(scratch.names().iter().filter(|name| name.contains("endpoint")).count(), 5);
    assert!(
        cluster.asked().iter().any(|asked| asked.contains("fieldSelector=spec.nodeName%3Dnode-a"))
    );
    // It ends, and the other one has its address.
    cluster.change(PODS, "default/client", |pod| pod["status"]["phase"] = json!("Succeeded"));
    settle().await;
    assert!(!scratch.names().contains(&client.to_owned()));
    assert!(scratch.toml("kubernetes-endpoint-default.twin.toml").contains("10.244.0.49"));
    drop(adapter);
}

/// A static pod's picture in the API has a uid of its own; the kubelet, and with it the runtime, knows it by another.
#[tokio::test(start_paused = true)]
async fn static_pods() {
    let (scratch, cluster) = (Scratch::make(), Cluster::new());
    let mut mirror = pod("static-node-a", "10.244.0.50");
    mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "0a1b2c"});
    cluster.put(PODS, mirror.clone());
    // Whoever makes a pod may write that: it doesn't lead elsewhere, nor to the namespace of another pod.
    mirror["metadata"]["creationTimestamp"] = json!("2026-11-21T04:04:14Z");
    for (name, uid, ip) in
        [("up", "../../netns/a", "10.244.0.51"), ("twin", "0a1b2c", "10.244.0.52")]
    {
        mirror["metadata"]["name"] = json!(name);
        mirror["metadata"]["annotations"]["kubernetes.io/config.mirror"] = json!(uid);
        mirror["status"]["podIPs"] = json!([{"ip": ip}]);
        cluster.put(PODS, mirror.clone());
    }
    let _adapter = start(cluster, &scratch);
    settle().await;
    let toml = scratch.toml("kubernetes-endpoint-default.static-node-a.toml");
    assert!(toml.contains("netns = \"/run/ciliate/sandboxes/0a1b2c\""), "{toml}");
    let toml = scratch.toml("kubernetes-endpoint-default.up.toml");
    assert!(toml.contains("netns = \"/run/ciliate/sandboxes/uid-of-static-node-a\""), "{toml}");
    let twin = "kubernetes-endpoint-default.twin.toml";
    assert!(!scratch.toml(twin).contains("netns"));
    assert!(scratch.comments(twin).contains("10.244.0.52: another pod has the network namespace"));
}

/// A service that is no longer one to balance, by its type or by whom it is for, and becomes one again.
#[tokio::test(start_paused = true)]
async fn a_service_that_changes_its_type() {
    let (scratch, cluster) = (Scratch::make(), Cluster::new());
    cluster.put(SERVICES, service("web", "10.96.0.9", 80));
    cluster.put(SLICES, slice("web", &["10.244.1.1"], 80));
    let _adapter = start(cluster.clone(), &scratch);
    settle().await;
    let there = || scratch.names().contains(&WEB.to_owned());
    assert!(there());
    for (type_, proxy, expected) in [
        ("ExternalName", None, false),
        ("ClusterIP", None, true),
        ("ClusterIP", Some("other"), false),
        ("LoadBalancer", None, true),
    ] {
        cluster.change(SERVICES, "default/web", |web| {
            web["spec"]["type"] = json!(type_);
            // Somebody else's load balancer, which says in the status what it gave.
            web["spec"]["loadBalancerClass"] = json!("example.org/lb");
            web["status"] = json!({"loadBalancer": {"ingress": [{"ip": "203.0.113.5"}]}});
            web["metadata"]["labels"] = match proxy {
                Some(name) => json!({"service.kubernetes.io/service-proxy-name": name}),
                None => json!({}),
            };
        });
        settle().await;
        assert_eq!(there(), expected, "{type_} {proxy:?}");
    }
    let toml = scratch.toml(WEB);
    assert!(toml.contains("load-balancer-ips = [\"203.0.113.5:80\"]"), "{toml}");
    // An address that stays in the status of what is no load balancer any more is nobody's.
    cluster.change(SERVICES, "default/web", |web| web["spec"]["type"] = json!("ClusterIP"));
    settle().await;
    assert!(!scratch.toml(WEB).contains("203.0.113.5"));
}

/// Slices of each family, of names, of a headless service; endpoints outside of all nodes' CIDRs, like the API server.
#[tokio::test(start_paused = true)]
async fn slices_of_all_kinds() {
    let mut web = service("web", "10.96.0.9", 80);
    web["spec"]["clusterIPs"] = json!(["10.96.0.9", "fd00:10:96::9"]);
    web["spec"]["sessionAffinity"] = json!("ClientIP");
    let named = |name: &str, kind: &str, addresses: &[&str]| {
        let mut slice = slice("web", addresses, 6443);
        (slice["metadata"]["name"], slice["addressType"]) = (json!(name), json!(kind));
        slice
    };
    let (toml, _) = toml_of(
        web,
        &[
            named("web-4", "IPv4", &["172.18.0.2"]),
            named("web-6", "IPv6", &["fd00:10:244:1::2"]),
            named("web-n", "FQDN", &["api.example.org"]),
            slice("other", &["10.244.1.9"], 80),
        ],
    )
    .await;
    let expected = "[[service]]\nname = \"default/web\"\nprotocol = \"TCP\"\n\
        cluster-ips = [\"10.96.0.9:80\", \"[fd00:10:96::9]:80\"]\nsession-affinity = \"10800s\"\n\
        backends = [\"172.18.0.2:6443\", \"[fd00:10:244:1::2]:6443\"]";
    assert_eq!(toml.trim(), expected);
}

/// 403 and 404 are not asked for every second; the rest goes on.
#[tokio::test(start_paused = true)]
async fn refusals_are_not_hammered() {
    let forbidden = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"pods is forbidden: User \"adapter\" cannot list resource \"pods\"","reason":"Forbidden","code":403}"#;
    for (status, text) in [(403, forbidden), (404, "404 page not found\n")] {
        let (scratch, cluster) = (Scratch::make(), Cluster::new());
        cluster.refuse(PODS, Some((status, text)));
        cluster.put(PODS, pod("client", "10.244.0.49"));
        cluster.put(SERVICES, service("web", "10.96.0.9", 80));
        let adapter = start(cluster.clone(), &scratch);
        pass(Duration::from_secs(600)).await;
        let asked = cluster.asked().iter().filter(|asked| asked.contains(PODS)).count();
        assert!((10..40).contains(&asked), "{asked} requests in ten minutes");
        assert!(adapter.line().contains("can't watch pods"), "{}", adapter.line());
        assert!(scratch.names().contains(&WEB.to_owned()));
        assert!(scratch.names().iter().all(|name| !name.contains("endpoint")));
        cluster.refuse(PODS, None);
        pass(Duration::from_secs(65)).await;
        assert!(scratch.names().contains(&"kubernetes-endpoint-default.client.toml".to_owned()));
        assert!(adapter.line().contains("1 pods"), "{}", adapter.line());
    }
}

/// A server that is gone without a word.
#[tokio::test(start_paused = true)]
async fn silence_is_noticed() {
    let (scratch, cluster) = (Scratch::make(), Cluster::new());
    let _adapter = start(cluster.clone(), &scratch);
    settle().await;
    let watches = || {
        cluster
            .asked()
            .iter()
            .filter(|asked| asked.contains(NODES) && asked.contains("watch="))
            .count()
    };
    assert_eq!(watches(), 1);
    // Nothing is said on the watch; the client leaves it and asks anew, and for how long it says itself.
    pass(Duration::from_secs(60)).await;
    assert_eq!(watches(), 2);
    let bounded = |asked: &String| asked.contains("timeoutSeconds=40") || !asked.contains("watch=");
    assert!(cluster.asked().iter().all(bounded), "{:#?}", cluster.asked());
}
