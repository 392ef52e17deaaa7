//! Planner fixtures: `src/kinds/<kind>/cases/*.toml` and, across kinds, `tests/cases/*.toml`.
//!
//! Each says why it is there, what is desired, what is observed, and the plan's lines.
//! `UPDATE_EXPECT=1` rewrites the lines. In `[[desired.<kind>]]`, `key` and `spec` are as in plans'
//! JSON, and `origin` is `node` where it is left out. In `[[observed.<kind>]]`, `seen` is the whole
//! object; or it is as desired under that key but for what `altered` says. `[taken]` has, by link, what
//! holds the name of its other end.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ciliate::kinds::link::Taken;
use ciliate::kinds::{Desired, Kind, Observed, Origin, Wanted};
use ciliate::net::IfName;
use ciliate::plan::{Plan, check};
use serde::Deserialize;
use serde_json::Value;

/// Fewer for one kind would leave the planner's words for it untried.
const CASES_MIN: usize = 3;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    why: String,
    #[serde(default)]
    desired: BTreeMap<String, Vec<DesiredObject>>,
    #[serde(default)]
    observed: BTreeMap<String, Vec<ObservedObject>>,
    /// By link: what has the name of its other end.
    #[serde(default)]
    taken: BTreeMap<IfName, Taken>,
    #[serde(default)]
    expect: Expect,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DesiredObject {
    #[serde(default)]
    key: Value,
    #[serde(default)]
    spec: Value,
    origin: Option<Origin>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ObservedObject {
    #[serde(default)]
    key: Value,
    seen: Option<Value>,
    #[serde(default)]
    altered: Value,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    plan: String,
}

/// Puts what `altered` says over `value`; an empty table in place of a value takes it away.
fn alter(value: &mut Value, altered: &Value) {
    match (value, altered) {
        (_, Value::Null) => {}
        (value, Value::Object(none)) if none.is_empty() => *value = Value::Null,
        (Value::Object(value), Value::Object(altered)) => {
            for (name, altered) in altered {
                alter(value.entry(name).or_insert(Value::Null), altered);
            }
        }
        (value, altered) => *value = altered.clone(),
    }
}

fn read<T: serde::de::DeserializeOwned>(value: Value, what: &str) -> T {
    serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{what}: {error}: {value}"))
}

macro_rules! build_all {
    ($($kind:ident $field:ident $module:ident,)*) => {
        const KINDS: &[(&str, &str)] = &[
            $((stringify!($module), <ciliate::kinds::$module::$kind as Kind>::NAME),)*
        ];

        fn build(case: &mut Case) -> (Desired, Observed) {
            let (mut desired, mut observed) = (Desired::default(), Observed::default());
            $({
                use ciliate::kinds::$module::$kind as K;
                for object in case.desired.remove(K::NAME).unwrap_or_default() {
                    let origin = object.origin.unwrap_or(Origin::Node);
                    let spec = read(object.spec, K::NAME);
                    desired.$field.insert(read(object.key, K::NAME), Wanted { spec, origin });
                }
                for object in case.observed.remove(K::NAME).unwrap_or_default() {
                    let key = read(object.key, K::NAME);
                    let whole = object.seen.unwrap_or_else(|| {
                        let wanted = desired.$field.get(&key).map(|wanted| &wanted.spec);
                        // A rule is nothing but its key.
                        let whole = wanted.map(|spec| K::realise(&key, spec));
                        let mut whole = serde_json::to_value(whole).unwrap();
                        alter(&mut whole, &object.altered);
                        whole
                    });
                    observed.$field.insert(key, read(whole, K::NAME));
                }
            })*
            observed.taken.append(&mut case.taken);
            assert!(case.desired.is_empty() && case.observed.is_empty(), "no such kind: {case:?}");
            (desired, observed)
        }
    };
}
ciliate::for_each_kind!(build_all);

fn lines(desired: &Desired, observed: &Observed) -> String {
    let (plan, predicted) = Plan::make(desired, observed.clone());
    check::check(&plan.ops, observed).unwrap();
    check::still_fits(&plan.ops, observed).unwrap();
    assert_eq!(Plan::make(desired, predicted).0.ops, [], "planning again finds more to do");
    let lines = plan.ops.iter().map(ciliate::kinds::Op::line);
    lines
        .chain(plan.blocked.iter().map(ToString::to_string))
        .fold(String::new(), |text, line| text + &line + "\n")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// The complaint about a case that isn't as expected.
fn try_case(file: &Path, update: bool) -> Option<String> {
    let text = fs::read_to_string(file).unwrap();
    let mut case: Case = match toml::from_str(&text) {
        Ok(case) => case,
        Err(error) => return Some(format!("{}: {error}", file.display())),
    };
    assert!(case.why.ends_with('.'), "{}: `why` is a sentence", file.display());
    let (desired, observed) = build(&mut case);
    let found = lines(&desired, &observed);
    if update {
        let start = text.find("[expect]").unwrap_or(text.len());
        let given = text[..start].trim_end();
        fs::write(file, format!("{given}\n\n[expect]\nplan = '''\n{found}'''\n")).unwrap();
        return None;
    }
    (found != case.expect.plan)
        .then(|| format!("{}:\n{found}instead of\n{}", file.display(), case.expect.plan))
}

#[test]
fn every_case_is_planned_as_expected() {
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let mut failures = Vec::new();
    for (module, _) in KINDS {
        let files = files(&Path::new("src/kinds").join(module).join("cases"));
        assert!(files.len() >= CASES_MIN, "{module} has {} cases", files.len());
        failures.extend(files.iter().filter_map(|file| try_case(file, update)));
    }
    let across = files(Path::new("tests/cases"));
    assert!(across.len() >= CASES_MIN, "{} cases across kinds", across.len());
    failures.extend(across.iter().filter_map(|file| try_case(file, update)));
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_case_that_expects_something_else_fails() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("case.toml");
    let case =
        "why = 'A rule.'\n[[desired.rule]]\nkey = { ipv6 = false, priority = 1, table = 2 }\n";
    fs::write(&file, format!("{case}[expect]\nplan = ''")).unwrap();
    assert!(try_case(&file, false).unwrap().contains("+ rule priority 1 from all lookup 2"));
    fs::write(&file, "why = 'A rule.'\n[[desired.rule]]\nkeys = 1\n").unwrap();
    assert!(try_case(&file, false).unwrap().contains("keys"));
}
