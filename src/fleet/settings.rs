//! `[fleet]`: the database that proxies share, and which of them this one is.

use std::{fmt, path::PathBuf, time::Duration};

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};

use crate::{
    provider::switchboard::PublicHost,
    setting::{As, Found, Json, Kind, List, Number, Off, PathFromRoot, Refusal, Span, Word, Words},
};

/// Everything about a fleet and this proxy's place in it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Fleet {
    /// Where the database is that the proxies share: one primary, or several servers of which one is.
    #[serde(with = "As::<DatabaseUrl>")]
    pub database: DatabaseUrl,
    /// The file with the password, where the database asks for one.
    #[serde(default, with = "As::<Off<PathFromRoot>>")]
    pub password_file: Option<PathBuf>,
    /// The file with the certificates to trust in place of the system's.
    #[serde(default, with = "As::<Off<PathFromRoot>>")]
    pub ca_file: Option<PathBuf>,
    /// The name of this proxy, which no other has.
    #[serde(with = "As::<FleetName>")]
    pub name: FleetName,
    /// Where it is: a name for what is equally near.
    #[serde(with = "As::<FleetName>")]
    pub region: FleetName,
    /// The name that users connect to for mappings of the file; "off" is switchboard.public_host.
    #[serde(default, with = "As::<Off<PublicHost>>")]
    pub public_host: Option<PublicHost>,
    /// Regions in the order in which their endpoints are told. This proxy's own comes first unless it
    /// is among them, those that are not named come last.
    #[serde(default, with = "As::<List<FleetName>>")]
    pub nearest: Vec<FleetName>,
    /// Whose the ports of jobs are: "shared" by all proxies of the region, who have the same ones, or
    /// this proxy's "own".
    #[serde(default = "shared", with = "As::<Word<JobPorts>>")]
    pub ports: JobPorts,
    /// Whether this proxy may be the one of its region that follows the switchboard, where ports are
    /// shared.
    #[serde(default = "yes")]
    pub follow: bool,
    /// How long shared ports stay open without an answer of the database. After that others may have
    /// them.
    #[serde(default = "hour", with = "As::<Span<60_000, 2_592_000>>")]
    pub lease: Duration,
    /// How many ports this proxy has beforehand, for jobs that come while the database is away. With 0
    /// they wait for it.
    #[serde(default, with = "As::<Number<u16, 0, 1000>>")]
    pub reserve: u16,
}

fn shared() -> JobPorts {
    JobPorts::Shared
}

fn yes() -> bool {
    true
}

fn hour() -> Duration {
    Duration::from_secs(3600)
}

/// Whose the ports of jobs are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobPorts {
    /// The region's.
    Shared,
    /// Each proxy's.
    Own,
}

impl Words for JobPorts {
    const WORDS: &'static [(&'static str, Self)] = &[("shared", Self::Shared), ("own", Self::Own)];
}

impl Fleet {
    /// How to get to the database.
    pub fn access(&self) -> Access {
        Access {
            url: self.database.clone(),
            password_file: self.password_file.clone(),
            ca_file: self.ca_file.clone(),
        }
    }

    /// Whether ports of jobs are those of all proxies of the region.
    pub fn shares_ports(&self) -> bool {
        self.ports == JobPorts::Shared
    }
}

/// How to get to a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Where it is.
    pub url: DatabaseUrl,
    /// The file with the password, if it asks for one.
    pub password_file: Option<PathBuf>,
    /// The file with the certificates to trust in place of the system's.
    pub ca_file: Option<PathBuf>,
}

/// The name of a proxy or of a region.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FleetName(String);

impl FleetName {
    /// Takes 1 to 63 lower-case letters, digits, hyphens and dots, the first and last a letter or digit.
    pub fn parse(text: &str) -> Option<Self> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let fit = |byte: u8| plain(byte) || b"-.".contains(&byte);
        let ends = [text.bytes().next(), text.bytes().last()];
        let valid = text.len() <= 63
            && text.bytes().all(fit)
            && ends.into_iter().all(|c| c.is_some_and(plain));
        valid.then(|| Self(text.to_owned()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

const NAME: &str = "1 to 63 lower-case letters, digits, hyphens and dots, the first and the last a letter or digit";

impl fmt::Display for FleetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for FleetName {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        Self::parse(&text).ok_or(NAME)
    }
}

impl From<FleetName> for String {
    fn from(FleetName(name): FleetName) -> Self {
        name
    }
}

impl Kind for FleetName {
    type Value = Self;

    fn read(found: Found<'_>) -> Result<Self, Refusal> {
        let name = found.text().and_then(Self::parse);
        name.ok_or_else(|| Refusal::new(NAME))
    }

    fn write(value: &Self) -> Json {
        value.to_string().into()
    }

    #[cfg(test)]
    fn schema() -> Json {
        crate::setting::schema::text("^[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?$")
    }
}

/// Where a database is and as whom to ask it, without a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseUrl {
    text: String,
    /// Its servers, in the order in which they are asked.
    pub hosts: Vec<(String, u16)>,
    /// The role.
    pub user: String,
    /// The database's name.
    pub database: String,
    /// Whether nothing is said before the server has shown a certificate for its name.
    pub is_encrypted: bool,
}

/// What is wrong with the URL of a database. None of it shows the URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum DatabaseUrlError {
    #[error("a password does not belong here: put it into a file and its path into password_file")]
    Secret,
    #[error(
        "a URL such as \"postgresql://tml_proxy@db.example.org/tml\", with commas between several hosts"
    )]
    Malformed,
    #[error("the parameter {0:?} is not known; allowed is sslmode")]
    Parameter(String),
    #[error(
        "sslmode: allowed are \"verify-full\", as when it is left out, \"require\", which is the same here, and \"disable\""
    )]
    SslMode,
}

