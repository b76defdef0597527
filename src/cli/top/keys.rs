//! What keys are, and what each does to what is seen.

use super::state::{Focus, View};
use crate::{
    admin::api::model::{Kill, MappingChange},
    units::count,
};

/// Rows that a page key goes.
const PAGE: isize = 10;

/// A key that was pressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Char(char),
    Enter,
    Tab,
    Backspace,
    Escape,
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    ControlC,
}

/// The keys that these bytes of a terminal are. Sequences that mean none of them are left out.
pub(super) fn keys(bytes: &[u8]) -> Vec<Key> {
    let text = String::from_utf8_lossy(bytes);
    let mut rest = text.chars();
    let mut keys = Vec::new();
    while let Some(c) = rest.next() {
        let key = match c {
            '\x03' => Some(Key::ControlC),
            '\t' => Some(Key::Tab),
            '\r' | '\n' => Some(Key::Enter),
            '\x08' | '\x7f' => Some(Key::Backspace),
            '\x1b' => match rest.as_str().chars().next() {
                Some('[' | 'O') => sequence(&mut rest),
                _ => Some(Key::Escape),
            },
            c if c.is_control() => None,
            c => Some(Key::Char(c)),
        };
        keys.extend(key);
    }
    keys
}

/// What follows an escape: a bracket, numbers, and what ends it.
fn sequence(rest: &mut std::str::Chars<'_>) -> Option<Key> {
    rest.next();
    let mut number = String::new();
    for c in rest {
        match c {
            '0'..='9' | ';' => number.push(c),
            'A' => return Some(Key::Up),
            'B' => return Some(Key::Down),
            'H' => return Some(Key::Home),
            'F' => return Some(Key::End),
            '~' => {
                return match number.as_str() {
                    "1" | "7" => Some(Key::Home),
                    "4" | "8" => Some(Key::End),
                    "5" => Some(Key::PageUp),
                    "6" => Some(Key::PageDown),
                    _ => None,
                };
            }
            _ => return None,
        }
    }
    None
}

/// What keys are for at the moment.
#[derive(Debug, Default, PartialEq)]
pub(super) enum Mode {
    #[default]
    Watching,
    /// They are the text to filter by.
    Filtering,
    /// They answer whether to do that.
    Asking(Action),
}

/// Something to be done to the proxy.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Action {
    pub question: String,
    pub order: Order,
}

/// What the proxy is asked for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Order {
    Kill(Kill),
    Pause(MappingChange),
    Drain(MappingChange),
    Resume(MappingChange),
}

/// What follows from a key.
#[derive(Debug, PartialEq)]
pub(super) enum Effect {
    None,
    Quit,
    Do(Order),
}

impl View {
    pub fn press(&mut self, key: Key) -> Effect {
        self.said = None;
        if key == Key::ControlC {
            return Effect::Quit;
        }
        match std::mem::take(&mut self.mode) {
            Mode::Watching => return self.watch(key),
            Mode::Filtering => self.filter_by(key),
            Mode::Asking(action) => match key {
                Key::Char('y' | 'Y') => return Effect::Do(action.order),
                _ => self.said = Some("nothing done".to_owned()),
            },
        }
        Effect::None
    }

    fn watch(&mut self, key: Key) -> Effect {
        match key {
            Key::Char('q') => return Effect::Quit,
            Key::Escape if self.filter.is_empty() => return Effect::Quit,
            Key::Escape => self.filter.clear(),
            Key::Char('/') => self.mode = Mode::Filtering,
            Key::Char('s') => self.reorder(),
            Key::Char(' ') => self.stopped = !self.stopped,
            Key::Tab => self.turn(),
            Key::Up => self.go(-1),
            Key::Down => self.go(1),
            Key::PageUp => self.go(-PAGE),
            Key::PageDown => self.go(PAGE),
            Key::Home => self.go(isize::MIN),
            Key::End => self.go(isize::MAX),
            Key::Char(c @ ('k' | 'p' | 'd' | 'r')) => match self.action(c) {
                Some(action) => self.mode = Mode::Asking(action),
                None => self.said = Some("select something first, with the arrow keys".to_owned()),
            },
            _ => {}
        }
        Effect::None
    }

