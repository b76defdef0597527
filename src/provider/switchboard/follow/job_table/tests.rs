use proptest::prelude::*;

use super::*;
use crate::provider::switchboard::{
    HostId,
    client::{ConnectCause, FailureKind},
};

fn id(number: u32) -> JobId {
    JobId::parse(&format!("10b00000-0000-7000-8000-{number:012}")).expect("an id")
}

fn row(number: u32, state: JobState) -> Row {
    Row {
        id: id(number),
        state: Some(state),
        position: None,
    }
}

fn detail(number: u32, state: JobState) -> Result<Detail, Failure> {
    Ok(Detail {
        job: Job {
            id: id(number),
            state,
            address: Some("fd00::5".parse().expect("an address")),
            services: Vec::new(),
            host: HostId::parse("40000000-0000-4000-8000-000000000001"),
            host_name: None,
            host_live: None,
        },
        left_out: 0,
    })
}

/// A table that knows jobs 1 to `jobs`, all ready.
fn table(jobs: u32) -> JobTable {
    let mut table = JobTable::new(&KnownJobs::default());
    for number in 1..=jobs {
        assert_eq!(seen(&mut table, number, JobState::Ready), RowMeaning::New);
        let meaning = table.answer(&id(number), &detail(number, JobState::Ready));
        assert!(matches!(meaning, AnswerMeaning::Appeared { .. }));
    }
    table.changed();
    table
}

/// What a row of a listing that begins now means.
fn seen(table: &mut JobTable, number: u32, state: JobState) -> RowMeaning {
    let now = table.now();
    table.row(&row(number, state), now, true)
}

/// A listing that began at `began`, had by an account with the right to all jobs or without.
fn listed_since(
    table: &mut JobTable,
    began: Sequence,
    jobs: &[u32],
    of_all: bool,
) -> (Vec<JobId>, Vec<JobId>) {
    let missing = table.listing(&Listing {
        began,
        present: &present(jobs),
        down_to: None,
        of_all,
    });
    (missing.ended, missing.doubtful)
}

/// One that begins now, of all jobs.
fn listed(table: &mut JobTable, jobs: &[u32]) -> (Vec<JobId>, Vec<JobId>) {
    let now = table.now();
    listed_since(table, now, jobs, true)
}

fn known(table: &mut JobTable) -> Vec<JobId> {
    table.news = true;
    let news = table.changed().expect("news");
    news.jobs.keys().cloned().collect()
}

/// What is known of a job, as far as that is news.
fn job_of(table: &mut JobTable, number: u32) -> Arc<Job> {
    let news = table.changed().expect("news");
    Arc::clone(news.jobs.get(&id(number)).expect("it is known"))
}

/// The same of one that is remembered.
fn remembered_of(table: &mut JobTable, number: u32) -> Remembered {
    let news = table.changed().expect("news");
    *news.remembered.get(&id(number)).expect("it is remembered")
}

fn present(jobs: &[u32]) -> HashSet<JobId> {
    jobs.iter().map(|number| id(*number)).collect()
}

fn failures() -> [Failure; 8] {
    let status = 500;
    [
        Failure::Connect {
            cause: ConnectCause::Other,
            words: "x".into(),
        },
        Failure::Cut("x".into()),
        Failure::Unauthorized,
        Failure::Forbidden,
        Failure::NotFound,
        Failure::Server { status },
        Failure::TooLarge {
            found: None,
            allowed: 1,
        },
        Failure::invalid("x"),
    ]
}

#[test]
fn no_failure_alone_ends_a_job() {
    let mut table = table(1);
    for failure in failures() {
        let meaning = table.answer(&id(1), &Err(failure.clone()));
        assert!(
            matches!(meaning, AnswerMeaning::Same | AnswerMeaning::Doubtful),
            "{failure}"
        );
        assert!(table.changed().is_none());
    }
}

#[test]
fn a_finalized_job_is_gone_at_once_and_late_answers_do_not_bring_it_back() {
    let mut table = table(2);
    let meaning = table.answer(&id(1), &detail(1, JobState::Finalized));
    assert_eq!(meaning, AnswerMeaning::Ended);
    let began = table.now();
    assert_eq!(seen(&mut table, 2, JobState::Finalized), RowMeaning::Ended);
    assert!(table.changed().expect("news").jobs.is_empty());
    // Answers that were under way.
    let late = row(2, JobState::Ready);
    assert_eq!(table.row(&late, began, true), RowMeaning::Known);
    assert_eq!(
        table.answer(&id(1), &detail(1, JobState::Ready)),
        AnswerMeaning::Same
    );
    assert!(table.changed().is_none());
}

