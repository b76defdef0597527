//! Whose a port is, whatever becomes of proxies, clocks and commits: model proxies ask the functions of the
//! database in a random order, and after each step nobody may have what another one has open.
//!
//! A few seconds by default, or as many as `TML_PROXY_ALLOCATION_SECONDS` says;
//! `TML_PROXY_ALLOCATION_SEED` repeats a run.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    hash::{BuildHasher, RandomState},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    database::Database,
    harness::{
        figure,
        postgresql::{Client, NEEDS},
        require::require,
    },
};

/// Times are in seconds.
const COOLDOWN: i64 = 60;
const LEASE: i64 = 600;
/// By how much a proxy thinks its lease to be over sooner.
const MARGIN: i64 = 60;
/// How long a port is held for a host.
const HELD: i64 = 30 * 86_400;
const PORTS: u64 = 12;
const OWNERS: u64 = 10;
/// How many ports a process has beforehand.
const RESERVED: usize = 3;

/// Numbers that follow from a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }
}

/// A port of somebody's.
#[derive(Debug, Clone, PartialEq)]
struct Owned {
    owner: String,
    target: String,
    since_ms: i64,
    generation: i64,
}

/// A port that was given to somebody while the database could not be asked.
#[derive(Debug, Clone, PartialEq)]
struct Given {
    owner: String,
    has_ended: bool,
}

/// A process of a proxy.
#[derive(Debug, Clone, Default)]
struct Process {
    name: &'static str,
    instance: String,
    /// Whether it can reach the database.
    is_silent: bool,
    epoch: Option<String>,
    generation: i64,
    map: BTreeMap<u16, Owned>,
    /// What it serves.
    open: BTreeMap<u16, String>,
    applied: i64,
    /// When the last request was sent that was answered.
    heard: Option<i64>,
    term: Option<i64>,
    /// The ports that it has beforehand, with the generation since when, as it knows.
    reserved: BTreeMap<u16, i64>,
    /// Those of them that it has given to somebody, of which the database knows nothing.
    given: BTreeMap<u16, Given>,
    /// Those that it will not use, of which the database knows nothing either.
    unused: BTreeSet<u16>,
}

impl Process {
    fn is_open(&self) -> BTreeMap<u16, String> {
        let map = self.map.iter();
        let open = map.map(|(port, owned)| (*port, owned.owner.clone()));
        let given = self.given.iter().filter(|(_, given)| !given.has_ended);
        let given = given.map(|(port, given)| (*port, given.owner.clone()));
        open.chain(given).collect()
    }

    fn is_expired(&self, now: i64) -> bool {
        self.heard
            .is_some_and(|heard| now >= heard + LEASE - MARGIN)
    }
}

/// The database and everybody who asks it.
struct World<'a> {
    database: &'a Database,
    random: Random,
    processes: Vec<Process>,
    /// The time of everybody but the server.
    now: i64,
    /// What the server's clock is ahead of that, and by how much it has jumped ahead.
    ahead: i64,
    jumped: i64,
    timeline: u32,
    started: u32,
    has_snapshot: bool,
    /// Who had a port last, and when.
    had: BTreeMap<u16, (String, i64)>,
    /// Every term that was given, and to whom.
    terms: BTreeMap<i64, String>,
    /// What the database has of owners that is certain.
    owners: BTreeMap<u16, String>,
    /// What has happened, for whoever has to understand it.
    story: Vec<String>,
}

const NAMES: [&str; 3] = ["us-1", "us-2", "us-3"];
const TABLES: [&str; 4] = ["proxy", "region", "port", "process"];

/// What holds the port of an owner: two hosts, each for some of them.
fn holder(owner: &str) -> Option<String> {
    let number: u64 = owner
        .strip_prefix("job-")?
        .strip_suffix("/ssh")?
        .parse()
        .ok()?;
    (number >= OWNERS / 2).then(|| format!("host/{}/ssh", number % 2))
}

