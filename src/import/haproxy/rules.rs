//! Conditions and `tcp-request` rules: who may connect, and how much one source may.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::Path,
};

use ipnet::{IpNet, Ipv4Net};

use super::sections::Line;
use crate::{
    files,
    import::{LONGEST, access},
};

/// What a condition asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// Whether the client is in one of them.
    Source(Vec<IpNet>),
    /// The same, of all that are in a file which we can read as well.
    File {
        path: String,
        networks: Vec<IpNet>,
    },
    Always(bool),
    /// How often a source that is in a table was counted: more than so often.
    Counted {
        what: Counter,
        /// The table it says, or the number of the counter that was tracked before.
        table: Table,
        more_than: u64,
    },
    /// Something else, in the words of the file.
    Other(String),
}

impl Test {
    /// The networks that a client has to be in, if that is what it asks.
    pub fn networks(&self) -> Option<&[IpNet]> {
        match self {
            Self::Source(networks) | Self::File { networks, .. } => Some(networks),
            _ => None,
        }
    }
}

/// What is counted of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counter {
    Sessions,
    NewSessions,
}

/// In which table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Table {
    Tracked(u64),
    Named(String),
    Own,
}

/// A test, or that it fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    pub negated: bool,
    /// Any of these is enough.
    pub any: Vec<Test>,
}

/// Terms of which all hold, in any of several rows.
pub type Condition = Vec<Vec<Term>>;

/// The `acl` lines of a proxy.
#[derive(Debug, Clone, Default)]
pub struct Acls(Vec<(String, Test)>);

impl Acls {
    /// Reads `acl NAME CRITERION …`.
    pub fn read(&mut self, line: &Line) {
        let test = test(line.words.get(2..).unwrap_or_default());
        self.0.push((line.word(1).to_owned(), test));
    }

    /// Reads what stands behind `if` or `unless`; without either it always holds.
    pub fn condition(&self, words: &[String]) -> Condition {
        let [keyword, rest @ ..] = words else {
            return vec![Vec::new()];
        };
        let mut rows = vec![Vec::new()];
        let mut words = rest.iter().map(String::as_str).peekable();
        let mut negated = false;
        while let Some(word) = words.next() {
            match word {
                "or" | "||" => rows.push(Vec::new()),
                "!" => negated = !negated,
                _ => {
                    let bare = word.trim_start_matches('!');
                    negated ^= (word.len() - bare.len()) % 2 == 1;
                    let any = match bare {
                        "{" => {
                            let inside = words.by_ref().take_while(|word| *word != "}");
                            let inside: Vec<String> = inside.map(str::to_owned).collect();
                            vec![test(&inside)]
                        }
                        name => self.named(name),
                    };
                    let term = Term { negated, any };
                    rows.last_mut().expect("there is one").push(term);
                    negated = false;
                }
            }
        }
        match keyword.as_str() {
            "unless" => negate(&rows),
            _ => rows,
        }
    }

    fn named(&self, name: &str) -> Vec<Test> {
        let own = self.0.iter().filter(|(known, _)| known == name);
        let own: Vec<Test> = own.map(|(_, test)| test.clone()).collect();
        match (own.is_empty(), name) {
            (false, _) => own,
            (true, "TRUE") => vec![Test::Always(true)],
            (true, "FALSE") => vec![Test::Always(false)],
            (true, "LOCALHOST") => {
                let words = ["src", "127.0.0.1/8", "::1"].map(str::to_owned);
                vec![test(&words)]
            }
            (true, name) => vec![Test::Other(name.to_owned())],
        }
    }
}

/// What holds where `rows` does not: one term of each row has to fail.
fn negate(rows: &Condition) -> Condition {
    let mut negated: Condition = vec![Vec::new()];
    for row in rows {
        negated = negated
            .iter()
            .flat_map(|so_far| {
                row.iter().map(|term| {
                    let negated = !term.negated;
                    let any = term.any.clone();
                    let more = [Term { negated, any }];
                    so_far.iter().cloned().chain(more).collect()
                })
            })
            .collect();
    }
    negated
}

/// Reads a criterion with its values.
fn test(words: &[String]) -> Test {
    let other = || Test::Other(words.join(" "));
    let Some((criterion, values)) = words.split_first() else {
        return other();
    };
    match criterion.as_str() {
        "src" => file(values)
            .or_else(|| networks(values).map(Test::Source))
            .unwrap_or_else(other),
        "always_true" => Test::Always(true),
        "always_false" => Test::Always(false),
        criterion => counted(criterion, values).unwrap_or_else(other),
    }
}

/// A file alone, from the root, with a network a line as we write them.
fn file(values: &[String]) -> Option<Test> {
    let [flag, path] = values else {
        return None;
    };
    if flag != "-f" || !path.starts_with('/') {
        return None;
    }
    let bytes = files::read(Path::new(path), LONGEST).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let ours = |line: &str| {
        let net = line.parse::<IpNet>().ok();
        let net = net.or_else(|| line.parse::<IpAddr>().ok().map(IpNet::from));
        net.filter(|net| *net == net.trunc())
    };
    let networks: Vec<IpNet> = lines.map(ours).collect::<Option<_>>()?;
    let path = path.clone();
    (!networks.is_empty()).then_some(Test::File { path, networks })
}

