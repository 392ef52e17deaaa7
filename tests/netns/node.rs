//! A node of a lab: its configuration, and `ciliate` run in its namespace.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use ciliate::apply::apply;
use ciliate::config::Search;
use ciliate::engine::{self, View};
use ciliate::for_each_kind;
use ciliate::kernel::Kernel;
use ciliate::kinds::{Kind, Observed};
use ciliate::plan::Plan;
use ciliate::report::Report;
use serde_json::Value;

use crate::lab::{Lab, addresses};
use crate::space::Space;

/// The program under test.
pub const CILIATE: &str = env!("CARGO_BIN_EXE_ciliate");

/// A node.
pub struct Node {
    pub name: &'static str,
    pub space: Space,
    pub config: PathBuf,
    pub runtime: PathBuf,
    pub bpf: PathBuf,
    /// The control group whose sockets are translated: one without processes.
    pub cgroup: PathBuf,
    /// What daemons say. In a folder of its own: that of the configuration is watched.
    pub log: PathBuf,
}

/// Where this machine has control groups of version 2.
fn control_groups() -> PathBuf {
    let beside_v1 = PathBuf::from("/sys/fs/cgroup/unified");
    if beside_v1.is_dir() { beside_v1 } else { "/sys/fs/cgroup".into() }
}

impl Node {
    /// A node whose files lie in the lab's folder.
    pub fn new(name: &'static str, space: Space, dir: &Path) -> Self {
        Self {
            name,
            config: dir.join(format!("{name}.toml")),
            runtime: dir.join(format!("run-{name}")),
            bpf: dir.join("bpf").join(name),
            cgroup: control_groups().join(format!("{}-{name}", space.name)),
            log: dir.join("log").join(name),
            space,
        }
    }

    /// The file that the health endpoint's namespace is mounted on.
    pub fn health_netns(&self) -> PathBuf {
        self.runtime.join("netns/health")
    }

    /// The health endpoint's namespace.
    pub fn health(&self) -> Space {
        Space { name: self.health_netns().display().to_string() }
    }

    /// Writes the configuration.
    pub fn write(&self, text: &Text) {
        // Where the machine has none of version 2, tests that need one fail for that.
        let _ = fs::create_dir(&self.cgroup);
        fs::write(&self.config, text.render(self)).expect("write the configuration");
    }

    /// Whether there is a configuration.
    pub fn is_configured(&self) -> bool {
        self.config.exists()
    }

    /// A command of `ciliate` for this node.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.space.command(CILIATE);
        command.arg("-c").arg(&self.config).args(arguments);
        command
    }

    /// Runs a command of `ciliate`.
    pub fn ciliate(&self, arguments: &[&str]) -> Ran {
        Ran::from(self.command(arguments).output().expect("run ciliate"))
    }

    /// The engine's view of this node.
    #[track_caller]
    pub fn view(&self) -> View {
        self.try_view().unwrap_or_else(|error| panic!("view of node {}: {error}", self.name))
    }

    /// The same, where it may fail.
    pub fn try_view(&self) -> Result<View, String> {
        let loaded = engine::load(&Search::path(&self.config))
            .map_err(|invalid| format!("{:?}", invalid.diagnostics))?;
        self.space.run(|| {
            let paths = &loaded.intent.paths;
            let kernel = Kernel::open(&paths.bpf, &paths.runtime);
            let mut kernel = kernel.map_err(|e| e.to_string())?;
            engine::view(&mut kernel, &loaded.intent)
                .map_err(|error| ciliate::kernel::chain(&error))
        })
    }

    /// Runs `apply`, which has to do exactly what was predicted. Returns what it printed.
    #[track_caller]
    pub fn apply(&self) -> Value {
        let predicted = self.view().predicted;
        let ran = self.ciliate(&["apply", "-o", "json"]);
        assert!(ran.code == 0, "apply on node {}: {ran:?}", self.name);
        let after = self.view();
        assert_equal(&predicted, &after.observed, "predicted", "observed");
        assert!(after.plan.is_converged(), "after apply: {:?}", after.plan);
        self.assert_no_changes();
        ran.json()
    }

    /// Runs the ops of a plan; they have to succeed.
    #[track_caller]
    pub fn run_ops(&self, plan: &Plan) {
        let report = self.try_ops(plan);
        assert!(report.succeeded(), "{:?}", report.outcomes);
    }

    /// Runs the ops of a plan, which may be one of before.
    pub fn try_ops(&self, plan: &Plan) -> Report {
        self.space.run(|| {
            let mut kernel = Kernel::open(&self.bpf, &self.runtime).expect("open the kernel");
            let scope = engine::lock(&self.runtime, Duration::from_secs(10)).expect("the lock");
            apply(&scope, &mut kernel, plan, |_| {})
        })
    }

    /// `plan` says that there is nothing to do.
    #[track_caller]
    pub fn assert_no_changes(&self) {
        let ran = self.ciliate(&["plan"]);
        assert!(ran.code == 0 && ran.stdout.trim() == "No changes.", "plan: {ran:?}");
    }

    /// Runs `destroy`; afterwards nothing of ours is there.
    #[track_caller]
    pub fn destroy(&self) {
        let (bpf, runtime) = (self.bpf.display(), self.runtime.display());
        let ran = self.ciliate(&[
            "destroy",
            "--bpf",
            &bpf.to_string(),
            "--runtime",
            &runtime.to_string(),
        ]);
        assert!(ran.code == 0, "destroy on node {}: {ran:?}", self.name);
    }
}