const PORT: u16 = 5432;

impl DatabaseUrl {
    /// Takes the URL of PostgreSQL's clients with hosts, a user and a database.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, DatabaseUrlError> {
        use DatabaseUrlError::{Malformed, Parameter, Secret, SslMode};
        let rest = text.strip_prefix("postgresql://");
        let Some(rest) = rest.or_else(|| text.strip_prefix("postgres://")) else {
            return Err(if text.contains("password") {
                Secret
            } else {
                Malformed
            });
        };
        let (rest, parameters) = rest.split_once('?').unwrap_or((rest, ""));
        // A password may have any character, those that should have been escaped too.
        let (user, rest) = rest.rsplit_once('@').ok_or(Malformed)?;
        if user.contains(':') {
            return Err(Secret);
        }
        let (hosts, database) = rest.split_once('/').ok_or(Malformed)?;
        let mut is_encrypted = true;
        for parameter in parameters
            .split('&')
            .filter(|parameter| !parameter.is_empty())
        {
            let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            is_encrypted = match (key, value) {
                ("password" | "passfile" | "sslpassword", _) => return Err(Secret),
                ("sslmode", "verify-full" | "require") => true,
                ("sslmode", "disable") => false,
                ("sslmode", _) => return Err(SslMode),
                // It is never otherwise.
                ("target_session_attrs", "read-write" | "primary") => is_encrypted,
                (key, _) => return Err(Parameter(key.chars().take(40).collect())),
            };
        }
        let decoded = |text: &str| {
            let text = percent_decode_str(text).decode_utf8().ok()?.into_owned();
            let fit = !text.is_empty() && !text.contains(|c: char| c.is_control() || c == '/');
            fit.then_some(text)
        };
        let hosts: Option<Vec<_>> = hosts.split(',').map(host).collect();
        Ok(Self {
            text: text.to_owned(),
            hosts: hosts.ok_or(Malformed)?,
            user: decoded(user).ok_or(Malformed)?,
            database: decoded(database).ok_or(Malformed)?,
            is_encrypted,
        })
    }
}

/// A host with its port; an IPv6 address is in brackets.
fn host(text: &str) -> Option<(String, u16)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let port = match port.strip_prefix(':') {
        Some(port) => port.parse().ok().filter(|port| *port != 0)?,
        None if port.is_empty() => PORT,
        None => return None,
    };
    PublicHost::parse(host).map(|host| (host.to_string(), port))
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Kind for DatabaseUrl {
    type Value = Self;

    fn read(found: Found<'_>) -> Result<Self, Refusal> {
        let text = found.text().ok_or(DatabaseUrlError::Malformed);
        text.and_then(Self::parse).map_err(|error| match error {
            // Whoever is told what was found may not be meant to see it.
            DatabaseUrlError::Malformed if found.text().is_none() => {
                Refusal::new(error.to_string())
            }
            DatabaseUrlError::Malformed => Refusal::Contradicts(format!("allowed: {error}")),
            _ => Refusal::Contradicts(error.to_string()),
        })
    }

    fn write(value: &Self) -> Json {
        value.to_string().into()
    }

    #[cfg(test)]
    fn schema() -> Json {
        crate::setting::schema::text("^postgres(ql)?://")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_servers_in_their_order_and_asks_for_certificates() {
        let url = DatabaseUrl::parse("postgresql://p%40x@a.example.org,b:6432,[2001:db8::1]:1/tml");
        let url = url.expect("it is one");
        let hosts = [("a.example.org", 5432), ("b", 6432), ("2001:db8::1", 1)];
        assert_eq!(url.hosts, hosts.map(|(host, port)| (host.to_owned(), port)));
        assert_eq!((&*url.user, &*url.database), ("p@x", "tml"));
        assert!(url.is_encrypted);
        for (mode, is_encrypted) in [("require", true), ("verify-full", true), ("disable", false)] {
            let url = DatabaseUrl::parse(&format!("postgres://u@h/d?sslmode={mode}"));
            assert_eq!(url.expect("one").is_encrypted, is_encrypted, "{mode}");
        }
    }

    #[test]
    fn a_password_in_the_url_is_refused_and_shown_nowhere() {
        for text in [
            "postgresql://u:sesame@h/d",
            "postgresql://u:ses@me@h/d",
            "postgresql://u:sesame/@h:99999/d",
            "postgresql://u@h/d?password=sesame",
            "host=h user=u password=sesame",
        ] {
            assert_eq!(
                DatabaseUrl::parse(text),
                Err(DatabaseUrlError::Secret),
                "{text}"
            );
        }
        for text in [
            "postgresql://sesame",
            "u:sesame@h",
            "postgresql://u@h:0/d",
            "postgresql://u@h",
            "postgresql://h/d",
            "postgresql://u@/d",
            "postgresql://u@h/",
            "postgresql://u@-h/d",
            "postgresql://u@h/d?sslmode=prefer",
            "postgresql://u@h/d?options=x",
            "",
        ] {
            let error = DatabaseUrl::parse(text).expect_err(text);
            assert!(!error.to_string().contains("sesame"), "{error}");
        }
    }

    #[test]
    fn a_name_is_one_of_a_host() {
        for name in ["a", "us-1", "us-east-1.proxy.example.org", &"a".repeat(63)] {
            assert!(FleetName::parse(name).is_some(), "{name}");
        }
        for name in ["", "-a", "a-", "A", "a b", "a/b", "a_b", &"a".repeat(64)] {
            assert!(FleetName::parse(name).is_none(), "{name}");
        }
    }
}
