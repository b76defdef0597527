use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::*;
use crate::{
    provider::switchboard::{
        Allocate, Condition, HostId, JobState, PortRanges, PublicHost, Remembered, Rule, Service,
        client::BaseUrl,
    },
    setting::AutoOr,
    table::{Origin, Policy},
};

/// A port of every job.
pub(in crate::provider::switchboard) fn settings() -> Switchboard {
    let net = |text: &str| text.parse().expect("a prefix");
    Switchboard {
        url: BaseUrl::parse("https://sb.example.org").expect("a URL"),
        token_file: "/t".into(),
        ca_file: None,
        expose: vec![rule("ssh", 22, Condition::Always)],
        states: vec![JobState::Ready],
        ports: PortRanges::new([40000..=40009]).expect("ports"),
        ports_origin: Origin::BuiltIn,
        public_host: PublicHost::parse("p.example.org").expect("a name"),
        allow: ["fd00::/8", "10.0.0.0/8", "::/96", "127.0.0.0/8", "ff00::/8"]
            .map(net)
            .to_vec(),
        addresses: BTreeMap::new(),
        cooldown: Duration::from_secs(600),
        max_per_job: 8,
        max_total: None,
        host_gone: None,
        refresh: Duration::from_secs(60),
        poll: Duration::from_secs(5),
        state_dir: "/s".into(),
        publish: None,
        publish_name: AutoOr::Auto,
        withdraw: true,
        lookup: None,
        lookup_origin: Origin::BuiltIn,
        policy: Arc::default(),
    }
}

fn with_rules(expose: Vec<Rule>) -> Switchboard {
    Switchboard {
        expose,
        ..settings()
    }
}

fn rule(name: &str, port: u16, condition: Condition) -> Rule {
    Rule {
        name: RuleName::parse(name).expect("a name"),
        port,
        condition,
        hosts: Vec::new(),
        allocate: Allocate::Job,
    }
}

fn job(number: usize, address: &str) -> Job {
    Job {
        id: JobId::parse(&format!("{number:08x}-0000-4000-8000-000000000000")).expect("an id"),
        state: JobState::Ready,
        address: Some(address.parse().expect("an address")),
        services: Vec::new(),
        host: None,
        host_name: None,
        host_live: Some(true),
    }
}

fn known_jobs(jobs: impl IntoIterator<Item = Job>) -> KnownJobs {
    KnownJobs {
        jobs: jobs
            .into_iter()
            .map(|job| (job.id.clone(), Arc::new(job)))
            .collect(),
        complete: Some(SystemTime::UNIX_EPOCH),
        ..KnownJobs::default()
    }
}

/// What is decided for all jobs, put together.
fn decided(settings: &Switchboard, known_jobs: &KnownJobs) -> Decision {
    let mut decisions = Decisions::default();
    decided_by(&mut decisions, settings, known_jobs)
}

/// The same, by one who goes on from what was decided before.
fn decided_by(
    decisions: &mut Decisions,
    settings: &Switchboard,
    known_jobs: &KnownJobs,
) -> Decision {
    decided_after(decisions, &BTreeMap::new(), settings, known_jobs)
}

fn decided_after(
    decisions: &mut Decisions,
    before: &BTreeMap<Owner, Kept>,
    settings: &Switchboard,
    known_jobs: &KnownJobs,
) -> Decision {
    let known = known_jobs.jobs.keys().chain(known_jobs.remembered.keys());
    let decided = decisions.jobs().cloned();
    let all: BTreeSet<JobId> = known.cloned().chain(decided).collect();
    let inputs = Inputs {
        known_jobs,
        before,
        settings,
        is_own: &|ip| ip == IpAddr::from([10, 0, 0, 1]),
    };
    decisions.update(&all, &inputs);
    let refused = decisions.made.values();
    Decision {
        wanted: decisions.wanted().cloned().collect(),
        refused: refused
            .flat_map(|decision| decision.refused.clone())
            .collect(),
    }
}

/// Why a single job with that address is not exposed.
fn reason(address: &str) -> Option<Reason> {
    let decision = decided(&settings(), &known_jobs([job(1, address)]));
    decision.refused.first().map(|refused| refused.reason)
}

