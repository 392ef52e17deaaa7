//! Everything about a namespace that ciliate could leave changed, as text that can be compared.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use ciliate::kernel::bpf;
use ciliate::kernel::bpf_map::Map;

use crate::space::{Space, try_sh};

/// Section → lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot(BTreeMap<String, Vec<String>>);

/// What is asked of the tools, each a section.
const QUESTIONS: &[&str] = &[
    "ip -d -o link",
    "ip -o addr",
    "ip -4 route show table all",
    "ip -6 route show table all",
    "ip -4 rule",
    "ip -6 rule",
    "ip neigh show nud permanent",
    "nft list ruleset",
    "tc qdisc show",
    // TCX links don't show here; they live as long as their pins, which are compared as files.
    "for d in $(tc qdisc show | sed -nE 's/^qdisc (clsact|ingress) .* dev ([^ ]*) .*/\\2/p'); \
     do tc filter show dev $d ingress; tc filter show dev $d egress; done",
];

/// The kernel gives devices link-local addresses a second or two after they are up. A device whose other
/// end is down waits for ever; the snapshot does not.
const SETTLE: &str = "n=0; while [ $n -lt 60 ] && [ -n \"$(ip -6 addr show tentative)\" ]; \
                      do n=$((n+1)); sleep 0.05; done";

impl Snapshot {
    /// Takes it.
    pub fn of(space: &Space) -> Self {
        let script: String = (QUESTIONS.iter().enumerate())
            .map(|(number, question)| format!("echo @{number}; {question}\n"))
            .collect();
        let text = space.sh(&format!("{SETTLE}\n{script}"));
        let mut sections: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut title = String::new();
        for line in text.lines() {
            match line.strip_prefix('@').and_then(|number| number.parse::<usize>().ok()) {
                Some(number) => title = QUESTIONS[number].to_string(),
                None => sections.entry(title.clone()).or_default().push(line.trim().to_string()),
            }
        }
        sections.insert("/proc/sys".into(), space.run(settings));
        Self(sections)
    }

    /// Fails with the lines that are not in both.
    #[track_caller]
    pub fn assert_same(&self, after: &Snapshot, what: &str) {
        let mut lines = Vec::new();
        let titles: BTreeSet<_> = self.0.keys().chain(after.0.keys()).collect();
        for title in titles {
            let empty = Vec::new();
            let before = self.0.get(title).unwrap_or(&empty);
            let after = after.0.get(title).unwrap_or(&empty);
            let gone = before.iter().filter(|line| !after.contains(line));
            lines.extend(gone.map(|line| format!("{title}\n    before: {line}")));
            let new = after.iter().filter(|line| !before.contains(line));
            lines.extend(new.map(|line| format!("{title}\n    after:  {line}")));
        }
        assert!(lines.is_empty(), "{what}, not as before:\n{}", lines.join("\n"));
        assert!(self == after, "{what}: the same lines in another order");
    }
}

/// Every readable setting below net/ipv4 and net/ipv6.
fn settings() -> Vec<String> {
    let mut lines = Vec::new();
    for family in ["/proc/sys/net/ipv4", "/proc/sys/net/ipv6"] {
        read_settings(Path::new(family), &mut lines);
    }
    lines.sort();
    lines
}

fn read_settings(folder: &Path, lines: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("list settings").flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => read_settings(&path, lines),
            _ => {
                // Some can't be read: flush files, secrets that aren't set.
                if let Ok(value) = fs::read_to_string(&path) {
                    lines.push(format!("{} = {}", path.display(), value.trim()));
                }
            }
        }
    }
}

/// All paths below a folder, sorted.
pub fn tree(folder: &Path) -> Vec<String> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        paths.push(entry.path().display().to_string());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            paths.extend(tree(&entry.path()));
        }
    }
    paths.sort();
    paths
}

/// Ids of BPF objects behind pins.
#[derive(Debug, Default)]
pub struct BpfIds {
    programs: BTreeSet<u32>,
    maps: BTreeSet<u32>,
}

impl BpfIds {
    /// Adds those below a folder. Foreign ones live as long as the test wants.
    pub fn note(&mut self, folder: &Path) {
        for path in tree(folder).into_iter().filter(|path| !path.contains("/foreign")) {
            let path = Path::new(&path);
            if path.is_dir() {
                continue;
            }
            if path.components().any(|c| c.as_os_str() == "maps") {
                self.maps.extend(Map::open(path).map(|map| map.id()));
            } else if path.components().any(|c| c.as_os_str() == "programs") {
                self.programs
                    .extend(bpf::obj_get(path).and_then(bpf::program_info).map(|info| info.id));
            }
        }
    }

    /// Fails if one lives on. The kernel frees them after a grace period, so there is some patience.
    #[track_caller]
    pub fn assert_gone(&self) {
        let begin = Instant::now();
        let mut left = Vec::new();
        while begin.elapsed() < Duration::from_secs(20) {
            let programs = self.programs.iter().map(|id| ("prog", id));
            let all = programs.chain(self.maps.iter().map(|id| ("map", id)));
            left = all
                .filter_map(|(kind, id)| try_sh(&format!("bpftool {kind} show id {id}")).ok())
                .collect::<Vec<_>>();
            if left.is_empty() {
                return;
            }
            thread::sleep(Duration::from_millis(200));
        }
        panic!("BPF objects live on: {left:#?}");
    }
}
