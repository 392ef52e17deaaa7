//! Route netlink (rtnetlink(7)): dumps that can't lie, and batches.
//!
//! Messages are `netlink-packet-route`'s, the socket is `netlink-sys`'s. The `rtnetlink` crate is not
//! used, for three reasons that were measured or read in its source: it drops the error that ends a
//! dump, so a failed dump looks like an empty list (and an empty list makes a reconciler do terrible
//! things); it has no way to send many requests at once (11 µs a route against 4 µs here); and it
//! doesn't look at `NLM_F_DUMP_INTR`, by which the kernel says that a dump is not consistent.

use std::io;
use std::num::NonZero;
use std::time::{Duration, Instant};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer,
    NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable, Parseable,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::net::sockopt::{
    Timeout, set_socket_recv_buffer_size, set_socket_recv_buffer_size_force, set_socket_timeout,
    socket_recv_buffer_size,
};

/// Requests in one send, at most: all that is answered has to fit in the receive buffer.
const BATCH_MESSAGES_MAX: usize = 512;
/// What an answer takes of that, as the kernel counts: for an object it allocates `NLMSG_GOODSIZE`, a page at most
/// of 4 KiB, with what goes with it; for an error little more than the error.
const ANSWER_BYTES: usize = 8 * 1024;
const REFUSAL_BYTES: usize = 2 * 1024;
/// Bytes in one send; the kernel's default send buffer is 208 KiB and an skb has overhead.
const BATCH_BYTES_MAX: usize = 64 * 1024;
/// How long a dump is started again because the tables changed under it, and how long it waits between.
const DUMP_PATIENCE: Duration = Duration::from_secs(5);
const DUMP_PAUSE_MIN: Duration = Duration::from_micros(200);
const DUMP_PAUSE_MAX: Duration = Duration::from_millis(20);
const RECEIVE_BUFFER_BYTES: usize = 4 * 1024 * 1024;
/// One datagram of a dump is at most 32 KiB (`netlink_dump`); we offer more than that.
const DATAGRAM_BYTES_MAX: usize = 64 * 1024;
/// The kernel answers at once; a request without answer for this long is lost.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// `sizeof(struct nlmsghdr)`.
const HEADER_BYTES: usize = 16;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    #[error("{}", describe(*errno, message))]
    Kernel {
        errno: i32,
        /// What the kernel says in its extended acknowledgement, or empty.
        message: String,
    },
    #[error("the socket")]
    Io(#[from] io::Error),
    #[error("the kernel's tables changed each time while they were read, for {DUMP_PATIENCE:?}")]
    Interrupted,
    #[error("an answer can't be read: {0}")]
    Decode(String),
}

fn describe(errno: i32, message: &str) -> String {
    let text = io::Error::from_raw_os_error(errno);
    if message.is_empty() { text.to_string() } else { format!("{message} ({text})") }
}

impl NetlinkError {
    /// The kernel's error number, if it was the kernel that refused.
    pub fn errno(&self) -> Option<i32> {
        match self {
            NetlinkError::Kernel { errno, .. } => Some(*errno),
            NetlinkError::Io(error) => error.raw_os_error(),
            _ => None,
        }
    }
}

/// A request as it is put into the bytes of a batch.
pub trait Outgoing {
    /// The message's type, and its flags beyond `NLM_F_REQUEST`.
    fn header(&self) -> (u16, u16);
    /// Appends what follows the header.
    fn write(&self, bytes: &mut Vec<u8>);
}

/// A request that changes something: the message and its flags beyond `NLM_F_REQUEST`.
pub type Request = (RouteNetlinkMessage, u16);

impl Outgoing for RouteNetlinkMessage {
    fn header(&self) -> (u16, u16) {
        (self.message_type(), 0)
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        let start = bytes.len();
        bytes.resize(start + self.buffer_len(), 0);
        self.serialize(&mut bytes[start..]);
    }
}

impl Outgoing for Request {
    fn header(&self) -> (u16, u16) {
        (self.0.message_type(), self.1)
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        self.0.write(bytes);
    }
}

/// A netlink socket of one namespace: the one it was opened in.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
    pulse: Option<super::Pulse>,
}

impl Netlink {
    /// Opens a route socket in the calling thread's namespace.
    ///
    /// # Errors
    /// The kernel refuses the socket or an option.
    pub fn open() -> Result<Self, NetlinkError> {
        Self::open_protocol(NETLINK_ROUTE)
    }

