//! Exposing in a region, with somebody who answers as the database would.

use std::net::SocketAddr;

use super::*;
use crate::provider::switchboard::{
    Allocate, HostId, Job, PortRanges, RuleName,
    expose::Reason,
    ports::PortCounts,
    region::{
        self, PortChange, PortMap, PortOwner, PortRefused, RefusedWhy, RegionPort, RegionPorts,
        RegionRequest, RegionServer, Role,
    },
    reserve::Use,
};

const LEADING: Role = Role::Leading { term: 1 };
const ALONE: Role = Role::Alone {
    heard: BootInstant::from_millis(1),
};

struct Shared {
    scene: Scene,
    server: RegionServer,
    map: PortMap,
    _task: tokio::task::JoinHandle<()>,
}

impl Shared {
    fn start() -> Self {
        Self::start_after(Plan::default())
    }

    /// With what a task before this one has proposed.
    fn start_after(open: Plan) -> Self {
        Self::start_elsewhere(open, None)
    }

    /// With what is of another place, where it stays open so long.
    fn start_elsewhere(open: Plan, until: Option<Instant>) -> Self {
        let scene = Scene::new();
        scene.open.store(Arc::new(open));
        let (mut client, server) = region::channel(Arc::default(), Arc::default(), Arc::default());
        client.elsewhere_until = until;
        scene.region.send_replace(Some(client));
        let task = scene.start();
        Self {
            scene,
            server,
            map: PortMap::default(),
            _task: task,
        }
    }

    /// Has the region know of ports and the proxy be something.
    fn say(&mut self, role: Role, ports: impl IntoIterator<Item = (u16, Option<RegionPort>)>) {
        self.map.generation += 1;
        for (port, known) in ports {
            match known {
                Some(known) => _ = self.map.ports.insert(port, known),
                None => _ = self.map.ports.remove(&port),
            }
        }
        self.server.ports.send_replace(Arc::new(RegionPorts {
            map: Some(self.map.clone()),
            role,
            leader: None,
        }));
    }

    /// Has the switchboard tell of these jobs, and of nothing yet of those that are remembered.
    fn know(&self, role: Role, jobs: &[usize], remembered: &[usize]) {
        let known = jobs.iter().map(|number| Job {
            host: (*number >= 10).then(host),
            ..job(*number)
        });
        let known = known.map(|job| (job.id.clone(), Arc::new(job)));
        let remembered = remembered.iter().map(|number| job(*number).id);
        let remembered = KnownJobs::remembering(remembered);
        let complete = remembered.remembered.is_empty();
        self.scene.known_jobs.send_replace(Arc::new(KnownJobs {
            jobs: known.collect(),
            complete: complete.then(SystemTime::now),
            followed_as: role,
            ..remembered
        }));
    }

    /// What is asked for next; the map is as it was.
    async fn asked(&mut self) -> RegionRequest {
        let request = self.server.requests.recv();
        request.await.expect("the task runs")
    }

    /// The changes that are asked for next, which are made but for those that are `refused`.
    async fn written(&mut self, refused: Option<RefusedWhy>) -> Vec<PortChange> {
        let RegionRequest::Write {
            term,
            changes,
            reply,
            ..
        } = self.asked().await
        else {
            panic!("nobody was to block a port");
        };
        assert_eq!(LEADING, Role::Leading { term });
        let mut not_made = Vec::new();
        let mut made = Vec::new();
        for PortChange { port, to } in changes.clone() {
            match (to, refused) {
                (PortOwner::Owned { owner, .. }, Some(why)) => {
                    not_made.push(PortRefused { port, owner, why });
                }
                (PortOwner::Owned { owner, target }, None) => {
                    made.push((port, Some(owned(owner, target, 7))));
                }
                (PortOwner::Released { owner }, _) => {
                    made.push((port, Some(RegionPort::Left { owner })));
                }
            }
        }
        self.say(LEADING, made);
        reply.send(Ok(not_made)).expect("the task waits");
        changes
    }

