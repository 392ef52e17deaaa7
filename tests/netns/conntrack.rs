//! The conntrack maps as user space sees them: listed, collected, flushed, and made anew with another size.
//! Flows are put into the maps by hand here.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ciliate::bpf_abi::{
    CILIUM_CT_ANY4, CILIUM_CT_ANY6, CILIUM_CT4, CILIUM_CT6, CILIUM_IPCACHE, CILIUM_METRICS, Ct4Key,
    Ct6Key, CtValue,
};
use ciliate::daemon::gc;
use ciliate::kernel::bpf_map::{Map, MapShape};
use ciliate::kernel::{clock, pins};

use crate::daemon::Daemon;
use crate::flood::Flood;
use crate::lab::{DUAL, Lab, V4};
use crate::node::{Node, Text};

const MAPS: [&str; 4] = [CILIUM_CT4, CILIUM_CT_ANY4, CILIUM_CT6, CILIUM_CT_ANY6];
/// Seconds that no test takes.
const LONG: u32 = 5000;

fn pin(node: &Node, map: &str) -> PathBuf {
    pins::map(&node.bpf, map)
}

fn open(node: &Node, map: &str) -> Map {
    Map::open(&pin(node, map)).unwrap_or_else(|error| panic!("open {map}: {error}"))
}

type Flows = BTreeMap<Vec<u8>, Vec<u8>>;

fn flows(map: &Map) -> Flows {
    map.entries().expect("read the map").into_iter().collect()
}

/// The key of flow number `n`, for a map.
fn key(map: &str, n: u32) -> Vec<u8> {
    let port = (n as u16).to_be_bytes();
    let protocol = if [CILIUM_CT4, CILIUM_CT6].contains(&map) { 6 } else { 17 };
    if map.ends_with("4_global") {
        let daddr_be = Ipv4Addr::from(0x0af4_0000 + (n >> 16)).octets();
        let saddr_be = [10, 244, 1, 124];
        let dport_be = 9494u16.to_be_bytes();
        return Ct4Key { daddr_be, saddr_be, dport_be, sport_be: port, protocol, flags: 0 }
            .to_bytes()
            .to_vec();
    }
    let mut key = Ct6Key { protocol, sport_be: port, ..Ct6Key::default() };
    key.daddr_be[..2].copy_from_slice(&[0xfd, 0]);
    key.daddr_be[12..].copy_from_slice(&n.to_be_bytes());
    key.to_bytes().to_vec()
}

/// A flow that used its entry `packets` times and ends in so many seconds.
fn value(packets: u64, seconds: i64) -> Vec<u8> {
    let lifetime = (i64::from(clock::monotonic_seconds()) + seconds) as u32;
    let value = CtValue { packets, bytes: packets * 100, lifetime, bits: 16, ..CtValue::default() };
    value.to_bytes().to_vec()
}

fn put(map: &Map, entries: &Flows) {
    let entries: Vec<(&[u8], &[u8])> = entries.iter().map(|(k, v)| (&**k, &**v)).collect();
    map.update(&entries).map_err(|(_, error)| error).expect("fill the map");
}

/// `count` flows that go on, each with its own number of packets and its own end.
fn some(map: &str, count: u32) -> Flows {
    (0..count).map(|n| (key(map, n), value(n.into(), (LONG + n).into()))).collect()
}

/// Node a with room for so many flows.
fn configure(lab: &Lab, tcp: u32, any: u32) {
    let mut text = Text::node_a(lab);
    text.other = sizes(tcp, any);
    lab.a.write(&text);
}

fn sizes(tcp: u32, any: u32) -> String {
    format!("[conntrack]\ntcp-max-entries = {tcp}\nany-max-entries = {any}\n")
}

/// The names of the pins of maps.
fn pinned_maps(node: &Node) -> Vec<String> {
    pins::list(&node.bpf.join("maps")).expect("list the pins")
}

