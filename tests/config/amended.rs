//! A configuration that is changed: reading what is new of it gives what reading all of it gives, or nothing.

use std::sync::Arc;

use ciliate::config::{Document, Files};
use ciliate::intent::{self, Amended, Intent, Service};
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// What files are made of: things that go together, things that don't, and what looks like something else.
const PIECES: &[&str] = &[
    "[[service]]\nname = \"a\"\ncluster-ips = [\"10.96.0.1:80\"]\nbackends = [\"10.0.0.1:80\"]\n",
    "[[service]]\nname = \"b\"\nexternal-ips = [\"192.0.2.2:80\"]\nbackends = [\n  \"10.0.0.1:80\",\n]\n",
    "[[service]]\nname = \"c\" # c\ncluster-ips = [\"[fd00::3]:80\"]\nprotocol = \"UDP\"\n",
    "[[service]] # d\nname = \"d\"\nnode-port = 30001\nsource-ranges = [\"192.0.2.0/24\"]\n",
    "[[service]]\nname = \"e\"\ncluster-ips = [\"10.96.0.5:80\"]\n[service.health-check]\nrise = 3\n",
    "[[service]]\nname = \"f\"\nhost-ports = [\"0.0.0.0:8080\"]\n\n\n",
    "[[service]]\nname = \"g\"\ncluster-ips = [\"10.96.0.7:80\"]\r\nsession-affinity = \"3h\"\n",
    "[[service]]\nname = \"u\" # ü\ncluster-ips = [\"10.96.0.8:80\"]\n",
    "[[service]]\nname = \"h\"\ncluster-ips = [\"10.96.0.9:80\"]\n",
    "[[service]]\nname = \"i\"\ncluster-ips = [\"10.96.0.10:80\"]\n",
    // Others of the same name, address or port.
    "[[service]]\nname = \"a\"\ncluster-ips = [\"10.96.0.11:80\"]\n",
    "[[service]]\nname = \"x\"\ncluster-ips = [\"10.96.0.1:80\"]\n",
    "[[service]]\nname = \"y\"\nnode-port = 30001\n",
    "[[service]]\nname = \"z\"\nhost-ports = [\"172.18.0.3:8080\"]\n",
    "[[service]]\nname = \"n\"\ncluster-ips = [\"10.244.0.77:80\"]\n",
    "[[service]]\nname = \"wrong\"\ncluster-ips = [\"10.96.0.300:80\"]\n",
    "[[service]]\n",
    "[[ service ]]\nname = \"spaced\"\n",
    " [[service]]\nname = \"indented\"\n",
    "[[endpoint]]\nname = \"client\"\nnetns = \"/run/netns/client\"\naddresses = [\"10.244.0.9\"]\n",
    "[[endpoint]]\nname = \"in-the-way\"\nnetns = \"/run/netns/way\"\naddresses = [\"10.96.0.1\"]\n",
    "[[peer]]\nname = \"p\"\naddresses = [\"172.18.0.2\"]\ncidrs = [\"10.244.1.0/24\"]\n",
    "[[peer]]\nname = \"q\"\naddresses = [\"172.18.0.4\"]\ncidrs = [\"10.96.0.0/28\"]\n",
    "[load-balancing]\nnode-port-range = [31000, 32000]\n",
    "[load-balancing]\nalgorithm = \"maglev\"\n",
    "[masquerade]\nmode = \"off\"\n",
    "# a comment\n",
    "\n",
    "protocol = \"SCTP\"\n",
    "backends = [\n",
    "]\n",
    "backends = [{ address = \n",
    "}]\n",
    "x = \"\"\"\n",
    "\"\"\"\n",
    "x = '''\n",
    "service = []\n",
    "#",
    "\"",
];

const BASE: &str = "[node]\naddresses = [\"172.18.0.3\"]\ncidrs = [\"10.244.0.0/24\"]\n\
    [routing]\nmode = \"native\"\n";

