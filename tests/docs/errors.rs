//! The pages about errors: each message that there is stands on one of them, as it is printed.
//!
//! The lists are made by functions that match each variant without a wildcard, so that a new error does not compile
//! until it has a page.

use std::io;
use std::path::PathBuf;

use ciliate::daemon::FIGHT_EXPLANATION;
use ciliate::engine::EngineError;
use ciliate::kernel::netlink::NetlinkError;
use ciliate::kernel::netns::NetnsError;
use ciliate::kernel::private_key::KeyProblem;
use ciliate::kernel::{KernelError, chain};
use ciliate::kinds::BlockedReason;
use ciliate::listen::ListenError;
use ciliate::net::Netns;
use ciliate::plan::{SavedPlanError, check};

use crate::text::{PAGES, blocks, read};

/// A page has the message, alone in a block.
fn assert_on(page: &str, message: &str) {
    let page = format!("docs/errors/{page}.md");
    assert!(PAGES.contains(&page.as_str()), "{page} is not among the pages that are checked");
    let found = blocks(&read(&page), "text").iter().any(|block| block.trim_end() == message);
    assert!(found, "{page} does not have this message:\n{message}");
}

fn page_of_a_kernel_error(error: &KernelError) -> &'static str {
    match error {
        KernelError::Netlink { .. }
        | KernelError::Netns { .. }
        | KernelError::Bpf { .. }
        | KernelError::File { .. }
        | KernelError::Verifier { .. }
        | KernelError::NoNativeXdp { .. }
        | KernelError::InUse { .. }
        | KernelError::Refused { .. } => "kernel",
        KernelError::NotBpffs { .. }
        | KernelError::Nft(_)
        | KernelError::NftMissing
        | KernelError::NftHangs { .. }
        | KernelError::TooOld { .. }
        | KernelError::Incapable { .. } => "machine",
        KernelError::Locked { .. } | KernelError::OtherNamespace { .. } => "node",
        KernelError::PrivateKey { .. } => "encryption",
        KernelError::PinTaken { .. } => "foreign",
    }
}

