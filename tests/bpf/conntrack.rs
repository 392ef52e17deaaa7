//! Conntrack, step by step: states, what is kept, and when it ends.

use std::net::IpAddr;

use ciliate::bpf_abi::*;

use crate::flows::{Flow, Life, State};
use crate::frames::*;
use crate::kept;
use crate::lab::{self, Globals, Lab};
use crate::listener::{Filter, Listener};
use crate::model::{Action, Count};
use crate::world::*;

const RX_CLOSING: u16 = 1;
const TX_CLOSING: u16 = 2;
const SEEN_NON_SYN: u16 = 16;
const FROM_TUNNEL: u16 = 1024;
const SCTP: u8 = 132;

/// One family's addresses: endpoints A and B, an address far away, one of a router on the way.
#[derive(Clone, Copy)]
struct Family {
    a: IpAddr,
    b: IpAddr,
    far: IpAddr,
    router: IpAddr,
    icmp: u8,
}

fn families() -> [Family; 2] {
    let router4 = IpAddr::from([198, 51, 100, 254]);
    let router6 = "2001:db8::fe".parse().expect("an address");
    [
        Family { a: A4.into(), b: B4.into(), far: WORLD4.into(), router: router4, icmp: ICMP4 },
        Family { a: A6.into(), b: B6.into(), far: WORLD6.into(), router: router6, icmp: ICMP6 },
    ]
}

fn packet(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            ipv4_of(protocol, source, destination, 64, payload)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            ipv6_with(source, destination, 64, protocol, payload)
        }
        _ => panic!("two families"),
    }
}

fn frame(packet: &[u8]) -> Vec<u8> {
    let ethertype = if packet[0] >> 4 == 4 { TYPE_IPV4 } else { TYPE_IPV6 };
    ethernet(LXC_MAC_A, MAC_A, ethertype, packet)
}

/// An ICMP error about a packet.
fn error(family: Family, from: IpAddr, to: IpAddr, quote: &[u8]) -> Vec<u8> {
    let body = [&[0; 4][..], quote].concat();
    let message = match (from, to) {
        (IpAddr::V6(from), IpAddr::V6(to)) => icmp6(from, to, 1, 4, &body),
        _ => icmp4(3, 3, &body),
    };
    packet(from, to, family.icmp, &message)
}

fn echo(family: Family, reply: bool, id: u16) -> Vec<u8> {
    let body = [id.to_be_bytes(), [0, 1]].concat();
    match family.a {
        IpAddr::V4(_) => icmp4(if reply { 0 } else { 8 }, 0, &body),
        IpAddr::V6(_) => [&[128 + u8::from(reply), 0, 0, 0][..], &body].concat(),
    }
}

/// Sends packets and tells what conntrack said of them.
struct Watch<'a> {
    lab: &'a mut Lab,
    listener: Listener,
}

impl<'a> Watch<'a> {
    fn new(lab: &'a mut Lab) -> Self {
        let filter = Filter { types: 1 << EVENT_TRACE, ..Filter::default() };
        let listener = Listener::new(lab, 0, filter);
        Self { lab, listener }
    }

    /// What was said at each endpoint that the packet passed.
    fn states(&mut self) -> Vec<u8> {
        let told = self.listener.told();
        told.iter().map(|told| told.state).filter(|state| *state != 5).collect()
    }

    /// From endpoint A, to somewhere else.
    fn leaves(&mut self, packet: &[u8]) -> u8 {
        assert_ne!(self.lab.container_sends(&frame(packet)).action, Action::Drop);
        let [state] = self.states()[..] else { panic!("one state") };
        state
    }

    /// To endpoint A, through the host.
    fn arrives(&mut self, packet: &[u8]) -> u8 {
        assert_eq!(self.lab.host_sends(0, &frame(packet)).action, Action::Redirect);
        let [state] = self.states()[..] else { panic!("one state") };
        state
    }

    fn entry(&mut self, flow: &Flow) -> CtValue {
        let flows = kept::flows(self.lab);
        *flows.get(flow).unwrap_or_else(|| panic!("{flow:?} is not among {flows:?}"))
    }

    /// How the entry of a flow is said to end, to the second.
    fn assert_ends(&mut self, flow: &Flow, life: Life) {
        let value = self.entry(flow);
        let last = value.lifetime - life.seconds();
        let now = kept::now();
        assert!((now.saturating_sub(60)..=now).contains(&last), "{value:?} is not {life:?}");
    }
}

