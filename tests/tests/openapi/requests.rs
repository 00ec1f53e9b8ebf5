//! What the page says that a request may have: bodies and parameters at their bounds are taken, beyond them refused by name.

use serde_json::{Value, json};
use tests::openapi::schema::{problems, resolve};
use tests::openapi::{Call, Page};
use tests::supervisor::Supervisor;
use tests::tasks::{Answer, Api};

use super::page;

/// A body of this call that is right, for this one field to be changed.
fn right(path: &str, field: &str) -> Value {
    match path {
        "/dev-tasks" if field == "script" => json!({}),
        "/dev-tasks" if field == "connect_ports" => json!({"argv": ["true"], "execution_class": "networked"}),
        "/dev-tasks" => json!({"argv": ["true"]}),
        "/dev-tasks/{id}/signal" => json!({"signal": 15}),
        "/dev-tasks/{id}/patch/approve" => json!({"sha256": "0".repeat(64)}),
        _ => panic!("a body for {path}"),
    }
}

/// Names that are right for anything.
const NAMES: [&str; 3] = ["a-1", "x", "0s"];

/// Values at the bounds of a schema and beyond them.
fn values(page: &Page, schema: &Value) -> Vec<Value> {
    let schema = resolve(page.whole(), schema);
    // Null is not among them: for some fields it is as if they were not there.
    let mut values = vec![json!(true), json!(1.5), json!(-1), json!("\u{0}"), json!([]), json!([1]), json!({"": 1})];
    for bound in ["minimum", "maximum"] {
        values.extend(schema[bound].as_i64().into_iter().flat_map(|n| [json!(n - 1), json!(n), json!(n + 1)]));
    }
    for listed in ["enum", "examples"] {
        values.extend(schema[listed].as_array().into_iter().flatten().cloned());
    }
    values.extend(
        schema["pattern"]
            .as_str()
            .into_iter()
            .flat_map(|_| ["", ".hidden", "a/b", "a-1", "x", "0s", "/"])
            .map(Value::from),
    );
    for bound in ["minLength", "maxLength"] {
        let texts = schema[bound].as_u64().into_iter().flat_map(|n| [n.saturating_sub(1), n, n + 1]);
        values.extend(texts.map(|length| json!("x".repeat(length as usize))));
    }
    if let Some(most) = schema["maxProperties"].as_u64() {
        let of = |count: u64| (0..count).map(|n| (n.to_string(), json!("x"))).collect::<serde_json::Map<_, _>>();
        values.extend([Value::Object(of(most)), Value::Object(of(most + 1))]);
        let value = |length: usize| json!({"key": "x".repeat(length)});
        values.extend([value(256), value(257)]);
    }
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        values.extend(self::values(page, inner).into_iter().map(|value| json!({name.as_str(): value})));
    }
    values
}

