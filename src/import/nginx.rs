//! nginx: the `server` blocks of `stream`.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::IpNet;

use super::{
    Around, Import, Kind, Place, Remark, access, address,
    listen::{Host, Listen, merged},
    model::{Left, Mapping, Noted, Settings, Target, Value},
    text_of,
};
use crate::units;

/// How deep blocks and included files may lie in one another.
const DEEPEST: usize = 16;

/// A directive with its arguments, and what stands in its braces.
#[derive(Debug, Clone)]
struct Directive {
    place: Place,
    words: Vec<String>,
    comments: Vec<String>,
    block: Option<Vec<Directive>>,
}

impl Directive {
    fn name(&self) -> &str {
        self.word(0)
    }

    fn word(&self, at: usize) -> &str {
        self.words.get(at).map_or("", String::as_str)
    }

    fn text(&self) -> String {
        self.words.join(" ")
    }

    fn remark(&self, kind: Kind, why: impl Into<String>) -> Remark {
        Remark::new(kind, self.place.clone(), &self.text(), why)
    }

    fn left_out(&self, why: impl Into<String>) -> Remark {
        self.remark(Kind::LeftOut, why)
    }
}

/// Reads `paths`, which are whole configurations.
pub fn read(paths: &[PathBuf], around: &Around<'_>) -> Import {
    let mut import = Import::default();
    for path in paths {
        let directives = match text_of(path) {
            Ok(text) => parse(&text, path),
            Err(remark) => Err(remark),
        };
        match directives {
            Ok(directives) => {
                let base = path.parent().unwrap_or(Path::new("")).to_owned();
                let directives = included(directives, &base, 0, &mut import.remarks);
                main(&directives, around, &mut import);
            }
            Err(remark) => import.remarks.push(remark),
        }
    }
    let differences = [
        (
            "how sessions end",
            "a target that refuses or resets, an idle session and a refused client are an end of stream in \
             nginx, and a reset here",
        ),
        (
            "a client that has finished sending",
            "nginx closes its session at once unless `proxy_half_close` is on; here it still gets the answer",
        ),
    ];
    if let (Some(path), false) = (paths.first(), import.mappings.is_empty()) {
        let place = Place::whole(path);
        let said = differences.map(|(what, why)| Remark::different(place.clone(), what, why));
        import.remarks.extend(said);
    }
    super::tidy(&mut import);
    import
}

/// A block that is not closed yet: the directive it belongs to, and what stands in it so far.
type Open = (Directive, Vec<Directive>);

fn parse(text: &str, path: &Path) -> Result<Vec<Directive>, Remark> {
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

/// `directives` with what they include in the place of `include`.
fn included(
    directives: Vec<Directive>,
    base: &Path,
    depth: usize,
    remarks: &mut Vec<Remark>,
) -> Vec<Directive> {
    let mut found = Vec::new();
    for mut directive in directives {
        if let Some(block) = directive.block.take() {
            // What is not TCP is passed over anyway, and so is what it includes.
            let block = match directive.name() {
                "http" | "mail" | "types" | "map" | "geo" => block,
                _ => included(block, base, depth, remarks),
            };
            directive.block = Some(block);
        }
        if directive.name() != "include" {
            found.push(directive);
            continue;
        }
        for file in matching(&base.join(directive.word(1))) {
            let read = match depth < DEEPEST {
                true => text_of(&file).and_then(|text| parse(&text, &file)),
                false => Err(directive.left_out("files include each other too deep")),
            };
            match read {
                Ok(inside) => found.extend(included(inside, base, depth + 1, remarks)),
                Err(remark) => remarks.push(remark),
            }
        }
    }
    found
}

/// The files that a name with an asterisk in its last part means, by name.
fn matching(pattern: &Path) -> Vec<PathBuf> {
    let name = pattern.file_name().and_then(|name| name.to_str());
    let Some((before, after)) = name.and_then(|name| name.split_once('*')) else {
        return vec![pattern.to_owned()];
    };
    let entries = pattern
        .parent()
        .and_then(|folder| fs::read_dir(folder).ok());
    let mut files: Vec<PathBuf> = entries
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| {
                name.len() >= before.len() + after.len()
                    && name.starts_with(before)
                    && name.ends_with(after)
                    && !name.starts_with('.')
            })
        })
        .collect();
    files.sort();
    files
}

