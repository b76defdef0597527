//! What a front end and its back end say of a session, as settings of a mapping.

use std::time::Duration;

use super::{
    super::{
        bind::Options,
        proxy::{Proxy, Timeout},
        rules,
        server::{Server, Source},
        values,
    },
    join::Join,
};
use crate::{
    import::{
        Remark, access,
        model::{Settings, Value},
    },
    units,
};

/// Longer than the kernel tries by itself, which is what happens without a timeout.
const FOR_EVER: Duration = Duration::from_secs(600);

impl Join<'_> {
    /// The settings of one of its mappings, but for those that all of them share.
    pub fn settings(&mut self, options: &Options) -> Settings {
        let mut settings = Settings::default();
        self.timeouts(&mut settings);
        self.retries(&mut settings);
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
        let given = given.and_then(|text| values::time(text).ok()?.0);
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
        self.access(&mut settings);
        self.max_sessions(&mut settings, options);
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
        settings
    }

    fn retries(&self, settings: &mut Settings) {
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
    }

    /// Who may connect.
    fn access(&mut self, settings: &mut Settings) {
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
                access::set(settings, lists);
            }
        }
    }

    fn max_sessions(&mut self, settings: &mut Settings, options: &Options) {
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
