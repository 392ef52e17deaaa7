//! `ciliate monitor`: what the programs do with packets, as it happens.

use std::collections::BTreeMap;
use std::io::{self, stdout};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

use super::{EXIT_OK, Failure, Format, Output, get, load, open};
use crate::bpf_abi::{EVENT_CAPTURE, EVENT_DEBUG, EVENT_DROP, EVENT_TRACE};
use crate::config::Search;
use crate::engine::{self, Loaded};
use crate::kernel::ifname::Devices;
use crate::listen::{self, Listener, Lost, Ready};
use crate::lower::LXC_HEALTH;
use crate::monitor::{self, Selection, decode, json, text};

/// Show what happens to packets: where they come by, and which are dropped and why
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Lines are those of `cilium monitor`. Eight can listen at once, with or without the daemon.\n\
Endpoints are numbers (0: the node itself) or names. Options that take them can be repeated."
)]
pub struct Arguments {
    /// Only events of this type [default: drop and trace]
    #[arg(long = "type", short = 't', value_name = "TYPE", value_enum)]
    types: Vec<Type>,
    /// Only what this endpoint's own programs see: what it sends, and what is delivered to it
    #[arg(long, value_name = "ENDPOINT")]
    from: Vec<String>,
    /// Only packets that are on their way into this endpoint
    #[arg(long, value_name = "ENDPOINT")]
    to: Vec<String>,
    /// Only what --from or --to this endpoint would show
    #[arg(long, value_name = "ENDPOINT")]
    related_to: Vec<String>,
    /// Debug messages and captures too; twice: everything about a packet, over several lines
    #[arg(long, short, action = clap::ArgAction::Count)]
    verbose: u8,
    /// With -vv, the packet's bytes instead of its headers
    #[arg(long)]
    hex: bool,
    /// Identities as numbers, also those that have names
    #[arg(long, short)]
    numeric: bool,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
    /// The same as -o json
    #[arg(short, long, conflicts_with = "output")]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Type {
    /// Packets that were dropped
    Drop,
    /// Steps of the programs
    Debug,
    /// Packets at steps of the programs
    Capture,
    /// Packets that come by an observation point
    Trace,
}

impl Type {
    fn number(self) -> u8 {
        match self {
            Self::Drop => EVENT_DROP,
            Self::Debug => EVENT_DEBUG,
            Self::Capture => EVENT_CAPTURE,
            Self::Trace => EVENT_TRACE,
        }
    }
}

/// How often lost events are counted and the maps are looked for.
const TICK: Duration = Duration::from_secs(1);
/// Events that are taken at most after the reader was told to end: more than fit into its ring.
const REMAINDER: usize = 1 << 20;
/// Events that are taken before signals and the clock are looked at again.
const BATCH: usize = 1024;

pub fn run(arguments: &Arguments, search: &Search, output: &mut Output) -> Result<u8, Failure> {
    let loaded = load(search)?;
    let selection = selection(arguments, &loaded)?;
    let cpus = listen::online_cpus()?;
    let stop = stop_on_signals()?;
    let paths = &loaded.intent.paths;
    let ring_bytes = monitor::ring_bytes(cpus);
    let filter = selection.filter();
    let mut listener = Listener::start(&paths.bpf, &paths.runtime, filter, ring_bytes)?;
    let mut printer = Printer::new(arguments, selection)?;
    if !printer.json {
        for line in text::banner(cpus) {
            output.line(&line)?;
        }
        output.flush()?;
    }
    let result = follow(&mut listener, &mut printer, &stop, output);
    listener.stop()?;
    result?;
    Ok(EXIT_OK)
}

/// Becomes readable when the process is told to end. Told so again, it ends at once: it may be waiting
/// for somebody who reads its output.
fn stop_on_signals() -> io::Result<UnixStream> {
    let (stop, sender) = UnixStream::pair()?;
    let told = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        flag::register_conditional_default(signal, told.clone())?;
        flag::register(signal, told.clone())?;
        low_level::pipe::register(signal, sender.try_clone()?)?;
    }
    Ok(stop)
}

fn selection(arguments: &Arguments, loaded: &Loaded) -> Result<Selection, Failure> {
    let types = match arguments.types.as_slice() {
        [] => Selection::usual_types(arguments.verbose > 0),
        types => types.iter().map(|event_type| event_type.number()).collect(),
    };
    let mut names = Names { loaded, known: None };
    let mut ids = |endpoints: &[String]| -> Result<Vec<u16>, Failure> {
        endpoints.iter().map(|endpoint| names.id(endpoint)).collect()
    };
    let (from, to, related) =
        (ids(&arguments.from)?, ids(&arguments.to)?, ids(&arguments.related_to)?);
    Ok(Selection { types, from, to, related })
}

/// Ids of endpoints by name. The kernel is looked at when there is a name to look up.
struct Names<'a> {
    loaded: &'a Loaded,
    known: Option<BTreeMap<String, u16>>,
}

