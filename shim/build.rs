//! Turns `profiles/*.list` into Rust tables.
//!
//! What cannot be read stops the build and names file and line. It also stops when a system call has two lines for
//! one situation, or none although `numbers.list` knows it: every call is decided about, once.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::{env, fs, path::Path};

/// One line of a list: when it holds, and its rule as Rust source.
struct Line {
    place: String,
    architectures: Vec<String>,
    classes: u8,
    abi_min: u8,
    abi_max: u8,
    rule: usize,
}

const ARCHITECTURES: [&str; 2] = ["x86_64", "aarch64"];
const CLASSES: [(&str, u8); 3] = [("local", 1), ("readonly", 2), ("networked", 4)];
const LISTS: [&str; 8] = ["files", "metadata", "processes", "memory", "network", "events", "system", "numbers"];

fn main() {
    println!("cargo::rerun-if-changed=profiles");
    println!("cargo::rerun-if-changed=build.rs");
    let constants: BTreeMap<String, u64> = rows("constants").map(|(_, row)| constant(&row)).collect();
    let mut rules: Vec<String> = Vec::new();
    let mut lines: BTreeMap<String, Vec<Line>> = BTreeMap::new();
    for list in LISTS.into_iter().filter(|&list| list != "numbers") {
        for (place, row) in rows(list) {
            let columns: Vec<&str> = row.split(" | ").map(str::trim).collect();
            let [names, place_where, rule, reason] = columns[..] else {
                panic!("{place}: want names | where | rule | reason")
            };
            assert!(!reason.is_empty(), "{place}: an entry without a reason");
            rules.push(rule_source(rule, &constants, &place));
            for name in names.split_whitespace() {
                lines.entry(name.to_owned()).or_default().push(line(place_where, rules.len() - 1, &place));
            }
        }
    }

    let mut source = String::new();
    for (index, rule) in rules.iter().enumerate() {
        let _ = writeln!(source, "static RULE_{index}: &[Clause] = &[{rule}];");
    }
    let numbers: Vec<(String, [Option<u32>; 2])> = rows("numbers").map(|(place, row)| number(&place, &row)).collect();
    for name in lines.keys() {
        assert!(numbers.iter().any(|(known, _)| known == name), "{name} is not in numbers.list");
    }
    for (index, architecture) in ARCHITECTURES.into_iter().enumerate() {
        source += &table(architecture, index, &numbers, &lines);
    }
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    fs::write(Path::new(&out).join("profiles.rs"), source).expect("OUT_DIR is writable");
}

/// The rows of a list, without comments, each with its place for messages.
fn rows(list: &str) -> impl Iterator<Item = (String, String)> {
    let path = format!("profiles/{list}.list");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let rows: Vec<_> = text
        .lines()
        .enumerate()
        .filter(|(_, row)| !row.starts_with('#') && !row.trim().is_empty())
        .map(|(index, row)| (format!("{path}:{}", index + 1), row.to_owned()))
        .collect();
    rows.into_iter()
}

fn constant(row: &str) -> (String, u64) {
    let (name, value) = row.split_once(' ').unwrap_or_else(|| panic!("constants.list: {row}"));
    (name.to_owned(), literal(value).unwrap_or_else(|| panic!("constants.list: {row}")))
}

fn number(place: &str, row: &str) -> (String, [Option<u32>; 2]) {
    let words: Vec<&str> = row.split(' ').collect();
    let [name, x86_64, aarch64] = words[..] else { panic!("{place}: want name x86_64 aarch64") };
    let read = |word: &str| (word != "-").then(|| word.parse().unwrap_or_else(|_| panic!("{place}: {word}")));
    (name.to_owned(), [read(x86_64), read(aarch64)])
}

fn literal(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hexadecimal) => u64::from_str_radix(hexadecimal, 16).ok(),
        None => text.parse().ok(),
    }
}

/// The `where` column.
fn line(text: &str, rule: usize, place: &str) -> Line {
    let mut line = Line {
        place: place.to_owned(),
        architectures: ARCHITECTURES.map(String::from).to_vec(),
        classes: 7,
        abi_min: 0,
        abi_max: u8::MAX,
        rule,
    };
    for word in text.split(',').map(str::trim) {
        if word == "*" {
        } else if ARCHITECTURES.contains(&word) {
            line.architectures = vec![word.to_owned()];
        } else if let Some(abi) = word.strip_prefix("abi>=") {
            line.abi_min = abi.parse().unwrap_or_else(|_| panic!("{place}: {word}"));
        } else if let Some(abi) = word.strip_prefix("abi<") {
            line.abi_max = abi.parse::<u8>().unwrap_or_else(|_| panic!("{place}: {word}")) - 1;
        } else {
            line.classes = word
                .split('+')
                .map(|class| CLASSES.iter().find(|(name, _)| *name == class).map(|(_, bit)| bit))
                .map(|bit| bit.unwrap_or_else(|| panic!("{place}: {word} is no class, architecture or ABI")))
                .sum();
        }
    }
    line
}

