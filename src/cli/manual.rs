//! `ciliate manual`: the manual pages, from the command line's types and the configuration's schema.
//!
//! clap_mangen writes what clap knows of a command; it is by clap's own project and follows its changes. Its
//! `roff` escapes text and writes the page about the configuration.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

use super::{EXIT_OK, Failure, Output};
use crate::config::{Key, reference};

/// Write the manual pages to a folder: one for each command, and ciliate.toml(5)
#[derive(Debug, clap::Args)]
#[command(after_help = "For example: ciliate manual /usr/local/share/man")]
pub struct Arguments {
    /// Folder in which man5 and man8 are made
    folder: PathBuf,
}

/// Programs of the system administrator.
const COMMANDS: &str = "8";
/// File formats.
const FILES: &str = "5";

/// Where what is on a node, as systemd and packages have it.
const PLACES: &[(&str, &str)] = &[
    ("/etc/ciliate/ciliate.toml, /etc/ciliate/conf.d/*.toml", "The configuration."),
    ("/usr/lib/ciliate/conf.d/*.toml, /run/ciliate/conf.d/*.toml", "What it goes over."),
    ("/run/ciliate/ciliate.sock", "The daemon's control socket."),
    ("/sys/fs/bpf/ciliate", "Pins of BPF programs, maps and links."),
];

pub fn run(arguments: &Arguments, output: &mut Output) -> Result<u8, Failure> {
    let mut command = super::Arguments::command().disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    pages_of(&command, &mut pages)?;
    pages.push(("man5/ciliate.toml.5".into(), page_of_the_configuration()));
    for (name, text) in pages {
        write(&arguments.folder.join(&name), &text)?;
        output.line(&name)?;
    }
    Ok(EXIT_OK)
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let failed = |error| Failure::Error(format!("write {}: {error}", path.display()));
    path.parent().map_or(Ok(()), fs::create_dir_all).map_err(failed)?;
    fs::write(path, text).map_err(failed)
}

fn version() -> String {
    format!("ciliate {}", env!("CARGO_PKG_VERSION"))
}

/// The pages of a command and of those below it, by file name.
fn pages_of(command: &Command, pages: &mut Vec<(String, String)>) -> Result<(), Failure> {
    for below in command.get_subcommands() {
        pages_of(below, pages)?;
    }
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let top = name == "ciliate";
    // Of the version that every page has in its footer once is enough.
    let man = Man::new(command.clone().disable_version_flag(!top)).section(COMMANDS);
    let man = man.title(name.as_str()).source(version()).manual("ciliate").date("");
    let mut text = Vec::new();
    man.render(&mut text)?;
    let mut end = Roff::new();
    if top {
        end.control("SH", ["FILES"]);
        for (place, meaning) in PLACES {
            entry(&mut end, vec![bold(*place)], meaning);
        }
    }
    end.control("SH", ["SEE ALSO"]);
    let others = if top { "systemctl(1)" } else { "ciliate(8)" };
    end.text([roman(format!("{others}, ciliate.toml(5)"))]);
    let text = String::from_utf8_lossy(&text).into_owned() + &end.render();
    pages.push((format!("man8/{name}.8"), text));
    Ok(())
}

/// ciliate.toml(5).
fn page_of_the_configuration() -> String {
    let mut page = Roff::new();
    let (name, version) = ("ciliate.toml", version());
    page.control("TH", [name, FILES, "", &version, "ciliate"]);
    page.control("SH", ["NAME"]);
    page.text([roman(format!("{name} - what a host's part of the network should be"))]);
    page.control("SH", ["SYNOPSIS"]);
    for (places, _) in &PLACES[..2] {
        for place in places.split(", ") {
            page.text([bold(place)]).control("br", []);
        }
    }
    page.control("SH", ["DESCRIPTION"]);
    for paragraph in [
        "Sections of all files are merged key by key; what is read later wins: conf.d of `/usr/lib/ciliate` \
         and `/run/ciliate`, then `/etc/ciliate/ciliate.toml`, then conf.d of `/etc/ciliate`, each by file \
         name. `[[peer]]` and `[[endpoint]]` tables of all files are joined. Of drop-ins with the same name \
         only one is read, /etc over /run over /usr/lib; an empty one, or a link to /dev/null, hides the \
         others.",
        "An unknown key is an error. A configuration with an error is refused as a whole, and a running \
         daemon keeps the last good one. `ciliate check` shows every mistake with its file and line, \
         `ciliate cat-config` what all files make together.",
    ] {
        page.text(inlines(paragraph)).control("PP", []);
    }
    for section in reference() {
        page.control("SH", [section.header.as_str()]).text(inlines(&section.about));
        for Key { name, kind, default, meaning } in section.keys {
            let head = vec![bold(name), roman(" = "), italic(kind.replace('`', ""))];
            let default = match default.as_str() {
                "" => String::new(),
                "required" => " Required.".to_owned(),
                default => format!(" Default: {default}."),
            };
            entry(&mut page, head, &(meaning + &default));
        }
    }
    page.control("SH", ["SEE ALSO"]);
    page.text([roman("ciliate(8), ciliate-check(8), ciliate-cat-config(8)")]);
    page.render()
}

/// A paragraph with a heading of its own.
fn entry(page: &mut Roff, head: Vec<Inline>, text: &str) {
    page.control("TP", []).text(head).text(inlines(text));
}

/// Text with what is between backticks in bold.
fn inlines(text: &str) -> Vec<Inline> {
    let parts = text.split('`').enumerate();
    parts.map(|(at, part)| if at % 2 == 0 { roman(part) } else { bold(part) }).collect()
}
