//! Flows of clients outside go on, and lose nothing, while everything around them changes.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ciliate::daemon::control::Status;
use rustix::process::Signal;

use super::talk::{PATIENCE, connect, listen};
use super::{ENDS, NODE_PORT, PORT, Place, WIDE, at, ip, service};
use crate::daemon::Daemon;
use crate::flood::Flood;
use crate::space::Space;

/// Numbers in a piece.
const PIECE: u64 = 1000;

/// A connection through a service that numbers are sent through all the time, and come back.
pub struct Transfer {
    stop: Arc<AtomicBool>,
    back: Arc<AtomicU64>,
    sender: JoinHandle<u64>,
    receiver: JoinHandle<u64>,
    server: JoinHandle<u64>,
}

impl Transfer {
    #[track_caller]
    pub fn start(from: &Space, frontend: SocketAddr, to: &Space, backend: SocketAddr) -> Self {
        let listener = listen(to, backend);
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("accept");
            stream.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
            let (mut buffer, mut total) = ([0; 16_384], 0);
            loop {
                let size = stream.read(&mut buffer).expect("receive");
                if size == 0 {
                    return total;
                }
                stream.write_all(&buffer[..size]).expect("send back");
                total += size as u64;
            }
        });
        let stream = connect(from, frontend, PATIENCE).expect("connect");
        let (stop, back) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let sender = thread::spawn({
            let (mut stream, stop) = (stream.try_clone().expect("clone"), stop.clone());
            move || {
                let mut next = 0;
                while !stop.load(Ordering::Relaxed) {
                    let piece: Vec<u8> = (next..next + PIECE).flat_map(u64::to_be_bytes).collect();
                    stream.write_all(&piece).expect("send");
                    next += PIECE;
                    thread::sleep(Duration::from_millis(2));
                }
                stream.shutdown(Shutdown::Write).expect("end of data");
                next
            }
        });
        let receiver = thread::spawn({
            let (mut stream, back) = (stream, back.clone());
            move || {
                let (mut bytes, mut next) = ([0; 8], 0);
                let mut stream = std::io::BufReader::new(&mut stream);
                while stream.read_exact(&mut bytes).is_ok() {
                    assert_eq!(u64::from_be_bytes(bytes), next, "in order, and each once");
                    next += 1;
                    back.store(next, Ordering::Relaxed);
                }
                next
            }
        });
        Self { stop, back, sender, receiver, server }
    }

    /// It goes on: more comes back than is on the way.
    #[track_caller]
    pub fn assert_alive(&self, what: &str) {
        let target = self.back.load(Ordering::Relaxed) + 20 * PIECE;
        let goes_on = || self.back.load(Ordering::Relaxed) >= target;
        assert!(crate::daemon::wait_until(PATIENCE, goes_on), "it stands still: {what}");
    }

    /// All that was sent has come back.
    #[track_caller]
    pub fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sender.join().expect("the sender");
        assert_eq!(self.server.join().expect("the server"), sent * 8, "bytes at the backend");
        assert_eq!(self.receiver.join().expect("the receiver"), sent, "numbers back");
        sent
    }
}

/// What the node's file says beside its services.
fn balancing(round: u32) -> String {
    let (tcp, any, nat) = (65_536 + round, 32_768 + round, 65_536 - round);
    // Another size of tables makes other programs.
    let table = if round.is_multiple_of(2) { 16_381 } else { 251 };
    format!(
        "algorithm = \"maglev\"\nmaglev-table-size = {table}\n[conntrack]\ntcp-max-entries = {tcp}\n\
         any-max-entries = {any}\nnat-max-entries = {nat}"
    )
}

/// Everything that is done to a node in its life: the daemon's end, gentle and not, other sizes of maps, other
/// programs, other backends, an edited service, and the collector all the time.
fn through_changes(tunnel: bool) {
    let Some(place) = Place::new(tunnel) else { return };
    let there = ENDS.each_ref().map(|ends| at(ends.there, PORT));
    let more: Vec<SocketAddr> =
        there.into_iter().chain(ENDS.iter().map(|ends| at(ends.here, PORT))).collect();
    place.serve(&balancing(0), &service(&there, ""));
    let outside = &place.lab.outside;
    let mut transfers = Vec::new();
    let mut floods = Vec::new();
    for (ends, backend) in ENDS.iter().zip(there) {
        let (wide, node) = (at(ends.external, WIDE), at(ends.node, NODE_PORT));
        transfers.push(Transfer::start(outside, wide, &place.there, backend));
        floods.push(Flood::through((outside, ip(ends.client)), node, (&place.there, backend)));
    }
    let alive = |transfers: &[Transfer], what: &str| {
        transfers.iter().for_each(|transfer| transfer.assert_alive(what));
    };
    let daemon = || Daemon::start_arguments(&place.lab.a, &["--conntrack-gc-interval", "1"]);
    let mut running = daemon();
    alive(&transfers, "the daemon's start");
    let steps = [
        (&more[..], ""),
        (&there, ""),
        (&there, "external-traffic-policy = \"cluster\"\nsession-affinity = \"1h\""),
        (&more, ""),
    ];
    for (round, (backends, settings)) in (1..).zip(steps) {
        let generation = running.status().map_or(0, |status| status.generation);
        place.write(&balancing(round), &service(backends, settings));
        running.signal(Signal::HUP);
        let done = |s: &Status| s.converged && s.generation > generation;
        running.wait("to take the change", done);
        place.lab.note_bpf();
        alive(&transfers, &format!("change {round} by the daemon"));
    }
    running.kill();
    alive(&transfers, "the daemon killed");
    running = daemon();
    running.wait("to collect", |status| status.conntrack_gc.runs > 1);
    alive(&transfers, "the daemon again");
    running.stop();
    for round in 10..16 {
        place.write(&balancing(round), &service(&there, ""));
        let mut child = place.lab.a.command(&["apply"]);
        let mut child =
            child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("run ciliate");
        thread::sleep(Duration::from_millis(60) * (round - 10));
        child.kill().expect("kill it");
        child.wait().expect("wait for it");
        place.lab.note_bpf();
        alive(&transfers, &format!("an apply killed, {round}"));
        place.lab.a.apply();
        place.lab.note_bpf();
        alive(&transfers, &format!("an apply, {round}"));
    }
    for flood in floods {
        assert!(flood.finish() > 1000);
    }
    for transfer in transfers {
        assert!(transfer.finish() > 1000);
    }
}

#[test]
fn through_changes_by_route() {
    through_changes(false);
}

#[test]
fn through_changes_by_tunnel() {
    through_changes(true);
}
