//! The few words of HTTP that health speaks: `GET /hello` and its answer, as Cilium's responder has them.
//!
//! Pure. `httparse` reads heads of requests and answers; a server or client crate would bring threads or
//! an executor of its own for one request without a body.

use httparse::{EMPTY_HEADER, Request, Response, Status};

/// Where health is asked for (`cluster-health-port` of Cilium).
pub const PORT: u16 = 4240;

/// Most bytes of a request or of an answer that are read.
pub const HEAD_BYTES_MAX: usize = 4096;
const HEADERS_MAX: usize = 64;

/// The request to a host.
pub fn request(host: &str) -> Vec<u8> {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "GET /hello HTTP/1.1\r\nHost: {host}\r\nUser-Agent: ciliate/{version}\r\n\
         Connection: close\r\n\r\n"
    )
    .into_bytes()
}

/// The answer to what was received so far; `None` as long as the request isn't whole.
pub fn answer(received: &[u8]) -> Option<Vec<u8>> {
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    let mut request = Request::new(&mut headers);
    let status = match request.parse(received) {
        Ok(Status::Partial) if received.len() < HEAD_BYTES_MAX => return None,
        Ok(Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            "431 Request Header Fields Too Large"
        }
        Err(_) => "400 Bad Request",
        Ok(Status::Complete(_)) => match (request.method, request.path) {
            (Some("GET" | "HEAD"), Some("/hello")) => "200 OK",
            (Some("GET" | "HEAD"), _) => "404 Not Found",
            _ => "405 Method Not Allowed",
        },
    };
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    Some(head.into_bytes())
}

/// Whether what was received so far is a good answer; `None` as long as that can't be told.
pub fn judge(received: &[u8]) -> Option<Result<(), String>> {
    Some(match status_of(received)? {
        Ok((200, _)) => Ok(()),
        Ok((_, said)) => Err(format!("the answer is {said}")),
        Err(error) => Err(error),
    })
}

/// The status of an answer, and how it is called; `None` as long as that can't be told.
pub fn status_of(received: &[u8]) -> Option<Result<(u16, String), String>> {
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    let mut response = Response::new(&mut headers);
    let parsed = response.parse(received);
    // The status is known before the headers are whole, and they don't matter.
    Some(match (parsed, response.code) {
        (Ok(_), Some(code)) => {
            let reason = response.reason.unwrap_or_default();
            Ok((code, format!("{code} {reason:.60}").trim_end().to_owned()))
        }
        (Ok(_), None) if received.len() < HEAD_BYTES_MAX => return None,
        _ => Err("the answer is not HTTP".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(received: &str) -> Option<String> {
        let answer = String::from_utf8(answer(received.as_bytes())?).unwrap();
        Some(answer.split(' ').nth(1).unwrap().to_owned())
    }

    #[test]
    fn what_we_ask_is_answered_and_the_answer_is_good() {
        let request = request("[fd00::1]:4240");
        for length in 0..request.len() {
            assert_eq!(answer(&request[..length]), None, "{length} bytes");
        }
        let answer = answer(&request).unwrap();
        assert_eq!(judge(&answer), Some(Ok(())));
        assert!((0..12).all(|length| judge(&answer[..length]).is_none()));
    }

    #[test]
    fn other_requests_are_refused() {
        for (request, wanted) in [
            ("GET /hello HTTP/1.0\r\n\r\n", "200"),
            ("HEAD /hello HTTP/1.1\r\nHost: x\r\n\r\n", "200"),
            ("GET / HTTP/1.1\r\n\r\n", "404"),
            ("POST /hello HTTP/1.1\r\n\r\n", "405"),
            ("\u{1}\u{2}\u{3}\r\n\r\n", "400"),
            ("GET /hello SMTP\r\n\r\n", "400"),
        ] {
            assert_eq!(status(request).as_deref(), Some(wanted), "{request:?}");
        }
        let endless = format!("GET /hello HTTP/1.1\r\nA: {}", "a".repeat(HEAD_BYTES_MAX));
        assert_eq!(status(&endless).as_deref(), Some("431"));
        let many = "A: b\r\n".repeat(HEADERS_MAX + 1);
        assert_eq!(status(&format!("GET /hello HTTP/1.1\r\n{many}\r\n")).as_deref(), Some("431"));
    }

    #[test]
    fn answers_that_are_not_good_say_what_they_are() {
        for (received, wanted) in [
            ("HTTP/1.1 503 Service Unavailable\r\n", "the answer is 503 Service Unavailable"),
            ("HTTP/1.1 404 \r\n\r\n", "the answer is 404"),
            ("SSH-2.0-OpenSSH_9.2\r\n", "the answer is not HTTP"),
        ] {
            assert_eq!(judge(received.as_bytes()), Some(Err(wanted.to_owned())), "{received:?}");
        }
        assert_eq!(judge(b""), None);
        assert!(judge(&[b'H'; HEAD_BYTES_MAX]).is_some_and(|judged| judged.is_err()));
    }
}
