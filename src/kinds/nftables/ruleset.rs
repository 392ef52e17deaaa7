//! The table as nft's JSON (libnftables-json(5)): what we send, and what a listing says. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};

use super::{Table, owner};

/// Postrouting, at the priority of source NAT (`NF_IP_PRI_NAT_SRC`).
const CHAIN: &str = "postrouting";
/// What this host's own processes send, at the priority of filters (`NF_IP_PRI_FILTER`).
const CHAIN_OUTPUT: &str = "output";
/// Before conntrack (`NF_IP_PRI_RAW`): what this host's own processes send, and what arrives.
const CHAIN_RAW_OUTPUT: &str = "raw_output";
const CHAIN_RAW_PREROUTING: &str = "raw_prerouting";
const PRIORITY_RAW: i32 = -300;

/// Suffix of sets, protocol, whether it is IPv6.
const FAMILIES: [(&str, &str, bool); 2] = [("v4", "ip", false), ("v6", "ip6", true)];

fn of_family(nets: &[IpNet], v6: bool) -> BTreeSet<IpNet> {
    let nets = nets.iter().copied().filter(|net| net.addr().is_ipv6() == v6).collect();
    IpNet::aggregate(&nets).into_iter().collect()
}

fn payload(protocol: &str, field: &str) -> Value {
    json!({"payload": {"protocol": protocol, "field": field}})
}

fn is(op: &str, left: &Value, right: &Value) -> Value {
    json!({"match": {"op": op, "left": left, "right": right}})
}

fn meta(key: &str) -> Value {
    json!({"meta": {"key": key}})
}

/// The table that rewrites the source of packets from `sources` (the node's CIDRs) to the address of
/// the device they leave by, unless they go to one of `direct` or stay among our own devices.
pub fn masquerade(sources: &[IpNet], direct: &[IpNet]) -> Table {
    let mut table = Table::default();
    for (suffix, protocol, v6) in FAMILIES {
        let (sources, direct) = (of_family(sources, v6), of_family(direct, v6));
        // All destinations direct, or nobody to masquerade: no rule. An empty set is legal, but
        // `0.0.0.0/0` in an interval set is not listed as it was written.
        if sources.is_empty() || direct.iter().any(|net| net.prefix_len() == 0) {
            continue;
        }
        let (source_set, direct_set) = (format!("endpoints_{suffix}"), format!("direct_{suffix}"));
        let expression = json!([
            is("==", &payload(protocol, "saddr"), &json!(format!("@{source_set}"))),
            is("!=", &payload(protocol, "daddr"), &json!(format!("@{direct_set}"))),
            is("!=", &meta("oifname"), &json!("cilium_*")),
            {"masquerade": null},
        ]);
        table.rules.push((CHAIN.into(), expression.to_string()));
        table.sets.insert(source_set, sources);
        table.sets.insert(direct_set, direct);
    }
    let chain = json!({"type": "nat", "hook": "postrouting", "prio": 100, "policy": "accept"});
    table.chains.insert(CHAIN.into(), chain.to_string());
    table
}

/// Has what leaves by `device` for other nodes' endpoints come from the router, so that answers find
/// their way back through the tunnel: this host's own packets with another source, and those of others
/// that it forwards. `cidrs` are the node's. To be used on a table of [`masquerade`].
pub fn from_router(table: &mut Table, device: &str, cidrs: &[IpNet], routers: &[IpAddr]) {
    for (suffix, protocol, v6) in FAMILIES {
        let router = routers.iter().find(|router| router.is_ipv6() == v6);
        let (Some(router), cidrs) = (router, of_family(cidrs, v6)) else { continue };
        let set = format!("endpoints_{suffix}");
        let members = json!(format!("@{set}"));
        let expression = json!([
            is("==", &meta("oifname"), &json!(device)),
            is("!=", &payload(protocol, "saddr"), &members),
            is("!=", &payload(protocol, "daddr"), &members),
            {"snat": {"family": protocol, "addr": router.to_string()}},
        ]);
        table.rules.push((CHAIN.into(), expression.to_string()));
        table.sets.insert(set, cidrs);
    }
}

