//! How the adapter is doing: for the log, systemd and whoever asks for metrics. Imports `folder`, `stores`.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use crate::folder::{Done, FolderError};
use crate::stores::{Store, Stores};

/// Longer than there is between two failures.
const CALM: Duration = Duration::from_secs(100);

/// What there is to say. A value: whoever tells it has a copy.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// How many objects of each kind are known; `None` before the first whole list.
    known: Vec<(&'static str, Option<usize>)>,
    /// Why a kind can't be watched right now, and since when nothing else was heard.
    failing: BTreeMap<&'static str, (String, Instant)>,
    /// What is wrong with the files.
    files_failing: Vec<String>,
    left_out: usize,
    /// Prometheus' samples but for their prefix.
    samples: BTreeMap<String, u64>,
}

fn known<T>(store: &Store<T>) -> Option<usize> {
    store.complete.then_some(store.objects.len())
}

impl Status {
    /// A watch has failed. Said once for each reason.
    pub fn failed(&mut self, kind: &'static str, why: String) {
        *self.samples.entry(format!("watch_failures_total{{kind=\"{kind}\"}}")).or_default() += 1;
        if self.failing.get(kind).is_none_or(|(said, _)| *said != why) {
            warn!("can't watch {kind}, the last good files stay: {why}");
        }
        self.failing.insert(kind, (why, Instant::now()));
        self.samples.insert(format!("watch_failing{{kind=\"{kind}\"}}"), 1);
    }

    /// A watch has told something, so it works. True if it did not.
    pub fn works(&mut self, kind: &'static str) -> bool {
        self.samples.insert(format!("watch_failing{{kind=\"{kind}\"}}"), 0);
        let failed = self.failing.remove(kind).is_some();
        if failed {
            info!("{kind} are watched again");
        }
        failed
    }

    /// Files were written, or there was nothing to write.
    pub fn wrote(&mut self, done: Done, errors: &[FolderError], files: usize, took: Duration) {
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let new = errors.iter().filter(|error| !self.files_failing.contains(error));
        new.for_each(|error| warn!("{error}"));
        if done != Done::default() {
            info!("{} files written, {} removed", done.written, done.removed);
        }
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let gauges = [
            ("files", files as u64),
            ("files_failing", errors.len() as u64),
            ("last_batch_microseconds", micros),
        ];
        self.samples.extend(gauges.map(|(name, value)| (name.to_owned(), value)));
        for (name, more) in [
            ("files_written_total", done.written),
            ("files_removed_total", done.removed),
            ("batches_total", 1),
        ] {
            *self.samples.entry(name.to_owned()).or_default() += more as u64;
        }
        self.files_failing = errors;
    }

    /// A watch that goes on where it was, and on which nothing happens, doesn't say so.
    pub fn calm(&mut self) {
        let calm = |(_, (_, at)): &(_, &(_, Instant))| at.elapsed() > CALM;
        let calm: Vec<_> = self.failing.iter().filter(calm).map(|(kind, _)| *kind).collect();
        calm.into_iter().for_each(|kind| _ = self.works(kind));
    }

    /// What the objects are.
    pub fn counts(&mut self, stores: &Stores, left_out: usize) {
        self.known = vec![
            ("nodes", known(&stores.nodes)),
            ("services", known(&stores.services)),
            ("endpointslices", known(&stores.slices)),
            ("pods", known(&stores.pods)),
            ("namespaces", known(&stores.namespaces)),
        ];
        for (kind, count) in &self.known {
            let (objects, complete) = (count.unwrap_or(0) as u64, u64::from(count.is_some()));
            self.samples.insert(format!("objects{{kind=\"{kind}\"}}"), objects);
            self.samples.insert(format!("complete{{kind=\"{kind}\"}}"), complete);
        }
        if left_out > self.left_out {
            warn!("{left_out} things of the cluster can't be had: see `Left out` in the files");
        }
        self.left_out = left_out;
        self.samples.insert("left_out".to_owned(), left_out as u64);
    }

    /// Whether all is known and written.
    pub fn is_ready(&self) -> bool {
        let complete =
            !self.known.is_empty() && self.known.iter().all(|(_, count)| count.is_some());
        complete && self.files_failing.is_empty()
    }

    /// One line.
    pub fn line(&self) -> String {
        if let Some(error) = self.files_failing.first() {
            return error.clone();
        }
        if let Some((kind, (why, _))) = self.failing.first_key_value() {
            return format!("can't watch {kind}, the last good files stay: {why}");
        }
        if !self.is_ready() {
            return "waiting for the first lists".to_owned();
        }
        let count = |(kind, count): &(_, Option<usize>)| format!("{} {kind}", count.unwrap_or(0));
        let counts: Vec<String> = self.known.iter().map(count).collect();
        let files = self.samples.get("files").unwrap_or(&0);
        format!("{files} files of {}; {} things left out", counts.join(", "), self.left_out)
    }

    /// In Prometheus' text format.
    pub fn metrics(&self) -> String {
        let sample =
            |(name, value): (&String, &u64)| format!("ciliate_kubernetes_{name} {value}\n");
        self.samples.iter().map(sample).collect()
    }
}
