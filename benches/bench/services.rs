//! Services: configurations of many, the least that the kernel asks for, and what the maps take.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ciliate::bpf_abi::{CILIUM_LB4_SERVICES, LB_MAPS, MAPS};
use ciliate::kernel::bpf_map::{Map, MapShape};

/// Different sets of backends: as many Maglev tables.
pub const BACKEND_SETS: usize = 1000;

/// Writes the node's configuration with `count` services of two backends. With `maglev` each has an external address
/// too, since that is what tables are for.
pub fn write_config(folder: &Path, count: usize, maglev: bool) -> PathBuf {
    let shown = folder.display();
    let algorithm = if maglev { "maglev" } else { "random" };
    let mut text = format!(
        "[node]\nname = \"bench\"\ncidrs = [\"10.243.0.0/16\"]\nrouters = [\"10.243.255.254\"]\naddresses = [\"172.31.0.1\"]\n\
         [routing]\nmode = \"native\"\n[health]\nenabled = false\n[masquerade]\nmode = \"off\"\n\
         [load-balancing]\nalgorithm = \"{algorithm}\"\nsocket = false\n\
         [paths]\nruntime = \"{shown}/run\"\nstate = \"{shown}/state\"\nbpf = \"{shown}/bpf\"\n"
    );
    for index in 0..count {
        let (high, low, set) = (index / 250, index % 250, index % BACKEND_SETS);
        let at = if maglev { "external-ips" } else { "cluster-ips" };
        let _ = write!(
            text,
            "[[service]]\nname = \"s{index}\"\n{at} = [\"10.{}.{}.{low}:80\"]\nbackends = [\"10.0.{}.{}:80\", \"10.1.{}.{}:80\"]\n",
            96 + high / 250,
            high % 250,
            set / 250,
            set % 250,
            set / 250,
            set % 250,
        );
    }
    let path = folder.join("services.toml");
    fs::write(&path, text).expect("write the configuration");
    path
}

/// Writes the slots of that many services to a map of the same kind, prepared beforehand.
pub fn floor(count: usize) -> Duration {
    let def = MAPS.iter().find(|def| def.name == CILIUM_LB4_SERVICES).expect("a map");
    let shape = MapShape {
        map_type: def.kind.number(),
        key_size: def.key_size,
        value_size: def.value_size,
        max_entries: def.max_entries,
        flags: def.flags,
    };
    let map = Map::create("bench", shape).expect("make a map");
    let entry = |index: u32| [index, 0, 0].map(u32::to_ne_bytes).concat();
    let keys: Vec<u8> = (0..3 * count as u32).flat_map(entry).collect();
    let values = vec![1; 3 * count * def.value_size as usize];
    let begin = Instant::now();
    map.update_packed(&keys, &values).expect("write");
    begin.elapsed()
}

/// What the maps of services take of memory, by what the kernel says of them.
pub fn maps_mb(bpf: &Path) -> u64 {
    let open = LB_MAPS.iter().map(|name| Map::open(&bpf.join("maps").join(name)).expect("open"));
    let open: Vec<Map> = open.collect();
    let mut bytes = 0;
    for entry in fs::read_dir("/proc/self/fdinfo").expect("own descriptors") {
        let text = fs::read_to_string(entry.expect("an entry").path()).unwrap_or_default();
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().parse::<u64>().ok()
        };
        let ours =
            field("map_id:").is_some_and(|id| open.iter().any(|map| u64::from(map.id()) == id));
        bytes += if ours { field("memlock:").unwrap_or(0) } else { 0 };
    }
    bytes >> 20
}
