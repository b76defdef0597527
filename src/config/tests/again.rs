//! A file read again gives what reading it for the first time gives.

use std::path::Path;

use proptest::{prelude::*, sample::select};

use super::{Draft, Memory, file};

/// A valid piece, or one that is not, or one that is only in the right place.
const PIECES: [&str; 22] = [
    "[[mapping]]\nname = \"a\"\nlisten = 1000\ntarget = \"10.0.0.1:22\"\n",
    "[[mapping]]\nname = \"a\"\nlisten = 1000\ntarget = \"10.0.0.2:22\"\n",
    "[[mapping]]\nname = \"b\"\nlisten = \"1001-1009\"\ntarget = \"10.0.0.1:22\"\n\n",
    "[[mapping]] # c\r\nname = \"c\"\r\nlisten = 1010\r\ntarget = \"10.0.0.1:22\"\r\n",
    "[[mapping]]\nname = \"d\"\nlisten = [\n  1011,\n]\ntarget = \"10.0.0.1:22\"\n[mapping.keepalive]\ncount = 2\n",
    "[[mapping]]\nname = \"e\"\nlisten = 1012\ntarget = \"[fd9d::1]:22\"\nidle_timeout = \"1h\"",
    "[[mapping]]\nname = \"f\"\nlistne = 1013\ntarget = \"10.0.0.1:22\"\n",
    "[[mapping]]\nname = \"g\"\nlisten = 1014\ntarget = \"\"\"\n[[mapping]]\n\"\"\"\n",
    "[[mapping]]\nlisten = \"1-65535\"\n# \"\"\"\nname = \"h\"\ntarget = \"10.0.0.1:1\"\n",
    "[[mapping]]\n",
    " [[mapping]]\n",
    "[mapping]\n",
    "mapping = []\n",
    "[defaults]\nidle_timeout = \"2h\"\n",
    "[defaults]\nidle_timeout = \"2h\"\nkeepalive = \"off\"\n",
    "[targets]\nallow = [\"10.0.0.0/24\"]\n",
    "# a comment\n",
    "\n",
    "x = '''\n",
    "y = [\n",
    "]\n",
    "\u{feff}",
];

/// What came of a reading, problems with their places.
fn outcome(draft: Draft) -> String {
    let Draft { config, problems } = draft;
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    match problems.is_empty() {
        true => format!("{config:?}"),
        false => problems.join("\n"),
    }
}

/// Reads the texts one after the other, each also as if it were the first.
fn reads_like_new(texts: impl IntoIterator<Item = String>) {
    let path = Path::new("f");
    let mut memory = Memory::default();
    for text in texts {
        let again = outcome(file::read_text_again(&text, path, &mut memory));
        assert_eq!(again, outcome(file::read_text(&text, path)), "{text}");
    }
}

/// A change to a file made of pieces.
#[derive(Debug, Clone)]
enum Edit {
    Insert(prop::sample::Index, &'static str),
    Remove(prop::sample::Index),
    Swap(prop::sample::Index, prop::sample::Index),
    /// Takes a few bytes out, wherever they are.
    Cut(prop::sample::Index, usize),
}

fn edit() -> impl Strategy<Value = Edit> {
    use prop::sample::Index;
    prop_oneof![
        4 => (any::<Index>(), select(&PIECES[..])).prop_map(|(at, piece)| Edit::Insert(at, piece)),
        3 => any::<Index>().prop_map(Edit::Remove),
        2 => any::<(Index, Index)>().prop_map(|(a, b)| Edit::Swap(a, b)),
        1 => (any::<Index>(), 1..12_usize).prop_map(|(at, count)| Edit::Cut(at, count)),
    ]
}

impl Edit {
    /// The text that the edit makes of `pieces`; a cut is undone in the next one.
    fn apply(&self, pieces: &mut Vec<&'static str>) -> String {
        match self {
            Self::Insert(at, piece) => pieces.insert(at.index(pieces.len() + 1), *piece),
            Self::Remove(at) if !pieces.is_empty() => {
                pieces.remove(at.index(pieces.len()));
            }
            Self::Swap(a, b) if !pieces.is_empty() => {
                let (a, b) = (a.index(pieces.len()), b.index(pieces.len()));
                pieces.swap(a, b);
            }
            Self::Remove(_) | Self::Swap(..) | Self::Cut(..) => {}
        }
        let text = format!("version = 1\n{}", pieces.concat());
        match self {
            Self::Cut(at, count) => {
                let at = at.index(text.chars().count());
                let kept = |(index, _): &(usize, char)| !(at..at + count).contains(index);
                text.chars()
                    .enumerate()
                    .filter(kept)
                    .map(|(_, c)| c)
                    .collect()
            }
            _ => text,
        }
    }
}

proptest! {
    #[test]
    fn an_edited_file_reads_like_a_new_one(
        valid in proptest::collection::vec(select(&PIECES[..6]), 0..6),
        edits in proptest::collection::vec(edit(), 1..12),
    ) {
        let mut pieces = valid;
        let first = format!("version = 1\n{}", pieces.concat());
        let edited: Vec<String> = edits.iter().map(|edit| edit.apply(&mut pieces)).collect();
        reads_like_new([first].into_iter().chain(edited));
    }
}

/// A file with valid mappings of these names, one a port.
fn mappings(names: impl IntoIterator<Item = usize>) -> String {
    let mapping = |name| {
        let port = 1000 + name;
        format!("[[mapping]]\nname = \"m{name}\"\nlisten = {port}\ntarget = \"10.0.0.1:22\"\n")
    };
    let mappings: String = names.into_iter().map(mapping).collect();
    format!("version = 1\n{mappings}")
}

proptest! {
    #[test]
    fn mappings_that_come_go_and_move_read_like_new(
        texts in proptest::collection::vec(proptest::collection::vec(0..9_usize, 0..9), 1..6),
    ) {
        reads_like_new(texts.into_iter().map(mappings));
    }
}

#[test]
fn more_addresses_than_there_may_be_are_refused_again() {
    let ranges = |count: usize| {
        let range = |number| {
            let host = format!("127.0.0.{}", number + 1);
            format!(
                "[[mapping]]\nname = \"m{number}\"\nlisten = \"{host}:1-65535\"\ntarget = \"10.0.0.1:1\"\n"
            )
        };
        let ranges: String = (0..count).map(range).collect();
        format!("version = 1\n{ranges}")
    };
    reads_like_new([ranges(1), ranges(5), ranges(1)]);
}
