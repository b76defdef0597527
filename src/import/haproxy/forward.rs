//! A front end with the back end it leads to becomes mappings.

use std::time::Duration;

use super::{
    address::Port,
    bandwidth,
    bind::Options,
    checks::{self, Checking},
    limits::{self, Set},
    names,
    proxy::{Proxy, Timeout},
    requests::{self, Requests},
    rules::{self, Test},
    sections::{Line, Section, SectionKind},
    server::{Server, Source},
    servers::{self, Serving},
};
use crate::{
    import::{
        Kind, Remark, access,
        listen::{Listen, merged},
        model::{Mapping, Noted, Settings, Target, TargetHost, Value},
    },
    units,
};

/// Longer than the kernel tries by itself, which is what happens without a timeout.
const FOR_EVER: Duration = Duration::from_secs(600);

/// What a front end comes to.
#[derive(Debug, Default)]
pub struct Forwarded {
    pub mappings: Vec<Mapping>,
    pub remarks: Vec<Remark>,
    pub limits: Vec<Set>,
    pub exempt: Vec<String>,
    /// Who is asked for names.
    pub resolvers: Option<String>,
}

/// The names of the back ends that a front end may lead to.
pub fn backends(front: &Proxy) -> impl Iterator<Item = &str> {
    let lines = front.uses.iter().chain(&front.default_backend);
    lines.map(|line| line.word(1))
}

/// The mappings of `front`, or what keeps it with HAProxy.
pub fn front(
    front: &Proxy,
    proxies: &[Proxy],
    resolvers: &[&Section],
) -> Result<Forwarded, Vec<Remark>> {
    let head = &front.head;
    let nothing = |why: &str, instead: &str| {
        Err(vec![
            Remark::dropped(head.place.clone(), &head.text, why).instead(instead),
        ])
    };
    if front.disabled {
        return nothing("it is disabled", "");
    }
    if front.binds.is_empty() {
        return nothing("it listens nowhere", "");
    }
    let leads_nowhere =
        front.uses.is_empty() && front.default_backend.is_none() && front.servers.is_empty();
    if let Some(http) = &front.http {
        if front.stats && leads_nowhere {
            return nothing(
                "it is HAProxy's page of statistics",
                "the status page is at admin.listen",
            );
        }
        let why = "only TCP is forwarded, and nothing is looked at";
        let remark = Remark::left_out(
            http.place.clone(),
            &format!("{}: {}", head.text, http.text),
            why,
        );
        return Err(vec![remark.instead(
            "leave it to HAProxy, or use `mode tcp` if nothing looks at requests",
        )]);
    }
    let back = back(front, proxies)?;
    let requests = requests::read(front, back);
    let mut blockers: Vec<Remark> = Vec::new();
    let mut remarks: Vec<Remark> = Vec::new();
    let mut said: Vec<&Remark> = front.said.iter().collect();
    if back.head.place != head.place {
        said.extend(&back.said);
    }
    let all = said
        .into_iter()
        .chain(&requests.remarks)
        .chain(&requests.blockers);
    for remark in all {
        match remark.kind {
            Kind::LeftOut | Kind::Invalid => blockers.push(remark.clone()),
            Kind::Different | Kind::Dropped => remarks.push(remark.clone()),
        }
    }
    if let Some(http) = &back.http {
        let what = format!("{}: {}", back.head.text, http.text);
        let remark = Remark::left_out(http.place.clone(), &what, "the back end of it speaks HTTP");
        blockers.push(remark.instead("leave it to HAProxy"));
    }
    let serving = match servers::serving(front, back, &mut remarks) {
        Ok(serving) => serving,
        Err(remark) => {
            blockers.push(remark);
            return Err(blockers);
        }
    };
    let checking = match checks::read(back, &serving.servers, &mut remarks) {
        Ok(checking) => checking,
        Err(remark) => {
            blockers.push(remark);
            Checking::default()
        }
    };
    if !blockers.is_empty() {
        return Err(blockers);
    }
    Join {
        front,
        back,
        serving,
        checking,
        requests,
        remarks,
    }
    .mappings(proxies, resolvers)
}

