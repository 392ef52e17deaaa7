//! The programs, loaded and pinned in a sandbox, over maps that describe a [`World`]; runs packets
//! through them and reads what was counted.

use std::collections::BTreeMap;
use std::net::IpAddr;

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, MapData, PerCpuHashMap};
use aya::programs::{SchedClassifier, TcAttachType, TestRun, TestRunOptions};
use aya::{Ebpf, EbpfLoader};
use ciliate::bpf_abi::{
    CILIATE_DEVICE, CILIATE_NODE, CILIUM_IPCACHE, CILIUM_LXC, CILIUM_METRICS, DeviceKey,
    EndpointKey, IpcacheKey, IpcacheValue, MetricsKey, MetricsValue,
};
use ciliate::bpf_objects::OBJECTS;

use crate::model::{Action, Count, World};
use crate::sandbox::{self, Sandbox};

/// Larger than any frame a program makes of any frame a test sends.
const FRAME_LEN_MAX: usize = 4096;

/// Size of `struct __sk_buff` and places in it (linux/bpf.h).
const CONTEXT_LEN: usize = 192;
const CONTEXT_MARK: usize = 8;
const CONTEXT_IFINDEX: usize = 40;

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
    last: BTreeMap<(u8, u8), MetricsValue>,
    // After `objects`: the maps are closed before the file system goes.
    pub sandbox: Sandbox,
}

/// Runs a test with all programs loaded and the maps of [`World::standard`].
pub fn run(test: impl FnOnce(&mut Lab) + Send) {
    sandbox::run(|sandbox| test(&mut Lab::new(sandbox)));
}

impl Lab {
    fn new(sandbox: Sandbox) -> Self {
        let world = World::standard(sandbox.lxc_a, sandbox.lxc_b, sandbox.cilium_host);
        let mut lab = Self {
            world: World::default(),
            programs: BTreeMap::new(),
            objects: Vec::new(),
            last: BTreeMap::new(),
            sandbox,
        };
        for (index, object) in OBJECTS.iter().enumerate() {
            let mut loaded = EbpfLoader::new()
                .default_map_pin_directory(&lab.sandbox.pins)
                .load(object.bytes)
                .expect(object.name);
            for name in object.programs {
                load(&mut loaded, name);
                lab.programs.insert(name, index);
            }
            assert_eq!(loaded.programs().count(), object.programs.len(), "{}", object.name);
            lab.objects.push(loaded);
        }
        lab.describe(world);
        lab
    }

    fn map(&mut self, name: &str) -> &mut aya::maps::Map {
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
        for (address, prefix_len, identity) in &world.ipcache {
            self.set_identity(*address, *prefix_len, *identity);
        }
        self.world = world;
    }

    fn set_identity(&mut self, address: IpAddr, prefix_len: u8, identity: u32) {
        let key = IpcacheKey::new(address, prefix_len);
        let data: [u8; 20] = key.to_bytes()[4..].try_into().expect("20 bytes");
        let value = IpcacheValue::new(identity).to_bytes();
        let mut map: LpmTrie<_, [u8; 20], [u8; 24]> =
            self.map(CILIUM_IPCACHE).try_into().expect("trie");
        map.insert(&Key::new(key.prefix_len, data), value, 0).expect("insert prefix");
    }

    fn program(&self, name: &str) -> &SchedClassifier {
        let program = self.objects[self.programs[name]].program(name).expect("a program");
        program.try_into().expect("a classifier")
    }

    /// Sends a frame through a program as if it were at that device with that mark.
    pub fn send(&self, program: &str, ifindex: u32, mark: u32, frame: &[u8]) -> Outcome {
        let mut context = [0; CONTEXT_LEN];
        context[CONTEXT_MARK..][..4].copy_from_slice(&mark.to_ne_bytes());
        context[CONTEXT_IFINDEX..][..4].copy_from_slice(&ifindex.to_ne_bytes());
        let mut out = vec![0; FRAME_LEN_MAX];
        let mut context_out = [0; CONTEXT_LEN];
        let result = self
            .program(program)
            .test_run(TestRunOptions {
                data_in: Some(frame),
                data_out: Some(&mut out),
                ctx_in: Some(&context),
                ctx_out: Some(&mut context_out),
                ..TestRunOptions::new()
            })
            .unwrap_or_else(|error| panic!("{program}, {} bytes: {error:?}", frame.len()));
        out.truncate(result.data_size_out as usize);
        let mark = &context_out[CONTEXT_MARK..][..4];
        Outcome {
            action: Action::from_return_value(result.return_value as i32),
            frame: out,
            mark: u32::from_ne_bytes(mark.try_into().expect("4 bytes")),
        }
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
        let program = self.objects[self.programs[name]].program_mut(name).expect("a program");
        let program: &mut SchedClassifier = program.try_into().expect("a classifier");
        program.attach(device, hook).expect("attach");
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

fn load(object: &mut Ebpf, name: &str) {
    let program = object.program_mut(name).expect(name);
    let program: &mut SchedClassifier = program.try_into().expect("a classifier");
    program.load().unwrap_or_else(|error| panic!("{name}: {error:?}"));
}
