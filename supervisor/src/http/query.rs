//! Query strings: each parameter once, none unknown, values with their own words for what is wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use protocol::percent::{self, QueryError};

use super::reply::Problem;
use crate::config::parse;

/// The parameters that have not been asked for yet.
pub(crate) struct Query(BTreeMap<String, String>);

impl Query {
    pub(crate) fn parse(query: Option<&str>) -> Result<Query, Problem> {
        let parameters = percent::parameters(query.unwrap_or_default()).map_err(|error| match error {
            QueryError::Escape => Problem::bad("the query has a % that is not %XX"),
            QueryError::Text => Problem::bad("the query is not UTF-8"),
            QueryError::Twice(name) => Problem::field(&name, "is given twice"),
        })?;
        Ok(Query(parameters))
    }

    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    pub(super) fn number(&mut self, name: &str) -> Result<Option<u64>, Problem> {
        self.0.remove(name).map(|v| v.parse().map_err(|_| Problem::field(name, "is not a whole number"))).transpose()
    }

    pub(super) fn flag(&mut self, name: &str) -> Result<bool, Problem> {
        match self.0.remove(name).as_deref() {
            None | Some("false") => Ok(false),
            Some("" | "true") => Ok(true),
            Some(_) => Err(Problem::field(name, "is true or false")),
        }
    }

    pub(crate) fn duration(&mut self, name: &str, most: Duration) -> Result<Option<Duration>, Problem> {
        let Some(text) = self.0.remove(name) else { return Ok(None) };
        let value = parse::duration(&text).map_err(|problem| Problem::field(name, problem))?;
        if value > most {
            return Err(Problem::field(name, format!("is at most {}s", most.as_secs())));
        }
        Ok(Some(value))
    }

    /// What is left is unknown.
    pub(crate) fn finish(self) -> Result<(), Problem> {
        match self.0.into_keys().next() {
            None => Ok(()),
            Some(name) => Err(Problem::field(&name, "is no parameter of this path")),
        }
    }
}