#[test]
fn an_address_is_refused_unless_it_can_only_be_the_jobs() {
    for (address, expected) in [
        ("fd00::1", None),
        ("10.0.0.2", None),
        ("10.0.0.1", Some(Reason::Own)),
        ("2001:db8::1", Some(Reason::NotAllowed)),
        ("192.0.2.1", Some(Reason::NotAllowed)),
        ("::ffff:10.0.0.2", Some(Reason::Mapped)),
        ("::10.0.0.2", Some(Reason::Mapped)),
        ("::", Some(Reason::Unspecified)),
        ("0.0.0.0", Some(Reason::Unspecified)),
        ("::1", Some(Reason::Loopback)),
        ("127.0.0.9", Some(Reason::Loopback)),
        ("fe80::1", Some(Reason::LinkLocal)),
        ("169.254.0.1", Some(Reason::LinkLocal)),
        ("ff02::1", Some(Reason::Multicast)),
        ("224.0.0.1", Some(Reason::Multicast)),
        ("255.255.255.255", Some(Reason::Multicast)),
    ] {
        assert_eq!(reason(address), expected, "{address}");
    }
}

#[test]
fn the_state_decides_and_not_that_there_is_an_address() {
    for state in [
        JobState::Queued,
        JobState::Assigned,
        JobState::Initializing,
        JobState::Terminating,
        JobState::Finalized,
        JobState::Unknown,
    ] {
        let job = Job {
            state,
            ..job(1, "fd00::1")
        };
        let decision = decided(&settings(), &known_jobs([job]));
        assert!(decision.wanted.is_empty(), "{state:?}");
    }
    let two = Switchboard {
        states: vec![JobState::Ready, JobState::Terminating],
        ..settings()
    };
    let job = Job {
        state: JobState::Terminating,
        ..job(1, "fd00::1")
    };
    assert_eq!(decided(&two, &known_jobs([job])).wanted.len(), 1);
}

#[test]
fn of_two_live_jobs_with_one_address_neither_is_exposed() {
    let booting = Job {
        state: JobState::Initializing,
        ..job(2, "fd00::1")
    };
    for other in [job(2, "fd00::1"), booting] {
        let known = known_jobs([job(1, "fd00::1"), other, job(3, "fd00::3")]);
        let decision = decided(&settings(), &known);
        let exposed: Vec<_> = decision
            .wanted
            .iter()
            .map(|desired| &desired.owner.job)
            .collect();
        assert_eq!(exposed, [&job(3, "fd00::3").id]);
        let shared = |refused: &&Refused| refused.reason == Reason::SharedAddress;
        assert!(decision.refused.iter().any(|one| shared(&one)));
    }
}

/// Any host may say that its job is anywhere.
#[test]
fn a_job_that_is_there_is_not_closed_by_another_that_claims_its_address() {
    let settings = settings();
    let on = |number: usize, host: usize| Job {
        host: HostId::parse(&format!("{host:08x}-0000-4000-8000-000000000000")),
        ..job(number, "fd00::1")
    };
    let owner = on(1, 1);
    let exposed = |jobs: Vec<Job>| -> Vec<JobId> {
        let mut decisions = Decisions::default();
        decided_by(&mut decisions, &settings, &known_jobs([owner.clone()]));
        let decision = decided_by(&mut decisions, &settings, &known_jobs(jobs));
        let wanted = decision.wanted.into_iter();
        wanted.map(|desired| desired.owner.job).collect()
    };
    let mine = vec![owner.id.clone()];
    assert_eq!(exposed(vec![owner.clone(), on(2, 2)]), mine);
    assert_eq!(exposed(vec![owner.clone(), on(2, 2), on(3, 3)]), mine);
    let doubtful = [
        (
            "its host does not answer",
            Job {
                host_live: Some(false),
                ..owner.clone()
            },
            on(2, 2),
        ),
        (
            "nobody knows whether its host does",
            Job {
                host_live: None,
                ..owner.clone()
            },
            on(2, 2),
        ),
        (
            "it is on its way out",
            Job {
                state: JobState::Terminating,
                ..owner.clone()
            },
            on(2, 2),
        ),
        ("its host has another job there", owner.clone(), on(2, 1)),
        (
            "the other may be on its host",
            owner.clone(),
            Job {
                host: None,
                ..on(2, 2)
            },
        ),
    ];
    for (why, owner, other) in doubtful {
        assert_eq!(exposed(vec![owner, other]), [], "{why}");
    }
    let moved = Job {
        address: Some("fd00::9".parse().expect("an address")),
        ..owner.clone()
    };
    assert_eq!(exposed(vec![moved, on(2, 2)]).len(), 2);
    assert_eq!(exposed(vec![on(2, 2)]), [on(2, 2).id]);
}