/// Whether a port may be one's that is open for the other.
fn share(one: &str, other: &str) -> bool {
    one == other || holder(one).is_some() && holder(one) == holder(other)
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

impl<'a> World<'a> {
    fn new(database: &'a Database, seed: u64) -> Self {
        database.query(
            "create schema if not exists model;
             create table if not exists model.clock (at timestamptz, timeline text);
             delete from model.clock; insert into model.clock values ('2030-01-01', '0');
             delete from tml_proxy.proxy; delete from tml_proxy.region;
             create or replace function tml_proxy.now() returns timestamptz language sql volatile
             as 'select at from model.clock';
             create or replace function tml_proxy.timeline() returns text language sql volatile
             as 'select timeline from model.clock'",
        );
        for table in TABLES {
            database.query(&format!(
                "create table if not exists model.{table} as table tml_proxy.{table} with no data"
            ));
        }
        Self {
            database,
            random: Random(seed),
            processes: Vec::new(),
            now: 0,
            ahead: 0,
            jumped: 0,
            timeline: 0,
            started: 0,
            has_snapshot: false,
            had: BTreeMap::new(),
            terms: BTreeMap::new(),
            owners: BTreeMap::new(),
            story: Vec::new(),
        }
    }

    fn ask(&self, call: &str) -> Value {
        let text = self.database.query(&format!("select tml_proxy.{call}"));
        serde_json::from_str(&text).expect("JSON")
    }

    fn set_clock(&self) {
        let (at, timeline) = (self.now + self.ahead, self.timeline);
        self.database.query(&format!(
            "update model.clock set at = timestamptz '2030-01-01' + {at} * interval '1 s', \
             timeline = '{timeline}'"
        ));
    }

    fn passes(&mut self, seconds: i64) {
        self.now += seconds;
        self.set_clock();
        for process in &mut self.processes {
            if process.is_expired(self.now) {
                process.open.clear();
                for given in process.given.values_mut() {
                    given.has_ended = true;
                }
            }
        }
    }

    /// A process begins, unless its name is taken by one that is there.
    fn start(&mut self, name: &'static str) {
        if self
            .processes
            .iter()
            .any(|one| one.name == name && !one.is_silent)
        {
            return;
        }
        self.started += 1;
        let number = self.started;
        // Another machine each time, or the same where the process before has certainly ended.
        let was_there = self.processes.iter().any(|one| one.name == name);
        let machine = if was_there { number } else { 0 };
        let process = Process {
            name,
            instance: format!("{name}-{machine}/1/{number}"),
            ..Process::default()
        };
        self.database
            .query("update tml_proxy.proxy set seen = seen - interval '1 min'");
        let (name, instance) = (quoted(process.name), quoted(&process.instance));
        self.ask(&format!("register({name}, 'us', '1', {instance})"));
        self.story.push(format!("{instance} starts"));
        self.processes.push(process);
        self.beat(self.processes.len() - 1);
        // A proxy that only lost commits knew of is not guarded against.
        self.snapshot();
    }

    /// A process ends, with or without having told.
    fn end(&mut self, at: usize, is_told: bool) {
        let count = self.processes.len();
        if is_told {
            self.beat(at);
        }
        if self.processes.len() < count {
            return;
        }
        let process = self.processes.remove(at);
        if is_told && !process.is_silent {
            self.ask(&format!(
                "leave('{}', '{}')",
                process.name, process.instance
            ));
        }
        self.story
            .push(format!("{} ends, told: {is_told}", process.instance));
        self.forget();
    }

    fn call(&self, at: usize, function: &str, values: &str) -> Value {
        let Process { name, instance, .. } = &self.processes[at];
        self.ask(&format!("{function}('{name}', '{instance}', {values})"))
    }

    fn epoch(&self, at: usize) -> String {
        let epoch = self.processes[at].epoch.as_deref();
        epoch.map_or("null".to_owned(), quoted)
    }

    fn beat(&mut self, at: usize) {
        if self.processes[at].is_silent {
            return;
        }
        let sent = self.now;
        let Process {
            generation,
            applied,
            ..
        } = self.processes[at];
        let (lease, follows) = (LEASE * 1000, !self.random.one_in(10));
        let epoch = self.epoch(at);
        let values = format!("{lease}, {epoch}, {generation}, {applied}, {follows}, null");
        let answer = self.call(at, "region_beat", &values);
        if answer["standing"] == "unknown" {
            // Lost commits: it registers again.
            let Process { name, instance, .. } = &self.processes[at];
            self.ask(&format!("register('{name}', 'us', '1', '{instance}')"));
            return;
        }
        if answer["standing"] != "member" {
            self.story
                .push(format!("{} is out: {answer}", self.processes[at].instance));
            self.processes.remove(at);
            return;
        }
        let instance = self.processes[at].instance.clone();
        if let Some(term) = answer["term"].as_i64() {
            let holder = self.terms.entry(term).or_insert_with(|| instance.clone());
            assert_eq!(*holder, instance, "term {term}");
        }
        // Now and then the answer is lost.
        if self.random.one_in(20) {
            return;
        }
        let now = self.now;
        let told = |text: &Value| text.as_str().map(str::to_owned);
        let process = &mut self.processes[at];
        let was_expired = process.is_expired(now);
        process.heard = Some(sent);
        process.term = answer["term"].as_i64();
        if answer["is_asserted"] == false {
            self.assert(at, told(&answer["epoch"]).expect("an epoch"), was_expired);
        } else if process.epoch != told(&answer["epoch"]) {
            process.epoch = told(&answer["epoch"]);
            process.generation = 0;
            process.map.clear();
            process.reserved.clear();
            process.applied = 0;
            self.reserve(at);
            self.read(at);
        } else {
            self.reserve(at);
            if was_expired || self.random.one_in(2) {
                self.read(at);
            }
        }
    }

    /// Tells what has become of ports that a process had beforehand, and has it get more.
    fn reserve(&mut self, at: usize) {
        let process = &self.processes[at];
        let given = process.given.iter().map(|(port, given)| {
            let target = (!given.has_ended).then_some("192.0.2.1:22");
            json!({"port": port, "owner": given.owner, "holder": holder(&given.owner), "target": target,
                "since_ms": self.now * 1000})
        });
        let unused = process.unused.iter().map(|port| json!({"port": port}));
        let used: Value = given.chain(unused).collect();
        if used == json!([]) && process.reserved.len() >= RESERVED {
            return;
        }
        let epoch = self.epoch(at);
        let last = 40_000 + PORTS;
        let values = format!("{epoch}, '{used}', '[[40001, {last}]]', {RESERVED}");
        let before = self.certain();
        let answer = self.call(at, "region_reserve", &values);
        let process = &mut self.processes[at];
        self.story
            .push(format!("{} has used {used}: {answer}", process.instance));
        assert_ne!(answer["is_behind"], true, "{answer}");
        // Now and then the answer is lost.
        if self.random.one_in(10) {
            return;
        }
        let refused: BTreeSet<_> = (answer["refused"].as_array().expect("a list").iter())
            .map(|one| one["port"].as_u64().expect("a port") as u16)
            .collect();
        for port in process.given.keys().chain(&process.unused) {
            process.reserved.remove(port);
        }
        process.unused.clear();
        let given = std::mem::take(&mut process.given);
        self.owners = self.certain();
        for (port, owner) in before {
            assert_eq!(self.owners.get(&port), Some(&owner), "{port} was certain");
        }
        for (port, given) in given.iter().filter(|(_, given)| !given.has_ended) {
            let is_kept = self.owners.get(port) == Some(&given.owner);
            // What the database has lost since it was told is for who asserts it.
            assert!(!is_kept || !refused.contains(port), "{port}: {given:?}");
        }
    }

    /// Somebody comes while a process cannot ask, and is served by it.
    fn give(&mut self, at: usize) {
        let owner = format!("job-{}/ssh", self.random.below(OWNERS));
        let now = self.now;
        let process = &mut self.processes[at];
        if !process.is_silent || process.heard.is_none() || process.is_expired(now) {
            return;
        }
        let is_kept =
            |port: &u16| process.given.contains_key(port) || process.unused.contains(port);
        let free = process.reserved.keys().find(|port| !is_kept(port));
        let (Some(port), false) = (
            free.copied(),
            process.is_open().values().any(|served| *served == owner),
        ) else {
            return;
        };
        self.story
            .push(format!("{} gives {port} to {owner}", process.instance));
        process.open.insert(port, owner.clone());
        let has_ended = false;
        process.given.insert(port, Given { owner, has_ended });
    }

    /// One that was served so ends.
    fn end_given(&mut self, at: usize) {
        let process = &mut self.processes[at];
        let count = process.given.len() as u64;
        let nth = self.random.below(count.max(1)) as usize;
        if let Some((port, given)) = process.given.iter_mut().nth(nth) {
            given.has_ended = true;
            process.open.remove(port);
        }
    }

    /// A process has a port beforehand that it does not need.
    fn leave_unused(&mut self, at: usize) {
        let process = &mut self.processes[at];
        let is_given = |port: &&u16| process.given.contains_key(port);
        let free = process.reserved.keys().find(|port| !is_given(port));
        process.unused.extend(free.copied());
    }

    /// Tells what a process serves, and reads everything anew.
    fn assert(&mut self, at: usize, epoch: String, is_expired: bool) {
        let process = &self.processes[at];
        let knows = process.generation;
        let owned = process.map.iter().map(|(port, owned)| {
            json!({"port": port, "owner": owned.owner, "holder": holder(&owned.owner), "target": owned.target,
                "since_ms": owned.since_ms, "generation": owned.generation})
        });
        let reserved = process.reserved.iter();
        let reserved =
            reserved.map(|(port, generation)| json!({"port": port, "generation": generation}));
        let entries = owned.chain(reserved).filter(|_| !is_expired);
        let entries: Vec<_> = entries.collect();
        let before = self.certain();
        let entries = Value::from(entries);
        let values = format!("'{epoch}', {knows}, '{entries}'");
        let answer = self.call(at, "region_assert", &values);
        self.story.push(format!(
            "{} asserts {entries}: {answer}",
            self.processes[at].instance
        ));
        assert_ne!(answer["is_behind"], true, "{answer}");
        let lost: BTreeSet<_> = (answer["refused"].as_array().expect("a list").iter())
            .map(|one| one["port"].as_u64().expect("a port") as u16)
            .collect();
        self.owners = self.certain();
        let instance = &self.processes[at].instance;
        let reserved = self.rows("reserved_instance", "true");
        for entry in entries.as_array().expect("a list") {
            let port = entry["port"].as_u64().expect("a port") as u16;
            let owner = self.owners.get(&port);
            let is_kept = match entry["owner"].as_str() {
                Some(asserted) => owner.is_some_and(|owner| asserted == *owner),
                None => reserved.get(&port) == Some(instance),
            };
            assert!(is_kept != lost.contains(&port), "{port}: {owner:?}");
        }
        for (port, owner) in before {
            assert_eq!(self.owners.get(&port), Some(&owner), "{port} was certain");
        }
        let process = &mut self.processes[at];
        process.epoch = Some(epoch);
        process.generation = 0;
        process.map.clear();
        process.reserved.clear();
        process.applied = 0;
        self.reserve(at);
        self.read(at);
    }

    fn read(&mut self, at: usize) {
        // What it has given away it tells first.
        if !self.processes[at].is_silent && self.processes[at].given.is_empty() {
            let since = self.processes[at].generation.to_string();
            let answer = self.call(at, "region_map", &since);
            self.take(at, &answer);
        }
    }

    fn take(&mut self, at: usize, answer: &Value) {
        let process = &mut self.processes[at];
        // Of another epoch, nothing is taken before it was asserted.
        if answer["standing"] != "member" || answer["epoch"].as_str() != process.epoch.as_deref() {
            return;
        }
        process.generation = answer["generation"].as_i64().expect("a number");
        for row in answer["rows"].as_array().expect("a list") {
            let port = row["port"].as_u64().expect("a port") as u16;
            if row["reserved"] == "own" {
                let since = row["generation"].as_i64().expect("a number");
                process.reserved.insert(port, since);
            } else {
                process.reserved.remove(&port);
            }
            match row["owner"].as_str() {
                None => _ = process.map.remove(&port),
                Some(owner) => {
                    assert_eq!(
                        row["holder"].as_str().map(str::to_owned),
                        holder(owner),
                        "{row}"
                    );
                    let owned = Owned {
                        owner: owner.to_owned(),
                        target: row["target"].as_str().expect("a target").to_owned(),
                        since_ms: row["since_ms"].as_i64().expect("a time"),
                        generation: row["generation"].as_i64().expect("a number"),
                    };
                    process.map.insert(port, owned);
                }
            }
        }
    }

    /// Puts into force what a process knows.
    fn apply(&mut self, at: usize) {
        let now = self.now;
        let process = &mut self.processes[at];
        if process.heard.is_some() && !process.is_expired(now) {
            process.open = process.is_open();
            process.applied = process.generation;
        }
    }

    /// Whoever thinks that it leads writes something, sensible or not.
    fn write(&mut self, at: usize) {
        let Some(term) = self.processes[at]
            .term
            .filter(|_| !self.processes[at].is_silent && self.processes[at].given.is_empty())
        else {
            return;
        };
        let mut changes = Vec::new();
        let mut given_back = BTreeSet::new();
        for _ in 0..=self.random.below(4) {
            let port = 40_001 + self.random.below(PORTS);
            let owner = format!("job-{}/ssh", self.random.below(OWNERS));
            let host = self.random.below(3);
            let known = self.processes[at].map.get(&(port as u16));
            changes.push(match (self.random.below(3), known) {
                (0, Some(known)) => {
                    given_back.insert((port as u16, known.owner.clone()));
                    json!({"port": port, "owner": known.owner})
                }
                (1, Some(known)) => {
                    json!({"port": port, "owner": known.owner, "holder": holder(&known.owner), "target": format!("192.0.2.{host}:22")})
                }
                _ => json!({"port": port, "owner": owner, "holder": holder(&owner), "target": format!("192.0.2.{host}:22")}),
            });
        }
        let (epoch, since) = (self.epoch(at), self.processes[at].generation);
        let changes = Value::from(changes);
        let cooldown = COOLDOWN * 1000;
        let values = format!("{epoch}, {since}, {term}, {cooldown}, null, '{changes}'");
        let leads = self.leads(at);
        self.owners = self.certain();
        let answer = self.call(at, "region_write", &values);
        self.story.push(format!(
            "{} writes {changes}: {answer}",
            self.processes[at].instance
        ));
        let after = self.certain();
        if answer["standing"] != "member" {
            assert_eq!(after, self.owners, "it is no member");
            self.processes.remove(at);
            return;
        }
        assert!(
            leads || answer["is_deposed"] == true,
            "it does not lead: {answer}"
        );
        for (port, owner) in &self.owners {
            let is_given_back = given_back.contains(&(*port, owner.clone()));
            assert!(
                is_given_back || after.get(port) == Some(owner),
                "{port} was {owner}'s"
            );
        }
        assert!(
            answer["is_deposed"] != true || after == self.owners,
            "a deposed one has written"
        );
        self.owners = after;
        if answer["is_deposed"] == true {
            self.processes[at].term = None;
        } else if !self.random.one_in(10) {
            self.take(at, &answer);
        }
    }

    /// Whether the database has it as the leader with the term that it knows.
    fn leads(&self, at: usize) -> bool {
        let Process { instance, term, .. } = &self.processes[at];
        let term = term.unwrap_or(0);
        let query = format!(
            "select count(*) from tml_proxy.region where leader_instance = '{instance}' and term = {term}"
        );
        self.database.query(&query) == "1"
    }

    fn block(&mut self, at: usize) {
        let process = &self.processes[at];
        let count = process.map.len() as u64;
        if process.is_silent || count == 0 {
            return;
        }
        let nth = self.random.below(count) as usize;
        let process = &self.processes[at];
        let Some((port, owned)) = process.map.iter().nth(nth) else {
            return;
        };
        let (port, generation) = (*port, owned.generation);
        let epoch = self.epoch(at);
        self.call(
            at,
            "region_block",
            &format!("{epoch}, {port}, {generation}"),
        );
        self.story.push(format!("{port} is blocked"));
        self.owners = self.certain();
    }

    fn snapshot(&mut self) {
        let copies = TABLES.map(|table| {
            format!("delete from model.{table}; insert into model.{table} table tml_proxy.{table};")
        });
        self.database.query(&copies.concat());
        self.has_snapshot = true;
    }

    /// The last commits are lost, and another server with another clock goes on.
    fn fail_over(&mut self) {
        if !self.has_snapshot {
            return;
        }
        self.timeline += 1;
        self.ahead += self.random.below(200) as i64 - 100;
        self.restore();
        self.story.push("failover".to_owned());
    }

    /// The database is what it was at the last snapshot.
    fn restore(&mut self) {
        let copies = TABLES
            .map(|table| format!("insert into tml_proxy.{table} select * from model.{table};"));
        self.database.query(&format!(
            "delete from tml_proxy.proxy; delete from tml_proxy.region;
             {}",
            copies.concat()
        ));
        self.set_clock();
        self.forget();
        self.owners = BTreeMap::new();
    }

    /// What lost commits said and nobody is left to tell of was never so.
    fn forget(&mut self) {
        let told = self.rows("coalesce(owner, left_by)", "true");
        let rests = self.rows("coalesce(reserved_instance, released::text)", "true");
        // One that closes everything has closed it long ago, and tells of nothing.
        let processes = self.processes.iter();
        let processes: Vec<_> = processes.filter(|one| !one.is_expired(self.now)).collect();
        self.had.retain(|port, (owner, _)| {
            let is_it = |known: &Owned| known.owner == *owner;
            told.get(port) == Some(owner)
                || rests.contains_key(port)
                || processes.iter().any(|one| {
                    one.map.get(port).is_some_and(is_it) || one.reserved.contains_key(port)
                })
        });
    }

    /// The owners of ports of which the database is certain.
    fn certain(&self) -> BTreeMap<u16, String> {
        self.rows("owner", "p.generation > lost and r.timeline = c.timeline")
    }

    /// Something about each port where it is not null.
    fn rows(&self, what: &str, condition: &str) -> BTreeMap<u16, String> {
        let rows = self.database.query(&format!(
            "select coalesce(jsonb_object_agg(port, {what}), '{{}}') from tml_proxy.port p
             join tml_proxy.region r on r.name = p.region, model.clock c
             where {what} is not null and {condition}"
        ));
        let rows: BTreeMap<String, String> = serde_json::from_str(&rows).expect("JSON");
        let port = |port: String| port.parse().expect("a port");
        rows.into_iter()
            .map(|(of, value)| (port(of), value))
            .collect()
    }

    fn check(&mut self) {
        let certain = self.certain();
        let served = self.processes.iter().flat_map(|one| &one.open);
        let mut whose: BTreeMap<u16, &String> = BTreeMap::new();
        for (port, owner) in served.chain(&certain) {
            let first = whose.entry(*port).or_insert(owner);
            assert!(
                share(first, owner),
                "two have port {port}: {first}, {owner}"
            );
        }
        let given = self.processes.iter().flat_map(|one| {
            let is_open = |(port, _): &(&u16, &Given)| one.open.contains_key(port);
            one.given.iter().filter(is_open)
        });
        let given = given.map(|(port, given)| (*port, given.owner.clone()));
        let given: BTreeMap<_, _> = given.collect();
        for (port, owner) in certain.iter().chain(&given) {
            if let Some((before, at)) = self.had.get(port)
                && !share(before, owner)
            {
                let rested = self.now - at;
                assert!(
                    rested >= COOLDOWN - self.jumped,
                    "{port} has rested for {rested} s"
                );
            }
        }
        for (port, owner) in certain.iter().chain(&given) {
            self.had.insert(*port, (owner.clone(), self.now));
        }
        self.owners = certain;
    }

    fn step(&mut self) {
        let what = self.random.below(100);
        let count = self.processes.len() as u64;
        let at = self.random.below(count.max(1)) as usize;
        match what {
            0..6 => {
                let name = NAMES[self.random.below(3) as usize];
                self.start(name);
            }
            6..8 => self.snapshot(),
            8..10 => self.fail_over(),
            10..12 => {
                let jump = self.random.below(100) as i64 - 98;
                self.jumped += jump.max(0);
                self.ahead += jump;
                self.set_clock();
            }
            12..22 => {
                let seconds = self.random.below(COOLDOWN as u64) as i64;
                self.passes(seconds);
            }
            22 if self.random.one_in(3) => self.passes(HELD),
            22 => self.passes(LEASE / 2),
            _ if count == 0 => {}
            23..25 => {
                let is_told = self.random.one_in(2);
                self.end(at, is_told);
            }
            25..28 => self.processes[at].is_silent = true,
            28..34 => self.processes[at].is_silent = false,
            34..38 => self.give(at),
            38 => self.end_given(at),
            39 => self.leave_unused(at),
            40..58 => self.beat(at),
            58..75 => self.apply(at),
            75..78 => self.block(at),
            78 => {
                let name = self.processes[at].name;
                // Whoever removes it knows that it has ended.
                self.database.query(&format!(
                    "select tml_proxy.remove('{name}'); select tml_proxy.restore('{name}')"
                ));
                self.processes.retain(|one| one.name != name);
                self.had.clear();
                self.snapshot();
            }
            _ => {
                if !self.random.one_in(5) {
                    self.beat(at);
                }
                // It may have been told to go.
                if at < self.processes.len() {
                    self.write(at);
                }
            }
        }
        self.check();
    }

    /// Everybody who can be reached tells that it is there, and puts into force what it reads.
    fn all_beat(&mut self) {
        for at in 0..self.processes.len() {
            self.beat(at);
            self.read(at);
            self.apply(at);
        }
    }

    /// The same while time passes.
    fn goes_on(&mut self, seconds: i64) {
        for _ in 0..seconds / 5 {
            self.passes(5);
            self.all_beat();
        }
    }

    /// The first one, which leads, changes whose a port is; why not, if it is refused.
    fn leader_writes(&mut self, change: &Value) -> Option<String> {
        loop {
            self.all_beat();
            let Some(term) = self.processes[0].term else {
                continue;
            };
            let (epoch, cooldown) = (self.epoch(0), COOLDOWN * 1000);
            let values = format!("{epoch}, 0, {term}, {cooldown}, null, '[{change}]'");
            let answer = self.call(0, "region_write", &values);
            if answer["is_deposed"] != true {
                break answer["refused"][0]["why"].as_str().map(str::to_owned);
            }
            self.processes[0].term = None;
        }
    }

    /// The same to give a port to somebody.
    fn wants(&mut self, port: u16, owner: &str) -> Option<String> {
        let holder = holder(owner);
        self.leader_writes(
            &json!({"port": port, "owner": owner, "holder": holder, "target": "192.0.2.1:22"}),
        )
    }

    /// Somebody gets a port that a process has beforehand, and the database knows afterwards; which it was.
    fn is_told_of(&mut self, at: usize, owner: &str) -> u16 {
        let process = &mut self.processes[at];
        let port = *process.reserved.keys().next().expect("one");
        let (owner, has_ended) = (owner.to_owned(), false);
        process.open.insert(port, owner.clone());
        process.given.insert(port, Given { owner, has_ended });
        while !self.processes[at].given.is_empty() {
            self.beat(at);
        }
        self.all_beat();
        port
    }

    /// Everybody can be reached again, and nothing else happens.
    fn converges(&mut self) {
        for name in NAMES {
            self.start(name);
        }
        let mut rounds = 0;
        loop {
            // Ghosts of a name that another has end with their lease.
            let seconds = if rounds < 5 { 2 } else { COOLDOWN * 2 };
            self.passes(seconds);
            for at in (0..self.processes.len()).rev() {
                self.processes[at].is_silent = false;
                self.beat(at);
            }
            for at in 0..self.processes.len() {
                self.read(at);
                self.apply(at);
            }
            self.check();
            let waiting = self.database.query(
                "select count(*) from tml_proxy.region r left join tml_proxy.port p on r.name = p.region
                 where released is not null and holder is null or not tml_proxy.region_is_settled(r)",
            );
            let owners = &self.owners;
            if waiting == "0" && self.processes.iter().all(|one| one.open == *owners) {
                break;
            }
            rounds += 1;
            assert!(
                rounds < 50,
                "{waiting} wait, {owners:?}: {:?}",
                self.processes
            );
        }
        // And whoever leads can give a port to somebody new.
        let mut tries = 0;
        loop {
            self.passes(2);
            self.beat(0);
            if let Some(term) = self.processes.first().and_then(|one| one.term) {
                let (epoch, since) = (self.epoch(0), self.processes[0].generation);
                let change =
                    json!([{"port": 40_100, "owner": "new/ssh", "target": "192.0.2.1:22"}]);
                let values = format!("{epoch}, {since}, {term}, 1000, null, '{change}'");
                let answer = self.call(0, "region_write", &values);
                if answer["is_deposed"] != true {
                    assert_eq!(answer["refused"], json!([]), "{answer}");
                    break;
                }
            }
            self.processes.swap(0, tries % NAMES.len());
            tries += 1;
            assert!(tries < 50, "nobody leads");
        }
    }
}

/// What a host holds is its next job's at once, whoever has it open yet, and nobody else's for a month.
#[test]
fn the_port_of_a_host_goes_to_its_next_job_and_to_others_after_a_month() {
    if !require(&NEEDS) {
        return;
    }
    let database = Database::start();
    let mut world = World::new(&database, 1);
    world.start("us-1");
    let write = |world: &mut World<'_>, owner: &str, is_there: bool| {
        world.random = Random(1);
        while world.processes[0].term.is_none() {
            world.beat(0);
        }
        let (epoch, term) = (world.epoch(0), world.processes[0].term.expect("it leads"));
        let change = match is_there {
            true => {
                json!([{"port": 40_001, "owner": owner, "holder": holder(owner), "target": "192.0.2.1:22"}])
            }
            false => json!([{"port": 40_001, "owner": owner}]),
        };
        let values = format!("{epoch}, 0, {term}, 1000, null, '{change}'");
        let answer = world.call(0, "region_write", &values);
        answer["refused"][0]["why"].as_str().map(str::to_owned)
    };
    assert_eq!(write(&mut world, "job-5/ssh", true), None);
    assert_eq!(
        write(&mut world, "job-7/ssh", true).as_deref(),
        Some("taken")
    );
    assert_eq!(write(&mut world, "job-5/ssh", false), None);
    // Nobody has confirmed anything.
    assert_eq!(write(&mut world, "job-7/ssh", true), None);
    assert_eq!(write(&mut world, "job-7/ssh", false), None);
    for (seconds, refused) in [(0, true), (3600, true), (HELD, false)] {
        world.passes(seconds);
        world.processes[0].term = None;
        world.beat(0);
        world.read(0);
        world.apply(0);
        world.beat(0);
        for owner in ["job-1/ssh", "job-6/ssh"] {
            let why = write(&mut world, owner, true);
            assert_eq!(why.is_some(), refused, "{owner} after {seconds} s: {why:?}");
            if why.is_none() {
                return;
            }
        }
    }
}

