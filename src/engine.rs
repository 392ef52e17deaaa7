//! The pipeline's stages in order: the one entry for the command line, the daemon and the tests.
//!
//! Imports every stage; imported by `cli` and `daemon`.

pub mod ahead;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::apply::apply;
use crate::config::{Diagnostic, Document, Files, Search, Span};
use crate::facts::{Facts, NetnsProblem, Remembered};
use crate::intent::{self, Amended, Endpoint, Intent};
use crate::kernel::lock::{self, WriterScope};
use crate::kernel::{Kernel, KernelError, pins, private_key};
use crate::kinds::bpf_map::MapName;
use crate::kinds::bpf_map_entry::c_text;
use crate::kinds::{Desired, Observed, Op, record};
use crate::listen::{ListenError, slots};
use crate::lower::sysctl::interest;
use crate::lower::{Summary, lower, lower_nothing};
use crate::net::Netns;
use crate::observe::{Round, facts, observe};
use crate::plan::{Plan, SavedPlan, SavedPlanError, check};
use crate::report::Report;

/// How often `converge` plans again when a round didn't get all the way, because the kernel moved
/// while it worked. The daemon goes on with back-off; a command gives up and says what is left.
const ROUNDS_MAX: usize = 3;

/// A configuration without errors.
#[derive(Debug)]
pub struct Loaded {
    /// Only its texts.
    pub document: Document,
    pub intent: Intent,
}

