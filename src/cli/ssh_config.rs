//! `tml-proxy ssh-config`: jobs as hosts of ssh.

use std::process::ExitCode;

use super::{
    code,
    lookup::{LookupArgs, job_id},
    output,
    ssh::{SshEndpoint, absent, host_key_alias},
};
use crate::{admin::api::model::Endpoint, provider::switchboard::JobId};

/// Print how to reach jobs, for ssh's configuration.
///
/// One Host block a job, named by its id; `ssh ID`, `scp` and `rsync` then work. Without jobs, every
/// job of the running proxy is printed. A job that cannot be reached is named on standard error with
/// why, those that can are printed all the same, and the exit code is 1.
#[derive(Debug, Clone, clap::Args)]
pub struct SshConfigArgs {
    #[command(flatten)]
    lookup: LookupArgs,
    /// The rule that leads to the ssh server.
    #[arg(long, value_name = "NAME", default_value = "ssh")]
    rule: String,
    /// The ids of the jobs.
    #[arg(value_name = "JOB", value_parser = job_id)]
    jobs: Vec<JobId>,
}

/// The code says whether there is a block for every job that was asked for.
pub fn run(args: &SshConfigArgs) -> ExitCode {
    let endpoints = match args.lookup.endpoints(&args.jobs) {
        Ok(endpoints) => endpoints,
        Err(error) => return output::give_up(&error, false),
    };
    let rule = |endpoint: &&Endpoint| endpoint.rule.as_deref() == Some(&*args.rule);
    let mut blocks = String::new();
    let mut missing = false;
    if args.jobs.is_empty() {
        blocks = endpoints.iter().filter(rule).filter_map(block).collect();
    }
    for job in &args.jobs {
        let of_job = |endpoint: &&Endpoint| endpoint.job == job.as_str();
        match endpoints.iter().filter(of_job).find(rule).and_then(block) {
            Some(block) => blocks.push_str(&block),
            None => {
                missing = true;
                let why = absent(&endpoints, job, &args.rule);
                output::complain(&format_args!("tml-proxy: {why}"));
            }
        }
    }
    match output::print(&blocks) {
        ExitCode::SUCCESS if missing => ExitCode::from(code::REFUSED),
        code => code,
    }
}

fn block(endpoint: &Endpoint) -> Option<String> {
    let job = JobId::parse(&endpoint.job)?;
    let SshEndpoint { host, port } = SshEndpoint::of(endpoint)?;
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
