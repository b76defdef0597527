//! Seeing and steering a running proxy: its API, its commands, and who cannot hurt it.

mod harness;

#[path = "admin/api.rs"]
mod api;
#[path = "admin/awaited.rs"]
mod awaited;
#[path = "admin/busy.rs"]
mod busy;
#[path = "admin/commands.rs"]
mod commands;
#[path = "admin/desk.rs"]
mod desk;
#[path = "admin/doctor.rs"]
mod doctor;
#[path = "admin/hold.rs"]
mod hold;
#[path = "admin/hostile.rs"]
mod hostile;
#[path = "admin/log.rs"]
mod log;
#[path = "admin/series.rs"]
mod series;
#[path = "admin/top.rs"]
mod top;
