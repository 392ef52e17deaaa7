//! Kernel → [`Observed`] and [`Facts`](crate::facts::Facts). Read-only: nothing here changes the
//! kernel.
//!
//! Imports `facts`, `intent`, `kinds`, `kernel`. Used by `engine`, and by the kinds' `exec.rs` to read
//! again what an op expects.
//!
//! There are two readings in a [`Round`]. [`facts`](facts::read) comes first and is about the machine:
//! devices, addresses, how peers are reached, what earlier rounds recorded. `lower` needs it to say
//! what is desired. [`observe`] comes second and reads the objects that are ours or in our way.

pub mod facts;
mod occupied;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};

use crate::for_each_kind;
use crate::kernel::bpf_map::Map;
use crate::kernel::netlink::{Netlink, NetlinkError};
use crate::kernel::netns::NetnsError;
use crate::kernel::{Kernel, KernelError, wireguard};
use crate::kinds::bpf_map::{self, MapName};
use crate::kinds::bpf_program::exec::{self as programs, Loaded};
use crate::kinds::lb_backend::LbBackend;
use crate::kinds::lb_service::LbService;
use crate::kinds::link::{self, KIND_WIREGUARD, LinkInfo};
use crate::kinds::{Desired, Kind, Observed, SeenMap};
use crate::net::{IfName, Netns};

/// The reading half of a kind.
pub trait Observe: Kind {
    /// The objects that are ours, and foreign ones under a desired key.
    ///
    /// # Errors
    /// The list can't be had whole. An empty list is never an error in disguise.
    fn list(round: &mut Round<'_>, desired: &Desired) -> Result<SeenMap<Self>, KernelError>;
}

/// What is read once in a round and used by several kinds.
pub struct Round<'k> {
    pub kernel: &'k mut Kernel,
    links: BTreeMap<Netns, Rc<Vec<LinkInfo>>>,
    maps: BTreeMap<MapName, Option<Rc<Map>>>,
    programs: Option<Rc<Vec<Loaded>>>,
    /// Services and backends, between the first who read them and the one who lists them.
    pub(crate) lb_services: Option<SeenMap<LbService>>,
    pub(crate) lb_backends: Option<SeenMap<LbBackend>>,
    wireguard: Option<Rc<WireguardDevices>>,
    /// [`Kernel::netnsid`].
    ids: BTreeMap<Netns, Option<i32>>,
}

/// What devices of WireGuard have, by name.
pub type WireguardDevices = BTreeMap<IfName, wireguard::Device>;

impl<'k> Round<'k> {
    /// Begins a round of readings.
    pub fn new(kernel: &'k mut Kernel) -> Self {
        Self {
            kernel,
            links: BTreeMap::new(),
            maps: BTreeMap::new(),
            programs: None,
            lb_services: None,
            lb_backends: None,
            wireguard: None,
            ids: BTreeMap::new(),
        }
    }

    /// Whether a map is there and will be made anew, without what it holds.
    ///
    /// # Errors
    /// What is pinned there can't be read.
    pub fn is_made_anew(&mut self, map: MapName, desired: &Desired) -> Result<bool, KernelError> {
        let Some(wanted) = desired.bpf_maps.get(&map) else { return Ok(false) };
        let there = self.map(map)?;
        Ok(there.is_some_and(|there| wanted.spec != there.shape().into()))
    }

    /// A pinned map; `None` where none is, whatever else may be there.
    ///
    /// # Errors
    /// It is pinned there and can't be read.
    pub fn map(&mut self, name: MapName) -> Result<Option<Rc<Map>>, KernelError> {
        if let Some(map) = self.maps.get(&name) {
            return Ok(map.clone());
        }
        let map = bpf_map::exec::open(self.kernel, name)?.map(Rc::new);
        self.maps.insert(name, map.clone());
        Ok(map)
    }

    /// Our pinned programs.
    ///
    /// # Errors
    /// The folder or a pin can't be read.
    pub fn programs(&mut self) -> Result<Rc<Vec<Loaded>>, KernelError> {
        if let Some(programs) = &self.programs {
            return Ok(programs.clone());
        }
        let programs = Rc::new(programs::pinned(self.kernel)?);
        self.programs = Some(programs.clone());
        Ok(programs)
    }