/// Nothing of a change of sizes is left.
#[track_caller]
fn assert_no_old_maps(node: &Node) {
    let left: Vec<String> =
        pinned_maps(node).into_iter().filter(|name| name.contains('-')).collect();
    assert!(left.is_empty(), "left: {left:?}");
}

#[test]
fn sizes_change_and_flows_stay() {
    let Some(lab) = Lab::new(V4) else { return };
    configure(&lab, 4096, 2048);
    lab.a.apply();
    let before: Vec<Flows> = MAPS.map(|map| some(map, 1000)).into();
    for (map, flows) in MAPS.iter().zip(&before) {
        put(&open(&lab.a, map), flows);
        // What is over is left behind.
        put(&open(&lab.a, map), &[(key(map, 50_000), value(9, -5))].into());
    }
    lab.note_bpf();
    for (tcp, any) in [(8192, 65536), (1024 * 1024, 2048), (2048, 1200)] {
        configure(&lab, tcp, any);
        let ops = lab.a.apply()["ops"].as_array().expect("ops").len();
        assert!(ops >= 4, "{ops} ops");
        lab.note_bpf();
        for (map, flows) in MAPS.iter().zip(&before) {
            let (now, wanted) = (open(&lab.a, map), if map.contains("any") { any } else { tcp });
            assert_eq!(now.shape().max_entries, wanted, "{map}");
            assert!(self::flows(&now) == *flows, "{map} has other flows at {tcp} and {any}");
        }
        assert_no_old_maps(&lab.a);
    }
}

#[test]
fn in_a_smaller_map_those_stay_that_end_last() {
    let Some(lab) = Lab::new(V4) else { return };
    configure(&lab, 8192, 8192);
    lab.a.apply();
    for map in MAPS {
        put(&open(&lab.a, map), &some(map, 6000));
    }
    lab.note_bpf();
    configure(&lab, 1024, 4096);
    lab.a.apply();
    for map in MAPS {
        let room = if map.contains("any") { 4096 * 7 / 8 } else { 1024 * 7 / 8 };
        let left = flows(&open(&lab.a, map));
        assert_eq!(left.len(), room, "{map}");
        let newest: Vec<_> = (6000 - room as u32..6000).map(|n| key(map, n)).collect();
        assert!(newest.iter().all(|key| left.contains_key(key)), "{map}: not the newest");
    }
}

/// What programs write to the old map, until they are swapped, is carried over; what they write to the new
/// one stays.
#[test]
fn what_is_written_meanwhile_is_carried_over() {
    let Some(lab) = Lab::new(V4) else { return };
    configure(&lab, 4096, 4096);
    lab.a.apply();
    for map in MAPS {
        let new = open(&lab.a, map);
        let old = Map::create(map, MapShape { max_entries: 2048, ..new.shape() }).expect("a map");
        let entry = |n, packets, seconds| (key(map, n), value(packets, seconds));
        let (same, newer) = (entry(1, 5, 600), entry(2, 7, 600));
        let (only_old, only_new, over) =
            (entry(4, 1, 600), entry(5, 1, 600), (key(map, 6), value(9, -1)));
        let newest = entry(3, 8, 600);
        put(&old, &[same.clone(), newer.clone(), entry(3, 6, 500), only_old.clone(), over].into());
        put(&new, &[same.clone(), entry(2, 6, 500), newest.clone(), only_new.clone()].into());
        old.pin(&pin(&lab.a, &format!("{map}-old"))).expect("pin");
        // One from an earlier change that was cut short as well.
        let oldest = Map::create(map, old.shape()).expect("a map");
        let only_oldest = entry(7, 1, 600);
        put(&oldest, &[only_oldest.clone(), entry(2, 1, 400)].into());
        oldest.pin(&pin(&lab.a, &format!("{map}-old2"))).expect("pin");
        lab.note_bpf();
        let ran = lab.a.ciliate(&["plan"]);
        assert!(ran.stdout.contains(&format!("- bpf-old-map {map} ")), "{ran:?}");
        lab.a.apply();
        let expected = [same, newer, newest, only_old, only_new, only_oldest].into();
        assert_eq!(flows(&open(&lab.a, map)), expected, "{map}");
        assert_no_old_maps(&lab.a);
    }
}

