//! The programs, loaded and pinned in a sandbox, over maps that describe a [`World`]; runs packets
//! through them and reads what was counted.

#[path = "lab_services.rs"]
pub mod services;

use std::collections::BTreeMap;
use std::fs::File;
use std::net::IpAddr;

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, MapData, PerCpuArray, PerCpuHashMap, ProgramArray};
use aya::programs::{
    CgroupAttachMode, Program, SchedClassifier, TcAttachType, TestRun, TestRunOptions, tc,
};
use aya::{Ebpf, EbpfLoader};
use ciliate::bpf_abi::{
    CILIATE_DEVICE, CILIATE_LOST, CILIATE_NODE, CILIATE_UNDERLAY, CILIUM_IPCACHE, CILIUM_LXC,
    CILIUM_METRICS, DeviceKey, EndpointKey, IpcacheKey, IpcacheValue, MAPS, MONITOR_SLOTS,
    MetricsKey, MetricsValue, NODE_FLAG_HOST_ROUTING, UnderlayValue,
};
use ciliate::bpf_objects::OBJECTS;
use ciliate::kernel::bpf_map::{self, MapShape};

use crate::model::{Action, Count, World};
use crate::sandbox::{self, Sandbox};
use crate::world::{HOST_MAC, PEER4};

/// Larger than any frame a program makes of any frame a test sends.
const FRAME_LEN_MAX: usize = 4096;

/// Size of `struct __sk_buff` and places in it (linux/bpf.h).
pub const CONTEXT_LEN: usize = 192;
const CONTEXT_MARK: usize = 8;
pub const CONTEXT_IFINDEX: usize = 40;
const CONTEXT_CB: usize = 48;
const CONTEXT_GSO_SIZE: usize = 176;

/// See `tunnel_key.c`.
const WITH_TUNNEL_KEY: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tunnel_key.o"));

/// The programs that those of `tunnel_key.c` go on with, by their number there.
const UNDER_TEST: [&str; 4] =
    ["cil_from_overlay", "cil_from_container", "cil_from_host", "cil_from_netdev"];

/// The tunnel's port, and the longest packet that may go into it.
pub const TUNNEL_PORT: u16 = 8472;
pub const TUNNEL_MTU: u16 = 1450;
/// What the kernel's tunnel sends from, where nobody says otherwise.
const TUNNEL_SOURCES: (u16, u16) = (32_768, 60_999);

/// `BPF_F_TUNINFO_IPV6` (linux/bpf.h).
const KEY_OF_IPV6: u32 = 1;

/// What a program did with a packet.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    pub action: Action,
    pub frame: Vec<u8>,
    pub mark: u32,
}

pub struct Lab {
    pub world: World,
    programs: BTreeMap<&'static str, usize>,
    objects: Vec<Ebpf>,
    with_tunnel_key: Ebpf,
    last: BTreeMap<(u8, u8), MetricsValue>,
    // After `objects`: the maps are closed before the file system goes.
    pub sandbox: Sandbox,
}

/// Read-only numbers of the programs, by name, that a test wants otherwise.
#[derive(Default)]
pub struct Globals {
    pub seconds: &'static [(&'static str, u32)],
    pub accounting: bool,
    /// The namespace of the test is the node's, as the programs of sockets know it.
    pub node_is_here: bool,
    /// Maps that have room for one entry, and don't make any, in place of those that do.
    pub narrow: &'static [&'static str],
}

/// Runs a test with all programs loaded and the maps of [`World::standard`].
pub fn run(test: impl FnOnce(&mut Lab) + Send) {
    run_with(Globals::default(), test);
}

/// The same, with other numbers in the programs.
pub fn run_with(globals: Globals, test: impl FnOnce(&mut Lab) + Send) {
    sandbox::run(|sandbox| test(&mut Lab::new(sandbox, &globals)));
}

