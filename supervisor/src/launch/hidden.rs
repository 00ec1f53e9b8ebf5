//! What is kept from every child: tokens, settings, state, and what the operator hides.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::place;

/// What nobody may open: by path, and by identity, since a volume may be mounted in two places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hidden {
    paths: BTreeSet<PathBuf>,
    identities: BTreeSet<(u64, u64)>,
}

impl Hidden {
    /// As these paths are now.
    pub(super) fn new(paths: &[PathBuf]) -> Hidden {
        let mut hidden = Hidden { paths: BTreeSet::new(), identities: BTreeSet::new() };
        for path in paths {
            hidden.add(path);
            if let Some(real) = place::canonical(path) {
                if real != *path {
                    hidden.add(&real);
                }
                hidden.add_projected_volume(&real);
            }
        }
        hidden
    }

    fn add(&mut self, path: &Path) {
        self.paths.insert(path.into());
        if let Ok(meta) = path.metadata() {
            self.identities.insert((meta.dev(), meta.ino()));
        }
    }

    /// The kubelet rotates a projected token by making a new timestamped directory beside `..data`: what is hidden
    /// is the volume, or the next token would be readable.
    fn add_projected_volume(&mut self, real: &Path) {
        let volume = real.ancestors().skip(1).find(|a| a.join("..data").symlink_metadata().is_ok());
        if let Some(volume) = volume {
            self.add(volume);
        }
    }

    /// Whether this is one of them.
    pub(super) fn is(&self, path: &Path) -> bool {
        self.paths.contains(path)
            || path.metadata().is_ok_and(|meta| self.identities.contains(&(meta.dev(), meta.ino())))
    }

    /// Whether one of them is beneath `directory`.
    pub(super) fn has_beneath(&self, directory: &Path) -> bool {
        self.paths.iter().any(|hidden| hidden != directory && hidden.starts_with(directory))
    }
}