#[test]
fn a_job_missing_from_a_complete_listing_is_asked_about_first() {
    let mut table = table(2);
    assert_eq!(listed(&mut table, &[2]), (vec![], vec![id(1)]));
    assert_eq!(known(&mut table), [id(1), id(2)]);
    let gone = Err(Failure::Server { status: 500 });
    assert_eq!(table.answer(&id(1), &gone), AnswerMeaning::Ended);
    assert_eq!(known(&mut table), [id(2)]);
}

#[test]
fn a_job_that_answers_is_there_whatever_a_listing_says() {
    let mut table = table(2);
    for _ in 0..3 {
        assert_eq!(listed(&mut table, &[2]), (vec![], vec![id(1)]));
        table.answer(&id(1), &detail(1, JobState::Ready));
    }
    assert_eq!(known(&mut table), [id(1), id(2)]);
}

#[test]
fn a_job_twice_missing_is_gone_although_nobody_answered() {
    let mut table = table(2);
    listed(&mut table, &[2]);
    table.answer(&id(1), &Err(Failure::Cut("x".into())));
    assert_eq!(known(&mut table), [id(1), id(2)]);
    assert_eq!(listed(&mut table, &[2]), (vec![id(1)], vec![]));
    assert_eq!(known(&mut table), [id(2)]);
}

#[test]
fn an_account_without_rights_ends_nothing_whatever_it_is_told() {
    let mut table = table(3);
    for jobs in [&[][..], &[3], &[], &[3]] {
        let now = table.now();
        let (ended, _) = listed_since(&mut table, now, jobs, false);
        assert_eq!(ended.len(), 0);
        for number in [1, 2] {
            for failure in [
                Failure::Forbidden,
                Failure::Unauthorized,
                Failure::Server { status: 500 },
            ] {
                let meaning = table.answer(&id(number), &Err(failure));
                assert!(matches!(
                    meaning,
                    AnswerMeaning::Same | AnswerMeaning::Doubtful
                ));
            }
        }
    }
    assert_eq!(known(&mut table).len(), 3);
    let now = table.now();
    listed_since(&mut table, now, &[3], false);
    assert_eq!(
        table.answer(&id(1), &Err(Failure::NotFound)),
        AnswerMeaning::Ended,
        "that is about the job"
    );
}

#[test]
fn a_refusal_ends_no_job_that_is_missing_from_a_listing() {
    let mut table = table(2);
    listed(&mut table, &[2]);
    for failure in [Failure::Forbidden, Failure::Unauthorized] {
        assert_eq!(table.answer(&id(1), &Err(failure)), AnswerMeaning::Same);
    }
    assert_eq!(known(&mut table).len(), 2);
}

#[test]
fn a_job_that_a_listing_has_again_is_followed_again_whatever_was_concluded() {
    let mut table = table(2);
    listed(&mut table, &[2]);
    table.answer(&id(1), &Err(Failure::NotFound));
    assert_eq!(known(&mut table), [id(2)]);
    assert_eq!(seen(&mut table, 1, JobState::Ready), RowMeaning::New);
    table.answer(&id(1), &detail(1, JobState::Ready));
    assert_eq!(known(&mut table), [id(1), id(2)]);
}

#[test]
fn many_jobs_that_are_missing_at_once_are_held_back_until_another_listing() {
    let mut table = table(12);
    let rest = [1, 2, 3, 4, 5, 6];
    let (ended, asked) = listed(&mut table, &rest);
    assert_eq!((ended.len(), asked.len(), table.held()), (0, 6, 6));
    for number in 7..=12 {
        let gone = Err(Failure::NotFound);
        assert_eq!(table.answer(&id(number), &gone), AnswerMeaning::Same);
    }
    assert_eq!(known(&mut table).len(), 12);
    // One of them turns out to be there.
    assert_eq!(
        table.answer(&id(7), &detail(7, JobState::Ready)),
        AnswerMeaning::Same
    );
    assert_eq!(table.held(), 5);
    let (ended, asked) = listed(&mut table, &[1, 2, 3, 4, 5, 6, 7]);
    assert_eq!((ended.len(), asked.len(), table.held()), (5, 0, 0));
    assert_eq!(known(&mut table).len(), 7);
}

#[test]
fn few_jobs_that_are_missing_are_not_held_back() {
    let mut table = table(5);
    listed(&mut table, &[]);
    assert_eq!(table.held(), 0);
    let mut table = self::table(100);
    let rest: Vec<_> = (1..=70).collect();
    listed(&mut table, &rest);
    assert_eq!(table.held(), 0);
}