    /// The links of a namespace; none in one that is gone.
    ///
    /// # Errors
    /// The dump fails.
    pub fn links(&mut self, netns: &Netns) -> Result<Rc<Vec<LinkInfo>>, KernelError> {
        if let Some(links) = self.links.get(netns) {
            return Ok(links.clone());
        }
        let mut request = LinkMessage::default();
        // Counters, summed up over all processors, are half of the dump.
        request.attributes = vec![LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])];
        let request = RouteNetlinkMessage::GetLink(request);
        let messages = self.dump(netns, "list links", &request)?;
        let links: Vec<LinkInfo> = messages
            .iter()
            .filter_map(|message| match message {
                RouteNetlinkMessage::NewLink(message) => link::decode(message),
                _ => None,
            })
            .collect();
        let links = Rc::new(links);
        self.links.insert(netns.clone(), links.clone());
        Ok(links)
    }

    /// Which devices of another namespace are this node's: the other ends of its links, and those whose other end
    /// went elsewhere. What another ciliate has there bears the same marks. `None`: the host's, where all may be.
    ///
    /// # Errors
    /// The dump fails.
    pub fn ends(
        &mut self,
        netns: &Netns,
        desired: &Desired,
    ) -> Result<Option<BTreeSet<IfName>>, KernelError> {
        if *netns == Netns::HOST {
            return Ok(None);
        }
        let mut ends = self.paired(netns, |name| desired.links.contains_key(name))?;
        // To look for halves is to look at the links of all endpoints: not where there can be none.
        if ends.is_empty() && self.links(netns)?.iter().any(link::exec::may_be_half) {
            let halves = link::exec::halves(self, desired)?.into_values();
            ends.extend(halves.filter(|half| half.netns == *netns).map(|half| half.ifname));
        }
        Ok(Some(ends))
    }

    /// The other ends of this node's links in another namespace: of those that bear its mark, or have a name that is
    /// wanted.
    ///
    /// # Errors
    /// The dump fails.
    pub fn paired(
        &mut self,
        netns: &Netns,
        wanted: impl Fn(&IfName) -> bool,
    ) -> Result<BTreeSet<IfName>, KernelError> {
        // The kernel gives a namespace its id when it first tells of a link that leads there.
        let (host, there) = (self.links(&Netns::HOST)?, self.links(netns)?);
        let id = match self.ids.get(netns) {
            Some(id) => *id,
            None => *self.ids.entry(netns.clone()).or_insert(self.kernel.netnsid(netns)?),
        };
        // Ifindexes alone are those of other namespaces as well.
        let near = |link: &&LinkInfo| {
            id.is_some() && link.link_netnsid == id && (link.owned() || wanted(&link.ifname))
        };
        let near: Vec<&LinkInfo> = host.iter().filter(near).collect();
        let ours = |device: &&LinkInfo| {
            near.iter().any(|link| link::pair(link, std::slice::from_ref(*device)).is_some())
        };
        Ok(there.iter().filter(ours).map(|device| device.ifname).collect())
    }

    /// Our devices of WireGuard.
    ///
    /// # Errors
    /// One can't be read.
    pub fn wireguard(&mut self) -> Result<Rc<WireguardDevices>, KernelError> {
        if let Some(devices) = &self.wireguard {
            return Ok(devices.clone());
        }
        let links = self.links(&Netns::HOST)?;
        let ours = links.iter().filter(|link| link.kind == KIND_WIREGUARD && link.owned());
        let mut devices = BTreeMap::new();
        for link in ours {
            let device = wireguard::device(self.kernel, link.ifindex)?;
            devices.extend(device.map(|device| (link.ifname, device)));
        }
        let devices = Rc::new(devices);
        self.wireguard = Some(devices.clone());
        Ok(devices)
    }

    /// Interface index → name in a namespace.
    ///
    /// # Errors
    /// The dump fails.
    pub fn names(&mut self, netns: &Netns) -> Result<BTreeMap<u32, IfName>, KernelError> {
        Ok(self.links(netns)?.iter().map(|link| (link.ifindex, link.ifname)).collect())
    }

    /// A dump in a namespace; empty in one that is gone.
    ///
    /// # Errors
    /// The kernel refuses the dump.
    pub fn dump(
        &mut self,
        netns: &Netns,
        operation: &'static str,
        request: &RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, KernelError> {
        self.within(netns, operation, |netlink| netlink.dump(request))
    }

    /// The same with a decoder of the messages' payloads.
    ///
    /// # Errors
    /// The kernel refuses the dump.
    pub fn dump_with<T>(
        &mut self,
        netns: &Netns,
        operation: &'static str,
        request: &RouteNetlinkMessage,
        decode: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, KernelError> {
        self.within(netns, operation, |netlink| {
            netlink.dump_with(request, |_, payload| Ok(decode(payload)))
        })
    }

    fn within<T>(
        &mut self,
        netns: &Netns,
        operation: &'static str,
        dump: impl FnOnce(&mut Netlink) -> Result<Vec<T>, NetlinkError>,
    ) -> Result<Vec<T>, KernelError> {
        match self.kernel.netlink(netns) {
            Ok(netlink) => {
                dump(netlink).map_err(|source| KernelError::Netlink { operation, source })
            }
            Err(KernelError::Netns {
                source: NetnsError::Missing | NetnsError::NotANamespace,
                ..
            }) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

/// The namespaces in which something is desired, the host's included.
pub fn namespaces(desired: &Desired) -> Vec<Netns> {
    let mut all = vec![Netns::HOST];
    let peers = desired.links.values().filter_map(|wanted| wanted.spec.peer());
    all.extend(peers.map(|peer| peer.netns.clone()));
    all.sort();
    all.dedup();
    all
}

macro_rules! observe_all {
    ($($kind:ident $field:ident $module:ident,)*) => {
        /// Reads every kind.
        ///
        /// # Errors
        /// Any list that can't be had whole: a round works on all of the truth or not at all.
        pub fn observe(
            round: &mut Round<'_>,
            desired: &Desired,
        ) -> Result<Observed, KernelError> {
            Ok(Observed {
                $($field: {
                    let list = <crate::kinds::$module::$kind as Observe>::list(round, desired)?;
                    round.kernel.beat();
                    list
                },)*
                taken: link::exec::taken(round, desired)?,
                occupied: occupied::read(round, desired)?,
            })
        }
    };
}
for_each_kind!(observe_all);