/// What nobody misses outside of `stream`.
const OF_MAIN: [&str; 14] = [
    "user",
    "worker_processes",
    "worker_rlimit_nofile",
    "worker_cpu_affinity",
    "worker_priority",
    "pid",
    "error_log",
    "events",
    "load_module",
    "daemon",
    "include",
    "env",
    "pcre_jit",
    "timer_resolution",
];

fn main(directives: &[Directive], around: &Around<'_>, import: &mut Import) {
    // A file that is included into `stream` may be given by itself.
    let bare = directives
        .iter()
        .any(|directive| matches!(directive.name(), "server" | "upstream"));
    if bare {
        stream(directives, around, import);
        return;
    }
    for directive in directives {
        match (directive.name(), &directive.block) {
            ("stream", Some(block)) => stream(block, around, import),
            ("http" | "mail", Some(block)) => {
                let listens = listens(block);
                if !listens.is_empty() {
                    let remark =
                        directive.left_out("only TCP is forwarded, and nothing is looked at");
                    import.remarks.push(remark.instead("leave it to nginx"));
                    import.left.push(Left {
                        place: directive.place.clone(),
                        what: directive.text(),
                        listen: listens,
                    });
                }
            }
            (name, _) if OF_MAIN.contains(&name) => {}
            _ => import
                .remarks
                .push(directive.remark(Kind::Dropped, "it has no counterpart")),
        }
    }
}

/// Where the servers of a block listen.
fn listens(block: &[Directive]) -> Vec<String> {
    let servers = block
        .iter()
        .filter(|directive| directive.name() == "server");
    let inside = servers.flat_map(|server| server.block.iter().flatten());
    let listens = inside.filter(|directive| directive.name() == "listen");
    listens.map(|listen| listen.word(1).to_owned()).collect()
}

fn stream(block: &[Directive], around: &Around<'_>, import: &mut Import) {
    let shared: Vec<&Directive> = block
        .iter()
        .filter(|directive| directive.block.is_none())
        .collect();
    for directive in block {
        match directive.name() {
            "server" => {
                let inside = directive.block.as_deref().unwrap_or_default();
                let server = Server {
                    directive,
                    inside,
                    shared: &shared,
                    block,
                    around,
                };
                match server.mapping(&mut import.remarks) {
                    Ok(mapping) => import.mappings.extend(mapping),
                    Err(blockers) => {
                        import.remarks.extend(blockers);
                        import.left.push(Left {
                            place: directive.place.clone(),
                            what: "server".to_owned(),
                            listen: server
                                .listens()
                                .map(|listen| listen.word(1).to_owned())
                                .collect(),
                        });
                    }
                }
            }
            "upstream" | "map" | "geo" | "split_clients" | "limit_conn_zone" => {}
            name if directive.block.is_some() => {
                let why = format!("{name} has no counterpart");
                import.remarks.push(directive.remark(Kind::Dropped, why));
            }
            _ => {}
        }
    }
}

/// A `server` block, and what stands around it.
struct Server<'a> {
    directive: &'a Directive,
    inside: &'a [Directive],
    /// What counts for all servers that do not say it themselves.
    shared: &'a [&'a Directive],
    block: &'a [Directive],
    around: &'a Around<'a>,
}

