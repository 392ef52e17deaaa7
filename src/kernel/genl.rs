//! Generic netlink: finding a family by its name, and asking it.
//!
//! Imports the parent module only. netlink-packet-generic has the messages, of the same makers as those of
//! route sockets; the socket is [`Netlink`]'s.

use netlink_packet_core::{Emitable, ParseableParametrized};
use netlink_packet_generic::ctrl::nlas::GenlCtrlAttrs;
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};
use netlink_sys::protocols::NETLINK_GENERIC;

use super::netlink::{Netlink, NetlinkError, Outgoing};

/// `sizeof(struct nlmsghdr)`, and of `struct genlmsghdr`.
const NETLINK_HEADER_BYTES: usize = 16;
const GENERIC_HEADER_BYTES: usize = 4;

/// A family that the kernel has, and a socket to ask it by.
pub struct Family {
    socket: Netlink,
    id: u16,
}

impl Family {
    /// The family of a type of messages, in the calling thread's namespace; `None` where the kernel has none,
    /// nor a module with it, which this loads.
    ///
    /// # Errors
    /// No socket, or the kernel doesn't answer.
    pub fn find<F: GenlFamily>() -> Result<Option<Self>, NetlinkError> {
        let mut socket = Netlink::open_protocol(NETLINK_GENERIC)?;
        let question = GenlCtrl {
            cmd: GenlCtrlCmd::GetFamily,
            nlas: vec![GenlCtrlAttrs::FamilyName(F::family_name().into())],
        };
        let question = Asked(GenlMessage::from_payload(question));
        let answers = socket.ask(&question, |whole, _| decode::<GenlCtrl>(whole).map(Some));
        let answers = match answers {
            Err(error) if error.errno() == Some(libc::ENOENT) => return Ok(None),
            other => other?,
        };
        let id = answers.iter().flat_map(|answer| &answer.nlas).find_map(|nla| match nla {
            GenlCtrlAttrs::FamilyId(id) => Some(*id),
            _ => None,
        });
        let id = id.ok_or_else(|| NetlinkError::Decode("a family without a number".into()))?;
        Ok(Some(Self { socket, id }))
    }

    /// The messages that answer a dump.
    ///
    /// # Errors
    /// The kernel refuses it, or it can't be had in one piece.
    pub fn dump<F>(&mut self, request: F) -> Result<Vec<F>, NetlinkError>
    where
        F: GenlFamily + Emitable + ParseableParametrized<[u8], GenlHeader> + std::fmt::Debug,
    {
        let asked = self.asked(request);
        self.socket.dump_with(&asked, |whole, _| decode::<F>(whole).map(Some))
    }

    /// Sends changes, and returns what became of each, in order.
    ///
    /// # Errors
    /// The socket fails.
    pub fn change<F>(
        &mut self,
        requests: Vec<F>,
    ) -> Result<Vec<Result<(), NetlinkError>>, NetlinkError>
    where
        F: GenlFamily + Emitable + std::fmt::Debug,
    {
        let asked: Vec<_> = requests.into_iter().map(|request| self.asked(request)).collect();
        self.socket.change(asked)
    }

    fn asked<F: GenlFamily + std::fmt::Debug>(&self, request: F) -> Asked<F> {
        let mut message = GenlMessage::from_payload(request);
        message.set_resolved_family_id(self.id);
        Asked(message)
    }
}

/// A message to be sent.
struct Asked<F>(GenlMessage<F>);

impl<F: GenlFamily + Emitable + std::fmt::Debug> Outgoing for Asked<F> {
    fn header(&self) -> (u16, u16) {
        (self.0.family_id(), 0)
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        let start = bytes.len();
        bytes.resize(start + Emitable::buffer_len(&self.0), 0);
        self.0.emit(&mut bytes[start..]);
    }
}

/// What is in a whole message.
fn decode<F>(whole: &[u8]) -> Result<F, NetlinkError>
where
    F: ParseableParametrized<[u8], GenlHeader>,
{
    let failed = |error: netlink_packet_core::DecodeError| NetlinkError::Decode(error.to_string());
    let short = || NetlinkError::Decode("a message without its header".into());
    let body = whole.get(NETLINK_HEADER_BYTES..).ok_or_else(short)?;
    let header = GenlHeader::parse(body).map_err(failed)?;
    let attributes = body.get(GENERIC_HEADER_BYTES..).ok_or_else(short)?;
    F::parse_with_param(attributes, header).map_err(failed)
}
