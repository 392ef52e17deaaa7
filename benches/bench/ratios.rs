//! What is measured of paths, and the table of it: each path's figures as ratios to the raw pair's.
//!
//! Absolute times on a shared machine mean little, ratios hold: paths take turns, in short rounds; a figure is the
//! median, over the rounds, of the round's median as a ratio to the raw pair's of the same round. The raw pair is
//! measured twice: how far its second line is from 1 is noise.

use std::time::Duration;

use super::paths::Lab;
use super::traffic::{self, Client, median};

const REQUESTS: usize = 300;
const CONNECTIONS: usize = 50;
const STREAM: Duration = Duration::from_millis(40);

/// What was measured of a path, round by round.
#[derive(Default)]
struct Series {
    request: Vec<f64>,
    connect: Vec<f64>,
    stream: Vec<f64>,
}

/// Measures the raw pair, and the paths with `only` in their name.
pub fn measure(lab: &Lab, only: &str, rounds: usize) {
    let families = [("IPv4", 0), ("IPv6", 1)];
    let mut clients = Vec::new();
    for (at, path) in lab.paths.iter().enumerate() {
        if !path.name.starts_with("raw") && !path.name.contains(only) {
            continue;
        }
        for (_, family) in families {
            // The second measurement of the raw pair is of the same server.
            if at == 0 || lab.paths[at - 1].server != path.server {
                traffic::serve(&path.server, path.addresses[family]);
            }
            traffic::enter(&path.client);
            clients.push((path, family, Client::connect(path.addresses[family])));
        }
    }
    traffic::pin();
    let mut all: Vec<Series> = clients.iter().map(|_| Series::default()).collect();
    for _ in 0..rounds {
        for ((path, _, client), series) in clients.iter_mut().zip(&mut all) {
            traffic::enter(&path.client);
            series.request.push(client.request(REQUESTS));
            series.connect.push(client.connect_request(CONNECTIONS));
            series.stream.push(client.stream(STREAM));
        }
    }
    println!(
        "{:<28} {:<5} {:>6} {:>6} {:>7} {:>9} {:>9}",
        "path", "", "RR", "CRR", "stream", "RR + µs", "CRR + µs"
    );
    for ((path, family, _), series) in clients.iter().zip(&all) {
        let raw = &all[*family];
        println!(
            "{:<28} {:<5} {:>6.2} {:>6.2} {:>7.2} {:>9.1} {:>9.1}",
            path.name,
            families[*family].0,
            ratio(&series.request, &raw.request),
            ratio(&series.connect, &raw.connect),
            ratio(&series.stream, &raw.stream),
            added(&series.request, &raw.request),
            added(&series.connect, &raw.connect),
        );
    }
    let raw = |of: &[f64]| median(of.iter().copied());
    println!(
        "raw veth pair: RR {:.1} µs, CRR {:.1} µs",
        raw(&all[0].request),
        raw(&all[0].connect)
    );
}

fn ratio(ours: &[f64], raw: &[f64]) -> f64 {
    median(ours.iter().zip(raw).map(|(ours, raw)| ours / raw))
}

fn added(ours: &[f64], raw: &[f64]) -> f64 {
    median(ours.iter().zip(raw).map(|(ours, raw)| ours - raw))
}
