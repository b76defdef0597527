//! One `frontend`, `backend` or `listen` with what it inherits.

use std::time::Duration;

use super::{
    bind::{self, Bind},
    keywords,
    rules::Acls,
    sections::{Line, Section, SectionKind},
    server::{self, Server, Source},
    values,
    words::Variables,
};
use crate::import::{
    Around, Remark,
    model::{Settings, Value},
};

/// A time that was given; none is for ever.
#[derive(Debug, Clone)]
pub struct Timeout {
    pub span: Option<Duration>,
    pub line: Line,
}

/// A proxy as HAProxy has it once everything is read.
#[derive(Debug)]
pub struct Proxy {
    pub kind: SectionKind,
    pub name: String,
    pub head: Line,
    /// Comments that stand beside nothing that is written.
    pub comments: Vec<String>,
    pub http: Option<Line>,
    pub disabled: bool,
    pub binds: Vec<Bind>,
    pub servers: Vec<Server>,
    timeouts: Vec<(String, Timeout)>,
    pub maxconn: Option<(u64, Line)>,
    pub default_backend: Option<Line>,
    pub uses: Vec<Line>,
    pub acls: Acls,
    /// `tcp-request` rules in their order.
    pub requests: Vec<Line>,
    /// `tcp-response` rules, which can only limit bandwidth.
    responses: Vec<Line>,
    /// How many requests are inherited.
    pub inherited_requests: usize,
    pub source: Option<(Source, Line)>,
    pub balance: Option<Line>,
    pub retries: Option<Line>,
    pub stick_table: Option<Line>,
    /// What keeps a client with a server.
    pub stick: Option<Line>,
    /// A check that asks for more than a connection.
    pub protocol_check: Option<Line>,
    /// Whether the request that `option httpchk` says is not that of its own rules.
    pub forgets_request: bool,
    /// What its rules say, those of other protocols among them.
    check_rules: Vec<Line>,
    /// `log` lines of its own.
    pub logs: Vec<Line>,
    /// `filter` lines that limit bandwidth.
    pub bandwidths: Vec<Line>,
    /// Whether all backups serve at once.
    pub all_backups: bool,
    /// What became of directives that are settings of a mapping.
    pub settings: Settings,
    /// What is said if it is imported, and what keeps it from that.
    pub said: Vec<Remark>,
    /// Whether it serves HAProxy's page of statistics.
    pub stats: bool,
}

impl Proxy {
    /// Reads `section` with the lines of the `defaults` that count for it.
    pub fn read(
        section: &Section,
        inherited: &[Line],
        variables: &Variables<'_>,
        around: &Around<'_>,
    ) -> Self {
        let mut comments = section.head.comments.clone();
        comments.extend(section.tail.iter().cloned());
        let mut proxy = Self {
            kind: section.kind,
            name: section.name.clone(),
            head: section.head.clone(),
            comments,
            http: None,
            disabled: false,
            binds: Vec::new(),
            servers: Vec::new(),
            timeouts: Vec::new(),
            maxconn: None,
            default_backend: None,
            uses: Vec::new(),
            acls: Acls::default(),
            requests: Vec::new(),
            responses: Vec::new(),
            inherited_requests: 0,
            source: None,
            balance: None,
            retries: None,
            stick_table: None,
            stick: None,
            protocol_check: None,
            forgets_request: false,
            check_rules: Vec::new(),
            logs: Vec::new(),
            bandwidths: Vec::new(),
            all_backups: false,
            settings: Settings::default(),
            said: Vec::new(),
            stats: false,
        };
        let mut defaults = server::Options::default();
        // Comments of defaults stand beside what they explain, or nowhere: else each mapping had them.
        for line in inherited {
            proxy.directive(line, &mut defaults, variables, around);
        }
        proxy.inherited_requests = proxy.requests.len();
        let inherited_checks = proxy.check_rules.len();
        proxy
            .comments
            .truncate(section.head.comments.len() + section.tail.len());
        for line in &section.lines {
            proxy.directive(line, &mut defaults, variables, around);
        }
        // Its own rules take the place of those of its defaults, and with them of the request there.
        let option = proxy.protocol_check.as_ref();
        let is_http = option.is_some_and(|option| option.word(1) == "httpchk");
        let has_option = option.is_some_and(|option| {
            let mut own = section.lines.iter();
            own.any(|line| line.place == option.place)
        });
        let has_rules = proxy.check_rules.len() > inherited_checks;
        if has_rules || (is_http && has_option) {
            proxy.check_rules.drain(..inherited_checks);
        }
        proxy.forgets_request = is_http && has_rules && !has_option;
        proxy
    }

