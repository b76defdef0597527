//! Variables of the environment in texts of a file: `"${NAME}"`, `"${NAME:-default}"`, and `$${` for
//! a `${` that is meant so.
//!
//! They are replaced in values after the file was parsed: nothing in a variable can become a key, end
//! a text or begin a comment, and what it holds is not looked at for further variables.

use std::{borrow::Cow, ffi::OsString};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{problem::Fault, report::Report};

/// No text is longer once its variables are replaced, in bytes.
const LONGEST: usize = 64 << 10;

/// The value of a variable, if it is set.
pub(super) type Environment<'e> = &'e dyn Fn(&str) -> Option<OsString>;

/// The variables of this process.
pub(super) fn of_process(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// Replaces the variables in every text of `table`, the outermost of its file. Where one cannot be,
/// that is noted, and the value is not read.
pub(super) fn expand(table: &mut DeTable<'_>, report: &Report<'_>, environment: Environment<'_>) {
    let mut walk = Walk {
        report,
        environment,
        path: Vec::new(),
    };
    walk.table(table);
}

struct Walk<'w> {
    report: &'w Report<'w>,
    environment: Environment<'w>,
    /// The keys above the value that is looked at.
    path: Vec<String>,
}

impl Walk<'_> {
    fn table(&mut self, table: &mut DeTable<'_>) {
        for (key, node) in table.iter_mut() {
            self.path.push(key.get_ref().to_string());
            self.value(node);
            self.path.pop();
        }
    }

    fn value(&mut self, node: &mut Spanned<DeValue<'_>>) {
        let offset = node.span().start;
        match node.get_mut() {
            DeValue::String(text) if text.contains("${") => {
                match expanded(text, self.environment) {
                    Ok(new) => {
                        *text = Cow::Owned(new);
                        self.report.expand(offset);
                    }
                    Err(why) => {
                        let fault = Fault::Contradiction(why);
                        self.report.add(offset, self.key(), fault);
                        self.report.leave_out(offset);
                    }
                }
            }
            DeValue::Table(table) => self.table(table),
            DeValue::Array(items) => {
                let last = self.path.pop().unwrap_or_default();
                let of_mappings = self.path.is_empty() && last == "mapping";
                for (item, number) in items.iter_mut().zip(1..) {
                    let name = item.get_ref().get("name").map(Spanned::get_ref);
                    self.path.push(match name.and_then(DeValue::as_str) {
                        Some(name) if of_mappings => format!("mapping {name:?}: "),
                        _ if of_mappings => format!("mapping number {number}: "),
                        _ => format!("{last} (item {number})"),
                    });
                    self.value(item);
                    self.path.pop();
                }
                self.path.push(last);
            }
            _ => {}
        }
    }

    /// The key of the value that is looked at, as messages have it.
    fn key(&self) -> String {
        self.path.join(".").replacen(": .", ": ", 1)
    }
}

/// `text` with the values of its variables.
///
/// # Errors
///
/// What is wrong with one of them.
fn expanded(text: &str, environment: Environment<'_>) -> Result<String, String> {
    let mut whole = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, reference) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            whole.push_str(before);
            whole.push_str("${");
            rest = &reference["${".len()..];
            continue;
        }
        whole.push_str(before);
        let Some((inside, after)) = reference["${".len()..].split_once('}') else {
            return Err(
                "found ${ without a }, allowed: ${NAME}, ${NAME:-default}, or $${ for a ${ that is no \
                 variable"
                    .to_owned(),
            );
        };
        whole.push_str(&value(inside, environment)?);
        if whole.len() > LONGEST {
            return Err(format!(
                "is longer than {LONGEST} bytes once ${{{inside}}} is replaced"
            ));
        }
        rest = after;
    }
    whole.push_str(rest);
    Ok(whole)
}

/// What stands for the variable between the braces.
fn value(inside: &str, environment: Environment<'_>) -> Result<String, String> {
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let fit = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(fit) {
        return Err(format!(
            "found the variable {name:?}, allowed: a name of letters, digits and _, and :- before a \
             default"
        ));
    }
    let found = environment(name).map(OsString::into_string).transpose();
    let found = found.map_err(|_| format!("the environment variable {name} is not UTF-8 text"))?;
    match (found, default) {
        (Some(found), Some(default)) if found.is_empty() => Ok(default.to_owned()),
        (Some(found), _) => Ok(found),
        (None, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(format!(
            "the environment variable {name} is not set; ${{{name}:-VALUE}} would give a default"
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    fn known(name: &str) -> Option<OsString> {
        match name {
            "HOST" => Some("fd00::14".into()),
            "EMPTY" => Some("".into()),
            "MEAN" => Some("\"\n[${HOST}]".into()),
            "LONG" => Some("x".repeat(60_000).into()),
            "RAW" => Some(OsString::from_vec(vec![0xff])),
            _ => None,
        }
    }

    #[test]
    fn variables_are_replaced_and_nothing_else_is() {
        for (text, expected) in [
            ("[${HOST}]:22", "[fd00::14]:22"),
            ("${HOST}${HOST}", "fd00::14fd00::14"),
            ("${UNSET:-10.0.0.1}:22", "10.0.0.1:22"),
            ("${UNSET:-}", ""),
            ("${EMPTY}x", "x"),
            ("${EMPTY:-y}", "y"),
            ("${HOST:-y}", "fd00::14"),
            ("${UNSET:-a:-b}", "a:-b"),
            ("$${HOST} $HOST $$ $", "${HOST} $HOST $$ $"),
            ("$$${HOST}", "$${HOST}"),
            ("${MEAN}", "\"\n[${HOST}]"),
            ("é${HOST}é", "éfd00::14é"),
        ] {
            assert_eq!(expanded(text, &known).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_stands_for_nothing_is_said() {
        for (text, expected) in [
            ("${UNSET}", "UNSET is not set"),
            ("${RAW}", "RAW is not UTF-8"),
            ("${HOST", "without a }"),
            ("${}", "found the variable \"\""),
            ("${1}", "found the variable \"1\""),
            ("${A-b}", "found the variable \"A-b\""),
            ("${LONG}${LONG}", "longer than 65536 bytes"),
        ] {
            let why = expanded(text, &known).expect_err(text);
            assert!(why.contains(expected), "{why}");
        }
    }
}