fn flow(from: (IpAddr, u16), to: (IpAddr, u16), protocol: u8) -> Flow {
    Flow { from, to, protocol, inward: false, related: false }
}

const NEW: u8 = State::New as u8;
const ESTABLISHED: u8 = State::Established as u8;
const REPLY: u8 = State::Reply as u8;
const RELATED: u8 = State::Related as u8;

#[test]
fn tcp_from_beginning_to_end() {
    lab::run(|lab| {
        let mut watch = Watch::new(lab);
        for Family { a, far, .. } in families() {
            let ask = |flags| packet(a, far, TCP, &tcp(flags, b""));
            let answer = |flags| packet(far, a, TCP, &tcp_between(80, 40_000, flags, b""));
            let flow = flow((a, 40_000), (far, 80), TCP);

            assert_eq!(watch.leaves(&ask(TCP_SYN)), NEW);
            watch.assert_ends(&flow, Life::TcpSyn);
            assert_eq!(watch.leaves(&ask(TCP_SYN)), ESTABLISHED, "sent once more");
            assert_eq!(watch.arrives(&answer(TCP_SYN | TCP_ACK)), REPLY);
            watch.assert_ends(&flow, Life::TcpSyn);
            assert_eq!(watch.leaves(&ask(TCP_ACK)), ESTABLISHED);
            watch.assert_ends(&flow, Life::Tcp);
            let value = watch.entry(&flow);
            assert_eq!((value.tx_flags, value.rx_flags, value.bits), (0x12, 0x12, SEEN_NON_SYN));
            assert_eq!(value.source_identity, IDENTITY_A);

            assert_eq!(watch.leaves(&ask(TCP_FIN | TCP_ACK)), ESTABLISHED);
            watch.assert_ends(&flow, Life::Tcp);
            assert_eq!(watch.entry(&flow).bits, SEEN_NON_SYN | TX_CLOSING);
            assert_eq!(watch.arrives(&answer(TCP_FIN | TCP_ACK)), REPLY);
            watch.assert_ends(&flow, Life::TcpClosing);
            assert_eq!(watch.leaves(&ask(TCP_ACK)), ESTABLISHED, "the last acknowledgement");
            watch.assert_ends(&flow, Life::TcpClosing);

            assert_eq!(watch.leaves(&ask(TCP_SYN)), NEW, "the same ports once more");
            watch.assert_ends(&flow, Life::TcpSyn);
            let value = watch.entry(&flow);
            assert_eq!((value.tx_flags, value.rx_flags, value.bits), (TCP_SYN, 0, 0));
        }
    });
}

#[test]
fn a_refused_connection_is_over_at_once() {
    lab::run(|lab| {
        let mut watch = Watch::new(lab);
        for Family { a, far, .. } in families() {
            let flow = flow((a, 40_000), (far, 80), TCP);
            assert_eq!(watch.leaves(&packet(a, far, TCP, &tcp(TCP_SYN, b""))), NEW);
            let refusal = tcp_between(80, 40_000, TCP_RST | TCP_ACK, b"");
            assert_eq!(watch.arrives(&packet(far, a, TCP, &refusal)), REPLY);
            watch.assert_ends(&flow, Life::TcpClosing);
            assert_eq!(watch.entry(&flow).bits, SEEN_NON_SYN | RX_CLOSING | TX_CLOSING);
        }
    });
}

#[test]
fn a_flow_begun_anew_by_the_other_side_is_theirs() {
    lab::run(|lab| {
        let mut watch = Watch::new(lab);
        for Family { a, far, .. } in families() {
            let ours = flow((a, 40_000), (far, 80), TCP);
            let theirs = Flow { inward: true, ..flow((far, 80), (a, 40_000), TCP) };
            let answer = |flags| packet(far, a, TCP, &tcp_between(80, 40_000, flags, b""));
            assert_eq!(watch.leaves(&packet(a, far, TCP, &tcp(TCP_SYN, b""))), NEW);
            assert_eq!(watch.arrives(&answer(TCP_RST)), REPLY);
            assert_eq!(watch.arrives(&answer(TCP_SYN)), NEW);
            assert!(!kept::flows(watch.lab).contains_key(&ours), "the old one is gone");
            watch.assert_ends(&theirs, Life::TcpSyn);
            assert_eq!(watch.leaves(&packet(a, far, TCP, &tcp(TCP_SYN | TCP_ACK, b""))), REPLY);
            assert_eq!(watch.arrives(&answer(TCP_ACK)), ESTABLISHED);
        }
    });
}

