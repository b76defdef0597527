//! What `top` knows: the latest answers and the rates between the last two.

use std::{collections::HashMap, hash::Hash, time::Instant};

use serde::Serialize;
use strum::{IntoStaticStr, VariantArray};

use super::keys::Mode;
use crate::admin::api::model::{Mapping, Mappings, Session, Sessions, Standing, Status};

#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    pub at: Instant,
    pub status: Status,
    pub mappings: Mappings,
    pub sessions: Sessions,
}

/// One round of answers with the rates since those before.
#[derive(Debug, Serialize)]
pub(super) struct Round {
    #[serde(skip)]
    at: Instant,
    pub status: Rated<Status>,
    /// Those that fail first.
    pub mappings: Vec<Rated<Mapping>>,
    /// How many there are; no more than so many are asked for.
    pub sessions_total: u64,
    pub sessions: Vec<Rated<Session>>,
}

#[derive(Debug, Serialize)]
pub(super) struct Rated<T> {
    #[serde(flatten)]
    pub of: T,
    #[serde(flatten)]
    pub rates: Rates,
}

/// Bytes per second both ways, and sessions per second where they are counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(super) struct Rates {
    #[serde(rename = "bytes_up_per_second")]
    pub up: f64,
    #[serde(rename = "bytes_down_per_second")]
    pub down: f64,
    #[serde(rename = "opened_per_second", skip_serializing_if = "Option::is_none")]
    pub opened: Option<f64>,
}

impl Rates {
    fn bytes(&self) -> f64 {
        self.up + self.down
    }
}

/// What comes first among the mappings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub(super) enum MappingOrder {
    /// Those that fail, then what an operator holds, then those that move most bytes now.
    #[default]
    Trouble,
    /// Those that move most bytes now.
    Rate,
    /// Those with most sessions.
    Sessions,
    Name,
}

impl MappingOrder {
    fn next(self) -> Self {
        next_of(Self::VARIANTS, self as usize)
    }

    pub fn word(self) -> &'static str {
        self.into()
    }
}

/// What comes first among the sessions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub(super) enum SessionOrder {
    /// Those that move most bytes now.
    #[default]
    Rate,
    /// Those that have moved most bytes.
    Bytes,
    /// The oldest.
    Age,
    /// By name of the mapping.
    Mapping,
}

impl SessionOrder {
    fn next(self) -> Self {
        next_of(Self::VARIANTS, self as usize)
    }

    pub fn word(self) -> &'static str {
        self.into()
    }
}

/// The one after that in this place, in a circle.
fn next_of<T: Copy>(all: &[T], place: usize) -> T {
    all[(place + 1) % all.len()]
}

/// The list that keys are for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Focus {
    #[default]
    Mappings,
    Sessions,
}

/// Which entry of a list is selected: it stays so wherever it goes, and its place is when it is gone.
#[derive(Debug, Clone)]
struct Selected<K> {
    key: K,
    place: usize,
}

impl<K: PartialEq> Selected<K> {
    fn place(&self, keys: &[K]) -> Option<usize> {
        let found = keys.iter().position(|key| *key == self.key);
        found.or_else(|| keys.len().checked_sub(1).map(|last| last.min(self.place)))
    }
}

/// Remembers where the selected entry is now, if it is there.
fn follow<K: PartialEq>(selected: &mut Option<Selected<K>>, keys: &[K]) {
    if let Some(selected) = selected
        && let Some(place) = keys.iter().position(|key| *key == selected.key)
    {
        selected.place = place;
    }
}

/// The selection so many entries further, where there are any.
fn moved<K: PartialEq + Clone>(
    selected: Option<&Selected<K>>,
    keys: &[K],
    by: isize,
) -> Option<Selected<K>> {
    let last = keys.len().checked_sub(1)?;
    let place = match selected.and_then(|selected| selected.place(keys)) {
        Some(place) => place.saturating_add_signed(by).min(last),
        None if by < 0 || by == isize::MAX => last,
        None => 0,
    };
    let key = keys[place].clone();
    Some(Selected { key, place })
}

#[derive(Debug, Default)]
pub(super) struct View {
    pub round: Option<Round>,
    pub focus: Focus,
    pub mapping_order: MappingOrder,
    pub session_order: SessionOrder,
    /// Only what has this text in it is shown.
    pub filter: String,
    pub mode: Mode,
    /// What came of the last order, until a key is pressed.
    pub said: Option<String>,
    selected_mapping: Option<Selected<String>>,
    selected_session: Option<Selected<u64>>,
    pub stopped: bool,
    /// Why there was no answer the last time, if there was none.
    pub trouble: Option<String>,
    /// For how many seconds the proxy has owed an answer, if that is worth a word.
    pub overdue: Option<u64>,
}

