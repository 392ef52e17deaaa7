//! `packaging/kubernetes`: the manifests say what the program does.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::cluster::{Cluster, PODS, SERVICES, pod, service};
use crate::{Adapter, HERE, Scratch, pass, server, settings};

fn packaged(name: &str) -> String {
    fs::read_to_string(format!("{HERE}/../../packaging/kubernetes/{name}")).unwrap()
}

fn documents(name: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(&packaged(name)).unwrap()
}

/// Verbs, API groups and resources.
type Permissions = BTreeSet<(String, String, String)>;

fn granted(name: &str) -> Permissions {
    let mut granted = Permissions::new();
    for role in documents(name).iter().filter(|document| document["kind"] == "ClusterRole") {
        let texts = |value: &Value| -> Vec<String> {
            value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
        };
        for rule in role["rules"].as_array().unwrap() {
            assert!(rule["resourceNames"].is_null() && rule["nonResourceURLs"].is_null());
            for verb in texts(&rule["verbs"]) {
                for group in texts(&rule["apiGroups"]) {
                    let all = texts(&rule["resources"]).into_iter();
                    granted.extend(all.map(|resource| (verb.clone(), group.clone(), resource)));
                }
            }
        }
    }
    granted
}

/// As the API server sees requests.
fn used(asked: &[String]) -> Permissions {
    let permission = |asked: &String| {
        let (method, uri) = asked.split_once(' ').unwrap();
        let (path, query) = uri.split_once('?').unwrap();
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let (group, rest) = match parts[0] {
            "api" => ("", &parts[2..]),
            _ => (parts[1], &parts[3..]),
        };
        let verb = match (method, query.contains("watch=true"), rest.len()) {
            ("GET", true, 1) => "watch",
            ("GET", false, 1) => "list",
            ("GET", false, 2) => "get",
            ("PATCH", _, 2) => "patch",
            other => panic!("{other:?}: {asked}"),
        };
        (verb.to_owned(), group.to_owned(), rest[0].to_owned())
    };
    asked.iter().map(permission).collect()
}

#[tokio::test(start_paused = true)]
async fn permissions_are_those_that_are_used() {
    let key = "IKwg++mojsgZ5mw3McPgcg5Cq9qe/dfNOz3det8U12o=";
    for (with_key, manifests) in
        [(false, &["rbac.yaml"][..]), (true, &["rbac.yaml", "rbac-wireguard.yaml"])]
    {
        let (scratch, keys, cluster) = (Scratch::make(), Scratch::make(), Cluster::new());
        cluster.put(SERVICES, service("web", "10.96.0.9", 80));
        cluster.put(PODS, pod("client", "10.244.0.49"));
        let mut settings = settings("node-a");
        if with_key {
            fs::write(keys.path().join("key"), key).unwrap();
            settings.public_key = Some(keys.path().join("key"));
        }
        let _adapter =
            Adapter::start(server::client(Arc::new(cluster.clone())), settings, &scratch);
        // Long enough for lists, watches that end, and what comes after a failure.
        pass(Duration::from_secs(100)).await;
        cluster.forget();
        cluster.cut();
        pass(Duration::from_secs(100)).await;
        let granted: Permissions = manifests.iter().flat_map(|name| granted(name)).collect();
        assert_eq!(used(&cluster.asked()), granted);
    }
}

#[test]
fn manifests_fit_together() {
    let documents: Vec<Value> = ["rbac.yaml", "rbac-wireguard.yaml", "daemonset.yaml"]
        .into_iter()
        .flat_map(documents)
        .collect();
    let of_kind =
        |kind: &'static str| documents.iter().filter(move |document| document["kind"] == kind);
    let account = of_kind("ServiceAccount").next().unwrap()["metadata"].clone();
    for binding in of_kind("ClusterRoleBinding") {
        let subject = &binding["subjects"][0];
        assert_eq!(
            (&subject["name"], &subject["namespace"]),
            (&account["name"], &account["namespace"])
        );
        let role = |role: &Value| role["metadata"]["name"] == binding["roleRef"]["name"];
        assert!(of_kind("ClusterRole").any(role), "{binding}");
    }
    let daemon_set = of_kind("DaemonSet").next().unwrap();
    let spec = &daemon_set["spec"]["template"]["spec"];
    assert_eq!(daemon_set["metadata"]["namespace"], account["namespace"]);
    assert_eq!(spec["serviceAccountName"], account["name"]);
    let labels = &daemon_set["spec"]["template"]["metadata"]["labels"];
    assert_eq!(&daemon_set["spec"]["selector"]["matchLabels"], labels);
    let container = &spec["containers"][0];
    assert_eq!(container["volumeMounts"][0]["name"], spec["volumes"][0]["name"]);
    assert_eq!(container["volumeMounts"][0]["mountPath"], "/run/ciliate/conf.d");
    assert_eq!(container["securityContext"]["capabilities"]["drop"][0], "ALL");
    assert!(container["securityContext"]["privileged"].is_null());
}

/// Every option that the unit, the manifest and the pages name is one of the program's.
#[test]
fn options_are_understood() {
    let help =
        Command::new(env!("CARGO_BIN_EXE_ciliate-kubernetes")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let mut named = BTreeSet::new();
    let manual = packaged("ciliate-kubernetes.8").replace("\\-", "-");
    for option in help.split_whitespace().filter(|word| word.starts_with("--")) {
        let is_own = !["--help", "--version"].contains(&option);
        assert!(!is_own || manual.contains(option), "the manual page has no {option}");
    }
    let pages = ["daemonset.yaml", "ciliate-kubernetes.service", "README.md"].map(packaged);
    let pages = [pages.concat(), manual];
    let readme = fs::read_to_string(format!("{HERE}/../../src/kubernetes/README.md")).unwrap();
    for text in pages.iter().chain([&readme]).filter(|text| !text.is_empty()) {
        for line in text.lines().filter(|line| !line.contains("cargo ")) {
            for rest in line.split("--").skip(1) {
                let name: String =
                    rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
                let after = rest[name.len()..].chars().next();
                if !name.is_empty() && !name.starts_with('-') && name != "now" && after != Some('|')
                {
                    named.insert(name);
                }
            }
        }
    }
    assert!(named.len() >= 4, "{named:?}");
    for name in named {
        assert!(help.contains(&format!("--{name} ")), "--{name}: {help}");
    }
}

/// systemd itself reads the unit, and finds nothing in it that it doesn't know.
#[test]
fn the_unit_is_one() {
    let scratch = Scratch::make();
    let text = packaged("ciliate-kubernetes.service");
    let unit = scratch.path().join("ciliate-kubernetes.service");
    fs::write(&unit, text.replace("/usr/bin/ciliate-kubernetes", "/bin/true")).unwrap();
    let output = Command::new("systemd-analyze").arg("verify").arg("--man=no").arg(&unit).output();
    let output = output.expect("systemd-analyze, of the package systemd");
    let said = String::from_utf8_lossy(&output.stderr);
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("ciliate-kubernetes")).collect();
    assert_eq!(ours, [""; 0], "{said}");
    assert!(PathBuf::from(&unit).is_file());
}
