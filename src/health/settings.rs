//! How targets are checked: the key `check`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, de::Error, de::SeqAccess};

use crate::{
    proxy_protocol::Version,
    setting::{As, Found, Given, Json, Kind, Number, Off, Refusal, Span, Word, Words, items},
};

/// How a target is checked, and what is made of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Check {
    /// How often.
    pub every: Duration,
    /// How long a try may take, from the connection to the answer.
    pub timeout: Duration,
    /// Tries in a row that make a target up that was down.
    pub rise: u32,
    /// Failures in a row that make a target down that was up.
    pub fall: u32,
    /// The port to try, if it is another than that of the target.
    pub port: Option<u16>,
    /// What was said of PROXY headers for tries alone.
    pub send_proxy: Option<Option<Version>>,
    /// What is to succeed.
    pub(crate) by: By,
}

impl Check {
    /// Whether more than a connection is wanted.
    pub fn wants_answer(&self) -> bool {
        self.by != By::Connect
    }

    /// The PROXY header of a try at a target whose sessions have this one: the same, unless something
    /// else was said or another port is asked. If a connection is all that is wanted, its target's
    /// program sees none.
    pub fn header(&self, of_sessions: Option<Version>) -> Option<Version> {
        match (&self.by, self.send_proxy, self.port) {
            (By::Connect, ..) => None,
            (_, Some(own), _) => own,
            (_, None, Some(_)) => None,
            (_, None, None) => of_sessions,
        }
    }
}

/// What happens to live sessions of a target that is found down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum OnDown {
    /// They stay as long as they like.
    #[default]
    Keep,
    /// They are closed.
    Kill,
}

impl Words for OnDown {
    const WORDS: &'static [(&'static str, Self)] = &[("keep", Self::Keep), ("kill", Self::Kill)];
}

/// What is to succeed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum By {
    /// A connection.
    Connect,
    /// An answer to a request of HTTP.
    Http {
        method: String,
        path: String,
        host: Option<String>,
        status: Vec<StatusRange>,
    },
    /// An answer that has something in it.
    Exchange {
        send: Option<String>,
        expect: String,
    },
}

/// Statuses of HTTP, both included.
pub(crate) type StatusRange = (u16, u16);

/// What an answer to HTTP has to be unless it is said: what neither the client nor the server got wrong.
const GOOD: StatusRange = (200, 399);

impl Default for Check {
    fn default() -> Self {
        Keys::default()
            .check()
            .expect("a check that says nothing contradicts nothing")
    }
}

/// As it is written.
#[derive(Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
struct Keys {
    /// How often each target is tried.
    #[serde(with = "As::<Span<100, 3600>>")]
    every: Duration,
    /// How long a try may take, the answer included.
    #[serde(with = "As::<Span<10, 60>>")]
    timeout: Duration,
    /// Tries in a row that make a target up that was down.
    #[serde(with = "As::<Number<u32, 1, 100>>")]
    rise: u32,
    /// Failures in a row that make a target down that was up.
    #[serde(with = "As::<Number<u32, 1, 100>>")]
    fall: u32,
    /// The port to try, if it is another than that of the target.
    #[serde(
        with = "As::<Given<Number<u16, 1, 65535>>>",
        skip_serializing_if = "Option::is_none"
    )]
    port: Option<u16>,
    /// Whether a PROXY header that speaks for nobody comes first; if left out, as sessions of the target
    /// have one, unless there is a port.
    #[serde(
        with = "As::<Given<Off<Word<Version>>>>",
        skip_serializing_if = "Option::is_none"
    )]
    send_proxy: Option<Option<Version>>,
    /// The path that is asked for over HTTP.
    #[serde(
        with = "As::<Given<HttpPath>>",
        skip_serializing_if = "Option::is_none"
    )]
    http: Option<String>,
    /// The method of that; `GET` if left out.
    #[serde(with = "As::<Given<Method>>", skip_serializing_if = "Option::is_none")]
    method: Option<String>,
    /// The `Host` of that; the target's address if left out.
    #[serde(
        with = "As::<Given<HostHeader>>",
        skip_serializing_if = "Option::is_none"
    )]
    host: Option<String>,
    /// The statuses that are right; 200 to 399 if left out.
    #[serde(
        with = "As::<Given<Statuses>>",
        skip_serializing_if = "Option::is_none"
    )]
    status: Option<Vec<StatusRange>>,
    /// What is sent, without HTTP.
    #[serde(with = "As::<Given<Said>>", skip_serializing_if = "Option::is_none")]
    send: Option<String>,
    /// What has to be in the answer, without HTTP.
    #[serde(with = "As::<Given<Said>>", skip_serializing_if = "Option::is_none")]
    expect: Option<String>,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(2),
            timeout: Duration::from_secs(2),
            rise: 2,
            fall: 3,
            port: None,
            send_proxy: None,
            http: None,
            method: None,
            host: None,
            status: None,
            send: None,
            expect: None,
        }
    }
}

