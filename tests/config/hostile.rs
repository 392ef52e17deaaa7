//! Whatever bytes a file holds: no panic, and every place that is named lies inside its file.

use ciliate::config::{Document, Search, Sources, Span, cat_config, locate, render};
use ciliate::intent;
use proptest::prelude::*;

use crate::good_inputs::CONTRACT;
use crate::scratch::Scratch;

fn inside(sources: &Sources, span: Span) -> bool {
    sources.source(span).is_some_and(|source| {
        let file = source.span();
        file.start <= span.start && span.start <= span.end && span.end <= file.end
    })
}

fn survives(document: &Document) -> Result<(), TestCaseError> {
    let sources = document.sources();
    if let Err(problems) = intent::read(document) {
        prop_assert!(!problems.is_empty());
        for problem in &problems {
            prop_assert!(inside(sources, problem.span), "{problem:?}");
            prop_assert!(
                problem.related.iter().all(|(span, _)| inside(sources, *span)),
                "{problem:?}"
            );
            prop_assert!(!problem.message.is_empty());
        }
        prop_assert_eq!(locate(sources, &problems).len(), problems.len());
        render(sources, &problems, true);
    }
    if document.is_whole() && document.problems().is_empty() {
        let again = Document::of_texts([("again.toml", cat_config(document))]);
        prop_assert!(again.problems().is_empty(), "{:?}", again.problems());
        prop_assert_eq!(again.root(), document.root());
    }
    Ok(())
}

/// The contract with a few edits: pieces removed, doubled, swapped, or replaced by other tokens.
fn mutated() -> impl Strategy<Value = String> {
    let token = prop::sample::select(vec![
        "\"",
        "'",
        "\"\"\"",
        "[",
        "]",
        "[[",
        "]]",
        "{",
        "}",
        "=",
        ".",
        ",",
        "#",
        "\n",
        "\r\n",
        "\0",
        "\u{feff}",
        "ü",
        "漢",
        "[node]",
        "[[peer]]",
        "name",
        "1",
        "-1",
        "1.5",
        "true",
        "1979-05-27",
        "::",
        "/",
        "10.0.0.0/8",
        "99999999999999999999",
        "\\u0000",
        " ",
        "endpoint.labels",
    ]);
    let edit = (any::<prop::sample::Index>(), 0..30_usize, token);
    prop::collection::vec(edit, 1..8).prop_map(|edits| {
        let mut text = CONTRACT.to_owned();
        for (index, length, token) in edits {
            let at = text.floor_char_boundary(index.index(text.len().max(1)));
            let end = text.floor_char_boundary((at + length).min(text.len()));
            text.replace_range(at..end.max(at), token);
        }
        text
    })
}

/// TOML that parses, with the right names and any values.
fn plausible() -> impl Strategy<Value = String> {
    let key = prop::sample::select(vec![
        "name",
        "addresses",
        "cidrs",
        "routers",
        "devices",
        "mode",
        "mtu",
        "table",
        "netns",
        "pid",
        "labels",
        "identity",
        "ifname",
        "mac",
        "native-cidrs",
        "runtime",
        "rule-priority",
        "addreses",
    ]);
    let address = prop::sample::select(vec![
        "10.244.0.0/24",
        "10.244.0.1",
        "10.244.0.1/24",
        "fd00::/64",
        "fd00::1",
        "::1",
        "0.0.0.0/0",
        "x",
        "",
        "/run/netns/a",
        "native",
        "02:00:00:00:00:01",
        "10.244.0.0/8",
        "255.255.255.255/32",
        "ffff::/1",
    ]);
    let value = prop_oneof![
        address.clone().prop_map(|text| format!("\"{text}\"")),
        any::<i64>().prop_map(|number| number.to_string()),
        prop::collection::vec(address, 0..5).prop_map(|list| format!("{list:?}")),
        "[a-z ]{0,4}".prop_map(|text| format!("{{ \"{text}\" = \"{text}\" }}")),
    ];
    let header = prop::sample::select(vec![
        "[node]",
        "[routing]",
        "[paths]",
        "[[peer]]",
        "[[endpoint]]",
        "[x]",
    ]);
    let section = (header, prop::collection::btree_map(key, value, 0..6));
    prop::collection::vec(section, 0..6).prop_map(|sections| {
        let lines = sections.into_iter().map(|(header, keys)| {
            let keys: String =
                keys.into_iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
            format!("{header}\n{keys}")
        });
        lines.collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let scratch = Scratch::new();
        let path = scratch.write("x.toml", &bytes);
        survives(&Document::load(&Search::path(path)))?;
    }

    #[test]
    fn any_text(text in "\\PC{0,200}") {
        survives(&Document::of_texts([("x.toml", text)]))?;
    }

    #[test]
    fn edited_contract(first in mutated(), second in mutated()) {
        survives(&Document::of_texts([("a.toml", first), ("b.toml", second)]))?;
    }

    #[test]
    fn plausible_sections(first in plausible(), second in plausible()) {
        survives(&Document::of_texts([("a.toml", first), ("b.toml", second)]))?;
    }
}

#[test]
fn deep_nesting_and_very_long_lines_are_survived() {
    for text in [
        "[".repeat(100_000),
        "a.".repeat(50_000),
        format!("x = {}", "[".repeat(100_000)),
        format!("x = {}", "{a=".repeat(50_000)),
        "\"".repeat(99_999),
        "=".repeat(100_000),
    ] {
        survives(&Document::of_texts([("x.toml", text)])).unwrap();
    }
}