/// Has the mark of what this host's own processes send by `device` say so, where it says nothing yet:
/// bits `mask` become `value`.
pub fn mark_own(table: &mut Table, device: &str, (value, mask): (u32, u32)) {
    let expression = json!([
        is("==", &meta("oifname"), &json!(device)),
        is("==", &json!({"&": [meta("mark"), mask]}), &json!(0)),
        {"mangle": {"key": meta("mark"), "value": {"|": [meta("mark"), value]}}},
    ]);
    table.rules.push((CHAIN_OUTPUT.into(), expression.to_string()));
    table.rules.sort_by(|(a, _), (b, _)| a.cmp(b));
    let chain = json!({"type": "filter", "hook": "output", "prio": 0, "policy": "accept"});
    table.chains.insert(CHAIN_OUTPUT.into(), chain.to_string());
}

/// Has conntrack leave alone what is sent to UDP port `port` of other nodes, and what comes to that port of
/// this one, at one of `addresses`. What others send through this host is none of the tunnel's.
pub fn notrack(table: &mut Table, port: u16, addresses: &[IpAddr]) {
    let to_port = is("==", &payload("udp", "dport"), &json!(port));
    for (chain, hook) in [(CHAIN_RAW_OUTPUT, "output"), (CHAIN_RAW_PREROUTING, "prerouting")] {
        let properties =
            json!({"type": "filter", "hook": hook, "prio": PRIORITY_RAW, "policy": "accept"});
        table.chains.insert(chain.into(), properties.to_string());
    }
    let sent = json!([to_port, {"notrack": null}]);
    table.rules.push((CHAIN_RAW_OUTPUT.into(), sent.to_string()));
    let own: Vec<IpNet> = addresses.iter().map(|address| IpNet::from(*address)).collect();
    for (suffix, protocol, v6) in FAMILIES {
        let own = of_family(&own, v6);
        if own.is_empty() {
            continue;
        }
        let set = format!("node_{suffix}");
        let to_us = is("==", &payload(protocol, "daddr"), &json!(format!("@{set}")));
        let arrived = json!([to_port, to_us, {"notrack": null}]);
        table.rules.push((CHAIN_RAW_PREROUTING.into(), arrived.to_string()));
        table.sets.insert(set, own);
    }
    table.rules.sort_by(|(a, _), (b, _)| a.cmp(b));
}

/// The document for `nft -j -f -` that puts the table in place of whatever is there: add, delete and
/// add again in one transaction, since `destroy` needs nft 1.0.7. `None` removes it.
pub fn render(table: Option<&Table>) -> Value {
    let name = owner::NFTABLES_TABLE;
    let header = json!({"table": {"family": "inet", "name": name}});
    let mut commands = vec![json!({"add": header}), json!({"delete": header})];
    if let Some(table) = table {
        commands.push(json!({"add": header}));
        for (set, elements) in &table.sets {
            let mut body = json!({
                "family": "inet", "table": name, "name": set,
                "type": set_type(set), "flags": ["interval"],
            });
            if !elements.is_empty() {
                body["elem"] = elements.iter().map(element).collect();
            }
            commands.push(json!({"add": {"set": body}}));
        }
        for (chain, properties) in &table.chains {
            let mut body: Value = serde_json::from_str(properties).unwrap_or_default();
            body["family"] = "inet".into();
            body["table"] = name.into();
            body["name"] = chain.as_str().into();
            commands.push(json!({"add": {"chain": body}}));
        }
        for (chain, expression) in &table.rules {
            let expression: Value = serde_json::from_str(expression).unwrap_or_default();
            let body = json!({"family": "inet", "table": name, "chain": chain, "expr": expression});
            commands.push(json!({"add": {"rule": body}}));
        }
    }
    json!({"nftables": commands})
}

fn element(net: &IpNet) -> Value {
    if net.prefix_len() == net.max_prefix_len() {
        json!(net.addr().to_string())
    } else {
        json!({"prefix": {"addr": net.addr().to_string(), "len": net.prefix_len()}})
    }
}

/// What `nft -j list table inet ciliate` says, brought to the form of [`masquerade`].
pub fn parse(listing: &Value) -> Table {
    let mut table = Table::default();
    let items = listing["nftables"].as_array().map(Vec::as_slice).unwrap_or_default();
    for item in items {
        let Some((what, body)) = item.as_object().and_then(|o| o.iter().next()) else { continue };
        let name = body["name"].as_str().unwrap_or_default().to_string();
        match what.as_str() {
            "metainfo" | "table" => {}
            "set" => match elements(body) {
                Some(elements) if is_ours_but_for_elements(&name, body) => {
                    drop(table.sets.insert(name, elements));
                }
                _ => table.strange.push(format!("set {name}")),
            },
            "chain" => drop(table.chains.insert(name, without_identity(body))),
            "rule" => {
                let chain = body["chain"].as_str().unwrap_or_default().to_string();
                if !has_only(body, &["family", "table", "chain", "handle", "expr"]) {
                    table.strange.push(format!("comment of a rule of chain {chain}"));
                }
                table.rules.push((chain, body["expr"].to_string()));
            }
            other => table.strange.push(format!("{other} {name}")),
        }
    }
    table.rules.sort_by(|(a, _), (b, _)| a.cmp(b));
    table
}

