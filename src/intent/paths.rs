//! `[paths]`, and paths in general.
//!
//! Pure: whether a path exists is not asked here.

use std::path::PathBuf;

use serde_spanned::Spanned;

use super::Paths;
use super::draft::Problems;
use super::limits::{PATH_BYTES_MAX, RUNTIME_PATH_BYTES_MAX};
use crate::config::{self, Diagnostic};

pub(super) fn read(section: Option<&Spanned<config::Paths>>, problems: &mut Problems) -> Paths {
    let empty = config::Paths::default();
    let paths = section.map_or(&empty, Spanned::get_ref);
    let written = [
        ("runtime", &paths.runtime),
        ("state", &paths.state),
        ("bpf", &paths.bpf),
        ("cgroup", &paths.cgroup),
    ];
    let mut seen: Vec<(&str, &Spanned<String>)> = Vec::new();
    for (key, path) in written.iter().filter_map(|(key, path)| Some((*key, path.as_ref()?))) {
        let same = |(_, other): &&(&str, &Spanned<String>)| {
            cleaned(other.get_ref()) == cleaned(path.get_ref())
        };
        if let Some((other, earlier)) = seen.iter().find(same) {
            let problem =
                Diagnostic::new(path, format!("`{key}` and `{other}` are the same directory"));
            problems.push(
                problem.related(*earlier, "the other one").help("give each a directory of its own"),
            );
        }
        seen.push((key, path));
    }
    let mut path = |at: usize, default: &str, bytes_max: usize| {
        let (key, written) = written[at];
        let read = written
            .as_ref()
            .filter(|path| absolute(path, &format!("`{key}`"), bytes_max, problems));
        PathBuf::from(read.map_or(default, |path| path.get_ref().as_str()))
    };
    Paths {
        runtime: path(0, "/run/ciliate", RUNTIME_PATH_BYTES_MAX),
        state: path(1, "/var/lib/ciliate", PATH_BYTES_MAX),
        bpf: path(2, "/sys/fs/bpf/ciliate", PATH_BYTES_MAX),
        cgroup: path(3, "/sys/fs/cgroup", PATH_BYTES_MAX),
    }
}

/// True for an absolute path that names what it seems to name; if not, complains.
pub(super) fn absolute(
    path: &Spanned<String>,
    what: &str,
    bytes_max: usize,
    problems: &mut Problems,
) -> bool {
    let text = path.get_ref();
    let problem = if !text.starts_with('/') {
        Diagnostic::new(path, format!("{what} has to be an absolute path"))
            .help("begin it with `/`: a service has no working directory to start from")
    } else if text.len() > bytes_max {
        Diagnostic::new(path, format!("{what} is too long: {} bytes", text.len()))
            .help(format!("this path has at most {bytes_max} bytes"))
    } else if text.chars().any(char::is_control) {
        Diagnostic::new(path, format!("{what} has a control character in it")).help("remove it")
    } else if text.split('/').any(|part| part == "..") {
        Diagnostic::new(path, format!("{what} can't have `..` in it"))
            .help("write the path without it, so that a link can't change what it means")
    } else if cleaned(text).is_empty() {
        Diagnostic::new(path, format!("{what} can't be the root directory"))
            .help("give a directory of its own")
    } else {
        return true;
    };
    problems.push(problem);
    false
}

/// A path without empty and `.` components, and with `/var/run` under its real name: equal for paths
/// that can be seen to be equal.
pub(super) fn cleaned(path: &str) -> String {
    let parts = path.split('/').filter(|part| !part.is_empty() && *part != ".");
    let clean: String = parts.flat_map(|part| ["/", part]).collect();
    match clean.strip_prefix("/var/run/") {
        Some(rest) => format!("/run/{rest}"),
        None => clean,
    }
}

#[cfg(test)]
mod tests {
    use super::cleaned;

    #[test]
    fn equal_paths_are_seen_to_be_equal() {
        for path in ["/run/netns/a", "//run///netns/./a/", "/var/run/netns/a"] {
            assert_eq!(cleaned(path), "/run/netns/a");
        }
        assert_eq!(cleaned("/"), "");
        assert_eq!(cleaned("/var/running"), "/var/running");
    }
}
