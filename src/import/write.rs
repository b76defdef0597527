//! Our file: every value as it has to be written, and every comment beside what it explains.

use std::fmt::Write;

use super::{
    Import,
    model::{Mapping, Noted, Settings, Target, Value},
};

/// The most characters that a line of a list has.
const WIDTH: usize = 96;

/// The configuration that `import` comes to, or an empty one.
pub fn toml(import: &Import, head: &str) -> String {
    let mut out = String::new();
    comments(&mut out, &[head.to_owned()]);
    if !import.comments.is_empty() {
        out.push('\n');
    }
    comments(&mut out, &import.comments);
    out.push_str("\nversion = 1\n");
    for (name, settings) in &import.sections {
        section(&mut out, name, settings);
    }
    let shared = shared(&import.mappings);
    section(&mut out, "defaults", &shared);
    for left in &import.left {
        let listen = left.listen.join(", ");
        let line = format!("Not here: {} ({listen}), {}", left.what, left.place);
        out.push('\n');
        comments(&mut out, &[line]);
    }
    for mapping in &import.mappings {
        self::mapping(&mut out, mapping, &shared);
    }
    out
}

/// What all mappings have, if there are several.
fn shared(mappings: &[Mapping]) -> Settings {
    let mut shared = Settings::default();
    let [first, others @ ..] = mappings else {
        return shared;
    };
    if others.is_empty() {
        return shared;
    }
    for (key, setting) in first.settings.iter() {
        let same = |other: &Mapping| {
            let theirs = other.settings.get(key);
            theirs.is_some_and(|theirs| theirs.value == setting.value)
        };
        if !others.iter().all(same) {
            continue;
        }
        let mut comments = Vec::new();
        let theirs = mappings.iter().filter_map(|other| other.settings.get(key));
        for comment in theirs.flat_map(|setting| &setting.comments) {
            if !comments.contains(comment) {
                comments.push(comment.clone());
            }
        }
        shared.set(key, setting.value.clone(), comments);
    }
    shared
}

fn section(out: &mut String, name: &str, settings: &Settings) {
    if settings.is_empty() {
        return;
    }
    put(out, format_args!("\n[{name}]\n"));
    for (key, setting) in settings.iter() {
        self::setting(out, key, setting);
    }
}

fn mapping(out: &mut String, mapping: &Mapping, shared: &Settings) {
    out.push('\n');
    comments(out, &mapping.comments);
    put(out, format_args!("[[mapping]]\n"));
    put(out, format_args!("name = {}\n", text(&mapping.name)));
    comments(out, &mapping.listen.comments);
    let listens: Vec<String> = mapping
        .listen
        .value
        .iter()
        .map(|listen| {
            let listen = listen.to_string();
            match listen.bytes().all(|byte| byte.is_ascii_digit()) {
                true => listen,
                false => text(&listen),
            }
        })
        .collect();
    match &listens[..] {
        [one] => put(out, format_args!("listen = {one}\n")),
        several => put(out, format_args!("listen = {}\n", list(several))),
    }
    let is_plain = |target: &Target| target.settings.is_empty() && target.comments.is_empty();
    let in_a_line = match &mapping.targets[..] {
        [one] => one.settings.is_empty(),
        several => several.iter().all(is_plain),
    };
    if in_a_line {
        let targets = mapping.targets.iter();
        let all: Vec<String> = targets
            .map(|target| text(&address(target, mapping)))
            .collect();
        let notes = mapping.targets.iter().flat_map(|target| &target.comments);
        comments(out, &notes.cloned().collect::<Vec<_>>());
        match &all[..] {
            [one] => put(out, format_args!("target = {one}\n")),
            several => put(out, format_args!("target = {}\n", list(several))),
        }
    }
    for (key, setting) in mapping.settings.iter() {
        if shared.get(key).is_none() {
            self::setting(out, key, setting);
        }
    }
    for target in mapping.targets.iter().filter(|_| !in_a_line) {
        comments(out, &target.comments);
        put(out, format_args!("[[mapping.target]]\n"));
        put(
            out,
            format_args!("address = {}\n", text(&address(target, mapping))),
        );
        for (key, setting) in target.settings.iter() {
            self::setting(out, key, setting);
        }
    }
}

/// A target as it is written: a range where all public addresses are one of the same size.
fn address(target: &Target, mapping: &Mapping) -> String {
    let Target { host, port, .. } = target;
    let mut spans = mapping
        .listen
        .value
        .iter()
        .map(|listen| listen.last - listen.first);
    let span = spans.next().unwrap_or_default();
    match spans
        .all(|other| other == span)
        .then(|| port.checked_add(span))
    {
        Some(Some(last)) if span > 0 => format!("{host}:{port}-{last}"),
        _ => format!("{host}:{port}"),
    }
}

fn setting(out: &mut String, key: &str, setting: &Noted<Value>) {
    comments(out, &setting.comments);
    put(out, format_args!("{key} = {}\n", value(&setting.value)));
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a string takes any text");
}

/// Comments of the source, a line each: whatever could end one is not part of it.
fn comments(out: &mut String, comments: &[String]) {
    for comment in comments {
        let plain = |c: char| if c.is_control() && c != '\t' { ' ' } else { c };
        let comment: String = comment.chars().map(plain).collect();
        let comment = comment.trim_end();
        let mark = if comment.starts_with('#') { "" } else { "# " };
        put(out, format_args!("{mark}{comment}\n"));
    }
}

fn value(value: &Value) -> String {
    match value {
        Value::Text(words) => text(words),
        Value::Number(number) => number.to_string(),
        Value::Flag(flag) => flag.to_string(),
        Value::List(items) => {
            let items: Vec<String> = items.iter().map(|item| text(item)).collect();
            list(&items)
        }
        Value::File(path) => format!("[{{ file = {} }}]", text(path)),
        Value::Table(pairs) if pairs.is_empty() => "{}".to_owned(),
        Value::Table(pairs) => {
            let pairs = pairs.iter();
            let pairs: Vec<String> = pairs
                .map(|(key, value)| format!("{key} = {}", self::value(value)))
                .collect();
            format!("{{ {} }}", pairs.join(", "))
        }
    }
}

/// Items in one line, or in several if they are many.
fn list(items: &[String]) -> String {
    let line = items.join(", ");
    if line.len() <= WIDTH {
        return format!("[{line}]");
    }
    let mut out = "[\n".to_owned();
    let mut line = String::new();
    for item in items {
        if !line.is_empty() && line.len() + item.len() > WIDTH {
            put(&mut out, format_args!("    {}\n", line.trim_end()));
            line.clear();
        }
        put(&mut line, format_args!("{item}, "));
    }
    put(&mut out, format_args!("    {}\n]", line.trim_end()));
    out
}

/// A string of TOML.
fn text(words: &str) -> String {
    let mut out = "\"".to_owned();
    for c in words.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\r' => out.push_str("\\r"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => put(&mut out, format_args!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    // Nothing of it is a variable.
    out.replace("${", "$${")
}