    fn filter_by(&mut self, key: Key) {
        self.mode = Mode::Filtering;
        match key {
            Key::Char(c) => self.filter.push(c),
            Key::Backspace => _ = self.filter.pop(),
            Key::Escape => {
                self.filter.clear();
                self.mode = Mode::Watching;
            }
            Key::Enter => self.mode = Mode::Watching,
            _ => {}
        }
    }

    /// What a key does to the selected session or mapping.
    fn action(&self, key: char) -> Option<Action> {
        let session = (self.focus == Focus::Sessions).then(|| self.selected_session());
        if let ('k', Some(session)) = (key, session) {
            let session = session?;
            let (number, mapping, client) = (session.session, &session.mapping, &session.client);
            return Some(Action {
                question: format!("end session {number} of {mapping}, from {client}?"),
                order: Order::Kill(Kill {
                    session: Some(number),
                    ..Kill::default()
                }),
            });
        }
        let name = match session {
            Some(session) => session?.mapping.clone(),
            None => self.selected_mapping()?.mapping.clone(),
        };
        let open = (self.round.iter().flat_map(|round| &round.mappings))
            .find(|mapping| mapping.of.mapping == name)
            .map_or(0, |mapping| mapping.of.sessions);
        let sessions = count(open, "session");
        let change = MappingChange {
            mapping: name.clone(),
            within: None,
        };
        Some(match key {
            'k' => Action {
                question: format!("end {sessions} of {name}?"),
                order: Order::Kill(Kill {
                    mapping: Some(name),
                    ..Kill::default()
                }),
            },
            'p' => Action {
                question: format!("pause {name}? New clients wait; open: {sessions}."),
                order: Order::Pause(change),
            },
            'd' => Action {
                question: format!("drain {name}? New clients are refused; open: {sessions}."),
                order: Order::Drain(change),
            },
            _ => Action {
                question: format!("resume {name}? It takes new clients again."),
                order: Order::Resume(change),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{super::state::tests::view, *};

    fn press(view: &mut View, bytes: &[u8]) -> Effect {
        let effects = keys(bytes).into_iter().map(|key| view.press(key));
        effects.last().expect("a key")
    }

    #[test]
    fn keys_of_several_bytes_are_one_key() {
        assert_eq!(
            keys(b"a\x1b[A\x1b[6~\x1bOH\x1b[1;5Cz\x1b"),
            [
                Key::Char('a'),
                Key::Up,
                Key::PageDown,
                Key::Home,
                Key::Char('z'),
                Key::Escape
            ]
        );
        assert_eq!(keys("ü\x7f\r\t\x03".as_bytes()).len(), 5);
    }

    #[test]
    fn nothing_is_done_without_a_yes() {
        let mut view = view();
        assert_eq!(press(&mut view, b"k"), Effect::None);
        assert!(view.said.is_some(), "nothing is selected");
        assert_eq!(press(&mut view, b"\t\x1b[Bk"), Effect::None);
        let Mode::Asking(action) = &view.mode else {
            panic!("{view:?}");
        };
        assert!(
            action.question.starts_with("end session 2 of board-14"),
            "{action:?}"
        );
        assert_eq!(press(&mut view, b"n"), Effect::None);
        assert_eq!(view.mode, Mode::Watching);
        let Effect::Do(Order::Kill(kill)) = press(&mut view, b"ky") else {
            panic!("{view:?}");
        };
        assert_eq!(kill.session, Some(2));
        let Effect::Do(Order::Drain(change)) = press(&mut view, b"dy") else {
            panic!("{view:?}");
        };
        assert_eq!(change.mapping, "board-14");
        assert_eq!(press(&mut view, b"\x03"), Effect::Quit);
    }

    #[test]
    fn a_filter_is_typed_and_taken_back() {
        let mut view = view();
        let sessions = |view: &View| view.sessions().count();
        press(&mut view, b"/113.2q");
        assert_eq!((sessions(&view), view.filter.as_str()), (0, "113.2q"));
        press(&mut view, b"\x7f\r");
        assert_eq!(sessions(&view), 1);
        assert_eq!(
            press(&mut view, b"\x1b"),
            Effect::None,
            "it clears the filter"
        );
        assert_eq!(sessions(&view), 3);
        assert_eq!(press(&mut view, b"\x1b"), Effect::Quit);
    }
}