    /// The jobs and ports that are to be open next.
    async fn opened(&mut self) -> Vec<(usize, u16)> {
        self.opened_but(|_| false).await
    }

    /// The same, where some ports cannot be bound.
    async fn opened_but(&mut self, is_taken: impl Fn(u16) -> bool) -> Vec<(usize, u16)> {
        let proposal = self.scene.proposed.recv().await.expect("the task runs");
        let mut open = Vec::new();
        let mut outcome = Outcome::default();
        for (name, spec) in &proposal.specs {
            let listen = spec.pairs.first().expect("a port").0;
            let number = (0..20).find(|number| owner(*number).mapping() == *name);
            open.push((number.expect("one of these jobs"), listen.port()));
            if is_taken(listen.port()) {
                outcome.not_opened.push(NotOpened {
                    mapping: name.clone(),
                    listen,
                    blame_port: true,
                    why: "it is in use".to_owned(),
                });
            }
        }
        proposal.reply.send(outcome).expect("the task waits");
        open
    }

    fn reason(&self, number: usize) -> Option<Reason> {
        let exposure = self.scene.status.read().expect("there is a switchboard");
        let endpoint = exposure.endpoints.get(&owner(number));
        let closed = endpoint.and_then(|endpoint| endpoint.closed);
        let subject = (job(number).id, Some(owner(number).rule));
        closed.or_else(|| Some(exposure.refused.get(&subject)?.reason))
    }

    /// Waits until the map is in force.
    async fn in_force(&mut self) {
        let generation = self.map.generation;
        let applied = &mut self.server.applied;
        let applied = applied.wait_for(|applied| *applied == generation).await;
        assert_eq!(*applied.expect("the task runs"), generation);
    }
}

fn owner(number: usize) -> Owner {
    Owner {
        job: job(number).id,
        rule: RuleName::parse("ssh").expect("a name"),
        host: None,
    }
}

/// The host of jobs from the tenth on.
fn host() -> HostId {
    HostId::parse("00000007-0000-4000-8000-000000000000").expect("an id")
}

fn target(number: usize) -> SocketAddr {
    let address = job(number).address.expect("it says one");
    SocketAddr::new(address, 22)
}

fn owned(owner: Owner, target: SocketAddr, generation: u64) -> RegionPort {
    RegionPort::Owned {
        owner,
        target,
        since: SystemTime::UNIX_EPOCH,
        generation,
    }
}

/// A job that has a port in the map.
fn has(number: usize, port: u16) -> (u16, Option<RegionPort>) {
    (port, Some(owned(owner(number), target(number), 7)))
}

fn wants(number: usize, port: u16) -> PortChange {
    let (owner, target) = (owner(number), target(number));
    let to = PortOwner::Owned { owner, target };
    PortChange { port, to }
}

fn leaves(number: usize, port: u16) -> PortChange {
    let owner = owner(number);
    let to = PortOwner::Released { owner };
    PortChange { port, to }
}

#[tokio::test]
async fn a_proxy_that_serves_opens_and_closes_what_the_map_says_as_far_as_it_allows() {
    let mut shared = Shared::start();
    let elsewhere: SocketAddr = "192.0.2.1:22".parse().expect("an address");
    let not_allowed = (40_002, Some(owned(owner(2), elsewhere, 7)));
    shared.say(Role::Serving, [has(1, 40_001), not_allowed, has(3, 50_000)]);
    assert_eq!(shared.opened().await, [(1, 40_001)]);
    shared.in_force().await;
    assert_eq!(shared.reason(1), None);
    assert_eq!(shared.reason(2), Some(Reason::NotAllowed));
    assert_eq!(shared.reason(3), Some(Reason::OtherPorts));
    // What the switchboard says is for others.
    shared.know(Role::Unknown, &[4], &[]);
    shared.say(Role::Serving, [has(5, 40_005)]);
    assert_eq!(shared.opened().await, [(1, 40_001), (5, 40_005)]);
    let left = RegionPort::Left { owner: owner(1) };
    shared.say(Role::Serving, [(40_001, Some(left))]);
    assert_eq!(shared.opened().await, [(5, 40_005)]);
    shared.in_force().await;
    let exposure = shared.scene.status.read().expect("there is a switchboard");
    assert_eq!((exposure.ports.used, exposure.ports.cooling), (3, 1));
    assert_eq!(exposure.jobs, 3);
}