impl<'a> Server<'a> {
    fn listens(&self) -> impl Iterator<Item = &'a Directive> {
        self.inside
            .iter()
            .filter(|directive| directive.name() == "listen")
    }

    /// The last directive of a name, here or around.
    fn given(&self, name: &str) -> Option<&'a Directive> {
        let here = self
            .inside
            .iter()
            .rev()
            .find(|directive| directive.name() == name);
        here.or_else(|| {
            self.shared
                .iter()
                .rev()
                .copied()
                .find(|directive| directive.name() == name)
        })
    }

    fn is_on(&self, name: &str) -> bool {
        self.given(name)
            .is_some_and(|directive| directive.word(1) == "on")
    }

    /// The mapping, none if it is UDP, or what keeps it with nginx.
    fn mapping(&self, remarks: &mut Vec<Remark>) -> Result<Option<Mapping>, Vec<Remark>> {
        let mut blockers = Vec::new();
        let mut listen: Noted<Vec<Listen>> = Noted::default();
        let mut accepts_proxy = false;
        let mut settings = Settings::default();
        self.timeouts(&mut settings, &mut blockers);
        for directive in self.listens() {
            if directive.words.iter().any(|word| word == "udp") {
                blockers.push(directive.left_out("it is UDP").instead("leave it to nginx"));
                continue;
            }
            match self.listen(directive, &mut settings) {
                Ok((one, proxied)) => {
                    listen.value.push(one);
                    accepts_proxy |= proxied;
                }
                Err(remark) => blockers.push(remark),
            }
            listen.comments.extend(directive.comments.iter().cloned());
        }
        listen.value = merged(listen.value);
        if accepts_proxy {
            let all = access::everybody()
                .iter()
                .map(ToString::to_string)
                .collect();
            settings.set("accept_proxy", Value::List(all), Vec::new());
        }
        if self.is_on("proxy_protocol") {
            settings.set("send_proxy", Value::text("v1"), Vec::new());
        }
        self.access(&mut settings, accepts_proxy, &mut blockers);
        self.others(&mut settings, remarks, &mut blockers);
        let pass = self
            .inside
            .iter()
            .find(|directive| directive.name() == "proxy_pass");
        let Some(pass) = pass else {
            let why = "it passes nothing on to anybody";
            blockers.push(self.directive.left_out(why).instead("leave it to nginx"));
            return Err(blockers);
        };
        let targets = self.targets(pass, &mut listen.value, &mut settings);
        let targets = match targets {
            Ok(targets) => targets,
            Err(remark) => {
                blockers.push(remark);
                return Err(blockers);
            }
        };
        if !blockers.is_empty() {
            return Err(blockers);
        }
        let first = listen.value.first().map_or(0, |listen| listen.first);
        let name = pass.word(1).trim_start_matches("tcp://");
        let is_name = |name: &str| {
            name.chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        };
        let name = match is_name(name) && name.parse::<IpAddr>().is_err() {
            true => name.to_owned(),
            false => format!("port-{first}"),
        };
        Ok(Some(Mapping {
            place: self.directive.place.clone(),
            name,
            comments: self.directive.comments.clone(),
            listen,
            targets,
            settings,
        }))
    }

    fn timeouts(&self, settings: &mut Settings, blockers: &mut Vec<Remark>) {
        for (name, key, otherwise) in [
            ("proxy_connect_timeout", "connect_timeout", 60),
            ("proxy_timeout", "idle_timeout", 600),
        ] {
            let given = self.given(name);
            let span = match given.map(|directive| time(directive.word(1))) {
                None => Some(Duration::from_secs(otherwise)),
                Some(span @ Some(_)) => span,
                Some(None) => {
                    blockers.extend(given.map(|given| given.left_out("this is no time")));
                    continue;
                }
            };
            let span = span.filter(|span| !span.is_zero());
            if let Some(span) = span {
                let comments = given
                    .map(|given| given.comments.clone())
                    .unwrap_or_default();
                settings.set(key, Value::Text(units::duration(span)), comments);
            }
        }
    }

    fn listen(
        &self,
        directive: &Directive,
        settings: &mut Settings,
    ) -> Result<(Listen, bool), Remark> {
        let mut v6only = true;
        let mut accepts_proxy = false;
        for option in &directive.words[2.min(directive.words.len())..] {
            match option.split_once('=').unwrap_or((option, "")) {
                ("ssl", _) => {
                    let why = "it ends TLS, and bytes are passed on here as they are";
                    return Err(directive.left_out(why).instead("leave it to nginx"));
                }
                ("ipv6only", value) => v6only = value != "off",
                ("proxy_protocol", _) => accepts_proxy = true,
                ("backlog", number) => {
                    let number = number.parse::<u64>().unwrap_or(511).clamp(1, 65535);
                    settings.set("backlog", Value::Number(number), Vec::new());
                }
                _ => {}
            }
        }
        let text = directive.word(1);
        if text.starts_with("unix:") {
            let why = "it is no address of TCP but a socket of this machine";
            return Err(directive.left_out(why).instead("leave it to nginx"));
        }
        let (host, ports) = match text.rsplit_once(':') {
            Some((host, ports)) if !ports.ends_with(']') => (host, ports),
            _ => ("*", text),
        };
        let host = match host.trim_matches(['[', ']']) {
            "*" => Host::ANY_V4,
            host => {
                let ip = address::ip(host, self.around);
                let ip = ip.ok_or_else(|| {
                    let why = format!("{host} is a name");
                    directive
                        .left_out(why)
                        .instead("write its address, or run this with --resolve")
                })?;
                match Host::of(ip) {
                    Host::ANY_V6 if !v6only => Host::Any,
                    host => host,
                }
            }
        };
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        match (first.parse(), last.parse()) {
            (Ok(first @ 1..), Ok(last)) if first <= last => {
                Ok((Listen { host, first, last }, accepts_proxy))
            }
            _ => Err(directive
                .left_out("it has no port")
                .instead("write the port")),
        }
    }

    /// Where the servers lead: all that take clients.
    fn targets(
        &self,
        pass: &Directive,
        listens: &mut Vec<Listen>,
        settings: &mut Settings,
    ) -> Result<Vec<Target>, Remark> {
        let upstream = self
            .block
            .iter()
            .find(|directive| directive.name() == "upstream" && directive.word(1) == pass.word(1));
        let Some(upstream) = upstream else {
            let (host, port) = self.address(pass, pass.word(1))?;
            return Ok(vec![self.target(
                pass,
                host,
                port,
                listens,
                pass.comments.clone(),
            )?]);
        };
        let mut balance = "round-robin";
        let mut targets = Vec::new();
        for directive in upstream.block.iter().flatten() {
            match directive.name() {
                "server" if directive.words.iter().any(|word| word == "down") => {}
                "server" => {
                    let (host, port) = self.address(directive, directive.word(1))?;
                    let mut comments = directive.comments.clone();
                    if targets.is_empty() {
                        let above = pass.comments.iter().chain(&upstream.comments);
                        comments.splice(0..0, above.cloned());
                    }
                    let mut target = self.target(pass, host, port, listens, comments)?;
                    for word in &directive.words[2..] {
                        match word.split_once('=').unwrap_or((word, "")) {
                            ("backup", _) => {
                                target.settings.set("backup", Value::Flag(true), Vec::new())
                            }
                            ("weight", number) => number_of(number, "weight", &mut target.settings),
                            ("max_conns", number) => {
                                number_of(number, "max_sessions", &mut target.settings)
                            }
                            ("max_fails" | "fail_timeout" | "slow_start", _) => {}
                            (word, _) => {
                                return Err(directive.left_out(format!("{word} is not known here")));
                            }
                        }
                    }
                    targets.push(target);
                }
                "least_conn" => balance = "least-sessions",
                "hash" if directive.word(1) == "$remote_addr" => balance = "source",
                "zone" => {}
                name => {
                    let why = format!("{name} has no counterpart");
                    return Err(directive.left_out(why).instead("leave it to nginx"));
                }
            }
        }
        match &mut targets[..] {
            [] => return Err(upstream.left_out("no server of it takes clients")),
            [one] => {
                for key in ["weight", "backup"] {
                    one.settings.remove(key);
                }
                if let Some(most) = one.settings.get("max_sessions") {
                    settings.set("max_sessions", most.value.clone(), Vec::new());
                    one.settings.remove("max_sessions");
                }
            }
            _ => settings.set("balance", Value::text(balance), Vec::new()),
        }
        Ok(targets)
    }

    /// The host and the port that a server is at; no port is the one that the client came to.
    fn address(&self, directive: &Directive, text: &str) -> Result<(IpAddr, Option<u16>), Remark> {
        let kept = text.strip_suffix(":$server_port");
        if text.contains('$') && kept.is_none() {
            let why = "the target is computed";
            return Err(directive.left_out(why).instead("write a mapping for each"));
        }
        if text.starts_with("unix:") {
            let why = "the target is a socket of this machine";
            return Err(directive.left_out(why).instead("leave it to nginx"));
        }
        let (host, port) = match (kept, address::split(text)) {
            (Some(host), _) => (host, None),
            (None, Some((host, port))) => (host, Some(port)),
            (None, None) => return Err(directive.left_out("it has no port")),
        };
        match address::ip(host, self.around) {
            Some(ip) => Ok((ip, port)),
            None => {
                let why = format!("{host} is a name, and targets are addresses");
                Err(address::is_a_name(directive.left_out(why)))
            }
        }
    }

    fn target(
        &self,
        pass: &Directive,
        host: IpAddr,
        port: Option<u16>,
        listens: &mut Vec<Listen>,
        comments: Vec<String>,
    ) -> Result<Target, Remark> {
        let first = listens.first().map_or(0, |listen| listen.first);
        let port = match port {
            Some(port) => {
                // Many to one: our own range would lead to as many ports.
                *listens = listens.iter().flat_map(|listen| listen.ports()).collect();
                port
            }
            None if listens.iter().all(|listen| listen.first == first) => first,
            None => {
                let why = "each port leads to the same port, and they are not one range";
                return Err(pass.left_out(why).instead("write a server block for each"));
            }
        };
        let settings = Settings::default();
        Ok(Target {
            host,
            port,
            comments,
            settings,
        })
    }

    fn access(&self, settings: &mut Settings, proxied: bool, blockers: &mut Vec<Remark>) {
        let is_rule = |directive: &&Directive| matches!(directive.name(), "allow" | "deny");
        let mut rules: Vec<&Directive> = self.inside.iter().filter(is_rule).collect();
        if rules.is_empty() {
            rules = self
                .shared
                .iter()
                .copied()
                .filter(|rule| is_rule(rule))
                .collect();
        }
        let mut read: Vec<(bool, Vec<IpNet>)> = Vec::new();
        for rule in &rules {
            let networks = match rule.word(1) {
                "all" => Some(access::everybody().to_vec()),
                text => {
                    let net = text.parse::<IpNet>().ok().map(|net| net.trunc());
                    let net = net.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
                    net.map(|net| vec![net])
                }
            };
            match networks {
                Some(networks) => read.push((rule.name() == "allow", networks)),
                None => blockers.push(
                    rule.left_out("it is no network")
                        .instead("write the addresses"),
                ),
            }
        }
        if proxied && !rules.is_empty() {
            let why = "the rules are for the proxy in front, and ours are for the client it states";
            blockers.push(rules[0].left_out(why).instead("leave it to nginx"));
        }
        let named = read
            .iter()
            .flat_map(|(_, networks)| networks.iter().copied());
        let passes = |node: &IpNet| {
            let fits =
                |(_, networks): &&(bool, Vec<IpNet>)| networks.iter().any(|net| net.contains(node));
            read.iter().find(fits).is_none_or(|(accept, _)| *accept)
        };
        let (allow, deny) = access::allow_and_deny(named, &passes);
        for (key, list) in [("allow", allow), ("deny", deny)] {
            if !list.is_empty() {
                let list = list.iter().map(access::written).collect();
                settings.set(key, Value::List(list), Vec::new());
            }
        }
    }

    /// What else may stand in a server block.
    fn others(
        &self,
        settings: &mut Settings,
        remarks: &mut Vec<Remark>,
        blockers: &mut Vec<Remark>,
    ) {
        for directive in self.inside.iter().chain(self.shared.iter().copied()) {
            let dropped = |why: &str| directive.remark(Kind::Dropped, why);
            match directive.name() {
                "listen"
                | "proxy_pass"
                | "proxy_timeout"
                | "proxy_connect_timeout"
                | "proxy_protocol"
                | "allow"
                | "deny"
                | "tcp_nodelay"
                | "proxy_half_close"
                | "proxy_buffer_size"
                | "preread_buffer_size"
                | "preread_timeout"
                | "proxy_socket_keepalive"
                | "server_name"
                | "limit_conn_zone"
                | "proxy_next_upstream"
                | "proxy_next_upstream_tries"
                | "proxy_next_upstream_timeout"
                | "variables_hash_bucket_size"
                | "variables_hash_max_size"
                | "map_hash_bucket_size"
                | "map_hash_max_size" => {}
                "access_log" | "log_format" | "error_log" => {
                    remarks.push(
                        dropped("every session is logged on standard output").instead("see [log]"),
                    );
                }
                "resolver" | "resolver_timeout" => {
                    remarks.push(
                        dropped("names are not looked up while it runs").instead("write addresses"),
                    );
                }
                "limit_conn" => {
                    let number = directive
                        .word(2)
                        .parse::<u64>()
                        .ok()
                        .filter(|number| *number > 0);
                    if let Some(number) = number {
                        let comments = directive.comments.clone();
                        settings.set("max_sessions_per_source", Value::Number(number), comments);
                        let why = "nginx counts what its zone says, and here it is a source";
                        remarks.push(directive.remark(Kind::Different, why));
                    }
                }
                "proxy_bind" => match directive.word(1) {
                    "off" => {}
                    "$remote_addr" | "$remote_addr:$remote_port" => {
                        settings.set("transparent", Value::Flag(true), directive.comments.clone());
                    }
                    text => match text.parse::<IpAddr>() {
                        Ok(ip) => {
                            let bind = Value::Text(ip.to_string());
                            settings.set("bind", bind, directive.comments.clone());
                        }
                        Err(_) => blockers.push(directive.left_out("it is no address alone")),
                    },
                },
                "proxy_ssl" if directive.word(1) == "on" => {
                    let why = "it begins TLS, and bytes are passed on here as they are";
                    blockers.push(directive.left_out(why).instead("leave it to nginx"));
                }
                "proxy_download_rate" | "proxy_upload_rate" => {
                    let why = "it limits each connection";
                    remarks.push(dropped(why).instead("set bandwidth or bandwidth_per_source"));
                }
                "ssl_preread" => {
                    remarks.push(dropped("nothing looks at what is sent"));
                }
                name if name.starts_with("ssl_") || name.starts_with("proxy_ssl") => {}
                "set_real_ip_from" => {
                    let why = "who may state a client is all who connect to a port that expects it";
                    remarks.push(
                        directive
                            .remark(Kind::Different, why)
                            .instead("see accept_proxy"),
                    );
                }
                name => {
                    let why = format!("{name} is not known here");
                    blockers.push(
                        directive
                            .left_out(why)
                            .instead("leave it out, if nothing depends on it"),
                    );
                }
            }
        }
    }
}

/// Sets a number of at least 1.
fn number_of(text: &str, key: &'static str, settings: &mut Settings) {
    if let Ok(number @ 1..) = text.parse::<u64>() {
        settings.set(key, Value::Number(number), Vec::new());
    }
}

/// A time of nginx: a sum of numbers with units, or a number of seconds.
fn time(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let (number, behind) = rest.split_at(end);
        let unit_end = behind
            .find(|c: char| c.is_ascii_digit() || c == ' ')
            .unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(unit_end);
        let millis = match unit {
            "ms" => 1,
            "s" | "" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 7 * 86_400_000,
            "M" => 30 * 86_400_000,
            "y" => 365 * 86_400_000,
            _ => return None,
        };
        let number: u64 = number.parse().ok()?;
        sum = sum.checked_add(Duration::from_millis(number.checked_mul(millis)?))?;
        rest = behind.trim_start();
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_without_a_unit_is_in_seconds() {
        for (text, seconds) in [
            ("60", 60),
            ("10m", 600),
            ("1h30m", 5400),
            ("1h 30s", 3630),
            ("1w", 604_800),
        ] {
            assert_eq!(time(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(time("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(time("5x"), None);
    }

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