    pub fn has_clients(&self) -> bool {
        matches!(self.kind, SectionKind::Frontend | SectionKind::Listen)
    }

    pub fn timeout(&self, name: &str) -> Option<&Timeout> {
        let given = self.timeouts.iter().find(|(known, _)| known == name);
        given.map(|(_, timeout)| timeout)
    }

    /// `tcp-request` and `tcp-response` rules, each kind in its order.
    pub fn rules(&self) -> impl Iterator<Item = &Line> {
        self.requests.iter().chain(&self.responses)
    }

    /// The rules of the check, in their order.
    pub fn check_rules(&self) -> impl Iterator<Item = &Line> {
        let option = self.protocol_check.as_ref().map_or("", |line| line.word(1));
        let keyword = match option {
            "httpchk" => "http-check",
            option => option,
        };
        let rules = self.check_rules.iter();
        rules.filter(move |line| line.word(0) == keyword)
    }

    fn left_out(&mut self, line: &Line, why: &str, instead: &str) {
        self.said.push(line.left_out(why).instead(instead));
    }

    fn dropped(&mut self, line: &Line, (why, instead): keywords::Said) {
        self.said.push(line.dropped(why).instead(instead));
    }

    fn invalid(&mut self, line: &Line, why: impl Into<String>) {
        self.said.push(line.invalid(why));
    }