/// A map that attached programs still use stays, and the next round tries again.
#[test]
fn an_old_map_in_use_stays() {
    for attach in ["tcx", "clsact"] {
        let Some(lab) = Lab::new(V4) else { return };
        lab.walk_through();
        let text = fs::read_to_string(&lab.a.config).expect("read the configuration");
        let section = format!("\n[datapath]\nattach-mode = {attach:?}\n");
        fs::write(&lab.a.config, text + &section).expect("write the configuration");
        lab.a.apply();
        let old = pin(&lab.a, &format!("{CILIUM_METRICS}-old"));
        open(&lab.a, CILIUM_METRICS).pin(&old).expect("pin");
        let ran = lab.a.ciliate(&["apply"]);
        assert!(
            ran.code == 1 && ran.all().contains("old map cilium_metrics is in use by"),
            "{ran:?}"
        );
        assert!(old.exists());
        fs::remove_file(&old).expect("remove the pin");
        lab.a.assert_no_changes();
    }
}

/// A map that programs use is made anew: packets pass all the time, and counters go on from where they
/// were.
#[test]
fn maps_are_made_anew_under_traffic() {
    for attach in ["tcx", "clsact"] {
        let Some(lab) = Lab::new(DUAL) else { return };
        let (client, client2, server) = lab.walk_through();
        let text = fs::read_to_string(&lab.a.config).expect("read the configuration");
        let section = format!("\n[datapath]\nattach-mode = {attach:?}\n");
        fs::write(&lab.a.config, text + &section).expect("write the configuration");
        lab.a.apply();
        lab.b.apply();
        crate::traffic::ping(&client, "10.244.0.50");
        crate::traffic::ping(&server, "fd00:10:244::50");
        let local = Flood::start((&client, "10.244.0.49"), (&client2, "10.244.0.50"));
        let remote = Flood::start((&client2, "fd00:10:244::50"), (&server, "fd00:10:244:1::124"));
        local.run_on(500);
        let mut counted = 0;
        for max_entries in [100_000, 200_000, 300_000] {
            // As if an earlier version had made them, of another size.
            for map in [CILIUM_IPCACHE, CILIUM_METRICS] {
                remake(&lab.a, map, max_entries);
            }
            lab.note_bpf();
            let ran = lab.a.ciliate(&["apply"]);
            assert_eq!(ran.code, 0, "{ran:?}");
            lab.a.assert_no_changes();
            assert_no_old_maps(&lab.a);
            let now = packets(&lab.a);
            assert!(now >= counted, "{now} packets counted after {counted}");
            counted = now;
            local.run_on(300);
        }
        let sent = local.finish();
        assert!(packets(&lab.a) > sent, "{} packets counted of {sent} sent", packets(&lab.a));
        remote.finish();
        lab.note_bpf();
    }
}

/// Puts a map of another size, with the same entries, in the place of one that programs go on using.
fn remake(node: &Node, map: &str, max_entries: u32) {
    let there = open(node, map);
    let other = Map::create(map, MapShape { max_entries, ..there.shape() }).expect("a map");
    let entries: Flows = there.entries().expect("read the map").into_iter().collect();
    put(&other, &entries);
    let fresh = pin(node, &format!("{map}-new"));
    other.pin(&fresh).expect("pin");
    fs::rename(&fresh, pin(node, map)).expect("rename");
}

/// Packets in `cilium_metrics`, of whatever reason.
fn packets(node: &Node) -> u64 {
    let listed = node.ciliate(&["bpf", "metrics", "list", "-o", "json"]).json();
    let entries = listed["entries"].as_array().expect("entries").iter();
    entries.map(|entry| entry["packets"].as_u64().expect("a number")).sum()
}

