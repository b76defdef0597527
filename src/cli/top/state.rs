//! What `top` knows: the latest answers and the rates between the last two.

use std::{collections::HashMap, time::Instant};

use crate::admin::api::model::{Mapping, Mappings, Session, Sessions, Status};

/// One round of answers.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    pub at: Instant,
    pub status: Status,
    pub mappings: Mappings,
    pub sessions: Sessions,
}

/// Bytes per second both ways, and sessions per second where they are counted.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Rates {
    pub up: f64,
    pub down: f64,
    pub opened: f64,
}

impl Rates {
    fn bytes(&self) -> f64 {
        self.up + self.down
    }
}

/// What comes first among the sessions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Order {
    /// Those that move most bytes now.
    #[default]
    Rate,
    /// Those that have moved most bytes.
    Bytes,
    /// The oldest.
    Age,
}

impl Order {
    pub fn next(self) -> Self {
        match self {
            Self::Rate => Self::Bytes,
            Self::Bytes => Self::Age,
            Self::Age => Self::Rate,
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Bytes => "bytes",
            Self::Age => "age",
        }
    }
}

/// What is on the screen.
#[derive(Debug, Default)]
pub(super) struct View {
    before: Option<Snapshot>,
    now: Option<Snapshot>,
    pub order: Order,
    pub stopped: bool,
    /// Why there was no answer the last time, if there was none.
    pub trouble: Option<String>,
    /// For how many seconds the proxy has owed an answer, if that is worth a word.
    pub overdue: Option<u64>,
}

impl View {
    pub fn take(&mut self, snapshot: Snapshot) {
        self.before = self.now.replace(snapshot);
        self.trouble = None;
    }

    pub fn status(&self) -> Option<&Status> {
        self.now.as_ref().map(|round| &round.status)
    }

    /// Sessions there are; no more than so many are asked for.
    pub fn sessions_total(&self) -> usize {
        let total = self.now.as_ref().map_or(0, |round| round.sessions.total);
        usize::try_from(total).unwrap_or(usize::MAX)
    }

    /// The rates of the whole process.
    pub fn total(&self) -> Rates {
        let (Some(before), Some(now)) = (&self.before, &self.now) else {
            return Rates::default();
        };
        let counts = |status: &Status| (status.bytes_up, status.bytes_down, status.sessions_opened);
        self.rates(Some(counts(&before.status)), counts(&now.status))
    }

    /// The mappings, busiest first.
    pub fn mappings(&self) -> Vec<(&Mapping, Rates)> {
        let counts = |mapping: &Mapping| (mapping.bytes_up, mapping.bytes_down, mapping.opened);
        let before: HashMap<&str, _> = (self.before.iter())
            .flat_map(|round| &round.mappings.mappings)
            .map(|mapping| (mapping.mapping.as_str(), counts(mapping)))
            .collect();
        let mut rows: Vec<_> = (self.now.iter())
            .flat_map(|round| &round.mappings.mappings)
            .map(|mapping| {
                let before = before.get(mapping.mapping.as_str()).copied();
                (mapping, self.rates(before, counts(mapping)))
            })
            .collect();
        rows.sort_by(|(one, its), (other, others)| {
            let busier = others.bytes().total_cmp(&its.bytes());
            busier.then(other.sessions.cmp(&one.sessions))
        });
        rows
    }

    /// The sessions in the order asked for.
    pub fn sessions(&self) -> Vec<(&Session, Rates)> {
        let counts = |session: &Session| (session.bytes_up, session.bytes_down, 0);
        let before: HashMap<u64, _> = (self.before.iter())
            .flat_map(|round| &round.sessions.sessions)
            .map(|session| (session.session, counts(session)))
            .collect();
        let mut rows: Vec<_> = (self.now.iter())
            .flat_map(|round| &round.sessions.sessions)
            .map(|session| {
                let before = before.get(&session.session).copied();
                (session, self.rates(before, counts(session)))
            })
            .collect();
        rows.sort_by(|(one, its), (other, others)| {
            let moved = |session: &Session| session.bytes_up + session.bytes_down;
            match self.order {
                Order::Rate => others.bytes().total_cmp(&its.bytes()),
                Order::Bytes => moved(other).cmp(&moved(one)),
                Order::Age => other.duration_ms.cmp(&one.duration_ms),
            }
        });
        rows
    }