/// Three processes with ports beforehand, of which the first leads.
fn with_reserved(database: &Database) -> World<'_> {
    let mut world = World::new(database, 1);
    for name in NAMES {
        world.start(name);
    }
    let is_ready = |world: &World<'_>| {
        let mut processes = world.processes.iter();
        let has_all = |one: &Process| one.reserved.len() == RESERVED && one.applied > 0;
        world.processes[0].term.is_some() && processes.all(has_all)
    };
    while !is_ready(&world) {
        world.passes(1);
        world.all_beat();
    }
    world
}

/// The first to tell has it for the job, everywhere; what the others gave to it rests.
#[test]
fn a_job_that_several_gave_a_port_while_they_were_cut_off_has_one_of_them_afterwards() {
    if !require(&NEEDS) {
        return;
    }
    let database = Database::start();
    let mut world = with_reserved(&database);
    let owner = "job-0/ssh";
    let mut ports = Vec::new();
    for process in &mut world.processes {
        process.is_silent = true;
        let port = *process.reserved.keys().next().expect("one");
        let (owner, has_ended) = (owner.to_owned(), false);
        process.open.insert(port, owner.clone());
        process.given.insert(port, Given { owner, has_ended });
        ports.push(port);
    }
    world.check();
    let ports_of = |world: &World<'_>| {
        let rows = world.rows("owner", "true").into_iter();
        let rows = rows.filter(|(_, known)| known == owner);
        rows.map(|(port, _)| port).collect::<Vec<_>>()
    };
    for at in [1, 0, 2] {
        world.processes[at].is_silent = false;
        while !world.processes[at].given.is_empty() {
            world.beat(at);
        }
        assert_eq!(ports_of(&world), [ports[1]]);
        world.read(at);
        world.apply(at);
        world.check();
    }
    let mut lost = vec![ports[0], ports[2]];
    lost.sort_unstable();
    let rest = world.rows("released::text", "true");
    assert_eq!(rest.into_keys().collect::<Vec<_>>(), lost);
    world.converges();
}

