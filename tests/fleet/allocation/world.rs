//! The database with everybody who asks it, what becomes of them, and what may never be.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    super::database::Database,
    process::{Given, Owned, Process},
};

/// Times are in seconds.
pub const COOLDOWN: i64 = 60;
pub const LEASE: i64 = 600;
/// By how much a proxy thinks its lease to be over sooner.
pub const MARGIN: i64 = 60;
/// How long a port is held for a host.
pub const HELD: i64 = 30 * 86_400;
pub const PORTS: u64 = 12;
pub const OWNERS: u64 = 10;
/// How many ports a process has beforehand.
pub const RESERVED: usize = 3;

/// Numbers that follow from a seed.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    pub fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }
}

/// The database and everybody who asks it.
pub struct World<'a> {
    pub database: &'a Database,
    pub random: Random,
    pub processes: Vec<Process>,
    /// The time of everybody but the server.
    pub now: i64,
    /// What the server's clock is ahead of that, and by how much it has jumped ahead.
    pub ahead: i64,
    pub jumped: i64,
    pub timeline: u32,
    pub started: u32,
    pub has_snapshot: bool,
    /// Who had a port last, and when.
    pub had: BTreeMap<u16, (String, i64)>,
    /// Every term that was given, and to whom.
    pub terms: BTreeMap<i64, String>,
    /// What the database has of owners that is certain.
    pub owners: BTreeMap<u16, String>,
    /// What has happened, for whoever has to understand it.
    pub story: Vec<String>,
}

pub const NAMES: [&str; 3] = ["us-1", "us-2", "us-3"];
pub const TABLES: [&str; 4] = ["proxy", "region", "port", "process"];

/// What holds the port of an owner: two hosts, each for some of them.
pub fn holder(owner: &str) -> Option<String> {
    let number: u64 = owner
        .strip_prefix("job-")?
        .strip_suffix("/ssh")?
        .parse()
        .ok()?;
    (number >= OWNERS / 2).then(|| format!("host/{}/ssh", number % 2))
}

/// Whether a port may be one's that is open for the other.
pub fn share(one: &str, other: &str) -> bool {
    one == other || holder(one).is_some() && holder(one) == holder(other)
}

pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

impl<'a> World<'a> {
    pub fn new(database: &'a Database, seed: u64) -> Self {
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

    pub fn ask(&self, call: &str) -> Value {
        let text = self.database.query(&format!("select tml_proxy.{call}"));
        serde_json::from_str(&text).expect("JSON")
    }

    pub fn set_clock(&self) {
        let (at, timeline) = (self.now + self.ahead, self.timeline);
        self.database.query(&format!(
            "update model.clock set at = timestamptz '2030-01-01' + {at} * interval '1 s', \
             timeline = '{timeline}'"
        ));
    }

    pub fn passes(&mut self, seconds: i64) {
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
    pub fn start(&mut self, name: &'static str) {
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
    pub fn end(&mut self, at: usize, is_told: bool) {
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

    pub fn snapshot(&mut self) {
        let copies = TABLES.map(|table| {
            format!("delete from model.{table}; insert into model.{table} table tml_proxy.{table};")
        });
        self.database.query(&copies.concat());
        self.has_snapshot = true;
    }

    /// The last commits are lost, and another server with another clock goes on.
    pub fn fail_over(&mut self) {
        if !self.has_snapshot {
            return;
        }
        self.timeline += 1;
        self.ahead += self.random.below(200) as i64 - 100;
        self.restore();
        self.story.push("failover".to_owned());
    }

    /// The database is what it was at the last snapshot.
    pub fn restore(&mut self) {
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
    pub fn forget(&mut self) {
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
    pub fn certain(&self) -> BTreeMap<u16, String> {
        self.rows("owner", "p.generation > lost and r.timeline = c.timeline")
    }

    /// Something about each port where it is not null.
    pub fn rows(&self, what: &str, condition: &str) -> BTreeMap<u16, String> {
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

    pub fn check(&mut self) {
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

    pub fn step(&mut self) {
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
    pub fn all_beat(&mut self) {
        for at in 0..self.processes.len() {
            self.beat(at);
            self.read(at);
            self.apply(at);
        }
    }

    /// The same while time passes.
    pub fn goes_on(&mut self, seconds: i64) {
        for _ in 0..seconds / 5 {
            self.passes(5);
            self.all_beat();
        }
    }

    /// The first one, which leads, changes whose a port is; why not, if it is refused.
    pub fn leader_writes(&mut self, change: &Value) -> Option<String> {
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
    pub fn wants(&mut self, port: u16, owner: &str) -> Option<String> {
        let holder = holder(owner);
        self.leader_writes(
            &json!({"port": port, "owner": owner, "holder": holder, "target": "192.0.2.1:22"}),
        )
    }

    /// Somebody gets a port that a process has beforehand, and the database knows afterwards; which it was.
    pub fn is_told_of(&mut self, at: usize, owner: &str) -> u16 {
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
    pub fn converges(&mut self) {
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
