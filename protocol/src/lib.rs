//! Words that cross a border between Chaperone's programs, as values without any I/O.
//!
//! - [`attach`]: the words of a client that is attached to a dev-task.
//! - [`call`]: the token of a call that the gateway has signed.
//! - [`exit`]: the exit codes of our own, and a fault that ends a program.
//! - [`percent`]: `%XX` of URLs.
//! - [`policy`]: what the shim obeys when it starts one program.
//! - [`guarantee`]: the named promises of a confinement, and how each one stands.
//! - [`control`]: the frames between the supervisor and one shim.
//! - [`health`]: the body that `/healthz` and its aliases answer.
//! - [`object`]: structs from JSON objects alone.
//! - [`problem`]: the body of an HTTP API's errors.
//! - [`session`]: the frames between a supervisor and a gateway.
//! - [`setting`]: how an operator writes the settings of a program.
//! - [`task`]: the dev-task API's requests and answers.
//! - [`websocket`]: what both ends of a handshake compute.
//! - [`words`]: words of others on their way to a person.
//! - [`zygote`]: how the supervisor orders a further shim from one that is there.

pub mod attach;
pub mod call;
pub mod control;
pub mod exit;
pub mod guarantee;
pub mod health;
pub mod object;
pub mod percent;
pub mod policy;
pub mod problem;
pub mod session;
pub mod setting;
pub mod task;
pub mod websocket;
pub mod words;
pub mod zygote;
