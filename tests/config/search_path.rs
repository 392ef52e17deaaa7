//! Which files are read, in which order, and what can be wrong with a file before it is parsed.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;

use ciliate::config::{Document, Search, limits, locate, render};
use ciliate::intent;

use crate::scratch::Scratch;

const MAIN: &str = "etc/ciliate/ciliate.toml";

/// Names of files, relative to the scratch directory, in reading order.
fn read_order(scratch: &Scratch, search: &Search) -> Vec<String> {
    let document = Document::load(search);
    let relative =
        |path: &std::path::Path| path.strip_prefix(scratch.path()).unwrap().display().to_string();
    document.sources().iter().map(|source| relative(source.path())).collect()
}

/// Files (with content, or `->` and a link's target), and which of them are read, in order.
type Case = (&'static str, &'static [(&'static str, &'static str)], &'static [&'static str]);

const CASES: &[Case] = &[
    ("the main file alone", &[(MAIN, "[node]")], &[MAIN]),
    (
        "drop-ins by name, those of packages and programs before the main file, /etc's after it",
        &[
            ("etc/ciliate/conf.d/10-a.toml", "[node]"),
            ("run/ciliate/conf.d/20-b.toml", "[node]"),
            ("usr/lib/ciliate/conf.d/30-c.toml", "[node]"),
            ("usr/lib/ciliate/conf.d/05-d.toml", "[node]"),
            (MAIN, "[node]"),
        ],
        &[
            "usr/lib/ciliate/conf.d/05-d.toml",
            "run/ciliate/conf.d/20-b.toml",
            "usr/lib/ciliate/conf.d/30-c.toml",
            MAIN,
            "etc/ciliate/conf.d/10-a.toml",
        ],
    ),
    (
        "the same name in a higher directory hides the lower",
        &[
            ("usr/lib/ciliate/conf.d/a.toml", "[node]"),
            ("run/ciliate/conf.d/a.toml", "[node]"),
            ("etc/ciliate/conf.d/a.toml", "[node]"),
            ("usr/lib/ciliate/conf.d/b.toml", "[node]"),
            ("run/ciliate/conf.d/b.toml", "[node]"),
        ],
        &["run/ciliate/conf.d/b.toml", "etc/ciliate/conf.d/a.toml"],
    ),
    (
        "an empty file and a link to /dev/null hide it and are not read",
        &[
            ("usr/lib/ciliate/conf.d/a.toml", "[node]"),
            ("etc/ciliate/conf.d/a.toml", "-> /dev/null"),
            ("usr/lib/ciliate/conf.d/b.toml", "[node]"),
            ("run/ciliate/conf.d/b.toml", ""),
            ("usr/lib/ciliate/conf.d/c.toml", "[node]"),
        ],
        &["usr/lib/ciliate/conf.d/c.toml"],
    ),
    (
        "a mask can itself be hidden",
        &[
            ("usr/lib/ciliate/conf.d/a.toml", "[node]"),
            ("run/ciliate/conf.d/a.toml", "-> /dev/null"),
            ("etc/ciliate/conf.d/a.toml", "[node]"),
        ],
        &["etc/ciliate/conf.d/a.toml"],
    ),
    (
        "what editors and packages leave behind is ignored",
        &[
            (MAIN, "[node]"),
            ("etc/ciliate/conf.d/.a.toml", "["),
            ("etc/ciliate/conf.d/a.toml~", "["),
            ("etc/ciliate/conf.d/.#a.toml", "-> somebody@host.1234"),
            ("etc/ciliate/conf.d/#a.toml#", "["),
            ("etc/ciliate/conf.d/a.toml.dpkg-new", "["),
            ("etc/ciliate/conf.d/README", "["),
            ("etc/ciliate/other.toml", "["),
        ],
        &[MAIN],
    ),
    (
        "links are followed, as a ConfigMap mount needs",
        &[
            ("etc/ciliate/conf.d/..2026/k.toml", "[node]"),
            ("etc/ciliate/conf.d/..data", "-> ..2026"),
            ("etc/ciliate/conf.d/k.toml", "-> ..data/k.toml"),
        ],
        &["etc/ciliate/conf.d/k.toml"],
    ),
];

#[test]
fn files_are_read_as_systemd_would() {
    for (what, files, expected) in CASES {
        let scratch = Scratch::new();
        for (name, content) in *files {
            match content.strip_prefix("-> ") {
                Some(target) => scratch.link(name, target),
                None => {
                    scratch.write(name, content);
                }
            }
        }
        assert_eq!(&read_order(&scratch, &Search::under(scratch.path())), expected, "{what}");
    }
}

#[test]
fn a_path_replaces_the_search() {
    let scratch = Scratch::new();
    scratch.write("d/b.toml", "[routing]");
    scratch.write("d/a.toml", "[node]");
    scratch.write("d/sub/c.toml", "[");
    let file = scratch.write("x.conf", "[node]");
    assert_eq!(
        read_order(&scratch, &Search::path(scratch.path().join("d"))),
        ["d/a.toml", "d/b.toml"]
    );
    assert_eq!(read_order(&scratch, &Search::path(file)), ["x.conf"]);
}

