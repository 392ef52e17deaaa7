//! Objects of others, put beside ours: nothing ciliate does may change a byte of them.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;

use ciliate::kernel::bpf;

use crate::lab::Lab;
use crate::space::Space;

/// `BPF_PROG_TYPE_SCHED_CLS`, and `TCX_NEXT`.
const CLASSIFIER: u32 = 3;
const NEXT: i32 = -1;

/// Foreign objects on node a and in an endpoint's namespace.
pub struct Foreign {
    node: Space,
    endpoint: Space,
    pins: PathBuf,
}

/// What is put on the node, by hand as any operator would.
const ON_NODE: &str = "
ip link add foreign0 type veth peer name foreign1
ip link set foreign1 addrgenmode none up
ip link set foreign0 addrgenmode none alias 'not of ciliate' up
ip addr add 198.51.100.1/24 dev foreign0
ip addr add 2001:db8:f::1/64 dev foreign0 nodad
ip addr add 10.99.0.1/32 dev eth0
ip route add 203.0.113.0/24 via 172.18.0.1 proto 44 metric 77
ip -6 route add 2001:db8:9::/48 via fc00:18::1 proto 44
ip route add 10.244.99.0/24 via 172.18.0.1 proto 44 table 300
ip -6 route add 2001:db8:8::/48 via fc00:18::1 proto 44 table 300
ip rule add priority 99 from 198.51.100.0/24 lookup 300
ip -6 rule add priority 99 from 2001:db8:f::/64 lookup 300
ip neigh add 172.18.0.200 dev eth0 lladdr 02:00:00:00:02:00 nud permanent
nft 'add table inet foreign; add chain inet foreign in { type filter hook input priority 5; };
     add rule inet foreign in ip daddr 10.99.0.1 counter accept; add set inet foreign s { type ipv4_addr; };
     add element inet foreign s { 10.1.2.3 }'
nft 'add table ip ciliate; add chain ip ciliate out'
tc qdisc add dev eth0 clsact
tc filter add dev eth0 ingress pref 50 handle 1 bpf bytecode '1,6 0 0 4294967295,'
echo 2 >/proc/sys/net/ipv4/conf/foreign0/rp_filter
echo 1 >/proc/sys/net/ipv4/conf/foreign0/proxy_arp
";

const IN_ENDPOINT: &str = "
ip addr add 192.0.2.200/32 dev lo
ip route add blackhole 192.0.2.128/25 proto 44
nft 'add table inet ciliate; add chain inet ciliate mine'
ip rule add priority 99 from 192.0.2.200 lookup 300
";

/// Everything about the objects, handles and ids included.
const DUMP_NODE: &str = "
ip -d -o link show foreign0; ip -d -o link show foreign1
ip -o addr show foreign0; ip -o addr show foreign1; ip -o addr show eth0
ip -4 route show table all proto 44; ip -6 route show table all proto 44
ip -4 route show table all proto kernel dev foreign0; ip -4 route show default
ip -4 route show dev eth0 proto kernel table all
ip -4 rule show priority 99; ip -6 rule show priority 99; ip rule show priority 0
ip neigh show 172.18.0.200
nft -a list table inet foreign; nft -a list table ip ciliate
tc qdisc show dev eth0 clsact; tc filter show dev eth0 ingress | grep -v ' pref 1 '
cd /proc/sys/net/ipv4/conf/foreign0; grep . rp_filter proxy_arp accept_local send_redirects
";

const DUMP_ENDPOINT: &str = "
ip -o addr show lo; ip -4 route show table all proto 44; nft -a list ruleset
ip rule show priority 99
";

impl Foreign {
    /// Puts them there.
    pub fn plant(lab: &Lab, endpoint: &Space) -> Self {
        let node = lab.a.space.clone();
        node.sh(ON_NODE);
        endpoint.sh(IN_ENDPOINT);
        let pins = lab.dir.join("bpf/foreign");
        fs::create_dir(&pins).expect("create a folder of foreign pins");
        let program = load_program(CLASSIFIER, NEXT).expect("load a program");
        bpf::obj_pin(&program, &pins.join("program")).expect("pin the program");
        let ifindex = node.sh("ip -o link show eth0");
        let ifindex = ifindex.lines().last().and_then(|line| line.split(':').next());
        let ifindex = ifindex.and_then(|text| text.parse().ok()).expect("an ifindex");
        // Before Linux 6.6 there is the filter of above only.
        if bpf::has_tcx() {
            let link = node.run(|| bpf::tcx_link_create(&program, ifindex, bpf::TCX_INGRESS));
            bpf::obj_pin(link.expect("attach"), &pins.join("link")).expect("pin the link");
        }
        Self { node, endpoint: endpoint.clone(), pins }
    }

    /// Fails with the lines that are not as in an earlier dump.
    #[track_caller]
    pub fn assert_same(&self, before: &str, what: &str) {
        let after = self.dump();
        if before == after {
            return;
        }
        let gone = before.lines().filter(|line| !after.lines().any(|other| other == *line));
        let new = after.lines().filter(|line| !before.lines().any(|other| other == *line));
        let lines: Vec<String> = gone
            .map(|line| format!("- {line}"))
            .chain(new.map(|line| format!("+ {line}")))
            .collect();
        panic!("foreign objects after {what}:\n{}", lines.join("\n"));
    }

    /// All of them as text.
    pub fn dump(&self) -> String {
        let mut text = self.node.sh(DUMP_NODE) + &self.endpoint.sh(DUMP_ENDPOINT);
        if bpf::has_tcx() {
            let link = bpf::obj_get(&self.pins.join("link")).and_then(bpf::tcx_link_info);
            text += &format!("{:?}\n", link.expect("the foreign link"));
        }
        let program = bpf::obj_get(&self.pins.join("program")).and_then(bpf::program_info);
        text + &format!("{:?}\n", program.expect("the foreign program"))
    }
}

/// A program of a type, that says the same of every packet: `r0 = verdict; exit`.
#[allow(
    unsafe_code,
    reason = "bpf(2) has no safe wrapper that loads a program without an object file"
)]
pub fn load_program(kind: u32, verdict: i32) -> io::Result<OwnedFd> {
    let verdict = u64::from(verdict.cast_unsigned()) << 32;
    let instructions: [u64; 2] = [verdict | 0xb7, 0x0000_0000_0000_0095];
    let licence = c"GPL";
    let mut attribute = [0u8; 128];
    attribute[0..4].copy_from_slice(&kind.to_ne_bytes());
    attribute[4..8].copy_from_slice(&2u32.to_ne_bytes());
    attribute[8..16].copy_from_slice(&(instructions.as_ptr() as u64).to_ne_bytes());
    attribute[16..24].copy_from_slice(&(licence.as_ptr() as u64).to_ne_bytes());
    // SAFETY: BPF_PROG_LOAD (5) reads two instructions and a NUL-terminated licence, which live through
    // the call; everything else of the attribute is zero.
    let fd = unsafe {
        libc::syscall(libc::SYS_bpf, 5, attribute.as_mut_ptr(), attribute.as_mut_slice().len())
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so this is a new descriptor that nobody else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    assert!(fd.as_raw_fd() >= 0);
    Ok(fd)
}
