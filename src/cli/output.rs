//! Where output goes: standard output for results, standard error for complaints and progress.

use std::io::{self, BufWriter, IsTerminal, Stdout, Write, stderr, stdout};
use std::time::{Duration, Instant};

use super::{ColourChoice, diagnostics_text};
use crate::engine::Invalid;

/// Work that takes longer gets a progress line on a terminal.
const PROGRESS_AFTER: Duration = Duration::from_secs(1);

const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const RED: &str = "\x1b[31m";
const BOLD: &str = "\x1b[1m";
const RESET: &str = "\x1b[0m";

/// The program's output.
pub struct Output {
    out: BufWriter<Stdout>,
    colour_out: bool,
    colour_err: bool,
}

impl Output {
    pub fn new(choice: ColourChoice) -> Self {
        let auto = |terminal: bool| terminal && std::env::var_os("NO_COLOR").is_none();
        let decide = |terminal: bool| match choice {
            ColourChoice::Always => true,
            ColourChoice::Never => false,
            ColourChoice::Auto => auto(terminal),
        };
        Self {
            out: BufWriter::new(stdout()),
            colour_out: decide(stdout().is_terminal()),
            colour_err: decide(stderr().is_terminal()),
        }
    }

    /// One line of a result.
    pub fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{text}")
    }

    /// Lines of a result.
    pub fn text(&mut self, lines: &str) -> io::Result<()> {
        self.out.write_all(lines.as_bytes())
    }

    /// A line of a plan, coloured by its verb.
    pub fn plan_line(&mut self, text: &str) -> io::Result<()> {
        if !self.colour_out {
            return self.line(text);
        }
        let colour = match text.split(' ').next() {
            Some("+") => GREEN,
            Some("-" | "!") => RED,
            _ => YELLOW,
        };
        writeln!(self.out, "{colour}{text}{RESET}")
    }

    /// A heading.
    pub fn heading(&mut self, text: &str) -> io::Result<()> {
        if self.colour_out { writeln!(self.out, "{BOLD}{text}{RESET}") } else { self.line(text) }
    }

    /// A JSON document.
    pub fn json(&mut self, value: &impl serde::Serialize) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut self.out, value)?;
        writeln!(self.out)
    }

    /// Everything so far is out.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// An error, to standard error.
    pub fn complain(&mut self, text: &str) {
        let _ = self.out.flush();
        let (start, end) = if self.colour_err { (RED, RESET) } else { ("", "") };
        let _ = writeln!(stderr(), "{start}error{end}: {text}");
    }

    /// What is no error and no result either, to standard error.
    pub fn note(&mut self, text: &str) {
        let _ = self.out.flush();
        let _ = writeln!(stderr(), "{text}");
    }

    /// What is wrong with the configuration, to standard error.
    pub fn diagnostics(&mut self, invalid: &Invalid) {
        let _ = self.out.flush();
        let _ = write!(stderr(), "{}", diagnostics_text(invalid, self.colour_err));
    }

    /// A progress line for long work.
    pub fn progress(&self) -> Progress {
        Progress { start: Instant::now(), terminal: stderr().is_terminal(), shown: false }
    }
}

/// `done/total` on one line of a terminal, once the work takes longer than a second.
pub struct Progress {
    start: Instant,
    terminal: bool,
    shown: bool,
}

impl Progress {
    pub fn tick(&mut self, done: usize, total: usize) {
        if self.terminal && self.start.elapsed() >= PROGRESS_AFTER {
            self.shown = true;
            let _ = write!(stderr(), "\r{done}/{total} changes");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            let _ = writeln!(stderr());
        }
    }
}

/// Rows under headings, columns as wide as their widest cell, three spaces apart.
pub fn table(headings: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let mut widths: Vec<usize> = headings.iter().map(|heading| heading.len()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &[String]| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        padded.collect::<Vec<_>>().join("   ").trim_end().to_string()
    };
    let headings: Vec<String> = headings.iter().map(ToString::to_string).collect();
    std::iter::once(line(&headings)).chain(rows.iter().map(|row| line(row))).collect()
}
