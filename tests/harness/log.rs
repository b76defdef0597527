//! What the proxy writes, line by line, while it runs.

use std::{
    fmt,
    io::{BufRead, BufReader, Read},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Instant,
};

use serde_json::Value;

use super::DEADLINE;

/// One line of the JSON log.
#[derive(Debug, Clone)]
pub struct Line(Value);

impl Line {
    /// The message.
    pub fn message(&self) -> &str {
        self.text("message")
    }

    /// A field that is text; empty if absent.
    pub fn text(&self, field: &str) -> &str {
        self.0.get(field).and_then(Value::as_str).unwrap_or("")
    }

    /// A field that is a number.
    #[track_caller]
    pub fn number(&self, field: &str) -> u64 {
        self.0
            .get(field)
            .and_then(Value::as_u64)
            .unwrap_or_else(|| panic!("no number {field:?} in {}", self.0))
    }

    /// The same line without some fields.
    pub fn without(&self, fields: &[&str]) -> Self {
        let mut line = self.clone();
        if let Some(all) = line.0.as_object_mut() {
            all.retain(|field, _| !fields.contains(&field.as_str()));
        }
        line
    }

    /// Whether it has that field.
    pub fn has(&self, field: &str) -> bool {
        self.0.get(field).is_some()
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The lines of both of the proxy's outputs.
#[derive(Debug, Clone, Default)]
pub struct Log(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    raw: Vec<String>,
    lines: Vec<Line>,
    readers: usize,
}

impl Log {
    /// Collects what `output` brings, in a thread that ends with it.
    pub fn follow(&self, output: impl Read + Send + 'static) {
        self.state().readers += 1;
        let log = self.clone();
        thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n') {
                let Ok(line) = line else { break };
                log.add(String::from_utf8_lossy(&line).into_owned());
            }
            log.state().readers -= 1;
            log.0.changed.notify_all();
        });
    }

    fn add(&self, raw: String) {
        let mut state = self.state();
        if let Ok(value) = serde_json::from_str::<Value>(&raw)
            && value.is_object()
        {
            state.lines.push(Line(value));
        }
        state.raw.push(raw);
        self.0.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many lines there are, as a place to wait from.
    pub fn len(&self) -> usize {
        self.state().lines.len()
    }

    /// The first line after the first `from` ones that is `wanted`, as soon as it is there.
    #[track_caller]
    pub fn wait(&self, from: usize, what: &str, wanted: impl Fn(&Line) -> bool) -> Line {
        let give_up = Instant::now() + DEADLINE;
        let mut seen = from;
        let mut state = self.state();
        loop {
            if let Some(line) = state.lines.iter().skip(seen).find(|line| wanted(line)) {
                return line.clone();
            }
            seen = state.lines.len().max(from);
            assert!(state.readers > 0, "the log ended without {what}");
            let left = give_up.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the log is still without {what}");
            state = match self.0.changed.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    /// Waits until the program has closed its outputs.
    #[track_caller]
    pub fn wait_for_end(&self) {
        let give_up = Instant::now() + DEADLINE;
        let mut state = self.state();
        while state.readers > 0 {
            let left = give_up.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the outputs stay open");
            state = match self.0.changed.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    /// All lines that are `wanted`.
    pub fn all(&self, wanted: impl Fn(&Line) -> bool) -> Vec<Line> {
        self.state()
            .lines
            .iter()
            .filter(|line| wanted(line))
            .cloned()
            .collect()
    }

    /// Everything, as it was written.
    pub fn text(&self) -> String {
        self.state().raw.join("\n")
    }
}