    fn directive(
        &mut self,
        line: &Line,
        defaults: &mut server::Options,
        variables: &Variables<'_>,
        around: &Around<'_>,
    ) {
        let mut written = false;
        match (line.word(0), line.word(1)) {
            ("no" | "default", word) => match word {
                "option" => self.no_option(line),
                "log" => self.logs.clear(),
                _ => self.invalid(line, format!("{:?} cannot stand before this", line.word(0))),
            },
            ("mode", mode) => match mode {
                "tcp" => self.http = None,
                "http" => self.http = Some(line.clone()),
                other => self.invalid(
                    line,
                    format!("there is no mode {other:?} any more, or not here"),
                ),
            },
            ("bind", _) => {
                written = true;
                if self.kind == SectionKind::Backend {
                    return self.invalid(line, "a backend does not listen");
                }
                let bind = bind::read(line, variables, around, &mut self.said);
                self.binds.push(bind);
            }
            ("server", _) => {
                written = true;
                let server = server::read(line, defaults, variables, around, &mut self.said);
                self.servers.push(server);
            }
            ("default-server", _) => defaults.read(&line.words[1..], variables),
            ("server-template", _) => {
                written = true;
                let server = server::template(line, defaults, variables, around, &mut self.said);
                self.servers.push(server);
            }
            ("dispatch", _) => {
                written = true;
                let mut line = line.clone();
                line.words.insert(1, "dispatch".to_owned());
                let server = server::read(&line, defaults, variables, around, &mut self.said);
                self.servers.push(server);
            }
            ("timeout", name) => {
                written = true;
                self.timeout_line(line, name);
            }
            ("contimeout" | "clitimeout" | "srvtimeout" | "transparent" | "source-ip", _) => {
                self.invalid(line, "it is refused since 2.0");
            }
            ("maxconn", number) => {
                written = true;
                match values::leading_number(number) {
                    (0, "") => self.maxconn = None,
                    (number, rest) => {
                        self.maxconn = Some((number, line.clone()));
                        if !rest.is_empty() {
                            let why =
                                format!("HAProxy passes over {rest:?} and takes it for {number}");
                            let remark = line.different(why);
                            self.said
                                .push(remark.instead("set max_sessions to what was meant"));
                        }
                    }
                }
            }
            ("default_backend", _) => self.default_backend = Some(line.clone()),
            ("use_backend", _) => self.uses.push(line.clone()),
            ("use-server", _) => {
                if self.kind != SectionKind::Frontend {
                    self.left_out(
                        line,
                        "a rule chooses the server",
                        "write a mapping for each",
                    );
                }
            }
            ("acl", _) => self.acls.read(line),
            ("tcp-request", _) => self.requests.push(line.clone()),
            ("tcp-response", _) if line.word(2) == "set-bandwidth-limit" => {
                self.responses.push(line.clone());
            }
            ("tcp-response", _) => self.dropped(line, ("nothing looks at what is sent", "")),
            ("source", _) => {
                let (source, _) = server::Options::source_of(&line.words[1..], variables);
                match source {
                    Ok(source) => {
                        written = true;
                        self.source = Some((source, line.clone()));
                    }
                    Err(_) if line.words.len() == 2 => self.source = None,
                    Err(why) => {
                        self.left_out(line, &why, "write `source ADDRESS`, or leave it out")
                    }
                }
            }
            ("balance", _) => self.balance = Some(line.clone()),
            ("retries", _) => {
                written = true;
                self.retries = Some(line.clone());
            }
            ("stick-table", _) => self.stick_table = Some(line.clone()),
            ("stick", _) => self.stick = Some(line.clone()),
            ("disabled", _) => self.disabled = true,
            ("enabled", _) => self.disabled = false,
            ("stats", what) => {
                self.stats |= matches!(what, "enable" | "uri" | "auth" | "admin");
                let (why, instead) = ("there is a page of its own", "see it at admin.listen");
                self.dropped(line, (why, instead));
            }
            ("description", _) => self.comments.push(line.words[1..].join(" ")),
            ("backlog", number) => {
                written = true;
                match number.parse::<u64>() {
                    Ok(number) => {
                        let backlog = Value::Number(number.clamp(1, 65535));
                        self.settings.set("backlog", backlog, line.comments.clone());
                    }
                    Err(_) => self.invalid(line, "it needs a number"),
                }
            }
            ("rate-limit", "sessions") => {
                written = true;
                let rate = line.word(2).parse::<u64>().unwrap_or_default();
                self.limit_of_rate(line, rate);
            }
            ("clitcpka-idle" | "srvtcpka-idle", span) => {
                written = self.keepalive(line, "idle", span);
            }
            ("clitcpka-intvl" | "srvtcpka-intvl", span) => {
                written = self.keepalive(line, "interval", span);
            }
            ("clitcpka-cnt" | "srvtcpka-cnt", count) => {
                written = self.keepalive(line, "count", count);
            }
            ("log", "global") => {}
            ("log", _) => self.logs.push(line.clone()),
            ("option", _) => written = self.option(line),
            ("http-check" | "tcp-check", _) => {
                written = true;
                self.check_rules.push(line.clone());
            }
            ("filter", what) => {
                written = true;
                match what.starts_with("bwlim") {
                    true => self.bandwidths.push(line.clone()),
                    false => self.dropped(line, ("nothing looks at what is sent", "")),
                }
            }
            (word, _) => match keywords::of_proxy(word) {
                Some(Some(said)) => self.dropped(line, said),
                Some(None) => {}
                None => {
                    let why = "this directive is not known here";
                    self.left_out(line, why, "leave it out, if nothing depends on it");
                }
            },
        }
        if !written {
            self.comments.extend(line.comments.iter().cloned());
        }
    }

