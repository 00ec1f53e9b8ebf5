//! Query strings: each parameter once, none unknown.

use std::collections::BTreeMap;

use protocol::percent::{self, QueryError};

use super::reply::Problem;

/// The parameters that have not been asked for yet.
pub(super) struct Query(BTreeMap<String, String>);

impl Query {
    pub(super) fn parse(query: Option<&str>) -> Result<Query, Problem> {
        let parameters = percent::parameters(query.unwrap_or_default()).map_err(|error| match error {
            QueryError::Escape => Problem::bad("the query has a % that is not %XX"),
            QueryError::Text => Problem::bad("the query is not UTF-8"),
            QueryError::Twice(name) => Problem::field(&name, "is given twice"),
        })?;
        Ok(Query(parameters))
    }

    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        self.0.remove(name).filter(|value| !value.is_empty())
    }

    /// A whole number from `low` to `high`.
    pub(super) fn number(&mut self, name: &str, low: i64, high: i64) -> Result<Option<i64>, Problem> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let number = text.parse().ok().filter(|number| (low..=high).contains(number));
        number.map(Some).ok_or_else(|| Problem::field(name, format!("is not a whole number from {low} to {high}")))
    }

    pub(super) fn flag(&mut self, name: &str) -> Result<bool, Problem> {
        match self.0.remove(name).as_deref() {
            None | Some("false") => Ok(false),
            Some("" | "true") => Ok(true),
            Some(_) => Err(Problem::field(name, "is true or false")),
        }
    }

    /// What is left is unknown.
    pub(super) fn finish(self) -> Result<(), Problem> {
        match self.0.into_keys().next() {
            None => Ok(()),
            Some(name) => Err(Problem::field(&name, "is no parameter of this path")),
        }
    }
}