    /// The same for another protocol of netlink.
    ///
    /// # Errors
    /// The kernel refuses the socket or an option.
    pub fn open_protocol(protocol: isize) -> Result<Self, NetlinkError> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        // Without strict checking the kernel ignores dump filters (Linux 4.20).
        socket.set_netlink_get_strict_chk(true)?;
        widen(&socket, RECEIVE_BUFFER_BYTES);
        set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_TIMEOUT))
            .map_err(io::Error::from)?;
        let buffer = Vec::with_capacity(DATAGRAM_BYTES_MAX);
        Ok(Self { socket, sequence: 0, buffer, pulse: None })
    }

    /// Whom to tell of each answer.
    pub fn set_pulse(&mut self, pulse: Option<super::Pulse>) {
        self.pulse = pulse;
    }

    /// The messages that answer a dump request, complete and consistent.
    ///
    /// # Errors
    /// The kernel refuses the dump, or it can't be had in one piece.
    pub fn dump(
        &mut self,
        request: &RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        self.dump_with(request, |whole, _| match deserialize(whole)?.payload {
            NetlinkPayload::InnerMessage(inner) => Ok(Some(inner)),
            _ => Ok(None),
        })
    }

    /// The same with a decoder of one's own, for tables so long that building the messages would cost
    /// more than the dump: it is given each message, whole and without its header.
    ///
    /// # Errors
    /// As [`Netlink::dump`], and those of the decoder.
    pub fn dump_with<T>(
        &mut self,
        request: &impl Outgoing,
        decode: impl Fn(&[u8], &[u8]) -> Result<Option<T>, NetlinkError>,
    ) -> Result<Vec<T>, NetlinkError> {
        self.collect(request, NLM_F_DUMP, decode)
    }

    /// The messages that answer a request which is no dump, as the decoder has them.
    ///
    /// # Errors
    /// The kernel refuses the request, and those of the decoder.
    pub fn ask<T>(
        &mut self,
        request: &impl Outgoing,
        decode: impl Fn(&[u8], &[u8]) -> Result<Option<T>, NetlinkError>,
    ) -> Result<Vec<T>, NetlinkError> {
        self.collect(request, NLM_F_ACK, decode)
    }

    fn collect<T>(
        &mut self,
        request: &impl Outgoing,
        flags: u16,
        decode: impl Fn(&[u8], &[u8]) -> Result<Option<T>, NetlinkError>,
    ) -> Result<Vec<T>, NetlinkError> {
        let (begin, mut pause) = (Instant::now(), DUMP_PAUSE_MIN);
        loop {
            let sequence = self.next_sequence();
            let mut bytes = vec![0; HEADER_BYTES];
            request.write(&mut bytes);
            let (length, (kind, more)) = (bytes.len() as u32, request.header());
            write_header(&mut bytes, length, kind, NLM_F_REQUEST | flags | more, sequence);
            self.socket.send(&bytes, 0)?;
            if let Some(answers) = self.collect_dump(sequence, &decode)? {
                return Ok(answers);
            }
            if begin.elapsed() >= DUMP_PATIENCE {
                return Err(NetlinkError::Interrupted);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(DUMP_PAUSE_MAX);
        }
    }

    /// Reads up to the end of a dump. `None`: it was not consistent.
    fn collect_dump<T>(
        &mut self,
        sequence: u32,
        decode: &impl Fn(&[u8], &[u8]) -> Result<Option<T>, NetlinkError>,
    ) -> Result<Option<Vec<T>>, NetlinkError> {
        let (mut answers, mut consistent, mut end) = (Vec::new(), true, None);
        while end.is_none() {
            self.receive_raw(|header, whole| {
                if header.sequence_number != sequence || end.is_some() {
                    return Ok(());
                }
                consistent &= header.flags & NLM_F_DUMP_INTR == 0;
                let payload = &whole[HEADER_BYTES..];
                match header.message_type {
                    // Both begin with an error number, which is 0 at the end of a good dump.
                    NLMSG_ERROR | NLMSG_DONE => {
                        let code = payload.get(..4).and_then(|code| code.try_into().ok());
                        end = Some(match code.map_or(0, i32::from_ne_bytes) {
                            0 => Ok(()),
                            code => Err(refusal(code, payload.get(4..).unwrap_or_default())),
                        });
                    }
                    _ => answers.extend(decode(whole, payload)?),
                }
                Ok(())
            })?;
        }
        end.unwrap_or(Ok(())).map(|()| consistent.then_some(answers))
    }

    /// One answer to one request, or `None` where the kernel says that there is no such object.
    ///
    /// # Errors
    /// Any other refusal.
    pub fn get(
        &mut self,
        request: RouteNetlinkMessage,
    ) -> Result<RouteNetlinkMessage, NetlinkError> {
        let answer = self.get_all(vec![request])?.pop();
        answer.unwrap_or_else(|| Err(NetlinkError::Decode("no answer".into())))
    }

    /// One answer for each request, in order.
    ///
    /// # Errors
    /// The socket fails. A refused request has its own error in the list.
    pub fn get_all(
        &mut self,
        requests: Vec<RouteNetlinkMessage>,
    ) -> Result<Vec<Result<RouteNetlinkMessage, NetlinkError>>, NetlinkError> {
        let mut answers = Vec::with_capacity(requests.len());
        let mut pending = requests.into_iter().peekable();
        while pending.peek().is_some() {
            let (first, count) = self.send_batch(&mut pending, 0, ANSWER_BYTES)?;
            let mut slots: Vec<_> = (0..count).map(|_| None).collect();
            let mut missing = count;
            while missing > 0 {
                self.receive(|message| {
                    let index = message.header.sequence_number.wrapping_sub(first) as usize;
                    let Some(slot @ None) = slots.get_mut(index) else { return };
                    *slot = Some(match message.payload {
                        NetlinkPayload::InnerMessage(inner) => Ok(inner),
                        NetlinkPayload::Error(error) => {
                            let code = error.code.map_or(0, NonZero::get);
                            Err(refusal(code, &error.header))
                        }
                        _ => Err(NetlinkError::Decode("an answer of another kind".into())),
                    });
                    missing -= 1;
                })?;
            }
            answers.extend(slots.into_iter().flatten());
        }
        Ok(answers)
    }

    /// Sends changes, many in one system call, and returns what became of each, in order. A failing
    /// one doesn't stop the rest.
    ///
    /// # Errors
    /// The socket fails; how far the kernel came is then unknown until it is observed again.
    pub fn change(
        &mut self,
        requests: impl IntoIterator<Item = impl Outgoing>,
    ) -> Result<Vec<Result<(), NetlinkError>>, NetlinkError> {
        let mut results = Vec::new();
        let mut pending = requests.into_iter().peekable();
        while pending.peek().is_some() {
            let (first, count) = self.send_batch(&mut pending, NLM_F_ACK, REFUSAL_BYTES)?;
            let start = results.len();
            results.extend((0..count).map(|_| Ok(())));
            let mut done = false;
            while !done {
                self.receive(|message| {
                    let index = message.header.sequence_number.wrapping_sub(first) as usize;
                    if index >= count {
                        return;
                    }
                    if let NetlinkPayload::Error(error) = message.payload {
                        if let Some(code) = error.code {
                            results[start + index] = Err(refusal(code.get(), &error.header));
                        }
                        done |= index + 1 == count;
                    }
                })?;
            }
        }
        Ok(results)
    }

    /// Sends one batch off `pending` and returns its first sequence number and its length. The last
    /// message gets `last_flags`: errors are answered without being asked for, and one
    /// acknowledgement says that all of them were handled. An answer takes up to `answer_bytes`.
    fn send_batch(
        &mut self,
        pending: &mut std::iter::Peekable<impl Iterator<Item = impl Outgoing>>,
        last_flags: u16,
        answer_bytes: usize,
    ) -> Result<(u32, usize), NetlinkError> {
        let room = socket_recv_buffer_size(&self.socket).map_err(io::Error::from)?;
        let most = (room / answer_bytes).clamp(1, BATCH_MESSAGES_MAX);
        let first = self.sequence.wrapping_add(1);
        let (mut bytes, mut count) = (Vec::with_capacity(BATCH_BYTES_MAX), 0);
        while count < most && bytes.len() < BATCH_BYTES_MAX {
            let Some(request) = pending.next() else { break };
            let start = bytes.len();
            bytes.resize(start + HEADER_BYTES, 0);
            request.write(&mut bytes);
            let length = bytes.len() - start;
            bytes.resize(start + length.next_multiple_of(4), 0);
            count += 1;
            let full = count == most || bytes.len() >= BATCH_BYTES_MAX;
            let (kind, mut flags) = request.header();
            flags |= NLM_F_REQUEST;
            if full || pending.peek().is_none() {
                flags |= last_flags;
            }
            let sequence = self.next_sequence();
            write_header(&mut bytes[start..], length as u32, kind, flags, sequence);
        }
        self.socket.send(&bytes, 0)?;
        Ok((first, count))
    }

    /// Receives one datagram and hands each message in it to `each`.
    fn receive(
        &mut self,
        mut each: impl FnMut(NetlinkMessage<RouteNetlinkMessage>),
    ) -> Result<(), NetlinkError> {
        self.receive_raw(|_, whole| {
            each(deserialize(whole)?);
            Ok(())
        })
    }

    /// The same with bytes.
    fn receive_raw(
        &mut self,
        mut each: impl FnMut(&NetlinkHeader, &[u8]) -> Result<(), NetlinkError>,
    ) -> Result<(), NetlinkError> {
        self.buffer.clear();
        self.socket.recv(&mut self.buffer, 0)?;
        if let Some(pulse) = &self.pulse {
            pulse();
        }
        let mut rest = self.buffer.as_slice();
        while rest.len() >= HEADER_BYTES {
            let header = NetlinkHeader::parse(&NetlinkBuffer::new(rest))
                .map_err(|error| NetlinkError::Decode(error.to_string()))?;
            let length = header.length as usize;
            if length < HEADER_BYTES || length > rest.len() {
                return Err(NetlinkError::Decode(format!("a message of {length} bytes")));
            }
            each(&header, &rest[..length])?;
            rest = &rest[length.next_multiple_of(4).min(rest.len())..];
        }
        Ok(())
    }

    fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }
}

