//! ICMP echo messages (RFC 792, RFC 4443): requests as bytes, and what an answer says. Pure.

/// Types of requests and answers, IPv4 and IPv6.
const REQUEST: [u8; 2] = [8, 128];
const REPLY: [u8; 2] = [0, 129];
const HEADER_BYTES: usize = 8;

/// What tells an answer to us from answers to others, and which request it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// The same for all requests of a process.
    pub cookie: u64,
    /// One for each probe.
    pub probe: u64,
    /// Which of the probe's requests.
    pub attempt: u8,
}

const TOKEN_BYTES: usize = 8 + 8 + 1;

/// A request.
pub fn request(v6: bool, token: Token) -> Vec<u8> {
    let mut bytes = vec![REQUEST[usize::from(v6)], 0, 0, 0];
    bytes.extend((token.cookie as u16).to_be_bytes());
    bytes.extend((token.probe as u16).to_be_bytes());
    bytes.extend(token.cookie.to_be_bytes());
    bytes.extend(token.probe.to_be_bytes());
    bytes.push(token.attempt);
    // With IPv6 the kernel fills it in: it covers the addresses.
    if !v6 {
        let sum = checksum(&bytes).to_be_bytes();
        bytes[2..4].copy_from_slice(&sum);
    }
    bytes
}

/// The token of an answer, as a raw socket receives it: with its IPv4 header, without that of IPv6.
pub fn reply(v6: bool, packet: &[u8]) -> Option<Token> {
    let header_bytes = if v6 { 0 } else { usize::from(packet.first()? & 0xf) * 4 };
    let message = packet.get(header_bytes..)?;
    let payload = message.get(HEADER_BYTES..HEADER_BYTES + TOKEN_BYTES)?;
    let number = |at: usize| payload[at..at + 8].try_into().ok().map(u64::from_be_bytes);
    let token = Token { cookie: number(0)?, probe: number(8)?, attempt: payload[16] };
    (message[0] == REPLY[usize::from(v6)]).then_some(token)
}

/// The ones' complement sum of RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words =
        bytes.chunks(2).map(|two| u32::from(two[0]) << 8 | two.get(1).map_or(0, |b| u32::from(*b)));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: Token = Token { cookie: 0x0123_4567_89ab_cdef, probe: 77, attempt: 2 };

    fn answer(v6: bool) -> Vec<u8> {
        let mut bytes = request(v6, TOKEN);
        bytes[0] = REPLY[usize::from(v6)];
        if v6 { bytes } else { [vec![0x46; 24], bytes].concat() }
    }

    #[test]
    fn answers_are_told_from_other_messages() {
        for v6 in [false, true] {
            assert_eq!(reply(v6, &answer(v6)), Some(TOKEN));
            for length in 0..answer(v6).len() {
                assert_eq!(reply(v6, &answer(v6)[..length]), None, "{length} bytes");
            }
            let mut other = answer(v6);
            let at = other.len() - TOKEN_BYTES - HEADER_BYTES;
            other[at] = REQUEST[usize::from(v6)];
            assert_eq!(reply(v6, &other), None, "a request of our own, looped back");
        }
    }

    /// The sum over a message with its checksum in it is zero (RFC 1071), of odd length too.
    #[test]
    fn checksums_come_to_zero() {
        let bytes = request(false, TOKEN);
        assert_eq!((bytes.len() % 2, checksum(&bytes)), (1, 0));
        assert_ne!(bytes[2..4], [0, 0]);
        assert_eq!(request(true, TOKEN)[2..4], [0, 0]);
    }
}
