//! What stands behind `.if`.

/// The version that conditions on it are judged by.
const VERSION: [u64; 3] = [2, 6, 12];

/// Whether a condition holds, and whether that depends on the version.
#[derive(Debug, PartialEq, Eq)]
pub struct Judged {
    pub holds: bool,
    pub by_version: bool,
}

/// Judges a condition, or says why that cannot be done here.
pub fn judge(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<Judged, String> {
    let mut reader = Reader {
        rest: text.trim(),
        by_version: false,
        variable,
    };
    if reader.rest.is_empty() {
        return Ok(Judged {
            holds: false,
            by_version: false,
        });
    }
    let holds = reader.any()?;
    match reader.rest.trim() {
        "" => Ok(Judged {
            holds,
            by_version: reader.by_version,
        }),
        rest => Err(format!("{rest:?} is not understood here")),
    }
}

struct Reader<'a> {
    rest: &'a str,
    by_version: bool,
    variable: &'a dyn Fn(&str) -> Option<String>,
}

impl Reader<'_> {
    fn takes(&mut self, token: &str) -> bool {
        self.rest = self.rest.trim_start();
        let rest = self.rest.strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn any(&mut self) -> Result<bool, String> {
        let mut holds = self.all()?;
        while self.takes("||") {
            holds |= self.all()?;
        }
        Ok(holds)
    }

    fn all(&mut self) -> Result<bool, String> {
        let mut holds = self.term()?;
        while self.takes("&&") {
            holds &= self.term()?;
        }
        Ok(holds)
    }

    fn term(&mut self) -> Result<bool, String> {
        if self.takes("!") {
            return self.term().map(|holds| !holds);
        }
        if self.takes("(") {
            let holds = self.any()?;
            return match self.takes(")") {
                true => Ok(holds),
                false => Err("a parenthesis is not closed".to_owned()),
            };
        }
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let end = self
            .rest
            .find(|c: char| !is_name(c))
            .unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        if let Ok(number) = name.parse::<u64>() {
            self.rest = rest;
            return Ok(number != 0);
        }
        let called = rest.strip_prefix('(').and_then(|rest| rest.split_once(')'));
        let (arguments, rest) = called.ok_or_else(|| format!("{name:?} is no function"))?;
        self.rest = rest;
        let arguments: Vec<&str> = arguments.split(',').map(str::trim).collect();
        match (name, &arguments[..]) {
            ("defined", [name]) => Ok((self.variable)(name).is_some()),
            ("streq", [a, b]) => Ok(a == b),
            ("strneq", [a, b]) => Ok(a != b),
            ("strstr", [text, part]) => Ok(text.contains(part)),
            ("version_atleast" | "version_before", [version]) => {
                self.by_version = true;
                let parts = version.split(['.', '-']).map(str::parse::<u64>);
                let parts: Vec<u64> = parts.map_while(Result::ok).take(3).collect();
                let at_least = VERSION[..] >= parts[..];
                Ok(at_least == (name == "version_atleast"))
            }
            _ => Err(format!("{name}() cannot be judged without HAProxy")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_judged() {
        let variable = |name: &str| (name == "A").then(String::new);
        for (text, holds) in [
            ("", false),
            ("1", true),
            ("0 || defined(A)", true),
            ("!defined(A) || streq(a,b)", false),
            ("1 && (0 || strneq(a,b))", true),
            ("version_atleast(2.4)", true),
            ("version_atleast(2.6.13)", false),
            ("version_before(3.0)", true),
        ] {
            let judged = judge(text, &variable).expect(text);
            assert_eq!(judged.holds, holds, "{text}");
            assert_eq!(judged.by_version, text.starts_with("version"), "{text}");
        }
        for text in ["feature(QUIC)", "enabled(POLL)", "1 2", "(1", "x"] {
            assert!(judge(text, &variable).is_err(), "{text}");
        }
    }
}
