//! [switchboard] as a file has it.

use std::{
    collections::BTreeMap, net::IpAddr, ops::RangeInclusive, path::PathBuf, sync::Arc,
    time::Duration,
};

use toml::de::DeValue;

use crate::{
    config::{
        AutoOr, policy,
        reader::{Entry, Section},
        values::{
            ANY_DURATION, LONGEST, Parsed, Refusal, absolute_path, duration, integer, number,
            or_off, own_listener, prefix, word,
        },
    },
    provider::switchboard::{
        Condition, JobState, PortRanges, PublicHost, Rule, RuleName, Switchboard,
        client::{BaseUrl, UrlError},
        expose::fit_for_any,
        follow::FollowSettings,
        publish::AnnotationKey,
    },
    table::{Origin, Policy, RemovalPolicy},
    units,
};

/// Between two walks, and between two looks.
const PERIOD: RangeInclusive<Duration> = Duration::from_millis(100)..=LONGEST;

const STATES: &[(&str, JobState)] = &[
    ("queued", JobState::Queued),
    ("assigned", JobState::Assigned),
    ("initializing", JobState::Initializing),
    ("ready", JobState::Ready),
    ("terminating", JobState::Terminating),
];

const TOKEN_FILE: &str = "the path of a file with the token";
const PORTS: &str = "a range of ports such as \"40000-49999\", or a list of them";
const HOST: &str = "the host name or address that users connect to";
const EXPOSE: &str = "tables, each headed [[switchboard.expose]]";
const RULE_NAME: &str = "1 to 32 lower-case letters, digits and hyphens";
const ALLOW: &str = "{ allow = [\"fd00::/8\"] } with the prefixes that jobs' addresses are in";
const ANNOTATION: &str = "the key of an annotation, such as \"proxy-endpoint\": 1 to 128 lower-case \
                          letters, digits and any of . _ / -, the first and the last a letter or digit";
const ON_STOP: &[(&str, bool)] = &[("withdraw", true), ("keep", false)];
const HOST_ADDRESS: &str = "the IP address of the jobs on this host, such as \"fd00::14\"";
const HOST_KEY: &str = "a host's name or id of 1 to 256 characters as the key";
const HOST_NAME_AT_MOST: usize = 256;
const SERVICE: &str = "1 to 64 characters";

/// The section; none if it lacks what makes one.
pub(in crate::config) fn read(mut section: Section<'_>, defaults: &Policy) -> Option<Switchboard> {
    let url = section
        .required("url", &UrlError::Malformed.to_string())
        .and_then(|entry| url(&entry));
    let token_file = required(&mut section, "token_file", TOKEN_FILE, absolute_path);
    let public_host = required(&mut section, "public_host", HOST, |value| {
        of_text(value, PublicHost::parse, HOST)
    });
    let ports = section.required("ports", PORTS).and_then(|entry| {
        let ports = ports(&entry)?;
        Some((ports, entry.origin()))
    });
    let allow = targets(&mut section);
    let expose = section
        .required("expose", EXPOSE)
        .and_then(|entry| rules(&entry));
    let mut ca_file = None;
    section.set("ca_file", &mut ca_file, or_off(absolute_path));
    let states = section.entry("states").and_then(|entry| {
        let states = entry.list(word(STATES))?;
        if states.is_empty() {
            entry.refuse("at least one state");
        }
        Some(states)
    });
    let addresses = section
        .entry("addresses")
        .and_then(|entry| addresses(entry, &allow));
    let mut cooldown = Duration::from_secs(600);
    section.set("cooldown", &mut cooldown, |value| {
        or_off(duration(ANY_DURATION))(value).map(Option::unwrap_or_default)
    });
    let mut max_per_job = 8;
    section.set("max_per_job", &mut max_per_job, number(1..=1000));
    let mut max_total = None;
    section.set("max_total", &mut max_total, or_off(number(1..=65535)));
    let mut host_gone = None;
    section.set("host_gone", &mut host_gone, host_gone_after);
    let mut refresh = FollowSettings::REFRESH;
    section.set("refresh", &mut refresh, duration(PERIOD));
    let mut poll = FollowSettings::POLL;
    section.set("poll", &mut poll, duration(PERIOD));
    let interval = FollowSettings::host_interval_of(poll);
    if host_gone.is_some_and(|allowed| allowed < interval)
        && let Some(entry) = section.entry("host_gone")
    {
        let (poll, least) = (units::duration(poll), units::duration(interval));
        entry.contradicts(format!(
            "hosts are looked at every {least}, three times poll ({poll}): allowed is \"keep\" or at \
             least \"{least}\""
        ));
    }
    let mut state_dir = PathBuf::from("/var/lib/tml-proxy");
    section.set("state_dir", &mut state_dir, absolute_path);
    let mut publish = None;
    let published = section.entry("publish");
    if let Some(entry) = &published {
        publish = entry.read(or_off(annotation)).flatten();
    }
    let mut publish_name = AutoOr::Auto;
    section.set("publish_name", &mut publish_name, name);
    let mut withdraw = true;
    section.set("publish_on_stop", &mut withdraw, word(ON_STOP));
    let (mut lookup, mut lookup_origin) = (None, Origin::BuiltIn);
    if let Some(entry) = section.entry("lookup") {
        lookup = entry.read(or_off(own_listener)).flatten();
        lookup_origin = entry.origin();
    }
    // An internal address may be somebody else's a moment later.
    let base = Policy {
        on_remove: RemovalPolicy::Kill,
        on_retarget: RemovalPolicy::Kill,
        ..defaults.clone()
    };
    let policy = policy::read(&mut section, &base);
    check_transparent(&policy, &mut section);
    let policy = Arc::new(policy);
    section.finish();
    let (ports, ports_origin) = ports?;
    let switchboard = Switchboard {
        url: url?,
        token_file: token_file?,
        ca_file,
        expose: expose?,
        states: states.unwrap_or_else(|| vec![JobState::Ready]),
        ports,
        ports_origin,
        public_host: public_host?,
        allow: allow?,
        addresses: addresses.unwrap_or_default(),
        cooldown,
        max_per_job,
        max_total,
        host_gone,
        refresh,
        poll,
        state_dir,
        publish,
        publish_name,
        withdraw,
        lookup,
        lookup_origin,
        policy,
    };
    if let (Some(entry), Some(key), None) =
        (published, &switchboard.publish, switchboard.annotation())
    {
        let longest = AnnotationKey::LONGEST;
        entry.contradicts(format!(
            "\"{key}\" and the name of the proxy (publish_name) have more than {longest} characters together"
        ));
    }
    Some(switchboard)
}

