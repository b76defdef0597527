//! `tml-proxy ssh-config`: jobs as hosts of ssh.

use std::process::ExitCode;

use super::{
    endpoints::{Asked, job_id},
    output,
    ssh::{Door, host_key_alias},
};
use crate::{admin::api::model::Endpoint, provider::switchboard::JobId};

/// Print how to reach jobs, for ssh's configuration.
///
/// One Host block a job, named by its id; `ssh ID`, `scp` and `rsync` then work. Without jobs, every
/// job of the running proxy is printed.
#[derive(Debug, Clone, clap::Args)]
pub struct SshConfigArgs {
    #[command(flatten)]
    asked: Asked,
    /// The rule that leads to the ssh server.
    #[arg(long, value_name = "NAME", default_value = "ssh")]
    rule: String,
    /// The ids of the jobs.
    #[arg(value_name = "JOB", value_parser = job_id)]
    jobs: Vec<JobId>,
}

/// Runs the command.
pub fn run(args: &SshConfigArgs) -> ExitCode {
    let mut endpoints = Vec::new();
    let jobs: Vec<_> = match args.jobs.is_empty() {
        true => vec![None],
        false => args.jobs.iter().map(Some).collect(),
    };
    for job in jobs {
        match args.asked.endpoints(job) {
            Ok(found) => endpoints.extend(found),
            Err(error) => return output::give_up(&error),
        }
    }
    let rule = |endpoint: &&Endpoint| endpoint.rule.as_deref() == Some(&*args.rule);
    let blocks = endpoints.iter().filter(rule).filter_map(block);
    output::print(&blocks.collect::<String>())
}

fn block(endpoint: &Endpoint) -> Option<String> {
    let job = JobId::parse(&endpoint.job)?;
    let Door { host, port } = Door::of(endpoint)?;
    let alias = host_key_alias(job.as_str());
    Some(format!(
        "Host {job}\n    HostName {host}\n    Port {port}\n    HostKeyAlias {alias}\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_names_the_job_and_keeps_its_host_key_apart() {
        let job = "00000001-0000-4000-8000-000000000000";
        let endpoint = Endpoint {
            job: job.to_owned(),
            host: "p.example.org".to_owned(),
            port: Some(40_001),
            state: "open".to_owned(),
            ..Endpoint::default()
        };
        let expected = format!(
            "Host {job}\n    HostName p.example.org\n    Port 40001\n    HostKeyAlias job-{job}\n"
        );
        assert_eq!(block(&endpoint), Some(expected));
        let evil = Endpoint {
            job: "x\nProxyCommand sh".to_owned(),
            ..endpoint
        };
        assert_eq!(block(&evil), None);
    }
}