#[test]
fn an_ended_job_with_the_same_address_harms_nobody() {
    let ended = Job {
        state: JobState::Finalized,
        ..job(1, "fd00::1")
    };
    let decision = decided(&settings(), &known_jobs([ended, job(2, "fd00::1")]));
    assert_eq!(decision.wanted.len(), 1);
}

#[test]
fn what_was_exposed_before_stands_until_the_jobs_are_known() {
    let settings = settings();
    let owner = |number| Owner {
        job: job(number, "fd00::1").id,
        rule: RuleName::parse("ssh").expect("a name"),
        host: None,
    };
    let kept = |address: &str| Kept {
        address: address.parse().expect("an address"),
        since: SystemTime::UNIX_EPOCH,
    };
    let before = BTreeMap::from([
        (owner(1), kept("fd00::1")),
        (owner(2), kept("fd00::2")),
        (owner(3), kept("2001:db8::3")),
    ]);
    let remembered = [1, 2, 3].map(|number| (owner(number).job, Remembered::default()));
    let mut known = KnownJobs {
        remembered: remembered.into(),
        ..known_jobs([job(4, "fd00::2")])
    };
    let decided =
        |known: &KnownJobs| decided_after(&mut Decisions::default(), &before, &settings, known);
    let decision = decided(&known);
    let wanted: Vec<_> = decision
        .wanted
        .iter()
        .map(|desired| desired.owner.clone())
        .collect();
    assert_eq!(wanted, [owner(1)], "the others' addresses are not fit");
    assert_eq!(decision.wanted[0].evidence, Evidence::Kept);
    let mut remember = |asked, listed| {
        let remembered = Remembered { asked, listed };
        known.remembered.insert(owner(1).job, remembered);
        decided(&known)
    };
    let evidence = |decision: Decision| decision.wanted[0].evidence;
    assert_eq!(evidence(remember(true, None)), Evidence::AskedInVain);
    let listed = remember(true, Some(JobState::Ready));
    assert_eq!(evidence(listed), Evidence::Listed);
    let listed = remember(true, Some(JobState::Terminating));
    assert!(listed.wanted.is_empty());
    known.remembered = Default::default();
    let decision = decided(&known);
    let wanted: Vec<_> = decision
        .wanted
        .iter()
        .map(|desired| desired.owner.clone())
        .collect();
    assert_eq!(wanted, [owner(4)]);
}

#[test]
fn a_thousand_services_make_no_more_ports_than_there_are_rules() {
    let services = (0..1000).map(|number| Service {
        name: format!("s{number}").into(),
        protocol: "raw".into(),
    });
    let busy = Job {
        services: services.collect(),
        ..job(1, "fd00::1")
    };
    let three = with_rules(vec![
        rule("a", 1, Condition::Service("s999".to_owned())),
        rule("b", 2, Condition::Protocol("raw".to_owned())),
        rule("c", 3, Condition::Service("none".to_owned())),
    ]);
    let decision = decided(&three, &known_jobs([busy.clone()]));
    let rules_of = |decision: &Decision| -> Vec<String> {
        let desired = decision.wanted.iter();
        desired
            .map(|desired| desired.owner.rule.to_string())
            .collect()
    };
    assert_eq!(rules_of(&decision), ["a", "b"]);
    let one = Switchboard {
        max_per_job: 1,
        ..three
    };
    let decision = decided(&one, &known_jobs([busy]));
    assert_eq!(rules_of(&decision), ["a"], "the first rule counts most");
    assert_eq!(decision.refused[0].reason, Reason::TooMany);
}