/// The ports of jobs take clients of both families, and a client's address can only be that of a
/// connection to a target of its family.
fn check_transparent(policy: &Policy, section: &mut Section<'_>) {
    let why = match policy.bind {
        _ if !policy.transparent => return,
        Some(bind) => {
            format!("transparent connects from the client's address and bind from {bind}")
        }
        None if policy.accept_proxy.is_empty() => {
            "transparent needs clients of the target's family, and ports of jobs take both"
                .to_owned()
        }
        None => return,
    };
    match section.entry("transparent") {
        Some(entry) => entry.contradicts(why),
        None => section.contradicts("transparent", format!("{why} (true in [defaults])")),
    }
}

fn required<T>(
    section: &mut Section<'_>,
    key: &'static str,
    needed: &str,
    read: impl FnOnce(&DeValue<'_>) -> Parsed<T>,
) -> Option<T> {
    section.required(key, needed)?.read(read)
}

fn of_text<T>(value: &DeValue<'_>, parse: fn(&str) -> Option<T>, allowed: &str) -> Parsed<T> {
    value
        .as_str()
        .and_then(parse)
        .ok_or_else(|| Refusal::new(allowed))
}

fn url(entry: &Entry<'_>) -> Option<BaseUrl> {
    let text = entry.value().as_str().ok_or(UrlError::Malformed);
    match text.and_then(BaseUrl::parse) {
        Ok(url) => Some(url),
        // The value has a secret in it.
        Err(error @ UrlError::UserInfo) => {
            entry.contradicts(error.to_string());
            None
        }
        Err(error) => {
            entry.refuse(error.to_string());
            None
        }
    }
}

fn annotation(value: &DeValue<'_>) -> Parsed<AnnotationKey> {
    of_text(value, AnnotationKey::parse, ANNOTATION)
}

fn name(value: &DeValue<'_>) -> Parsed<AutoOr<Option<AnnotationKey>>> {
    if value.as_str() == Some("auto") {
        return Ok(AutoOr::Auto);
    }
    let named = or_off(annotation)(value).map(AutoOr::Value);
    named.map_err(|refusal| refusal.or_first("\"auto\""))
}

fn host_gone_after(value: &DeValue<'_>) -> Parsed<Option<Duration>> {
    if value.as_str() == Some("keep") {
        return Ok(None);
    }
    duration(ANY_DURATION)(value)
        .map(Some)
        .map_err(|refusal| refusal.or("\"keep\""))
}

fn ports(entry: &Entry<'_>) -> Option<PortRanges> {
    let ranges = match entry.value().is_array() {
        true => entry.list(range)?,
        false => vec![entry.read(range)?],
    };
    let ports = PortRanges::new(ranges);
    if ports.is_none() {
        entry.refuse(PORTS);
    }
    ports
}

fn range(value: &DeValue<'_>) -> Parsed<RangeInclusive<u16>> {
    let port = |text: &str| {
        let digits = text.chars().all(|c| c.is_ascii_digit());
        text.parse::<u16>().ok().filter(|port| digits && *port != 0)
    };
    let range = match value {
        DeValue::Integer(_) => integer(value)
            .and_then(|number| u16::try_from(number).ok())
            .filter(|port| *port != 0)
            .map(|port| port..=port),
        DeValue::String(text) => match text.split_once('-') {
            Some((first, last)) => port(first)
                .zip(port(last))
                .map(|(first, last)| first..=last),
            None => port(text).map(|port| port..=port),
        },
        _ => None,
    };
    range
        .filter(|range| !range.is_empty())
        .ok_or_else(|| Refusal::new(PORTS))
}

fn targets(section: &mut Section<'_>) -> Option<Vec<ipnet::IpNet>> {
    let mut targets = section.required("targets", ALLOW)?.into_section()?;
    let entry = targets.required("allow", "the prefixes that jobs' addresses are in");
    targets.finish();
    let entry = entry?;
    let allow = entry.list(prefix)?;
    if allow.is_empty() {
        entry.refuse("at least one prefix: what a switchboard says is not taken on trust");
    }
    Some(allow)
}

fn addresses(
    entry: Entry<'_>,
    allow: &Option<Vec<ipnet::IpNet>>,
) -> Option<BTreeMap<String, IpAddr>> {
    let mut addresses = BTreeMap::new();
    for (host, entry) in entry.into_section()?.entries() {
        if !(1..=HOST_NAME_AT_MOST).contains(&host.len()) {
            entry.refuse(HOST_KEY);
            continue;
        }
        let Some(address) =
            entry.read(|value| of_text(value, |text| text.parse::<IpAddr>().ok(), HOST_ADDRESS))
        else {
            continue;
        };
        if let Err(reason) = fit_for_any(address) {
            let word = reason.word();
            entry.contradicts(format!("{address} can be no job's ({word})"));
        }
        let allowed = |net: &ipnet::IpNet| net.contains(&address);
        if let Some(allow) = allow
            && !allow.iter().any(allowed)
        {
            entry.contradicts(format!(
                "{address} is in no prefix of switchboard.targets.allow"
            ));
        }
        addresses.insert(host.to_owned(), address);
    }
    Some(addresses)
}

fn rules(entry: &Entry<'_>) -> Option<Vec<Rule>> {
    let items = entry.items(EXPOSE)?;
    if items.is_empty() {
        entry.refuse(format!("at least one of {EXPOSE}"));
    }
    let mut rules: Vec<Rule> = Vec::new();
    for item in items {
        let Some(rule) = rule(item.clone()) else {
            continue;
        };
        if rules.iter().any(|known| known.name == rule.name) {
            item.contradicts(format!("there are two rules called {:?}", rule.name));
        }
        rules.push(rule);
    }
    Some(rules)
}

fn rule(entry: Entry<'_>) -> Option<Rule> {
    let mut section = entry.clone().into_section()?;
    let name = required(&mut section, "name", RULE_NAME, |value| {
        of_text(value, RuleName::parse, RULE_NAME)
    });
    let port = required(
        &mut section,
        "port",
        "the port of the job",
        number(1..=65535),
    );
    let mut word = |key| {
        let entry = section.entry(key)?;
        entry.read(|value| of_text(value, service, SERVICE))
    };
    let (by_service, by_protocol) = (word("service"), word("protocol"));
    section.finish();
    let condition = match (by_service, by_protocol) {
        (Some(_), Some(_)) => {
            entry.contradicts("has both service and protocol: at most one of them may be given");
            return None;
        }
        (Some(service), None) => Condition::Service(service),
        (None, Some(protocol)) => Condition::Protocol(protocol),
        (None, None) => Condition::Always,
    };
    Some(Rule {
        name: name?,
        port: port?,
        condition,
    })
}

fn service(text: &str) -> Option<String> {
    (1..=64)
        .contains(&text.chars().count())
        .then(|| text.to_owned())
}

/// The word for a state, as the file has it.
pub(in crate::config) fn state_word(state: JobState) -> &'static str {
    let word = STATES.iter().find(|(_, known)| *known == state);
    word.map_or("", |(word, _)| word)
}
