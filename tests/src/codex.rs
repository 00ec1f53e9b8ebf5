//! A real coding agent, as npm has it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Codex where `just images` puts it, fetched where it is not; `None`, and why, where npm cannot be reached.
pub fn program() -> Option<PathBuf> {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let recipes = fs::read_to_string(root.join("justfile")).expect("the justfile");
    let line = recipes.lines().find_map(|line| line.strip_prefix("codex_version := ")).expect("a pinned version");
    let fetched = Command::new(root.join("images/sandbox/fetch-codex"))
        .args([line.trim_matches('"'), "dist/codex"])
        .current_dir(root)
        .stdin(Stdio::null())
        .output()
        .expect("bash");
    if !fetched.status.success() {
        println!("skipped: codex cannot be fetched: {}", String::from_utf8_lossy(&fetched.stderr));
        return None;
    }
    Some(root.join("dist/codex/bin/codex").canonicalize().expect("it was just fetched"))
}
