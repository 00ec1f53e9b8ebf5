//! The pages that describe an API, held against its source.

use std::collections::{BTreeMap, BTreeSet};

/// Path and method.
pub type Call = (String, String);

/// What a page lists. It keeps to one layout, so that no parser is needed: paths two blanks in, methods four,
/// statuses eight.
pub fn listed(page: &str) -> BTreeMap<Call, BTreeSet<u16>> {
    let paths = page.split("\npaths:\n").nth(1).and_then(|p| p.split("\ncomponents:").next()).expect("paths");
    let mut calls: BTreeMap<Call, BTreeSet<u16>> = BTreeMap::new();
    let (mut path, mut method) = (String::new(), String::new());
    for line in paths.lines() {
        let indent = line.len() - line.trim_start().len();
        let word = line.trim().split(": ").next().unwrap_or_default().trim_end_matches(':');
        match indent {
            2 => path = word.to_string(),
            4 => {
                method = word.to_uppercase();
                calls.entry((path.clone(), method.clone())).or_default();
            }
            8 => {
                let number = word.strip_prefix('\'').and_then(|w| w.strip_suffix('\''));
                let status: Option<u16> = number.and_then(|n| n.parse().ok());
                calls.entry((path.clone(), method.clone())).or_default().extend(status);
            }
            _ => {}
        }
    }
    calls
}

/// What a server routes, from its source in `folder` and `folder.rs`: `.route("PATH", get(…).post(…))`.
pub fn routed(folder: &str) -> BTreeSet<Call> {
    let folder = format!("{}/../{folder}", env!("CARGO_MANIFEST_DIR"));
    let mut sources = std::fs::read_to_string(format!("{folder}.rs")).expect("the source");
    for entry in std::fs::read_dir(folder).expect("the source").flatten() {
        if entry.path().is_file() {
            sources += &std::fs::read_to_string(entry.path()).expect("the source");
        }
    }
    let mut calls = BTreeSet::new();
    for route in sources.split(".route(").skip(1) {
        let Some((path, rest)) = route.trim_start().strip_prefix('"').and_then(|r| r.split_once('"')) else { continue };
        let methods = rest.split(".route(").next().unwrap_or_default();
        let methods =
            methods.split(".with_state").next().unwrap_or_default().split(".layer").next().unwrap_or_default();
        for method in ["get", "post", "put", "delete", "patch", "any"] {
            let called = |before: &str| methods.contains(&format!("{before}{method}("));
            if called(" ") || called(".") {
                calls.insert((path.replace("{*", "{"), method.to_uppercase()));
            }
        }
    }
    calls
}
