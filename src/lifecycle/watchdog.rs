//! The watchdog of systemd, as far as it is ours to feed.

use tokio::time::{MissedTickBehavior, interval};

use super::{control::Control, systemd};

/// Tells systemd that the process is alive as long as every worker shows that it is.
pub(super) struct Watchdog {
    ticks: Option<tokio::time::Interval>,
    asked: u64,
}

impl Watchdog {
    pub fn new() -> Self {
        let ticks = systemd::watchdog_interval().map(|every| {
            let mut ticks = interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        Self { ticks, asked: 0 }
    }

    pub async fn tick(&mut self) {
        match &mut self.ticks {
            Some(ticks) => _ = ticks.tick().await,
            None => std::future::pending().await,
        }
    }

    pub fn check(&mut self, control: &Control) {
        if control.beats() >= self.asked {
            systemd::alive();
            control.beat();
            self.asked += 1;
        }
    }
}