fn os_error(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

fn kernel_errors() -> Vec<KernelError> {
    let permission = NetlinkError::Kernel { errno: 1, message: String::new() };
    vec![
        KernelError::Netlink { operation: "list routes", source: permission },
        KernelError::Netns { netns: Netns::at("/run/netns/client"), source: NetnsError::Missing },
        KernelError::Bpf {
            operation: "make",
            object: "map cilium_lxc".into(),
            source: os_error(12),
        },
        KernelError::File {
            operation: "create",
            path: "/run/ciliate".into(),
            source: os_error(30),
        },
        KernelError::NotBpffs { path: "/sys/fs/bpf/ciliate".into() },
        KernelError::Nft("Error: Could not process rule: No such file or directory".into()),
        KernelError::NftMissing,
        KernelError::NftHangs { limit_s: 10 },
        KernelError::PinTaken {
            path: "/sys/fs/bpf/ciliate/maps/cilium_lxc-new".into(),
            what: "a directory",
        },
        KernelError::Verifier {
            program: "cil_from_container".into(),
            reason: "R1 invalid mem access".into(),
        },
        KernelError::NoNativeXdp { ifname: "eth0".into(), source: os_error(95) },
        KernelError::Locked { path: "/run/ciliate/lock".into() },
        KernelError::PrivateKey {
            path: "/var/lib/ciliate/wireguard.key".into(),
            problem: KeyProblem::Readable { mode: 0o640 },
        },
        KernelError::InUse {
            object: "program cil_from_container".into(),
            by: "filter lxc0a1b2c3d4e5f ingress".into(),
        },
        KernelError::OtherNamespace {
            root: "/sys/fs/bpf/ciliate".into(),
            home: "net:[4026532999]".into(),
            here: "net:[4026531840]".into(),
            advice: "run ciliate there".into(),
        },
        KernelError::TooOld { release: "5.10.0-30-amd64".into(), oldest: "6.1".into() },
        KernelError::Incapable { missing: "CAP_SYS_ADMIN".into() },
        KernelError::Refused { expected: "no link".into(), found: "link cilium_host".into() },
    ]
}

#[test]
fn of_the_kernel_and_the_machine() {
    for error in kernel_errors() {
        assert_on(page_of_a_kernel_error(&error), &chain(&error));
    }
}

fn page_of_a_reason(reason: &BlockedReason) -> &'static str {
    match reason {
        BlockedReason::PeerNotOnLink { .. }
        | BlockedReason::PeerUnreachable { .. }
        | BlockedReason::PeerIsLocal { .. }
        | BlockedReason::Misled { .. }
        | BlockedReason::DeviceMissing { .. }
        | BlockedReason::AddressMissing { .. }
        | BlockedReason::UnderlayMissing => "underlay",
        BlockedReason::PeerWithoutUnderlay { .. }
        | BlockedReason::NodeWithoutUnderlay { .. }
        | BlockedReason::TunnelPortTaken { .. }
        | BlockedReason::TunnelKept { .. }
        | BlockedReason::NoTunnelYet
        | BlockedReason::TunnelMtu { .. } => "tunnel",
        BlockedReason::NetnsUnusable { .. }
        | BlockedReason::NoFreeAddress { .. }
        | BlockedReason::NoFreeEndpointId => "endpoint",
        BlockedReason::Foreign { .. }
        | BlockedReason::RouteTaken { .. }
        | BlockedReason::FilterTaken { .. }
        | BlockedReason::IngressQdisc { .. }
        | BlockedReason::XdpTaken { .. }
        | BlockedReason::EndOfAnother { .. }
        | BlockedReason::PinTaken { .. } => "foreign",
        BlockedReason::CgroupMissing { .. } | BlockedReason::NoFreeServiceId { .. } => "service",
        BlockedReason::WireguardMissing
        | BlockedReason::PrivateKeyUnusable { .. }
        | BlockedReason::PeerHasOurKey
        | BlockedReason::PeerWithoutEndpoint
        | BlockedReason::EncryptionMtu { .. } => "encryption",
    }
}

fn reasons() -> Vec<BlockedReason> {
    let eth0 = || "eth0".to_owned();
    let ingress = || "ingress".to_owned();
    vec![
        BlockedReason::PeerNotOnLink { address: "192.0.2.2".into(), gateway: "172.18.0.1".into() },
        BlockedReason::PeerUnreachable { address: "192.0.2.2".into() },
        BlockedReason::PeerIsLocal { address: "172.18.0.3".into() },
        BlockedReason::Misled { object: "rule priority 5 from all lookup 77".into() },
        BlockedReason::PeerWithoutUnderlay { family: "IPv6".into() },
        BlockedReason::NodeWithoutUnderlay { family: "IPv6".into() },
        BlockedReason::TunnelPortTaken { port: 8472, ifname: "flannel.1".into() },
        BlockedReason::TunnelKept { ifname: "cilium_vxlan".into(), port: 8472 },
        BlockedReason::NoTunnelYet,
        BlockedReason::TunnelMtu { mtu_bytes: 1300, left_bytes: 1250 },
        BlockedReason::NetnsUnusable {
            netns: "/run/netns/client".into(),
            problem: "no such file".into(),
        },
        BlockedReason::NoFreeAddress { cidr: "10.244.0.0/24".into() },
        BlockedReason::Foreign { object: "link cilium_host".into() },
        BlockedReason::RouteTaken { route: "10.244.1.0/24".into() },
        BlockedReason::FilterTaken { ifname: eth0(), hook: ingress() },
        BlockedReason::IngressQdisc { ifname: eth0() },
        BlockedReason::XdpTaken { ifname: eth0() },
        BlockedReason::EndOfAnother {
            object: "link lxc0a1b2c3d4e5f".into(),
            link: "link lxc000000000001".into(),
        },
        BlockedReason::PinTaken {
            path: "/sys/fs/bpf/ciliate/maps/cilium_lxc".into(),
            what: "a directory".into(),
        },
        BlockedReason::DeviceMissing { ifname: "eth7".into() },
        BlockedReason::AddressMissing { address: "192.0.2.1".into() },
        BlockedReason::UnderlayMissing,
        BlockedReason::NoFreeEndpointId,
        BlockedReason::CgroupMissing { path: "/sys/fs/cgroup".into() },
        BlockedReason::NoFreeServiceId { frontend: "10.96.94.95:9494/TCP".into() },
        BlockedReason::WireguardMissing,
        BlockedReason::PrivateKeyUnusable {
            problem: "/var/lib/ciliate/wireguard.key: it is not a plain file; private-key-file of [encryption] names a file with a key in base64".into(),
        },
        BlockedReason::PeerHasOurKey,
        BlockedReason::PeerWithoutEndpoint,
        BlockedReason::EncryptionMtu { mtu_bytes: 1350, left_bytes: 1270 },
    ]
}

