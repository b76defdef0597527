//! Setting the log up: one line an event on standard output, for people or for machines.

use std::{
    io::{self, IsTerminal},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use tracing::{Level, Subscriber};
use tracing_subscriber::{
    Layer, Registry,
    filter::{LevelFilter, filter_fn},
    fmt,
    layer::SubscriberExt,
    registry::LookupSpan,
    reload,
    util::SubscriberInitExt,
};

use super::{
    Events, LineFormat,
    writer::{self, Records, StandardOutput, ToQueue},
};

/// Changes the level of the log while it is being written.
pub struct LogControl {
    filter: reload::Handle<LevelFilter, Registry>,
    level: Mutex<Level>,
    /// Whether records are important enough to be written.
    records: Arc<AtomicBool>,
}

/// Sends every event of at least `level` and the records to standard output, by a thread of its own,
/// and to `events` what an operator would want to see there. A record is as important as
/// [`Level::INFO`].
///
/// A second call leaves the log as it is.
///
/// # Errors
///
/// There can be no further thread.
pub fn init<T: Send + 'static>(
    json: bool,
    level: Level,
    records: Records<T>,
    events: Events,
) -> io::Result<LogControl> {
    let (filter, handle) = reload::Layer::new(LevelFilter::from_level(level));
    let worth_keeping = filter_fn(|metadata| *metadata.level() <= Level::INFO);
    let format = match json {
        true => LineFormat::Json,
        false => LineFormat::Text {
            colour: io::stdout().is_terminal(),
        },
    };
    let lines = lines(format, ToQueue(Arc::clone(&records.queue)));
    let wanted = records.queue.wanted();
    writer::start(records, format, StandardOutput(io::stdout()))?;
    // It fails only if a log has been set up before, which then stays.
    let _ = tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .with(events.with_filter(worth_keeping))
        .try_init();
    let control = LogControl {
        filter: handle,
        level: Mutex::new(level),
        records: wanted,
    };
    control.set_level(level);
    Ok(control)
}

/// The layer that makes lines of events.
pub(super) fn lines<S, W>(format: LineFormat, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: for<'writer> fmt::MakeWriter<'writer> + Send + Sync + 'static,
{
    let layer = fmt::layer().with_target(false).with_writer(writer);
    match format {
        LineFormat::Json => Box::new(
            layer
                .json()
                .flatten_event(true)
                .with_current_span(false)
                .with_span_list(false),
        ),
        LineFormat::Text { colour } => Box::new(layer.with_ansi(colour)),
    }
}

fn lock(level: &Mutex<Level>) -> MutexGuard<'_, Level> {
    level.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LogControl {
    /// The least important lines written.
    pub fn level(&self) -> Level {
        *lock(&self.level)
    }

    /// From now on writes lines of at least `level`.
    pub fn set_level(&self, level: Level) {
        // It fails only where another log had been set up before; that one is not ours to change.
        let _ = self
            .filter
            .modify(|filter| *filter = LevelFilter::from_level(level));
        self.records.store(Level::INFO <= level, Relaxed);
        *lock(&self.level) = level;
    }
}

impl std::fmt::Debug for LogControl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("LogControl").field(&self.level()).finish()
    }
}