#[tokio::test]
async fn a_proxy_that_takes_over_closes_nothing_until_the_switchboard_has_spoken() {
    let mut shared = Shared::start();
    shared.say(Role::Serving, [has(1, 40_001), has(2, 40_002)]);
    assert_eq!(shared.opened().await, [(1, 40_001), (2, 40_002)]);
    // Following has not begun: what is known is of before.
    shared.say(LEADING, []);
    shared.know(LEADING, &[], &[1, 2]);
    shared.in_force().await;
    shared.know(LEADING, &[1, 3], &[2]);
    let changes = shared.written(None).await;
    let [change] = &changes[..] else {
        panic!("{changes:?}");
    };
    assert_eq!(*change, wants(3, change.port));
    let all = [(1, 40_001), (2, 40_002), (3, change.port)];
    assert_eq!(shared.opened().await, all);
    let port = change.port;
    shared.know(LEADING, &[1, 3], &[]);
    // It is closed here before others may have it.
    assert_eq!(shared.opened().await, [(1, 40_001), (3, port)]);
    assert_eq!(shared.written(None).await, [leaves(2, 40_002)]);
    shared.in_force().await;
}

#[tokio::test]
async fn a_port_that_is_refused_or_cannot_be_bound_is_looked_for_elsewhere() {
    let mut shared = Shared::start();
    shared.say(LEADING, []);
    shared.know(LEADING, &[1], &[]);
    let first = shared.written(Some(RefusedWhy::Taken)).await[0].port;
    let second = shared.written(None).await;
    let second = second[0].port;
    assert_ne!(first, second);
    assert_eq!(
        shared.opened_but(|port| port == second).await,
        [(1, second)]
    );
    let asked = shared.asked().await;
    let RegionRequest::Block { port, generation } = asked else {
        panic!("{asked:?}");
    };
    assert_eq!((port, generation), (second, 7));
    shared.say(LEADING, [(second, Some(RegionPort::Blocked))]);
    // It is closed wherever it was open.
    assert_eq!(shared.opened().await, []);
    let third = shared.written(None).await;
    assert_eq!(third, [wants(1, third[0].port)]);
    assert!(![first, second].contains(&third[0].port));
    assert_eq!(shared.opened().await, [(1, third[0].port)]);
    shared.in_force().await;
}

#[tokio::test]
async fn the_port_of_a_host_is_written_for_its_next_job_at_once() {
    let mut shared = Shared::start();
    shared.scene.settings.send_modify(|settings| {
        let settings = Arc::make_mut(settings);
        settings.expose[0].allocate = Allocate::Host;
    });
    shared.say(LEADING, []);
    shared.know(LEADING, &[11], &[]);
    let port = shared.written(None).await[0].port;
    assert_eq!(shared.opened().await, [(11, port)]);
    shared.know(LEADING, &[12], &[]);
    assert_eq!(shared.opened().await, []);
    let changes = shared.written(None).await;
    assert_eq!(changes, [leaves(11, port), wants(12, port)]);
    let PortOwner::Owned { owner, .. } = &changes[1].to else {
        panic!("it is wanted");
    };
    assert_eq!(owner.host, Some(host()));
    assert_eq!(shared.opened().await, [(12, port)]);
    shared.in_force().await;
    // Of one who led before.
    shared.know(LEADING, &[], &[]);
    assert_eq!(shared.opened().await, []);
    assert_eq!(shared.written(None).await, [leaves(12, port)]);
    shared.know(LEADING, &[13], &[]);
    assert_eq!(shared.written(None).await, [wants(13, port)]);
    assert_eq!(shared.opened().await, [(13, port)]);
}