/// A change of sizes that is cut off between any two of its ops: flows are in the map that programs will find,
/// and the next run goes on from there.
#[test]
fn cut_off_between_any_two_ops() {
    // Filters are told by the maps of their programs, so each cut is of interest there.
    for (attach, step) in [("clsact", 1), ("tcx", 4)] {
        let Some(lab) = Lab::new(V4) else { return };
        lab.walk_through();
        let text = fs::read_to_string(&lab.a.config).expect("read the configuration");
        let of_size = |size| {
            let text =
                format!("{text}\n[datapath]\nattach-mode = {attach:?}\n{}", sizes(size, size));
            fs::write(&lab.a.config, text).expect("write the configuration");
        };
        of_size(2000);
        lab.a.apply();
        let before = MAPS.map(|map| some(map, 500));
        for (map, flows) in MAPS.iter().zip(&before) {
            put(&open(&lab.a, map), flows);
        }
        let mut count = 0;
        for size in 2001.. {
            of_size(size);
            // A map that every program uses is made anew along, for the second time.
            let old = pin(&lab.a, &format!("{CILIUM_METRICS}-old"));
            open(&lab.a, CILIUM_METRICS).pin(&old).expect("pin");
            remake(&lab.a, CILIUM_METRICS, size);
            lab.note_bpf();
            let mut plan = lab.a.view().plan;
            let whole = plan.ops.len();
            plan.ops.truncate(count);
            lab.a.run_ops(&plan);
            lab.note_bpf();
            for (map, flows) in MAPS.iter().zip(&before) {
                let now = self::flows(&open(&lab.a, map));
                assert!(now == *flows, "{attach}: {map} lost flows after {count} of {whole} ops");
            }
            let ran = lab.a.ciliate(&["apply"]);
            assert!(ran.code == 0, "{attach}: after {count} of {whole} ops: {ran:?}");
            lab.a.assert_no_changes();
            assert_no_old_maps(&lab.a);
            count += step;
            if count > whole {
                break;
            }
        }
        assert!(count > 10, "{count} ops");
        // What is left half-way, `destroy` removes.
        of_size(9000);
        let mut plan = lab.a.view().plan;
        plan.ops.truncate(plan.ops.len() / 2);
        lab.a.run_ops(&plan);
        lab.note_bpf();
        assert!(pinned_maps(&lab.a).iter().any(|name| name.ends_with("-old")));
    }
}

