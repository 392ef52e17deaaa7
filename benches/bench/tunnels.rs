//! Peers of a WireGuard device: by `ciliate apply`, and by `wg syncconf`.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use ciliate::net::PublicKey;

use super::traffic::median;

const ROUNDS: usize = 3;
/// Peers that there are before and after. Where nothing is to be done, it is what `apply` itself takes.
const STEPS: [(usize, usize); 6] =
    [(1, 1), (0, 1), (1, 1000), (1000, 1000), (999, 1000), (1000, 0)];

/// Prints how long each takes.
pub fn measure() {
    let lab = Lab::new();
    println!("{:<14} {:>12} {:>14} {:>8}", "peers", "ciliate, ms", "syncconf, ms", "ratio");
    for (before, after) in STEPS {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            lab.apply(before);
            ours.push(lab.apply(after));
            lab.sync(before);
            theirs.push(lab.sync(after));
        }
        let (ours, theirs) = (median(ours.into_iter()), median(theirs.into_iter()));
        let step = format!("{before} to {after}");
        println!("{step:<14} {ours:>12.1} {theirs:>14.1} {:>8.1}", ours / theirs);
    }
}

/// A node with a WireGuard device of each kind; gone when dropped.
struct Lab {
    name: String,
    folder: PathBuf,
}

impl Lab {
    fn new() -> Self {
        let name = format!("cw{}", std::process::id());
        let folder = std::env::temp_dir().join(format!("ciliate-wireguard-{name}"));
        fs::create_dir_all(folder.join("bpf")).expect("make a folder");
        let lab = Self { name, folder };
        let at = lab.folder.display();
        lab.sh(&format!(
            "mount -t bpf bpf {at}/bpf; ip netns add $n; ip -n $n link set lo up
             ip -n $n link add eth0 type veth peer name far; ip -n $n link set eth0 up; ip -n $n link set far up
             ip -n $n addr add 172.18.0.3/16 dev eth0
             ip -n $n link add wg9 type wireguard; umask 077; wg genkey >{at}/key"
        ));
        lab.sync(0);
        lab.apply(0);
        lab
    }

    fn sh(&self, script: &str) {
        let status = Command::new("sh").args(["-euc", script]).env("n", &self.name).status();
        assert!(status.is_ok_and(|status| status.success()), "{script}");
    }

    /// Milliseconds of a program's run in the node.
    fn run(&self, program: &str, arguments: &[&str]) -> f64 {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name)).arg(program).args(arguments);
        let begin = Instant::now();
        let output = command.stdin(Stdio::null()).output().expect("run nsenter");
        let time = begin.elapsed().as_secs_f64() * 1e3;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        time
    }

    /// Has ciliate make so many peers; in milliseconds.
    fn apply(&self, peers: usize) -> f64 {
        let at = self.folder.display();
        let mut text = format!(
            r#"[node]
name = "bench"
addresses = ["172.18.0.3"]
cidrs = ["10.244.0.0/16"]
[routing]
mode = "native"
auto-direct-node-routes = true
[encryption]
mode = "wireguard"
[health]
enabled = false
[paths]
runtime = "{at}/run"
state = "{at}/state"
bpf = "{at}/bpf/ciliate"
"#
        );
        for peer in 0..peers {
            let ([_, _, high, low], key) = address_and_key(peer);
            let _ = write!(
                text,
                "[[peer]]\nname = \"p{peer}\"\naddresses = [\"172.18.{high}.{low}\"]\n\
                 cidrs = [\"11.{high}.{low}.0/24\"]\npublic-key = \"{key}\"\n"
            );
        }
        let config = self.write("ciliate.toml", &text);
        self.run(env!("CARGO_BIN_EXE_ciliate"), &["-c", &text_of(&config), "apply"])
    }

    /// Has `wg` make the same.
    fn sync(&self, peers: usize) -> f64 {
        let key = fs::read_to_string(self.folder.join("key")).expect("read a key");
        let mut text = format!("[Interface]\nPrivateKey = {}\nListenPort = 51999\n", key.trim());
        for peer in 0..peers {
            let ([_, _, high, low], key) = address_and_key(peer);
            let _ = write!(
                text,
                "[Peer]\nPublicKey = {key}\nEndpoint = 172.18.{high}.{low}:51871\n\
                 AllowedIPs = 11.{high}.{low}.0/24\n"
            );
        }
        let config = self.write("wg.conf", &text);
        self.run("wg", &["syncconf", "wg9", &text_of(&config)])
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.join(name);
        fs::write(&path, text).expect("write a configuration");
        path
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let at = self.folder.display();
        self.sh(&format!("ip netns del $n; umount {at}/bpf"));
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn address_and_key(peer: usize) -> ([u8; 4], PublicKey) {
    let bytes = (peer as u32 + 256).to_be_bytes();
    let mut key = [7; 32];
    key[..4].copy_from_slice(&bytes);
    (bytes, PublicKey(key))
}

fn text_of(path: &Path) -> String {
    path.display().to_string()
}
