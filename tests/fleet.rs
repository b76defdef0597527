//! Proxies that share a database tell each other where jobs can be reached, and nobody else suffers from
//! what becomes of the database.

mod harness;

#[allow(dead_code, reason = "each test file uses a part of it")]
#[path = "harness/switchboard/mod.rs"]
mod board;
#[allow(dead_code, reason = "each test file uses a part of it")]
#[path = "openssh/peers.rs"]
mod peers;
#[allow(dead_code, reason = "each test file uses a part of it")]
#[path = "exposing/stage.rs"]
mod stage;

#[path = "fleet/allocation/mod.rs"]
mod allocation;
#[path = "fleet/apart.rs"]
mod apart;
#[path = "fleet/database.rs"]
mod database;
#[path = "fleet/failover.rs"]
mod failover;
#[path = "fleet/lookup.rs"]
mod lookup;
#[path = "fleet/measure.rs"]
mod measure;
#[path = "fleet/members.rs"]
mod members;
#[path = "fleet/outage.rs"]
mod outage;
#[path = "fleet/pooler.rs"]
mod pooler;
#[path = "fleet/region.rs"]
mod region;
#[path = "fleet/reserve.rs"]
mod reserve;
#[path = "fleet/shared.rs"]
mod shared;
#[path = "fleet/ssh.rs"]
mod ssh;
