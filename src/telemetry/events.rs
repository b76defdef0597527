//! What happened lately: the log's lines, those of sessions left out, kept for whoever asks.
//!
//! A [`Layer`] beside the one that writes the log takes every event of a level an operator cares
//! about, so whatever is worth a line in the log is an event without further ado.

use std::{
    borrow::Cow,
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{Arc, Mutex},
    time::SystemTime,
};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tracing::{Level, Subscriber, field::Field};
use tracing_subscriber::layer::{Context, Layer};

use crate::{handover::LoadError, mutex::lock, text::clipped};

/// Events kept.
const CAPACITY: usize = 256;

/// Bytes of text kept, whatever is longer than usual: the oldest is forgotten first.
const MOST_BYTES: usize = 512 << 10;

/// Of one particular of an event, so many bytes are kept.
const LONGEST: usize = 8 << 10;

/// Something that happened.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its number; numbers go up by one.
    pub number: u64,
    /// When it happened.
    pub at: SystemTime,
    /// How bad it is.
    pub level: Level,
    /// What happened.
    pub message: String,
    /// The particulars.
    pub fields: BTreeMap<Cow<'static, str>, String>,
}

/// The latest events, as they are handed over to the next image of the program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SavedEvents {
    /// The number of the latest event there was, whether it is kept or not.
    latest: u64,
    kept: Vec<SavedEvent>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SavedEvent {
    number: u64,
    at: SystemTime,
    level: String,
    message: String,
    #[serde(default)]
    fields: BTreeMap<String, String>,
}

/// The latest events.
#[derive(Debug, Clone)]
pub struct Events(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    kept: Mutex<Kept>,
    /// The number of the latest event.
    latest: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Kept {
    events: VecDeque<Event>,
    /// What is in their text.
    bytes: usize,
}

impl Kept {
    fn push(&mut self, event: Event) {
        self.bytes += event.bytes();
        self.events.push_back(event);
        while self.events.len() > CAPACITY || (self.bytes > MOST_BYTES && self.events.len() > 1) {
            let oldest = self.events.pop_front();
            self.bytes -= oldest.map_or(0, |event| event.bytes());
        }
    }
}

impl Event {
    fn bytes(&self) -> usize {
        let fields = self.fields.iter();
        let fields = fields.map(|(name, value)| name.len() + value.len());
        self.message.len() + fields.sum::<usize>()
    }
}

/// The level of a word.
pub(super) fn level_of(word: &str) -> Result<Level, LoadError> {
    let level = word.parse();
    level.map_err(|_| LoadError::value("level of the log", format!("{word:?} is none")))
}

impl Default for Events {
    fn default() -> Self {
        Self(Arc::new(Inner {
            kept: Mutex::default(),
            latest: watch::Sender::new(0),
        }))
    }
}

impl Events {
    /// The events after number `after` that are still kept, oldest first.
    pub fn after(&self, after: u64) -> Vec<Event> {
        let kept = lock(&self.0.kept);
        let new = kept.events.iter().filter(|event| event.number > after);
        new.cloned().collect()
    }

    /// Waits until there is an event after number `after`.
    pub async fn wait_after(&self, after: u64) {
        let mut latest = self.0.latest.subscribe();
        // It fails only when the sender is gone, which this value holds.
        let _ = latest.wait_for(|latest| *latest > after).await;
    }

    /// All of them.
    pub fn save(&self) -> SavedEvents {
        let kept = lock(&self.0.kept);
        let save = |event: &Event| {
            let Event {
                number,
                at,
                level,
                message,
                fields,
            } = event;
            let fields = fields.iter();
            SavedEvent {
                number: *number,
                at: *at,
                level: level.to_string(),
                message: message.clone(),
                fields: fields
                    .map(|(name, value)| (name.to_string(), value.clone()))
                    .collect(),
            }
        };
        SavedEvents {
            latest: *self.0.latest.borrow(),
            kept: kept.events.iter().map(save).collect(),
        }
    }

    /// Goes on counting.
    ///
    /// # Errors
    ///
    /// An event is of no level, or their numbers do not go up.
    pub fn load(saved: SavedEvents) -> Result<Self, LoadError> {
        let SavedEvents { latest, kept } = saved;
        let mut events = Kept::default();
        let mut before = 0;
        for saved in kept {
            let SavedEvent {
                number,
                at,
                level,
                message,
                fields,
            } = saved;
            if number <= before || number > latest {
                let why = format!("event {number} after {before}, and {latest} is the latest");
                return Err(LoadError::value("number of an event", why));
            }
            before = number;
            let fields = fields.into_iter();
            events.push(Event {
                number,
                at,
                level: level_of(&level)?,
                message,
                fields: fields.map(|(name, value)| (name.into(), value)).collect(),
            });
        }
        Ok(Self(Arc::new(Inner {
            kept: Mutex::new(events),
            latest: watch::Sender::new(latest),
        })))
    }

    fn add(&self, event: &tracing::Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut kept = lock(&self.0.kept);
        let number = *self.0.latest.borrow() + 1;
        kept.push(Event {
            number,
            at: SystemTime::now(),
            level: *event.metadata().level(),
            message: fields.message,
            fields: fields.others,
        });
        // Before the next one takes its number.
        self.0.latest.send_replace(number);
    }
}

impl<S: Subscriber> Layer<S> for Events {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        self.add(event);
    }
}