/// What it got meanwhile is not what its job has left.
#[test]
fn a_board_with_a_port_goes_back_to_it_after_its_job_had_another_one_in_an_outage() {
    if !require(&NEEDS) {
        return;
    }
    let database = Database::start();
    let mut world = with_reserved(&database);
    let (own, [before, next]) = (40_001, ["job-5/ssh", "job-7/ssh"]);
    assert_eq!(world.wants(own, before), None);
    let ends = json!({"port": own, "owner": before});
    assert_eq!(world.leader_writes(&ends), None);
    let other = world.is_told_of(1, next);
    assert_eq!(world.wants(other, next).as_deref(), Some("cooling"));
    assert_eq!(world.wants(own, next), None);
    world.goes_on(COOLDOWN + 10);
    assert_eq!(
        world.rows("owner", "true").get(&own),
        Some(&next.to_owned())
    );
    assert!(world.rows("released::text", "true").is_empty());
    world.converges();
}

/// What the manual has an operator do.
#[test]
fn after_an_older_backup_was_restored_no_job_gets_the_port_of_one_that_a_proxy_still_serves() {
    if !require(&NEEDS) {
        return;
    }
    let database = Database::start();
    let mut world = with_reserved(&database);
    world.snapshot();
    let port = 40_001;
    assert_eq!(world.wants(port, "job-0/ssh"), None);
    world.all_beat();
    world.all_beat();
    assert!(
        world
            .processes
            .iter()
            .all(|one| one.open.contains_key(&port))
    );
    for process in &mut world.processes[1..] {
        process.is_silent = true;
    }
    // The first to reach it knows nothing.
    world.end(0, false);
    world.restore();
    database.query("update tml_proxy.region set timeline = ''");
    world.start("us-1");
    world.processes.rotate_right(1);
    assert_eq!(world.wants(port, "job-1/ssh").as_deref(), Some("unsettled"));
    world.check();
    for process in &mut world.processes {
        process.is_silent = false;
    }
    while !world.owners.contains_key(&port) {
        world.all_beat();
    }
    assert_eq!(world.wants(port, "job-1/ssh").as_deref(), Some("taken"));
    world.converges();
}

