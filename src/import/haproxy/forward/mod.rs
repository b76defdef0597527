//! A front end with the back end it leads to becomes mappings.

mod join;
mod settings;

use super::{
    checks::{self, Checking},
    limits::Set,
    proxy::Proxy,
    requests,
    rules::Test,
    sections::{Section, SectionKind},
    servers,
};
use crate::import::{Kind, Remark, model::Mapping};
use join::Join;

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
    let nothing = |why: &str, instead: &str| Err(vec![head.dropped(why).instead(instead)]);
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
    let hosts = serving.servers.iter().map(|server| server.host.clone());
    let Some(hosts) = hosts.collect() else {
        return Err(Vec::new());
    };
    let join = Join {
        front,
        back,
        serving,
        hosts,
        checking,
        requests,
        remarks,
    };
    let forwarded = join.mappings(proxies, resolvers);
    forwarded.map_err(|remark| vec![remark])
}

/// Where a front end leads, whoever the client is.
fn back<'p>(front: &'p Proxy, proxies: &'p [Proxy]) -> Result<&'p Proxy, Vec<Remark>> {
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
        blockers.push(line.left_out(why).instead(instead));
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
        return Err(vec![line.left_out(why).instead("write a mapping for each")]);
    }
    let is_back = |proxy: &&Proxy| proxy.name == name && proxy.kind != SectionKind::Frontend;
    let found = proxies.iter().find(is_back);
    found.ok_or_else(|| vec![line.invalid("there is no such backend")])
}
