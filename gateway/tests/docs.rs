//! The docs say what the program does.

#[test]
fn configuration_md_has_the_table_that_the_program_prints() {
    let printed = gateway::config::markdown();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
    let page = std::fs::read_to_string(path).expect("docs/configuration.md");
    let missing: Vec<&str> = printed.lines().filter(|line| !page.contains(line)).collect();
    assert!(missing.is_empty(), "print it with `gateway settings`; not there:\n{}", missing.join("\n"));
    let rows = page.lines().filter(|line| line.starts_with("| `GATEWAY_"));
    let stale: Vec<&str> = rows.filter(|line| !printed.contains(line)).collect();
    assert!(stale.is_empty(), "the program does not know:\n{}", stale.join("\n"));
}