/// Gives a socket a larger receive buffer: beyond `net.core.rmem_max`, or up to that in a user namespace, which may
/// not go further.
pub fn widen(socket: &Socket, bytes: usize) {
    if set_socket_recv_buffer_size_force(socket, bytes).is_err() {
        let _ = set_socket_recv_buffer_size(socket, bytes);
    }
}

/// Writes a `struct nlmsghdr`; the port is 0, for the kernel to fill in.
fn write_header(bytes: &mut [u8], length: u32, kind: u16, flags: u16, sequence: u32) {
    bytes[..4].copy_from_slice(&length.to_ne_bytes());
    bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
    bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
    bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
}

fn deserialize(whole: &[u8]) -> Result<NetlinkMessage<RouteNetlinkMessage>, NetlinkError> {
    NetlinkMessage::deserialize(whole).map_err(|error| NetlinkError::Decode(error.to_string()))
}

/// The error of an answer. `rest` is what follows the code: the request's header (16 bytes, since
/// `NETLINK_CAP_ACK` is set) and the extended acknowledgement's attributes.
fn refusal(code: i32, rest: &[u8]) -> NetlinkError {
    NetlinkError::Kernel { errno: -code, message: extended_ack(rest).unwrap_or_default() }
}

/// `NLMSGERR_ATTR_MSG` (linux/netlink.h).
const EXTACK_MESSAGE: u16 = 1;

