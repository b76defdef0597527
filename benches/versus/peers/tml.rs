//! Our own proxy, as built for this run or another binary, with settings of its own.

use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use super::{Job, output_of};

/// What its log says when the program has been replaced.
pub(super) const REPLACED: &str = "upgraded";

/// Settings by dotted key, as TOML values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides(BTreeMap<String, String>);

/// A binary and its settings.
#[derive(Debug, Clone)]
pub(super) struct Tml {
    program: PathBuf,
    overrides: Overrides,
}

impl Overrides {
    /// Sets a key. A value that is no number, truth value, list or table becomes a string.
    pub fn set(&mut self, key: &str, value: &str) {
        let is_bare = value.starts_with(['"', '\'', '[', '{'])
            || matches!(value, "true" | "false")
            || value.parse::<i64>().is_ok();
        let value = if is_bare {
            value.to_owned()
        } else {
            format!("{value:?}")
        };
        self.0.insert(key.to_owned(), value);
    }

    /// One setting.
    pub fn one(key: &str, value: &str) -> Self {
        let mut overrides = Self::default();
        overrides.set(key, value);
        overrides
    }
}

impl Tml {
    /// Another binary.
    pub(super) fn new(program: PathBuf, overrides: Overrides) -> Self {
        Self { program, overrides }
    }

    /// The binary cargo built for this run.
    pub(super) fn just_built(overrides: Overrides) -> Self {
        Self::new(env!("CARGO_BIN_EXE_tml-proxy").into(), overrides)
    }

    /// The same with one setting more.
    pub(super) fn with(&self, key: &str, value: &str) -> Self {
        let mut tml = self.clone();
        tml.overrides.set(key, value);
        tml
    }

    pub(super) fn describe(&self) -> String {
        let output = output_of(&self.program, "--version");
        let version = output.lines().next().unwrap_or("without a version");
        let settings: Vec<String> = self
            .overrides
            .0
            .iter()
            .map(|(key, value)| format!(", {key} = {value}"))
            .collect();
        format!("{version}{}", settings.concat())
    }

    pub(super) fn command(&self, directory: &Path, job: &Job) -> Result<Command> {
        // A copy, since another user may not be allowed to enter the build directory.
        let program = directory.join("tml-proxy");
        fs::copy(&self.program, &program)?;
        let mut command = Command::new(program);
        command
            .arg("run")
            .arg("--config")
            .arg(self.configure(directory, job)?);
        Ok(command)
    }

    /// Writes the configuration, in one step, and says where.
    pub(super) fn configure(&self, directory: &Path, job: &Job) -> Result<PathBuf> {
        let [path, draft] = ["config.toml", "config.new"].map(|name| directory.join(name));
        fs::write(&draft, self.configuration(job)?)?;
        fs::rename(&draft, &path)?;
        Ok(path)
    }

    fn configuration(&self, job: &Job) -> Result<String> {
        let mut settings = Overrides::default();
        settings.set("version", "1");
        settings.set("admin.listen", "off");
        settings.set(
            "log.sessions",
            if job.log_sessions { "true" } else { "false" },
        );
        settings.set("process.shutdown_timeout", "1s");
        settings.0.extend(self.overrides.0.clone());
        let mut text = String::new();
        for (key, value) in &settings.0 {
            writeln!(text, "{key} = {value}")?;
        }
        for (index, route) in job.routes.iter().enumerate() {
            writeln!(text, "[[mapping]]")?;
            writeln!(text, "name = \"route-{index}\"")?;
            writeln!(text, "listen = \"{}\"", route.listen)?;
            match job.choices(index) {
                None => writeln!(text, "target = \"{}\"", route.target)?,
                Some(targets) => {
                    writeln!(text, "balance = \"least-sessions\"")?;
                    for target in targets {
                        // A weight makes a target of its own of one, too.
                        writeln!(text, "[[mapping.target]]")?;
                        writeln!(text, "address = \"{target}\"\nweight = 2")?;
                    }
                }
            }
        }
        Ok(text)
    }
}
