//! Every page: its links, its commands, its configurations, the tests it names.

use std::fs;

use ciliate::cli::Arguments;
use ciliate::config::{Document, render};
use ciliate::intent;
use clap::Parser;

use crate::text::{PAGES, blocks, code, links, path, read};

#[test]
fn links_lead_to_files() {
    for page in PAGES {
        let page_path = path(page);
        let folder = page_path.parent().expect("a folder");
        for target in links(&read(page)) {
            assert!(folder.join(&target).exists(), "{page}: {target}");
        }
    }
}

/// The words of `ciliate …`, in a line of a block or between backticks.
fn command(line: &str) -> Option<Vec<String>> {
    let line = line.trim().trim_start_matches(['$', '#', ' ']);
    let line = line.strip_prefix("sudo ").unwrap_or(line);
    let words: Vec<&str> = line.split("  #").next()?.split_whitespace().collect();
    (words.first() == Some(&"ciliate") && words.len() > 1)
        .then(|| words.into_iter().map(str::to_owned).collect())
}

#[test]
fn commands_are_understood() {
    let mut count = 0;
    for page in PAGES {
        let text = read(page);
        let spans = code(&text);
        let lines = blocks(&text, "console").into_iter().chain(blocks(&text, "sh"));
        let lines: Vec<String> =
            lines.flat_map(|block| block.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
        // In a block with output, `$` marks what is typed.
        let typed = lines.iter().filter(|line| line.starts_with(['$', '#']));
        for line in typed.chain(&spans) {
            let Some(words) = command(line) else { continue };
            if words.iter().any(|word| word.contains('…') || word == "…") {
                continue;
            }
            count += 1;
            if let Err(error) = Arguments::try_parse_from(&words) {
                use clap::error::ErrorKind::{DisplayHelp, DisplayVersion};
                let fine = [DisplayHelp, DisplayVersion].contains(&error.kind());
                assert!(fine, "{page}: {line}: {error}");
            }
        }
    }
    assert!(count > 10, "only {count} commands found");
}

#[test]
fn configurations_are_valid() {
    for page in PAGES {
        for (at, block) in blocks(&read(page), "toml").into_iter().enumerate() {
            let document = Document::of_texts([(format!("{page}:{at}"), block)]);
            if let Err(problems) = intent::read(&document) {
                panic!("{}", render(document.sources(), &problems, false));
            }
        }
    }
}

/// The file and function of a test that is named as `binary::module::function`.
fn test_exists(name: &str) -> Option<bool> {
    let parts: Vec<&str> = name.split("::").collect();
    let [binary, modules @ .., function] = parts.as_slice() else { return None };
    let root = match *binary {
        "architecture" | "bpf" | "cli" | "config" | "docs" | "kubernetes" | "netns"
        | "properties" => {
            format!("tests/{binary}")
        }
        "ciliate" => "src".to_owned(),
        // A script, whose functions are the steps.
        "package" => "tests/package".to_owned(),
        _ => return None,
    };
    let modules: Vec<&str> = modules.iter().copied().filter(|module| *module != "tests").collect();
    if modules.is_empty() {
        return None;
    }
    let file = format!("{root}/{}", modules.join("/"));
    let candidates = [format!("{file}.rs"), format!("{file}/mod.rs"), format!("{file}.sh")];
    let text = candidates.iter().find_map(|file| fs::read_to_string(path(file)).ok());
    let defined = |text: String| {
        text.contains(&format!("fn {function}(")) || text.contains(&format!("\n{function}() {{\n"))
    };
    Some(text.is_some_and(defined))
}

#[test]
fn named_tests_exist() {
    let mut count = 0;
    for page in PAGES {
        for name in code(&read(page)) {
            if name.chars().all(|c| c.is_ascii_alphanumeric() || "_:".contains(c))
                && let Some(exists) = test_exists(&name)
            {
                count += 1;
                assert!(exists, "{page}: there is no test {name}");
            }
        }
    }
    assert!(count > 20, "only {count} tests named");
}

#[test]
fn the_readme_names_every_command() {
    use clap::CommandFactory;
    let table = crate::text::table(&read("README.md"), "| command | does | exit code |");
    let commands = Arguments::command();
    for command in commands.get_subcommands().map(clap::Command::get_name) {
        let named = |row: &Vec<String>| row[0].split_whitespace().nth(1) == Some(command);
        assert!(command == "help" || table.iter().any(named), "README.md: {command}");
    }
}

#[test]
fn the_mistake_in_the_readme_is_shown_like_that() {
    let text = read("README.md");
    let configuration = blocks(&text, "toml").remove(0) + "addresses = [\"10.244.1.5\"]\n";
    let document = Document::of_texts([("/etc/ciliate/ciliate.toml", configuration)]);
    let problems = intent::read(&document).expect_err("a mistake");
    let said = render(document.sources(), &problems, false);
    assert!(blocks(&text, "text").contains(&said), "{said}");
}

#[test]
fn every_file_with_netns_tests_has_a_row() {
    let named = code(&read("tests/README.md"));
    let mut count = 0;
    for entry in fs::read_dir(path("tests/netns")).expect("a folder") {
        let file = entry.expect("an entry").path();
        let mut name = file.file_name().expect("a name").to_string_lossy().into_owned();
        let mut has_tests = file.is_dir();
        if has_tests {
            name.push('/');
        } else {
            let text = fs::read_to_string(&file).expect("a file of tests");
            has_tests = text.contains("#[test]");
        }
        if has_tests {
            count += 1;
            assert!(named.contains(&name), "tests/README.md does not say what {name} shows");
        }
    }
    assert!(count > 10, "only {count} files found");
}

/// Every section of a tutorial with commands is typed by the package tier, which reads them from the page.
#[test]
fn tutorials_are_typed_by_the_package_tier() {
    let steps = ["lifecycle", "boot_order", "from_keepalived"]
        .map(|name| read(&format!("tests/package/{name}.sh")))
        .concat();
    // What the steps call a page.
    for (page, named) in [("two-machines", "/two-machines.md"), ("from-keepalived", "$PAGE")] {
        let tutorial = read(&format!("docs/{page}.md"));
        let sections = tutorial.split("\n## ").skip(1).filter(|text| text.contains("```console"));
        let names: Vec<&str> = sections.filter_map(|text| text.lines().next()).collect();
        assert!(names.len() > 4, "{names:?}");
        for name in names {
            let typed = [format!("run_typed {name} "), format!("run_typed '{name}' ")];
            let is_typed =
                |line: &str| line.contains(named) && typed.iter().any(|typed| line.contains(typed));
            assert!(steps.lines().any(is_typed), "{page}: nobody types {name}");
        }
    }
    assert!(steps.contains("PAGE=$debs/from-keepalived.md"));
}
