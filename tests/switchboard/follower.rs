//! A follower that follows in a thread of its own.

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tml_proxy::provider::switchboard::{
    Job, JobId, JobState, KnownJobs,
    client::{Availability, BaseUrl, Client, ClientSettings, Patience},
    follow::{FollowSettings, follow},
    stats::FollowStats,
};
use tokio::{
    runtime,
    sync::{oneshot, watch},
};

use crate::{
    board::Switchboard,
    harness::{wait_for, wait_until},
};

/// Never, as far as a test is concerned.
pub const NEVER: Duration = Duration::from_secs(3600);

/// How hard a test follows that waits for nothing but watches.
pub const BY_WATCHES: FollowSettings = FollowSettings {
    refresh: NEVER,
    poll: NEVER,
    max_watches: 64,
    concurrency: 8,
    needs_hosts: false,
};

/// How hard a test follows that wants everything looked at again and again.
pub const BY_ASKING: FollowSettings = FollowSettings {
    refresh: Duration::from_millis(100),
    poll: Duration::from_millis(50),
    max_watches: 64,
    concurrency: 8,
    needs_hosts: false,
};

/// The patience of a test.
pub const PATIENCE: Patience = Patience {
    connect: Duration::from_secs(5),
    answer: Duration::from_millis(500),
    silence: Duration::from_secs(60),
};

/// That of a test in which one machine has much to do on both sides.
pub const PATIENT: Patience = Patience {
    answer: Duration::from_secs(20),
    ..PATIENCE
};

pub struct Follower {
    pub stats: Arc<FollowStats>,
    pub availability: Arc<Availability>,
    metrics: PrometheusHandle,
    knowledge: watch::Receiver<Arc<KnownJobs>>,
    quit: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What it takes to ask `board`.
pub fn settings(board: &Switchboard) -> ClientSettings {
    ClientSettings {
        url: BaseUrl::parse(&board.url()).expect("a URL"),
        token_file: board.token_file(),
        ca_file: board.ca_file(),
    }
}

/// Runs `ask` with a client of `board`.
pub fn ask<T>(board: &Switchboard, ask: impl AsyncFnOnce(Client) -> T) -> T {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let client =
            Client::new(&settings(board), PATIENCE, Arc::default()).expect("usable settings");
        ask(client).await
    })
}

impl Follower {
    pub fn start(board: &Switchboard, how: FollowSettings) -> Self {
        Self::knowing(board, how, PATIENCE, KnownJobs::default())
    }

    /// Starts one that waits longer for each answer.
    pub fn patient(board: &Switchboard, how: FollowSettings) -> Self {
        Self::knowing(board, how, PATIENT, KnownJobs::default())
    }

    pub fn knowing(
        board: &Switchboard,
        how: FollowSettings,
        patience: Patience,
        before: KnownJobs,
    ) -> Self {
        let settings = settings(board);
        let (publish, knowledge) = watch::channel(Arc::new(before));
        let (quit, asked_to_quit) = oneshot::channel();
        let stats = Arc::<FollowStats>::default();
        let counts = Arc::clone(&stats);
        let availability = Arc::<Availability>::default();
        let noted = Arc::clone(&availability);
        let recorder = PrometheusBuilder::new().build_recorder();
        let metrics = recorder.handle();
        let thread = thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build();
            let following = async move {
                let client = Client::new(&settings, patience, noted).expect("usable settings");
                tokio::select! {
                    () = follow(how, client, publish, counts) => panic!("it ended by itself"),
                    _ = asked_to_quit => {}
                }
            };
            metrics::with_local_recorder(&recorder, || {
                runtime.expect("a runtime").block_on(following);
            });
        });
        Self {
            metrics,
            stats,
            availability,
            knowledge,
            quit: Some(quit),
            thread: Some(thread),
        }
    }

    pub fn knowledge(&self) -> Arc<KnownJobs> {
        Arc::clone(&self.knowledge.borrow())
    }

    pub fn job(&self, id: &str) -> Option<Arc<Job>> {
        let id = JobId::parse(id).expect("an id");
        self.knowledge().jobs.get(&id).cloned()
    }

    /// What a series of this follower says; 0 if there is none.
    pub fn counted(&self, series: &str) -> f64 {
        let page = self.metrics.render();
        let of_series = |line: &str| line.strip_prefix(series)?.trim().parse().ok();
        page.lines().find_map(of_series).unwrap_or(0.0)
    }

    pub fn knows(&self, id: &str) -> bool {
        self.job(id).is_some()
    }

    #[track_caller]
    pub fn wait_for_complete(&self) {
        wait_until("a complete listing", || self.knowledge().complete.is_some());
    }

    #[track_caller]
    pub fn wait_for_job(&self, id: &str) -> Arc<Job> {
        wait_for("a job to be known", || self.job(id))
    }

    #[track_caller]
    pub fn wait_for_state(&self, id: &str, state: JobState) {
        wait_until("a job's state", || {
            self.job(id).is_some_and(|job| job.state == state)
        });
    }

    #[track_caller]
    pub fn wait_for_end(&self, id: &str) {
        wait_until("a job's end to be known", || !self.knows(id));
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        drop(self.quit.take());
        let thread = self.thread.take().expect("dropped once");
        if thread.join().is_err() && !thread::panicking() {
            panic!("the follower panicked");
        }
    }
}