#[tokio::test]
async fn a_port_that_is_another_jobs_after_a_sleep_is_closed_before_it_is_opened_for_that() {
    let mut shared = Shared::start();
    shared.say(Role::Serving, [has(1, 40_001), has(3, 40_003)]);
    assert_eq!(shared.opened().await, [(1, 40_001), (3, 40_003)]);
    shared.in_force().await;
    // Whatever was said meanwhile was said to nobody.
    shared.say(Role::Serving, [has(2, 40_001), has(4, 40_004)]);
    assert_eq!(shared.opened().await, [(3, 40_003), (4, 40_004)]);
    assert_eq!(
        shared.opened().await,
        [(2, 40_001), (3, 40_003), (4, 40_004)]
    );
    shared.in_force().await;
}

#[tokio::test]
async fn a_job_stays_at_a_port_that_another_proxy_cannot_bind_until_it_has_one_elsewhere() {
    let mut shared = Shared::start();
    shared.say(Role::Serving, [has(1, 40_001)]);
    assert_eq!(shared.opened().await, [(1, 40_001)]);
    shared.in_force().await;
    let blocked = |port| (port, Some(RegionPort::Blocked));
    shared.say(Role::Serving, [blocked(40_001), has(2, 40_002)]);
    assert_eq!(shared.opened().await, [(1, 40_001), (2, 40_002)]);
    shared.say(Role::Serving, [has(1, 40_003)]);
    assert_eq!(shared.opened().await, [(1, 40_003), (2, 40_002)]);
    shared.in_force().await;
    // There is no other one.
    shared.say(Role::Serving, [blocked(40_003)]);
    assert_eq!(shared.opened().await, [(2, 40_002)]);
    shared.in_force().await;
    assert_eq!(shared.reason(1), Some(Reason::NoPort));
    shared.say(Role::Serving, [(40_003, None)]);
    shared.in_force().await;
    assert_eq!(shared.reason(1), None);
}

#[tokio::test]
async fn a_proxy_that_can_bind_no_port_does_not_take_those_of_its_region() {
    let mut shared = Shared::start();
    shared.scene.settings.send_modify(|settings| {
        let settings = Arc::make_mut(settings);
        settings.ports = PortRanges::new([40_000..=40_099]).expect("ports");
    });
    let ports = (1..20).zip(40_001..);
    shared.say(Role::Serving, ports.map(|(number, port)| has(number, port)));
    let mut told = BTreeSet::new();
    // They are tried again, and told of again.
    for _ in 0..2 {
        while shared.opened_but(|_| true).await.len() < 19 {}
        shared.in_force().await;
        while let Ok(request) = shared.server.requests.try_recv() {
            let RegionRequest::Block { port, .. } = request else {
                panic!("{request:?}");
            };
            told.insert(port);
        }
        assert_eq!(told.len(), 16);
        assert_eq!(shared.reason(19), Some(Reason::NotOpened));
        shared.say(Role::Serving, []);
    }
}

#[tokio::test]
async fn nobody_is_served_before_it_is_written() {
    let mut shared = Shared::start();
    shared.say(LEADING, []);
    shared.know(LEADING, &[1], &[]);
    let RegionRequest::Write { changes, reply, .. } = shared.asked().await else {
        panic!("nobody was to block a port");
    };
    let away = Err("the database is away".to_owned());
    reply.send(away).expect("the task waits");
    // The same is asked for again.
    assert_eq!(shared.written(Some(RefusedWhy::Unsettled)).await, changes);
    assert_eq!(shared.reason(1), Some(Reason::NotAgreed));
    assert_eq!(shared.written(None).await, changes);
    assert_eq!(shared.opened().await, [(1, changes[0].port)]);
}