#[test]
fn of_what_is_blocked() {
    for reason in reasons() {
        assert_on(page_of_a_reason(&reason), &reason.to_string());
    }
    assert_on("foreign", FIGHT_EXPLANATION);
}

#[test]
fn of_plans() {
    let broken = || check::Broken::RemovalBeforeAddition("route 10.244.1.0/24".into());
    let syntax = serde_json::from_str::<u32>("x").expect_err("not JSON");
    let saved = [
        SavedPlanError::Syntax(syntax),
        SavedPlanError::Version { found: 0 },
        SavedPlanError::Moved(broken()),
        SavedPlanError::Differs { object: "link cilium_host".into() },
    ];
    for error in saved {
        match error {
            SavedPlanError::Syntax(_)
            | SavedPlanError::Version { .. }
            | SavedPlanError::Moved(_)
            | SavedPlanError::Differs { .. } => assert_on("plan", &error.to_string()),
        }
    }
    assert_on("plan", &EngineError::BadPlan(broken()).to_string());
}

#[test]
fn of_listening() {
    let pin = || PathBuf::from("/sys/fs/bpf/ciliate/maps/ciliate_events");
    let errors = [
        ListenError::NotApplied { pin: pin() },
        ListenError::OtherVersion { pin: pin() },
        ListenError::Full { pids: "812, 813".into() },
        ListenError::Ring { bytes: 8_388_608, source: os_error(12) },
    ];
    for error in errors {
        match error {
            ListenError::NotApplied { .. }
            | ListenError::OtherVersion { .. }
            | ListenError::Full { .. }
            | ListenError::Ring { .. }
            // Those of the kernel have pages of their own.
            | ListenError::Kernel(_) => assert_on("events", &chain(&error)),
        }
    }
}

/// The mistake on the page about configurations is one that is made.
#[test]
fn of_configurations() {
    let shown = blocks(&read("docs/errors/configuration.md"), "text").remove(0);
    let fixtures = crate::text::path("tests/config/bad");
    let said = std::fs::read_dir(fixtures).expect("a folder").any(|entry| {
        let file = entry.expect("an entry").path();
        file.extension().is_some_and(|extension| extension == "txt")
            && std::fs::read_to_string(file).expect("a fixture").contains(&shown)
    });
    assert!(said, "no fixture in tests/config/bad has {shown}");
}

/// Every page is in the index, and a page that a message leads to has it.
#[test]
fn every_page_is_in_the_index() {
    let index = read("docs/errors/README.md");
    for page in PAGES.iter().filter_map(|page| page.strip_prefix("docs/errors/")) {
        assert!(page == "README.md" || index.contains(&format!("({page})")), "{page}");
    }
}
