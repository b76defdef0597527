//! Jobs of a switchboard become reachable and unreachable when they should, and nobody reaches what
//! is not theirs.

mod harness;

#[allow(dead_code, reason = "each test file uses a part of it")]
#[path = "harness/switchboard/mod.rs"]
mod board;

#[allow(dead_code, reason = "each test file uses a part of it")]
#[path = "openssh/peers.rs"]
mod peers;
#[path = "exposing/stage.rs"]
mod stage;

#[path = "exposing/account.rs"]
mod account;
#[path = "exposing/boards.rs"]
mod boards;
#[path = "exposing/doctor.rs"]
mod doctor;
#[path = "exposing/file.rs"]
mod file;
#[path = "exposing/lookup.rs"]
mod lookup;
#[path = "exposing/measure.rs"]
mod measure;
#[path = "exposing/openssh.rs"]
mod openssh;
#[path = "exposing/outage.rs"]
mod outage;
#[path = "exposing/ports.rs"]
mod ports;
#[path = "exposing/publish.rs"]
mod publish;
#[path = "exposing/reasons.rs"]
mod reasons;
#[path = "exposing/restart.rs"]
mod restart;
#[path = "exposing/secrets.rs"]
mod secrets;
#[path = "exposing/sessions.rs"]
mod sessions;
#[path = "exposing/token.rs"]
mod token;
#[path = "exposing/trust.rs"]
mod trust;