/// As one that jobs had from the region.
#[test]
fn a_reserved_port_that_one_proxy_cannot_bind_is_left_alone_by_all() {
    if !require(&NEEDS) {
        return;
    }
    let database = Database::start();
    let mut world = with_reserved(&database);
    let port = *world.processes[1].reserved.keys().next().expect("one");
    let used = json!([{"port": port, "owner": "job-0/ssh", "is_blocked": true}]);
    let epoch = world.epoch(1);
    let values = format!("{epoch}, '{used}', '[]', 0");
    let answer = world.call(1, "region_reserve", &values);
    assert_eq!(answer["refused"], json!([]), "{answer}");
    for owner in ["job-0/ssh", "job-1/ssh"] {
        assert_eq!(world.wants(port, owner).as_deref(), Some("blocked"));
    }
    world.goes_on(COOLDOWN * 2);
    assert_eq!(world.wants(port, "job-1/ssh").as_deref(), Some("blocked"));
    assert!(!world.rows("reserved_by", "true").contains_key(&port));
    world.goes_on(600);
    let why = world.wants(port, "job-1/ssh");
    assert_ne!(why.as_deref(), Some("blocked"));
}

/// Whoever had it may have given it to a job, of which nobody was told.
#[test]
fn what_a_proxy_had_beforehand_rests_once_it_is_gone_and_is_nobodys_until_then() {
    if !require(&NEEDS) {
        return;
    }
    let database = Database::start();
    for how in ["crashes", "is removed", "is silent"] {
        let mut world = with_reserved(&database);
        world.processes[1].is_silent = true;
        while world.processes[1].given.is_empty() {
            world.give(1);
        }
        world.check();
        let port = *world.processes[1].given.keys().next().expect("one");
        let wants = |world: &mut World<'_>| world.wants(port, "next/ssh");
        assert_eq!(wants(&mut world).as_deref(), Some("reserved"), "{how}");
        match how {
            "crashes" => {
                // Started again on the same machine.
                world.end(1, false);
                world.start("us-2");
            }
            "is removed" => {
                let sql = "select tml_proxy.remove('us-2')";
                world.database.query(sql);
                world.processes.remove(1);
            }
            _ => world.goes_on(LEASE),
        }
        assert_eq!(wants(&mut world).as_deref(), Some("cooling"), "{how}");
        world.goes_on(COOLDOWN - 10);
        assert_eq!(wants(&mut world).as_deref(), Some("cooling"), "{how}");
        world.goes_on(20);
        // Another one may have it beforehand by now.
        let why = wants(&mut world);
        assert_ne!(why.as_deref(), Some("cooling"), "{how}");
    }
}

