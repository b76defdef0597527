//! `tml-proxy ssh`: look up where a job can be reached, and become ssh.
//!
//! The host key is remembered under the job and not under the port: a port may be another job's one
//! day, and then a changed key is no attack.

use std::{
    io::Read,
    net::{TcpStream, ToSocketAddrs},
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
    thread,
    time::{Duration, Instant},
};

use super::{
    client::ClientError,
    code,
    endpoints::{absence, state},
    lookup::{LookupArgs, job_id},
    output,
};
use crate::{
    admin::api::model::{Absence, Endpoint},
    os_error::in_words,
    provider::switchboard::{JobId, PublicHost},
    units::parse_duration,
};

/// How often it is asked for a job that is waited for.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// How long a server may take, if there is another to try.
const ANSWERS_WITHIN: Duration = Duration::from_secs(3);

/// While nothing changes, a line this often says that it is still waited for.
const SAY_EVERY: Duration = Duration::from_secs(30);

/// A job that was submitted just now may not have been heard of for so long.
const APPEARS_WITHIN: Duration = Duration::from_secs(30);

/// Connect to a job with ssh.
///
/// The job's endpoint is looked up, then ssh is run: its options and a command may follow after
/// `--`.
#[derive(Debug, Clone, clap::Args)]
pub struct SshArgs {
    #[command(flatten)]
    lookup: LookupArgs,
    /// The rule that leads to the ssh server.
    #[arg(long, value_name = "NAME", default_value = "ssh")]
    rule: String,
    /// Wait for a job that is on its way, at most for TIME (such as 10m) if that is given.
    #[arg(
        long,
        value_name = "TIME",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "",
        value_parser = patience
    )]
    wait: Option<Patience>,
    /// The id of the job, with `USER@` before it to log in as somebody.
    #[arg(value_name = "JOB", value_parser = destination)]
    job: Destination,
    /// What else to give to ssh: options, or a command.
    #[arg(last = true)]
    args: Vec<String>,
}

#[derive(Debug, Clone)]
struct Destination {
    user: Option<String>,
    job: JobId,
}

fn destination(text: &str) -> Result<Destination, String> {
    let (user, job) = match text.rsplit_once('@') {
        Some((user, job)) => (Some(user), job),
        None => (None, text),
    };
    if user.is_some_and(|user| user.is_empty() || user.starts_with('-')) {
        return Err("allowed: a user that does not begin with a hyphen".to_owned());
    }
    Ok(Destination {
        user: user.map(str::to_owned),
        job: job_id(job)?,
    })
}

/// How long to wait for a job.
#[derive(Debug, Clone, Copy)]
struct Patience(Option<Duration>);

fn patience(text: &str) -> Result<Patience, String> {
    match text {
        "" => Ok(Patience(None)),
        text => parse_duration(text)
            .map(|time| Patience(Some(time)))
            .map_err(|error| format!("{error}; allowed: a time such as 10m")),
    }
}

