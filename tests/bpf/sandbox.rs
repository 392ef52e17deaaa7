//! A thread in network and mount namespaces of its own, with the devices of a node and a BPF file system.
//!
//! Namespaces end with the thread, so a panic, or even a kill, leaves nothing on the machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::thread;

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::thread::UnshareFlags;
use tempfile::TempDir;

/// Where the BPF file system is mounted and which devices there are.
pub struct Sandbox {
    /// Removed after the file system in it is unmounted.
    _folder: TempDir,
    pub pins: PathBuf,
    pub lxc_a: u32,
    pub lxc_b: u32,
    pub cilium_host: u32,
    pub cilium_net: u32,
    pub cilium_vxlan: u32,
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // An error has nowhere to go here; the mount ends with the namespace in any case.
        let _ = rustix::mount::unmount(&self.pins, UnmountFlags::DETACH);
    }
}

/// Runs `test` in a sandbox, or says that it cannot.
pub fn run(test: impl FnOnce(Sandbox) + Send) {
    if !rustix::process::geteuid().is_root() {
        static SAID: Once = Once::new();
        SAID.call_once(|| println!("SKIP bpf tier: needs root"));
        let ci = std::env::var_os("CI").is_some_and(|value| value == "true");
        assert!(!ci, "the bpf tier was skipped, which CI does not allow");
        return;
    }
    let result = thread::scope(|scope| scope.spawn(|| test(enter())).join());
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

fn enter() -> Sandbox {
    leave_machine();
    ip("link set lo up");
    ip("link add lxc_a type veth peer name eth_a");
    ip("link add lxc_b type veth peer name eth_b");
    ip("link add cilium_host type veth peer name cilium_net");
    ip("link add cilium_vxlan type vxlan external dstport 8472 udp6zerocsumrx");
    // Not named by the process: what a killed one left would be in the way of a later one.
    let folder = tempfile::Builder::new().prefix("ciliate-bpf-").tempdir().expect("create it");
    let pins = folder.path().to_owned();
    rustix::mount::mount("bpf", &pins, "bpf", MountFlags::empty(), None).expect("mount bpffs");
    Sandbox {
        _folder: folder,
        pins,
        lxc_a: ifindex("lxc_a"),
        lxc_b: ifindex("lxc_b"),
        cilium_host: ifindex("cilium_host"),
        cilium_net: ifindex("cilium_net"),
        cilium_vxlan: ifindex("cilium_vxlan"),
    }
}

#[allow(unsafe_code, reason = "the safe wrapper of unshare(2) is not to be had")]
fn leave_machine() {
    let flags = UnshareFlags::NEWNET | UnshareFlags::NEWNS;
    // SAFETY: unshare is unsafe for CLONE_FILES, which invalidates descriptors other code holds;
    // these two flags leave descriptors alone. NEWNS also unshares the thread's working directory.
    unsafe { rustix::thread::unshare_unsafe(flags) }.expect("unshare");
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).expect("make mounts private");
    // Interface indexes are read from here; the old mount still shows the machine's.
    rustix::mount::mount("sysfs", "/sys", "sysfs", MountFlags::empty(), None).expect("mount sysfs");
}

/// Runs `ip` in the calling thread's sandbox.
pub fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().expect("run ip");
    assert!(status.success(), "ip {arguments}");
}

fn ifindex(name: &str) -> u32 {
    let path = Path::new("/sys/class/net").join(name).join("ifindex");
    fs::read_to_string(path).expect("read ifindex").trim().parse().expect("a number")
}
