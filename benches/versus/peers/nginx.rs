//! nginx with its stream module.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use super::{Job, output_of};
use crate::harness::require::find_program;

/// How it is configured.
#[derive(Debug, Clone)]
pub(super) struct Nginx {
    program: PathBuf,
    /// Where the stream module is, if it is not built in.
    module: Option<PathBuf>,
    workers: u32,
}

/// The configurations to compare with, if nginx and its stream module are installed.
pub(super) fn find() -> Vec<(&'static str, Nginx)> {
    let Some(program) = find_program("nginx") else {
        return Vec::new();
    };
    let built = output_of(&program, "-V");
    let option = |name: &str| {
        built
            .split_whitespace()
            .find_map(|word| word.strip_prefix(name))
    };
    let module = if option("--with-stream=dynamic").is_some() {
        let directory = Path::new(option("--modules-path=").unwrap_or("/usr/lib/nginx/modules"));
        Some(directory.join("ngx_stream_module.so"))
    } else {
        None
    };
    let usable = match &module {
        Some(path) => path.is_file(),
        None => option("--with-stream").is_some(),
    };
    if !usable {
        return Vec::new();
    }
    [("nginx-1", 1), ("nginx-2", 2)]
        .into_iter()
        .map(|(name, workers)| {
            let (program, module) = (program.clone(), module.clone());
            (
                name,
                Nginx {
                    program,
                    module,
                    workers,
                },
            )
        })
        .collect()
}

impl Nginx {
    pub(super) fn describe(&self) -> String {
        let output = output_of(&self.program, "-v");
        let version = output
            .trim()
            .rsplit('/')
            .next()
            .unwrap_or("of unknown version")
            .to_owned();
        format!("nginx {version} stream, worker_processes {}", self.workers)
    }

    pub(super) fn command(&self, directory: &Path, job: &Job) -> Result<Command> {
        let path = directory.join("nginx.conf");
        fs::write(&path, self.configuration(directory, job)?)?;
        let mut command = Command::new(&self.program);
        command
            .arg("-p")
            .arg(directory)
            .arg("-e")
            .arg("stderr")
            .arg("-c")
            .arg(path);
        Ok(command)
    }

    fn configuration(&self, directory: &Path, job: &Job) -> Result<String> {
        let mut text = String::new();
        if let Some(module) = &self.module {
            writeln!(text, "load_module {};", module.display())?;
        }
        writeln!(text, "daemon off;")?;
        writeln!(text, "pid {};", directory.join("pid").display())?;
        writeln!(text, "error_log stderr error;")?;
        writeln!(text, "worker_processes {};", self.workers)?;
        let connections = 19_900_usize.saturating_sub(job.routes.len());
        writeln!(text, "events {{ worker_connections {connections}; }}")?;
        writeln!(text, "stream {{")?;
        if job.log_sessions {
            writeln!(
                text,
                "log_format session '$remote_addr $status $bytes_sent $bytes_received $session_time';"
            )?;
            writeln!(
                text,
                "access_log {} session;",
                directory.join("sessions").display()
            )?;
        }
        // Sockets of their own, or one worker may accept everything and leave the other idle.
        let reuseport = if self.workers > 1 { " reuseport" } else { "" };
        for route in &job.routes {
            let (listen, target) = (route.listen, route.target);
            writeln!(
                text,
                "server {{ listen {listen} backlog=4096{reuseport}; proxy_pass {target}; }}"
            )?;
        }
        writeln!(text, "}}")?;
        Ok(text)
    }
}