/// Where a front end leads, whoever the client is.
fn back<'p>(front: &'p Proxy, proxies: &'p [Proxy]) -> Result<&'p Proxy, Vec<Remark>> {
    let left_out = |line: &Line, why: &str| Remark::left_out(line.place.clone(), &line.text, why);
    let mut blockers = Vec::new();
    let mut chosen = None;
    for line in &front.uses {
        let rows = front
            .acls
            .condition(line.words.get(2..).unwrap_or_default());
        let holds = |test: &Test| matches!(test, Test::Always(true));
        let fails = |test: &Test| matches!(test, Test::Always(false));
        let always = rows.iter().any(|row| {
            row.iter().all(|term| match term.negated {
                false => term.any.iter().any(holds),
                true => term.any.iter().all(fails),
            })
        });
        if always {
            chosen = Some(line);
            break;
        }
        let words =
            rows.iter()
                .flatten()
                .flat_map(|term| &term.any)
                .filter_map(|test| match test {
                    Test::Other(words) => Some(words.as_str()),
                    _ => None,
                });
        let words: Vec<&str> = words.collect();
        let by_name = words.iter().any(|words| words.contains("ssl_sni"));
        let why = match words.is_empty() {
            _ if by_name => "the target is chosen by the name in TLS",
            true => "the target is chosen by the client's address",
            false => "the target is chosen by what is known of the connection",
        };
        let instead = "leave it to HAProxy, or give each target a port of its own";
        blockers.push(left_out(line, why).instead(instead));
    }
    if !blockers.is_empty() {
        return Err(blockers);
    }
    let Some(line) = chosen.or(front.default_backend.as_ref()) else {
        return Ok(front);
    };
    let name = line.word(1);
    if name.contains("%[") {
        let why = "the target is computed";
        return Err(vec![
            left_out(line, why).instead("write a mapping for each"),
        ]);
    }
    let is_back = |proxy: &&Proxy| proxy.name == name && proxy.kind != SectionKind::Frontend;
    proxies.iter().find(is_back).ok_or_else(|| {
        let remark = Remark::invalid(line.place.clone(), &line.text, "there is no such backend");
        vec![remark.instead("mend it; `haproxy -c` says the same")]
    })
}

/// A front end, its back end and its servers.
struct Join<'p> {
    front: &'p Proxy,
    back: &'p Proxy,
    serving: Serving<'p>,
    checking: Checking,
    requests: Requests,
    remarks: Vec<Remark>,
}

impl<'p> Join<'p> {
    fn left_out(line: &Line, why: impl Into<String>, instead: &str) -> Remark {
        Remark::left_out(line.place.clone(), &line.text, why).instead(instead)
    }

    fn differs(&mut self, line: &Line, why: impl Into<String>, instead: &str) {
        let remark = Remark::different(line.place.clone(), &line.text, why);
        self.remarks.push(remark.instead(instead));
    }

