//! The pages that describe an API, held against its source and its answers.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::tasks::Answer;

pub mod schema;

use schema::resolve;

/// Path and method.
pub type Call = (String, String);

/// What members of a path are, beside its methods.
const NO_METHODS: [&str; 2] = ["parameters", "summary"];

/// A page, read as what it is: OpenAPI in YAML.
pub struct Page(Value);

/// One parameter of a call.
pub struct Parameter<'p> {
    /// Its name.
    pub name: &'p str,
    /// `query`, `path` or `header`.
    pub place: &'p str,
    /// What it may be.
    pub schema: &'p Value,
}

impl Page {
    /// Panics where it is no YAML, or where a comma ends a description before its end: what follows is a name without a value.
    #[track_caller]
    pub fn new(text: &str) -> Page {
        let page = serde_saphyr::from_str(text).expect("a page is YAML");
        assert_eq!(empty(&page), Vec::<String>::new());
        Page(page)
    }

    /// All of it.
    pub fn whole(&self) -> &Value {
        &self.0
    }

    /// What is called how, with every status that it is said to answer. Methods are in capitals.
    pub fn calls(&self) -> BTreeMap<Call, BTreeSet<u16>> {
        let mut calls = BTreeMap::new();
        for (path, methods) in object(&self.0["paths"]) {
            for (method, operation) in object(methods).iter().filter(|(name, _)| !NO_METHODS.contains(&name.as_str())) {
                let statuses = object(&operation["responses"]).keys().filter_map(|status| status.parse().ok());
                calls.insert((path.clone(), method.to_uppercase()), statuses.collect());
            }
        }
        calls
    }

    /// What the page says of one call.
    pub fn operation(&self, (path, method): &Call) -> &Value {
        &self.0["paths"][path][method.to_lowercase()]
    }

    /// Whether anybody may call it.
    pub fn is_open(&self, call: &Call) -> bool {
        self.operation(call)["security"].as_array().is_some_and(Vec::is_empty)
    }

    /// Its parameters.
    pub fn parameters(&self, call: &Call) -> Vec<Parameter<'_>> {
        let all = self.operation(call)["parameters"].as_array().into_iter().flatten();
        all.map(|parameter| resolve(&self.0, parameter))
            .map(|parameter| Parameter {
                name: parameter["name"].as_str().expect("a name"),
                place: parameter["in"].as_str().expect("a place"),
                schema: resolve(&self.0, &parameter["schema"]),
            })
            .collect()
    }

    /// The schema of the JSON that it takes, where it takes some.
    pub fn body(&self, call: &Call) -> Option<&Value> {
        let schema = &self.operation(call)["requestBody"]["content"]["application/json"]["schema"];
        (!schema.is_null()).then(|| resolve(&self.0, schema))
    }

    /// What in this answer is not as the page says: status, headers, media type, JSON.
    pub fn problems(&self, call: &Call, answer: &Answer) -> Vec<String> {
        let response = &self.operation(call)["responses"][answer.status().to_string()];
        if response.is_null() {
            return vec![format!("{} is not listed", answer.status())];
        }
        let response = resolve(&self.0, response);
        let mut found = self.headers(response, answer);
        let Some(content) = response["content"].as_object() else {
            found.extend((!answer.body.is_empty()).then(|| "there is a body".to_string()));
            return found;
        };
        let media_type = answer.header("content-type").split(';').next().unwrap_or_default();
        let Some(content) = content.get(media_type) else {
            found.push(format!("{media_type:?} is no media type of {}", answer.status()));
            return found;
        };
        if media_type.ends_with("json") {
            found.extend(schema::problems(&self.0, &content["schema"], &answer.json()));
        }
        found
    }

    /// Headers that are described are there and right.
    fn headers(&self, response: &Value, answer: &Answer) -> Vec<String> {
        let mut found = Vec::new();
        for (name, header) in response["headers"].as_object().into_iter().flatten() {
            let text = answer.header(&name.to_lowercase());
            if text.is_empty() {
                found.extend((header["required"] == true).then(|| format!("{name} is missing")));
                continue;
            }
            let value = text.parse::<u64>().map_or_else(|_| Value::from(text), Value::from);
            let problems = schema::problems(&self.0, &header["schema"], &value);
            found.extend(problems.into_iter().map(|problem| format!("{name}{problem}")));
        }
        found
    }
}

/// Names that have no value.
fn empty(value: &Value) -> Vec<String> {
    let of = |(name, value): (&String, &Value)| if value.is_null() { vec![name.clone()] } else { empty(value) };
    match value {
        Value::Object(members) => members.iter().flat_map(of).collect(),
        Value::Array(items) => items.iter().flat_map(empty).collect(),
        _ => Vec::new(),
    }
}

#[track_caller]
fn object(value: &Value) -> &Map<String, Value> {
    value.as_object().unwrap_or_else(|| panic!("{value} is no object"))
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
