//! Services: configurations of many, the least that the kernel asks for, and what the maps take.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ciliate::bpf_abi::{CILIUM_LB4_SERVICES, LB_MAPS, MAPS};
use ciliate::kernel::bpf_map::{Map, MapShape};

use super::daemon::PORT;
pub use super::service_tables::Addresses;
use super::service_tables::tables;

/// Prepares the same with two endpoints and, if there is a number, a service of UDP at [`fresh`] whose backend is the
/// second: a file that [`put`] puts into its place.
pub fn prepare_live(
    folder: &Path,
    (count, maglev): (usize, bool),
    endpoints: &[String],
    number: Option<usize>,
) -> PathBuf {
    let path = write_config(folder, count, maglev);
    let mut text = fs::read_to_string(&path).expect("read the configuration");
    for (at, name) in endpoints.iter().enumerate() {
        let _ = write!(
            text,
            "[[endpoint]]\nname = \"{name}\"\nnetns = \"/run/netns/{name}\"\naddresses = [\"10.243.0.{}\"]\n",
            10 + at
        );
    }
    if let Some(number) = number {
        let at = if maglev { "external-ips" } else { "cluster-ips" };
        let _ = write!(
            text,
            "[[service]]\nname = \"fresh\"\nprotocol = \"UDP\"\n{at} = [\"{}\"]\nbackends = [\"10.243.0.11:{PORT}\"]\n",
            fresh(number)
        );
    }
    let new = folder.join("services.new");
    fs::write(&new, text).expect("write the configuration");
    new
}

/// As careful programs save a file: whoever reads meanwhile finds the old one.
pub fn put(prepared: &Path) -> PathBuf {
    let live = prepared.with_file_name("live.toml");
    fs::rename(prepared, &live).expect("rename the configuration");
    live
}

/// Where the service of a number is.
pub fn fresh(number: usize) -> SocketAddr {
    SocketAddr::from(([10, 200, 0, number as u8], 53))
}

/// Writes the node's configuration with `count` services of two backends. With `maglev` each has an external address
/// too, since that is what tables are for.
pub fn write_config(folder: &Path, count: usize, maglev: bool) -> PathBuf {
    let shown = folder.display();
    let algorithm = if maglev { "maglev" } else { "random" };
    let mut text = format!(
        "[node]\nname = \"bench\"\ncidrs = [\"10.243.0.0/16\"]\nrouters = [\"10.243.255.254\"]\naddresses = [\"172.18.0.3\"]\n\
         [routing]\nmode = \"native\"\n[health]\nenabled = false\n[masquerade]\nmode = \"off\"\n\
         [load-balancing]\nalgorithm = \"{algorithm}\"\nsocket = false\n\
         [paths]\nruntime = \"{shown}/run\"\nstate = \"{shown}/state\"\nbpf = \"{shown}/bpf\"\n"
    );
    text += &tables(count, if maglev { "external-ips" } else { "cluster-ips" });
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
