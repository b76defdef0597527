//! Markdown to roff, for man(7) pages. Tables are for tbl(1), which man runs.

use std::{fmt::Write, mem};

use pulldown_cmark::{CodeBlockKind, Event, HeadingLevel, Options, Parser, Tag, TagEnd};

/// A man page of that name and section, from Markdown; `about` follows its name under NAME.
pub fn to_roff(name: &str, section: u8, about: &str, markdown: &str) -> String {
    let head = format!("'\\\" t\n.TH {name} {section}\n.ad l\n.SH NAME\n");
    let mut page = Page {
        out: format!("{head}{} \\- {}\n", escape(name), escape(about)),
        ..Page::default()
    };
    for event in Parser::new_ext(markdown, Options::ENABLE_TABLES) {
        page.take(event);
    }
    page.out
}

#[derive(Default)]
struct Page {
    out: String,
    /// Text of the paragraph, heading or cell that is open.
    text: String,
    /// In a block of code, whose lines stay as they are.
    code: bool,
    /// For each list that is open, the number of its next item if it has numbers.
    lists: Vec<Option<u64>>,
    /// The next paragraph is the first of an item, which has its line already.
    item_begins: bool,
    /// Rows of the table that is open.
    rows: Vec<Vec<String>>,
}

impl Page {
    fn take(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(&tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text) if self.code => self.out.push_str(&escape_lines(&text)),
            Event::Text(text) if self.text.is_empty() || self.text.ends_with('\n') => {
                self.text.push_str(&escape_line(&text));
            }
            Event::Text(text) => self.text.push_str(&escape(&text)),
            Event::Code(code) => {
                self.text.push_str("\\fB");
                self.text.push_str(&escape(&code));
                self.text.push_str("\\fR");
            }
            Event::SoftBreak | Event::HardBreak => self.text.push('\n'),
            _ => {}
        }
    }

    fn start(&mut self, tag: &Tag<'_>) {
        match tag {
            Tag::CodeBlock(CodeBlockKind::Fenced(_) | CodeBlockKind::Indented) => {
                self.flush();
                self.code = true;
                self.out.push_str(".PP\n.RS 4\n.EX\n");
            }
            Tag::List(first) => {
                self.flush();
                self.lists.push(*first);
            }
            Tag::Item => {
                let mark = match self.lists.last_mut() {
                    Some(Some(number)) => {
                        *number += 1;
                        format!("{}.", *number - 1)
                    }
                    _ => "\\(bu".to_owned(),
                };
                self.out.push_str(&format!(".IP {mark} 3\n"));
                self.item_begins = true;
            }
            Tag::Strong => self.text.push_str("\\fB"),
            Tag::Emphasis => self.text.push_str("\\fI"),
            Tag::Table(_) => self.rows.clear(),
            Tag::TableHead | Tag::TableRow => self.rows.push(Vec::new()),
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Heading(level) => {
                let text = mem::take(&mut self.text).replace('\n', " ");
                match level {
                    // The head of the chapter is the name of the page.
                    HeadingLevel::H1 => self.out.push_str(".SH DESCRIPTION\n"),
                    HeadingLevel::H2 => self.out.push_str(&format!(".SH {text}\n")),
                    _ => self.out.push_str(&format!(".SS {text}\n")),
                }
            }
            TagEnd::Paragraph | TagEnd::Item => self.flush(),
            TagEnd::CodeBlock => {
                self.code = false;
                self.out.push_str(".EE\n.RE\n");
            }
            TagEnd::List(_) => {
                self.lists.pop();
            }
            TagEnd::Strong | TagEnd::Emphasis => self.text.push_str("\\fR"),
            TagEnd::TableCell => {
                let cell = mem::take(&mut self.text);
                self.rows
                    .last_mut()
                    .into_iter()
                    .for_each(|row| row.push(cell.clone()));
            }
            TagEnd::Table => self.table(),
            _ => {}
        }
    }

    /// Ends the paragraph that is open, if there is one.
    fn flush(&mut self) {
        let text = mem::take(&mut self.text);
        if text.is_empty() {
            return;
        }
        if !mem::take(&mut self.item_begins) && self.lists.is_empty() {
            self.out.push_str(".PP\n");
        }
        self.out.push_str(&text);
        self.out.push('\n');
    }

    /// Writes the table whose rows are known by now.
    fn table(&mut self) {
        // A head of empty cells is Markdown's way to have none.
        self.rows
            .retain(|row| row.iter().any(|cell| !cell.is_empty()));
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        // Each column has its share of the line: by its longest text, of which more than a line of
        // words wraps.
        let longest = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells
                .map(|cell| cell.len())
                .max()
                .unwrap_or_default()
                .clamp(4, 48)
        };
        let widths: Vec<usize> = (0..columns).map(longest).collect();
        let all = widths.iter().sum::<usize>().max(1);
        let layout: Vec<String> = widths
            .iter()
            .map(|width| format!("lw(\\n(.lu*{width}u/{all}u*4u/5u)"))
            .collect();
        let _ = writeln!(self.out, ".PP\n.TS\ntab(\x07);\n{}.", layout.join(" "));
        for row in &self.rows {
            let cells: Vec<String> = row.iter().map(|cell| format!("T{{\n{cell}\nT}}")).collect();
            self.out.push_str(&cells.join("\x07"));
            self.out.push('\n');
        }
        self.out.push_str(".TE\n");
    }
}

/// Text in which roff(7) reads nothing else, and whose dashes can be copied into a shell.
fn escape(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}

/// The same at the beginning of a line, where a dot would be a request.
fn escape_line(text: &str) -> String {
    match text.starts_with(['.', '\'']) {
        true => format!("\\&{}", escape(text)),
        false => escape(text),
    }
}

fn escape_lines(text: &str) -> String {
    text.split_inclusive('\n').map(escape_line).collect()
}
