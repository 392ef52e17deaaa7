//! How the adapter is doing: for the log, systemd and whoever asks for metrics. Imports `folder`.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch::Receiver;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use crate::folder::{Done, FolderError};

/// Longer than there is between two failures: a watch that goes on where it was, and on which nothing happens, doesn't
/// say that it works again.
const CALM: Duration = Duration::from_secs(100);
/// A client that says nothing must not keep the others waiting.
const PATIENCE: Duration = Duration::from_secs(2);

/// What there is to say. A value: whoever tells it has a copy.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// How many objects of each kind are known; `None` before the first whole list.
    known: BTreeMap<String, Option<usize>>,
    /// Why a kind can't be watched right now, and when that was last said.
    failing: BTreeMap<String, (String, Instant)>,
    /// What is wrong with the files.
    files_failing: Vec<String>,
    /// Whether all was known when the files were written last.
    complete: bool,
    /// How many of ours there are, and what is left out in them,
    files: (usize, usize),
    /// and how many were written and removed so far, in how many batches.
    done: Done,
    batches: usize,
}

impl Status {
    /// A watch has failed. Said once for each reason.
    pub fn failed(&mut self, kind: &str, why: &str) {
        let why = format!("can't watch {kind}, the last good files stay: {why}");
        let before = self.failing.insert(kind.to_owned(), (why.clone(), Instant::now()));
        if before.is_none_or(|(said, _)| said != why) {
            warn!("{why}");
        }
    }

    /// A watch has told something, so it works. True if that is news.
    pub fn works(&mut self, kind: &str, count: Option<usize>) -> bool {
        let failed = self.failing.remove(kind).inspect(|_| info!("{kind} are watched again"));
        self.known.insert(kind.to_owned(), count) != Some(count) || failed.is_some()
    }

    /// Files were written, or there was nothing to write.
    pub fn wrote(&mut self, files: (usize, usize), (done, errors): (Done, Vec<FolderError>)) {
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let new = errors.iter().filter(|error| !self.files_failing.contains(error));
        new.for_each(|error| warn!("{error}"));
        if done != Done::default() {
            let (Done { written, removed }, left_out) = (done, files.1);
            info!("{written} files written, {removed} removed; {left_out} things left out");
        }
        self.failing.retain(|_, (_, at)| at.elapsed() < CALM);
        self.complete = self.known.values().all(Option::is_some);
        self.done.written += done.written;
        self.done.removed += done.removed;
        self.batches += 1;
        (self.files, self.files_failing) = (files, errors);
    }

    /// Whether all is known and written.
    pub fn is_ready(&self) -> bool {
        self.complete && self.files_failing.is_empty()
    }

    /// One line.
    pub fn line(&self) -> String {
        match (self.files_failing.first(), self.failing.values().next()) {
            (Some(error), _) => error.clone(),
            (None, Some((why, _))) => why.clone(),
            (None, None) if !self.complete => "waiting for the first lists".to_owned(),
            (None, None) => {
                let all = self.known.iter();
                let all = all.map(|(kind, count)| format!("{} {kind}", count.unwrap_or(0)));
                let (all, (files, left_out)) = (all.collect::<Vec<_>>().join(", "), self.files);
                format!("{files} files of {all}; {left_out} things left out")
            }
        }
    }

    /// In Prometheus' text format.
    pub fn metrics(&self) -> String {
        let mut text = String::new();
        let mut put = |name: &str, value| text += &format!("ciliate_kubernetes_{name} {value}\n");
        for (kind, count) in &self.known {
            put(&format!("objects{{kind=\"{kind}\"}}"), count.unwrap_or(0));
            put(&format!("complete{{kind=\"{kind}\"}}"), usize::from(count.is_some()));
            let failing = usize::from(self.failing.contains_key(kind));
            put(&format!("watch_failing{{kind=\"{kind}\"}}"), failing);
        }
        put("files", self.files.0);
        put("files_failing", self.files_failing.len());
        put("files_written_total", self.done.written);
        put("files_removed_total", self.done.removed);
        put("left_out", self.files.1);
        put("batches_total", self.batches);
        text
    }
}

/// Answers for ever.
pub async fn serve(listener: TcpListener, status: Receiver<Status>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => _ = timeout(PATIENCE, answer(stream, &status)).await,
            Err(_) => sleep(PATIENCE).await,
        }
    }
}

/// One answer for each connection, to a request that comes in one piece: that is all a scraper and a probe need, and
/// less than a server library brings. `/ready` says yes or no, everything else is the metrics.
async fn answer(mut stream: TcpStream, status: &Receiver<Status>) -> std::io::Result<()> {
    let mut request = [0; 8192];
    let length = stream.read(&mut request).await?;
    let (status, probe) = (status.borrow().clone(), request[..length].starts_with(b"GET /ready"));
    let refused = probe && !status.is_ready();
    let code = if refused { "503 Service Unavailable" } else { "200 OK" };
    let body = if probe { status.line() + "\n" } else { status.metrics() };
    // It ends with the connection.
    let head = "Content-Type: text/plain; version=0.0.4\r\nConnection: close";
    stream.write_all(format!("HTTP/1.1 {code}\r\n{head}\r\n\r\n{body}").as_bytes()).await?;
    stream.shutdown().await
}
