//! Text → an address with a port.
//!
//! Pure.

use std::net::{IpAddr, SocketAddr};

use serde_spanned::Spanned;

use crate::config::{Diagnostic, Span};
use crate::intent::address::{Use, hint, nonsense, shown};
use crate::intent::draft::{At, Problems};

/// Reads a list. With `wildcard` the unspecified addresses are allowed. What can't be used is left out.
pub(super) fn list(
    list: Option<&Spanned<Vec<Spanned<String>>>>,
    wildcard: bool,
    problems: &mut Problems,
) -> Vec<At<SocketAddr>> {
    let written = list.map_or(&[][..], |list| list.get_ref().as_slice());
    let one = |text: &Spanned<String>| one(text.get_ref(), text.into(), wildcard, problems);
    written.iter().filter_map(one).collect()
}

/// Reads one.
pub(super) fn one(
    text: &str,
    span: Span,
    wildcard: bool,
    problems: &mut Problems,
) -> Option<At<SocketAddr>> {
    match parse(text, span, wildcard) {
        Ok(value) => Some(At { value, span }),
        Err(problem) => {
            problems.push(*problem);
            None
        }
    }
}

fn parse(text: &str, span: Span, wildcard: bool) -> Result<SocketAddr, Box<Diagnostic>> {
    let Ok(read) = text.parse::<SocketAddr>() else {
        let problem = format!("{} is not an address with a port", shown(text));
        return Err(Box::new(Diagnostic::new(span, problem).help(help(text))));
    };
    let bad =
        |message: String, help: &str| Err(Box::new(Diagnostic::new(span, message).help(help)));
    if read.port() == 0 {
        return bad(format!("{text} has port 0"), "a port is a number from 1 to 65535");
    }
    let address = read.ip();
    if wildcard && address.is_unspecified() {
        return Ok(read);
    }
    match nonsense(address, Use::Service) {
        None => Ok(read),
        Some(why) => {
            let help = match address.to_canonical() {
                canonical if canonical != address => {
                    format!("write it as IPv4: \"{canonical}:{}\"", read.port())
                }
                _ => "give an address that clients and other nodes can reach".to_owned(),
            };
            bad(format!("{address} can't be used here: it is {why}"), &help)
        }
    }
}

/// What could be meant by a text that is no address with a port.
fn help(text: &str) -> String {
    const EXAMPLE: &str = "write it like \"192.0.2.1:80\" or \"[2001:db8::1]:80\"";
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V4(v4)) => return format!("add the port, like \"{v4}:80\""),
        Ok(IpAddr::V6(v6)) => {
            return format!(
                "add the port, and put the address in brackets before it, like \"[{v6}]:80\""
            );
        }
        Err(_) => {}
    }
    let Some((address, port)) = text.rsplit_once(':') else { return EXAMPLE.to_owned() };
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match bare.unwrap_or(address).parse::<IpAddr>() {
        Ok(IpAddr::V6(v6)) if bare.is_none() => {
            format!("put the address in brackets: \"[{v6}]:{port}\"")
        }
        Ok(_) => "a port is a number from 1 to 65535".to_owned(),
        Err(_) if address.is_empty() => EXAMPLE.to_owned(),
        Err(_) => match hint(bare.unwrap_or(address)) {
            hint if hint.starts_with("write it like") => EXAMPLE.to_owned(),
            hint => hint.replace("\"192.0.2.1\"", "\"192.0.2.1:80\""),
        },
    }
}
