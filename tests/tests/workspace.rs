//! Workspaces through the API: seeds, files, artifacts, patches; what an agent plants there leads nowhere.

#[path = "workspace/files.rs"]
mod files;
#[path = "workspace/patch.rs"]
mod patch;
#[path = "workspace/seeds.rs"]
mod seeds;

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use tests::repository::{commit, run};
use tests::stage::Profile;
use tests::supervisor::{Builder, Supervisor};
use tests::tasks::Api;

/// A supervisor without an agent, as somebody who has no privilege at all.
fn supervisor() -> Builder {
    Supervisor::new().token().profile(Profile::Restricted)
}

fn api() -> (Supervisor, Api) {
    let supervisor = supervisor().start();
    let api = Api::of(&supervisor);
    (supervisor, api)
}

/// A git repository with a few files, made anew; only the files where there is no git.
fn repository(at: &Path) -> PathBuf {
    let path = at.join("repository");
    fs::create_dir_all(path.join("src")).expect("our own directory");
    fs::write(path.join("README.md"), "one\ntwo\nthree\n").expect("our own file");
    fs::write(path.join("src/data.bin"), [0, 159, 146, 150, 0]).expect("our own file");
    fs::write(path.join("src/gone.txt"), "gone\n").expect("our own file");
    std::os::unix::fs::symlink("../README.md", path.join("src/link")).expect("our own link");
    if tests::needs::commands(&["git"]) {
        commit(&path);
    }
    path
}

/// A directory as the archive that a client would make of it.
fn archive(of: &Path) -> Vec<u8> {
    run(of, "tar", &["-cz", "."])
}

fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