impl Lab {
    fn new(sandbox: Sandbox, globals: &Globals) -> Self {
        let world = World::standard(&sandbox);
        let mut with_tunnel_key = EbpfLoader::new().load(WITH_TUNNEL_KEY).expect("tunnel_key.o");
        load(&mut with_tunnel_key, "with_tunnel_key");
        load(&mut with_tunnel_key, "with_vlan_tag");
        let mut lab = Self {
            world: World::default(),
            programs: BTreeMap::new(),
            objects: Vec::new(),
            with_tunnel_key,
            last: BTreeMap::new(),
            sandbox,
        };
        globals.narrow.iter().for_each(|name| pin_narrow(&lab.sandbox, name));
        for (index, object) in OBJECTS.iter().enumerate() {
            let mut loader = EbpfLoader::new();
            loader.default_map_pin_directory(&lab.sandbox.pins);
            // Those of sockets and of WireGuard's device know of no flows.
            let has_flows = !["bpf_sock", "bpf_wireguard"].contains(&object.name);
            for (name, seconds) in globals.seconds {
                loader.override_global(name, seconds, has_flows);
            }
            if globals.node_is_here && object.name == "bpf_sock" {
                loader.override_global("host_netns_cookie", own_cookie(), true);
            }
            if globals.accounting {
                loader.override_global("ct_accounting", &1_u8, has_flows);
            }
            let mut loaded = loader.load(object.bytes).expect(object.name);
            for name in object.programs {
                load(&mut loaded, name);
                lab.programs.insert(name, index);
            }
            assert_eq!(loaded.programs().count(), object.programs.len(), "{}", object.name);
            lab.objects.push(loaded);
        }
        for (number, name) in (0..).zip(UNDER_TEST) {
            let program = lab.program(name).fd().expect("loaded");
            let program = program.try_clone().expect("a descriptor");
            let map = lab.with_tunnel_key.map_mut("under_test").expect("the map");
            let mut under_test = ProgramArray::try_from(map).expect("a program array");
            under_test.set(number, &program, 0).expect("set the program");
        }
        lab.describe(world);
        lab
    }

    pub fn map(&mut self, name: &str) -> &mut aya::maps::Map {
        self.objects[0].map_mut(name).expect("a map of every object")
    }

    /// Writes a world into the maps, which have to be empty of others.
    pub fn describe(&mut self, world: World) {
        let node = world.node.to_bytes();
        let mut map: Array<_, [u8; 64]> = self.map(CILIATE_NODE).try_into().expect("array");
        map.set(0, node, 0).expect("set node");
        let mut map: HashMap<_, [u8; 4], [u8; 48]> =
            self.map(CILIATE_DEVICE).try_into().expect("hash");
        for (ifindex, device) in &world.devices {
            let key = DeviceKey::new(*ifindex).to_bytes();
            map.insert(key, device.to_bytes(), 0).expect("insert device");
        }
        let mut map: HashMap<_, [u8; 20], [u8; 48]> =
            self.map(CILIUM_LXC).try_into().expect("hash");
        for (address, endpoint) in &world.endpoints {
            let key = EndpointKey::new(*address).to_bytes();
            map.insert(key, endpoint.to_bytes(), 0).expect("insert endpoint");
        }
        for (address, prefix_len, value) in &world.ipcache {
            self.set_prefix(*address, *prefix_len, value);
        }
        services::describe(self, &world);
        self.world = world;
    }

    /// What the node is on its underlay.
    pub fn set_underlay(&mut self, value: UnderlayValue) {
        let mut map: Array<_, [u8; 24]> = self.map(CILIATE_UNDERLAY).try_into().expect("array");
        map.set(0, value.to_bytes(), 0).expect("set what the node is");
    }

    /// From now on the node has a tunnel, by a device that the packets' ways end at.
    pub fn add_tunnel(&mut self) {
        let mut world = self.world.clone();
        world.node.tunnel_ifindex = self.sandbox.cilium_vxlan;
        world.node.tunnel_port_be = TUNNEL_PORT.to_be_bytes();
        world.node.tunnel_mtu = TUNNEL_MTU;
        (world.node.tunnel_source_min, world.node.tunnel_source_max) = TUNNEL_SOURCES;
        self.describe(world);
    }

    /// From now on packets between endpoints and peers' go past the host's stack. `cilium_host` stands for
    /// the underlay device.
    pub fn route_past_host(&mut self) {
        let [a, b, c, d, e, f] = HOST_MAC;
        sandbox::ip(&format!(
            "link set cilium_host address {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"
        ));
        let mut world = self.world.clone();
        world.node.flags |= NODE_FLAG_HOST_ROUTING;
        self.describe(world);
    }

    pub fn set_prefix(&mut self, address: IpAddr, prefix_len: u8, value: &IpcacheValue) {
        let key = IpcacheKey::new(address, prefix_len);
        let data: [u8; 20] = key.to_bytes()[4..].try_into().expect("20 bytes");
        let mut map: LpmTrie<_, [u8; 20], [u8; 24]> =
            self.map(CILIUM_IPCACHE).try_into().expect("trie");
        map.insert(&Key::new(key.prefix_len, data), value.to_bytes(), 0).expect("insert prefix");
    }

    /// A loaded program of any type.
    pub fn loaded(&self, name: &str) -> &Program {
        self.objects[self.programs[name]].program(name).expect("a program")
    }