fn extended_ack(rest: &[u8]) -> Option<String> {
    let mut attributes = rest.get(16..)?;
    while attributes.len() >= 4 {
        let length = u16::from_ne_bytes([attributes[0], attributes[1]]) as usize;
        let kind = u16::from_ne_bytes([attributes[2], attributes[3]]);
        let value = attributes.get(4..length)?;
        if kind == EXTACK_MESSAGE {
            let text = value.split(|b| *b == 0).next().unwrap_or_default();
            return Some(String::from_utf8_lossy(text).into_owned());
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use netlink_packet_route::AddressFamily;
    use netlink_packet_route::link::LinkMessage;
    use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};

    use super::*;

    /// What a machine allows whose `net.core.rmem_max` is small.
    fn cramped() -> Netlink {
        let netlink = Netlink::open().expect("open a socket");
        set_socket_recv_buffer_size(&netlink.socket, 32 * 1024).expect("make the buffer small");
        netlink
    }

    #[test]
    fn many_answers_fit_into_a_small_buffer() {
        let lookup = |number: u32| {
            let mut message = RouteMessage::default();
            message.header.address_family = AddressFamily::Inet;
            message.header.destination_prefix_length = 32;
            let address = Ipv4Addr::from(0x7f00_0001 + number);
            message.attributes.push(RouteAttribute::Destination(RouteAddress::Inet(address)));
            RouteNetlinkMessage::GetRoute(message)
        };
        let answers = cramped().get_all((0..600).map(lookup).collect()).expect("answers");
        assert_eq!(answers.len(), 600);
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    }

    #[test]
    fn many_refusals_fit_into_a_small_buffer() {
        // There is no such device.
        let mut message = LinkMessage::default();
        message.header.index = u32::from(u16::MAX) << 8;
        let requests = (0..600).map(|_| (RouteNetlinkMessage::DelLink(message.clone()), 0));
        let results = cramped().change(requests).expect("answers");
        assert_eq!(results.len(), 600);
        assert!(results.iter().all(Result::is_err), "{results:?}");
    }
}
