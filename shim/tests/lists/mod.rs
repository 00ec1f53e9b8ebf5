//! A second reading of `profiles/*.list`, straight from the text, slow and plain. It shares no code with `build.rs`.

use std::collections::HashMap;
use std::sync::OnceLock;

use shim::syscalls::generator::Protected;
use shim::syscalls::profile::Action;

/// What a line's `where` is compared with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Situation<'a> {
    pub(crate) architecture: &'a str,
    pub(crate) class: &'a str,
    pub(crate) abi: u32,
}

/// All lists.
pub(crate) struct Lists {
    constants: HashMap<String, u64>,
    /// (architecture, number) to name.
    names: HashMap<(&'static str, u32), String>,
    /// name to (where, rule).
    lines: HashMap<String, Vec<(String, String)>>,
}

const LISTS: [&str; 7] = [
    include_str!("../../profiles/files.list"),
    include_str!("../../profiles/metadata.list"),
    include_str!("../../profiles/processes.list"),
    include_str!("../../profiles/memory.list"),
    include_str!("../../profiles/network.list"),
    include_str!("../../profiles/events.list"),
    include_str!("../../profiles/system.list"),
];

fn rows(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn number(text: &str) -> Option<u64> {
    text.strip_prefix("0x").map_or_else(|| text.parse().ok(), |digits| u64::from_str_radix(digits, 16).ok())
}

impl Lists {
    pub(crate) fn read() -> Lists {
        let mut lists = Lists { constants: HashMap::new(), names: HashMap::new(), lines: HashMap::new() };
        for row in rows(include_str!("../../profiles/constants.list")) {
            let (name, value) = row.split_once(' ').expect("two words");
            lists.constants.insert(name.to_owned(), number(value).expect("a number"));
        }
        for row in rows(include_str!("../../profiles/numbers.list")) {
            let words: Vec<&str> = row.split(' ').collect();
            for (architecture, word) in [("x86_64", words[1]), ("aarch64", words[2])] {
                if let Ok(value) = word.parse() {
                    lists.names.insert((architecture, value), words[0].to_owned());
                }
            }
        }
        for row in LISTS.into_iter().flat_map(rows) {
            let columns: Vec<&str> = row.split('|').map(str::trim).collect();
            for name in columns[0].split(' ') {
                lists.lines.entry(name.to_owned()).or_default().push((columns[1].to_owned(), columns[2].to_owned()));
            }
        }
        lists
    }

    pub(crate) fn shared() -> &'static Lists {
        static LISTS: OnceLock<Lists> = OnceLock::new();
        LISTS.get_or_init(Lists::read)
    }

    pub(crate) fn name(&self, architecture: &'static str, number: u32) -> Option<&str> {
        self.names.get(&(architecture, number)).map(String::as_str)
    }

    pub(crate) fn number(&self, architecture: &str, name: &str) -> Option<u32> {
        self.names.iter().find(|((a, _), n)| *a == architecture && *n == name).map(|((_, number), _)| *number)
    }

    /// What the lists say about a call.
    pub(crate) fn answer(&self, at: &Situation<'_>, number: u32, arguments: &[u64; 6], ids: &Protected) -> Action {
        let architecture = if at.architecture == "x86_64" { "x86_64" } else { "aarch64" };
        let Some(name) = self.name(architecture, number) else { return Action::Errno(libc::ENOSYS as u16) };
        let lines = self.lines.get(name).unwrap_or_else(|| panic!("{name} is in no list"));
        let rules: Vec<&String> = lines.iter().filter(|(place, _)| holds(place, at)).map(|(_, rule)| rule).collect();
        let [rule] = rules[..] else { panic!("{name} has {} rules in {at:?}", rules.len()) };
        for clause in rule.split(';') {
            let (action, tests) = clause.split_once(" if ").unwrap_or((clause, ""));
            if tests.split(" and ").filter(|test| !test.is_empty()).all(|test| self.test(test, arguments, ids)) {
                return match action.trim() {
                    "allow" => Action::Allow,
                    errno => Action::Errno(self.constants[errno] as u16),
                };
            }
        }
        panic!("{name}: no clause holds")
    }

    fn test(&self, test: &str, arguments: &[u64; 6], ids: &Protected) -> bool {
        let words: Vec<&str> = test.split_whitespace().collect();
        let wide = words[0].starts_with("long");
        let index: usize = words[0].trim_start_matches(|c: char| c.is_alphabetic()).parse().expect("an argument");
        let argument = if wide { arguments[index] } else { arguments[index] & 0xffff_ffff };
        let value = |word: &str| match word {
            "SUPERVISOR" => u64::from(ids.supervisor as u32),
            "SHIM" => u64::from(ids.shim as u32),
            "FLOOR" => u64::from(ids.floor as u32),
            "SUPERVISOR_GROUP" | "-SUPERVISOR_GROUP" if ids.supervisor_group == 0 => 0x8000_0000,
            "SUPERVISOR_GROUP" => u64::from(ids.supervisor_group as u32),
            "-SUPERVISOR_GROUP" => u64::from((-ids.supervisor_group) as u32),
            "-SHIM" => u64::from((-ids.shim) as u32),
            "-1" => 0xffff_ffff,
            word => number(word).unwrap_or_else(|| self.constants[word]),
        };
        match words[1..] {
            ["==", right] => argument == value(right),
            ["!=", right] => argument != value(right),
            ["<=", right] => argument <= value(right),
            ["&", mask, "==", right] => argument & value(mask) == value(right),
            ["&", mask] => argument & value(mask) != 0,
            _ => panic!("{test}"),
        }
    }
}

fn holds(place: &str, at: &Situation<'_>) -> bool {
    place.split(',').all(|word| {
        if let Some(abi) = word.strip_prefix("abi>=") {
            at.abi >= abi.parse().expect("an ABI")
        } else if let Some(abi) = word.strip_prefix("abi<") {
            at.abi < abi.parse().expect("an ABI")
        } else if ["x86_64", "aarch64"].contains(&word) {
            word == at.architecture
        } else {
            word == "*" || word.split('+').any(|class| class == at.class)
        }
    })
}