    /// A loaded program.
    pub fn program(&self, name: &str) -> &SchedClassifier {
        self.loaded(name).try_into().expect("a classifier")
    }

    /// Sends a frame through a program as if it were at that device with that mark.
    pub fn send(&self, program: &str, ifindex: u32, mark: u32, frame: &[u8]) -> Outcome {
        test_run(self.program(program), context(ifindex, mark), frame)
    }

    /// Sends a frame through `cil_from_overlay` as if it had come by the tunnel with that identifier.
    pub fn tunnel_sends(&self, id: u32, outer_ipv6: bool, frame: &[u8]) -> Outcome {
        test_run(self.program_by_tunnel(), context_by_tunnel(id, outer_ipv6), frame)
    }

    /// Sends a frame with VLAN tags, from the outside in, through a program at a device. A tag: its protocol,
    /// priority and VLAN.
    pub fn send_tagged(
        &self,
        program: &str,
        ifindex: u32,
        tags: &[(u16, u16)],
        frame: &[u8],
    ) -> Outcome {
        let word = |number: usize| {
            tags.get(number)
                .map_or(0, |(protocol, tci)| u32::from(*protocol) << 16 | u32::from(*tci))
        };
        let number = UNDER_TEST.iter().position(|name| *name == program).expect("a number");
        let mut context = context(ifindex, 0);
        for (index, word) in [word(1), word(0), number as u32].into_iter().enumerate() {
            context[CONTEXT_CB + index * 4..][..4].copy_from_slice(&word.to_ne_bytes());
        }
        let tagging = self.with_tunnel_key.program("with_vlan_tag").expect("the program");
        test_run(tagging.try_into().expect("a classifier"), context, frame)
    }

    /// Goes on as `cil_from_overlay`.
    pub fn program_by_tunnel(&self) -> &SchedClassifier {
        let program = self.with_tunnel_key.program("with_tunnel_key").expect("the program");
        program.try_into().expect("a classifier")
    }

    /// Sends a frame from endpoint A.
    pub fn container_sends(&self, frame: &[u8]) -> Outcome {
        self.send("cil_from_container", self.sandbox.lxc_a, 0, frame)
    }

    /// Sends a frame out of `cilium_host`.
    pub fn host_sends(&self, mark: u32, frame: &[u8]) -> Outcome {
        self.send("cil_from_host", self.sandbox.cilium_host, mark, frame)
    }

    /// Attaches a program to a device for as long as the lab lives.
    pub fn attach(&mut self, name: &str, device: &str, hook: TcAttachType) {
        // What kernels before TCX (6.6) attach to; fails when the device has it already.
        let _ = tc::qdisc_add_clsact(device);
        let program = self.objects[self.programs[name]].program_mut(name).expect("a program");
        let program: &mut SchedClassifier = program.try_into().expect("a classifier");
        program.attach(device, hook).expect("attach");
    }

    /// Attaches all programs of sockets to a control group for as long as the lab lives.
    pub fn attach_sockets(&mut self, group: &File) {
        let object = OBJECTS.iter().find(|object| object.name == "bpf_sock").expect("the object");
        for name in object.programs {
            let index = self.programs[name];
            let mode = CgroupAttachMode::Single;
            let attached = match self.objects[index].program_mut(name).expect(name) {
                Program::CgroupSockAddr(program) => program.attach(group, mode).map(drop),
                Program::CgroupSock(program) => program.attach(group, mode).map(drop),
                other => panic!("{name} is a {:?}", other.prog_type()),
            };
            attached.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        }
    }

    /// What was counted since the last call, by reason and direction.
    pub fn counted(&mut self) -> Vec<Count> {
        let mut now: BTreeMap<(u8, u8), MetricsValue> = BTreeMap::new();
        for (key, value) in self.metrics() {
            assert_eq!(key.reserved, [0; 3], "padding of {key:?}");
            let sum = now.entry((key.reason, key.direction)).or_default();
            sum.packets += value.packets;
            sum.bytes += value.bytes;
        }
        let counts = now.iter().filter_map(|((reason, direction), sum)| {
            let before = self.last.get(&(*reason, *direction)).copied().unwrap_or_default();
            let packets = sum.packets - before.packets;
            let bytes = sum.bytes - before.bytes;
            (packets > 0).then_some(Count {
                reason: *reason,
                direction: *direction,
                packets,
                bytes,
            })
        });
        let counts = counts.collect();
        self.last = now;
        counts
    }

    /// Lost events by slot, summed over CPUs.
    pub fn lost(&mut self) -> Vec<u64> {
        let map: PerCpuArray<&mut MapData, u64> =
            self.map(CILIATE_LOST).try_into().expect("per-CPU array");
        let slots = (0..MONITOR_SLOTS).map(|slot| map.get(&slot, 0).expect("read a slot"));
        slots.map(|cpus| cpus.iter().sum()).collect()
    }