impl Names<'_> {
    fn id(&mut self, endpoint: &str) -> Result<u16, Failure> {
        if let Ok(id) = endpoint.parse() {
            return Ok(id);
        }
        let known = match self.known.take() {
            Some(known) => known,
            None => self.look()?,
        };
        let known = self.known.insert(known);
        known.get(endpoint).copied().ok_or_else(|| {
            let names: Vec<&str> = known.keys().map(String::as_str).collect();
            let there = match names.as_slice() {
                [] => "this node has no endpoints; run `ciliate apply`".to_string(),
                names => format!("there are {}", names.join(", ")),
            };
            Failure::Error(format!("no endpoint `{endpoint}` has an id: {there}"))
        })
    }

    fn look(&self) -> Result<BTreeMap<String, u16>, Failure> {
        let mut kernel = open(self.loaded)?;
        let view = engine::view(&mut kernel, &self.loaded.intent)?;
        let endpoints = self.loaded.intent.endpoints.values();
        let named =
            endpoints.map(|endpoint| (endpoint.name.to_string(), get::device(&view, endpoint)));
        let health = ("health".to_string(), get::device_of(&view, LXC_HEALTH));
        let ids = [health]
            .into_iter()
            .chain(named)
            .filter_map(|(name, device)| Some((name, device?.endpoint_id)));
        Ok(ids.collect())
    }
}

/// Prints events until told to end, or until there can be no more.
fn follow(
    listener: &mut Listener,
    printer: &mut Printer,
    stop: &UnixStream,
    output: &mut Output,
) -> Result<(), Failure> {
    let mut looked = Instant::now();
    loop {
        let mut taken = 0;
        while taken < BATCH && listener.next(|record| printer.add(record)).is_some() {
            taken += 1;
        }
        if looked.elapsed() >= TICK {
            looked = Instant::now();
            printer.add_lost(&listener.lost()?);
            printer.devices.forget();
            if let Some(lost) = listener.check() {
                printer.print(output)?;
                explain(lost, output);
                return Ok(());
            }
        }
        printer.print(output)?;
        let patience =
            if taken == BATCH { Duration::ZERO } else { TICK.saturating_sub(looked.elapsed()) };
        match listener.wait(stop, stdout(), patience)? {
            Ready::Look => {}
            Ready::Closed => return Err(Failure::BrokenPipe),
            Ready::Stop => {
                // What happened until now; what happens meanwhile could go on for ever.
                let mut left = REMAINDER;
                while left > 0 && listener.next(|record| printer.add(record)).is_some() {
                    left -= 1;
                }
                printer.add_lost(&listener.lost()?);
                return printer.print(output);
            }
        }
    }
}

/// Why there is nothing more to show; not an error, as it was somebody's decision.
fn explain(lost: Lost, output: &mut Output) {
    output.note(match lost {
        Lost::Maps => "the node was destroyed or made anew: there is nothing to listen to any more",
        Lost::Slot => {
            "the files that keep readers apart were removed: start `ciliate monitor` again"
        }
    });
}

/// Turns records into lines.
struct Printer {
    selection: Selection,
    style: text::Style,
    json: bool,
    devices: DeviceNames,
    /// Lines that were not printed yet.
    lines: String,
    /// What was wrong with the first record that can't be read, and whether that was said.
    complaint: Option<(String, bool)>,
}

impl Printer {
    fn new(arguments: &Arguments, selection: Selection) -> Result<Self, Failure> {
        Ok(Self {
            selection,
            style: text::Style {
                full: arguments.verbose > 1,
                numeric: arguments.numeric,
                hex: arguments.hex,
            },
            json: arguments.json || arguments.output == Format::Json,
            devices: DeviceNames { devices: Devices::open()?, known: BTreeMap::new() },
            lines: String::new(),
            complaint: None,
        })
    }

    fn add(&mut self, record: &[u8]) {
        let event = match decode(record) {
            Ok(event) => event,
            Err(error) => {
                // The programs are of another version: that is said once, not for each packet.
                self.complaint.get_or_insert((error.to_string(), false));
                return;
            }
        };
        if !self.selection.takes(&event) {
            return;
        }
        let device = self.devices.name(event.ifindex());
        if self.json {
            json::write(&mut self.lines, &event, device);
        } else {
            text::write(&mut self.lines, &event, device, self.style);
        }
    }

    fn add_lost(&mut self, lost: &[(usize, u64)]) {
        let write = if self.json { json::write_lost } else { text::write_lost };
        lost.iter().for_each(|(cpu, events)| write(&mut self.lines, *cpu, *events));
    }

    fn print(&mut self, output: &mut Output) -> Result<(), Failure> {
        output.text(&self.lines)?;
        self.lines.clear();
        output.flush()?;
        if let Some((complaint, said @ false)) = &mut self.complaint {
            *said = true;
            output.note(&format!("{complaint}; such events are left out"));
        }
        Ok(())
    }
}

/// Names of devices, looked up once as long as they are fresh.
struct DeviceNames {
    devices: Devices,
    known: BTreeMap<u32, String>,
}

impl DeviceNames {
    /// The number, where there is no such device.
    fn name(&mut self, ifindex: u32) -> &str {
        self.known
            .entry(ifindex)
            .or_insert_with(|| self.devices.name(ifindex).unwrap_or_else(|| ifindex.to_string()))
    }

    fn forget(&mut self) {
        self.known.clear();
    }
}
