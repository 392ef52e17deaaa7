//! It is small, and it can't reach the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::HERE;

fn sources() -> Vec<(String, String)> {
    let folder = format!("{HERE}/../../src/kubernetes");
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let rust = entries.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    rust.map(|path| (path.display().to_string(), fs::read_to_string(&path).unwrap())).collect()
}

/// Lines that are neither empty nor a comment, without unit tests.
fn code_lines(text: &str) -> usize {
    let text = text.split("#[cfg(test)]\nmod ").next().unwrap();
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//")).count()
}

#[test]
fn it_is_small() {
    assert_eq!(
        code_lines(
            "//! a\n\nfn f() {\n    // b\n    g();\n}\n#[cfg(test)]\nmod tests {\n    fn t() {}\n}\n"
        ),
        3
    );
    let lines: usize = sources().iter().map(|(_, text)| code_lines(text)).sum();
    assert!((300..1000).contains(&lines), "{lines} lines of code");
}

/// The packages of the lock file: what each is made of.
fn packages() -> BTreeMap<String, Vec<String>> {
    let lock = fs::read_to_string(format!("{HERE}/../../Cargo.lock")).unwrap();
    let lock: toml::Table = lock.parse().unwrap();
    let mut packages: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in lock["package"].as_array().unwrap() {
        let of = package.get("dependencies").and_then(toml::Value::as_array).into_iter().flatten();
        let of = of.map(|name| name.as_str().unwrap().split(' ').next().unwrap().to_owned());
        packages.entry(package["name"].as_str().unwrap().to_owned()).or_default().extend(of);
    }
    packages
}

fn reached(from: impl IntoIterator<Item = String>) -> BTreeSet<String> {
    let packages = packages();
    let mut reached = BTreeSet::new();
    let mut left: Vec<String> = from.into_iter().collect();
    while let Some(name) = left.pop() {
        if reached.insert(name.clone()) {
            left.extend(packages[&name].iter().cloned());
        }
    }
    reached
}

/// Neither by a library, nor by `unsafe`, nor by a program that does it.
#[test]
fn it_cannot_touch_the_kernel() {
    let manifest = fs::read_to_string(format!("{HERE}/../../src/kubernetes/Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let own = manifest["dependencies"].as_table().unwrap().keys().cloned();
    let linked = reached(own);
    for name in
        ["ciliate", "aya", "aya-obj", "netlink-sys", "netlink-packet-route", "nftables", "nix"]
    {
        assert!(packages().contains_key(name) || name == "nix");
        assert!(!linked.contains(name), "{name}");
    }
    for (path, text) in sources() {
        for word in ["unsafe {", "Command::new", "rustix::", "libc::", "AF_NETLINK"] {
            assert!(!text.contains(word), "{word} in {path}");
        }
    }
    let forbids = |(path, text): &(String, String)| {
        !(path.ends_with("lib.rs") || path.ends_with("main.rs"))
            || text.contains("#![forbid(unsafe_code)]")
    };
    assert!(sources().iter().all(forbids));
}

/// And the daemon has nothing of it, nor is it built with it.
#[test]
fn the_daemon_links_none_of_it() {
    let linked = reached(["ciliate".to_owned()]);
    for name in ["ciliate-kubernetes", "kube", "k8s-openapi", "tokio", "hyper", "rustls"] {
        assert!(packages().contains_key(name) && !linked.contains(name), "{name}");
    }
    let manifest = fs::read_to_string(format!("{HERE}/../../Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let default: Vec<_> =
        manifest["workspace"]["default-members"].as_array().unwrap().iter().collect();
    assert_eq!(default, [&toml::Value::from(".")]);
}