/// The `rule` column as the elements of a `&[Clause]`.
fn rule_source(text: &str, constants: &BTreeMap<String, u64>, place: &str) -> String {
    let clauses: Vec<&str> = text.split(';').map(str::trim).collect();
    let mut source = String::new();
    for (index, clause) in clauses.iter().enumerate() {
        let (action, tests) = match clause.split_once(" if ") {
            Some((action, tests)) => (action, tests.split(" and ").map(|t| test_source(t, constants, place)).collect()),
            None => (*clause, Vec::new()),
        };
        assert_eq!(tests.is_empty(), index + 1 == clauses.len(), "{place}: only the last clause stands without a test");
        let action = match action {
            "allow" => "Action::Allow".to_owned(),
            name => format!("Action::Errno({})", constants.get(name).unwrap_or_else(|| panic!("{place}: {name}"))),
        };
        let _ = write!(source, "Clause {{ action: {action}, tests: &[{}] }}, ", tests.join(", "));
    }
    source
}

fn test_source(text: &str, constants: &BTreeMap<String, u64>, place: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (argument, op, value) = match words[..] {
        [argument, "&", mask, "==", value] => (argument, format!("Op::Masked({})", mask_of(mask, place)), value),
        [argument, "==", value] => (argument, "Op::Equal".into(), value),
        [argument, "!=", value] => (argument, "Op::Differs".into(), value),
        [argument, "&", value] => (argument, "Op::AnyBit".into(), value),
        [argument, "<=", value] => (argument, "Op::AtMost".into(), value),
        _ => panic!("{place}: cannot read the test {text:?}"),
    };
    let (wide, index) = match (argument.strip_prefix("int"), argument.strip_prefix("long")) {
        (Some(index), _) => (false, index),
        (_, Some(index)) => (true, index),
        _ => panic!("{place}: {argument} is neither intN nor longN"),
    };
    let index: u8 = index.parse().unwrap_or_else(|_| panic!("{place}: {argument}"));
    assert!(index < 6, "{place}: a system call has six arguments");
    assert!(
        !wide || matches!(op.as_str(), "Op::Equal" | "Op::Differs" | "Op::AnyBit"),
        "{place}: long tests only == != &"
    );
    let value = match value {
        "SUPERVISOR" => "Value::Supervisor".into(),
        "SHIM" => "Value::Shim".into(),
        "FLOOR" => "Value::Floor".into(),
        "SUPERVISOR_GROUP" => "Value::SupervisorGroup".into(),
        "-SUPERVISOR_GROUP" => "Value::MinusSupervisorGroup".into(),
        "-SHIM" => "Value::MinusShim".into(),
        "-1" => "Value::Number(0xffff_ffff)".into(),
        other => {
            let number = literal(other).or_else(|| constants.get(other).copied());
            format!("Value::Number({:#x})", number.unwrap_or_else(|| panic!("{place}: {other}")))
        }
    };
    format!("Test {{ argument: {index}, wide: {wide}, op: {op}, value: {value} }}")
}

fn mask_of(text: &str, place: &str) -> u64 {
    literal(text).unwrap_or_else(|| panic!("{place}: {text} is no mask"))
}

/// The table of one architecture, in the order of its numbers.
fn table(
    architecture: &str,
    index: usize,
    numbers: &[(String, [Option<u32>; 2])],
    lines: &BTreeMap<String, Vec<Line>>,
) -> String {
    let mut entries: BTreeMap<u32, String> = BTreeMap::new();
    for (name, number) in numbers {
        let Some(number) = number[index] else { continue };
        let lines: Vec<&Line> = lines
            .get(name)
            .into_iter()
            .flatten()
            .filter(|line| line.architectures.iter().any(|known| known == architecture))
            .collect();
        decided_once(name, architecture, &lines);
        let variants: String = lines
            .iter()
            .map(|line| {
                format!(
                    "Variant {{ classes: {}, abi_min: {}, abi_max: {}, clauses: RULE_{} }}, ",
                    line.classes, line.abi_min, line.abi_max, line.rule
                )
            })
            .collect();
        let entry = format!("Entry {{ number: {number}, name: {name:?}, variants: &[{variants}] }}");
        assert!(entries.insert(number, entry).is_none(), "{architecture} number {number} twice");
    }
    let entries: Vec<String> = entries.into_values().collect();
    format!("static {}: &[Entry] = &[\n{},\n];\n", architecture.to_uppercase(), entries.join(",\n"))
}

fn decided_once(name: &str, architecture: &str, lines: &[&Line]) {
    for (class, bit) in CLASSES {
        for abi in 0..16 {
            let holding: Vec<&str> = lines
                .iter()
                .filter(|line| line.classes & bit != 0 && (line.abi_min..=line.abi_max).contains(&abi))
                .map(|line| line.place.as_str())
                .collect();
            assert_eq!(holding.len(), 1, "{name} on {architecture}, {class}, ABI {abi} is decided by {holding:?}");
        }
    }
}