    fn mappings(
        mut self,
        proxies: &[Proxy],
        resolvers: &[&Section],
    ) -> Result<Forwarded, Vec<Remark>> {
        let hosts: Option<Vec<TargetHost>> = self
            .serving
            .servers
            .iter()
            .map(|server| server.host.clone())
            .collect();
        let Some(hosts) = hosts else {
            return Err(Vec::new());
        };
        let mut sources = self
            .serving
            .servers
            .iter()
            .map(|server| self.source(server));
        let source = sources.next().flatten();
        let line = self.serving.servers[0].line.clone();
        if sources.any(|other| other != source) {
            let why = "each server has a source of its own, and a mapping has one";
            return Err(vec![Self::left_out(
                &line,
                why,
                "give each server a port of its own",
            )]);
        }
        if let Some(Source::Address(ip)) = source
            && hosts
                .iter()
                .filter_map(TargetHost::ip)
                .any(|host| ip.is_ipv4() != host.is_ipv4())
        {
            let why = "the source is of another family than the server";
            let instead = "mend it: HAProxy reaches nobody with it";
            return Err(vec![Self::left_out(&line, why, instead)]);
        }
        let places: Vec<_> = hosts.iter().zip(&self.serving.servers).collect();
        for (index, (host, server)) in places.iter().enumerate() {
            let mut before = places[..index].iter();
            if before.any(|(other, known)| other == host && known.port == server.port) {
                let why = "an earlier server is at the same place, and a target is so once";
                let instead = "give one of them its weight and its maxconn together";
                return Err(vec![Self::left_out(&server.line, why, instead)]);
            }
        }
        let groups = self.groups().map_err(|remark| vec![remark])?;
        if self.requests.asks_before_header
            && groups.iter().any(|group| self.accepts(&group.options))
        {
            let line = &self.front.head;
            let why =
                "rules ask for the address of the proxy in front, before its PROXY header is read";
            return Err(vec![Self::left_out(
                line,
                why,
                "ask for it in `expect-proxy layer4 if { src … }` alone",
            )]);
        }
        if groups.len() > 1 && self.front.maxconn.is_some() {
            let (_, line) = self.front.maxconn.clone().expect("it was just there");
            self.differs(
                &line,
                "it becomes several mappings, and each has it by itself",
                "",
            );
        }
        let mut comments = self.front.comments.clone();
        if self.back.head.place != self.front.head.place {
            comments.extend(self.back.comments.iter().cloned());
        }
        comments.extend(self.requests.comments.iter().cloned());
        comments.append(&mut self.checking.comments);
        let mut limits = Vec::new();
        let mut exempt = Vec::new();
        for limit in std::mem::take(&mut self.requests.limits) {
            match limits::set(&limit, self.front, proxies) {
                Ok(set) => {
                    exempt.extend(limit.exempt.iter().map(ToString::to_string));
                    limits.push(set);
                }
                Err(remark) => return Err(vec![remark]),
            }
        }
        let mut shared = self.checking.settings.clone();
        let servers = self.serving.servers.clone();
        let asked = names::set(&mut shared, &servers, resolvers, &mut self.remarks);
        if let Some(Source::Address(ip)) = source
            && hosts.iter().any(|host| host.ip().is_none())
        {
            let family = if ip.is_ipv4() { "ipv4" } else { "ipv6" };
            shared.set("family", Value::text(family), Vec::new());
        }
        let both = self.proxies();
        bandwidth::set(&mut shared, &both, proxies, &mut self.remarks);
        if self.requests.drops(&mut self.remarks) {
            shared.set("on_refuse", Value::text("drop"), Vec::new());
        }
        let mut mappings = Vec::new();
        for (index, group) in groups.into_iter().enumerate() {
            let mut settings = self
                .settings(&group.options)
                .map_err(|remark| vec![remark])?;
            for (key, setting) in shared.iter() {
                settings.set(key, setting.value.clone(), setting.comments.clone());
            }
            if source == Some(Source::Client) {
                names::of_clients(&mut settings, &servers, &group.listens)
                    .map_err(|remark| vec![remark])?;
            }
            mappings.push(Mapping {
                place: self.front.head.place.clone(),
                name: self.front.name.clone(),
                comments: if index == 0 {
                    std::mem::take(&mut comments)
                } else {
                    Vec::new()
                },
                listen: Noted {
                    value: merged(group.listens),
                    comments: group.comments,
                },
                targets: self.targets(&hosts, &group.ports, index == 0),
                settings,
            });
        }
        Ok(Forwarded {
            mappings,
            remarks: self.remarks,
            limits,
            exempt,
            resolvers: asked,
        })
    }

