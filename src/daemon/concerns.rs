//! Which changes of files can matter. Imports `config` for what it reads; does no I/O.
//!
//! Much happens in the watched folders that is no concern of ours, and some of it is our own doing: a log
//! that is written beside the configuration must not make us read that, and say so in the log.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use crate::config::Search;

/// What to look out for.
#[derive(Debug, Default)]
pub struct Concerns {
    /// The folders that are watched, there or not.
    pub folders: BTreeSet<PathBuf>,
    /// Of these, the ones in which everything matters.
    pub whole: BTreeSet<PathBuf>,
    /// Names in the others that matter: on the way of a link, or the control socket.
    pub names: BTreeSet<PathBuf>,
    /// Where the configuration is, in absolute paths.
    pub search: Option<Search>,
}

impl Concerns {
    /// Whether an event is about something that matters. One without paths says that events were lost.
    pub fn touched(&self, paths: &[PathBuf]) -> bool {
        paths.is_empty() || paths.iter().any(|path| self.about(path))
    }

    fn about(&self, path: &Path) -> bool {
        // Of all that sort after a path, what is below it comes first.
        let mut after = self.folders.range::<Path, _>((Bound::Included(path), Bound::Unbounded));
        after.next().is_some_and(|folder| folder.starts_with(path))
            || path.parent().is_some_and(|parent| self.whole.contains(parent))
            || self.names.contains(path)
            || self.search.as_ref().is_some_and(|search| search.reads(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths<const N: usize>(paths: [&str; N]) -> BTreeSet<PathBuf> {
        BTreeSet::from(paths.map(PathBuf::from))
    }

    #[test]
    fn folders_what_is_in_them_and_the_way_to_them() {
        let concerns = Concerns {
            folders: paths(["/etc/ciliate", "/etc/ciliate/conf.d", "/run/netns", "/run/ciliate"]),
            whole: paths(["/run/netns"]),
            names: paths(["/etc/ciliate/conf.d/..data", "/run/ciliate/ciliate.sock"]),
            search: Some(Search::system()),
        };
        for (path, expected) in [
            ("/etc/ciliate/ciliate.toml", true),
            ("/etc/ciliate/conf.d", true),
            ("/etc/ciliate", true),
            ("/etc", true),
            ("/etc/ciliate/conf.d/a.toml", true),
            ("/etc/ciliate/conf.d/..data", true),
            ("/run/netns/client", true),
            ("/run/ciliate/ciliate.sock", true),
            ("/run", true),
            ("/etc/ciliate/other.toml", false),
            ("/etc/ciliate/log", false),
            ("/etc/ciliate/conf.d/log", false),
            ("/etc/ciliate/conf.d/a.toml~", false),
            ("/etc/ciliate/conf.d/..other", false),
            ("/etc/ciliate/conf.d/deeper/a.toml", false),
            ("/run/netns/deeper/client", false),
            ("/run/ciliate/lock", false),
            ("/etc/passwd", false),
            ("/etc/ciliate.toml", false),
        ] {
            assert_eq!(concerns.touched(&[PathBuf::from(path)]), expected, "{path}");
        }
        assert!(concerns.touched(&[]), "lost events");
    }

    #[test]
    fn a_named_file_or_folder() {
        let touched = |named: &str, path: &str| {
            let search = Some(Search::path(named));
            Concerns { search, ..Concerns::default() }.touched(&[PathBuf::from(path)])
        };
        assert!(touched("/srv/node.conf", "/srv/node.conf"));
        assert!(!touched("/srv/node.toml", "/srv/log"));
        assert!(!touched("/srv/node.toml", "/srv/other.toml"));
        assert!(touched("/srv/node", "/srv/node/a.toml"));
        assert!(!touched("/srv/node", "/srv/node/log"));
    }
}
