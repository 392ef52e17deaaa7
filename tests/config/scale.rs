//! Large configurations are read whole, and limits hold. How long that takes is a matter of
//! `benches/control_plane.rs`; anything quadratic would not end here before the runner loses patience.

use std::fmt::Write;

use ciliate::config::{Document, Search, cat_config, render};
use ciliate::intent::{self, limits};

use crate::good_inputs::MINIMAL;
use crate::scratch::Scratch;

/// `count` /32 CIDRs in peers of `each`, in 100.64.0.0/10 and beyond.
fn peers(count: u32, each: u32) -> String {
    let mut text = MINIMAL.to_owned();
    for peer in 0..count.div_ceil(each) {
        let address = std::net::Ipv4Addr::from(0xac10_0000 + peer);
        let _ =
            write!(text, "[[peer]]\nname = \"p{peer}\"\naddresses = [\"{address}\"]\ncidrs = [");
        for n in peer * each..((peer + 1) * each).min(count) {
            let _ = write!(text, "\"{}/32\", ", std::net::Ipv4Addr::from(0x6440_0000 + n));
        }
        text.push_str("]\n");
    }
    text
}

#[test]
fn a_hundred_thousand_cidrs_in_one_document() {
    for each in [1000, 100_000, 4] {
        let text = peers(100_000, each);
        let document = Document::of_texts([("big.toml", text)]);
        let intent = intent::read(&document)
            .map_err(|problems| render(document.sources(), &problems, false))
            .unwrap();
        assert_eq!(intent.peers.values().map(|peer| peer.cidrs.len()).sum::<usize>(), 100_000);
    }
}

#[test]
fn ten_thousand_files_of_one_peer() {
    let scratch = Scratch::new();
    scratch.write("d/00.toml", MINIMAL);
    for peer in 0..10_000_u32 {
        let (address, cidr) = (
            std::net::Ipv4Addr::from(0xac10_0000 + peer),
            std::net::Ipv4Addr::from(0x6440_0000 + peer),
        );
        let text = format!(
            "[[peer]]\nname = \"p{peer}\"\naddresses = [\"{address}\"]\ncidrs = [\"{cidr}/32\"]\n"
        );
        scratch.write(&format!("d/{peer:05}.toml"), text);
    }
    let search = Search::path(scratch.path().join("d"));
    let document = Document::load(&search);
    assert_eq!(intent::read(&document).unwrap().peers.len(), 10_000);
    assert_eq!(cat_config(&document).matches("[[peer]]").count(), 10_000);
}

#[test]
fn a_hundred_thousand_mistakes_of_every_sort() {
    let mut text = MINIMAL.to_owned();
    text.push_str("[[peer]]\nname = \"b\"\naddresses = [\"172.18.0.2\"]\ncidrs = [");
    for n in 0..50_000 {
        let _ = write!(text, "{n}, \"10.0.0.{n}/8\", ");
    }
    text.push_str("\"10.9.0.0/16\", ".repeat(50_000).as_str());
    text.push_str("]\n");
    let document = Document::of_texts([("bad.toml", text)]);
    assert_eq!(document.problems().len(), 50_000);
    let problems = intent::read(&document).unwrap_err();
    assert!(problems.len() >= 149_999, "{}", problems.len());
    let rendered = render(document.sources(), &problems, false);
    assert!(rendered.ends_with("problems, the first 100 are shown\n"), "{}", rendered.len());
}

/// The only complaint about a document.
fn only_complaint(text: String) -> String {
    let document = Document::of_texts([("x.toml", text)]);
    let problems = intent::read(&document).unwrap_err();
    assert_eq!(problems.len(), 1, "{}", render(document.sources(), &problems, false));
    format!("{}; {}", problems[0].message, problems[0].help.as_deref().unwrap_or(""))
}

#[test]
fn counts_are_limited() {
    let mut text = MINIMAL.replace("/24", "/16");
    for n in 0..limits::ENDPOINTS_MAX {
        let _ = write!(text, "[[endpoint]]\nname = \"e{n}\"\nnetns = \"/run/netns/e{n}\"\n");
    }
    let document = Document::of_texts([("x.toml", text.clone())]);
    assert!(intent::read(&document).is_ok());
    text.push_str("[[endpoint]]\nname = \"more\"\nnetns = \"/run/netns/more\"\n");
    let complaint = only_complaint(text);
    assert_eq!(complaint, "this is the first endpoint too many; a node has at most 4094 endpoints");
    let complaint = only_complaint(peers(limits::CIDRS_MAX as u32 + 1, 1000));
    assert_eq!(
        complaint,
        "this is the first CIDR too many; all peers together have at most 262144 CIDRs"
    );
    let complaint = only_complaint(peers(limits::PEERS_MAX as u32 + 1, 1));
    assert_eq!(complaint, "this is the first peer too many; a node has at most 65535 peers");
}

/// Services of one frontend and what else is said of it, numbered.
fn services(count: u32, more: impl Fn(u32) -> String) -> String {
    let mut text = MINIMAL.to_owned();
    for n in 0..count {
        let address = std::net::Ipv4Addr::from(0x0a60_0000 + n);
        let _ = write!(
            text,
            "[[service]]\nname = \"s{n}\"\ncluster-ips = [\"{address}:80\"]\n{}\n",
            more(n)
        );
    }
    text
}

#[test]
fn counts_of_services_are_limited() {
    let most = limits::FRONTENDS_MAX as u32;
    let document = Document::of_texts([("x.toml", services(most, |_| String::new()))]);
    assert_eq!(intent::read(&document).unwrap().services.len(), limits::FRONTENDS_MAX);
    let complaint = only_complaint(services(most + 1, |_| String::new()));
    assert_eq!(
        complaint,
        "with service `s65535` there are too many frontends; all services together have at most 65535"
    );
    let list = |n: u32, count: u32| {
        let address = |at: u32| std::net::Ipv4Addr::from(0x0b00_0000 + n * count + at);
        let items: Vec<String> = (0..count).map(|at| format!("\"{}:80\"", address(at))).collect();
        format!("backends = [{}]", items.join(", "))
    };
    assert_eq!(
        only_complaint(services(1, |n| list(n, 1311))),
        "this is the first backend too many; a service has at most 1310 backends"
    );
    assert_eq!(
        only_complaint(services(132, |n| list(n, 1000))),
        "with service `s131` there are too many backends; all services together have at most 131072 different ones"
    );
    assert_eq!(
        only_complaint(services(263, |_| list(0, 1000))),
        "with service `s261` there are too many pairs of frontend and backend; all services together have at most 262144"
    );
    assert_eq!(
        only_complaint(services(132, |_| list(0, 1000) + "\nsession-affinity = \"1h\"")),
        "with service `s131` there are too many pairs of frontend and backend with `session-affinity`; all services together have at most 131072"
    );
    let ranges: Vec<String> = (0..256).map(|n| format!("\"192.168.{n}.0/24\"")).collect();
    let ranges = format!("source-ranges = [{}]", ranges.join(", "));
    let external = |n| format!("{ranges}\nexternal-ips = [\"192.0.{}.{}:80\"]", n / 256, n % 256);
    assert_eq!(
        only_complaint(services(257, external)),
        "with service `s256` there are too many pairs of frontend and source range; all services together have at most 65536"
    );
}
