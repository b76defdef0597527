//! An upgrade replaces the program and nothing else: sessions, listeners and what was counted go on.

mod harness;

#[path = "upgrade/broken.rs"]
mod broken;
#[path = "upgrade/control.rs"]
mod control;
#[path = "upgrade/sessions.rs"]
mod sessions;
#[path = "upgrade/stage.rs"]
mod stage;
#[path = "upgrade/versions.rs"]
mod versions;
