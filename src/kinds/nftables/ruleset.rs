//! The table as nft's JSON (libnftables-json(5)): what we send, and what a listing says. Pure.

use std::collections::BTreeSet;

use ipnet::IpNet;
use serde_json::{Value, json};

use super::{Table, owner};

/// Postrouting, at the priority of source NAT (`NF_IP_PRI_NAT_SRC`).
const CHAIN: &str = "postrouting";

/// The table that rewrites the source of packets from `sources` (the node's CIDRs) to the address of
/// the device they leave by, unless they go to one of `direct` or stay among our own devices.
pub fn masquerade(sources: &[IpNet], direct: &[IpNet]) -> Table {
    let mut table = Table::default();
    for (suffix, protocol, v6) in [("v4", "ip", false), ("v6", "ip6", true)] {
        let of_family = |nets: &[IpNet]| -> BTreeSet<IpNet> {
            let nets = nets.iter().copied().filter(|net| net.addr().is_ipv6() == v6).collect();
            IpNet::aggregate(&nets).into_iter().collect()
        };
        let (sources, direct) = (of_family(sources), of_family(direct));
        // All destinations direct, or nobody to masquerade: no rule. An empty set is legal, but
        // `0.0.0.0/0` in an interval set is not listed as it was written.
        if sources.is_empty() || direct.iter().any(|net| net.prefix_len() == 0) {
            continue;
        }
        let (source_set, direct_set) = (format!("endpoints_{suffix}"), format!("direct_{suffix}"));
        let payload = |field: &str| json!({"payload": {"protocol": protocol, "field": field}});
        let expression = json!([
            {"match": {"op": "==", "left": payload("saddr"), "right": format!("@{source_set}")}},
            {"match": {"op": "!=", "left": payload("daddr"), "right": format!("@{direct_set}")}},
            {"match": {"op": "!=", "left": {"meta": {"key": "oifname"}}, "right": "cilium_*"}},
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

/// The document for `nft -j -f -` that puts the table in place of whatever is there: add, delete and
/// add again in one transaction, since `destroy` needs nft 1.0.7. `None` removes it.
pub fn render(table: Option<&Table>) -> Value {
    let name = owner::NFTABLES_TABLE;
    let header = json!({"table": {"family": "inet", "name": name}});
    let mut commands = vec![json!({"add": header}), json!({"delete": header})];
    if let Some(table) = table {
        commands.push(json!({"add": header}));
        for (set, elements) in &table.sets {
            let v6 = set.ends_with("_v6");
            let mut body = json!({
                "family": "inet", "table": name, "name": set,
                "type": if v6 { "ipv6_addr" } else { "ipv4_addr" }, "flags": ["interval"],
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
                Some(elements) => drop(table.sets.insert(name, elements)),
                None => table.strange.push(format!("set {name}")),
            },
            "chain" => drop(table.chains.insert(name, without_identity(body))),
            "rule" => {
                let chain = body["chain"].as_str().unwrap_or_default().to_string();
                table.rules.push((chain, body["expr"].to_string()));
            }
            other => table.strange.push(format!("{other} {name}")),
        }
    }
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
            Value::String(address) => {
                address.parse().ok().map(|a: std::net::IpAddr| IpNet::from(a))
            }
            prefix => {
                let address: std::net::IpAddr = prefix["prefix"]["addr"].as_str()?.parse().ok()?;
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
        let table = masquerade(
            &nets(&["10.244.0.0/24", "fd00:10:244::/80"]),
            &nets(&["10.0.0.0/8", "10.244.0.0/24", "172.18.0.2/32", "fd00:10:244::/80"]),
        );
        assert_eq!(table.rules.len(), 2);
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
    fn things_that_we_never_put_there_are_seen() {
        let listing = json!({"nftables": [{"map": {"name": "m"}}, {"set": {"name": "s", "flags": ["timeout"]}}]});
        assert_eq!(parse(&listing).strange, ["map m", "set s"]);
    }
}