#[test]
fn a_flow_older_than_its_entry_has_to_show_that_it_lives() {
    lab::run(|lab| {
        let mut watch = Watch::new(lab);
        for Family { a, far, .. } in families() {
            let flow = flow((a, 40_000), (far, 80), TCP);
            let ask = packet(a, far, TCP, &tcp(TCP_ACK, b""));
            assert_eq!(watch.leaves(&ask), NEW);
            watch.assert_ends(&flow, Life::TcpSyn);
            assert_eq!(watch.leaves(&ask), ESTABLISHED);
            watch.assert_ends(&flow, Life::Tcp);
        }
    });
}

#[test]
fn udp_and_sctp_by_their_ports() {
    lab::run(|lab| {
        let mut watch = Watch::new(lab);
        for Family { a, far, .. } in families() {
            for protocol in [UDP, SCTP] {
                // Neither side's port tells who began it.
                for (ours, theirs) in [(40_000, 53), (53, 40_000), (53, 53)] {
                    let flow = flow((a, ours), (far, theirs), protocol);
                    let ask = packet(a, far, protocol, &udp_between(ours, theirs, b"q"));
                    let answer = packet(far, a, protocol, &udp_between(theirs, ours, b"a"));
                    assert_eq!(watch.leaves(&ask), NEW, "{flow:?}");
                    assert_eq!(watch.leaves(&ask), ESTABLISHED, "{flow:?}");
                    assert_eq!(watch.arrives(&answer), REPLY, "{flow:?}");
                    watch.assert_ends(&flow, Life::Other);
                    let value = watch.entry(&flow);
                    assert_eq!((value.bits, value.tx_flags, value.rx_flags), (0, 0, 0));
                    let other = packet(a, far, protocol, &udp_between(ours, theirs + 1, b"q"));
                    assert_eq!(watch.leaves(&other), NEW, "another port is another flow");
                }
            }
        }
    });
}

#[test]
fn echoes_by_their_identifier() {
    lab::run(|lab| {
        let mut watch = Watch::new(lab);
        for family in families() {
            let Family { a, far, icmp, .. } = family;
            let flow = flow((a, 7), (far, 0), icmp);
            assert_eq!(watch.leaves(&packet(a, far, icmp, &echo(family, false, 7))), NEW);
            assert_eq!(watch.leaves(&packet(a, far, icmp, &echo(family, false, 7))), ESTABLISHED);
            assert_eq!(watch.arrives(&packet(far, a, icmp, &echo(family, true, 7))), REPLY);
            assert_eq!(watch.arrives(&packet(far, a, icmp, &echo(family, true, 8))), NEW);
            assert_eq!(watch.arrives(&packet(far, a, icmp, &echo(family, false, 7))), NEW);
            watch.assert_ends(&flow, Life::Other);
            assert!(!kept::flows(watch.lab).keys().any(|flow| flow.related), "no companions");
        }
    });
}

#[test]
fn two_endpoints_of_a_node_have_an_entry_each() {
    lab::run(|lab| {
        let mut watch = Watch::new(lab);
        for Family { a, b, .. } in families() {
            let ask = frame(&packet(a, b, TCP, &tcp(TCP_SYN, b"")));
            watch.lab.container_sends(&ask);
            assert_eq!(watch.states(), [NEW], "the receiver's; the sender has no point of its own");
            let out = flow((a, 40_000), (b, 80), TCP);
            for (flow, tx, rx) in [(out, TCP_SYN, 0), (Flow { inward: true, ..out }, 0, TCP_SYN)] {
                let value = watch.entry(&flow);
                let seen = (value.tx_flags, value.rx_flags, value.source_identity);
                assert_eq!(seen, (tx, rx, IDENTITY_A));
            }
            let answer =
                frame(&packet(b, a, TCP, &tcp_between(80, 40_000, TCP_SYN | TCP_ACK, b"")));
            watch.lab.send("cil_from_container", watch.lab.sandbox.lxc_b, 0, &answer);
            assert_eq!(watch.states(), [REPLY]);
            watch.lab.container_sends(&frame(&packet(a, b, TCP, &tcp(TCP_ACK, b""))));
            assert_eq!(watch.states(), [ESTABLISHED]);
        }
    });
}