/// The networks behind `src`: in the line, or in files.
fn networks(values: &[String]) -> Option<Vec<IpNet>> {
    let mut networks = Vec::new();
    let mut values = values.iter().map(String::as_str);
    let mut flags = true;
    while let Some(value) = values.next() {
        match value {
            "--" if flags => flags = false,
            "-n" | "-i" if flags => {}
            "-m" if flags => _ = values.next().filter(|method| *method == "ip")?,
            "-f" if flags => {
                let bytes = files::read(Path::new(values.next()?), LONGEST).ok()?;
                for line in String::from_utf8(bytes).ok()?.lines() {
                    match line.trim() {
                        line if line.is_empty() || line.starts_with('#') => {}
                        line => networks.push(network(line)?),
                    }
                }
            }
            value => networks.push(network(value)?),
        }
    }
    (!networks.is_empty()).then_some(networks)
}

fn network(text: &str) -> Option<IpNet> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(ip.to_canonical().into());
    }
    if let Ok(net) = text.parse::<IpNet>() {
        return Some(net.trunc());
    }
    let (ip, mask) = text.split_once('/')?;
    let (ip, mask): (Ipv4Addr, Ipv4Addr) = (ip.parse().ok()?, mask.parse().ok()?);
    Ipv4Net::with_netmask(ip, mask)
        .ok()
        .map(|net| net.trunc().into())
}

/// `sc_conn_cur(0) gt 3` and the other ways to write it.
fn counted(criterion: &str, values: &[String]) -> Option<Test> {
    let (name, argument) = match criterion.split_once('(') {
        Some((name, argument)) => (name, Some(argument.strip_suffix(')')?)),
        None => (criterion, None),
    };
    let (number, what) = match name.strip_prefix("src_") {
        Some(what) => (None, what),
        None => {
            let rest = name.strip_prefix("sc")?;
            let (digits, what) = rest.split_once('_')?;
            (Some(digits), what)
        }
    };
    let what = match what {
        "conn_cur" => Counter::Sessions,
        "conn_rate" | "sess_rate" => Counter::NewSessions,
        _ => return None,
    };
    let table = match (number, argument) {
        (None, None) => Table::Own,
        (None, Some(table)) => Table::Named(table.to_owned()),
        (Some(""), Some(argument)) => match argument.split_once(',') {
            None => Table::Tracked(argument.parse().ok()?),
            Some((_, table)) => Table::Named(table.to_owned()),
        },
        (Some(digits), None) => Table::Tracked(digits.parse().ok()?),
        (Some(_), Some(table)) => Table::Named(table.to_owned()),
    };
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    let values = match values[..] {
        ["-m", "int", ref rest @ ..] => rest,
        ref all => all,
    };
    let number = |text: &str| text.parse::<u64>().ok();
    let more_than = match values {
        ["gt", limit] => number(limit)?,
        ["ge", limit] => number(limit)?.checked_sub(1)?,
        _ => return None,
    };
    Some(Test::Counted {
        what,
        table,
        more_than,
    })
}

/// Whether `row` asks for nothing but who the client is.
pub fn is_of_source(row: &[Term]) -> bool {
    let plain = |test: &Test| test.networks().is_some() || matches!(test, Test::Always(_));
    row.iter().all(|term| term.any.iter().all(plain))
}

/// A rule that lets clients in or keeps them out by who they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    pub accept: bool,
    pub row: Vec<Term>,
}

/// Lists of `allow` and `deny` that decide by the longest prefix as `lists` do by the first rule that
/// fits; a client has to pass all of them.
pub fn allow_and_deny(lists: &[Vec<Access>]) -> (Vec<IpNet>, Vec<IpNet>) {
    let terms = lists.iter().flatten().flat_map(|rule| &rule.row);
    let tests = terms.flat_map(|term| &term.any);
    let named = tests.filter_map(Test::networks).flatten().copied();
    access::allow_and_deny(named, &|node| lists.iter().all(|list| passes(list, node)))
}

/// The key and the file, if a file alone says who may connect.
pub fn only_file(lists: &[Vec<Access>]) -> Option<(&'static str, &str)> {
    let rules: Vec<&Access> = lists.iter().flatten().collect();
    let (rule, others) = rules.split_first()?;
    let [term] = &rule.row[..] else {
        return None;
    };
    let [Test::File { path, .. }] = &term.any[..] else {
        return None;
    };
    let key = match (rule.accept, term.negated, others) {
        (false, false, []) => "deny",
        (false, true, []) => "allow",
        (true, false, [rest]) if !rest.accept && rest.row.is_empty() => "allow",
        _ => return None,
    };
    Some((key, path))
}