impl Keys {
    /// What they mean together.
    fn check(self) -> Result<Check, String> {
        let of_http = [
            ("method", self.method.is_some()),
            ("host", self.host.is_some()),
            ("status", self.status.is_some()),
        ];
        let of_http = of_http.iter().find(|(_, given)| *given);
        let by = match (self.http, self.send, self.expect) {
            (None, send, expect) => {
                if let Some((key, _)) = of_http {
                    return Err(format!("{key} is for checks with http = \"/PATH\""));
                }
                match (send, expect) {
                    (None, None) if self.send_proxy.is_some() => {
                        return Err(
                            "send_proxy is for checks with http or expect: the target's program sees \
                             nothing of others"
                                .to_owned(),
                        );
                    }
                    (None, None) => By::Connect,
                    (send, Some(expect)) => By::Exchange { send, expect },
                    (Some(_), None) => {
                        return Err("send needs expect, which says what answer is right".to_owned());
                    }
                }
            }
            (Some(path), None, None) => By::Http {
                method: self.method.unwrap_or_else(|| "GET".to_owned()),
                path,
                host: self.host,
                status: self.status.unwrap_or_else(|| vec![GOOD]),
            },
            (Some(_), _, _) => {
                return Err("a check has either http or send and expect".to_owned());
            }
        };
        Ok(Check {
            every: self.every,
            timeout: self.timeout,
            rise: self.rise,
            fall: self.fall,
            port: self.port,
            send_proxy: self.send_proxy,
            by,
        })
    }

    fn of(check: &Check) -> Self {
        let keys = Self {
            every: check.every,
            timeout: check.timeout,
            rise: check.rise,
            fall: check.fall,
            port: check.port,
            send_proxy: check.send_proxy,
            ..Self::default()
        };
        match check.by.clone() {
            By::Connect => keys,
            By::Http {
                method,
                path,
                host,
                status,
            } => Self {
                http: Some(path),
                method: Some(method),
                host,
                status: Some(status),
                ..keys
            },
            By::Exchange { send, expect } => Self {
                send,
                expect: Some(expect),
                ..keys
            },
        }
    }
}

impl Kind for Check {
    type Value = Self;

    const TABLES: bool = true;

    fn read(_: Found<'_>) -> Result<Self, Refusal> {
        Err(Refusal::new("{ every = \"2s\" }").or("{ http = \"/health\", port = 8008 }"))
    }

    fn table<'de, D: Deserializer<'de>>(table: D) -> Result<Self, D::Error> {
        Keys::deserialize(table)?.check().map_err(D::Error::custom)
    }

    fn write(value: &Self) -> Json {
        serde_json::json!(Keys::of(value))
    }

    #[cfg(test)]
    fn schema() -> Json {
        crate::setting::schema::table::<Keys>()
    }
}

/// Makes a [`Kind`] of texts: which are fit, what is allowed, and a pattern that says so.
macro_rules! texts {
    ($name:ident, $fit:expr, $allowed:expr, $pattern:expr) => {
        struct $name;

        impl Kind for $name {
            type Value = String;

            fn read(found: Found<'_>) -> Result<String, Refusal> {
                let text = found.text().filter(|text| $fit(*text));
                let text = text.map(str::to_owned);
                text.ok_or_else(|| Refusal::new($allowed))
            }

            fn write(value: &String) -> Json {
                value.as_str().into()
            }

            #[cfg(test)]
            fn schema() -> Json {
                crate::setting::schema::text($pattern)
            }
        }
    };
}

texts!(
    HttpPath,
    |text: &str| {
        text.starts_with('/')
            && text.len() <= 1024
            && text.bytes().all(|byte| byte.is_ascii_graphic())
    },
    "a path of at most 1024 printable characters, such as \"/health\"",
    "^/[!-~]*$"
);

texts!(
    Method,
    |text: &str| {
        (1..=16).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_uppercase())
    },
    "a method of HTTP in capitals, such as \"OPTIONS\"",
    "^[A-Z]{1,16}$"
);

texts!(
    HostHeader,
    |text: &str| {
        (1..=255).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
    },
    "a host, with a port or without, such as \"db.example.org\"",
    "^[!-~]{1,255}$"
);

texts!(
    Said,
    |text: &str| (1..=1024).contains(&text.len()),
    "text of 1 to 1024 bytes, such as \"PING\\r\\n\"",
    "^[\\s\\S]+$"
);

/// Statuses of HTTP: one, a range, or a list of these.
struct Statuses;

/// What is written for one of them.
struct Status;

impl Kind for Status {
    type Value = StatusRange;

    fn read(found: Found<'_>) -> Result<StatusRange, Refusal> {
        let number = |text: &str| {
            let digits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
            let number = text.parse().ok().filter(|_| digits);
            number.filter(|status| (100..=599).contains(status))
        };
        let range = match found {
            Found::Integer(one) => number(&one.to_string()).map(|one| (one, one)),
            _ => found.text().and_then(|text| {
                let (first, last) = text.split_once('-').unwrap_or((text, text));
                number(first).zip(number(last))
            }),
        };
        let range = range.filter(|(first, last)| first <= last);
        range.ok_or_else(|| {
            Refusal::new("a status of HTTP such as 200").or("a range such as \"200-299\"")
        })
    }