/// What became of a command.
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl std::fmt::Debug for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit {}\n{}{}", self.code, self.stdout, self.stderr)
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Ran {
    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Everything that was printed.
    pub fn all(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// What two looks at a kernel do not have in common, a line each.
pub fn differences(left: &Observed, right: &Observed, names: (&str, &str)) -> Vec<String> {
    let mut lines = Vec::new();
    macro_rules! compare {
        ($($kind:ident $field:ident $module:ident,)*) => {$(
            let kind = <ciliate::kinds::$module::$kind as Kind>::NAME;
            for (key, seen) in &left.$field {
                if right.$field.get(key) != Some(seen) {
                    lines.push(format!("{kind} {key}\n    {}: {seen:?}", names.0));
                }
            }
            for (key, seen) in &right.$field {
                if left.$field.get(key) != Some(seen) {
                    lines.push(format!("{kind} {key}\n    {}: {seen:?}", names.1));
                }
            }
        )*};
    }
    for_each_kind!(compare);
    lines
}

/// Fails with what differs.
#[track_caller]
pub fn assert_equal(left: &Observed, right: &Observed, left_name: &str, right_name: &str) {
    let lines = differences(left, right, (left_name, right_name));
    assert!(lines.is_empty(), "{left_name} != {right_name}:\n{}", lines.join("\n"));
}

/// A configuration as text.
#[derive(Debug, Clone, Default)]
pub struct Text {
    pub node: String,
    pub routing: String,
    pub other: String,
    pub peers: String,
    pub endpoints: String,
    /// Whether there is a health endpoint, and probes. Off where objects are counted.
    pub health: bool,
}

/// A list of texts in TOML.
pub fn list(items: &[&str]) -> String {
    let quoted: Vec<String> = items.iter().map(|item| format!("{item:?}")).collect();
    format!("[{}]", quoted.join(", "))
}

const PEER_A: [[&str; 2]; 2] =
    [["172.18.0.3", "fc00:18::3"], ["10.244.0.0/24", "fd00:10:244::/80"]];
const PEER_B: [[&str; 2]; 2] =
    [["172.18.0.2", "fc00:18::2"], ["10.244.1.0/24", "fd00:10:244:1::/80"]];

impl Text {
    /// Node a of the walk-through, without endpoints.
    pub fn node_a(lab: &Lab) -> Self {
        let mut text = Self::of(lab, "node-a", PEER_A).peer(lab, "node-b", PEER_B);
        if lab.families.v4 {
            text.node += "routers = [\"10.244.0.26\"]\n";
        }
        text
    }

    /// Node b of the walk-through, without endpoints.
    pub fn node_b(lab: &Lab) -> Self {
        Self::of(lab, "node-b", PEER_B).peer(lab, "node-a", PEER_A)
    }

    fn of(lab: &Lab, name: &str, [underlay, cidrs]: [[&str; 2]; 2]) -> Self {
        let underlay = list(&addresses(lab.families, underlay[0], underlay[1]));
        let cidrs = list(&addresses(lab.families, cidrs[0], cidrs[1]));
        let node = format!("name = {name:?}\naddresses = {underlay}\ncidrs = {cidrs}\n");
        let mut routing = "mode = \"native\"\nauto-direct-node-routes = true\n".to_string();
        if lab.families.v4 {
            routing += "native-cidrs = [\"10.0.0.0/8\"]\n";
        }
        Self { node, routing, ..Self::default() }
    }

    fn peer(mut self, lab: &Lab, name: &str, [underlay, cidrs]: [[&str; 2]; 2]) -> Self {
        let underlay = addresses(lab.families, underlay[0], underlay[1]);
        let cidrs = addresses(lab.families, cidrs[0], cidrs[1]);
        self.peers += &peer(name, &underlay, &cidrs, "");
        self
    }

    /// The same with a tunnel to the peers.
    pub fn in_tunnel(mut self) -> Self {
        let native = "mode = \"native\"\nauto-direct-node-routes = true\n";
        assert!(self.routing.contains(native), "{}", self.routing);
        self.routing = self.routing.replace(native, "mode = \"tunnel\"\n");
        self
    }

    /// With the health endpoint, and probes every second.
    pub fn with_health(mut self) -> Self {
        self.health = true;
        self
    }

    /// Adds an endpoint; without addresses they are allocated.
    pub fn endpoint(mut self, name: &str, space: &Space, addresses: &[&str]) -> Self {
        let netns = format!("netns = {:?}", space.path());
        self.endpoints += &endpoint(name, &netns, addresses);
        self
    }
}

/// `[[peer]]`.
pub fn peer(name: &str, addresses: &[&str], cidrs: &[&str], more: &str) -> String {
    let (addresses, cidrs) = (list(addresses), list(cidrs));
    format!("[[peer]]\nname = {name:?}\naddresses = {addresses}\ncidrs = {cidrs}\n{more}\n")
}

/// `[[endpoint]]`.
pub fn endpoint(name: &str, place: &str, addresses: &[&str]) -> String {
    let mut text = format!("[[endpoint]]\nname = {name:?}\n{place}\n");
    if !addresses.is_empty() {
        let _ = writeln!(text, "addresses = {}", list(addresses));
    }
    text + &format!("labels = {{ app = {name:?} }}\n")
}

impl Text {
    /// The file of a node.
    pub fn render(&self, node: &Node) -> String {
        let Text { node: section, routing, other, peers, endpoints, health } = self;
        let (runtime, bpf) = (node.runtime.display(), node.bpf.display());
        let cgroup = node.cgroup.display();
        format!(
            "[node]\n{section}\n[routing]\n{routing}\n{other}\n\
             [health]\nenabled = {health}\ninterval = 1\n\n\
             [paths]\nruntime = \"{runtime}\"\nstate = \"{runtime}-state\"\nbpf = \"{bpf}\"\n\
             cgroup = \"{cgroup}\"\n\n\
             {peers}\n{endpoints}"
        )
    }
}
