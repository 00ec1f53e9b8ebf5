//! The gateway, against the real program and a supervisor's end that says what the test wants: one file per kind of promise.

#[path = "gateway/crash.rs"]
mod crash;
#[path = "gateway/records.rs"]
mod records;
