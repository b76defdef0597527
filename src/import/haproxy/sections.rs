//! Files into sections: which line belongs to which, conditions, variables, comments.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use super::{
    conditions,
    words::{self, Variables, Words},
};
use crate::import::{Kind, Place, Remark, text_of};

/// What to do about what HAProxy refuses, too.
const MEND: &str = "mend it; `haproxy -c` says the same";

/// A line of a section: a keyword and its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub place: Place,
    pub words: Vec<String>,
    /// As it is written, without its comment.
    pub text: String,
    /// What stands above and behind it.
    pub comments: Vec<String>,
}

impl Line {
    /// What is to be said of it.
    pub fn remark(&self, kind: Kind, why: impl Into<String>) -> Remark {
        Remark::new(kind, self.place.clone(), &self.text, why)
    }

    pub fn invalid(&self, why: impl Into<String>) -> Remark {
        self.remark(Kind::Invalid, why).instead(MEND)
    }

    pub fn left_out(&self, why: impl Into<String>) -> Remark {
        self.remark(Kind::LeftOut, why)
    }

    pub fn different(&self, why: impl Into<String>) -> Remark {
        self.remark(Kind::Different, why)
    }

    pub fn dropped(&self, why: impl Into<String>) -> Remark {
        self.remark(Kind::Dropped, why)
    }

    pub fn word(&self, at: usize) -> &str {
        self.words.get(at).map_or("", String::as_str)
    }
}

/// The sections there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::EnumString)]
#[strum(serialize_all = "kebab-case")]
pub enum SectionKind {
    Global,
    Defaults,
    Frontend,
    Backend,
    Listen,
    Peers,
    Resolvers,
    Mailers,
    Userlist,
    Cache,
    Program,
    Ring,
    HttpErrors,
    FcgiApp,
    LogForward,
    LogProfile,
    CrtStore,
    Traces,
    Acme,
}

impl SectionKind {
    /// Whether it is one of those that forward.
    pub fn is_proxy(self) -> bool {
        matches!(self, Self::Frontend | Self::Backend | Self::Listen)
    }
}

/// A section.
#[derive(Debug, Clone)]
pub struct Section {
    pub kind: SectionKind,
    pub name: String,
    /// The `defaults` that it names.
    pub from: Option<String>,
    pub head: Line,
    pub lines: Vec<Line>,
    /// Comments behind its last line.
    pub tail: Vec<String>,
}

/// What the files come to.
#[derive(Default)]
pub struct Sections {
    pub sections: Vec<Section>,
    pub remarks: Vec<Remark>,
    /// Comments behind everything.
    pub tail: Vec<String>,
}

/// Reads files and directories in HAProxy's order.
pub fn read<'a>(
    paths: &[PathBuf],
    around: &'a dyn Fn(&str) -> Option<String>,
) -> (Sections, Variables<'a>) {
    let mut found = Sections::default();
    let mut texts = Vec::new();
    for path in paths {
        match files_of(path) {
            Ok(files) => texts.extend(files.into_iter().map(|file| (text_of(&file), file))),
            Err(remark) => found.remarks.push(remark),
        }
    }
    let mut variables = Variables {
        set: HashMap::new(),
        set_anywhere: texts.iter().flat_map(|(text, _)| set_in(text)).collect(),
        around,
    };
    for (text, file) in texts {
        match text {
            Ok(text) => Reader::new(&file, &mut variables, &mut found).read(&text),
            Err(remark) => found.remarks.push(remark),
        }
    }
    (found, variables)
}

/// The file itself, or the files of a directory: `*.cfg`, not hidden, not deeper, by their bytes.
fn files_of(path: &Path) -> Result<Vec<PathBuf>, Remark> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let unreadable = |error: std::io::Error| {
        let why = crate::os_error::in_words(&error);
        Remark::invalid(Place::whole(path), "this directory", why.to_string())
            .instead("give one that can be read")
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let name = path.file_name().map(|name| name.as_encoded_bytes());
        let fits = name.is_some_and(|name| name.ends_with(b".cfg") && !name.starts_with(b"."));
        if fits && !path.is_dir() {
            files.push(path);
        }
    }
    files.sort_by(|a, b| {
        a.as_os_str()
            .as_encoded_bytes()
            .cmp(b.as_os_str().as_encoded_bytes())
    });
    Ok(files)
}