    fn write((first, last): &StatusRange) -> Json {
        match first == last {
            true => (*first).into(),
            false => format!("{first}-{last}").into(),
        }
    }

    #[cfg(test)]
    fn schema() -> Json {
        use crate::setting::schema::{or, text};
        or(
            Number::<u16, 100, 599>::schema(),
            text("^[1-5][0-9]{2}(-[1-5][0-9]{2})?$"),
        )
    }
}

impl Kind for Statuses {
    type Value = Vec<StatusRange>;

    const LISTS: bool = true;

    fn read(found: Found<'_>) -> Result<Self::Value, Refusal> {
        Status::read(found).map(|one| vec![one])
    }

    fn list<'de, A: SeqAccess<'de>>(list: A) -> Result<Self::Value, A::Error> {
        let all = items::<Status, A>(list)?;
        match all.is_empty() {
            true => Err(Refusal::new("at least one status").into_error()),
            false => Ok(all),
        }
    }

    fn write(all: &Self::Value) -> Json {
        match &**all {
            [one] => Status::write(one),
            several => several.iter().map(Status::write).collect(),
        }
    }

    #[cfg(test)]
    fn schema() -> Json {
        use crate::setting::{List, schema::or};
        or(Status::schema(), List::<Status>::schema())
    }
}

/// The check that these lines of a table of TOML are.
#[cfg(test)]
pub(super) fn read(lines: &str) -> Result<Check, String> {
    // Here, both are written alike.
    let pairs = lines.lines().filter_map(|line| line.split_once(" = "));
    let pairs = pairs.map(|(key, value)| format!("{key:?}: {value}"));
    let table = format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "));
    let table: Json = serde_json::from_str(&table).expect("JSON");
    Check::table(table).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_printed_as_it_was_written() {
        for (written, printed) in [
            ("", r#"{"every":"2s","timeout":"2s","rise":2,"fall":3}"#),
            (
                "http = \"/primary\"\nport = 8008\nstatus = 200",
                r#"{"every":"2s","timeout":"2s","rise":2,"fall":3,"port":8008,"http":"/primary","method":"GET","status":200}"#,
            ),
            (
                "expect = \"SSH-\"\nevery = \"100ms\"\nstatus = [200, \"300-399\"]\nhttp = \"/\"",
                "a check has either http or send and expect",
            ),
            (
                "send = \"PING\\r\\n\"\nexpect = \"+PONG\"",
                r#"{"every":"2s","timeout":"2s","rise":2,"fall":3,"send":"PING\r\n","expect":"+PONG"}"#,
            ),
            (
                "http = \"/\"\nsend_proxy = \"v2\"",
                r#"{"every":"2s","timeout":"2s","rise":2,"fall":3,"send_proxy":"v2","http":"/","method":"GET","status":"200-399"}"#,
            ),
            (
                "send_proxy = \"off\"",
                "send_proxy is for checks with http or expect: the target's program sees nothing of others",
            ),
            (
                "send = \"PING\"",
                "send needs expect, which says what answer is right",
            ),
            (
                "method = \"HEAD\"",
                "method is for checks with http = \"/PATH\"",
            ),
        ] {
            let found = match read(written) {
                Ok(check) => Check::write(&check).to_string(),
                Err(why) => why.trim().to_owned(),
            };
            assert_eq!(found, printed, "{written}");
        }
    }

    #[test]
    fn a_header_comes_first_where_sessions_have_one_unless_it_is_said_or_another_port() {
        let v2 = Some(Version::V2);
        for (written, of_sessions, expected) in [
            ("http = \"/\"", v2, v2),
            ("http = \"/\"", None, None),
            ("http = \"/\"\nport = 8008", v2, None),
            ("expect = \"x\"\nport = 8008\nsend_proxy = \"v2\"", None, v2),
            ("expect = \"x\"\nsend_proxy = \"off\"", v2, None),
            ("", v2, None),
        ] {
            let check = read(written).expect("a check");
            assert_eq!(check.header(of_sessions), expected, "{written}");
        }
    }

    #[test]
    fn what_would_be_another_request_is_refused() {
        for written in [
            "http = \"health\"",
            "http = \"/a b\"",
            "http = \"/\\r\\nX: 1\"",
            "http = \"/\"\nmethod = \"get\"",
            "http = \"/\"\nhost = \"a\\r\\nb\"",
            "http = \"/\"\nstatus = 99",
            "http = \"/\"\nstatus = \"300-200\"",
            "http = \"/\"\nstatus = []",
            "expect = \"\"",
            "every = \"1ms\"",
            "timeout = \"2m\"",
            "rise = 0",
            "port = 0",
        ] {
            assert!(read(written).is_err(), "{written}");
        }
    }
}