/// What ssh is to know a job's host key by.
pub(super) fn host_key_alias(job: &str) -> String {
    format!("job-{job}")
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct SshEndpoint {
    pub host: String,
    pub port: u16,
}

impl SshEndpoint {
    /// The open port of a rule; what a server answers is not taken on trust.
    pub fn of(endpoint: &Endpoint) -> Option<Self> {
        PublicHost::parse(&endpoint.host)?;
        Some(Self {
            host: endpoint.host.clone(),
            port: endpoint.port.filter(|_| endpoint.state != "closed")?,
        })
    }

    /// Whether a server is there that speaks first, as those of ssh do.
    fn answers(&self) -> bool {
        let addresses = (self.host.as_str(), self.port).to_socket_addrs();
        addresses.into_iter().flatten().any(|address| {
            TcpStream::connect_timeout(&address, ANSWERS_WITHIN).is_ok_and(|mut stream| {
                let in_time = stream.set_read_timeout(Some(ANSWERS_WITHIN)).is_ok();
                let mut greeting = [0; 4];
                in_time && stream.read_exact(&mut greeting).is_ok() && greeting == *b"SSH-"
            })
        })
    }
}

/// If ssh runs, its exit code is that of the command.
pub fn run(args: &SshArgs) -> ExitCode {
    let Destination { user, job } = &args.job;
    let endpoint = match find(args) {
        Ok(endpoint) => endpoint,
        Err(code) => return code,
    };
    let error = command(&endpoint, user.as_deref(), job, &args.args).exec();
    output::complain(&format_args!("ssh: {}", in_words(&error)));
    ExitCode::from(code::FAILED)
}

/// Where the job is, once it is anywhere; otherwise what to leave with, which has been said.
fn find(args: &SshArgs) -> Result<SshEndpoint, ExitCode> {
    let job = &args.job.job;
    let began = Instant::now();
    let mut said: Option<(String, Instant)> = None;
    loop {
        let answer = args.lookup.endpoints(std::slice::from_ref(job));
        let words = match answer {
            Ok(endpoints) => {
                let rule = |endpoint: &&Endpoint| endpoint.rule.as_deref() == Some(&*args.rule);
                let of_rule = endpoints.iter().filter(rule);
                if let Some(endpoint) = answering(of_rule.filter_map(SshEndpoint::of).collect()) {
                    return Ok(endpoint);
                }
                let words = absent(&endpoints, job, &args.rule);
                let coming = is_coming(&endpoints, &args.rule, began.elapsed());
                if args.wait.is_none() || !coming {
                    output::complain(&format_args!("tml-proxy: {words}"));
                    return Err(ExitCode::from(code::REFUSED));
                }
                words
            }
            // Who has answered before will perhaps do so again.
            Err(
                error @ (ClientError::Unreachable { .. }
                | ClientError::NoServer { .. }
                | ClientError::Busy(_)),
            ) if args.wait.is_some() && said.is_some() => error.to_string(),
            Err(error) => return Err(output::give_up(&error, false)),
        };
        if let Some(Patience(Some(most))) = args.wait
            && began.elapsed() + ASK_EVERY > most
        {
            output::complain(&format_args!("tml-proxy: {words}; not waiting any longer"));
            return Err(ExitCode::from(code::REFUSED));
        }
        let news = said
            .as_ref()
            .is_none_or(|(before, at)| *before != words || at.elapsed() >= SAY_EVERY);
        if news {
            output::complain(&format_args!("tml-proxy: {words}; waiting"));
            said = Some((words, Instant::now()));
        }
        thread::sleep(ASK_EVERY);
    }
}

/// The first of several endpoints, nearest first, at which an ssh server answers; if none does, ssh says how it
/// is with the nearest.
fn answering(mut endpoints: Vec<SshEndpoint>) -> Option<SshEndpoint> {
    if endpoints.is_empty() {
        return None;
    }
    let place = match endpoints.len() {
        1 => 0,
        _ => (endpoints.iter().position(SshEndpoint::answers)).unwrap_or_default(),
    };
    for passed in &endpoints[..place] {
        let SshEndpoint { host, port } = passed;
        output::complain(&format_args!(
            "tml-proxy: nothing answers at {host} port {port}, trying the next"
        ));
    }
    Some(endpoints.swap_remove(place))
}

/// Whether a job that cannot be reached will perhaps be soon, `after` that time of waiting.
fn is_coming(endpoints: &[Endpoint], rule: &str, after: Duration) -> bool {
    let Some(endpoint) = about(endpoints, rule) else {
        return endpoints.is_empty() && after < APPEARS_WITHIN;
    };
    match endpoint.absence() {
        Some(Absence::Finished) => return false,
        Some(Absence::Unknown) => return after < APPEARS_WITHIN,
        Some(Absence::NotHeardOf) => return true,
        None => {}
    }
    match endpoint.reason.as_deref().unwrap_or_default() {
        "state" => matches!(
            endpoint.job_state.as_deref(),
            Some("queued" | "assigned" | "initializing" | "ready")
        ),
        "no_address" | "no_rule" | "no_port" | "not_opened" | "not_kept" | "not_confirmed" => true,
        _ => false,
    }
}

/// What is said of the rule, or of the job as a whole.
fn about<'a>(endpoints: &'a [Endpoint], rule: &str) -> Option<&'a Endpoint> {
    let of_rule = |endpoint: &&Endpoint| endpoint.rule.as_deref() == Some(rule);
    let whole = |endpoint: &&Endpoint| endpoint.rule.is_none();
    let found = endpoints.iter().find(of_rule);
    found.or_else(|| endpoints.iter().find(whole))
}

