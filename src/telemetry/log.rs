//! Setting the log up: one line an event on standard output, for people or for machines.

use std::{
    fmt,
    io::IsTerminal,
    sync::{Mutex, PoisonError},
};

use tracing::{Level, Subscriber};
use tracing_subscriber::{
    Layer, Registry,
    filter::{LevelFilter, filter_fn},
    fmt as format,
    layer::SubscriberExt,
    registry::LookupSpan,
    reload,
    util::SubscriberInitExt,
};

use super::{Events, events::SESSION_LOG};

/// Changes the level of the log while it is being written.
pub struct LogControl {
    filter: reload::Handle<LevelFilter, Registry>,
    level: Mutex<Level>,
}

/// Sends every event of at least `level` to standard output, as JSON or as text, and to `events`
/// what an operator would want to see there.
///
/// A second call leaves the log as it is.
pub fn init(json: bool, level: Level, events: Events) -> LogControl {
    let (filter, handle) = reload::Layer::new(LevelFilter::from_level(level));
    let worth_keeping =
        filter_fn(|metadata| *metadata.level() <= Level::INFO && metadata.target() != SESSION_LOG);
    // It fails only if a log has been set up before, which then stays.
    let _ = tracing_subscriber::registry()
        .with(writer(json).with_filter(filter))
        .with(events.with_filter(worth_keeping))
        .try_init();
    LogControl {
        filter: handle,
        level: Mutex::new(level),
    }
}

fn writer<S>(json: bool) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let layer = format::layer().with_target(false);
    match json {
        true => Box::new(
            layer
                .json()
                .flatten_event(true)
                .with_current_span(false)
                .with_span_list(false),
        ),
        false => Box::new(layer.with_ansi(std::io::stdout().is_terminal())),
    }
}

impl LogControl {
    /// The least important lines written.
    pub fn level(&self) -> Level {
        *self.level.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on writes lines of at least `level`.
    pub fn set_level(&self, level: Level) {
        // It fails only where another log had been set up before; that one is not ours to change.
        let _ = self
            .filter
            .modify(|filter| *filter = LevelFilter::from_level(level));
        *self.level.lock().unwrap_or_else(PoisonError::into_inner) = level;
    }
}

impl fmt::Debug for LogControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogControl").field(&self.level()).finish()
    }
}