    /// What was counted per second between the last two answers; nothing for what was not there.
    fn rates(&self, before: Option<(u64, u64, u64)>, now: (u64, u64, u64)) -> Rates {
        let span = match (&self.before, &self.now) {
            (Some(before), Some(now)) => now.at.duration_since(before.at).as_secs_f64(),
            _ => 0.0,
        };
        let Some(before) = before.filter(|_| span > 0.0) else {
            return Rates::default();
        };
        let rate = |before: u64, now: u64| now.saturating_sub(before) as f64 / span;
        Rates {
            up: rate(before.0, now.0),
            down: rate(before.1, now.1),
            opened: rate(before.2, now.2),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;

    fn session(number: u64, bytes_up: u64, duration_ms: u64) -> Session {
        Session {
            session: number,
            mapping: "board-14".to_owned(),
            client: format!("203.0.113.{number}:50000"),
            target: "[fd9d::10]:22".to_owned(),
            stage: "open".to_owned(),
            bytes_up,
            duration_ms,
            ..Session::default()
        }
    }

    fn snapshot(at: Instant, sessions: Vec<Session>) -> Snapshot {
        let bytes_up = sessions.iter().map(|session| session.bytes_up).sum();
        Snapshot {
            at,
            status: Status {
                bytes_up,
                sessions: sessions.len() as u64,
                sessions_limit: 100,
                ..Status::default()
            },
            mappings: Mappings {
                mappings: vec![Mapping {
                    mapping: "board-14".to_owned(),
                    state: "accepting".to_owned(),
                    bytes_up,
                    sessions: sessions.len() as u64,
                    ..Mapping::default()
                }],
            },
            sessions: Sessions {
                total: sessions.len() as u64,
                sessions,
            },
        }
    }

    /// Two answers two seconds apart: session 1 is large and old, 2 is fast, 3 is new.
    pub fn view() -> View {
        let start = Instant::now();
        let mut view = View::default();
        view.take(snapshot(
            start,
            vec![session(1, 90_000, 9000), session(2, 0, 500)],
        ));
        view.take(snapshot(
            start + Duration::from_secs(2),
            vec![
                session(1, 90_000, 11_000),
                session(2, 20_480, 2500),
                session(3, 7, 100),
            ],
        ));
        view
    }

    /// Every number in the rows of [`crowded`], without units of time.
    pub const NUMBERS: [&str; 7] = ["0", "40", "43M", "1.6G", "123456", "59s", "1m"];

    /// More sessions than a screen has lines, with long addresses and large numbers.
    pub fn crowded() -> View {
        let sessions = |bytes_up| {
            let session = |_| Session {
                client: "127.200.200.200:50000".to_owned(),
                quiet_ms: 59_000,
                ..session(123_456, bytes_up, 59_000)
            };
            (0..40).map(session).collect()
        };
        let start = Instant::now();
        let mut view = View::default();
        view.take(snapshot(start, sessions(0)));
        view.take(snapshot(start + Duration::from_secs(1), sessions(43 << 20)));
        view
    }

    #[test]
    fn sessions_have_rates_and_an_order() {
        let mut view = view();
        let numbers = |view: &View| -> Vec<u64> {
            view.sessions()
                .iter()
                .map(|(session, _)| session.session)
                .collect()
        };
        assert_eq!(view.sessions()[0].1.up, 10_240.0);
        assert_eq!(numbers(&view), [2, 1, 3]);
        view.order = view.order.next();
        assert_eq!(numbers(&view), [1, 2, 3]);
        view.order = view.order.next();
        assert_eq!(numbers(&view), [1, 2, 3]);
        assert_eq!(view.mappings()[0].1.up, (20_480.0 + 7.0) / 2.0);
    }

    #[test]
    fn one_answer_has_no_rates() {
        let mut view = View::default();
        view.take(snapshot(Instant::now(), vec![session(1, 5, 5)]));
        assert_eq!(view.sessions()[0].1, Rates::default());
        assert_eq!(view.total(), Rates::default());
    }
}
