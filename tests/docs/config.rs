//! `config/`: the annotated default file and the reference, against the published schema.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;

use ciliate::config::{Document, Key, Section, reference, render};
use ciliate::intent::{self, Intent};

use crate::text::{path, read};

const BEGIN: &str = "<!-- generated: UPDATE_EXPECT=1 cargo test --test docs -->\n";
const END: &str = "<!-- end of the generated part -->\n";

fn markdown() -> String {
    let mut out = String::new();
    for section in reference() {
        let _ = write!(out, "\n### `{}`\n\n{}\n\n", section.header, section.about);
        out += "| key | type | default | meaning |\n|---|---|---|---|\n";
        for Key { name, kind, default, meaning } in section.keys {
            let meaning = meaning.replace('|', "\\|");
            let _ = writeln!(out, "| `{name}` | {kind} | {default} | {meaning} |");
        }
    }
    out + "\n"
}

#[test]
fn the_reference_is_that_of_the_schema() {
    let text = read("config/README.md");
    let (before, rest) = text.split_once(BEGIN).expect("where the generated part begins");
    let (_, after) = rest.split_once(END).expect("where the generated part ends");
    let wanted = format!("{before}{BEGIN}{}{END}{after}", markdown());
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(path("config/README.md"), wanted).expect("write");
    } else {
        assert!(text == wanted, "config/README.md is not up to date: run with UPDATE_EXPECT=1");
    }
}

/// The default file with its keys uncommented.
fn uncommented() -> String {
    let text = read("config/ciliate.toml");
    let line = |line: &str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c == '[' || c.is_ascii_lowercase()) => {
            rest.to_owned()
        }
        _ => line.to_owned(),
    };
    text.lines().map(|text| line(text) + "\n").collect()
}

fn intent(text: String) -> Intent {
    let document = Document::of_texts([("ciliate.toml", text)]);
    intent::read(&document)
        .unwrap_or_else(|problems| panic!("{}", render(document.sources(), &problems, false)))
}

#[test]
fn the_default_file_has_every_key_and_sets_none() {
    let text = read("config/ciliate.toml");
    let set: Vec<&str> = text.lines().filter(|l| !l.is_empty() && !l.starts_with('#')).collect();
    assert_eq!(set, Vec::<&str>::new());
    let file: toml::Table = toml::from_str(&uncommented()).expect("TOML");
    for Section { header, keys, .. } in reference() {
        let described: BTreeSet<String> = keys.into_iter().map(|key| key.name).collect();
        if header == "backends = [{ … }]" {
            let tables = file["service"][0]["backends"].as_array().expect("a list");
            let table = tables.iter().find_map(toml::Value::as_table).expect("one that is a table");
            let written: BTreeSet<String> = table.keys().cloned().collect();
            assert_eq!(written, described, "{header}");
            continue;
        }
        let name = header.trim_matches(['[', ']']);
        let mut parts = name.split('.');
        let top = parts.next().expect("a name");
        let whole = &file[top];
        let mut table = whole.get(0).unwrap_or(whole);
        for part in parts {
            table = table[part].get(0).unwrap_or(&table[part]);
        }
        let table = table.as_table().expect("a table");
        let headed = |key: &str| format!("[{name}.{key}]");
        let plain = |(key, value): &(&String, &toml::Value)| {
            value.get(0).is_none_or(|first| !first.is_table())
                && reference().iter().all(|section| section.header != headed(key))
        };
        let plain = table.iter().filter(plain);
        let mut written: BTreeSet<String> = plain.map(|(key, _)| key.clone()).collect();
        if name == "endpoint" {
            // One of the two has to be given, and only one.
            written.insert("pid".into());
        }
        assert_eq!(written, described, "{header}");
    }
}

#[test]
fn the_default_file_shows_the_defaults() {
    let shown = intent(uncommented());
    let cidrs = "cidrs = [\"10.244.0.0/24\", \"fd00:10:244::/80\"]";
    let addresses = "addresses = [\"172.18.0.3\"]";
    let unset = intent(format!("[node]\n{cidrs}\n{addresses}\n"));
    assert_eq!(shown.node.routers, unset.node.routers);
    assert_eq!(shown.masquerade, unset.masquerade);
    assert_eq!(shown.datapath, unset.datapath);
    assert_eq!(shown.conntrack, unset.conntrack);
    assert_eq!(shown.load_balancing, unset.load_balancing);
    assert_eq!(
        shown.peers["node-b"].routers,
        ["10.244.1.1".parse::<IpAddr>().expect("an address")]
    );
    assert_eq!(shown.paths, unset.paths);
    let (shown, unset) = (shown.routing, unset.routing);
    assert_eq!(shown.mode, unset.mode);
    assert_eq!(shown.auto_direct_node_routes, unset.auto_direct_node_routes);
    assert_eq!(shown.native_cidrs, unset.native_cidrs);
    assert_eq!(shown.rule_priority, unset.rule_priority);
}