/// A change of some files.
#[derive(Debug, Clone)]
enum Edit {
    Insert(Index, Index, &'static str),
    Replace(Index, Index, &'static str),
    Remove(Index, Index),
    Swap(Index, Index),
    /// Anywhere, in the middle of something too.
    Cut(Index, Index, u8),
}

fn edits() -> impl Strategy<Value = Vec<Vec<Edit>>> {
    let at = || any::<Index>();
    let edit = prop_oneof![
        4 => (at(), at(), select(PIECES)).prop_map(|(file, at, piece)| Edit::Insert(file, at, piece)),
        2 => (at(), at(), select(PIECES)).prop_map(|(file, at, piece)| Edit::Replace(file, at, piece)),
        2 => (at(), at()).prop_map(|(file, at)| Edit::Remove(file, at)),
        1 => (at(), at()).prop_map(|(file, at)| Edit::Swap(file, at)),
        1 => (at(), at(), 1u8..20).prop_map(|(file, at, length)| Edit::Cut(file, at, length)),
    ];
    prop::collection::vec(prop::collection::vec(edit, 1..3), 1..8)
}

/// Files as lists of pieces.
type Tree = Vec<Vec<String>>;

fn change(tree: &mut Tree, edit: &Edit) {
    let (Edit::Insert(file, at, _)
    | Edit::Replace(file, at, _)
    | Edit::Remove(file, at)
    | Edit::Swap(file, at)
    | Edit::Cut(file, at, _)) = edit;
    let files = tree.len();
    let pieces = &mut tree[file.index(files)];
    let here = at.index(pieces.len() + 1);
    match edit {
        Edit::Insert(_, _, piece) => pieces.insert(here, (*piece).to_owned()),
        _ if here == pieces.len() => {}
        Edit::Replace(_, _, piece) => (*piece).clone_into(&mut pieces[here]),
        Edit::Remove(..) => drop(pieces.remove(here)),
        Edit::Swap(..) => pieces.swap(0, here),
        Edit::Cut(_, at, length) => {
            let piece = &mut pieces[here];
            let start = piece.floor_char_boundary(at.index(piece.len() + 1));
            let end = piece.floor_char_boundary((start + usize::from(*length)).min(piece.len()));
            piece.replace_range(start..end.max(start), "");
        }
    }
}

fn texts(tree: &Tree) -> Vec<(String, String)> {
    tree.iter().enumerate().map(|(at, pieces)| (format!("{at}.toml"), pieces.concat())).collect()
}

/// What is said of the services that changed.
fn differences(before: &Intent, now: &Intent) -> (Vec<Service>, Vec<Arc<str>>) {
    let same = |one: &Service, other: Option<&Service>| {
        other.is_some_and(|other| *one == Service { span: one.span, ..other.clone() })
    };
    let gone = before.services.values().filter(|s| !same(s, now.services.get(&s.name)));
    let new = now.services.values().filter(|s| !same(s, before.services.get(&s.name)));
    (gone.cloned().collect(), new.map(|service| service.name.clone()).collect())
}

/// A file is read as a whole where it has quotes of three, if only in a comment.
fn assert_same_as_a_whole(text: &str) {
    if ["\"\"\"", "'''"].iter().any(|quotes| text.contains(quotes)) {
        return;
    }
    let read = |end: &str| Document::of_texts([("x", format!("{text}\n# {end}\n"))]);
    let (apart, whole) = (read("..."), read("\"\"\""));
    assert_eq!(apart.root(), whole.root(), "{text}");
    assert_eq!(format!("{:?}", apart.problems()), format!("{:?}", whole.problems()), "{text}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn reading_what_is_new_gives_what_reading_all_gives(
        second in prop::collection::vec(0..10usize, 0..6), steps in edits(),
    ) {
        let first = std::iter::once(BASE).chain(PIECES[..5].iter().copied());
        let second = second.into_iter().collect::<std::collections::BTreeSet<_>>();
        let second = second.into_iter().filter(|at| *at > 4).map(|at| PIECES[at]);
        let mut tree: Tree = vec![first.map(Into::into).collect(), second.map(Into::into).collect()];
        let mut document = Document::of_texts(texts(&tree));
        let mut held = intent::read(&document).expect("a configuration without mistakes");
        for step in steps {
            let last = tree.clone();
            step.iter().for_each(|edit| change(&mut tree, edit));
            assert_same_as_a_whole(&tree.concat().concat());
            let all = Document::of_texts(texts(&tree));
            let read = intent::read(&all);
            let before = held.clone();
            let files = Files::of_texts(texts(&tree));
            let amended = files.beside(&document).and_then(|(kept, rest)| held.amend(&rest, &kept));
            match (amended, read) {
                (None, read) => {
                    prop_assert_eq!(&held, &before, "nothing was read and something changed");
                    held = read.unwrap_or(held);
                }
                (Some(_), Err(problems)) => {
                    prop_assert!(false, "accepted: {:?} in {:#?}", problems, texts(&tree));
                }
                (Some(Amended { changed, before: mut gone, mut now }), Ok(read)) => {
                    prop_assert_eq!(&held, &read, "{:#?}", texts(&tree));
                    prop_assert_eq!(changed, before != read);
                    gone.sort_by(|a, b| a.name.cmp(&b.name));
                    now.sort();
                    prop_assert_eq!((gone, now), differences(&before, &read));
                }
            }
            // What has mistakes is not the last good configuration.
            if intent::read(&all).is_ok() { document = all } else { tree = last }
        }
    }
}

/// What is wrong only because of what is kept.
#[test]
fn what_can_not_stand_beside_a_table_is_seen() {
    let tables = PIECES[..4].concat();
    let document = Document::of_texts([("x", format!("{tables}{BASE}"))]);
    let before = intent::read(&document).unwrap();
    for start in [
        "service = []\n",
        "service = [{ name = \"x\" }]\n",
        "service.name = \"x\"\n",
        "[service]\n",
    ] {
        let text = format!("{start}{tables}{BASE}");
        assert_same_as_a_whole(&text);
        let files = Files::of_texts([("x", text.clone())]);
        let amended = files.beside(&document);
        let amended = amended.and_then(|(kept, rest)| before.clone().amend(&rest, &kept));
        assert_eq!(amended, None, "{text}");
        assert!(intent::read(&Document::of_texts([("x", text)])).is_err());
    }
}

#[test]
fn of_many_services_a_few_are_read() {
    let service = |n: usize| {
        let (high, low) = (n / 250, n % 250);
        format!("[[service]]\nname = \"s{n}\"\ncluster-ips = [\"10.96.{high}.{low}:80\"]\n")
    };
    let text = |numbers: &mut dyn Iterator<Item = usize>| {
        [BASE.to_owned()].into_iter().chain(numbers.map(service)).collect::<String>()
    };
    let old = text(&mut (0..1000));
    let document = Document::of_texts([("x", old)]);
    let held = intent::read(&document).unwrap();
    let more = "[[endpoint]]\nname = \"client\"\nnetns = \"/run/netns/client\"\n";
    for (new, read) in [
        (text(&mut (0..1000)), 1),
        (text(&mut (0..1001)), 2),
        (text(&mut (0..999)), 1),
        (text(&mut (0..1000).filter(|n| *n != 500)), 1),
        (text(&mut (0..1000).map(|n| if n == 500 { 5000 } else { n })), 2),
        (text(&mut (1..1000)), 1),
        (format!("{}{more}", text(&mut (0..1000))), 2),
    ] {
        let files = Files::of_texts([("x", new)]);
        let (kept, rest) = files.beside(&document).unwrap();
        assert_eq!(rest.root().service.len(), read);
        let mut amended = held.clone();
        // An endpoint without addresses changes nothing that services are judged by, a new one does.
        let done = amended.amend(&rest, &kept).is_some();
        assert_eq!(done, rest.root().endpoint.is_empty());
        assert_eq!(amended == held, !done || read == 1 && kept.count() == 999);
    }
}