    fn timeout_line(&mut self, line: &Line, name: &str) {
        const KNOWN: [&str; 13] = [
            "connect",
            "client",
            "server",
            "tunnel",
            "client-fin",
            "server-fin",
            "queue",
            "check",
            "http-request",
            "http-keep-alive",
            "tarpit",
            "client-hs",
            "stats",
        ];
        if !KNOWN.contains(&name) {
            return self.invalid(line, "there is no such timeout");
        }
        match values::time(line.word(2)) {
            Ok((span, rest)) => {
                if !rest.is_empty() {
                    let taken = span.map_or("no time".to_owned(), crate::units::duration);
                    let why = format!("HAProxy passes over {rest:?} and takes it for {taken}");
                    let remark = line.different(why);
                    self.said
                        .push(remark.instead("set the time that was meant"));
                }
                self.timeouts.retain(|(known, _)| known != name);
                let line = line.clone();
                self.timeouts
                    .push((name.to_owned(), Timeout { span, line }));
            }
            Err(why) => self.invalid(line, why),
        }
    }

    fn limit_of_rate(&mut self, line: &Line, rate: u64) {
        if rate == 0 {
            return self.settings.remove("new_sessions_per_second");
        }
        let value = Value::Number(rate.min(1_000_000));
        self.settings
            .set("new_sessions_per_second", value, line.comments.clone());
        let why = "clients past it are refused here, and wait to be accepted in HAProxy";
        let remark = line.different(why);
        self.said
            .push(remark.instead("set { rate = …, burst = … } to let more through at once"));
    }

    /// One part of the setting `keepalive`, which is of both sides.
    fn keepalive(&mut self, line: &Line, part: &'static str, text: &str) -> bool {
        let number = match part {
            "count" => text.parse::<u64>().ok().map(|count| count.clamp(1, 127)),
            _ => {
                let span = values::time(text).ok().and_then(|(span, _)| span);
                span.map(|span| span.as_secs().clamp(1, 32767))
            }
        };
        let Some(number) = number else {
            self.invalid(line, "it needs a time or a number");
            return true;
        };
        let value = match part {
            "count" => Value::Number(number),
            _ => Value::text(format!("{number}s")),
        };
        if let Some(setting) = self.settings.get_mut("keepalive")
            && let Value::Table(parts) = &mut setting.value
        {
            setting.comments.extend(line.comments.iter().cloned());
            match parts.iter_mut().find(|(known, _)| *known == part) {
                Some((_, known)) => *known = value,
                None => parts.push((part, value)),
            }
            return true;
        }
        let table = Value::Table(vec![(part, value)]);
        self.settings.set("keepalive", table, line.comments.clone());
        true
    }

    /// Takes an option over; whether its comments stand somewhere.
    fn option(&mut self, line: &Line) -> bool {
        let splices = |settings: &Settings| settings.get("relay").is_some();
        match line.word(1) {
            "splice-request" | "splice-response" => {
                if !splices(&self.settings) {
                    self.settings
                        .set("relay", Value::text("splice"), line.comments.clone());
                    return true;
                }
            }
            "transparent" | "http_proxy" => {
                self.left_out(
                    line,
                    "the target is what the client asked for",
                    "write the address",
                );
            }
            // With one server there is no other to try.
            "redispatch" => {}
            "allbackups" => self.all_backups = true,
            "httpchk" | "tcp-check" | "mysql-check" | "pgsql-check" | "redis-check" | "smtpchk"
            | "ldap-check" | "ssl-hello-chk" | "external-check" | "spop-check" => {
                self.protocol_check = Some(line.clone());
                return true;
            }
            word => match keywords::of_option(word) {
                Some(Some(said)) => self.dropped(line, said),
                Some(None) => {}
                None => {
                    let why = "this option is not known here";
                    self.left_out(line, why, "leave it out, if nothing depends on it");
                }
            },
        }
        false
    }

    /// `no option WORD` takes back what a line above asked for.
    fn no_option(&mut self, line: &Line) {
        let word = line.word(2);
        if matches!(word, "splice-request" | "splice-response") {
            self.settings.remove("relay");
        }
        if let Some(line) = &self.protocol_check
            && line.word(1) == word
        {
            self.protocol_check = None;
        }
        let asked = format!("option {word}");
        self.said.retain(|remark| !remark.what.starts_with(&asked));
        if matches!(word, "tcpka" | "tcplog") {
            self.invalid(line, "HAProxy knows no such negation");
        }
    }
}