#[test]
fn a_walk_that_ends_early_says_nothing_of_what_is_below() {
    let at = |number: u32| Position::parse(&format!("2026-11-24T00:00:{number:02}Z"), &id(number));
    let mut table = table(0);
    for number in 1..=4 {
        let now = table.now();
        let row = Row {
            position: at(number),
            ..row(number, JobState::Ready)
        };
        table.row(&row, now, true);
        table.answer(&id(number), &detail(number, JobState::Ready));
    }
    let missing = table.listing(&Listing {
        began: table.now(),
        present: &present(&[4]),
        down_to: at(2).as_ref(),
        of_all: true,
    });
    assert_eq!(missing.doubtful, [id(3)]);
    let others = table.ids().filter(|job| **job != id(1));
    assert_eq!(table.lowest(others), at(2).as_ref());
}

#[test]
fn the_last_job_to_end_is_gone_from_an_empty_listing() {
    let mut table = table(1);
    listed(&mut table, &[]);
    assert_eq!(
        table.answer(&id(1), &detail(1, JobState::Finalized)),
        AnswerMeaning::Ended
    );
}

#[test]
fn a_job_that_came_during_a_walk_is_not_missed_by_it() {
    let mut table = table(1);
    let began = table.now();
    seen(&mut table, 2, JobState::Queued);
    table.answer(&id(2), &detail(2, JobState::Queued));
    assert_eq!(
        listed_since(&mut table, began, &[1], true),
        (vec![], vec![])
    );
}

#[test]
fn what_was_known_before_a_start_stays_until_an_answer() {
    let before = {
        let mut table = table(3);
        table.news = true;
        table.changed().expect("news")
    };
    let mut table = JobTable::new(&before);
    assert!(table.changed().is_none());
    assert_eq!(known(&mut table).len(), 3);
    let (_, doubtful) = listed(&mut table, &[1, 2]);
    assert_eq!(doubtful, [id(3)]);
}

