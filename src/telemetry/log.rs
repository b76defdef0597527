//! Setting the log up: one line an event on standard output, for people or for machines.

use std::{
    io::{self, IsTerminal},
    sync::{
        Arc, Mutex,
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
    Events, LineFormat, Syslog, TaskFailures,
    writer::{self, Records, StandardOutput, ToQueue},
};
use crate::mutex::lock;

/// Changes the level and the format of the log while it is being written.
pub struct LogControl {
    text: reload::Handle<LevelFilter, Registry>,
    json: reload::Handle<LevelFilter, Registry>,
    level: Mutex<Level>,
    /// Whether lines are objects of JSON.
    is_json: Arc<AtomicBool>,
    syslog: Arc<Syslog>,
    /// Whether records are important enough to be written.
    records: Arc<AtomicBool>,
}

/// Sends every event of at least `level` and the records to standard output, by a thread of its own, and
/// by `syslog`, and to `events` what an operator would want to see there. A record is as important as
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
    tasks: Arc<TaskFailures>,
    syslog: Arc<Syslog>,
) -> io::Result<LogControl> {
    let worth_keeping = filter_fn(|metadata| *metadata.level() <= Level::INFO);
    let text = LineFormat::Text {
        colour: io::stdout().is_terminal(),
    };
    // Both are there at any time, and one of them writes nothing.
    let queue = &records.queue;
    let (as_text, text_filter) = filtered(lines(text, ToQueue(Arc::clone(queue))));
    let (as_json, json_filter) = filtered(lines(LineFormat::Json, ToQueue(Arc::clone(queue))));
    let control = LogControl {
        text: text_filter,
        json: json_filter,
        level: Mutex::new(level),
        is_json: Arc::new(AtomicBool::new(json)),
        syslog: Arc::clone(&syslog),
        records: queue.wanted(),
    };
    let is_json = Arc::clone(&control.is_json);
    let format = move || match is_json.load(Relaxed) {
        true => LineFormat::Json,
        false => text,
    };
    writer::start(records, tasks, syslog, format, StandardOutput(io::stdout()))?;
    // It fails only if a log has been set up before, which then stays.
    let _ = tracing_subscriber::registry()
        .with(vec![as_text, as_json])
        .with(events.with_filter(worth_keeping))
        .try_init();
    control.set_level(level);
    Ok(control)
}

type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// The layer with a filter that lets nothing through yet.
fn filtered(lines: BoxedLayer) -> (BoxedLayer, reload::Handle<LevelFilter, Registry>) {
    let (filter, handle) = reload::Layer::new(LevelFilter::OFF);
    (Box::new(lines.with_filter(filter)), handle)
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

impl LogControl {
    /// The least important lines written.
    pub fn level(&self) -> Level {
        *lock(&self.level)
    }

    /// The way to a syslog daemon.
    pub fn syslog(&self) -> &Syslog {
        &self.syslog
    }

    /// From now on writes lines of at least `level`.
    pub fn set_level(&self, level: Level) {
        let mut held = lock(&self.level);
        *held = level;
        self.apply(level);
    }

    /// From now on writes lines as objects of JSON, or as text.
    pub fn set_json(&self, json: bool) {
        let level = lock(&self.level);
        self.is_json.store(json, Relaxed);
        self.apply(*level);
    }

    fn apply(&self, level: Level) {
        let level = LevelFilter::from_level(level);
        let (writes, silent) = match self.is_json.load(Relaxed) {
            true => (&self.json, &self.text),
            false => (&self.text, &self.json),
        };
        // They fail only where another log had been set up before; that one is not ours to change.
        let _ = silent.modify(|filter| *filter = LevelFilter::OFF);
        let _ = writes.modify(|filter| *filter = level);
        self.records.store(LevelFilter::INFO <= level, Relaxed);
    }
}

impl std::fmt::Debug for LogControl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("LogControl").field(&self.level()).finish()
    }
}