fn command(endpoint: &SshEndpoint, user: Option<&str>, job: &JobId, args: &[String]) -> Command {
    let mut command = Command::new("ssh");
    let alias = format!("HostKeyAlias={}", host_key_alias(job.as_str()));
    command.args(["-o", &alias, "-p", &endpoint.port.to_string()]);
    if let Some(user) = user {
        command.args(["-l", user]);
    }
    // Options may follow the host, so that those of the caller and a command go here together.
    command.arg(&endpoint.host).args(args);
    command
}

pub(super) fn absent(endpoints: &[Endpoint], job: &JobId, rule: &str) -> String {
    if let Some(why) = absence(endpoints, job) {
        return why;
    }
    let of_job = endpoints.iter().filter(|one| one.job == job.as_str());
    let of_job: Vec<_> = of_job.cloned().collect();
    match about(&of_job, rule) {
        Some(endpoint) => format!("{job}: {rule:?} is {}", state(endpoint)),
        None => {
            let rules: Vec<_> = of_job.iter().filter_map(|e| e.rule.as_deref()).collect();
            format!(
                "{job}: there is no endpoint {rule:?}, but: {}",
                rules.join(", ")
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: &str = "00000001-0000-4000-8000-000000000000";

    fn endpoint(state: &str) -> Endpoint {
        Endpoint {
            job: JOB.to_owned(),
            rule: Some("ssh".to_owned()),
            host: "p.example.org".to_owned(),
            port: Some(40_001),
            state: state.to_owned(),
            ..Endpoint::default()
        }
    }

    #[test]
    fn ssh_is_told_where_and_whose_host_key_it_is() {
        let job = JobId::parse(JOB).expect("an id");
        let endpoint = SshEndpoint::of(&endpoint("open")).expect("it is open");
        let command = command(
            &endpoint,
            Some("tml"),
            &job,
            &["-v".to_owned(), "uptime".to_owned()],
        );
        let words: Vec<_> = command
            .get_args()
            .map(|word| word.to_string_lossy())
            .collect();
        let expected = format!("-o HostKeyAlias=job-{JOB} -p 40001 -l tml p.example.org -v uptime");
        assert_eq!(words.join(" "), expected);
    }

    #[test]
    fn an_answer_cannot_make_an_option_of_the_host() {
        let evil = Endpoint {
            host: "-oProxyCommand=sh".to_owned(),
            ..endpoint("open")
        };
        assert_eq!(SshEndpoint::of(&evil), None);
        assert!(destination(&format!("-l@{JOB}")).is_err());
    }

    #[test]
    fn a_job_that_cannot_be_reached_is_told_why() {
        let job = JobId::parse(JOB).expect("an id");
        let waiting = Endpoint {
            port: None,
            reason: Some("no_port".to_owned()),
            ..endpoint("waiting")
        };
        assert!(absent(&[waiting], &job, "ssh").ends_with("waiting (no_port)"));
        assert!(absent(&[endpoint("open")], &job, "web").ends_with("but: ssh"));
        let finished = of_job("finished", None);
        assert_eq!(absent(&[finished], &job, "ssh"), format!("{JOB}: finished"));
    }

    fn of_job(reason: &str, job_state: Option<&str>) -> Endpoint {
        Endpoint {
            rule: None,
            port: None,
            reason: Some(reason.to_owned()),
            job_state: job_state.map(str::to_owned),
            ..endpoint("closed")
        }
    }

    #[test]
    fn a_job_is_waited_for_while_it_is_on_its_way() {
        let coming = |reason, state, after| {
            is_coming(&[of_job(reason, state)], "ssh", Duration::from_secs(after))
        };
        for state in ["queued", "assigned", "initializing"] {
            assert!(coming("state", Some(state), 3600), "{state}");
        }
        assert!(!coming("state", Some("terminating"), 0));
        assert!(coming("no_address", None, 3600) && coming("not_heard_of", None, 3600));
        assert!(!coming("finished", None, 0) && !coming("address_not_allowed", None, 0));
        assert!(coming("unknown", None, 0) && !coming("unknown", None, 3600));
    }
}
