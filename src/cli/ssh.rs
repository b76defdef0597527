//! `tml-proxy ssh`: look up where a job can be reached, and become ssh.
//!
//! The host key is remembered under the job and not under the port: a port may be another job's one
//! day, and then a changed key is no attack.

use std::{
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
};

use super::{
    code,
    endpoints::{Asked, job_id},
    output,
};
use crate::{
    admin::api::model::Endpoint, config::PublicHost, os_error::in_words,
    provider::switchboard::JobId,
};

/// Connect to a job with ssh.
///
/// The job's endpoint is looked up, then ssh is run: its options and a command may follow after
/// `--`.
#[derive(Debug, Clone, clap::Args)]
pub struct SshArgs {
    #[command(flatten)]
    asked: Asked,
    /// The rule that leads to the ssh server.
    #[arg(long, value_name = "NAME", default_value = "ssh")]
    rule: String,
    /// The id of the job, with `USER@` before it to log in as somebody.
    #[arg(value_name = "JOB", value_parser = destination)]
    job: Destination,
    /// What else to give to ssh: options, or a command.
    #[arg(last = true)]
    args: Vec<String>,
}

/// A job, and perhaps a user there.
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

/// What ssh is to know a job's host key by.
pub(super) fn host_key_alias(job: &str) -> String {
    format!("job-{job}")
}

/// Where ssh has to connect to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Door {
    pub host: String,
    pub port: u16,
}

impl Door {
    /// The open port of a rule; what a server answers is not taken on trust.
    pub fn of(endpoint: &Endpoint) -> Option<Self> {
        PublicHost::parse(&endpoint.host)?;
        Some(Self {
            host: endpoint.host.clone(),
            port: endpoint.port.filter(|_| endpoint.state != "closed")?,
        })
    }
}

/// Runs the command. If ssh runs, its exit code is that of the command.
pub fn run(args: &SshArgs) -> ExitCode {
    let Destination { user, job } = &args.job;
    let endpoints = match args.asked.endpoints(Some(job)) {
        Ok(endpoints) => endpoints,
        Err(error) => return output::give_up(&error),
    };
    let rule = |endpoint: &&Endpoint| endpoint.rule.as_deref() == Some(&*args.rule);
    let Some(door) = endpoints.iter().find(rule).and_then(Door::of) else {
        output::complain(&format_args!("{}", absent(&endpoints, job, &args.rule)));
        return ExitCode::from(code::REFUSED);
    };
    let error = command(&door, user.as_deref(), job, &args.args).exec();
    output::complain(&format_args!("ssh: {}", in_words(&error)));
    ExitCode::from(code::FAILED)
}

fn command(door: &Door, user: Option<&str>, job: &JobId, args: &[String]) -> Command {
    let mut command = Command::new("ssh");
    let alias = format!("HostKeyAlias={}", host_key_alias(job.as_str()));
    command.args(["-o", &alias, "-p", &door.port.to_string()]);
    if let Some(user) = user {
        command.args(["-l", user]);
    }
    // Options may follow the host, so that those of the caller and a command go here together.
    command.arg(&door.host).args(args);
    command
}

/// Why there is no way to a job.
fn absent(endpoints: &[Endpoint], job: &JobId, rule: &str) -> String {
    let why = |endpoint: &Endpoint| {
        let reason = endpoint.reason.as_deref().unwrap_or("no reason given");
        format!("{} ({reason})", endpoint.state)
    };
    let of_rule = |endpoint: &&Endpoint| endpoint.rule.as_deref() == Some(rule);
    let whole = |endpoint: &&Endpoint| endpoint.rule.is_none();
    match endpoints
        .iter()
        .find(of_rule)
        .or_else(|| endpoints.iter().find(whole))
    {
        Some(endpoint) => format!("job {job} cannot be reached by {rule:?}: {}", why(endpoint)),
        None if endpoints.is_empty() => format!("there is no job {job}"),
        None => {
            let rules: Vec<_> = endpoints.iter().filter_map(|e| e.rule.as_deref()).collect();
            format!(
                "job {job} has no endpoint {rule:?}, but: {}",
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
        let door = Door::of(&endpoint("open")).expect("it is open");
        let command = command(
            &door,
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
        assert_eq!(Door::of(&evil), None);
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
    }
}
