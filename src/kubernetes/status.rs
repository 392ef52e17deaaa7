//! How the adapter is doing: for the log, systemd and whoever asks for metrics. Imports `folder`, `stores`.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch::Receiver;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use crate::folder::{Done, Folder, FolderError};
use crate::stores::Stores;

/// Longer than there is between two failures.
const CALM: Duration = Duration::from_secs(100);
const REQUEST_BYTES_MAX: u64 = 8192;
/// A client that says nothing must not keep the others waiting.
const PATIENCE: Duration = Duration::from_secs(2);

/// What there is to say. A value: whoever tells it has a copy.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// How many objects of each kind are known; `None` before the first whole list.
    known: Vec<(&'static str, Option<usize>)>,
    /// Why a kind can't be watched right now, and since when nothing else was heard.
    failing: BTreeMap<String, (String, Instant)>,
    /// What is wrong with the files.
    files_failing: Vec<String>,
    /// Prometheus' samples but for their prefix.
    samples: BTreeMap<String, usize>,
}

impl Status {
    /// A watch has failed. Said once for each reason.
    pub fn failed(&mut self, kind: String, why: String) {
        *self.samples.entry(format!("watch_failures_total{{kind=\"{kind}\"}}")).or_default() += 1;
        if self.failing.get(&kind).is_none_or(|(said, _)| *said != why) {
            warn!("can't watch {kind}, the last good files stay: {why}");
        }
        self.samples.insert(format!("watch_failing{{kind=\"{kind}\"}}"), 1);
        self.failing.insert(kind, (why, Instant::now()));
    }

    /// A watch has told something, so it works. True if it did not.
    pub fn works(&mut self, kind: &str) -> bool {
        self.samples.insert(format!("watch_failing{{kind=\"{kind}\"}}"), 0);
        let failed = self.failing.remove(kind).is_some();
        if failed {
            info!("{kind} are watched again");
        }
        failed
    }

    /// Files were written, or there was nothing to write.
    pub fn wrote(
        &mut self,
        stores: &Stores,
        folder: &Folder,
        (done, errors): (Done, Vec<FolderError>),
        took: Duration,
    ) {
        self.known = vec![
            ("nodes", stores.nodes.count()),
            ("services", stores.services.count()),
            ("endpointslices", stores.slices.count()),
            ("pods", stores.pods.count()),
            ("namespaces", stores.namespaces.count()),
        ];
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let new = errors.iter().filter(|error| !self.files_failing.contains(error));
        new.for_each(|error| warn!("{error}"));
        if done != Done::default() {
            info!("{} files written, {} removed", done.written, done.removed);
        }
        let (files, left_out) = folder.count();
        if left_out > self.sample("left_out") {
            warn!("{left_out} things of the cluster can't be had: see `Left out` in the files");
        }
        let of_kinds = self.known.iter().flat_map(|(kind, count)| {
            let (objects, complete) = (count.unwrap_or(0), usize::from(count.is_some()));
            let sample = |name, value| (format!("{name}{{kind=\"{kind}\"}}"), value);
            [sample("objects", objects), sample("complete", complete)]
        });
        self.samples.extend(of_kinds);
        let sums = [
            ("files", files),
            ("files_failing", errors.len()),
            ("left_out", left_out),
            ("last_batch_microseconds", usize::try_from(took.as_micros()).unwrap_or(usize::MAX)),
            ("files_written_total", self.sample("files_written_total") + done.written),
            ("files_removed_total", self.sample("files_removed_total") + done.removed),
            ("batches_total", self.sample("batches_total") + 1),
        ];
        self.samples.extend(sums.map(|(name, value)| (name.to_owned(), value)));
        self.files_failing = errors;
    }

    fn sample(&self, name: &str) -> usize {
        self.samples.get(name).copied().unwrap_or(0)
    }

    /// A watch that goes on where it was, and on which nothing happens, doesn't say so.
    pub fn calm(&mut self) {
        let calm = |(_, (_, at)): &(_, &(_, Instant))| at.elapsed() > CALM;
        let calm: Vec<_> = self.failing.iter().filter(calm).map(|(kind, _)| kind.clone()).collect();
        calm.iter().for_each(|kind| _ = self.works(kind));
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
        let (files, left_out) = (self.sample("files"), self.sample("left_out"));
        format!("{files} files of {}; {left_out} things left out", counts.join(", "))
    }

    /// In Prometheus' text format.
    pub fn metrics(&self) -> String {
        let sample =
            |(name, value): (&String, &usize)| format!("ciliate_kubernetes_{name} {value}\n");
        self.samples.iter().map(sample).collect()
    }
}

/// Answers for ever.
pub async fn serve(listener: TcpListener, status: Receiver<Status>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(PATIENCE).await;
            continue;
        };
        let status = status.borrow().clone();
        let _ = timeout(PATIENCE, answer(stream, &status)).await;
    }
}

/// One request at a time, one answer for each connection: that is all a scraper and a probe need, and less than a
/// server library brings. `/ready` says yes or no, everything else is the metrics.
async fn answer(stream: TcpStream, status: &Status) -> std::io::Result<()> {
    let mut stream = BufStream::new(stream);
    let mut lines = (&mut stream).take(REQUEST_BYTES_MAX).lines();
    let request = lines.next_line().await?.unwrap_or_default();
    while lines.next_line().await?.is_some_and(|line| !line.is_empty()) {}
    let (code, body) = match request.starts_with("GET /ready") {
        true if status.is_ready() => ("200 OK", format!("{}\n", status.line())),
        true => ("503 Service Unavailable", format!("{}\n", status.line())),
        false => ("200 OK", status.metrics()),
    };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {code}\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n"
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await?;
    stream.shutdown().await
}
