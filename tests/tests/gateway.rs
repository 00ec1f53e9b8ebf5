//! The gateway, against the real program and a supervisor's end that says what the test wants: one file per kind of promise.

#[path = "gateway/admission.rs"]
mod admission;
#[path = "gateway/api.rs"]
mod api;
#[path = "gateway/append.rs"]
mod append;
#[path = "gateway/backend.rs"]
mod backend;
#[path = "gateway/bad_input.rs"]
mod bad_input;
#[path = "gateway/calls.rs"]
mod calls;
#[path = "gateway/commands.rs"]
mod commands;
#[path = "gateway/crash.rs"]
mod crash;
#[path = "gateway/forgotten.rs"]
mod forgotten;
#[path = "gateway/openapi.rs"]
mod openapi;
#[path = "gateway/postgres.rs"]
mod postgres;
#[path = "gateway/records.rs"]
mod records;
#[path = "gateway/retention.rs"]
mod retention;
#[path = "gateway/settings.rs"]
mod settings;
#[path = "gateway/several.rs"]
mod several;
#[path = "gateway/stop.rs"]
mod stop;
#[path = "gateway/store.rs"]
mod store;
#[path = "gateway/tls.rs"]
mod tls;
