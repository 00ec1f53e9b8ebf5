//! The date of one process, changed while it runs: nobody can change the machine's without changing everybody's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a program is started with.
pub struct Date {
    library: PathBuf,
    file: PathBuf,
}

impl Date {
    /// In this directory; the true date at first.
    #[track_caller]
    pub fn new(directory: &Path) -> Date {
        let (library, file) = (directory.join("date.so"), directory.join("date"));
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/date.c");
        let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).status();
        assert!(built.expect("a C compiler, which Rust needs too").success());
        let date = Date { library, file };
        date.ahead(0);
        date
    }

    /// Variables of the program.
    pub fn variables(&self) -> [(&'static str, String); 2] {
        [("LD_PRELOAD", self.library.display().to_string()), ("DATE_FILE", self.file.display().to_string())]
    }

    /// So many seconds before or after the true date from now on.
    #[track_caller]
    pub fn ahead(&self, seconds: i64) {
        use std::os::unix::fs::FileExt;
        // In place: the program has it mapped.
        let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(&self.file);
        file.and_then(|file| file.write_all_at(&seconds.to_ne_bytes(), 0)).expect("our own directory");
    }
}
