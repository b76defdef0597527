//! Setting the log up: one line an event on standard output, for people or for machines.

use std::io::IsTerminal;

use tracing::Level;
use tracing_subscriber::{filter::LevelFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// Sends every event of at least `level` to standard output, as JSON or as text.
///
/// A second call changes nothing.
pub fn init(json: bool, level: Level) {
    let layer = fmt::layer().with_target(false);
    let registry = tracing_subscriber::registry().with(LevelFilter::from_level(level));
    // It fails only if a log has been set up before, which then stays.
    let _ = match json {
        true => registry
            .with(
                layer
                    .json()
                    .flatten_event(true)
                    .with_current_span(false)
                    .with_span_list(false),
            )
            .try_init(),
        false => registry
            .with(layer.with_ansi(std::io::stdout().is_terminal()))
            .try_init(),
    };
}