/// The fields of one event as text.
#[derive(Default)]
struct Fields {
    message: String,
    others: BTreeMap<Cow<'static, str>, String>,
}

impl tracing::field::Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record(field, value.to_owned());
    }
}

impl Fields {
    fn record(&mut self, field: &Field, value: String) {
        let value = clipped(value, LONGEST);
        match field.name() {
            "message" => self.message = value,
            name => _ = self.others.insert(name.into(), value),
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn the_latest_events_are_kept_with_their_fields() {
        let events = Events::default();
        let subscriber = tracing_subscriber::registry().with(events.clone());
        tracing::subscriber::with_default(subscriber, || {
            for number in 0..300 {
                tracing::warn!(number, name = "x", "something happened");
            }
        });
        let kept = events.after(0);
        assert_eq!(kept.len(), CAPACITY);
        let last = kept.last().expect("there are some");
        assert_eq!(last.number, 300);
        assert_eq!(last.message, "something happened");
        assert_eq!(last.fields["number"], "299");
        assert_eq!(last.fields["name"], "x");
        assert_eq!(events.after(299).len(), 1);
    }

    #[test]
    fn long_events_are_forgotten_before_they_fill_the_memory() {
        let events = Events::default();
        let subscriber = tracing_subscriber::registry().with(events.clone());
        let long = "x".repeat(2 * LONGEST);
        tracing::subscriber::with_default(subscriber, || {
            for number in 0..CAPACITY {
                tracing::warn!(number, long, also = long, "something long happened");
            }
        });
        let kept = events.after(0);
        let bytes: usize = kept.iter().map(Event::bytes).sum();
        assert!(bytes <= MOST_BYTES, "{bytes}");
        assert!(bytes > MOST_BYTES - 3 * LONGEST, "{bytes}");
        assert_eq!(kept.last().map(|event| event.number), Some(256));
        assert_eq!(lock(&events.0.kept).bytes, bytes);
    }

    #[test]
    fn events_of_several_threads_are_numbered_one_by_one() {
        let events = Events::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let subscriber = tracing_subscriber::registry().with(events.clone());
                scope.spawn(|| {
                    tracing::subscriber::with_default(subscriber, || {
                        for _ in 0..4000 {
                            tracing::warn!("something happened");
                        }
                    });
                });
            }
        });
        let numbers: Vec<u64> = events.after(0).iter().map(|event| event.number).collect();
        let expected: Vec<u64> = (16_001 - CAPACITY as u64..=16_000).collect();
        assert_eq!(numbers, expected);
    }
}