/// Variables that a file sets, wherever it does.
fn set_in(text: &Result<String, Remark>) -> Vec<(String, String)> {
    let none = Variables {
        set: HashMap::new(),
        set_anywhere: HashMap::new(),
        around: &|_| None,
    };
    let lines = text.iter().flat_map(|text| text.lines());
    let words = lines.filter_map(|line| words::split(line, &none).ok());
    words
        .filter_map(|found| match &found.words[..] {
            [word, name, value, ..] if word == "setenv" || word == "presetenv" => {
                Some((name.clone(), value.clone()))
            }
            _ => None,
        })
        .collect()
}

/// Whether the lines behind `.if` count.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Branch {
    Taken,
    /// A later branch may be the one.
    NotYet,
    /// One before was, or all of it is in a branch that is not taken.
    Never,
}

struct Reader<'r, 'v> {
    file: Place,
    variables: &'r mut Variables<'v>,
    found: &'r mut Sections,
    branches: Vec<(Branch, Place)>,
    /// Comments that belong to whatever comes, and whether they are indented.
    pending: Vec<(bool, String)>,
    /// Whether a section of this file has begun.
    open: bool,
}

impl<'r, 'v> Reader<'r, 'v> {
    fn new(file: &Path, variables: &'r mut Variables<'v>, found: &'r mut Sections) -> Self {
        Self {
            file: Place::whole(file),
            variables,
            found,
            branches: Vec::new(),
            pending: Vec::new(),
            open: false,
        }
    }

    fn invalid(&mut self, place: Place, what: &str, why: impl Into<String>) {
        let remark = Remark::invalid(place, what, why);
        self.found.remarks.push(remark.instead(MEND));
    }

    fn read(mut self, text: &str) {
        if text.starts_with('\u{feff}') {
            self.invalid(
                self.file.at(1),
                "a byte order mark",
                "HAProxy takes it for a word",
            );
            return;
        }
        if !text.is_empty() && !text.ends_with('\n') {
            let place = self.file.at(text.lines().count());
            self.invalid(
                place,
                "the last line",
                "it does not end, so HAProxy takes the file for cut off",
            );
        }
        for (index, line) in text.lines().enumerate() {
            self.line(self.file.at(index + 1), line);
        }
        if let Some((_, place)) = self.branches.pop() {
            self.invalid(place, ".if", "there is no .endif");
        }
        let tail = self.pending.drain(..).map(|(_, comment)| comment);
        self.found.tail.extend(tail);
    }

    fn line(&mut self, place: Place, line: &str) {
        let Words {
            words,
            comment,
            unset,
            cut,
        } = match words::split(line, self.variables) {
            Ok(found) => found,
            Err(why) => return self.invalid(place, line.trim(), why),
        };
        let Some(first) = words.first() else {
            if let Some(comment) = comment.filter(|_| !self.skips()) {
                self.pending.push((line.starts_with([' ', '\t']), comment));
            }
            return;
        };
        if let Some(word) = first.strip_prefix('.') {
            return self.condition(place, word, &words, line);
        }
        if self.skips() {
            return;
        }
        let text = match &comment {
            Some(comment) => line
                .trim()
                .strip_suffix(comment.as_str())
                .unwrap_or(line.trim()),
            None => line.trim(),
        };
        let text = text.trim_end().trim_end_matches('#').trim_end().to_owned();
        for name in unset {
            let why = format!(
                "the variable {name} is not set here, and HAProxy has it from its environment"
            );
            let remark = Remark::invalid(place.clone(), &text, why);
            let instead = format!("run this with {name}=VALUE before the command");
            self.found.remarks.push(remark.instead(instead));
        }
        if cut {
            let why = "an empty word ends the line: HAProxy 2 does not read what follows, and 3 refuses it";
            let remark = Remark::different(place.clone(), &text, why);
            self.found
                .remarks
                .push(remark.instead("what follows is passed over here, too"));
        }
        // A name in brackets is a scope, which nothing here looks at.
        if words.len() == 1 && first.starts_with('[') && first.ends_with(']') {
            return;
        }
        match first.parse::<SectionKind>() {
            Ok(kind) => self.section(kind, place, words, text, comment),
            Err(_) => self.directive(place, words, text, comment),
        }
    }