#[test]
fn a_rule_for_some_hosts_exposes_no_job_on_another_and_says_so() {
    let here = Rule {
        hosts: vec!["fd00:1::/32".parse().expect("a prefix")],
        ..rule("here", 22, Condition::Always)
    };
    let both = with_rules(vec![here.clone(), rule("all", 23, Condition::Always)]);
    let known = known_jobs([job(1, "fd00:1::1"), job(2, "fd00:2::1")]);
    let decision = decided(&both, &known);
    let wanted = decision.wanted.iter().map(|one| one.target.to_string());
    let expected = ["[fd00:1::1]:22", "[fd00:1::1]:23", "[fd00:2::1]:23"];
    assert_eq!(wanted.collect::<Vec<_>>(), expected);
    let refused = &decision.refused[0];
    assert_eq!(refused.reason, Reason::OtherHosts);
    assert_eq!(refused.rule, Some(here.name.clone()));
    // It takes none of the ports that the job may have.
    let one = Switchboard {
        max_per_job: 1,
        ..both
    };
    let decision = decided(&one, &known_jobs([job(2, "fd00:2::1")]));
    assert_eq!(decision.wanted.len(), 1);
    let alone = decided(&with_rules(vec![here]), &known_jobs([job(2, "fd00:2::1")]));
    let reasons: Vec<_> = alone.refused.iter().map(|one| one.reason).collect();
    assert_eq!(reasons, [Reason::OtherHosts]);
}

#[test]
fn a_rule_for_ports_of_hosts_exposes_no_job_of_which_the_host_is_not_known() {
    let board = Rule {
        allocate: Allocate::Host,
        ..rule("board", 22, Condition::Always)
    };
    let both = with_rules(vec![board, rule("job", 23, Condition::Always)]);
    let host = HostId::parse("00000007-0000-4000-8000-000000000000");
    let on_host = Job {
        host: host.clone(),
        ..job(1, "fd00::1")
    };
    let decision = decided(&both, &known_jobs([on_host, job(2, "fd00::2")]));
    let wanted = decision.wanted.iter();
    let hosts: Vec<_> = wanted.map(|one| one.owner.host.clone()).collect();
    assert_eq!(hosts, [host, None, None]);
    let refused: Vec<_> = decision.refused.iter().map(|one| one.reason).collect();
    assert_eq!(refused, [Reason::HostUnknown]);
}

#[test]
fn names_with_anything_in_them_are_compared_and_nothing_else() {
    let evil = "../../\u{0}\n\u{202e}\"';<script>";
    let job = Job {
        services: vec![Service {
            name: evil.into(),
            protocol: evil.into(),
        }],
        ..job(1, "fd00::1")
    };
    let rules = vec![rule("a", 1, Condition::Protocol("raw".to_owned()))];
    let decision = decided(&with_rules(rules), &known_jobs([job.clone()]));
    assert_eq!(decision.refused[0].reason, Reason::NoRule);
    let decision = decided(&settings(), &known_jobs([job]));
    let name = decision.wanted[0].owner.mapping();
    assert_eq!(
        name.as_str(),
        "job/00000001-0000-4000-8000-000000000000/ssh"
    );
}

#[test]
fn a_job_whose_host_is_gone_too_long_is_not_exposed() {
    let settings = Switchboard {
        host_gone: Some(Duration::from_secs(300)),
        ..settings()
    };
    let mut known = known_jobs([job(1, "fd00::1")]);
    let id = job(1, "fd00::1").id;
    for (seconds, gone) in [(299, false), (300, true)] {
        let silent = Duration::from_secs(seconds);
        known.silent.insert(id.clone(), silent);
        let decision = decided(&settings, &known);
        let refused = decision.refused.first().map(|refused| refused.reason);
        assert_eq!(refused, gone.then_some(Reason::HostGone));
    }
}

