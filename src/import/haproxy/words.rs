//! One line into words, as HAProxy does it: quotes, escapes, comments, variables in double quotes.

use std::collections::HashMap;

/// The variables that a line may use.
pub struct Variables<'a> {
    /// Those that the configuration sets above.
    pub set: HashMap<String, String>,
    /// Those that it sets anywhere: HAProxy 3 reads `global` first.
    pub set_anywhere: HashMap<String, String>,
    /// Those of the environment.
    pub around: &'a dyn Fn(&str) -> Option<String>,
}

impl Variables<'_> {
    pub fn get(&self, name: &str) -> Option<String> {
        let set = self.set.get(name).or_else(|| self.set_anywhere.get(name));
        set.cloned().or_else(|| (self.around)(name))
    }
}

/// What is in a line.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Words {
    pub words: Vec<String>,
    pub comment: Option<String>,
    /// A variable that is not set and has no default.
    pub unset: Vec<String>,
    /// Whether an empty word ended the line, which 2.x passes over and 3.x refuses.
    pub cut: bool,
}

/// Splits `line`, or says why HAProxy would refuse it.
pub fn split(line: &str, variables: &Variables<'_>) -> Result<Words, String> {
    let mut found = Words::default();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut rest = line.chars().peekable();
    while let Some(c) = rest.next() {
        match (c, quote) {
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, Some(open)) if c == open => quote = None,
            ('\\', None | Some('"')) => {
                let word = word.get_or_insert_default();
                match rest.peek().copied() {
                    Some('\'') if quote.is_some() => word.push('\\'),
                    Some(c @ (' ' | '\\' | '"' | '\'' | '#' | '$')) => {
                        word.push(c);
                        rest.next();
                    }
                    Some(c @ ('n' | 'r' | 't')) => {
                        word.push(match c {
                            'n' => '\n',
                            'r' => '\r',
                            _ => '\t',
                        });
                        rest.next();
                    }
                    Some('x') => {
                        rest.next();
                        let digits: String = rest.by_ref().take(2).collect();
                        let byte = u8::from_str_radix(&digits, 16).ok().filter(u8::is_ascii);
                        let byte = byte.filter(|_| digits.len() == 2);
                        word.push(char::from(
                            byte.ok_or("\\x has to be followed by two digits")?,
                        ));
                    }
                    _ => word.push('\\'),
                }
            }
            ('$', Some('"')) => {
                let (name, otherwise, splits) = variable(&mut rest)?;
                let value = variables.get(&name).or(otherwise);
                if value.is_none() {
                    found.unset.push(name);
                }
                let value = value.unwrap_or_default();
                match splits {
                    true => {
                        let mut parts = value.split_whitespace().peekable();
                        while let Some(part) = parts.next() {
                            word.get_or_insert_default().push_str(part);
                            if parts.peek().is_some() {
                                found.words.extend(word.take());
                            }
                        }
                    }
                    false => word.get_or_insert_default().push_str(&value),
                }
            }
            ('#', None) => {
                found.comment = Some(rest.collect::<String>().trim().to_owned());
                break;
            }
            (c, None) if c.is_ascii_whitespace() => found.words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed".to_owned());
    }
    found.words.extend(word);
    if let Some(empty) = found.words.iter().position(String::is_empty) {
        // Behind the last word an empty one changes nothing.
        found.cut = empty + 1 < found.words.len();
        found.words.truncate(empty);
    }
    Ok(found)
}

/// The variable behind a dollar sign: its name, what it is if it is not set, and whether blanks in it
/// split words.
type Variable = (String, Option<String>, bool);

fn variable(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Variable, String> {
    let is_name = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
    let braces = rest.next_if_eq(&'{').is_some();
    let mut name = String::new();
    while let Some(c) = rest.next_if(is_name) {
        name.push(c);
    }
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err("a variable has no name; a dollar sign itself is written \\$".to_owned());
    }
    if !braces {
        return Ok((name, None, false));
    }
    let mut splits = false;
    if rest.next_if_eq(&'[').is_some() {
        let ends: String = rest.by_ref().take(2).collect();
        splits = ends == "*]";
        if !splits {
            return Err(format!("${{{name}[ has to be followed by *]"));
        }
    }
    let mut otherwise = None;
    if rest.next_if_eq(&'-').is_some() {
        let mut text = String::new();
        while let Some(c) = rest.next_if(|c| *c != '}') {
            text.push(c);
        }
        otherwise = Some(text);
    }
    match rest.next() {
        Some('}') => Ok((name, otherwise, splits)),
        _ => Err(format!(
            "${{{name} is not closed, allowed: ${{{name}}} and ${{{name}-DEFAULT}}"
        )),
    }
}

/// An address, in which variables are put in also without quotes.
pub fn expand_address(text: &str, variables: &Variables<'_>) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        if c != '$' {
            out.push(c);
            continue;
        }
        let (name, otherwise, _) = variable(&mut rest)?;
        let value = variables.get(&name).or(otherwise);
        let value = value.ok_or_else(|| format!("the variable {name} is not set here"))?;
        out.push_str(&value);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        split(line, &variables()).expect(line).words
    }

    fn variables() -> Variables<'static> {
        Variables {
            set: HashMap::from([("A".to_owned(), "one two".to_owned())]),
            set_anywhere: HashMap::new(),
            around: &|name| (name == "HOME").then(|| "/root".to_owned()),
        }
    }

    #[test]
    fn quotes_and_escapes_are_those_of_haproxy() {
        for (line, expected) in [
            ("bind :1 # x", &["bind", ":1"][..]),
            ("bind :1#x", &["bind", ":1"]),
            ("a \"b c\"'d e'f", &["a", "b cd ef"]),
            ("a b\\ c \\#d", &["a", "b c", "#d"]),
            ("a 'b\\n$A'", &["a", "b\\n$A"]),
            ("a \"\\x41\\\"\"", &["a", "A\""]),
            ("a $A ${A}", &["a", "$A", "${A}"]),
            (
                "a \"$A\" \"${HOME}/x\" \"\\$A\"",
                &["a", "one two", "/root/x", "$A"],
            ),
            ("a \"${A[*]}\"", &["a", "one", "two"]),
            ("a \"${B-c}\" \"${HOME-c}\"", &["a", "c", "/root"]),
            ("a \\", &["a", "\\"]),
        ] {
            assert_eq!(words(line), expected, "{line}");
        }
        for line in ["a \"b", "a 'b", "a \"${B:-c}\"", "a \"$\"", "a \"\\xZZ\""] {
            assert!(split(line, &variables()).is_err(), "{line}");
        }
    }

    #[test]
    fn an_empty_word_ends_the_line() {
        let found = split("server a \"$NOPE\" check", &variables()).expect("words");
        assert_eq!(found.words, ["server", "a"]);
        assert_eq!((found.cut, found.unset), (true, vec!["NOPE".to_owned()]));
        assert!(!split("server a \"\"", &variables()).expect("words").cut);
    }

    #[test]
    fn an_address_has_its_variables_put_in_without_quotes() {
        assert_eq!(
            expand_address("${HOME}:1", &variables()),
            Ok("/root:1".to_owned())
        );
        assert!(expand_address("$NOPE:1", &variables()).is_err());
    }
}