fn passes(list: &[Access], node: &IpNet) -> bool {
    let holds = |test: &Test| match test {
        Test::Always(always) => *always,
        test => {
            let networks = test.networks().unwrap_or_default();
            networks.iter().any(|net| net.contains(node))
        }
    };
    let fits = |rule: &&Access| {
        rule.row
            .iter()
            .all(|term| term.any.iter().any(holds) != term.negated)
    };
    list.iter().find(fits).is_none_or(|rule| rule.accept)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::import::Place;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn acl(acls: &mut Acls, text: &str) {
        acls.read(&Line {
            place: Place {
                file: Arc::default(),
                line: 1,
            },
            words: words(text),
            text: text.to_owned(),
            comments: Vec::new(),
        });
    }

    fn lists(acls: &Acls, rules: &[&str]) -> [Vec<String>; 2] {
        let rules = rules.iter().flat_map(|rule| {
            let words = words(rule);
            let accept = words[0] == "accept";
            let rows = acls.condition(&words[1..]);
            rows.into_iter().map(move |row| Access { accept, row })
        });
        let (allow, deny) = allow_and_deny(&[rules.collect()]);
        [allow, deny].map(|list| list.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn the_first_rule_that_fits_becomes_the_longest_prefix_that_does() {
        let none = Acls::default();
        let everything = ["0.0.0.0/0", "::/0"];
        for (rules, allow, deny) in [
            (&[][..], &[][..], &[][..]),
            (
                &["reject unless { src 10.0.0.0/8 192.0.2.1 }"],
                &["10.0.0.0/8", "192.0.2.1/32"],
                &[],
            ),
            (&["reject if { src 10.0.0.0/8 }"], &[], &["10.0.0.0/8"]),
            (
                &[
                    "accept if { src 10.1.0.0/16 }",
                    "reject if { src 10.0.0.0/8 }",
                ],
                &["10.1.0.0/16", "0.0.0.0/0", "::/0"],
                &["10.0.0.0/8"],
            ),
            (
                &[
                    "reject if { src 10.0.0.0/8 }",
                    "accept if { src 10.1.0.0/16 }",
                ],
                &[],
                &["10.0.0.0/8"],
            ),
            (
                &["accept if { src 10.0.0.0/255.0.0.0 }", "reject"],
                &["10.0.0.0/8"],
                &[],
            ),
            (
                &[
                    "reject if { src 10.1.0.0/16 }",
                    "accept if { src 10.0.0.0/8 }",
                    "reject",
                ],
                &["10.0.0.0/8"],
                &["10.1.0.0/16"],
            ),
            (&["reject"], &[], &everything),
            (&["reject if { src ::/0 }"], &["0.0.0.0/0"], &[]),
            (
                &["reject if { src 10.0.0.0/8 } !{ src 10.9.0.0/16 }"],
                &["10.9.0.0/16", "0.0.0.0/0", "::/0"],
                &["10.0.0.0/8"],
            ),
            (
                &["reject if { src 10.0.0.0/8 } or { src 192.0.2.0/24 }"],
                &[],
                &["10.0.0.0/8", "192.0.2.0/24"],
            ),
        ] {
            let [found_allow, found_deny] = lists(&none, rules);
            assert_eq!(found_allow, allow, "{rules:?}");
            assert_eq!(found_deny, deny, "{rules:?}");
        }
    }

    #[test]
    fn lines_of_one_name_are_alternatives() {
        let mut acls = Acls::default();
        acl(&mut acls, "acl lan src 10.0.0.0/8");
        acl(&mut acls, "acl lan src 192.0.2.0/24");
        let [allow, deny] = lists(&acls, &["reject if !lan !LOCALHOST"]);
        assert_eq!(
            allow,
            ["10.0.0.0/8", "127.0.0.0/8", "192.0.2.0/24", "::1/128"]
        );
        assert_eq!(deny, [""; 0]);
    }

    #[test]
    fn counters_are_known_in_all_their_spellings() {
        for (text, table, what) in [
            ("sc_conn_cur(0) gt 3", Table::Tracked(0), Counter::Sessions),
            ("sc0_conn_cur gt 3", Table::Tracked(0), Counter::Sessions),
            (
                "sc1_conn_cur(seen) ge 4",
                Table::Named("seen".to_owned()),
                Counter::Sessions,
            ),
            (
                "src_conn_rate(seen) gt 3",
                Table::Named("seen".to_owned()),
                Counter::NewSessions,
            ),
            ("src_conn_rate gt 3", Table::Own, Counter::NewSessions),
        ] {
            let expected = Test::Counted {
                what,
                table,
                more_than: 3,
            };
            assert_eq!(test(&words(text)), expected, "{text}");
        }
        for text in [
            "sc_conn_cnt(0) gt 3",
            "src_conn_cur lt 3",
            "req.ssl_hello_type 1",
            "src -f /nonexistent",
        ] {
            assert!(matches!(test(&words(text)), Test::Other(_)), "{text}");
        }
    }
}