/// A chain's properties without what names it.
fn without_identity(body: &Value) -> String {
    let mut properties = body.clone();
    if let Some(object) = properties.as_object_mut() {
        for key in ["family", "table", "name", "handle"] {
            object.remove(key);
        }
    }
    properties.to_string()
}

fn has_only(body: &Value, keys: &[&str]) -> bool {
    body.as_object().is_some_and(|object| object.keys().all(|key| keys.contains(&key.as_str())))
}

/// Whether a set has the type that goes with its name, and no property that we never ask for.
fn is_ours_but_for_elements(name: &str, body: &Value) -> bool {
    body["type"] == set_type(name)
        && has_only(body, &["family", "table", "name", "handle", "type", "flags", "elem"])
}

/// The type of a set of ours.
fn set_type(name: &str) -> &'static str {
    if name.ends_with("_v6") { "ipv6_addr" } else { "ipv4_addr" }
}

/// The prefixes of a set, or `None` for a set that can't be one of ours.
fn elements(body: &Value) -> Option<BTreeSet<IpNet>> {
    if body["flags"] != json!(["interval"]) {
        return None;
    }
    let Some(elements) = body.get("elem") else { return Some(BTreeSet::new()) };
    elements
        .as_array()?
        .iter()
        .map(|element| match element {
            Value::String(address) => address.parse().ok().map(|a: IpAddr| IpNet::from(a)),
            prefix => {
                let address: IpAddr = prefix["prefix"]["addr"].as_str()?.parse().ok()?;
                IpNet::new(address, prefix["prefix"]["len"].as_u64()?.try_into().ok()?).ok()
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|net| net.parse().unwrap()).collect()
    }

    #[test]
    fn what_is_rendered_is_what_is_parsed() {
        let cidrs = nets(&["10.244.0.0/24", "fd00:10:244::/80"]);
        let mut table = masquerade(
            &cidrs,
            &nets(&["10.0.0.0/8", "10.244.0.0/24", "172.18.0.2/32", "fd00:10:244::/80"]),
        );
        let routers = ["10.244.0.1", "fd00:10:244::1"].map(|router| router.parse().unwrap());
        from_router(&mut table, "cilium_host", &cidrs, &routers);
        mark_own(&mut table, "cilium_host", (0xc00, 0xf00));
        let own = ["172.18.0.3", "fd00::3"].map(|address| address.parse().unwrap());
        notrack(&mut table, 8472, &own);
        assert_eq!((table.rules.len(), table.chains.len()), (8, 4));
        assert_eq!(table.sets["direct_v4"].len(), 2, "the node's CIDR lies in 10.0.0.0/8");
        let listing: Vec<Value> = render(Some(&table))["nftables"].as_array().unwrap()[2..]
            .iter()
            .map(|command| command["add"].clone())
            .collect();
        assert_eq!(parse(&json!({"nftables": listing})), table);
    }

    #[test]
    fn no_rule_where_every_destination_is_direct() {
        let table = masquerade(&nets(&["10.244.0.0/24"]), &nets(&["0.0.0.0/0"]));
        assert_eq!((table.rules.len(), table.sets.len()), (0, 0));
    }

    #[test]
    fn the_router_speaks_for_its_own_families() {
        let mut table = masquerade(&nets(&["10.244.0.0/24"]), &nets(&["0.0.0.0/0"]));
        let router = "10.244.0.1".parse().unwrap();
        from_router(&mut table, "cilium_host", &nets(&["10.244.0.0/24"]), &[router]);
        assert_eq!(table.sets.keys().collect::<Vec<_>>(), ["endpoints_v4"]);
        let [(chain, rule)] = table.rules.as_slice() else { panic!("{:?}", table.rules) };
        assert_eq!(chain, "postrouting");
        assert!(rule.contains("10.244.0.1") && rule.contains("cilium_host"), "{rule}");
    }

    #[test]
    fn things_that_we_never_put_there_are_seen() {
        let listing = json!({"nftables": [{"map": {"name": "m"}}, {"set": {"name": "s", "flags": ["timeout"]}}]});
        assert_eq!(parse(&listing).strange, ["map m", "set s"]);
    }
}
