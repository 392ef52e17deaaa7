//! A small API server: what answers is a recording (`replay`) or made up (`cluster`), and it is asked through
//! the real client, in this process or by TCP.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use kube::Client;
use kube::client::Body;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// An answer; its body may come in pieces, over time, and be cut off.
pub struct Answer {
    pub status: u16,
    pub content_type: &'static str,
    pub body: BoxStream<'static, io::Result<Bytes>>,
}

impl Answer {
    /// One that is there at once.
    pub fn whole(status: u16, text: impl Into<String>) -> Self {
        let bytes = Bytes::from(text.into());
        let body = futures::stream::once(async move { Ok(bytes) }).boxed();
        Self { status, content_type: "application/json", body }
    }
}

/// What is asked.
pub struct Asked {
    pub method: String,
    pub path: String,
    pub query: String,
    pub body: String,
    /// What it bears to be let in.
    pub token: Option<String>,
}

impl Asked {
    fn new(method: &str, uri: &str, body: Vec<u8>) -> Self {
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let body = String::from_utf8(body).unwrap();
        Self { method: method.into(), path: path.into(), query: query.into(), body, token: None }
    }

    /// A parameter of the query, with `%3D` for `=` as the client writes it in values.
    pub fn parameter(&self, name: &str) -> Option<String> {
        let pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        let mut values = pairs.filter(|(key, _)| *key == name).map(|(_, value)| value);
        values.next().map(|value| value.replace("%3D", "="))
    }

    pub fn is_watch(&self) -> bool {
        self.parameter("watch").is_some()
    }
}

/// What answers. `None` refuses the connection.
pub trait Api: Send + Sync + 'static {
    fn answer(&self, asked: &Asked) -> Option<Answer>;
}

/// The client, without a socket between.
pub fn client(api: Arc<dyn Api>) -> Client {
    let service = tower::service_fn(move |request: Request<Body>| {
        let api = api.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes().to_vec();
            let asked = Asked::new(head.method.as_str(), &head.uri.to_string(), body);
            let answer =
                api.answer(&asked).ok_or_else(|| io::Error::other("connection refused"))?;
            let response = Response::builder().status(answer.status);
            let response = response.header("content-type", answer.content_type);
            let body = StreamBody::new(answer.body.map_ok(Frame::data));
            Ok::<_, io::Error>(response.body(body).unwrap())
        }
    });
    Client::new(service, "default")
}

/// The same by TCP, until the runtime ends.
pub async fn listen(api: Arc<dyn Api>) -> SocketAddr {
    listen_as(api, |stream| async { Ok(stream) }).await
}

/// The same by TLS, with whatever certificate there is at the time.
pub async fn listen_by_tls(
    api: Arc<dyn Api>,
    acceptor: impl Fn() -> TlsAcceptor + Send + Sync + 'static,
) -> SocketAddr {
    listen_as(api, move |stream| acceptor().accept(stream)).await
}

async fn listen_as<S, F>(
    api: Arc<dyn Api>,
    accept: impl Fn(TcpStream) -> F + Send + 'static,
) -> SocketAddr
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    F: Future<Output = io::Result<S>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let (api, accepted) = (api.clone(), accept(stream));
            tokio::spawn(async move {
                let stream = accepted.await?;
                converse(stream, &*api).await
            });
        }
    });
    address
}

async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    api: &dyn Api,
) -> io::Result<Infallible> {
    let mut buffer = Vec::new();
    let cut = || io::Error::from(io::ErrorKind::UnexpectedEof);
    loop {
        let end = loop {
            if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Err(cut());
            }
        };
        let head = String::from_utf8_lossy(&buffer[..end]).to_string();
        let header = |name: &str| {
            let mut lines = head.lines().filter_map(|line| line.split_once(": "));
            lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
        };
        let length: usize = header("content-length").map_or(0, |text| text.parse().unwrap());
        while buffer.len() < end + 4 + length {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Err(cut());
            }
        }
        let body = buffer[end + 4..end + 4 + length].to_vec();
        buffer.drain(..end + 4 + length);
        let mut words = head.split_whitespace();
        let mut asked = Asked::new(words.next().unwrap(), words.next().unwrap(), body);
        let token = header("authorization").and_then(|text| text.strip_prefix("Bearer "));
        asked.token = token.map(str::to_owned);
        let mut answer = api.answer(&asked).ok_or_else(cut)?;
        let head = format!(
            "HTTP/1.1 {} Said\r\nContent-Type: {}\r\nTransfer-Encoding: chunked\r\n\r\n",
            answer.status, answer.content_type
        );
        stream.write_all(head.as_bytes()).await?;
        while let Some(piece) = answer.body.next().await {
            let piece = piece?;
            stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await?;
            stream.write_all(&piece).await?;
            stream.write_all(b"\r\n").await?;
        }
        stream.write_all(b"0\r\n\r\n").await?;
    }
}
