//! What is kept from every child: tokens, settings, state, and what the operator hides.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::place::{self, unless_absent};

/// What nobody may open: by path, and by identity, since a volume may be mounted in two places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hidden {
    paths: BTreeSet<PathBuf>,
    identities: BTreeSet<(u64, u64)>,
}

impl Hidden {
    /// As these paths are now. An error is one that cannot be looked at, and may be there: by another name it would be open.
    pub(super) fn new(paths: &[PathBuf]) -> io::Result<Hidden> {
        let mut hidden = Hidden { paths: BTreeSet::new(), identities: BTreeSet::new() };
        for path in paths {
            hidden.add(path)?;
            if let Some(real) = place::meaning(path)? {
                if real != *path {
                    hidden.add(&real)?;
                }
                hidden.add_projected_volume(&real)?;
            }
        }
        Ok(hidden)
    }

    fn add(&mut self, path: &Path) -> io::Result<()> {
        self.paths.insert(path.into());
        if let Some(meta) = unless_absent(path.metadata())? {
            self.identities.insert((meta.dev(), meta.ino()));
        }
        Ok(())
    }

    /// The kubelet rotates a projected token by making a new timestamped directory beside `..data`: what is hidden
    /// is the volume, or the next token would be readable.
    fn add_projected_volume(&mut self, real: &Path) -> io::Result<()> {
        for volume in real.ancestors().skip(1) {
            if unless_absent(volume.join("..data").symlink_metadata())?.is_some() {
                return self.add(volume);
            }
        }
        Ok(())
    }

    /// Whether this is one of them, or cannot be told.
    pub(super) fn is(&self, path: &Path) -> bool {
        self.paths.contains(path)
            || path.metadata().map_or(true, |meta| self.identities.contains(&(meta.dev(), meta.ino())))
    }

    /// Whether one of them is beneath `directory`.
    pub(super) fn has_beneath(&self, directory: &Path) -> bool {
        self.paths.iter().any(|hidden| hidden != directory && hidden.starts_with(directory))
    }
}