/// SIGKILL at any time of a change of sizes, back and forth: no flow is lost.
#[test]
fn killed_while_sizes_change() {
    const FLOWS: u32 = 5000;
    const KILLS: u32 = 18;
    let Some(lab) = Lab::new(V4) else { return };
    configure(&lab, 65536, 65536);
    lab.a.apply();
    let before = MAPS.map(|map| some(map, FLOWS));
    for (map, flows) in MAPS.iter().zip(&before) {
        put(&open(&lab.a, map), flows);
    }
    lab.note_bpf();
    configure(&lab, 70000, 70000);
    let begin = Instant::now();
    assert_eq!(lab.a.ciliate(&["apply"]).code, 0);
    let whole = begin.elapsed();
    let mut unfinished = 0;
    for kill in 0..KILLS {
        let size = 70001 + kill;
        configure(&lab, size, size);
        let mut child = lab
            .a
            .command(&["apply"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("run ciliate");
        thread::sleep(whole * kill / KILLS);
        child.kill().expect("kill it");
        child.wait().expect("wait for it");
        lab.note_bpf();
        unfinished += u32::from(pinned_maps(&lab.a).iter().any(|name| name.contains('-')));
        // Every third time one kill comes after the other.
        if kill % 3 == 0 {
            continue;
        }
        lab.a.apply();
        lab.note_bpf();
        for (map, flows) in MAPS.iter().zip(&before) {
            let now = open(&lab.a, map);
            assert_eq!(now.shape().max_entries, size);
            assert!(self::flows(&now) == *flows, "{map} lost flows after kill {kill}");
        }
        assert_no_old_maps(&lab.a);
    }
    assert!(unfinished > 0, "no kill came between the ops; one apply takes {whole:?}");
}

#[test]
fn flows_are_listed_and_flushed() {
    let Some(lab) = Lab::new(V4) else { return };
    configure(&lab, 4096, 4096);
    let ran = lab.a.ciliate(&["bpf", "ct", "list"]);
    assert!(ran.code == 1 && ran.stderr.contains("map cilium_ct4_global"), "{ran:?}");
    lab.a.apply();
    for map in MAPS {
        put(
            &open(&lab.a, map),
            &[(key(map, 4000), value(3, 100)), (key(map, 80), value(1, -7))].into(),
        );
    }
    let text = lab.a.ciliate(&["bpf", "ct", "list"]).stdout;
    let lines: Vec<&str> = text.lines().collect();
    let starts = [
        "TCP OUT 10.244.0.0:80 -> 10.244.1.124:9494 expires=",
        "TCP OUT 10.244.0.0:4000 -> 10.244.1.124:9494 expires=",
        "UDP OUT 10.244.0.0:80 -> 10.244.1.124:9494 expires=",
        "UDP OUT 10.244.0.0:4000 -> 10.244.1.124:9494 expires=",
        "TCP OUT [fd00::50]:80 -> [::]:0 expires=",
        "TCP OUT [fd00::fa0]:4000 -> [::]:0 expires=",
        "UDP OUT [fd00::50]:80 -> [::]:0 expires=",
        "UDP OUT [fd00::fa0]:4000 -> [::]:0 expires=",
    ];
    assert_eq!(lines.len(), starts.len(), "{text}");
    for (line, start) in lines.iter().zip(starts) {
        assert!(line.starts_with(start), "{line}\nnot {start}");
        assert!(line.contains(" Flags=0x0010 [ SeenNonSyn ] RevNAT=0 "), "{line}");
    }
    let json = lab.a.ciliate(&["bpf", "ct", "list", "-o", "json"]).json();
    let entry = &json["entries"][1];
    assert_eq!((&entry["source"], &entry["source_port"]), (&"10.244.0.0".into(), &4000.into()));
    assert_eq!((&entry["packets"], &entry["bytes"]), (&3.into(), &300.into()));
    let (over, going_on) =
        (json["entries"][0]["remaining_s"].as_i64(), entry["remaining_s"].as_i64());
    assert!(
        over.is_some_and(|s| s <= -7) && going_on.is_some_and(|s| s <= 100 && s > -7),
        "{json}"
    );

    let old = Map::create("old", open(&lab.a, CILIUM_CT4).shape()).expect("a map");
    put(&old, &some(CILIUM_CT4, 3));
    old.pin(&pin(&lab.a, &format!("{CILIUM_CT4}-old"))).expect("pin");
    let ran = lab.a.ciliate(&["bpf", "ct", "flush"]);
    assert_eq!((ran.code, ran.stdout.trim()), (0, "11 flows forgotten"));
    assert_eq!(lab.a.ciliate(&["bpf", "ct", "list"]).stdout, "");
    lab.note_bpf();
    lab.a.apply();
    assert_eq!(lab.a.ciliate(&["bpf", "ct", "list"]).stdout, "");
}

#[test]
fn the_collector_removes_what_is_over_and_nothing_else() {
    let Some(lab) = Lab::new(V4) else { return };
    configure(&lab, 65536, 65536);
    lab.a.apply();
    for map in MAPS {
        let open = open(&lab.a, map);
        put(&open, &some(map, 10_000));
        put(
            &open,
            &(20_000..25_000).map(|n| (key(map, n), value(1, -1 - i64::from(n % 9000)))).collect(),
        );
    }
    // A daemon's start removes nothing: the first collection is minutes away.
    let daemon = Daemon::start(&lab.a);
    let status = daemon.wait("to converge", |status| status.converged);
    assert_eq!((status.conntrack_gc.runs, status.conntrack_gc.interval_s), (0, 300));
    assert_eq!(flows(&open(&lab.a, CILIUM_CT4)).len(), 15_000);
    daemon.stop();
    let daemon = Daemon::start_arguments(&lab.a, &["--conntrack-gc-interval", "1"]);
    let gc = daemon.wait("to collect", |status| status.conntrack_gc.runs > 0).conntrack_gc;
    assert_eq!((gc.errors_total, gc.interval_s), (0, 1));
    for map in MAPS {
        let now = flows(&open(&lab.a, map));
        assert!(now.keys().eq(some(map, 10_000).keys()), "{map} has {} flows", now.len());
    }
    // A later run finds nothing.
    let gc = daemon.wait("to collect again", |status| status.conntrack_gc.runs > 1).conntrack_gc;
    assert_eq!((gc.entries, gc.deleted_total), (40_000, 20_000));
    let text = lab.a.ciliate(&["status"]).stdout;
    assert!(text.contains("the last kept 40000 and removed 0 flows in "), "{text}");
}

/// Entries that come back to life while the collector is about to remove them, and new ones that come all
/// the time, are there afterwards.
#[test]
fn the_collector_spares_what_revives() {
    let Some(lab) = Lab::new(V4) else { return };
    configure(&lab, 65536, 65536);
    lab.a.apply();
    let (map, stop, revived) =
        (open(&lab.a, CILIUM_CT4), AtomicBool::new(false), AtomicU64::new(0));
    let runs = thread::scope(|scope| {
        scope.spawn(|| revive(&map, &stop, &revived));
        let newcomers = scope.spawn(|| arrive(&map, &stop));
        let (mut runs, mut spared) = (0, 0);
        let begin = Instant::now();
        // Until the collector has met enough of them between its look and its hand.
        while spared < 20 && begin.elapsed() < Duration::from_secs(60) {
            let run = gc::collect(&lab.a.bpf);
            assert_eq!(run.errors, 0);
            runs += 1;
            spared += run.revived;
        }
        stop.store(true, Ordering::Relaxed);
        let arrived = newcomers.join().expect("the newcomers");
        let now = flows(&map);
        let lost: Vec<u32> =
            (0..arrived).filter(|n| !now.contains_key(&key(CILIUM_CT4, 100_000 + n))).collect();
        assert!(lost.is_empty(), "{} of {arrived} new flows lost", lost.len());
        assert!(spared > 0, "none revived in {runs} runs");
        runs
    });
    assert!(revived.load(Ordering::Relaxed) > 0, "nothing was put to the test in {runs} runs");
}

/// Lets flows end and go on again. One that went on while its entry was there has to keep it.
fn revive(map: &Map, stop: &AtomicBool, revived: &AtomicU64) {
    const FLOWS: u32 = 2000;
    while !stop.load(Ordering::Relaxed) {
        let over = value(1, -10);
        for n in 0..FLOWS {
            map.update_one(&key(CILIUM_CT4, n), &over).expect("let it end");
        }
        let on = value(2, LONG.into());
        let kept: Vec<u32> = (0..FLOWS)
            .filter(|n| map.replace(&key(CILIUM_CT4, *n), &on).expect("let it go on"))
            .collect();
        revived.fetch_add(kept.len() as u64, Ordering::Relaxed);
        // The collector may be between taking one out and putting it back.
        for n in kept {
            let there = || map.lookup(&key(CILIUM_CT4, n)).expect("read").is_some();
            assert!(crate::daemon::wait_until(Duration::from_secs(10), there), "flow {n} is lost");
        }
    }
}

/// New flows, as long as there is room; returns how many.
fn arrive(map: &Map, stop: &AtomicBool) -> u32 {
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) && count < 40_000 {
        let new = value(1, LONG.into());
        assert!(map.insert_new(&key(CILIUM_CT4, 100_000 + count), &new).expect("insert"));
        count += 1;
    }
    count
}
