//! How much is mounted into every Pod.

use super::Line;
use crate::binaries;

/// Supervisor and shim together.
pub fn measure() -> Vec<Line> {
    let bytes = |name: &str| std::fs::metadata(binaries::directory().join(name)).map_or(0, |m| m.len());
    let (supervisor, shim) = (bytes("supervisor"), bytes("shim"));
    let what = format!("size of supervisor ({supervisor} bytes) and shim ({shim} bytes)");
    vec![Line::new(what, 5.0, (supervisor + shim) as f64 / 1e6, "MB")]
}
