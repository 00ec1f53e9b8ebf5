//! Values held against the schemas of a page (JSON Schema, as much of it as our pages use).
//!
//! Stricter than the standard where a page is a promise: a property that is not described is wrong, and so is a keyword that
//! nobody here checks.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

/// What is wrong with a value, each with where; nothing where it is as the schema says.
pub fn problems(page: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    Check { page, found: &mut found }.value(schema, value, "");
    found
}

/// What a `$ref` names, or the thing itself.
pub fn resolve<'p>(page: &'p Value, thing: &'p Value) -> &'p Value {
    match thing["$ref"].as_str() {
        Some(name) => {
            let target = page.pointer(name.trim_start_matches('#'));
            resolve(page, target.unwrap_or_else(|| panic!("{name} is not there")))
        }
        None => thing,
    }
}

struct Check<'c> {
    page: &'c Value,
    found: &'c mut Vec<String>,
}

impl Check<'_> {
    fn value(&mut self, schema: &Value, value: &Value, at: &str) {
        let words = schema.as_object().unwrap_or_else(|| panic!("{at}: no schema: {schema}"));
        for (word, bound) in words {
            if let Some(problem) = self.word(words, word, bound, value, at) {
                self.found.push(format!("{at}: {value} is against {word}: {problem}"));
            }
        }
        if words.contains_key("properties") && !words.contains_key("additionalProperties") {
            self.additional(words, &Value::Bool(false), value, at);
        }
    }

    /// What one keyword says against the value.
    fn word(
        &mut self,
        words: &Map<String, Value>,
        word: &str,
        bound: &Value,
        value: &Value,
        at: &str,
    ) -> Option<String> {
        let wrong = |right: bool| (!right).then(|| bound.to_string());
        let number = |compare: fn(f64, f64) -> bool| match (value.as_f64(), bound.as_f64()) {
            (Some(value), Some(bound)) => compare(value, bound),
            _ => true,
        };
        let size = |length: Option<usize>, compare: fn(u64, u64) -> bool| {
            length.is_none_or(|length| compare(length as u64, bound.as_u64().unwrap_or(u64::MAX)))
        };
        match word {
            "description" | "default" | "examples" => None,
            // JSON Schema would have a $ref beside others, too.
            "$ref" => {
                self.value(resolve(self.page, &Value::Object(words.clone())), value, at);
                None
            }
            "contentEncoding" => wrong(match bound.as_str() {
                Some("base64") => value.as_str().is_none_or(|text| STANDARD.decode(text).is_ok()),
                _ => panic!("{at}: nobody checks the encoding {bound}"),
            }),
            "type" => {
                let names = bound.as_array().map_or(std::slice::from_ref(bound), Vec::as_slice);
                wrong(names.iter().any(|name| is_of_type(value, name.as_str().unwrap_or_default())))
            }
            "enum" => wrong(bound.as_array().is_some_and(|all| all.contains(value))),
            "const" => wrong(bound == value),
            "minimum" => wrong(number(|value, bound| value >= bound)),
            "maximum" => wrong(number(|value, bound| value <= bound)),
            "minLength" => wrong(size(value.as_str().map(characters), |length, bound| length >= bound)),
            "maxLength" => wrong(size(value.as_str().map(characters), |length, bound| length <= bound)),
            "minItems" => wrong(size(value.as_array().map(Vec::len), |length, bound| length >= bound)),
            "maxProperties" => wrong(size(value.as_object().map(Map::len), |length, bound| length <= bound)),
            "pattern" => {
                let pattern = regex::Regex::new(bound.as_str().unwrap_or_default()).expect("a regular expression");
                wrong(value.as_str().is_none_or(|text| pattern.is_match(text)))
            }
            "format" => wrong(match bound.as_str() {
                Some("date-time") => value.as_str().is_none_or(is_time),
                Some("binary") => true,
                _ => panic!("{at}: nobody checks the format {bound}"),
            }),
            "required" => {
                let object = value.as_object()?;
                let names = bound.as_array().into_iter().flatten().filter_map(Value::as_str);
                names.into_iter().find(|name| !object.contains_key(*name)).map(|name| format!("{name} is missing"))
            }
            "properties" => {
                for (name, schema) in bound.as_object().into_iter().flatten() {
                    if let Some(value) = value.get(name) {
                        self.value(schema, value, &format!("{at}/{name}"));
                    }
                }
                None
            }
            "additionalProperties" => {
                self.additional(words, bound, value, at);
                None
            }
            "propertyNames" => {
                for name in value.as_object().into_iter().flat_map(Map::keys) {
                    self.value(bound, &Value::from(name.as_str()), &format!("{at}/{name}"));
                }
                None
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    self.value(bound, item, &format!("{at}/{index}"));
                }
                None
            }
            "oneOf" => {
                let fits = |schema: &&Value| problems(self.page, schema, value).is_empty();
                wrong(bound.as_array().is_some_and(|all| all.iter().filter(fits).count() == 1))
            }
            _ => panic!("{at}: nobody checks {word}"),
        }
    }

    /// Properties that have no schema of their own.
    fn additional(&mut self, words: &Map<String, Value>, schema: &Value, value: &Value, at: &str) {
        for (name, value) in value.as_object().into_iter().flatten() {
            if words.get("properties").is_some_and(|known| known.get(name).is_some()) {
                continue;
            }
            match schema {
                Value::Bool(true) => {}
                Value::Bool(false) => self.found.push(format!("{at}/{name} is not described")),
                schema => self.value(schema, value, &format!("{at}/{name}")),
            }
        }
    }
}

/// As JSON Schema counts a length.
fn characters(text: &str) -> usize {
    text.chars().count()
}

fn is_of_type(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        _ => panic!("there is no type {name}"),
    }
}

/// RFC 3339 in UTC, as all our programs write it.
fn is_time(text: &str) -> bool {
    let shape = |c: char| if c.is_ascii_digit() { '0' } else { c };
    let shape: String = text.chars().map(shape).collect();
    let (seconds, rest) = shape.split_at(shape.len().min(19));
    seconds == "0000-00-00T00:00:00" && rest.trim_matches(['.', '0']) == "Z"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_schema_refuses_is_told_with_its_place() {
        let page = json!({"s": {"type": "object", "required": ["a"], "properties": {
            "a": {"type": ["integer", "null"], "minimum": 1}, "b": {"type": "array", "items": {"enum": ["x"]}},
            "t": {"type": "string", "format": "date-time"}, "l": {"type": "string", "maxLength": 2},
        }}});
        let schema = json!({"$ref": "#/s"});
        let of = |value: Value| problems(&page, &schema, &value);
        let none: [&str; 0] = [];
        assert_eq!(of(json!({"a": 1, "b": ["x"], "t": "2026-11-21T11:18:32.324Z"})), none);
        assert_eq!(of(json!({"a": 1, "l": "éé"})), none);
        assert_eq!(of(json!({"a": null, "t": "2026-11-21T11:18:32Z"})), none);
        for (value, place) in [
            (json!({}), ": {} is against required"),
            (json!({"a": 0}), "/a: 0 is against minimum"),
            (json!({"a": "1"}), "/a: \"1\" is against type"),
            (json!({"a": 1, "b": ["x", "y"]}), "/b/1: \"y\" is against enum"),
            (json!({"a": 1, "c": 1}), "/c is not described"),
            (json!({"a": 1, "t": "today"}), "/t: \"today\" is against format"),
        ] {
            let found = of(value.clone());
            assert!(found.len() == 1 && found[0].starts_with(place), "{value}: {found:?}");
        }
    }
}
