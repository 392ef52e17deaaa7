//! Whom to ask, and which services that is for. Pure; imports `facts` and `intent`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::facts::Dead;
use crate::intent::{BackendState, HealthCheck, Intent};

/// Who is asked, and what. Services that ask the same share the answer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// With the port that is asked.
    pub address: SocketAddr,
    pub check: Arc<HealthCheck>,
}

/// A backend of a service, by its name.
pub type Backend = (Arc<str>, SocketAddr);

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Task {
    pub targets: BTreeMap<Target, Vec<Backend>>,
    /// Backends that are known to be dead before they are asked.
    pub dead: Dead,
}

impl Task {
    /// What a configuration asks for. Who isn't active by the configuration is not asked.
    pub fn of(intent: &Intent) -> Self {
        let mut targets: BTreeMap<Target, Vec<Backend>> = BTreeMap::new();
        for service in intent.services.values() {
            let Some(check) = &service.health_check else { continue };
            let active = service.backends.iter().filter(|b| b.state == BackendState::Active);
            for backend in active {
                let mut address = backend.address;
                address.set_port(check.port.unwrap_or(address.port()));
                let target = Target { address, check: check.clone() };
                let one = (service.name.clone(), backend.address);
                targets.entry(target).or_default().push(one);
            }
        }
        Self { targets, dead: Dead::new() }
    }

    /// How many backends are asked.
    pub fn backends(&self) -> usize {
        self.targets.values().map(Vec::len).sum()
    }
}