#[test]
fn what_came_by_the_tunnel_says_so() {
    lab::run(|lab| {
        lab.add_tunnel();
        let mut watch = Watch::new(lab);
        for (from, to) in [(IpAddr::from(REMOTE4), IpAddr::from(B4)), (REMOTE6.into(), B6.into())] {
            let ask = frame(&packet(from, to, TCP, &tcp(TCP_SYN, b"")));
            watch.lab.tunnel_sends(40_000, false, &ask);
            assert_eq!(watch.states(), [NEW]);
            let flow = Flow { inward: true, ..flow((from, 40_000), (to, 80), TCP) };
            let value = watch.entry(&flow);
            assert_eq!((value.bits, value.source_identity), (FROM_TUNNEL, 40_000));
        }
    });
}

#[test]
fn errors_are_related_by_what_they_quote() {
    lab::run(|lab| {
        let mut watch = Watch::new(lab);
        for family in families() {
            let Family { a, b, far, router, icmp } = family;
            let sent = packet(a, far, UDP, &udp_between(40_000, 53, b"q"));
            let asked = packet(a, far, icmp, &echo(family, false, 7));
            let kept = kept::flows(watch.lab).len();
            let early = error(family, router, a, &sent);
            assert_eq!(watch.arrives(&early), NEW, "about what nobody sent");
            assert_eq!(kept::flows(watch.lab).len(), kept, "and nothing is kept of it");
            watch.leaves(&sent);
            watch.leaves(&asked);
            for quote in [&sent, &asked] {
                let head = &quote[..quote.len().min(48)];
                assert_eq!(watch.arrives(&error(family, router, a, head)), RELATED);
                assert_eq!(watch.arrives(&error(family, far, a, head)), RELATED);
            }
            // Answers of ours, in a flow that the other side began.
            let theirs = packet(far, a, UDP, &udp_between(1024, 69, b"q"));
            let ours = packet(a, far, UDP, &udp_between(69, 1024, b"a"));
            watch.arrives(&theirs);
            assert_eq!(watch.arrives(&error(family, router, a, &ours)), RELATED);
            // Our own refusal of what they sent.
            assert_eq!(watch.leaves(&error(family, a, far, &theirs)), RELATED);

            let elsewhere = packet(a, far, UDP, &udp_between(40_001, 53, b"q"));
            assert_eq!(watch.arrives(&error(family, router, a, &elsewhere)), NEW, "another port");
            let of_b = packet(b, far, UDP, &udp_between(40_000, 53, b"q"));
            watch.lab.send("cil_from_container", watch.lab.sandbox.lxc_b, 0, &frame(&of_b));
            assert_eq!(watch.states(), [NEW]);
            assert_eq!(watch.arrives(&error(family, router, a, &of_b)), NEW, "not of who gets it");
        }
    });
}

#[test]
fn errors_with_a_short_quote_are_related_by_addresses() {
    lab::run(|lab| {
        let mut watch = Watch::new(lab);
        for family in families() {
            let Family { a, far, router, icmp, .. } = family;
            let sent = packet(a, far, TCP, &tcp(TCP_SYN, b""));
            watch.leaves(&sent);
            let companion = Flow { related: true, ..flow((a, 0), (far, 0), icmp) };
            assert_eq!(watch.entry(&companion).bits, SEEN_NON_SYN);
            watch.assert_ends(&companion, Life::Other);
            for len in [0, 19, 22] {
                assert_eq!(watch.arrives(&error(family, far, a, &sent[..len])), RELATED);
                assert_eq!(watch.leaves(&error(family, a, far, &sent[..len])), RELATED);
                assert_eq!(watch.arrives(&error(family, router, a, &sent[..len])), NEW);
            }
            // Another flow between the two shares it.
            watch.leaves(&packet(a, far, UDP, &udp_between(40_000, 53, b"q")));
            let companions = kept::flows(watch.lab);
            let companions = companions.keys().filter(|flow| flow.related && flow.protocol == icmp);
            assert_eq!(companions.count(), 1);
        }
    });
}