#[test]
fn a_body_is_taken_exactly_where_its_schema_takes_it() {
    let supervisor = Supervisor::new().token().set("task-queue", "100000").start();
    let api = Api::of(&supervisor);
    let page = page();
    let directory = tempfile::tempdir().expect("a scratch directory");
    let seed = super::answers::archive(directory.path());
    for name in NAMES {
        assert_eq!(api.call("PUT", &format!("/workspace-archives/{name}"), &[], &seed).status(), 201);
    }
    let mut wrong = Vec::new();
    let mut tried = 0;
    for call in page.calls().into_keys() {
        let Some(schema) = page.body(&call) else { continue };
        let (path, method) = &call;
        // A task of that id that can be asked; it has ended, so it is for its state that it refuses.
        api.post("/dev-tasks?wait=30s", r#"{"task_id":"t","argv":["true"]}"#);
        let properties = schema["properties"].as_object().expect("an object");
        let mut fields: Vec<(String, Vec<Value>)> =
            properties.iter().map(|(name, schema)| (name.clone(), values(&page, schema))).collect();
        fields.push(("nonsense".into(), vec![json!(1)]));
        for (name, values) in fields {
            for value in values {
                let mut body = right(path, &name);
                body[&name] = value;
                let answer = api.call(method, &path.replace("{id}", "t"), &[], body.to_string().as_bytes());
                let problems = problems(page.whole(), schema, &body);
                let refused = answer.status() == 400;
                if refused == problems.is_empty() {
                    wrong.push(format!(
                        "{method} {path} {body}: {} {}, but {problems:?}",
                        answer.status(),
                        answer.json()
                    ));
                }
                if refused && !names(&answer, &name) {
                    wrong.push(format!("{method} {path} {body}: {} does not name {name}", answer.json()));
                }
                tried += 1;
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {tried}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(tried > 200, "{tried}");
}

/// Whether a problem is of this field, or of something in it.
fn names(answer: &Answer, field: &str) -> bool {
    answer.field().split(['.', '[']).next() == Some(field)
}

#[test]
fn a_parameter_is_taken_exactly_where_its_schema_takes_it_and_no_other_is() {
    let supervisor = Supervisor::new().token().start();
    let api = Api::of(&supervisor);
    api.run(json!({"task_id": "t", "script": "echo out; echo x > $TASK_ARTIFACTS/a"}));
    let page = page();
    let mut wrong = Vec::new();
    for call in page.calls().into_keys().filter(|call| !page.is_open(call)) {
        let (path, method) = &call;
        let ask = |query: &str| {
            let real = path.replace("{id}", "t").replace("{path}", "a");
            // Only the parameter is of interest; a task of that name is there already.
            api.call(method, &format!("{real}?{query}"), &[], super::body(path, method))
        };
        let parameters = page.parameters(&call);
        let unknown = ask("nonsense=1");
        if (unknown.status(), unknown.field().as_str()) != (400, "nonsense") {
            wrong.push(format!("{method} {path}?nonsense=1: {} {}", unknown.status(), unknown.json()));
        }
        for parameter in parameters.iter().filter(|parameter| parameter.place == "query") {
            let name = parameter.name;
            for (text, right) in texts(parameter.schema) {
                let beside = beside(path, name);
                let answer = ask(&format!("{name}={text}{beside}"));
                let refused = answer.status() == 400 && answer.field() == name;
                if refused == right {
                    wrong.push(format!("{method} {path}?{name}={text}: {} {}", answer.status(), answer.json()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What a parameter has a meaning only with.
fn beside(path: &str, name: &str) -> &'static str {
    match name {
        "recursive" | "after" | "limit" if path.starts_with("/files") => "&list=true",
        "list" if path.starts_with("/files") => "&stat=true",
        _ => "",
    }
}

/// Values of a parameter, and whether each is right.
fn texts(schema: &Value) -> Vec<(String, bool)> {
    let mut texts: Vec<(String, bool)> = Vec::new();
    let word = |text: &str, right| (text.to_string(), right);
    for value in
        schema["enum"].as_array().into_iter().flatten().chain(schema["examples"].as_array().into_iter().flatten())
    {
        texts.push(word(value.as_str().expect("a word"), true));
    }
    match schema["type"].as_str() {
        Some("integer") => {
            texts.extend([word("x", false), word("-1", false), word("1.5", false), word("", false)]);
            for (bound, beyond) in [("minimum", -1), ("maximum", 1)] {
                let at = schema[bound].as_i64();
                texts.extend(at.into_iter().flat_map(|n| [(n.to_string(), true), ((n + beyond).to_string(), false)]));
            }
        }
        Some("boolean") => texts.extend([word("true", true), word("false", true), word("maybe", false)]),
        Some("string") if !texts.is_empty() => texts.push(word("nonsense", false)),
        Some("string") if schema["pattern"].is_string() => {
            texts.extend([word("7777", false), word("x", false), word("644", true)])
        }
        _ => {}
    }
    texts
}

/// The page is read as it is written: a reference that leads nowhere, or a schema with a word that nobody checks, is found.
#[test]
fn every_schema_of_the_page_can_be_checked() {
    let page = page();
    for (name, schema) in page.whole()["components"]["schemas"].as_object().expect("schemas") {
        for value in [json!({}), json!("x"), json!(1), json!([]), Value::Null] {
            drop(problems(page.whole(), schema, &value));
        }
        assert!(schema["type"].is_string(), "{name} has no type");
    }
    let calls: Vec<Call> = page.calls().into_keys().collect();
    assert!(calls.len() > 25, "{calls:?}");
}