#[tokio::test]
async fn a_proxy_alone_closes_what_has_ended_and_gives_nobody_a_port() {
    let mut shared = Shared::start();
    shared.say(Role::Serving, [has(1, 40_001), has(2, 40_002)]);
    shared.opened().await;
    shared.say(ALONE, []);
    shared.know(ALONE, &[1, 3], &[]);
    assert_eq!(shared.opened().await, [(1, 40_001)]);
    shared.in_force().await;
    assert_eq!(shared.reason(3), Some(Reason::NoPort));
    // What the map says counts again.
    shared.say(Role::Serving, [(40_002, None)]);
    shared.in_force().await;
    assert_eq!(shared.reason(3), None);
    assert!(shared.server.requests.try_recv().is_err());
}

#[tokio::test]
async fn a_proxy_alone_gives_jobs_the_ports_that_it_has_beforehand_and_none_of_them_twice() {
    let mut shared = Shared::start();
    let reserved = |port| (port, Some(RegionPort::Reserved));
    let all = [
        has(1, 40_001),
        reserved(40_003),
        reserved(40_004),
        reserved(40_005),
    ];
    shared.say(Role::Serving, all);
    shared.opened().await;
    shared.in_force().await;
    let reserve = Arc::clone(&shared.server.reserve);
    assert!(reserve.ranges().is_some());
    // Another proxy has the fifth.
    let own = [(40_003, Some(1)), (40_004, Some(1))];
    reserve.read(true, own.into_iter());
    reserve.open(true);
    shared.say(ALONE, []);
    shared.know(ALONE, &[1, 2], &[]);
    let (first, second, third) = ((1, 40_001), (2, 40_003), (3, 40_004));
    assert_eq!(shared.opened().await, [first, second]);
    // One that ends and comes back has its own again, and others do not get it.
    shared.know(ALONE, &[1], &[]);
    assert_eq!(shared.opened().await, [first]);
    shared.know(ALONE, &[1, 3, 4], &[]);
    assert_eq!(shared.opened().await, [first, third]);
    shared.know(ALONE, &[2, 3, 4], &[]);
    while shared.opened().await != [second, third] {}
    shared.know(ALONE, &[1, 2, 3, 4], &[]);
    assert_eq!(shared.opened().await, [first, second, third]);
    let counts = || {
        let exposure = shared.scene.status.read().expect("there is a switchboard");
        (exposure.ports.reserved, exposure.ports.used)
    };
    while counts() != (1, 3) {
        tokio::task::yield_now().await;
    }
    assert_eq!(shared.reason(4), Some(Reason::NoPort));
    // The database has made one of them the job's, and another proxy was first with the other.
    reserve.open(false);
    let left = RegionPort::Left { owner: owner(3) };
    let told = [has(2, 40_003), (40_004, Some(left)), has(3, 40_006)];
    shared.say(Role::Serving, told);
    while shared.opened().await != [first, second, (3, 40_006)] {}
    shared.in_force().await;
}

#[tokio::test]
async fn a_reserved_port_that_cannot_be_bound_is_passed_over() {
    let mut shared = Shared::start();
    let reserve = Arc::clone(&shared.server.reserve);
    let own = [(40_003, Some(1)), (40_004, Some(1))];
    reserve.read(true, own.into_iter());
    reserve.open(true);
    let reserved = |port| (port, Some(RegionPort::Reserved));
    shared.say(ALONE, [reserved(40_003), reserved(40_004)]);
    shared.know(ALONE, &[1], &[]);
    let is_taken = |port| port == 40_003;
    assert_eq!(shared.opened_but(is_taken).await, [(1, 40_003)]);
    while shared.opened().await != [(1, 40_004)] {}
    assert_eq!(reserve.given(), [(40_004, owner(1))]);
    assert!(shared.server.requests.try_recv().is_err());
    // The region is to leave it alone, once it can be told.
    let (owner, is_blocked) = (owner(1), true);
    let unfit = Use::Unfit { owner, is_blocked };
    assert_eq!(reserve.used().first(), Some(&(40_003, unfit)));
}