    /// The counters, summed over CPUs.
    pub fn metrics(&mut self) -> Vec<(MetricsKey, MetricsValue)> {
        let map: PerCpuHashMap<&mut MapData, [u8; 8], [u8; 16]> =
            self.map(CILIUM_METRICS).try_into().expect("per-CPU hash");
        map.iter()
            .map(|entry| {
                let (key, values) = entry.expect("read a counter");
                let mut sum = MetricsValue::default();
                for value in values.iter().map(MetricsValue::from_bytes) {
                    sum.packets += value.packets;
                    sum.bytes += value.bytes;
                }
                (MetricsKey::from_bytes(&key), sum)
            })
            .collect()
    }
}

/// Of this thread's network namespace; kept for as long as a loader may ask for it.
fn own_cookie() -> &'static u64 {
    let name = ciliate::kernel::netns::own_name().expect("the namespace's name");
    let (_, cookie) = name.rsplit_once(' ').expect("a cookie");
    Box::leak(Box::new(cookie.parse().expect("a number")))
}

/// The `struct __sk_buff` of a packet that is still to be cut into segments, at endpoint A's device.
pub fn context_of_segments(lab: &Lab, gso_size: u32) -> [u8; CONTEXT_LEN] {
    let mut context = context(lab.sandbox.lxc_a, 0);
    context[CONTEXT_GSO_SIZE..][..4].copy_from_slice(&gso_size.to_ne_bytes());
    context
}

/// The `struct __sk_buff` of a packet with a tunnel key.
pub fn context_by_tunnel(id: u32, outer_ipv6: bool) -> [u8; CONTEXT_LEN] {
    let mut context = context(1, 0);
    let flags = if outer_ipv6 { KEY_OF_IPV6 } else { 0 };
    for (index, word) in [id, PEER4.to_bits(), flags].into_iter().enumerate() {
        context[CONTEXT_CB + index * 4..][..4].copy_from_slice(&word.to_ne_bytes());
    }
    context
}

/// The `struct __sk_buff` of a packet at a device, with a mark.
pub fn context(ifindex: u32, mark: u32) -> [u8; CONTEXT_LEN] {
    let mut context = [0; CONTEXT_LEN];
    context[CONTEXT_MARK..][..4].copy_from_slice(&mark.to_ne_bytes());
    context[CONTEXT_IFINDEX..][..4].copy_from_slice(&ifindex.to_ne_bytes());
    context
}

/// One run of a program.
pub fn test_run(program: &SchedClassifier, context: [u8; CONTEXT_LEN], frame: &[u8]) -> Outcome {
    let mut out = vec![0; FRAME_LEN_MAX];
    let mut context_out = [0; CONTEXT_LEN];
    let options = TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut out),
        ctx_in: Some(&context),
        ctx_out: Some(&mut context_out),
        ..TestRunOptions::new()
    };
    let result = program
        .test_run(options)
        .unwrap_or_else(|error| panic!("{} bytes: {error:?}: {frame:02x?}", frame.len()));
    out.truncate(result.data_size_out as usize);
    let mark = &context_out[CONTEXT_MARK..][..4];
    Outcome {
        action: Action::from_return_value(result.return_value as i32),
        frame: out,
        mark: u32::from_ne_bytes(mark.try_into().expect("4 bytes")),
    }
}

/// Pins a map for the programs that has room for one entry and makes no more.
fn pin_narrow(sandbox: &Sandbox, name: &str) {
    /// `BPF_MAP_TYPE_HASH` (linux/bpf.h).
    const HASH: u32 = 1;
    let def = MAPS.iter().find(|map| map.name == name).expect("a map");
    let (map_type, max_entries, flags) = (HASH, 1, 0);
    let (key_size, value_size) = (def.key_size, def.value_size);
    let shape = MapShape { map_type, key_size, value_size, max_entries, flags };
    let map = bpf_map::Map::create(name, shape).expect("make a map");
    map.pin(&sandbox.pins.join(name)).expect("pin a map");
}

fn load(object: &mut Ebpf, name: &str) {
    let loaded = match object.program_mut(name).expect(name) {
        Program::SchedClassifier(program) => program.load(),
        Program::CgroupSockAddr(program) => program.load(),
        Program::CgroupSock(program) => program.load(),
        Program::Xdp(program) => program.load(),
        other => panic!("{name} is a {:?}", other.prog_type()),
    };
    loaded.unwrap_or_else(|error| panic!("{name}: {error:?}"));
}
