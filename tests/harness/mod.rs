//! What every test here is made of: a proxy with a configuration, peers that follow a script, and
//! what log and metrics say afterwards.
//!
//! No test waits for time to pass. Every wait is for a condition; [`DEADLINE`] only bounds how long
//! a fault can hold a test up.

#![allow(dead_code, unused_imports, reason = "each test file uses a part of it")]

pub mod config;
pub mod figure;
pub mod forge;
pub mod hung;
pub mod lab;
pub mod log;
pub mod manual;
pub mod metrics;
pub mod other_proxies;
pub mod peers;
pub mod ports;
pub mod postgresql;
pub mod process;
pub mod proxy;
pub mod require;
pub mod sandbox;
pub mod scene;
pub mod strace;
pub mod stream;
pub mod temp;
pub mod wait;
pub mod wire;

pub use config::{config, mapping};
pub use figure::figure;
pub use log::Line;
pub use peers::{Peer, Target, both_ways};
pub use proxy::{Proxy, Setup};
pub use scene::Scene;
pub use stream::Stream;
pub use temp::TempDir;
pub use wait::{DEADLINE, wait_for, wait_until, wait_within};
