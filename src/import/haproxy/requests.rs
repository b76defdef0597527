//! `tcp-request` lines of a front end and its back end.

use ipnet::IpNet;

use super::{
    proxy::Proxy,
    rules::{self, Access, Counter, Table, Term, Test},
    sections::Line,
};
use crate::import::{Remark, access};

/// What the rules come to.
#[derive(Debug, Default)]
pub struct Requests {
    /// Who may connect: a client has to pass each list.
    pub access: Vec<Vec<Access>>,
    /// Whether rules ask for the address of a connection before a PROXY header was read.
    pub asks_before_header: bool,
    /// Whose PROXY header is believed.
    pub accept_proxy: Vec<IpNet>,
    pub limits: Vec<Limit>,
    /// Rules that turn clients away: where they stand, and whether they do so silently.
    refusals: Vec<(Line, bool)>,
    pub comments: Vec<String>,
    pub remarks: Vec<Remark>,
    pub blockers: Vec<Remark>,
}

/// What one source may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    pub what: Counter,
    pub at_most: u64,
    pub table: Table,
    /// Sources to which it does not apply.
    pub exempt: Vec<IpNet>,
    pub line: Line,
}

/// Reads the rules of `front`, and those of the back end it leads to.
pub fn read(front: &Proxy, back: &Proxy) -> Requests {
    let mut found = Requests::default();
    for stage in ["connection", "session", "content"] {
        found.stage(front, stage);
    }
    if back.head.place != front.head.place {
        found.stage(back, "content");
    }
    found
}

impl Requests {
    fn stage(&mut self, proxy: &Proxy, stage: &str) {
        let mut list = Vec::new();
        // A rule that lets some in by what they send matters only where others are kept out.
        let mut by_content: Option<Line> = None;
        let mut tracked: Vec<(u64, Table)> = Vec::new();
        let only_inherited = proxy.inherited_requests == proxy.requests.len() && stage != "content";
        for line in &proxy.requests {
            if line.word(1) == "inspect-delay" {
                continue;
            }
            if line.word(1) != stage {
                continue;
            }
            self.comments.extend(line.comments.iter().cloned());
            if only_inherited {
                let why = "HAProxy 2.6 passes over this rule of its defaults, HAProxy 3 applies it";
                self.remark(line.different(why).instead("it is applied here"));
            }
            let rest = &line.words[2..];
            let at = rest
                .iter()
                .position(|word| word == "if" || word == "unless");
            let (action, condition) = rest.split_at(at.unwrap_or(rest.len()));
            let rows = proxy.acls.condition(condition);
            match action.first().map_or("", String::as_str) {
                word @ ("accept" | "reject" | "silent-drop") => {
                    if word != "accept" {
                        self.refusals.push((line.clone(), word == "silent-drop"));
                    }
                    let accept = word == "accept";
                    for row in rows {
                        if rules::is_of_source(&row) {
                            if !accept && let Some(other) = by_content.take() {
                                let why = "it lets clients in by what they send";
                                self.blockers.push(
                                    other
                                        .left_out(why)
                                        .instead("leave it to HAProxy, or take the rule out"),
                                );
                            }
                            self.asks_before_header |= stage == "connection" && asks(&row);
                            list.push(Access { accept, row });
                        } else if accept {
                            by_content = Some(line.clone());
                        } else {
                            match limit(&row, &tracked, line) {
                                Some(limit) => self.limits.push(limit),
                                None => self.blockers.push(
                                    line.left_out(
                                        "it keeps clients out by what cannot be known here",
                                    )
                                    .instead("leave it to HAProxy, or take the rule out"),
                                ),
                            }
                        }
                    }
                }
                word if word.starts_with("track-sc") => {
                    let number = word["track-sc".len()..].parse().unwrap_or_default();
                    let table = match action.get(2).map(String::as_str) {
                        Some("table") => action.get(3).map(|name| Table::Named(name.clone())),
                        _ => Some(Table::Own),
                    };
                    match (action.get(1).map(String::as_str), table) {
                        (Some("src"), Some(table)) => {
                            if !condition.is_empty() {
                                let why = "only some clients are counted in HAProxy, and all of them here";
                                self.remark(line.different(why).instead("see limits.exempt"));
                            }
                            tracked.push((number, table));
                        }
                        _ => self.remark(
                            line.dropped("what is counted here is a source, that is an address"),
                        ),
                    }
                }
                "expect-proxy" => {
                    let networks = match &rows[..] {
                        [row] if row.is_empty() => Some(access::everybody().to_vec()),
                        rows => sources(rows),
                    };
                    match networks {
                        Some(networks) => self.accept_proxy.extend(networks),
                        None => self.blockers.push(
                            line.left_out("it believes some by more than their address")
                                .instead("write `if { src ADDRESS }`"),
                        ),
                    }
                }
                "expect-netscaler-cip" => {
                    self.blockers.push(
                        line.left_out("nothing here speaks that")
                            .instead("leave it to HAProxy"),
                    );
                }
                // The filter it names says what becomes of it.
                "set-bandwidth-limit" => {}
                "set-dst" | "set-dst-port" | "do-resolve" | "attach-srv" | "switch-mode"
                | "use-service" => {
                    self.blockers.push(
                        line.left_out("it computes the target")
                            .instead("write a mapping for each"),
                    );
                }
                "set-src" | "set-src-port" => {
                    self.blockers.push(
                        line.left_out("it makes up the client's address")
                            .instead("leave it to HAProxy"),
                    );
                }
                _ => self.remark(line.dropped("it has no counterpart")),
            }
        }
        if let Some(line) = by_content {
            let why = "the first bytes are not waited for, and nobody is kept out for them";
            self.remark(line.dropped(why));
        }
        self.access.push(list);
    }

