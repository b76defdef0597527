//! nginx's language: directives of words, quotes, comments, blocks in braces.
//!
//! A text becomes a tree of directives with the line in which each begins, or the remark that nginx would
//! refuse it. What a directive means is not known here, nor what `include` stands for.

use std::path::Path;

use crate::import::{Kind, Place, Remark};

/// How deep blocks and included files may lie in one another.
pub const DEEPEST: usize = 16;

/// A directive with its arguments, and what stands in its braces.
#[derive(Debug, Clone)]
pub struct Directive {
    pub place: Place,
    pub words: Vec<String>,
    pub comments: Vec<String>,
    pub block: Option<Vec<Directive>>,
}

impl Directive {
    pub fn name(&self) -> &str {
        self.word(0)
    }

    pub fn word(&self, at: usize) -> &str {
        self.words.get(at).map_or("", String::as_str)
    }

    pub fn text(&self) -> String {
        self.words.join(" ")
    }

    pub fn remark(&self, kind: Kind, why: impl Into<String>) -> Remark {
        Remark::new(kind, self.place.clone(), &self.text(), why)
    }

    pub fn left_out(&self, why: impl Into<String>) -> Remark {
        self.remark(Kind::LeftOut, why)
    }
}

/// A block that is not closed yet: the directive it belongs to, and what stands in it so far.
type Open = (Directive, Vec<Directive>);

/// The directives in `text`, which is that of the file at `path`.
pub fn parse(text: &str, path: &Path) -> Result<Vec<Directive>, Remark> {
    let file = Place::whole(path);
    let mut line = 1;
    let mut rest = text.chars().peekable();
    let mut done: Vec<Directive> = Vec::new();
    let mut open: Vec<Open> = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let mut comments: Vec<String> = Vec::new();
    let mut begun = 1;
    let invalid = |line: usize, what: &str, why: &str| {
        Remark::invalid(file.at(line), what, why).instead("mend it; `nginx -t` says the same")
    };
    while let Some(c) = rest.next() {
        match c {
            '\n' => line += 1,
            c if c.is_whitespace() => {}
            '#' => {
                let mut comment = String::new();
                while let Some(c) = rest.next_if(|c| *c != '\n') {
                    comment.push(c);
                }
                comments.push(comment.trim().to_owned());
            }
            ';' | '{' if words.is_empty() => {
                return Err(invalid(
                    line,
                    &c.to_string(),
                    "there is no directive before it",
                ));
            }
            ';' | '{' => {
                let directive = Directive {
                    place: file.at(begun),
                    words: std::mem::take(&mut words),
                    comments: std::mem::take(&mut comments),
                    block: None,
                };
                match c {
                    '{' if open.len() == DEEPEST => {
                        return Err(invalid(line, "{", "blocks lie too deep in one another"));
                    }
                    '{' => open.push((directive, std::mem::take(&mut done))),
                    _ => done.push(directive),
                }
            }
            '}' => match open.pop() {
                Some((directive, before)) if words.is_empty() => {
                    let inside = std::mem::replace(&mut done, before);
                    let block = Some(inside);
                    done.push(Directive { block, ..directive });
                }
                _ => return Err(invalid(line, "}", "it closes nothing")),
            },
            c => {
                if words.is_empty() {
                    begun = line;
                }
                let quote = matches!(c, '"' | '\'').then_some(c);
                let mut word = String::new();
                if quote.is_none() {
                    word.push(c);
                }
                let mut closed = quote.is_none();
                while let Some(next) = rest.peek().copied() {
                    match (quote, next) {
                        // A closing brace ends no word; an opening one does, but behind a dollar sign.
                        (None, next) if next.is_whitespace() || next == ';' => break,
                        (None, '{') if !word.ends_with('$') => break,
                        (Some(quote), next) if next == quote => {
                            rest.next();
                            closed = true;
                            break;
                        }
                        (_, next) => {
                            line += usize::from(next == '\n');
                            word.push(next);
                            rest.next();
                            if next == '\\'
                                && let Some(next) = rest.next()
                            {
                                word.pop();
                                word.push(next);
                            }
                        }
                    }
                }
                if !closed {
                    return Err(invalid(line, &word, "a quote is not closed"));
                }
                words.push(word);
            }
        }
    }
    match (open.is_empty(), words.is_empty()) {
        (true, true) => Ok(done),
        _ => Err(invalid(
            line,
            "the end of the file",
            "something is not closed",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_closed_is_refused() {
        for text in ["a {", "a }", "a 'b;", "a", "; ", "{}"] {
            assert!(parse(text, Path::new("x")).is_err(), "{text}");
        }
        let found = parse("# c\na \"b c\" ${d}e; f{g h;}", Path::new("x")).expect("valid");
        assert_eq!(found[0].words, ["a", "b c", "${d}e"]);
        assert_eq!(found[0].comments, ["c"]);
        assert_eq!(found[1].block.as_ref().map(Vec::len), Some(1));
    }
}