    fn section(
        &mut self,
        kind: SectionKind,
        place: Place,
        words: Vec<String>,
        text: String,
        comment: Option<String>,
    ) {
        let belongs_above = |(indented, _): &&(bool, String)| *indented && self.open;
        let above = self.pending.iter().take_while(belongs_above).count();
        let tail: Vec<String> = self
            .pending
            .drain(..above)
            .map(|(_, comment)| comment)
            .collect();
        if let Some(last) = self.found.sections.last_mut() {
            last.tail.extend(tail);
        }
        let mut comments: Vec<String> =
            self.pending.drain(..).map(|(_, comment)| comment).collect();
        comments.extend(comment);
        let mut rest = words[1..].iter().map(String::as_str);
        let mut name = String::new();
        let mut from = None;
        let mut stray = None;
        match (rest.next(), kind) {
            (Some("from"), SectionKind::Defaults) => from = rest.next().map(str::to_owned),
            (Some(given), _) => given.clone_into(&mut name),
            (None, _) => {}
        }
        while let Some(word) = rest.next() {
            match word {
                "from" => from = rest.next().map(str::to_owned),
                other => stray = Some(other.to_owned()),
            }
        }
        if kind.is_proxy() {
            let fit = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
            if name.is_empty() || !name.chars().all(fit) {
                self.invalid(
                    place.clone(),
                    &text,
                    "it needs a name of letters, digits and - _ . :",
                );
            }
            if let Some(stray) = stray {
                let why =
                    format!("{stray:?} is too much: an address on this line is refused since 2.0");
                self.invalid(place.clone(), &text, why);
            }
        }
        self.open = true;
        self.found.sections.push(Section {
            kind,
            name,
            from,
            head: Line {
                place,
                words,
                text,
                comments,
            },
            lines: Vec::new(),
            tail: Vec::new(),
        });
    }

    fn directive(
        &mut self,
        place: Place,
        words: Vec<String>,
        text: String,
        comment: Option<String>,
    ) {
        let mut comments: Vec<String> =
            self.pending.drain(..).map(|(_, comment)| comment).collect();
        comments.extend(comment);
        let Some(section) = self.found.sections.last_mut().filter(|_| self.open) else {
            return self.invalid(
                place,
                &text,
                "it stands before the first section of its file",
            );
        };
        if section.kind == SectionKind::Global {
            match [0, 1, 2].map(|at| words.get(at).map(String::as_str)) {
                [Some("setenv"), Some(name), Some(value)] => {
                    self.variables.set.insert(name.to_owned(), value.to_owned());
                }
                [Some("presetenv"), Some(name), Some(value)]
                    if self.variables.get(name).is_none() =>
                {
                    self.variables.set.insert(name.to_owned(), value.to_owned());
                }
                _ => {}
            }
        }
        section.lines.push(Line {
            place,
            words,
            text,
            comments,
        });
    }

    /// Whether the line is in a branch that is not taken.
    fn skips(&self) -> bool {
        self.branches
            .iter()
            .any(|(branch, _)| *branch != Branch::Taken)
    }

    fn condition(&mut self, place: Place, word: &str, words: &[String], line: &str) {
        let condition = words[1..].join(" ");
        match word {
            "if" => {
                let branch = match self.skips() {
                    true => Branch::Never,
                    false => self.judge(&place, &condition, line),
                };
                self.branches.push((branch, place));
            }
            "elif" | "else" => {
                let Some((branch, begun)) = self.branches.pop() else {
                    return self.invalid(place, line.trim(), "there is no .if before it");
                };
                let branch = match branch {
                    Branch::NotYet if word == "else" => Branch::Taken,
                    Branch::NotYet if self.skips() => Branch::Never,
                    Branch::NotYet => self.judge(&place, &condition, line),
                    Branch::Taken | Branch::Never => Branch::Never,
                };
                self.branches.push((branch, begun));
            }
            "endif" => {
                if self.branches.pop().is_none() {
                    self.invalid(place, line.trim(), "there is no .if before it");
                }
            }
            _ if self.skips() => {}
            "alert" => self.invalid(place, line.trim(), "HAProxy stops here"),
            "notice" | "warning" | "diag" => {}
            _ => self.invalid(place, line.trim(), "HAProxy knows no such word"),
        }
    }

    fn judge(&mut self, place: &Place, condition: &str, line: &str) -> Branch {
        let variables = &*self.variables;
        let judged = conditions::judge(condition, &|name| variables.get(name));
        match judged {
            Ok(judged) => {
                if judged.by_version {
                    let why = "it depends on the version: taken as HAProxy 2.6";
                    let remark = Remark::different(place.clone(), line.trim(), why);
                    let instead = "for another version, write the branch alone that is meant";
                    self.found.remarks.push(remark.instead(instead));
                }
                match judged.holds {
                    true => Branch::Taken,
                    false => Branch::NotYet,
                }
            }
            Err(why) => {
                let remark = Remark::invalid(place.clone(), line.trim(), why);
                let instead = "write the branch alone that is meant";
                self.found.remarks.push(remark.instead(instead));
                Branch::Never
            }
        }
    }
}
