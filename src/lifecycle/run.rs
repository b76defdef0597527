//! From the first line of the configuration to the last session.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{self, Duration, SystemTime},
};

use tracing::Level;

use super::{
    adopt,
    invocation::{How, Invocation},
    loading::Reader,
    running::Running,
    signals::{self, Signals, outlive_file_size_limit},
    start::{Base, First},
};
use crate::{
    client_mask::show_clients,
    config::{Config, ConfigErrors, Daemon, Log, LogFormat, Overrides, Source},
    os_error::in_words,
    session::SessionLine,
    telemetry::{Events, LogQueue, Records, Syslog, SyslogSettings, SyslogTo, TaskFailures, log},
    text::of_panic,
};

/// Ended sessions that may wait to be logged.
pub(super) const LOG_QUEUE: usize = 16 * 1024;

/// How long the end waits for whoever reads the log.
const LOG_GRACE: Duration = Duration::from_secs(1);

/// Why the proxy did not run, or does no longer.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration is not valid.
    #[error("{0}")]
    Config(#[from] ConfigErrors),
    /// Something the start needs is not to be had.
    #[error("{0}")]
    Start(String),
    /// A worker failed.
    #[error("worker failed: {0}")]
    Worker(String),
    /// What another image of the program handed over cannot be taken.
    #[error("the upgrade cannot go on: {0}")]
    Adopt(String),
    /// Control failed.
    #[error("the control plane failed: {0}")]
    Control(String),
}

/// Runs the proxy until a signal stops it.
///
/// # Errors
///
/// Why it could not start, or what failed.
pub fn run(source: &Source, overrides: &Overrides, invocation: Invocation) -> Result<(), RunError> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    signals::only_while_waiting(&mut builder)
        .map_err(|error| start_failed("cannot receive signals", &error))?;
    let runtime = builder
        .enable_all()
        .build()
        .map_err(|error| start_failed("cannot start the control plane", &error))?;
    let mut queue = None;
    let result = match invocation.how {
        How::Start => to_the_end(
            &runtime,
            load_and_run(source, overrides, invocation, &mut queue),
        ),
        How::Adopt | How::TakeBack { .. } => {
            let mut way_back = None;
            let adopted = adopt::run(source, overrides, invocation, &mut queue, &mut way_back);
            let result = to_the_end(&runtime, adopted);
            match (result, way_back) {
                (Err(error), Some(way_back)) => Err(adopt::go_back(way_back, &error)),
                (result, _) => result,
            }
        }
    };
    // A name that is being looked up, or anything else that does not answer, holds up nobody.
    runtime.shutdown_background();
    if let Some(queue) = queue {
        queue.close(LOG_GRACE);
    }
    result
}

/// Runs control until it ends or panics.
fn to_the_end(
    runtime: &tokio::runtime::Runtime,
    control: impl Future<Output = Result<(), RunError>>,
) -> Result<(), RunError> {
    // It is over afterwards, so nobody sees what a panic left half done.
    catch_unwind(AssertUnwindSafe(|| runtime.block_on(control)))
        .unwrap_or_else(|panic| Err(RunError::Control(of_panic(&*panic).to_owned())))
}

/// Leaves the queue of the log, once there is one, in `log_queue`.
async fn load_and_run(
    source: &Source,
    overrides: &Overrides,
    invocation: Invocation,
    log_queue: &mut Option<Arc<LogQueue<SessionLine>>>,
) -> Result<(), RunError> {
    let started = (time::Instant::now(), SystemTime::now());
    // A reload that is asked for while the file is read the first time comes after that, a stop comes
    // at once.
    let mut signals =
        Signals::register().map_err(|error| start_failed("cannot receive signals", &error))?;
    let reader = Reader {
        source: source.clone(),
        overrides: overrides.clone(),
    };
    let names = Arc::default();
    let loaded = tokio::select! {
        loaded = reader.load(Arc::default(), Arc::clone(&names)) => loaded,
        () = signals.stop.recv() => return Ok(()),
    };
    let (config, table) = loaded.outcome?;
    outlive_file_size_limit().map_err(|error| start_failed("cannot catch a signal", &error))?;
    let queue = Arc::new(LogQueue::new(LOG_QUEUE));
    *log_queue = Some(Arc::clone(&queue));
    let beginning = Beginning {
        settings: &config.log,
        level: config.log.level.into(),
        queue,
        events: Events::default(),
        failures: TaskFailures::default(),
        syslog_lost: 0,
    };
    let base = base(beginning, started, invocation)?;
    warn_of_outdated(&config);
    let routes = table.routes().len();
    let loaded = First {
        config,
        reader: loaded.reader,
        names,
        lookups: loaded.lookups,
    };
    let (running, signals) = Running::start(base, signals, loaded, routes).await?;
    running.serve(signals).await
}

/// With what the log begins.
pub(super) struct Beginning<'a> {
    pub settings: &'a Log,
    pub level: Level,
    pub queue: Arc<LogQueue<SessionLine>>,
    pub events: Events,
    pub failures: TaskFailures,
    /// Lines that were lost on their way to a syslog daemon.
    pub syslog_lost: u64,
}

/// Starts the log.
pub(super) fn base(
    beginning: Beginning<'_>,
    started: (time::Instant, SystemTime),
    invocation: Invocation,
) -> Result<Base, RunError> {
    let Beginning {
        settings,
        level,
        queue,
        events,
        failures,
        syslog_lost,
    } = beginning;
    let records = Records {
        queue: Arc::clone(&queue),
        say: SessionLine::write,
    };
    let failures = Arc::new(failures);
    show_clients(settings.mask_clients);
    let syslog = Arc::new(Syslog::after(syslog_lost));
    let set = syslog.set(syslog_settings(settings).as_ref());
    set.map_err(|error| start_failed("cannot send the log to syslog", &error))?;
    let log = log::init(
        settings.format == LogFormat::Json,
        level,
        records,
        events.clone(),
        Arc::clone(&failures),
        syslog,
    )
    .map_err(|error| start_failed("cannot start the log", &error))?;
    Ok(Base {
        log,
        events,
        queue,
        failures,
        started,
        invocation,
    })
}

/// How `[log]` wants a syslog daemon told, if it does.
pub(super) fn syslog_settings(log: &Log) -> Option<SyslogSettings> {
    Some(SyslogSettings {
        to: match log.syslog.clone()? {
            Daemon::Socket(path) => SyslogTo::Socket(path),
            Daemon::Udp(addr) => SyslogTo::Udp(addr),
        },
        facility: log.syslog_facility.0,
        name: log.syslog_name.clone(),
    })
}

/// Says what of the configuration a later version will not read any more.
pub(super) fn warn_of_outdated(config: &Config) {
    for outdated in &config.outdated {
        tracing::warn!("{outdated}");
    }
}

pub(super) fn start_failed(what: &str, error: &std::io::Error) -> RunError {
    RunError::Start(format!("{what}: {}", in_words(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_control_ends_the_process_with_its_message() {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime = runtime.expect("there are descriptors");
        let result = to_the_end(&runtime, async { panic!("a bad day") });
        let error = result.expect_err("it panicked");
        assert_eq!(error.to_string(), "the control plane failed: a bad day");
        assert!(matches!(error, RunError::Control(_)));
    }
}
