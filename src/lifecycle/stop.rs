//! The end of a proxy: it takes no more clients, waits for its sessions, and cuts those that are left.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use tokio::time::Instant;

use super::{
    run::RunError,
    running::{Running, until},
    signals::Signals,
    systemd,
    watchdog::Watchdog,
};
use crate::units;

/// Over how much time sessions are cut when the time to finish is over, so that their clients do not
/// all come back in the same instant.
const CUT_SPREAD: Duration = Duration::from_secs(1);

/// How much longer than a stop should take systemd is asked to wait.
const LEEWAY: Duration = Duration::from_secs(10);

/// How long sessions that are cut at the end may take to be closed.
const CUT_GRACE: Duration = Duration::from_secs(5);

impl Running {
    pub(super) async fn stop(
        mut self,
        mut signals: Signals,
        mut watchdog: Watchdog,
    ) -> Result<(), RunError> {
        self.upgrading.stop();
        self.sources.stopping.store(true, Relaxed);
        self.jobs.stop().await;
        self.fleet.stop();
        // Orders that wait or are yet to come are answered by this.
        self.orders.close();
        while self.orders.try_recv().is_ok() {}
        let timeout = self.sources.config.load().process.shutdown_timeout;
        let open = self.sources.shared.stats.sessions_open();
        let within = timeout.map_or("off".to_owned(), units::duration);
        tracing::info!(sessions = open, timeout = within, "stopping");
        let sessions = units::count(open.into(), "session");
        let status = format!("stopping, waiting for {sessions}");
        let within = timeout.map(|timeout| timeout.saturating_add(CUT_SPREAD + CUT_GRACE + LEEWAY));
        systemd::stopping(&status, within);
        self.forwarding.control.drain();
        let mut workers = self.workers.len();
        let mut deadline = timeout.map(|timeout| Instant::now() + timeout);
        let mut cut = false;
        while workers > 0 {
            let spread = tokio::select! {
                Some(result) = self.ended.recv() => {
                    result.map_err(RunError::Worker)?;
                    workers -= 1;
                    continue;
                }
                () = watchdog.tick() => {
                    watchdog.check(&self.forwarding.control);
                    continue;
                }
                () = signals.stop.recv() => Duration::ZERO,
                () = until(deadline) => CUT_SPREAD,
            };
            if cut && spread > Duration::ZERO {
                break;
            }
            cut = true;
            self.forwarding.control.cut(spread);
            deadline = Some(Instant::now() + CUT_GRACE);
        }
        let withdrawn = async { tokio::join!(self.jobs.withdrawn(), self.fleet.left()) };
        tokio::select! {
            _ = withdrawn => {}
            () = signals.stop.recv() => {}
        }
        Ok(())
    }
}
