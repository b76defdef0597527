//! HAProxy: as Debian ships it, and tuned for what is measured here.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use super::{Job, output_of};
use crate::harness::require::find_program;

/// Pipes it may use; each costs two descriptors of the 20 000 a process often has.
const PIPES: usize = 512;

/// How it is configured.
#[derive(Debug, Clone)]
pub(super) struct Haproxy {
    program: PathBuf,
    /// Threads and big pipes, or what Debian's configuration file and the program's defaults say.
    threads: Option<u32>,
}

/// The configurations to compare with, if it is installed.
pub(super) fn find() -> Vec<(&'static str, Haproxy)> {
    let Some(program) = find_program("haproxy") else {
        return Vec::new();
    };
    [
        ("haproxy-debian", None),
        ("haproxy-tuned-1", Some(1)),
        ("haproxy-tuned-2", Some(2)),
    ]
    .into_iter()
    .map(|(name, threads)| {
        let program = program.clone();
        (name, Haproxy { program, threads })
    })
    .collect()
}

impl Haproxy {
    pub(super) fn describe(&self) -> String {
        let output = output_of(&self.program, "-v");
        let version = output
            .split_whitespace()
            .nth(2)
            .unwrap_or("of unknown version")
            .to_owned();
        match self.threads {
            None => format!("HAProxy {version}, Debian's defaults, splice-auto"),
            Some(threads) => format!(
                "HAProxy {version}, nbthread {threads}, splice-request and -response, 1 MiB pipes"
            ),
        }
    }

    pub(super) fn command(&self, directory: &Path, job: &Job) -> Result<Command> {
        let path = directory.join("haproxy.cfg");
        fs::write(&path, self.configuration(job)?)?;
        let mut command = Command::new(&self.program);
        command.arg("-db").arg("-f").arg(path);
        if job.supervised {
            command.arg("-W");
        }
        Ok(command)
    }

    fn configuration(&self, job: &Job) -> Result<String> {
        let mut text = String::new();
        // It would derive fewer sessions than are measured from the descriptor limit.
        let descriptors = 19_500_usize.saturating_sub(job.routes.len());
        writeln!(text, "global")?;
        writeln!(text, "    maxconn {}", (descriptors - 2 * PIPES) / 2)?;
        writeln!(text, "    maxpipes {PIPES}")?;
        if job.log_sessions {
            writeln!(text, "    log stdout format raw local0")?;
        }
        if let Some(threads) = self.threads {
            writeln!(text, "    nbthread {threads}")?;
            writeln!(text, "    tune.pipesize 1048576")?;
        }
        writeln!(text, "defaults")?;
        writeln!(text, "    mode tcp")?;
        if job.log_sessions {
            writeln!(text, "    log global\n    option tcplog")?;
        }
        match self.threads {
            None => writeln!(text, "    option splice-auto")?,
            Some(_) => writeln!(
                text,
                "    option splice-request\n    option splice-response"
            )?,
        }
        // Debian's values.
        writeln!(
            text,
            "    timeout connect 5s\n    timeout client 50s\n    timeout server 50s"
        )?;
        for (index, route) in job.routes.iter().enumerate() {
            writeln!(text, "listen route-{index}")?;
            writeln!(text, "    bind {}", route.listen)?;
            match job.choices(index) {
                None => writeln!(text, "    server target {}", route.target)?,
                Some(targets) => {
                    writeln!(text, "    balance leastconn")?;
                    for (number, target) in targets.iter().enumerate() {
                        writeln!(text, "    server target-{number} {target}")?;
                    }
                }
            }
        }
        Ok(text)
    }
}
