//! The status, for whoever asks by HTTP: `/ready` says yes or no, everything else is the metrics.
//!
//! One request at a time, one answer for each connection: that is all a scraper and a probe need, and less
//! than a server library brings. Imports `status`.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch::Receiver;
use tokio::time::timeout;

use crate::status::Status;

const REQUEST_BYTES_MAX: usize = 8192;
/// A client that says nothing must not keep the others waiting.
const PATIENCE: Duration = Duration::from_secs(2);

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

async fn answer(mut stream: TcpStream, status: &Status) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") && request.len() < REQUEST_BYTES_MAX {
        if stream.read_buf(&mut request).await? == 0 {
            break;
        }
    }
    let (code, body) = match request.starts_with(b"GET /ready") {
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