#[test]
fn a_dead_host_shows_on_its_jobs() {
    let mut table = table(1);
    let host = "40000000-0000-4000-8000-000000000001";
    for live in [true, false] {
        let body = format!(r#"[{{"host_id":"{host}","live":{live}}}]"#);
        let hosts = crate::provider::switchboard::read::hosts(body.as_bytes()).expect("hosts");
        table.hosts_read(hosts, Instant::now(), Duration::from_secs(15));
        assert_eq!(job_of(&mut table, 1).host_live, Some(live));
    }
    // A reading of the job does not forget it.
    assert_eq!(
        table.answer(&id(1), &detail(1, JobState::Ready)),
        AnswerMeaning::Same
    );
}

#[test]
fn neither_a_new_start_nor_a_reading_without_the_host_takes_its_name_away() {
    let hosts = |body: &str| crate::provider::switchboard::read::hosts(body.as_bytes());
    let apart = Duration::from_secs(15);
    let mut known = table(1);
    let row = r#"[{"host_id":"40000000-0000-4000-8000-000000000001","name":"b","live":true}]"#;
    known.hosts_read(hosts(row).expect("hosts"), Instant::now(), apart);
    let news = known.changed().expect("news");
    // With other settings everything is asked for anew, a job perhaps before the hosts.
    let mut table = JobTable::new(&news);
    assert_eq!(
        table.answer(&id(1), &detail(1, JobState::Ready)),
        AnswerMeaning::Same
    );
    table.hosts_read(hosts("[]").expect("hosts"), Instant::now(), apart);
    let job = job_of(&mut table, 1);
    assert_eq!((job.host_name.as_deref(), job.host_live), (Some("b"), None));
    assert_eq!(
        table.answer(&id(1), &detail(1, JobState::Ready)),
        AnswerMeaning::Same
    );
}

#[test]
fn what_was_found_out_of_a_remembered_job_is_known_to_the_next_follower() {
    let mut table = JobTable::new(&KnownJobs::remembering([1, 2].map(id)));
    table.answer(&id(1), &Err(Failure::Forbidden));
    seen(&mut table, 2, JobState::Terminating);
    let before = table.changed().expect("news");
    let mut table = JobTable::new(&before);
    table.news = true;
    assert_eq!(table.changed().expect("news").remembered, before.remembered);
}

#[test]
fn a_remembered_job_is_listed_asked_about_and_ended_like_any_other() {
    let remembered = |table: &mut JobTable| {
        table.news = true;
        table.changed().expect("news").remembered
    };
    let mut table = JobTable::new(&KnownJobs::remembering([1, 2, 3].map(id)));
    assert_eq!(remembered(&mut table).len(), 3);
    table.answer(&id(1), &Err(Failure::Forbidden));
    assert!(remembered_of(&mut table, 1).asked);
    seen(&mut table, 1, JobState::Ready);
    let listed = remembered_of(&mut table, 1).listed;
    assert_eq!(listed, Some(JobState::Ready));
    assert_eq!(seen(&mut table, 2, JobState::Finalized), RowMeaning::Ended);
    table.answer(&id(3), &detail(3, JobState::Ready));
    let news = table.changed().expect("news");
    assert!(news.remembered.keys().eq([&id(1)]));
    assert!(news.jobs.keys().eq([&id(3)]));
}

#[test]
fn a_host_is_in_use_as_long_as_a_job_is_on_it() {
    let host = HostId::parse("40000000-0000-4000-8000-000000000001").expect("an id");
    let mut table = table(2);
    assert!(table.hosts.is_in_use(&host));
    assert_eq!(table.hosts.turned(), std::slice::from_ref(&host));
    seen(&mut table, 1, JobState::Finalized);
    assert!(table.hosts.is_in_use(&host) && table.hosts.turned().is_empty());
    seen(&mut table, 2, JobState::Finalized);
    assert!(!table.hosts.is_in_use(&host));
    assert_eq!(table.hosts.turned(), [host]);
}

/// Something that happens to a table.
#[derive(Debug, Clone)]
enum Step {
    Row(u32, JobState),
    Good(u32, JobState),
    Bad(u32, usize),
    Listed(Vec<u32>, bool),
}

fn step() -> impl Strategy<Value = Step> {
    let states = prop_oneof![
        4 => Just(JobState::Ready),
        2 => Just(JobState::Queued),
        1 => Just(JobState::Finalized),
    ];
    let job = 1..6u32;
    prop_oneof![
        (job.clone(), states.clone()).prop_map(|(job, state)| Step::Row(job, state)),
        (job.clone(), states).prop_map(|(job, state)| Step::Good(job, state)),
        (job.clone(), 0..8usize).prop_map(|(job, failure)| Step::Bad(job, failure)),
        (proptest::collection::vec(job, 0..6), any::<bool>())
            .prop_map(|(jobs, of_all)| Step::Listed(jobs, of_all)),
    ]
}

proptest! {
    /// Whatever comes in whatever order: a known job only goes by an answer that it is finalized,
    /// after a complete listing of all jobs without it, or by 404 after any; and it only comes back
    /// by a row that is newer than that.
    #[test]
    fn only_proof_removes_a_job(steps in proptest::collection::vec(step(), 0..60)) {
        let mut table = table(5);
        let mut here: HashSet<_> = (1..6).map(id).collect();
        let (mut of_all, mut of_some) = (HashSet::new(), HashSet::new());
        for step in steps {
            let mut may_end = HashSet::new();
            let mut may_come = HashSet::new();
            match step {
                Step::Row(job, state) => {
                    seen(&mut table, job, state);
                    match state {
                        JobState::Finalized => may_end.insert(id(job)),
                        _ => may_come.insert(id(job)),
                    };
                    of_all.remove(&id(job));
                    of_some.remove(&id(job));
                }
                Step::Good(job, state) => {
                    let was_followed = table.ids().any(|known| *known == id(job));
                    table.answer(&id(job), &detail(job, state));
                    of_all.remove(&id(job));
                    of_some.remove(&id(job));
                    match state {
                        JobState::Finalized => may_end.insert(id(job)),
                        _ if was_followed => may_come.insert(id(job)),
                        _ => false,
                    };
                }
                Step::Bad(job, failure) => {
                    let failure = failures()[failure].clone();
                    let proven = match failure.kind() {
                        FailureKind::NotFound => of_some.contains(&id(job)),
                        FailureKind::Server => of_all.contains(&id(job)),
                        _ => false,
                    };
                    if matches!(failure.kind(), FailureKind::Forbidden | FailureKind::Unauthorized) {
                        of_all.remove(&id(job));
                        of_some.remove(&id(job));
                    }
                    table.answer(&id(job), &Err(failure));
                    if proven {
                        may_end.insert(id(job));
                    }
                }
                Step::Listed(jobs, all) => {
                    let present = present(&jobs);
                    let missing: HashSet<_> =
                        (1..6).map(id).filter(|job| !present.contains(job)).collect();
                    if all {
                        may_end.extend(missing.intersection(&of_all).cloned());
                    }
                    of_some.clone_from(&missing);
                    match all {
                        true => of_all.clone_from(&missing),
                        false => of_all.clear(),
                    }
                    let now = table.now();
                    listed_since(&mut table, now, &jobs, all);
                }
            }
            let known: HashSet<_> = known(&mut table).into_iter().collect();
            for gone in here.difference(&known) {
                prop_assert!(may_end.contains(gone));
            }
            for come in known.difference(&here) {
                prop_assert!(may_come.contains(come));
            }
            here = known;
        }
    }
}