    fn remark(&mut self, remark: Remark) {
        self.remarks.push(remark);
    }

    /// Whether clients that get no session are told nothing, and what is said about it.
    pub fn drops(&self, remarks: &mut Vec<Remark>) -> bool {
        let drops = !self.refusals.is_empty() && self.refusals.iter().all(|(_, silent)| *silent);
        for (line, _) in self.refusals.iter().filter(|(_, silent)| *silent) {
            let (why, instead) = match drops {
                true => (
                    "everybody who gets no session is told nothing here, who is past a limit or finds no target too",
                    "set on_refuse = \"reset\" to tell all of them",
                ),
                false => (
                    "others are refused openly, and a mapping refuses all alike: with a reset",
                    "set on_refuse = \"drop\" to tell none of them",
                ),
            };
            let remark = line.different(why);
            remarks.push(remark.instead(instead));
        }
        drops
    }
}

/// Whether it makes a difference who the client is.
fn asks(row: &[Term]) -> bool {
    row.iter()
        .any(|term| term.any.iter().any(|test| test.networks().is_some()))
}

/// The networks that `rows` are: each of one term that is not negated.
fn sources(rows: &[Vec<Term>]) -> Option<Vec<IpNet>> {
    let mut networks = Vec::new();
    for row in rows {
        let [
            Term {
                negated: false,
                any,
            },
        ] = &row[..]
        else {
            return None;
        };
        for test in any {
            networks.extend(test.networks()?);
        }
    }
    Some(networks)
}

/// The limit that a row of a `reject` is: a counter, and who is exempt.
fn limit(row: &[Term], tracked: &[(u64, Table)], line: &Line) -> Option<Limit> {
    let mut found = None;
    let mut exempt = Vec::new();
    for term in row {
        match (&term.any[..], term.negated) {
            (
                [
                    Test::Counted {
                        what,
                        table,
                        more_than,
                    },
                ],
                false,
            ) if found.is_none() => {
                let table = match table {
                    Table::Tracked(number) => {
                        let mut known = tracked.iter().rev();
                        known
                            .find(|(known, _)| known == number)
                            .map(|(_, table)| table.clone())?
                    }
                    table => table.clone(),
                };
                found = Some((*what, table, *more_than));
            }
            (tests, true) => {
                for test in tests {
                    exempt.extend(test.networks()?);
                }
            }
            _ => return None,
        }
    }
    let (what, table, at_most) = found.filter(|(_, _, at_most)| *at_most > 0)?;
    Some(Limit {
        what,
        at_most,
        table,
        exempt,
        line: line.clone(),
    })
}