#[test]
fn a_job_on_a_board_that_says_no_address_is_where_the_operator_says_its_board_is() {
    let board = "40000000-0000-4000-8000-000000000001";
    let addresses = [("lab-1", "fd00::11"), (board, "fd00::12")]
        .map(|(host, address)| (host.to_owned(), address.parse().expect("an address")));
    let settings = Switchboard {
        addresses: addresses.into(),
        ..settings()
    };
    let on = |name: Option<&str>, address: Option<&str>| Job {
        address: address.map(|address| address.parse().expect("an address")),
        host: HostId::parse(board),
        host_name: name.map(Into::into),
        ..job(1, "fd00::1")
    };
    for (job, expected) in [
        (on(Some("lab-1"), None), Ok("[fd00::11]:22")),
        (on(Some("lab-2"), None), Ok("[fd00::12]:22")),
        (on(Some("lab-1"), Some("fd00::5")), Ok("[fd00::5]:22")),
        (job(1, "2001:db8::1"), Err(Reason::NotAllowed)),
    ] {
        let decision = decided(&settings, &known_jobs([job]));
        let found = match decision.wanted.first() {
            Some(desired) => Ok(desired.target.to_string()),
            None => Err(decision.refused[0].reason),
        };
        assert_eq!(found, expected.map(str::to_owned));
    }
}

#[test]
fn an_address_of_another_family_than_the_one_to_connect_from_is_refused() {
    let settings = Switchboard {
        policy: Arc::new(Policy {
            bind: Some("fd00::9".parse().expect("an address")),
            ..Policy::default()
        }),
        ..settings()
    };
    let decision = decided(&settings, &known_jobs([job(1, "10.0.0.2")]));
    assert_eq!(decision.refused[0].reason, Reason::Family);
}

#[test]
fn every_closing_has_a_word_of_its_own() {
    let own = [Closing::Ended, Closing::RuleRemoved, Closing::RuleUnfit];
    let refused = Reason::ALL.iter().copied().map(Closing::Refused);
    let mut words = std::collections::HashSet::new();
    for closing in own.into_iter().chain(refused) {
        assert!(words.insert(closing.word()), "{} twice", closing.word());
    }
}

/// What is decided job by job is what would be decided of all of them at once.
mod one_by_one {
    use proptest::prelude::*;

    use super::*;

    /// A job, where it is, on which host, in which state, and whether that host is alive.
    type Step = (usize, Option<(u8, u8, bool, Option<bool>)>);

    fn step() -> impl Strategy<Value = Step> {
        let known = (1..5_u8, 1..4_u8, any::<bool>(), any::<Option<bool>>());
        (1..7_usize, proptest::option::weighted(0.8, known))
    }

    proptest! {
        #[test]
        fn is_all_at_once(steps in proptest::collection::vec(step(), 1..40)) {
            let settings = settings();
            let mut known = known_jobs([]);
            let mut decisions = Decisions::default();
            for (number, change) in steps {
                let before = known.clone();
                let id = job(number, "fd00::1").id;
                match change {
                    None => _ = known.jobs.remove(&id),
                    Some((address, host, is_ready, host_live)) => {
                        let host = format!("{host:08x}-0000-4000-8000-000000000000");
                        let job = Job {
                            state: if is_ready { JobState::Ready } else { JobState::Terminating },
                            host: HostId::parse(&host),
                            host_live,
                            ..job(number, &format!("fd00::{address}"))
                        };
                        known.jobs.insert(id, Arc::new(job));
                    }
                }
                let inputs = Inputs {
                    known_jobs: &known,
                    before: &BTreeMap::new(),
                    settings: &settings,
                    is_own: &|_| false,
                };
                let told = decisions.update(known.changed(&before), &inputs);
                let mut all = decisions.clone();
                let every: Vec<JobId> = (1..7).map(|number| job(number, "fd00::1").id).collect();
                let missed = all.update(&every, &inputs);
                prop_assert_eq!(missed, BTreeMap::new());
                for (job, before) in told {
                    prop_assert_ne!(decisions.of(&job).cloned().unwrap_or_default(), before);
                }
                // Of two at one address no more than one is exposed.
                let mut targets = BTreeSet::new();
                for desired in decisions.wanted() {
                    prop_assert!(targets.insert(desired.target));
                }
            }
        }
    }
}