/// What is said about a search that can't be read.
fn complaint(search: &Search) -> String {
    let document = Document::load(search);
    let diagnostics = intent::read(&document).unwrap_err();
    assert_eq!(diagnostics.len(), 1, "{}", render(document.sources(), &diagnostics, false));
    assert!(!document.is_whole());
    let located = locate(document.sources(), &diagnostics);
    assert!(located[0].help.is_some());
    format!("{}: {}", located[0].place.file.rsplit('/').next().unwrap(), located[0].place.message)
}

#[test]
fn what_is_not_a_file_is_refused_with_its_name() {
    let scratch = Scratch::new();
    let search = Search::under(scratch.path());
    assert_eq!(complaint(&search), "ciliate.toml: no configuration here");
    let missing = Search::path(scratch.path().join("none.toml"));
    assert_eq!(complaint(&missing), "none.toml: can't read this: no such file or directory");
    scratch.write("etc/ciliate/conf.d/dir.toml/x", "");
    assert_eq!(complaint(&search), "dir.toml: this is a directory, not a file");
    let path = scratch.path().join("fifo.toml");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from(0o600),
        0,
    )
    .unwrap();
    assert_eq!(complaint(&Search::path(path)), "fifo.toml: this is a FIFO, not a file");
    scratch.link("zero.toml", "/dev/zero");
    let zero = Search::path(scratch.path().join("zero.toml"));
    assert_eq!(complaint(&zero), "zero.toml: this is a device, not a file");
    scratch.link("dangling.toml", "nowhere");
    let dangling = Search::path(scratch.path().join("dangling.toml"));
    assert_eq!(complaint(&dangling), "dangling.toml: can't read this: no such file or directory");
}

#[test]
fn text_that_is_not_utf8_is_refused_where_it_begins() {
    let scratch = Scratch::new();
    let path = scratch.write("latin1.toml", b"# gr\n# gr\xfc\xdfe\n[");
    let document = Document::load(&Search::path(path));
    let located = locate(document.sources(), document.problems());
    assert_eq!(located.len(), 1);
    assert_eq!((located[0].place.line, located[0].place.column), (2, 5));
    assert_eq!(located[0].place.message, "this file is not UTF-8 text");
}

#[test]
fn a_file_has_a_largest_size() {
    let scratch = Scratch::new();
    let path = scratch.path().join("large.toml");
    File::create(&path).unwrap().set_len(limits::FILE_BYTES_MAX + 1).unwrap();
    assert_eq!(complaint(&Search::path(&path)), "large.toml: this file is larger than 16 MiB");
    // At the limit it is read: one long comment.
    let mut text = "#".repeat(limits::FILE_BYTES_MAX as usize);
    text.truncate(limits::FILE_BYTES_MAX as usize);
    let path = scratch.write("largest.toml", text);
    assert!(Document::load(&Search::path(path)).problems().is_empty());
}

#[test]
fn all_files_together_have_a_largest_size() {
    let scratch = Scratch::new();
    let comment = "#".repeat(limits::FILE_BYTES_MAX as usize);
    let first = scratch.write("d/00.toml", comment);
    let files = limits::DOCUMENT_BYTES_MAX / limits::FILE_BYTES_MAX;
    for n in 1..files {
        std::fs::hard_link(&first, scratch.path().join(format!("d/{n:02}.toml"))).unwrap();
    }
    let search = Search::path(scratch.path().join("d"));
    scratch.write("d/99.toml", "#");
    assert_eq!(
        complaint(&search),
        "99.toml: with this file the configuration is larger than 256 MiB"
    );
}

#[test]
fn an_unreadable_file_is_refused() {
    let scratch = Scratch::new();
    let path = scratch.write("secret.toml", "[node]");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o000)).unwrap();
    if File::open(&path).is_ok() {
        return; // Root may read everything.
    }
    assert_eq!(complaint(&Search::path(path)), "secret.toml: can't read this: permission denied");
}

#[test]
fn a_broken_file_does_not_cause_complaints_about_what_it_would_have_said() {
    let scratch = Scratch::new();
    scratch.write("d/10-node.toml", "[node]\ncidrs = [\"10.244.0.0/24\"\n");
    let endpoint = "[[endpoint]]\nname = \"a\"\nnetns = \"/run/netns/a\"\nadresses = []\n";
    scratch.write("d/20-endpoint.toml", endpoint);
    let document = Document::load(&Search::path(scratch.path().join("d")));
    let messages: Vec<_> =
        intent::read(&document).unwrap_err().into_iter().map(|problem| problem.message).collect();
    assert_eq!(messages.len(), 2, "{messages:?}");
}

#[test]
fn the_digest_changes_with_the_files() {
    let scratch = Scratch::new();
    let search = Search::path(scratch.path());
    let digest = || Document::load(&search).sources().digest();
    scratch.write("a.toml", "[node]");
    let first = digest();
    assert_eq!(first, digest());
    scratch.write("a.toml", "[node] ");
    assert_ne!(first, digest());
}
