//! Every `tests/config/bad/<name>.toml`, or directory `<name>/`, is refused with the text in
//! `<name>.txt`, letter by letter.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use ciliate::config::{Document, Search, render};
use ciliate::intent;

const BAD: &str = "tests/config/bad";

/// Fewer would mean that fixtures have gone missing.
const FIXTURES_MIN: usize = 80;

#[test]
fn every_bad_input_is_refused_with_the_expected_words() {
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let names: BTreeSet<String> = fs::read_dir(BAD)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert!(names.len() >= FIXTURES_MIN, "only {} fixtures", names.len());
    let mut failures = Vec::new();
    for name in &names {
        let file = Path::new(BAD).join(format!("{name}.toml"));
        let input = if file.exists() { file } else { Path::new(BAD).join(name) };
        assert!(input.exists(), "{name}.txt has no input");
        let document = Document::load(&Search::path(&input));
        let Err(diagnostics) = intent::read(&document) else {
            failures.push(format!("{name}: nothing is wrong with it"));
            continue;
        };
        let found = render(document.sources(), &diagnostics, false);
        let expected = Path::new(BAD).join(format!("{name}.txt"));
        if update {
            fs::write(&expected, &found).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != found {
            failures.push(format!("{name}: not as expected:\n{found}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
