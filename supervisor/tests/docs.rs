//! The docs say what the program does.

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the workspace")
}

fn pages(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in folder.read_dir().expect("docs").flatten() {
        let path = entry.path();
        if path.is_dir() {
            pages(&path, found);
        } else if path.extension().is_some_and(|e| e == "md") {
            found.push(path);
        }
    }
}

#[test]
fn configuration_md_has_the_table_that_the_program_prints() {
    let printed = std::process::Command::new(env!("CARGO_BIN_EXE_supervisor")).arg("settings").output().expect("run");
    let printed = String::from_utf8(printed.stdout).expect("utf-8");
    let page = std::fs::read_to_string(root().join("docs/configuration.md")).expect("docs/configuration.md");
    let missing: Vec<&str> = printed.lines().filter(|line| !page.contains(line)).collect();
    assert!(
        missing.is_empty(),
        "not in docs/configuration.md, print it with `supervisor settings`:\n{}",
        missing.join("\n")
    );
    let stale: Vec<&str> =
        page.lines().filter(|line| line.starts_with("| `SUPERVISOR_") && !printed.contains(line)).collect();
    assert!(stale.is_empty(), "docs/configuration.md has rows that the program does not know:\n{}", stale.join("\n"));
}

#[test]
fn every_relative_link_of_the_docs_leads_somewhere() {
    let mut all = vec![root().join("README.md"), root().join("CHANGELOG.md")];
    pages(&root().join("docs"), &mut all);
    let mut broken = Vec::new();
    for page in all {
        let text = std::fs::read_to_string(&page).expect("page");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = link.split('#').next().unwrap_or_default();
            let local = !path.is_empty() && !path.contains("://");
            if local && !page.parent().expect("folder").join(path).exists() {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_feature_page_answers_the_five_questions() {
    let mut all = Vec::new();
    pages(&root().join("docs/features"), &mut all);
    assert!(!all.is_empty());
    for page in all {
        let text = std::fs::read_to_string(&page).expect("page");
        for heading in [
            "## What you get",
            "## How to turn it on",
            "## What you see",
            "## When it fails",
            "## Which test proves it",
        ] {
            assert!(text.contains(heading), "{} has no `{heading}`", page.display());
        }
    }
}

#[test]
fn every_test_that_the_docs_name_exists() {
    let mut all = Vec::new();
    pages(&root().join("docs/features"), &mut all);
    for page in all {
        let text = std::fs::read_to_string(&page).expect("page");
        let proofs = text.split("## Which test proves it").nth(1).unwrap_or_default();
        for name in proofs.split('`').skip(1).step_by(2).filter(|name| name.contains(".rs")) {
            let mut parts = name.splitn(2, "::");
            let file = root().join(parts.next().expect("a file"));
            let source = std::fs::read_to_string(&file);
            let source = source.unwrap_or_else(|e| panic!("{}: {}: {e}", page.display(), file.display()));
            if let Some(test) = parts.next() {
                assert!(source.contains(&format!("fn {test}(")), "{}: no test {name}", page.display());
            }
        }
    }
}