#[test]
fn what_conntrack_cannot_follow_is_dropped() {
    lab::run(|lab| {
        for Family { a, b, far, icmp, .. } in families() {
            let other_icmp = if icmp == ICMP4 { ICMP6 } else { ICMP4 };
            let cases = [
                (47, &[0; 8][..], DROP_CT_UNKNOWN_PROTOCOL),
                (50, &[0; 8], DROP_CT_UNKNOWN_PROTOCOL),
                (2, &[0; 8], DROP_CT_UNKNOWN_PROTOCOL),
                (other_icmp, &[8, 0, 0, 0, 0, 0, 0, 0], DROP_CT_UNKNOWN_PROTOCOL),
                (UDP, &[0; 3], DROP_CT_INVALID_HEADER),
                (SCTP, &[0; 3], DROP_CT_INVALID_HEADER),
                (TCP, &[0; 3], DROP_CT_INVALID_HEADER),
                (TCP, &[0; 13], DROP_CT_INVALID_HEADER),
                (icmp, &[], DROP_CT_INVALID_HEADER),
                (icmp, &[if icmp == ICMP4 { 8 } else { 128 }, 0, 0, 0, 0], DROP_CT_INVALID_HEADER),
            ];
            for (protocol, payload, reason) in cases {
                let count = |reason, direction, bytes: usize| Count {
                    reason,
                    direction,
                    packets: 1,
                    bytes: bytes as u64,
                };
                for destination in [b, far] {
                    let sent = frame(&packet(a, destination, protocol, payload));
                    assert_eq!(lab.container_sends(&sent).action, Action::Drop, "{protocol}");
                    let dropped = count(reason, DIRECTION_EGRESS, sent.len());
                    assert_eq!(lab.counted(), [dropped], "{protocol} from {a}");
                }
                let sent = frame(&packet(far, a, protocol, payload));
                assert_eq!(lab.host_sends(0, &sent).action, Action::Drop, "{protocol}");
                let entered = count(REASON_INTERFACE, DIRECTION_INGRESS, sent.len());
                let dropped = count(reason, DIRECTION_INGRESS, sent.len());
                assert_eq!(lab.counted(), [entered, dropped], "{protocol} to {a}");
            }
        }
        assert_eq!(kept::flows(lab).len(), 0);
    });
}

#[test]
fn lifetimes_are_what_the_loader_says() {
    let seconds = &[
        ("ct_lifetime_tcp", 7_000),
        ("ct_lifetime_tcp_syn", 700),
        ("ct_lifetime_tcp_closing", 70),
        ("ct_lifetime_other", 7),
    ];
    lab::run_with(Globals { seconds, ..Globals::default() }, |lab| {
        let mut watch = Watch::new(lab);
        let Family { a, far, .. } = families()[0];
        let ask = |flags| packet(a, far, TCP, &tcp(flags, b""));
        let tcp_flow = flow((a, 40_000), (far, 80), TCP);
        let udp_flow = flow((a, 40_000), (far, 53), UDP);
        let left = |watch: &mut Watch<'_>, flow| watch.entry(flow).lifetime - kept::now();
        let begin = kept::now();
        watch.leaves(&ask(TCP_SYN));
        let syn = left(&mut watch, &tcp_flow);
        watch.leaves(&ask(TCP_ACK));
        let established = left(&mut watch, &tcp_flow);
        watch.leaves(&ask(TCP_RST));
        let closing = left(&mut watch, &tcp_flow);
        watch.leaves(&packet(a, far, UDP, &udp_between(40_000, 53, b"q")));
        let other = watch.entry(&udp_flow).lifetime;
        // As far as a busy machine lets the seconds pass.
        let passed = kept::now() - begin + 1;
        for (found, said) in [(syn, 700), (established, 7_000), (closing, 70)] {
            assert!((said - passed..=said).contains(&found), "{found} of {said}");
        }
        assert!((begin + 6..=kept::now() + 7).contains(&other), "{other}");
    });
}

#[test]
fn packets_are_counted_when_asked() {
    lab::run_with(Globals { accounting: true, ..Globals::default() }, |lab| {
        let mut watch = Watch::new(lab);
        for Family { a, far, .. } in families() {
            let ask = packet(a, far, UDP, &udp_between(40_000, 53, b"question"));
            let answer = packet(far, a, UDP, &udp_between(53, 40_000, b"answer"));
            watch.leaves(&ask);
            watch.leaves(&ask);
            watch.arrives(&answer);
            let value = watch.entry(&flow((a, 40_000), (far, 53), UDP));
            let bytes = 2 * frame(&ask).len() + frame(&answer).len();
            assert_eq!((value.packets, value.bytes), (3, bytes as u64));
        }
    });
}
