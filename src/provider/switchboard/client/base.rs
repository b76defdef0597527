//! Where the switchboard's API is.
//!
//! A URL with a user or a password in it is refused, so that there is none that a message could
//! show.

use std::fmt;

use http::{
    Uri,
    uri::{Authority, Scheme},
};

/// Where every route begins.
const API: &str = "/api/v1";

/// The URL of an API, checked, without its routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl {
    scheme: Scheme,
    authority: Authority,
    /// Ends with `/api/v1`.
    prefix: String,
}

/// Why a text is not the URL of a switchboard.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// It is no absolute URL.
    #[error("not a URL such as https://switchboard.example")]
    Malformed,
    /// It is not about HTTP.
    #[error("begins with {found:?}, which is neither \"http\" nor \"https\"")]
    Scheme {
        /// What it begins with.
        found: String,
    },
    /// It has a user or a password.
    #[error("has a user or a password in it; the token belongs into token_file")]
    UserInfo,
    /// It has a query.
    #[error("has a query (\"?...\"), which is not part of where a server is")]
    Query,
}

impl BaseUrl {
    /// Takes `scheme://host[:port][/path]`, with or without `/api/v1` at its end.
    ///
    /// # Errors
    ///
    /// See [`UrlError`]; none shows the URL.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        // Before anything else, as a later complaint could show it.
        let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
        let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
        if authority.contains('@') {
            return Err(UrlError::UserInfo);
        }
        let parts = text
            .parse::<Uri>()
            .map_err(|_invalid| UrlError::Malformed)?
            .into_parts();
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
            return Err(UrlError::Malformed);
        };
        if scheme != Scheme::HTTP && scheme != Scheme::HTTPS {
            return Err(UrlError::Scheme {
                found: scheme.as_str().to_owned(),
            });
        }
        if text.contains('#') || authority.host().is_empty() {
            return Err(UrlError::Malformed);
        }
        let path = parts.path_and_query;
        if path.as_ref().is_some_and(|path| path.query().is_some()) {
            return Err(UrlError::Query);
        }
        let path = path.as_ref().map_or("", |path| path.path());
        let path = path.trim_end_matches('/');
        let prefix = path.strip_suffix(API).unwrap_or(path);
        Ok(Self {
            scheme,
            authority,
            prefix: format!("{prefix}{API}"),
        })
    }

    /// Whether it is reached by TLS.
    pub fn is_secure(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }

    /// The URI of `route`, which begins with `/` and is made of characters that need no escape.
    pub(super) fn uri(&self, route: &str) -> Result<Uri, http::Error> {
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(format!("{}{route}", self.prefix))
            .build()
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority, self.prefix)
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
        let scheme = UrlError::Scheme {
            found: "ftp".to_owned(),
        };
        let cases = [
            ("sb.example", UrlError::Malformed),
            ("/api", UrlError::Malformed),
            ("", UrlError::Malformed),
            ("https://sb.example/#x", UrlError::Malformed),
            ("ftp://sb.example", scheme),
            ("https://sb.example/?a=b", UrlError::Query),
        ];
        for (url, expected) in cases {
            assert_eq!(BaseUrl::parse(url), Err(expected), "{url}");
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