/// A configuration with errors, and what they are.
#[derive(Debug)]
pub struct Invalid {
    pub document: Document,
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads the configuration.
///
/// # Errors
/// All diagnostics at once.
pub fn load(search: &Search) -> Result<Loaded, Box<Invalid>> {
    of_document(Document::load(search))
}

fn of_document(document: Document) -> Result<Loaded, Box<Invalid>> {
    match intent::read(&document) {
        Ok(intent) => Ok(Loaded { document: document.texts_only(), intent }),
        Err(diagnostics) => Err(Box::new(Invalid { document, diagnostics })),
    }
}

/// Reads the configuration again; what of the services is as it was in the files is not parsed again. With errors
/// `loaded` stays as it is.
///
/// # Errors
/// All diagnostics at once.
pub fn reload(search: &Search, loaded: &mut Loaded) -> Result<Amended, Box<Invalid>> {
    let files = Files::read(search);
    if let Some((kept, rest)) = files.beside(&loaded.document)
        && let Some(amended) = loaded.intent.amend(&rest, &kept)
    {
        loaded.document = files.texts();
        return Ok(amended);
    }
    let read = of_document(files.document())?;
    let changed = read.intent != loaded.intent;
    *loaded = read;
    Ok(Amended { changed, ..Amended::default() })
}

/// The same for whoever is about to plan: if the files have mistakes, those that only this machine can
/// tell are reported with them.
///
/// # Errors
/// All diagnostics at once.
pub fn load_to_plan(search: &Search) -> Result<Loaded, Box<Invalid>> {
    load(search).map_err(|mut invalid| {
        let missing = unusable_namespaces(&invalid);
        invalid.diagnostics.extend(missing);
        invalid.diagnostics.sort_by_key(|diagnostic| diagnostic.span.start);
        invalid
    })
}

/// What the machine says of the endpoints' namespaces of a configuration with mistakes.
fn unusable_namespaces(invalid: &Invalid) -> Vec<Diagnostic> {
    let endpoints = intent::namespaces_of(&invalid.document);
    let found = facts::unusable(endpoints.iter().map(|endpoint| (&endpoint.name, &endpoint.netns)));
    // A machine that can't be looked at takes nothing from what the files tell.
    let problems = found.unwrap_or_default();
    let mut diagnostics = Vec::new();
    for (endpoint, problem) in endpoints.iter().zip(problems) {
        let Some(problem) = problem else { continue };
        let said = invalid.diagnostics.iter().any(|diagnostic| diagnostic.span == endpoint.span);
        match &problem {
            // Who may not look, as one who isn't root, knows of no mistake.
            NetnsProblem::Refused(_) => continue,
            // The same table twice, or the same device: the files have told.
            NetnsProblem::IsOf(other) if said || *other == endpoint.name => continue,
            _ => {}
        }
        diagnostics.push(unusable(&endpoint.name, &endpoint.netns, endpoint.span, &problem));
    }
    diagnostics
}

/// What goes wrong between a valid configuration and a finished round.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(transparent)]
    Kernel(#[from] KernelError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("this plan must not be applied, which is a bug in ciliate: please report it")]
    BadPlan(#[from] check::Broken),
    #[error(transparent)]
    Saved(#[from] SavedPlanError),
}

impl EngineError {
    /// The kernel's error number, if it was the kernel that refused.
    pub fn errno(&self) -> Option<i32> {
        match self {
            EngineError::Kernel(error) => error.errno(),
            EngineError::Listen(_) | EngineError::BadPlan(_) | EngineError::Saved(_) => None,
        }
    }
}

/// One look at the kernel: what it has, what is desired, and the plan between them.
#[derive(Debug)]
pub struct View {
    pub facts: Facts,
    pub desired: Desired,
    pub observed: Observed,
    pub plan: Plan,
    /// What the kernel will look like after the plan; after all of it, where something has to go first.
    pub predicted: Observed,
    /// The node in a few words.
    pub summary: Summary,
}

impl View {
    /// What is recorded of things that aren't ours, or is about to be, as text.
    pub fn records(&self) -> BTreeMap<String, String> {
        let entries = self.desired.bpf_map_entries.iter();
        entries
            .filter(|(key, _)| key.map == MapName::BEFORE)
            .map(|(key, wanted)| (c_text(&key.key), c_text(&wanted.spec.value)))
            .filter(|(_, was)| was != record::LOST)
            .collect()
    }
}

/// Makes sure that the pins are of a node in this namespace, if there are any.
///
/// # Errors
/// They are of a node in another one.
pub fn at_home(kernel: &Kernel) -> Result<(), EngineError> {
    Ok(facts::at_home(kernel)?)
}

/// Looks at the kernel. Changes nothing.
///
/// # Errors
/// Something can't be read, or the plan fails its check.
pub fn view(kernel: &mut Kernel, intent: &Intent) -> Result<View, EngineError> {
    view_with(kernel, intent, &Remembered::default())
}

/// The same for whoever knows more: the [`View::records`] of looks before, and which backends are dead.
///
/// # Errors
/// Something can't be read, or the plan fails its check.
pub fn view_with(
    kernel: &mut Kernel,
    intent: &Intent,
    remembered: &Remembered,
) -> Result<View, EngineError> {
    // Without one every program, map and link would fail for one and the same reason.
    pins::check_place(kernel.bpf_root())?;
    let mut round = Round::new(kernel);
    let facts = facts::read(&mut round, intent, remembered, interest)?;
    let (desired, summary) = lower(intent, &facts);
    finish_view(round, facts, desired, summary)
}

/// The same for the plan that removes everything.
///
/// # Errors
/// Something can't be read, or the plan fails its check.
pub fn view_destroy(kernel: &mut Kernel) -> Result<View, EngineError> {
    let nothing = nothing();
    let mut round = Round::new(kernel);
    let facts = facts::read(&mut round, &nothing, &Remembered::default(), interest)?;
    let (desired, lost) = lower_nothing(&facts);
    let summary = Summary { lost, ..Summary::of(&nothing, None) };
    let view = finish_view(round, facts, desired, summary)?;
    // There is something of ours, and its pins and records are not where they can be: half of it would stay.
    if !view.plan.ops.is_empty() {
        pins::check_place(kernel.bpf_root())?;
    }
    Ok(view)
}

/// An intent that asks for nothing.
fn nothing() -> Intent {
    let span = Span { start: 0, end: 0 };
    Intent {
        node: intent::Node {
            name: None,
            addresses: Vec::new(),
            devices: Vec::new(),
            cidrs: Vec::new(),
            routers: Vec::new(),
            health_addresses: Vec::new(),
            span,
        },
        routing: intent::Routing {
            mode: intent::RoutingMode::Native,
            auto_direct_node_routes: false,
            past_host: false,
            native_cidrs: Vec::new(),
            mtu_bytes: None,
            table: None,
            rule_priority: 0,
        },
        masquerade: intent::Masquerade::Off,
        datapath: intent::Datapath { attach_mode: intent::AttachMode::Auto },
        conntrack: intent::Conntrack {
            tcp_max_entries: intent::limits::CONNTRACK_TCP_DEFAULT,
            any_max_entries: intent::limits::CONNTRACK_ANY_DEFAULT,
            nat_max_entries: intent::limits::NAT_DEFAULT,
        },
        health: intent::Health { enabled: false, interval: Duration::ZERO },
        load_balancing: intent::LoadBalancing::default(),
        encryption: None,
        paths: intent::Paths {
            runtime: PathBuf::new(),
            state: PathBuf::new(),
            bpf: PathBuf::new(),
            cgroup: PathBuf::new(),
        },
        peers: BTreeMap::new(),
        endpoints: BTreeMap::new(),
        services: BTreeMap::new(),
    }
}

fn finish_view(
    mut round: Round<'_>,
    facts: Facts,
    desired: Desired,
    summary: Summary,
) -> Result<View, EngineError> {
    let observed = observe(&mut round, &desired)?;
    round.kernel.end_round();
    let (mut plan, predicted) = Plan::make(&desired, observed.clone());
    plan.unmislead(&facts.not_on_link());
    check::check(&plan.ops, &observed)?;
    Ok(View { facts, desired, observed, plan, predicted, summary })
}

/// What became of an attempt to converge.
#[derive(Debug)]
pub struct Converged {
    /// Whether all of `last` is of one look, after which nothing was done.
    pub is_fresh: bool,
    /// Every op that was tried, with its outcome, in order.
    pub rounds: Vec<(Plan, Report)>,
    /// The last look at the kernel: its plan is what is left to do.
    pub last: View,
    /// [`Summary::lost`] of all looks: once `destroy` is done, nothing shows it any more.
    pub lost: BTreeSet<String>,
}

impl Converged {
    /// A look that found nothing that can be done.
    pub fn at_once(view: View) -> Self {
        let lost = view.summary.lost.iter().cloned().collect();
        Self { is_fresh: true, rounds: Vec::new(), last: view, lost }
    }

    /// Whether the kernel is as the configuration asks.
    pub fn succeeded(&self) -> bool {
        self.last.plan.is_converged()
    }

    /// System calls that wrote to the kernel.
    pub fn writes(&self) -> u64 {
        self.rounds.iter().map(|(_, report)| report.writes).sum()
    }
}

/// Plans, applies and verifies by looking again, until nothing is left or a round gets no further. The first
/// look is taken here as well, with the lock held: what was seen before, another process may have changed.
///
/// # Errors
/// The kernel can't be looked at.
pub fn converge(
    scope: &WriterScope,
    kernel: &mut Kernel,
    mut look: impl FnMut(&mut Kernel) -> Result<View, EngineError>,
    mut progress: impl FnMut(usize, usize),
) -> Result<Converged, EngineError> {
    let mut converged = Converged::at_once(look(kernel)?);
    let Converged { is_fresh, rounds, last, lost } = &mut converged;
    while !last.plan.ops.is_empty() && rounds.len() < ROUNDS_MAX {
        let done;
        (done, *is_fresh) = round(scope, kernel, last, &mut look, &mut progress)?;
        lost.extend(last.summary.lost.iter().cloned());
        let (got_further, settled) = (done.1.done() > 0, last.plan.ops.is_empty());
        rounds.push(done);
        if settled || !got_further {
            break;
        }
    }
    Ok(converged)
}

/// The same, after ops that were planned [`ahead`] of the look, if any.
///
/// # Errors
/// The kernel can't be looked at.
pub fn converge_after(
    plan: Option<Plan>,
    scope: &WriterScope,
    kernel: &mut Kernel,
    look: impl FnMut(&mut Kernel) -> Result<View, EngineError>,
) -> Result<Converged, EngineError> {
    // What fails of it, the look finds left to do.
    let done = plan.map(|plan| {
        let report = apply(scope, kernel, &plan, |_| {});
        (plan, report)
    });
    let mut converged = converge(scope, kernel, look, |_, _| {})?;
    converged.rounds.splice(0..0, done);
    Ok(converged)
}

/// One round: applies the view's plan and looks again. `view` becomes that of now; returns the plan
/// that it had, and what became of that; and whether all of the view was looked at anew.
fn round(
    scope: &WriterScope,
    kernel: &mut Kernel,
    view: &mut View,
    look: &mut impl FnMut(&mut Kernel) -> Result<View, EngineError>,
    progress: &mut impl FnMut(usize, usize),
) -> Result<((Plan, Report), bool), EngineError> {
    let total = view.plan.ops.len();
    let report = apply(scope, kernel, &view.plan, |done| progress(done, total));
    let blocked = view.plan.blocked.clone();
    let plan = std::mem::replace(&mut view.plan, Plan { ops: Vec::new(), blocked });
    // Every op done: the kernel has to be as predicted, and then there is nothing to plan. Unless the ops
    // changed what the plan was made from.
    let looks = !report.succeeded() || plan.changes_facts() || !as_predicted(kernel, view)?;
    if looks {
        *view = look(kernel)?;
    }
    Ok(((plan, report), looks))
}

/// Observes again and compares with the prediction; if they are equal, the view becomes that of now.
fn as_predicted(kernel: &mut Kernel, view: &mut View) -> Result<bool, EngineError> {
    let observed = observe(&mut Round::new(kernel), &view.desired)?;
    kernel.end_round();
    let equal = observed == view.predicted;
    if equal {
        view.observed = observed;
    }
    Ok(equal)
}

/// Applies a saved plan as it is, in one round, and looks again: whoever saved a plan has seen all that is
/// done.
///
/// # Errors
/// The plan is not the one that would be made now; the kernel can't be looked at.
pub fn apply_saved(
    scope: &WriterScope,
    kernel: &mut Kernel,
    saved: &SavedPlan,
    mut look: impl FnMut(&mut Kernel) -> Result<View, EngineError>,
    mut progress: impl FnMut(usize, usize),
) -> Result<Converged, EngineError> {
    let mut view = look(kernel)?;
    saved.is_as(&view.plan, &view.observed)?;
    let (done, is_fresh) = round(scope, kernel, &mut view, &mut look, &mut progress)?;
    Ok(Converged { is_fresh, rounds: vec![done], ..Converged::at_once(view) })
}

/// Takes the lock of the node that an intent is for.
///
/// # Errors
/// Another process still has it after `patience`.
pub fn lock(runtime: &Path, patience: Duration) -> Result<WriterScope, EngineError> {
    Ok(WriterScope::take(runtime, patience)?)
}

/// Removes what is left of the pins' folder and of the runtime folder after everything in them is gone. A
/// runtime folder that was there before us stays. Returns what others have put among the pins: that stays too.
///
/// # Errors
/// A file can't be removed.
pub fn remove_folders(kernel: &Kernel, runtime: &Path) -> Result<Vec<PathBuf>, EngineError> {
    pins::sweep(kernel.bpf_root())?;
    slots::remove(runtime)?;
    lock::remove_runtime(runtime);
    Ok(pins::left(kernel.bpf_root())?)
}

/// Removes the private key that we made for ourselves.
///
/// # Errors
/// It is there and can't be removed.
pub fn remove_private_key(state: &Path) -> Result<(), EngineError> {
    Ok(private_key::remove_own(state)?)
}

/// The configuration's complaints that only the machine can tell: endpoints whose namespace can't be
/// used.
pub fn missing_namespaces(intent: &Intent, facts: &Facts) -> Vec<Diagnostic> {
    let mut diagnostics = Vec::new();
    for endpoint in intent.endpoints.values() {
        let Some(Err(problem)) = facts.namespaces.get(&endpoint.name) else { continue };
        let Endpoint { name, netns, netns_span, .. } = endpoint;
        diagnostics.push(unusable(name, netns, *netns_span, problem));
    }
    diagnostics.sort_by_key(|d| d.span.start);
    diagnostics
}

fn unusable(name: &str, netns: &Netns, span: Span, problem: &NetnsProblem) -> Diagnostic {
    let message = format!("network namespace of endpoint `{name}`: {problem}");
    Diagnostic::new(span, message).help(help_with(problem, netns))
}

/// What an operator can do about a namespace.
fn help_with(problem: &NetnsProblem, netns: &Netns) -> String {
    let named = netns.path().and_then(|path| path.strip_prefix("/run/netns/"));
    match (problem, named) {
        (NetnsProblem::NoSuchPath, Some(name)) => {
            format!("make it with `ip netns add {name}`, or correct the path")
        }
        (NetnsProblem::NoSuchPath, None) => {
            "start what makes the namespace, or correct the path".into()
        }
        (NetnsProblem::NoSuchPid, _) => {
            "start the process, and write the pid that it has now".into()
        }
        (NetnsProblem::NotANetns, _) => {
            "name a file as `ip netns add` makes it, or a process by its pid".into()
        }
        (NetnsProblem::IsNodesOwn | NetnsProblem::IsMachinesOwn, _) if netns.pid().is_some() => {
            "the process has no network namespace of its own; or the one that was meant has ended and \
             another has its number: write the pid that it has now"
                .into()
        }
        (NetnsProblem::IsNodesOwn | NetnsProblem::IsMachinesOwn, _) => {
            "give the endpoint a network namespace of its own, as `ip netns add` makes it".into()
        }
        (NetnsProblem::IsOf(other), _) => {
            format!("one namespace is one endpoint: remove this one or `{other}`")
        }
        (NetnsProblem::Refused(_), _) => {
            "make sure that root may open the file and enter the namespace".into()
        }
    }
}

/// How many ops of each kind, for a summary: adding, changing, removing.
pub fn tally<'a>(ops: impl IntoIterator<Item = &'a Op>) -> (usize, usize, usize) {
    let mut tally = (0, 0, 0);
    for op in ops {
        match op.verb() {
            "+" => tally.0 += 1,
            "-" => tally.2 += 1,
            _ => tally.1 += 1,
        }
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "[node]\ncidrs = [\"10.244.0.0/24\"]\n[routing]\nmode = \"native\"\n\
        [[endpoint]]\nname = \"named\"\nnetns = \"/run/netns/some\"\n\
        [[endpoint]]\nname = \"file\"\nnetns = \"/srv/netns\"\n\
        [[endpoint]]\nname = \"process\"\npid = 1234\n";

    /// What is said of an endpoint: the message, the line, the help.
    fn said(endpoint: &str, problem: NetnsProblem) -> (String, usize, String) {
        let intent = intent::read(&Document::of_texts([("x", TEXT.to_string())])).unwrap();
        let mut facts = Facts::default();
        facts.namespaces.insert("file".into(), Ok(Vec::new()));
        facts.namespaces.insert(endpoint.into(), Err(problem));
        let mut said = missing_namespaces(&intent, &facts);
        assert_eq!(said.len(), 1, "{said:?}");
        let said = said.remove(0);
        let line = 1 + TEXT[..said.span.start].matches('\n').count();
        (said.message.clone(), line, said.help.clone().unwrap_or_default())
    }

    #[test]
    fn every_problem_with_a_namespace_says_what_to_do() {
        use NetnsProblem::*;
        for (endpoint, problem, line, message, help) in [
            ("named", NoSuchPath, 7, "no such file", "`ip netns add some`"),
            ("file", NoSuchPath, 10, "no such file", "start what makes"),
            ("process", NoSuchPid, 13, "no such process", "the pid that it has now"),
            ("file", NotANetns, 10, "is not a network namespace", "as `ip netns add`"),
            ("named", IsNodesOwn, 7, "the node's own", "give the endpoint"),
            ("process", IsNodesOwn, 13, "the node's own", "another has its number"),
            ("process", IsMachinesOwn, 13, "the machine's own", "another has its number"),
            ("named", IsOf("twin".into()), 7, "of endpoint `twin` as well", "or `twin`"),
            ("named", Refused("EPERM".into()), 7, "EPERM", "root"),
        ] {
            let (text, at, what_to_do) = said(endpoint, problem);
            let begin = format!("network namespace of endpoint `{endpoint}`: ");
            assert!(text.starts_with(&begin) && text.contains(message), "{text}");
            assert_eq!(at, line, "{text}");
            assert!(what_to_do.contains(help), "{text}: {what_to_do}");
        }
    }
}
