//! The services of all benches: each has a frontend of its own, and one of a thousand pairs of backends.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

/// Different sets of backends: as many Maglev tables.
const BACKEND_SETS: usize = 1000;

/// The addresses of a service.
pub struct Addresses {
    pub frontend: Ipv4Addr,
    pub backends: [Ipv4Addr; 2],
}

impl Addresses {
    pub fn of(index: usize) -> Self {
        let (high, low, set) = (index / 250, (index % 250) as u8, index % BACKEND_SETS);
        let (net, host) = ((set / 250) as u8, (set % 250) as u8);
        Self {
            frontend: Ipv4Addr::new(10, 96 + (high / 250) as u8, (high % 250) as u8, low),
            backends: [Ipv4Addr::new(10, 0, net, host), Ipv4Addr::new(10, 1, net, host)],
        }
    }
}

/// `[[service]]` tables of that many services of two backends, with their frontends in the key `at`.
pub fn tables(count: usize, at: &str) -> String {
    let mut text = String::new();
    for index in 0..count {
        let Addresses { frontend, backends: [one, other] } = Addresses::of(index);
        let _ = write!(
            text,
            "[[service]]\nname = \"s{index}\"\n{at} = [\"{frontend}:80\"]\nbackends = [\"{one}:80\", \"{other}:80\"]\n",
        );
    }
    text
}
