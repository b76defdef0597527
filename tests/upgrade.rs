//! An upgrade replaces the program and nothing else: sessions, listeners and what was counted go on.

mod harness;

#[allow(dead_code, reason = "each test file uses a part of it")]
#[path = "harness/switchboard/mod.rs"]
mod board;
#[allow(dead_code, reason = "each test file uses a part of it")]
#[path = "exposing/stage.rs"]
mod job_stage;

#[path = "upgrade/broken.rs"]
mod broken;
#[path = "upgrade/control.rs"]
mod control;
#[path = "upgrade/crowd.rs"]
mod crowd;
#[path = "upgrade/jobs.rs"]
mod jobs;
#[path = "upgrade/killed.rs"]
mod killed;
#[path = "upgrade/operator.rs"]
mod operator;
#[path = "upgrade/sessions.rs"]
mod sessions;
#[path = "upgrade/stage.rs"]
mod stage;
#[path = "upgrade/versions.rs"]
mod versions;