#[tokio::test]
async fn a_port_that_has_rested_is_counted_as_free_before_anything_is_written() {
    let mut shared = Shared::start();
    let left = RegionPort::Left { owner: owner(2) };
    shared.say(LEADING, [has(1, 40_001), (40_002, Some(left))]);
    shared.know(LEADING, &[1], &[]);
    shared.opened().await;
    for (cooling, ports) in [(1, vec![]), (0, vec![(40_002, None)])] {
        shared.say(LEADING, ports);
        let counts = &mut shared.server.counts;
        let is_it = |counts: &Option<PortCounts>| {
            counts.is_some_and(|counts| (counts.used, counts.cooling) == (1, cooling))
        };
        assert!(counts.wait_for(is_it).await.is_ok());
    }
    assert!(shared.server.requests.try_recv().is_err());
}

#[tokio::test]
async fn a_proxy_whose_lease_is_over_closes_everything() {
    let mut shared = Shared::start();
    shared.say(Role::Serving, [has(1, 40_001), has(2, 40_002)]);
    shared.opened().await;
    shared.say(Role::Expired, []);
    assert_eq!(shared.opened().await, []);
    shared.in_force().await;
    assert_eq!(shared.reason(1), Some(Reason::LeaseOver));
    shared.say(Role::Serving, []);
    assert_eq!(shared.opened().await, [(1, 40_001), (2, 40_002)]);
}

#[tokio::test]
async fn a_proxy_that_has_heard_nothing_changes_nothing_as_after_an_upgrade() {
    let open = Plan::from([(owner(1), (40_001, target(1)))]);
    let mut shared = Shared::start_after(open);
    shared.know(Role::Unknown, &[2], &[]);
    // It is told what is open, which it may not know.
    assert_eq!(shared.opened().await, [(1, 40_001)]);
    shared.scene.settings.send_modify(|settings| {
        let settings = Arc::make_mut(settings);
        settings.cooldown *= 2;
    });
    assert_eq!(shared.opened().await, [(1, 40_001)]);
    // Whoever leads as before goes on with what it knew.
    shared.say(LEADING, [has(1, 40_001)]);
    shared.know(LEADING, &[1], &[]);
    shared.in_force().await;
    shared.know(LEADING, &[], &[]);
    assert_eq!(shared.opened().await, []);
    assert_eq!(shared.written(None).await, [leaves(1, 40_001)]);
}

#[tokio::test]
async fn a_proxy_that_moves_to_a_region_it_cannot_enter_closes_what_it_has_left() {
    let open = Plan::from([(owner(1), (40_001, target(1)))]);
    let until = Instant::now() + Duration::from_millis(10);
    let mut shared = Shared::start_elsewhere(open, Some(until));
    shared.know(Role::Unknown, &[1], &[]);
    while !shared.opened().await.is_empty() {}
    shared.say(Role::Serving, [has(1, 40_001)]);
    assert_eq!(shared.opened().await, [(1, 40_001)]);
    shared.in_force().await;
}

#[tokio::test]
async fn ports_that_were_given_out_before_there_was_a_region_are_kept_by_who_leads() {
    let mut shared = Shared::start();
    shared.scene.region.send_replace(None);
    shared.know(Role::Unknown, &[1], &[]);
    let own = shared.opened().await;
    let (client, server) = region::channel(Arc::default(), Arc::default(), Arc::default());
    shared.scene.region.send_replace(Some(client));
    shared.server = server;
    shared.say(LEADING, []);
    shared.know(LEADING, &[], &[1]);
    let port = own[0].1;
    assert_eq!(shared.written(None).await, [wants(1, port)]);
    shared.in_force().await;
    assert_eq!(shared.reason(1), None);
}
