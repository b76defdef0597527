mod region;

use std::{sync::Arc, time::SystemTime};

use super::*;
use crate::provider::switchboard::{Job, JobState, expose};

struct Scene {
    settings: watch::Sender<Arc<Switchboard>>,
    region: watch::Sender<Option<RegionClient>>,
    known_jobs: watch::Sender<Arc<KnownJobs>>,
    proposals: mpsc::Sender<Proposal>,
    proposed: mpsc::Receiver<Proposal>,
    status: Arc<SwitchboardStatus>,
    open: Arc<ArcSwap<Plan>>,
    _state_dir: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let state_dir = tempfile::tempdir().expect("a directory for temporary files");
        let settings = Switchboard {
            state_dir: state_dir.path().to_owned(),
            ..expose::tests::settings()
        };
        let (proposals, proposed) = mpsc::channel(1);
        Self {
            settings: watch::Sender::new(Arc::new(settings)),
            region: watch::Sender::default(),
            known_jobs: watch::Sender::new(Arc::default()),
            proposals,
            proposed,
            status: Arc::default(),
            open: Arc::default(),
            _state_dir: state_dir,
        }
    }

    fn start(&self) -> tokio::task::JoinHandle<()> {
        let settings = Arc::clone(&self.settings.borrow());
        let exposer = Exposer::new(settings, Arc::clone(&self.status)).expect("a directory");
        tokio::spawn(exposer.run(
            self.known_jobs.subscribe(),
            self.settings.subscribe(),
            self.region.subscribe(),
            self.proposals.clone(),
            Arc::clone(&self.open),
        ))
    }

    fn know(&self, jobs: impl IntoIterator<Item = Job>) {
        let jobs = jobs.into_iter().map(|job| (job.id.clone(), Arc::new(job)));
        self.known_jobs.send_replace(Arc::new(KnownJobs {
            jobs: jobs.collect(),
            complete: Some(SystemTime::now()),
            ..KnownJobs::default()
        }));
    }

    /// The names of the mappings that are proposed next, all of which can be opened.
    async fn proposed(&mut self) -> Vec<String> {
        let proposal = self.proposed.recv().await.expect("the task runs");
        let names = proposal.specs.keys().map(ToString::to_string);
        let names = names.collect();
        let outcome = Outcome::default();
        proposal.reply.send(outcome).expect("the task waits");
        names
    }
}

fn job(number: usize) -> Job {
    Job {
        id: JobId::parse(&format!("{number:08x}-0000-4000-8000-000000000000")).expect("an id"),
        state: JobState::Ready,
        address: Some(format!("fdb0:7e57::{number}").parse().expect("an address")),
        services: Vec::new(),
        host: None,
        host_name: None,
        host_live: Some(true),
    }
}

/// Ends a task as a panic does: in the middle of whatever it does.
async fn breaks_down(task: tokio::task::JoinHandle<()>) {
    task.abort();
    let _ = task.await;
}

#[tokio::test]
async fn ports_of_jobs_that_end_while_the_task_is_down_are_closed_once_it_is_back() {
    let mut scene = Scene::new();
    let names = [1, 2].map(|number| format!("job/{}/ssh", job(number).id));
    scene.know([job(1), job(2)]);
    let task = scene.start();
    assert_eq!(scene.proposed().await, names);
    breaks_down(task).await;
    // What stays open meanwhile is not asked about again before it is told.
    let task = scene.start();
    assert_eq!(scene.proposed().await, names);
    breaks_down(task).await;
    scene.know([]);
    let task = scene.start();
    assert_eq!(scene.proposed().await, Vec::<String>::new());
    breaks_down(task).await;
}

#[tokio::test]
async fn a_task_that_is_back_before_anything_is_known_closes_nothing() {
    let mut scene = Scene::new();
    let names = [format!("job/{}/ssh", job(1).id)];
    scene.know([job(1)]);
    let task = scene.start();
    assert_eq!(scene.proposed().await, names);
    breaks_down(task).await;
    let remembered = KnownJobs::remembering([job(1).id]);
    scene.known_jobs.send_replace(Arc::new(remembered));
    let task = scene.start();
    assert_eq!(scene.proposed().await, names);
    breaks_down(task).await;
}