impl View {
    pub fn take(&mut self, snapshot: Snapshot) {
        let before = self.round.as_ref();
        let span = before.map(|before| (snapshot.at - before.at).as_secs_f64());
        let status = rated(
            before.map(|before| std::slice::from_ref(&before.status)),
            vec![snapshot.status],
            span,
            |_| (),
            |status| {
                (
                    status.bytes_up,
                    status.bytes_down,
                    Some(status.sessions_opened),
                )
            },
        );
        let mappings = rated(
            before.map(|before| &before.mappings[..]),
            snapshot.mappings.mappings,
            span,
            |mapping| mapping.mapping.clone(),
            |mapping| (mapping.bytes_up, mapping.bytes_down, Some(mapping.opened)),
        );
        let sessions = rated(
            before.map(|before| &before.sessions[..]),
            snapshot.sessions.sessions,
            span,
            |session| session.session,
            |session| (session.bytes_up, session.bytes_down, None),
        );
        self.round = status.into_iter().next().map(|status| Round {
            at: snapshot.at,
            status,
            mappings,
            sessions_total: snapshot.sessions.total,
            sessions,
        });
        self.trouble = None;
        self.sort();
    }

    /// Brings the list that keys are for in another order.
    pub fn reorder(&mut self) {
        match self.focus {
            Focus::Mappings => self.mapping_order = self.mapping_order.next(),
            Focus::Sessions => self.session_order = self.session_order.next(),
        }
        self.sort();
    }

    /// Has keys be for the other list.
    pub fn turn(&mut self) {
        self.focus = match self.focus {
            Focus::Mappings => Focus::Sessions,
            Focus::Sessions => Focus::Mappings,
        };
    }

    /// Selects what is so many entries further.
    pub fn go(&mut self, by: isize) {
        match self.focus {
            Focus::Mappings => {
                let moved = moved(self.selected_mapping.as_ref(), &self.mapping_keys(), by);
                self.selected_mapping = moved;
            }
            Focus::Sessions => {
                let moved = moved(self.selected_session.as_ref(), &self.session_keys(), by);
                self.selected_session = moved;
            }
        }
    }

    /// The mappings that are shown, in their order.
    pub fn mappings(&self) -> impl Iterator<Item = &Rated<Mapping>> {
        let all = self.round.iter().flat_map(|round| &round.mappings);
        let wanted = self.filter.to_lowercase();
        all.filter(move |one| {
            let Mapping { mapping, .. } = &one.of;
            let texts = [
                mapping.clone(),
                one.of.state_in_words(),
                one.of.listen(),
                one.of.target(),
            ];
            has(&texts, &wanted)
        })
    }

    /// The sessions that are shown, in their order.
    pub fn sessions(&self) -> impl Iterator<Item = &Rated<Session>> {
        let all = self.round.iter().flat_map(|round| &round.sessions);
        let wanted = self.filter.to_lowercase();
        all.filter(move |one| {
            let Session {
                mapping,
                client,
                target,
                listen,
                stage,
                ..
            } = &one.of;
            has(&[mapping, client, target, listen, stage], &wanted)
        })
    }

    fn mapping_keys(&self) -> Vec<String> {
        self.mappings().map(|one| one.of.mapping.clone()).collect()
    }

    fn session_keys(&self) -> Vec<u64> {
        self.sessions().map(|one| one.of.session).collect()
    }

    /// The place of the selected mapping among those shown.
    pub fn mapping_place(&self) -> Option<usize> {
        let selected = self.selected_mapping.as_ref()?;
        selected.place(&self.mapping_keys())
    }

    /// The place of the selected session among those shown.
    pub fn session_place(&self) -> Option<usize> {
        let selected = self.selected_session.as_ref()?;
        selected.place(&self.session_keys())
    }

    pub fn selected_mapping(&self) -> Option<&Mapping> {
        self.mappings()
            .nth(self.mapping_place()?)
            .map(|one| &one.of)
    }

    pub fn selected_session(&self) -> Option<&Session> {
        self.sessions()
            .nth(self.session_place()?)
            .map(|one| &one.of)
    }

    fn sort(&mut self) {
        let Some(Round {
            mappings, sessions, ..
        }) = &mut self.round
        else {
            return;
        };
        let busier = |one: &Rated<Mapping>, other: &Rated<Mapping>| {
            let rate = other.rates.bytes().total_cmp(&one.rates.bytes());
            rate.then(other.of.sessions.cmp(&one.of.sessions))
        };
        mappings.sort_by(|one, other| match self.mapping_order {
            MappingOrder::Trouble => {
                let standing = |one: &Rated<Mapping>| -> Standing { one.of.standing() };
                standing(one).cmp(&standing(other)).then(busier(one, other))
            }
            MappingOrder::Rate => busier(one, other),
            MappingOrder::Sessions => other.of.sessions.cmp(&one.of.sessions),
            MappingOrder::Name => one.of.mapping.cmp(&other.of.mapping),
        });
        let bytes = |one: &Rated<Session>| one.of.bytes_up + one.of.bytes_down;
        let rate = |one: &Rated<Session>| one.rates.bytes();
        sessions.sort_by(|one, other| match self.session_order {
            SessionOrder::Rate => rate(other).total_cmp(&rate(one)),
            SessionOrder::Bytes => bytes(other).cmp(&bytes(one)),
            SessionOrder::Age => other.of.duration_ms.cmp(&one.of.duration_ms),
            SessionOrder::Mapping => one.of.mapping.cmp(&other.of.mapping),
        });
        let (mappings, sessions) = (self.mapping_keys(), self.session_keys());
        follow(&mut self.selected_mapping, &mappings);
        follow(&mut self.selected_session, &sessions);
    }
}

