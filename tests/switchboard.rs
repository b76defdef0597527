//! What is known of a switchboard's jobs is right or old, and never wrong.

mod harness;

#[allow(dead_code, reason = "each test file uses a part of it")]
#[path = "harness/switchboard/mod.rs"]
mod board;

#[path = "switchboard/annotate.rs"]
mod annotate;
#[path = "switchboard/client.rs"]
mod client;
#[path = "switchboard/follow.rs"]
mod follow;
#[path = "switchboard/follower.rs"]
mod follower;
#[path = "switchboard/misbehave.rs"]
mod misbehave;
#[path = "switchboard/scale.rs"]
mod scale;
#[path = "switchboard/watch.rs"]
mod watch;
