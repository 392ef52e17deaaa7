//! The same services as others load them: nftables with a map, nftables and iptables in the layout of kube-proxy.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::services::Addresses;

fn timed(command: &mut Command) -> Duration {
    let begin = Instant::now();
    let status = command.status();
    assert!(status.is_ok_and(|status| status.success()), "{command:?}");
    let time = begin.elapsed();
    // The namespace is the bench's own.
    let flushed = Command::new("nft").args(["flush", "ruleset"]).status();
    assert!(flushed.is_ok_and(|status| status.success()), "nft flush ruleset");
    time
}

fn nft(folder: &Path, text: &str) -> Duration {
    let path = folder.join("peer.nft");
    fs::write(&path, text).expect("write the rules");
    timed(Command::new("nft").arg("-f").arg(&path))
}

/// A map for each of the two backends: the least that nftables can do with.
pub fn nft_maps(folder: &Path, count: usize) -> Duration {
    let mut text = "table ip peer {\n".to_owned();
    for which in 0..2 {
        let _ = write!(
            text,
            "map m{which} {{ type ipv4_addr . inet_service : ipv4_addr . inet_service; elements = {{ "
        );
        for index in 0..count {
            let Addresses { frontend, backends } = Addresses::of(index);
            let _ = write!(text, "{frontend} . 80 : {} . 80, ", backends[which]);
        }
        let _ = write!(
            text,
            "}} }}\nchain c{which} {{ dnat ip to ip daddr . tcp dport map @m{which}; }}\n"
        );
    }
    text += "chain out { type nat hook output priority -100; numgen random mod 2 vmap { 0 : goto c0, 1 : goto c1 }; }\n}\n";
    nft(folder, &text)
}

/// A chain for each service and for each of its backends, as kube-proxy has in its mode `nftables`.
pub fn nft_chains(folder: &Path, count: usize) -> Duration {
    let mut text = "table ip peer {\n".to_owned();
    for index in 0..count {
        for (which, backend) in Addresses::of(index).backends.iter().enumerate() {
            let _ = writeln!(
                text,
                "chain e{index}-{which} {{ meta l4proto tcp dnat to {backend}:80; }}"
            );
        }
        let _ = writeln!(
            text,
            "chain s{index} {{ numgen random mod 2 vmap {{ 0 : goto e{index}-0, 1 : goto e{index}-1 }}; }}"
        );
    }
    text += "map services { type ipv4_addr . inet_proto . inet_service : verdict; elements = { ";
    for index in 0..count {
        let _ = write!(text, "{} . tcp . 80 : goto s{index}, ", Addresses::of(index).frontend);
    }
    text += "} }\nchain out { type nat hook output priority -100; ip daddr . meta l4proto . th dport vmap @services; }\n}\n";
    nft(folder, &text)
}

/// The same in its mode `iptables`.
pub fn iptables(folder: &Path, count: usize) -> Duration {
    let mut chains = "*nat\n:SERVICES - [0:0]\n".to_owned();
    let mut rules = "-A OUTPUT -j SERVICES\n".to_owned();
    for index in 0..count {
        let Addresses { frontend, backends } = Addresses::of(index);
        let _ = writeln!(chains, ":S{index} - [0:0]\n:E{index}-0 - [0:0]\n:E{index}-1 - [0:0]");
        let _ = writeln!(rules, "-A SERVICES -d {frontend}/32 -p tcp --dport 80 -j S{index}");
        let half = "-m statistic --mode random --probability 0.5";
        let _ = writeln!(rules, "-A S{index} {half} -j E{index}-0\n-A S{index} -j E{index}-1");
        for (which, backend) in backends.iter().enumerate() {
            let dnat = format!("-p tcp -j DNAT --to-destination {backend}:80");
            let _ = writeln!(rules, "-A E{index}-{which} {dnat}");
        }
    }
    let path = folder.join("peer.iptables");
    fs::write(&path, format!("{chains}{rules}COMMIT\n")).expect("write the rules");
    timed(Command::new("iptables-restore").stdin(File::open(&path).expect("the rules")))
}
