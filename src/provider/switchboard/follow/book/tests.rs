use proptest::prelude::*;

use super::*;

fn id(number: u32) -> JobId {
    JobId::parse(&format!("10b00000-0000-7000-8000-{number:012}")).expect("an id")
}

fn row(number: u32, state: JobState) -> Row {
    Row {
        id: id(number),
        state: Some(state),
    }
}

fn detail(number: u32, state: JobState) -> Result<Detail, Failure> {
    Ok(Detail {
        job: Job {
            id: id(number),
            state,
            address: Some("fd00::5".parse().expect("an address")),
            services: Vec::new(),
            host_live: None,
        },
        host: HostId::parse("40000000-0000-4000-8000-000000000001"),
        left_out: 0,
    })
}

/// A book that knows jobs 1 to `jobs`, all ready.
fn book(jobs: u32) -> Book {
    let mut book = Book::new(&Knowledge::default());
    for number in 1..=jobs {
        assert_eq!(book.row(&row(number, JobState::Ready), true), Seen::New);
        let verdict = book.job(&id(number), &detail(number, JobState::Ready));
        assert!(matches!(verdict, Verdict::Appeared { .. }));
    }
    book.news();
    book
}

fn known(book: &mut Book) -> Vec<JobId> {
    book.changed = true;
    book.news().expect("news").jobs.into_keys().collect()
}

fn present(jobs: &[u32]) -> HashSet<JobId> {
    jobs.iter().map(|number| id(*number)).collect()
}

fn failures() -> [Failure; 8] {
    let status = 500;
    [
        Failure::Connect("x".into()),
        Failure::Cut("x".into()),
        Failure::Unauthorized,
        Failure::Forbidden,
        Failure::NotFound,
        Failure::Server { status },
        Failure::TooLarge {
            found: None,
            allowed: 1,
        },
        Failure::Invalid("x".into()),
    ]
}

#[test]
fn no_failure_alone_ends_a_job() {
    let mut book = book(1);
    for failure in failures() {
        let verdict = book.job(&id(1), &Err(failure.clone()));
        assert!(
            matches!(verdict, Verdict::Same | Verdict::Doubtful),
            "{failure}"
        );
        assert!(book.news().is_none());
    }
}

#[test]
fn a_finalized_job_is_gone_at_once_and_for_ever() {
    let mut book = book(2);
    let verdict = book.job(&id(1), &detail(1, JobState::Finalized));
    assert_eq!(verdict, Verdict::Ended);
    assert_eq!(book.row(&row(2, JobState::Finalized), true), Seen::Ended);
    assert!(book.news().expect("news").jobs.is_empty());
    // Answers that were under way.
    assert_eq!(book.row(&row(1, JobState::Ready), true), Seen::Known);
    assert_eq!(book.job(&id(1), &detail(1, JobState::Ready)), Verdict::Same);
    assert!(book.news().is_none());
}

#[test]
fn a_job_missing_from_a_complete_listing_is_asked_about_first() {
    let mut book = book(2);
    let now = book.now();
    assert_eq!(book.listed(now, &present(&[2])), (vec![], vec![id(1)]));
    assert_eq!(known(&mut book), [id(1), id(2)]);
    let gone = Err(Failure::Server { status: 500 });
    assert_eq!(book.job(&id(1), &gone), Verdict::Ended);
    assert_eq!(known(&mut book), [id(2)]);
}

#[test]
fn a_job_that_answers_is_there_whatever_a_listing_says() {
    let mut book = book(2);
    for _ in 0..3 {
        let now = book.now();
        assert_eq!(book.listed(now, &present(&[2])), (vec![], vec![id(1)]));
        book.job(&id(1), &detail(1, JobState::Ready));
    }
    assert_eq!(known(&mut book), [id(1), id(2)]);
}

#[test]
fn a_job_twice_missing_is_gone_although_nobody_answered() {
    let mut book = book(2);
    let now = book.now();
    book.listed(now, &present(&[2]));
    book.job(&id(1), &Err(Failure::Cut("x".into())));
    assert_eq!(known(&mut book), [id(1), id(2)]);
    assert_eq!(book.listed(now, &present(&[2])), (vec![id(1)], vec![]));
    assert_eq!(known(&mut book), [id(2)]);
}