    /// The front end, and the back end if it is another.
    fn proxies(&self) -> Vec<&'p Proxy> {
        match self.back.head.place == self.front.head.place {
            true => vec![self.front],
            false => vec![self.front, self.back],
        }
    }

    fn source(&self, server: &Server) -> Option<Source> {
        let own = server.options.source.clone();
        own.or_else(|| Some(self.back.source.as_ref()?.0.clone()))
    }

    /// The targets of a mapping; comments stand beside the first that has them.
    fn targets(&self, hosts: &[TargetHost], ports: &[u16], is_first: bool) -> Vec<Target> {
        let servers = self.serving.servers.iter();
        let same_header = self.same_header();
        let targets = servers.zip(hosts.iter().zip(ports));
        targets
            .map(|(server, (host, port))| {
                let mut settings = Settings::default();
                let own = &server.options;
                if self.serving.balance.is_some() {
                    if let Some(weight) = own.weight.filter(|weight| *weight != 1) {
                        settings.set("weight", Value::Number(weight.min(256)), Vec::new());
                    }
                    if own.backup {
                        settings.set("backup", Value::Flag(true), Vec::new());
                    }
                    if let (Some(version), false) = (own.send_proxy, same_header) {
                        settings.set("send_proxy", Value::text(version), Vec::new());
                    }
                }
                if let Some(number) = own.maxconn {
                    settings.set("max_sessions", Value::Number(number), Vec::new());
                }
                let comments = match is_first {
                    true => server.line.comments.clone(),
                    false => Vec::new(),
                };
                Target {
                    host: host.clone(),
                    port: *port,
                    comments,
                    settings,
                }
            })
            .collect()
    }

    /// Whether all servers are told the same way who the client is.
    fn same_header(&self) -> bool {
        let mut headers = self
            .serving
            .servers
            .iter()
            .map(|server| server.options.send_proxy);
        let first = headers.next();
        headers.all(|other| Some(other) == first)
    }

    /// Public addresses that lead to the same ports with one policy.
    fn groups(&self) -> Result<Vec<Group>, Remark> {
        let mut groups: Vec<Group> = Vec::new();
        let servers = &self.serving.servers;
        let is_fixed = |server: &&Server| matches!(server.port, Port::Range(..));
        for bind in &self.front.binds {
            let mut comments = bind.line.comments.clone();
            for listen in &bind.listens {
                // Many to one: our own range would lead to as many ports.
                let listens: Vec<Listen> = match servers.iter().any(is_fixed) {
                    true => listen.ports().collect(),
                    false => vec![*listen],
                };
                for listen in listens {
                    let ports = servers
                        .iter()
                        .map(|server| self.port(server, listen, &bind.options));
                    let ports = ports.collect::<Result<Vec<u16>, Remark>>()?;
                    let fits =
                        |group: &&mut Group| group.ports == ports && group.options == bind.options;
                    match groups.iter_mut().find(fits) {
                        Some(group) => {
                            group.listens.push(listen);
                            group.comments.append(&mut comments);
                        }
                        None => groups.push(Group {
                            ports,
                            options: bind.options.clone(),
                            listens: vec![listen],
                            comments: std::mem::take(&mut comments),
                        }),
                    }
                }
            }
        }
        Ok(groups)
    }

    /// The port of a server that the first port of `listen` leads to.
    fn port(&self, server: &Server, listen: Listen, options: &Options) -> Result<u16, Remark> {
        let offset = match server.port {
            Port::Range(port, _) => return Ok(port),
            Port::Missing => 0,
            Port::Offset(offset) => offset,
        };
        if self.accepts(options) {
            let why =
                "the target's port is the one that a PROXY header states, which its sender chooses";
            return Err(Self::left_out(&server.line, why, "give the server a port"));
        }
        let [first, last] = [listen.first, listen.last].map(|port| i32::from(port) + offset);
        match (u16::try_from(first), u16::try_from(last)) {
            (Ok(first @ 1..), Ok(_)) => Ok(first),
            _ => {
                let why = format!("{listen} and {offset} are no ports");
                Err(Self::left_out(
                    &server.line,
                    why,
                    "give the server another port",
                ))
            }
        }
    }

    fn accepts(&self, options: &Options) -> bool {
        options.accept_proxy || !self.requests.accept_proxy.is_empty()
    }

    fn settings(&mut self, options: &Options) -> Result<Settings, Remark> {
        let mut settings = Settings::default();
        self.timeouts(&mut settings);
        let retries = self.back.retries.as_ref();
        let comments = retries.map(|line| line.comments.clone());
        // Three are HAProxy's default.
        let times = match retries.map(|line| line.word(1).parse::<u64>()) {
            Some(Ok(times)) => times,
            _ => 3,
        };
        let times = match times {
            0 => Value::text("off"),
            times => Value::Number(times),
        };
        settings.set("retries", times, comments.unwrap_or_default());
        for key in ["keepalive", "backlog", "new_sessions_per_second", "relay"] {
            let given = self
                .front
                .settings
                .get(key)
                .or_else(|| self.back.settings.get(key));
            if let Some(given) = given {
                settings.set(key, given.value.clone(), given.comments.clone());
            }
        }
        let servers = self.serving.servers.clone();
        let given = options.user_timeout.as_deref();
        let given = given.and_then(|text| super::values::time(text).ok()?.0);
        let of_servers = servers
            .iter()
            .filter_map(|server| server.options.user_timeout);
        if let Some(span) = given.into_iter().chain(of_servers).min() {
            settings.set(
                "user_timeout",
                Value::Text(units::duration(span)),
                Vec::new(),
            );
        }
        if let Some(backlog) = options.backlog {
            settings.set(
                "backlog",
                Value::Number(backlog.clamp(1, 65535)),
                Vec::new(),
            );
        }
        let believed = match options.accept_proxy {
            true => access::everybody().to_vec(),
            false => self.requests.accept_proxy.clone(),
        };
        if !believed.is_empty() {
            let believed = believed.iter().map(ToString::to_string).collect();
            settings.set("accept_proxy", Value::List(believed), Vec::new());
        }
        if let Some(version) = servers[0].options.send_proxy.filter(|_| self.same_header()) {
            settings.set("send_proxy", Value::text(version), Vec::new());
        }
        match rules::only_file(&self.requests.access) {
            Some((key, path)) => {
                settings.set(key, Value::File(path.to_owned()), Vec::new());
                let head = self.front.head.clone();
                let why =
                    format!("{path} is read at the start and at a reload, by our own service");
                self.differs(&head, why, "see that it may read the file");
            }
            None => {
                let lists = rules::allow_and_deny(&self.requests.access);
                access::set(&mut settings, lists);
            }
        }
        let bound = options
            .maxconn
            .map(|number| (number, self.front.head.clone()));
        let most = [self.front.maxconn.clone(), bound];
        if let Some((number, line)) = most.into_iter().flatten().min_by_key(|(number, _)| *number) {
            let comments = match line.place == self.front.head.place {
                true => Vec::new(),
                false => line.comments.clone(),
            };
            settings.set("max_sessions", Value::Number(number), comments);
            let why = format!(
                "client number {} waits to be accepted in HAProxy, and is refused here",
                number + 1
            );
            self.differs(&line, why, "see on_refuse");
        }
        self.queue(&mut settings);
        let comments = self
            .back
            .source
            .as_ref()
            .map(|(_, line)| line.comments.clone());
        let source = self.source(servers[0]);
        let source = source.map(|source| (source, comments.unwrap_or_default()));
        match source {
            Some((Source::Address(ip), comments)) => {
                settings.set("bind", Value::Text(ip.to_string()), comments);
            }
            Some((Source::Client, comments)) => {
                settings.set("transparent", Value::Flag(true), comments);
            }
            None => {}
        }
        if options.transparent {
            settings.set("freebind", Value::Flag(true), Vec::new());
        }
        if let Some(balance) = self.serving.balance {
            settings.set("balance", Value::text(balance), Vec::new());
        }
        Ok(settings)
    }

    /// Clients wait where all servers have as many as they may.
    fn queue(&mut self, settings: &mut Settings) {
        /// HAProxy's queue has no end, and [limits] says how many sessions there may be in any case.
        const MOST: u64 = 1_000_000;
        let servers = self.serving.servers.clone();
        let most = |server: &&Server| server.options.maxconn;
        let Some(served) = servers.iter().map(most).sum::<Option<u64>>() else {
            return;
        };
        let timeout = self.back.timeout("queue").or(self.back.timeout("connect"));
        let Some(timeout) = timeout.cloned() else {
            let line = servers[0].line.clone();
            let why = "without a time clients wait for ever in HAProxy, and are refused here";
            return self.differs(&line, why, "see queue");
        };
        let span = timeout.span.unwrap_or(FOR_EVER);
        let front = self.front.maxconn.as_ref();
        let waiting = front.map_or(MOST, |(most, _)| most.saturating_sub(served));
        let by_source = self.serving.balance == Some("source");
        let of_queue: Option<u64> = servers.iter().map(|server| server.options.maxqueue).sum();
        for server in &servers {
            let Some(maxqueue) = server.options.maxqueue else {
                continue;
            };
            let what = format!("maxqueue {maxqueue}");
            let why = match by_source {
                true => "those of all servers are one queue",
                false => {
                    "HAProxy counts only clients that can have this server alone, and here nobody is bound to one"
                }
            };
            let remark = Remark::different(server.line.place.clone(), &what, why);
            self.remarks.push(remark.instead("see queue"));
        }
        if by_source {
            let line = servers[0].line.clone();
            let why =
                "a client waits for its own server in HAProxy, and gets another that has room here";
            self.differs(&line, why, "");
        }
        let waiting = match of_queue.filter(|_| by_source) {
            Some(most) => most.min(waiting),
            None => waiting,
        };
        if waiting > 0 {
            let span = Value::Text(units::duration(span));
            let queue = vec![("max", Value::Number(waiting)), ("timeout", span)];
            let comments = match timeout.line.word(1) {
                "queue" => timeout.line.comments.clone(),
                _ => Vec::new(),
            };
            settings.set("queue", Value::Table(queue), comments);
        }
    }

    fn timeouts(&mut self, settings: &mut Settings) {
        let span = |timeout: Option<&Timeout>| timeout.and_then(|timeout| timeout.span);
        let (front, back) = (self.front, self.back);
        let set =
            |settings: &mut Settings, key, span: Option<Duration>, from: &[Option<&Timeout>]| {
                let Some(span) = span else { return };
                let mut comments: Vec<String> = Vec::new();
                for comment in from
                    .iter()
                    .flatten()
                    .flat_map(|timeout| &timeout.line.comments)
                {
                    if !comments.contains(comment) {
                        comments.push(comment.clone());
                    }
                }
                settings.set(key, Value::Text(units::duration(span)), comments);
            };
        let connect = back.timeout("connect");
        set(
            settings,
            "connect_timeout",
            Some(span(connect).unwrap_or(FOR_EVER)),
            &[connect],
        );
        let tunnel = back
            .timeout("tunnel")
            .filter(|timeout| timeout.span.is_some());
        let (client, server) = (front.timeout("client"), back.timeout("server"));
        let (idle, from) = match tunnel {
            Some(tunnel) => (tunnel.span, vec![Some(tunnel)]),
            None => {
                let both = [span(client), span(server)];
                (both.into_iter().flatten().min(), vec![client, server])
            }
        };
        set(settings, "idle_timeout", idle, &from);
        let given = |name, proxy: &Proxy| {
            proxy
                .timeout(name)
                .is_some_and(|timeout| timeout.span.is_some())
        };
        let of_server = back
            .timeout("server-fin")
            .filter(|_| given("server-fin", back));
        let of_client = front
            .timeout("client-fin")
            .filter(|_| given("client-fin", front));
        let by_client = of_server.or(tunnel).or(server);
        let by_server = of_client.or(tunnel).or(client);
        let half = span(by_client);
        set(settings, "half_close_timeout", half, &[of_server]);
        let here = [idle, half].into_iter().flatten().min();
        for (timeout, who) in [(by_client, "client"), (by_server, "server")] {
            if span(timeout) == here {
                continue;
            }
            let Some(timeout) = timeout else { continue };
            let Some((there, here)) = timeout.span.zip(here) else {
                continue;
            };
            let (there, here) = (units::duration(there), units::duration(here));
            let why = format!(
                "what the {who} half closed may be silent for {there} in HAProxy, and for {here} here"
            );
            let line = timeout.line.clone();
            self.differs(&line, why, "");
        }
    }
}

/// Public addresses that become one mapping.
struct Group {
    ports: Vec<u16>,
    options: Options,
    listens: Vec<Listen>,
    comments: Vec<String>,
}
