//! Where the switchboard's API is.
//!
//! Read once, with the configuration: what is asked later is made of the parts. A URL with a user or a
//! password in it is refused, so that there is none that a message could show.

use std::fmt;

use http::Uri;

use crate::host_port::{HostPort, HostPortError};

/// Where every route begins.
const API: &str = "/api/v1";

/// The URL of an API, checked, without its routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl {
    is_secure: bool,
    host: HostPort,
    /// What comes before [`API`], without a slash at its end.
    prefix: String,
}

/// Why a text is not the URL of a switchboard, as what would be allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// It is no absolute URL, or one that is not about HTTP.
    #[error("an http or https URL such as \"https://switchboard.example.org\"")]
    Malformed,
    /// It has a user or a password. Nobody is to be shown the URL.
    #[error("has a user or a password in it; the token belongs into token_file")]
    UserInfo,
    /// It has a query or a fragment.
    #[error("a URL without a query (\"?…\") and a fragment (\"#…\")")]
    Query,
    /// Its host or its port is none.
    #[error("a URL with {0}")]
    Authority(#[from] HostPortError),
}

impl BaseUrl {
    /// Takes `scheme://host[:port][/path]`, with or without `/api/v1` at its end.
    ///
    /// # Errors
    ///
    /// See [`UrlError`]; none shows the URL.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        // Before anything else, as a later complaint could show it.
        if authority.contains('@') {
            return Err(UrlError::UserInfo);
        }
        let is_secure = match scheme {
            "http" => false,
            "https" => true,
            _ => return Err(UrlError::Malformed),
        };
        let host = HostPort::parse(authority)?;
        if path.contains(['?', '#']) {
            return Err(UrlError::Query);
        }
        let path = path.trim_end_matches('/');
        let base = Self {
            is_secure,
            host,
            prefix: path.strip_suffix(API).unwrap_or(path).to_owned(),
        };
        match base.uri("/jobs") {
            Ok(_) => Ok(base),
            Err(_) => Err(UrlError::Malformed),
        }
    }

    /// Whether it is reached by TLS.
    pub fn is_secure(&self) -> bool {
        self.is_secure
    }

    /// Whether it is on this machine.
    pub fn is_loopback(&self) -> bool {
        self.host.is_loopback()
    }

    /// The URI of `route`, which begins with `/` and is made of characters that need no escape.
    pub(super) fn uri(&self, route: &str) -> Result<Uri, http::Error> {
        Ok(format!("{self}{API}{route}").parse::<Uri>()?)
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_secure { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.host, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_follow_the_path_of_the_url() {
        let cases = [
            ("https://sb.example", "https://sb.example/api/v1/hosts"),
            ("http://[::1]:8080/", "http://[::1]:8080/api/v1/hosts"),
            ("https://x.test/sb/", "https://x.test/sb/api/v1/hosts"),
            ("https://x.test/api/v1", "https://x.test/api/v1/hosts"),
        ];
        for (url, expected) in cases {
            let uri = BaseUrl::parse(url).expect(url).uri("/hosts").expect(url);
            assert_eq!(uri.to_string(), expected);
        }
    }

    #[test]
    fn what_is_no_place_for_a_switchboard_is_refused() {
        let host = UrlError::Authority(HostPortError::Host);
        let port = UrlError::Authority(HostPortError::Port);
        let cases = [
            ("sb.example", UrlError::Malformed),
            ("/api", UrlError::Malformed),
            ("", UrlError::Malformed),
            ("ftp://sb.example", UrlError::Malformed),
            ("https:sb.example", UrlError::Malformed),
            ("https://sb.example/a b", UrlError::Malformed),
            ("https://sb.example/\n", UrlError::Malformed),
            ("https://sb.example/#x", UrlError::Query),
            ("https://sb.example/?a=b", UrlError::Query),
            ("https://sb.example?a=b", UrlError::Query),
            ("https://", host),
            ("https:///x", host),
            ("https://:443", host),
            ("https://[::1", host),
            ("https://a%zz", host),
            ("https://sb.example:99999", port),
            ("https://sb.example:", port),
        ];
        for (url, expected) in cases {
            assert_eq!(BaseUrl::parse(url), Err(expected), "{url}");
        }
    }

    #[test]
    fn a_url_and_a_lookup_server_have_the_same_opinion_of_a_host() {
        for host in [
            "h:0",
            "h:+1",
            "127.1",
            "[::1",
            "-a",
            "[fe80::1]:22",
            "a_b:1",
            "[::1]:80",
        ] {
            let read = HostPort::parse(host).map_err(UrlError::from);
            assert_eq!(
                BaseUrl::parse(&format!("https://{host}")).map(|url| url.host),
                read
            );
        }
    }

    #[test]
    fn a_password_in_the_url_is_refused_and_not_shown() {
        for url in ["https://u:sesame@sb.example", "u:sesame@sb", "x://sesame@"] {
            let refused = BaseUrl::parse(url).expect_err("refused");
            assert_eq!(refused, UrlError::UserInfo);
            assert!(!format!("{refused} {refused:?}").contains("sesame"));
        }
    }
}