fn variable(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().expect("a number"))
}

#[test]
fn a_port_never_has_two_owners_whatever_happens() {
    if !require(&NEEDS) {
        return;
    }
    let database = Database::start();
    let seconds = variable("TML_PROXY_ALLOCATION_SECONDS").unwrap_or(4);
    let given = variable("TML_PROXY_ALLOCATION_SEED");
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut seed = given.unwrap_or_else(|| RandomState::new().hash_one(0));
    let (mut steps, mut stories) = (0_u32, 0_u32);
    loop {
        let story = format!("TML_PROXY_ALLOCATION_SEED={seed}");
        let mut world = World::new(&database, seed);
        let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..200 {
                world.step();
                steps += 1;
            }
            world.converges();
        }));
        if let Err(panic) = told {
            let from = world.story.len().saturating_sub(60);
            println!("{}\nto repeat it: {story}", world.story[from..].join("\n"));
            std::panic::resume_unwind(panic);
        }
        stories += 1;
        if given.is_some() || Instant::now() >= until {
            break;
        }
        seed = seed.wrapping_add(1);
    }
    println!("{steps} steps of {stories} stories, the last with TML_PROXY_ALLOCATION_SEED={seed}");
}

/// What four sessions ask for at a time, in batches, until all ports are given away.
#[test]
fn no_port_is_given_to_two_who_ask_at_once() {
    const SESSIONS: usize = 4;
    const BATCH: usize = 50;
    if !require(&NEEDS) {
        return;
    }
    let database = Database::start();
    database.query("select tml_proxy.register('us-1', 'us', '1', 'x')");
    database.query("select tml_proxy.region_beat('us-1', 'x', 60000, null, 0, 0, true, null)");
    let each = variable("TML_PROXY_ALLOCATION_PORTS").unwrap_or(1000) as usize / SESSIONS;
    let addr = database.server_addr();
    let began = Instant::now();
    let refused: usize = thread::scope(|scope| {
        let sessions: Vec<_> = (0..SESSIONS)
            .map(|session| {
                let name = &database.name;
                scope.spawn(move || {
                    let mut client = Client::connect_to(addr, name).expect("the server is there");
                    let mut refused = 0;
                    let mut wanted: Vec<_> = (0..each).map(|number| (number, number)).collect();
                    while !wanted.is_empty() {
                        let batch: Vec<_> = wanted.drain(..wanted.len().min(BATCH)).collect();
                        // All want the same ports first.
                        let changes: Vec<_> = batch
                            .iter()
                            .map(|(number, port)| {
                                json!({"port": 20_000 + port, "owner": format!("{session}-{number}/ssh"),
                                    "target": "192.0.2.1:22"})
                            })
                            .collect();
                        let changes = Value::from(changes);
                        let beat = "select tml_proxy.region_beat('us-1', 'x', 60000, null, 0, 0, true, null)";
                        client.query(beat).expect("an answer");
                        let answer = client
                            .query(&format!(
                                "select (tml_proxy.region_write('us-1', 'x', null, 1000000, 1, 60000, null, \
                                 '{changes}'))::text"
                            ))
                            .expect("an answer");
                        let answer: Value = serde_json::from_str(&answer).expect("JSON");
                        let again = answer["refused"].as_array().expect("nobody else leads");
                        refused += again.len();
                        for one in again {
                            let port = one["port"].as_u64().expect("a port") as usize - 20_000;
                            let owner = one["owner"].as_str().expect("an owner");
                            let number = owner.split(['-', '/']).nth(1).expect("one of these");
                            // Elsewhere, where others look too.
                            let next = (port + each) % (SESSIONS * each);
                            wanted.push((number.parse().expect("a number"), next));
                        }
                    }
                    refused
                })
            })
            .collect();
        let sessions = sessions.into_iter();
        sessions
            .map(|session| session.join().expect("it has not failed"))
            .sum()
    });
    let took = began.elapsed();
    let given = "select count(*) || ' ' || count(distinct owner) from tml_proxy.port where owner is not null";
    let all = each * SESSIONS;
    assert_eq!(database.query(given), format!("{all} {all}"));
    figure(
        "ports given away a second to four who ask at once",
        format!(
            "{:.0} ({all} in {took:.1?}, {refused} refused because another one had the port)",
            all as f64 / took.as_secs_f64()
        ),
    );
}
