//! A process of a proxy: what it knows, and what it asks of the database.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::world::{COOLDOWN, LEASE, MARGIN, OWNERS, PORTS, RESERVED, World, holder, quoted};

/// A port of somebody's.
#[derive(Debug, Clone, PartialEq)]
pub struct Owned {
    pub owner: String,
    pub target: String,
    pub since_ms: i64,
    pub generation: i64,
}

/// A port that was given to somebody while the database could not be asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Given {
    pub owner: String,
    pub has_ended: bool,
}

/// A process of a proxy.
#[derive(Debug, Clone, Default)]
pub struct Process {
    pub name: &'static str,
    pub instance: String,
    /// Whether it can reach the database.
    pub is_silent: bool,
    pub epoch: Option<String>,
    pub generation: i64,
    pub map: BTreeMap<u16, Owned>,
    /// What it serves.
    pub open: BTreeMap<u16, String>,
    pub applied: i64,
    /// When the last request was sent that was answered.
    pub heard: Option<i64>,
    pub term: Option<i64>,
    /// The ports that it has beforehand, with the generation since when, as it knows.
    pub reserved: BTreeMap<u16, i64>,
    /// Those of them that it has given to somebody, of which the database knows nothing.
    pub given: BTreeMap<u16, Given>,
    /// Those that it will not use, of which the database knows nothing either.
    pub unused: BTreeSet<u16>,
}

impl Process {
    pub fn is_open(&self) -> BTreeMap<u16, String> {
        let map = self.map.iter();
        let open = map.map(|(port, owned)| (*port, owned.owner.clone()));
        let given = self.given.iter().filter(|(_, given)| !given.has_ended);
        let given = given.map(|(port, given)| (*port, given.owner.clone()));
        open.chain(given).collect()
    }

    pub fn is_expired(&self, now: i64) -> bool {
        self.heard
            .is_some_and(|heard| now >= heard + LEASE - MARGIN)
    }
}

impl World<'_> {
    pub fn call(&self, at: usize, function: &str, values: &str) -> Value {
        let Process { name, instance, .. } = &self.processes[at];
        self.ask(&format!("{function}('{name}', '{instance}', {values})"))
    }

    pub fn epoch(&self, at: usize) -> String {
        let epoch = self.processes[at].epoch.as_deref();
        epoch.map_or("null".to_owned(), quoted)
    }

    pub fn beat(&mut self, at: usize) {
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
    pub fn reserve(&mut self, at: usize) {
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
    pub fn give(&mut self, at: usize) {
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
    pub fn end_given(&mut self, at: usize) {
        let process = &mut self.processes[at];
        let count = process.given.len() as u64;
        let nth = self.random.below(count.max(1)) as usize;
        if let Some((port, given)) = process.given.iter_mut().nth(nth) {
            given.has_ended = true;
            process.open.remove(port);
        }
    }

    /// A process has a port beforehand that it does not need.
    pub fn leave_unused(&mut self, at: usize) {
        let process = &mut self.processes[at];
        let is_given = |port: &&u16| process.given.contains_key(port);
        let free = process.reserved.keys().find(|port| !is_given(port));
        process.unused.extend(free.copied());
    }

    /// Tells what a process serves, and reads everything anew.
    pub fn assert(&mut self, at: usize, epoch: String, is_expired: bool) {
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

    pub fn read(&mut self, at: usize) {
        // What it has given away it tells first.
        if !self.processes[at].is_silent && self.processes[at].given.is_empty() {
            let since = self.processes[at].generation.to_string();
            let answer = self.call(at, "region_map", &since);
            self.take(at, &answer);
        }
    }

    pub fn take(&mut self, at: usize, answer: &Value) {
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
    pub fn apply(&mut self, at: usize) {
        let now = self.now;
        let process = &mut self.processes[at];
        if process.heard.is_some() && !process.is_expired(now) {
            process.open = process.is_open();
            process.applied = process.generation;
        }
    }

    /// Whoever thinks that it leads writes something, sensible or not.
    pub fn write(&mut self, at: usize) {
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
    pub fn leads(&self, at: usize) -> bool {
        let Process { instance, term, .. } = &self.processes[at];
        let term = term.unwrap_or(0);
        let query = format!(
            "select count(*) from tml_proxy.region where leader_instance = '{instance}' and term = {term}"
        );
        self.database.query(&query) == "1"
    }

    pub fn block(&mut self, at: usize) {
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
}