fn has(texts: &[impl AsRef<str>], wanted: &str) -> bool {
    let has = |text: &str| text.to_lowercase().contains(wanted);
    wanted.is_empty() || texts.iter().any(|text| has(text.as_ref()))
}

/// What there is now, with what was counted per second in the `span` since it was `before`: bytes up,
/// bytes down and sessions. Nothing for what was not there.
fn rated<T, K: Eq + Hash>(
    before: Option<&[Rated<T>]>,
    now: Vec<T>,
    span: Option<f64>,
    key: impl Fn(&T) -> K,
    counts: impl Fn(&T) -> (u64, u64, Option<u64>),
) -> Vec<Rated<T>> {
    let before = before.into_iter().flatten();
    let before: HashMap<K, _> = before.map(|one| (key(&one.of), counts(&one.of))).collect();
    let with_rates = |of: T| {
        let now = counts(&of);
        let (before, span) = match (before.get(&key(&of)), span) {
            (Some(before), Some(span)) if span > 0.0 => (*before, span),
            _ => (now, 1.0),
        };
        let rate = |before: u64, now: u64| now.saturating_sub(before) as f64 / span;
        let rates = Rates {
            up: rate(before.0, now.0),
            down: rate(before.1, now.1),
            opened: before.2.zip(now.2).map(|(before, now)| rate(before, now)),
        };
        Rated { of, rates }
    };
    now.into_iter().map(with_rates).collect()
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
            let sessions = view.round.iter().flat_map(|round| &round.sessions);
            sessions.map(|session| session.of.session).collect()
        };
        view.turn();
        let round = view.round.as_ref().expect("there are answers");
        assert_eq!(round.sessions[0].rates.up, 10_240.0);
        assert_eq!(round.mappings[0].rates.up, (20_480.0 + 7.0) / 2.0);
        assert_eq!(numbers(&view), [2, 1, 3]);
        view.reorder();
        assert_eq!(numbers(&view), [1, 2, 3]);
        view.reorder();
        assert_eq!(numbers(&view), [1, 2, 3]);
    }

    #[test]
    fn one_answer_has_no_rates() {
        let mut view = View::default();
        view.take(snapshot(Instant::now(), vec![session(1, 5, 5)]));
        let round = view.round.expect("there is an answer");
        assert_eq!(round.sessions[0].rates, Rates::default());
        let none = Rates {
            opened: Some(0.0),
            ..Rates::default()
        };
        assert_eq!(round.status.rates, none);
    }

    #[test]
    fn what_fails_is_first_until_another_order_is_asked_for() {
        let mapping = |name: &str, sessions, failing: Option<&str>| Mapping {
            mapping: name.to_owned(),
            state: "accepting".to_owned(),
            sessions,
            failing: failing.map(str::to_owned),
            ..Mapping::default()
        };
        let mut view = View::default();
        view.take(Snapshot {
            mappings: Mappings {
                mappings: vec![
                    mapping("busy", 9, None),
                    mapping("idle", 0, None),
                    mapping("dead", 0, Some("connection refused")),
                ],
            },
            ..snapshot(Instant::now(), Vec::new())
        });
        assert_eq!(view.mapping_keys(), ["dead", "busy", "idle"]);
        view.reorder();
        assert_eq!(view.mapping_keys(), ["busy", "dead", "idle"]);
        view.filter = "REFUSED".to_owned();
        assert_eq!(view.mapping_keys(), ["dead"]);
    }

    #[test]
    fn a_selection_stays_with_what_was_selected() {
        let mut view = view();
        view.turn();
        view.go(1);
        view.go(1);
        assert_eq!(view.selected_session().map(|one| one.session), Some(1));
        view.reorder();
        assert_eq!(view.session_place(), Some(0), "it is the largest");
        view.take(snapshot(
            Instant::now(),
            vec![session(2, 1, 1), session(3, 2, 2)],
        ));
        assert_eq!(view.session_place(), Some(0), "it is gone");
        view.go(isize::MAX);
        assert_eq!(view.session_place(), Some(1));
        view.take(snapshot(Instant::now(), Vec::new()));
        assert!(view.selected_session().is_none());
    }
}
