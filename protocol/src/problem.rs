//! The body of every error of an HTTP API of ours (RFC 9457).

use serde::Serialize;

/// Its media type.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// What went wrong, for people and for programs.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Problem<'a> {
    /// The status in words.
    pub title: &'a str,
    /// The status.
    pub status: u16,
    /// What is wrong with this request.
    pub detail: &'a str,
    /// The field, parameter or header that is wrong, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<&'a str>,
}
