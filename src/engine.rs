//! The pipeline's stages in order: the one entry for the command line, the daemon and the tests.
//!
//! Imports every stage; imported by `cli` and `daemon`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::apply::apply;
use crate::config::{Diagnostic, Document, Search};
use crate::facts::Facts;
use crate::intent::{self, Intent};
use crate::kernel::lock::WriterScope;
use crate::kernel::{Kernel, KernelError};
use crate::kinds::{Desired, Observed, Op};
use crate::lower::{Summary, lower, lower_nothing};
use crate::observe::{facts, observe};
use crate::plan::{Plan, check};
use crate::report::Report;

/// How often `converge` plans again when a round didn't get all the way, because the kernel moved
/// while it worked. The daemon goes on with back-off; a command gives up and says what is left.
const ROUNDS_MAX: usize = 3;

/// A configuration without errors.
#[derive(Debug)]
pub struct Loaded {
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
    let document = Document::load(search);
    match intent::read(&document) {
        Ok(intent) => Ok(Loaded { document, intent }),
        Err(diagnostics) => Err(Box::new(Invalid { document, diagnostics })),
    }
}

/// What goes wrong between a valid configuration and a finished round.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(transparent)]
    Kernel(#[from] KernelError),
    #[error("this plan must not be applied, which is a bug in ciliate: please report it")]
    BadPlan(#[from] check::Broken),
}

/// One look at the kernel: what it has, what is desired, and the plan between them.
#[derive(Debug)]
pub struct View {
    pub facts: Facts,
    pub desired: Desired,
    pub observed: Observed,
    pub plan: Plan,
    /// What the kernel will look like after the plan.
    pub predicted: Observed,
    /// The node in a few words.
    pub summary: Summary,
}

/// Looks at the kernel. Changes nothing.
///
/// # Errors
/// Something can't be read, or the plan fails its check.
pub fn view(kernel: &mut Kernel, intent: &Intent) -> Result<View, EngineError> {
    let facts = facts::read(kernel, intent)?;
    let (desired, summary) = lower(intent, &facts);
    finish_view(kernel, facts, desired, summary)
}

/// The same for the plan that removes everything.
///
/// # Errors
/// Something can't be read, or the plan fails its check.
pub fn view_destroy(kernel: &mut Kernel) -> Result<View, EngineError> {
    let nothing = nothing();
    let facts = facts::read(kernel, &nothing)?;
    let desired = lower_nothing(&facts);
    finish_view(kernel, facts, desired, Summary::of(&nothing, None))
}

/// An intent that asks for nothing.
fn nothing() -> Intent {
    let span = crate::config::Span { start: 0, end: 0 };
    Intent {
        node: intent::Node {
            name: None,
            addresses: Vec::new(),
            devices: Vec::new(),
            cidrs: Vec::new(),
            routers: Vec::new(),
            span,
        },
        routing: intent::Routing {
            mode: intent::RoutingMode::Native,
            auto_direct_node_routes: false,
            native_cidrs: Vec::new(),
            mtu_bytes: None,
            table: None,
            rule_priority: 0,
        },
        masquerade: intent::Masquerade::Off,
        datapath: intent::Datapath { attach_mode: intent::AttachMode::Auto },
        paths: intent::Paths {
            runtime: PathBuf::new(),
            state: PathBuf::new(),
            bpf: PathBuf::new(),
            cgroup: PathBuf::new(),
        },
        peers: BTreeMap::new(),
        endpoints: BTreeMap::new(),
    }
}

fn finish_view(
    kernel: &mut Kernel,
    facts: Facts,
    desired: Desired,
    summary: Summary,
) -> Result<View, EngineError> {
    let observed = observe(kernel, &desired)?;
    kernel.end_round();
    let (plan, predicted) = Plan::make(&desired, observed.clone());
    check::check(&plan.ops, &observed)?;
    Ok(View { facts, desired, observed, plan, predicted, summary })
}

/// What became of an attempt to converge.
#[derive(Debug)]
pub struct Converged {
    /// Every op that was tried, with its outcome, in order.
    pub rounds: Vec<(Plan, Report)>,
    /// The last look at the kernel: its plan is what is left to do.
    pub last: View,
}

impl Converged {
    /// Whether the kernel is as the configuration asks.
    pub fn succeeded(&self) -> bool {
        self.last.plan.is_converged()
    }

    /// System calls that wrote to the kernel.
    pub fn writes(&self) -> u64 {
        self.rounds.iter().map(|(_, report)| report.writes).sum()
    }
}

/// Plans, applies and verifies by looking again, until nothing is left or a round gets no further.
///
/// # Errors
/// The kernel can't be looked at.
pub fn converge(
    scope: &WriterScope,
    kernel: &mut Kernel,
    mut look: impl FnMut(&mut Kernel) -> Result<View, EngineError>,
    mut progress: impl FnMut(usize, usize),
) -> Result<Converged, EngineError> {
    let mut rounds: Vec<(Plan, Report)> = Vec::new();
    let mut last = look(kernel)?;
    while !last.plan.ops.is_empty() && rounds.len() < ROUNDS_MAX {
        let done = round(scope, kernel, &mut last, &mut look, &mut progress)?;
        let (got_further, settled) = (done.1.done() > 0, last.plan.ops.is_empty());
        rounds.push(done);
        if settled || !got_further {
            break;
        }
    }
    Ok(Converged { rounds, last })
}

/// One round: applies the view's plan and looks again. `view` becomes that of now; returns the plan
/// that it had, and what became of that.
fn round(
    scope: &WriterScope,
    kernel: &mut Kernel,
    view: &mut View,
    look: &mut impl FnMut(&mut Kernel) -> Result<View, EngineError>,
    progress: &mut impl FnMut(usize, usize),
) -> Result<(Plan, Report), EngineError> {
    let total = view.plan.ops.len();
    let report = apply(scope, kernel, &view.plan, |done| progress(done, total));
    let blocked = view.plan.blocked.clone();
    let plan = std::mem::replace(&mut view.plan, Plan { ops: Vec::new(), blocked });
    // Every op done: the kernel has to be as predicted, and then there is nothing to plan.
    if !report.succeeded() || !as_predicted(kernel, view)? {
        *view = look(kernel)?;
    }
    Ok((plan, report))
}

/// Observes again and compares with the prediction; if they are equal, the view becomes that of now.
fn as_predicted(kernel: &mut Kernel, view: &mut View) -> Result<bool, EngineError> {
    let observed = observe(kernel, &view.desired)?;
    kernel.end_round();
    let equal = observed == view.predicted;
    if equal {
        view.observed = observed;
    }
    Ok(equal)
}

/// Applies the plan of a view as it is, in one round, and looks again: whoever saved a plan has seen all
/// that is done.
///
/// # Errors
/// The kernel can't be looked at.
pub fn apply_saved(
    scope: &WriterScope,
    kernel: &mut Kernel,
    mut view: View,
    mut look: impl FnMut(&mut Kernel) -> Result<View, EngineError>,
    mut progress: impl FnMut(usize, usize),
) -> Result<Converged, EngineError> {
    let done = round(scope, kernel, &mut view, &mut look, &mut progress)?;
    Ok(Converged { rounds: vec![done], last: view })
}

/// Takes the lock of the node that an intent is for.
///
/// # Errors
/// Another process still has it after `patience`.
pub fn lock(runtime: &Path, patience: Duration) -> Result<WriterScope, EngineError> {
    Ok(WriterScope::take(runtime, patience)?)
}

/// Removes what is left of the pins' folder and of the runtime folder after everything in them is gone.
///
/// # Errors
/// A file can't be removed.
pub fn remove_folders(kernel: &Kernel, runtime: &Path) -> Result<(), EngineError> {
    crate::kernel::pins::sweep(kernel.bpf_root())?;
    let _ = std::fs::remove_file(crate::kernel::lock::path(runtime));
    let _ = std::fs::remove_dir(runtime);
    Ok(())
}

/// The configuration's complaints that only the machine can tell: endpoints whose namespace isn't
/// there.
pub fn missing_namespaces(intent: &Intent, facts: &Facts) -> Vec<Diagnostic> {
    let mut diagnostics = Vec::new();
    for endpoint in intent.endpoints.values() {
        let Some(Err(problem)) = facts.namespaces.get(&endpoint.name) else { continue };
        let message = format!("network namespace of endpoint `{}`: {problem}", endpoint.name);
        let path = endpoint.netns.path().unwrap_or_default();
        let help = match (problem.starts_with("no such"), path.strip_prefix("/run/netns/")) {
            (true, Some(name)) => {
                format!("make it with `ip netns add {name}`, or correct the path")
            }
            (true, None) => "start the process that owns it, or correct the path or pid".into(),
            (false, _) => "give the endpoint a network namespace of its own".into(),
        };
        diagnostics.push(Diagnostic::new(endpoint.netns_span, message).help(help));
    }
    diagnostics.sort_by_key(|d| d.span.start);
    diagnostics
}

/// How many ops of each kind, for a summary: adding, changing, removing.
pub fn tally(ops: &[Op]) -> (usize, usize, usize) {
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