#[test]
fn an_account_without_rights_sees_nothing_and_ends_nothing() {
    let mut book = book(2);
    for _ in 0..3 {
        let now = book.now();
        let (ended, doubtful) = book.listed(now, &present(&[]));
        assert_eq!((ended.len(), doubtful.len()), (0, 2));
        for number in [1, 2] {
            assert_eq!(
                book.job(&id(number), &Err(Failure::Forbidden)),
                Verdict::Same
            );
        }
    }
    assert_eq!(known(&mut book).len(), 2);
}

#[test]
fn the_last_job_to_end_is_gone_from_an_empty_listing() {
    let mut book = book(1);
    let now = book.now();
    book.listed(now, &present(&[]));
    assert_eq!(
        book.job(&id(1), &detail(1, JobState::Finalized)),
        Verdict::Ended
    );
}

#[test]
fn a_job_that_came_during_a_walk_is_not_missed_by_it() {
    let mut book = book(1);
    let began = book.now();
    book.row(&row(2, JobState::Queued), true);
    book.job(&id(2), &detail(2, JobState::Queued));
    assert_eq!(book.listed(began, &present(&[1])), (vec![], vec![]));
}

#[test]
fn what_was_known_before_a_start_stays_until_an_answer() {
    let before = {
        let mut book = book(3);
        book.changed = true;
        book.news().expect("news")
    };
    let mut book = Book::new(&before);
    assert!(book.news().is_none());
    assert_eq!(known(&mut book).len(), 3);
    let now = book.now();
    let (_, doubtful) = book.listed(now, &present(&[1, 2]));
    assert_eq!(doubtful, [id(3)]);
}

#[test]
fn a_dead_host_shows_on_its_jobs() {
    let mut book = book(1);
    let host = "40000000-0000-4000-8000-000000000001";
    for live in [true, false] {
        let body = format!(r#"[{{"host_id":"{host}","live":{live}}}]"#);
        book.hosts(crate::provider::switchboard::read::hosts(body.as_bytes()).expect("hosts"));
        assert_eq!(
            book.news().expect("news").jobs[&id(1)].host_live,
            Some(live)
        );
    }
    // A reading of the job does not forget it.
    assert_eq!(book.job(&id(1), &detail(1, JobState::Ready)), Verdict::Same);
}

/// Something that happens to a book.
#[derive(Debug, Clone)]
enum Step {
    Row(u32, JobState),
    Good(u32, JobState),
    Bad(u32, usize),
    Listed(Vec<u32>),
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
        proptest::collection::vec(job, 0..6).prop_map(Step::Listed),
    ]
}

proptest! {
    /// Whatever comes in whatever order: a known job only goes by a valid answer that it is
    /// finalized, or after a complete listing without it; and none comes back.
    #[test]
    fn only_proof_removes_a_job(steps in proptest::collection::vec(step(), 0..60)) {
        let mut book = book(5);
        let (mut proven, mut missing) = (HashSet::new(), HashSet::new());
        for step in steps {
            match step {
                Step::Row(job, state) => {
                    book.row(&row(job, state), true);
                    if state == JobState::Finalized {
                        proven.insert(id(job));
                    }
                }
                Step::Good(job, state) => {
                    book.job(&id(job), &detail(job, state));
                    missing.remove(&id(job));
                    if state == JobState::Finalized {
                        proven.insert(id(job));
                    }
                }
                Step::Bad(job, failure) => {
                    book.job(&id(job), &Err(failures()[failure].clone()));
                }
                Step::Listed(jobs) => {
                    let (now, present) = (book.now(), present(&jobs));
                    missing.extend((1..6).map(id).filter(|job| !present.contains(job)));
                    missing.retain(|job| !present.contains(job));
                    book.listed(now, &present);
                }
            }
            let known: HashSet<_> = known(&mut book).into_iter().collect();
            for job in (1..6).map(id) {
                match known.contains(&job) {
                    true => prop_assert!(!proven.contains(&job)),
                    false => {
                        prop_assert!(proven.contains(&job) || missing.contains(&job));
                        proven.insert(job);
                    }
                }
            }
        }
    }
}
