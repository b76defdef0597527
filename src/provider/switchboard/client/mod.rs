//! Asking the switchboard: one request, one answer or one [`Failure`].
//!
//! A request is bounded in time and its answer in size, so that no answer can hold anything up or
//! fill the memory. Redirections are not followed and no proxy of the environment is used: the
//! token goes to the server of the URL and to nobody else. Nothing is tried again here but a
//! request refused with 401 after which the file turned out to hold another token.

mod availability;
mod base;
mod failure;
mod tls;
mod token;

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant, SystemTime},
};

use http::{
    HeaderValue, Method, Request, Response, Version,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, ETAG, IF_MATCH, USER_AGENT},
};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Incoming};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use tokio::{sync::watch, time::timeout};

use super::{
    job::JobId,
    read::{self, Annotated, Cursor, Detail, Hosts, Page, Rights},
};
use crate::files::{self, Unanswered};

use self::availability::About;
pub use self::{
    availability::{Availability, Outage},
    base::{BaseUrl, UrlError},
    failure::{ConnectCause, Failure, FailureKind, Fault, NoConnection},
    tls::TrustError,
    token::{Token, TokenError},
};

/// Connections for reading that are kept although nothing is being read.
const IDLE_CONNECTIONS: usize = 4;

/// How long such a connection is kept.
const IDLE_FOR: Duration = Duration::from_secs(60);

/// How often an HTTP/2 connection is asked whether it is still there, and how long it may take to
/// say so.
const PING_EVERY: Duration = Duration::from_secs(20);

/// What goes into memory of one line of an HTTP/1.1 head, in bytes.
const HEAD_AT_MOST: usize = 64 << 10;

/// The largest listing read, in bytes: 200 jobs with all the annotations they may have.
const LISTING_AT_MOST: u64 = 16 << 20;

/// The largest single job read, in bytes; usual is 1 KiB.
const JOB_AT_MOST: u64 = 4 << 20;

/// Who says so to the switchboard.
const AGENT: &str = concat!("tml-proxy/", env!("CARGO_PKG_VERSION"));

/// Where the switchboard is and how to be let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientSettings {
    /// Where its API is.
    pub url: BaseUrl,
    /// The file with the bearer token, read again by [`Client::renew_token`] and after a 401.
    pub token_file: PathBuf,
    /// PEM certificates to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
}

/// How long to wait for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For a TCP connection.
    pub connect: Duration,
    /// For a whole answer. More than the 30 s after which a switchboard without its database
    /// gives up: who leaves earlier asks again while the first question still waits.
    pub answer: Duration,
    /// For anything on a watch: four keep-alives, which come every 15 s.
    pub silence: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(45),
            silence: Duration::from_secs(60),
        }
    }
}

/// Why there can be no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The file gives no token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// There is nobody to trust.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// Its files are not to be had in time.
    #[error("token_file or ca_file: {0}")]
    Unanswered(#[from] Unanswered),
}

/// A switchboard to ask. Clones share the connections.
#[derive(Debug, Clone)]
pub struct Client(Arc<Inner>);

/// One pool of connections.
pub(super) type Connections = legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Who wants to see the answers about jobs that others ask for.
pub(super) trait JobReader: fmt::Debug + Send + Sync {
    /// Takes in what was answered about a job that was asked for at `asked`.
    fn job_was_read(&self, id: &JobId, asked: Instant, body: &[u8]);
}

#[derive(Debug)]
struct Inner {
    base: BaseUrl,
    token_file: PathBuf,
    token: Mutex<Token>,
    /// Held while the file is read because of a refusal.
    renewing: tokio::sync::Mutex<()>,
    job_reader: Mutex<Option<Weak<dyn JobReader>>>,
    connector: HttpsConnector<HttpConnector>,
    reads: Connections,
    patience: Patience,
    /// Whether the last answer came over HTTP/2; `None` before the first.
    multiplexed: watch::Sender<Option<bool>>,
    availability: Arc<Availability>,
}

/// What is asked for, without how.
struct Question<'a> {
    method: Method,
    about: About,
    route: &'a str,
    accept: &'static str,
    if_match: Option<&'a HeaderValue>,
    body: Bytes,
}

impl<'a> Question<'a> {
    fn get(route: &'a str) -> Self {
        Self {
            method: Method::GET,
            about: About::Reading,
            route,
            accept: "application/json",
            if_match: None,
            body: Bytes::new(),
        }
    }
}

impl Client {
    /// A client that has not connected yet and notes in `availability` whether the switchboard
    /// answers, made by a thread that may wait for its files.
    ///
    /// # Errors
    ///
    /// What of the settings is of no use.
    pub async fn open(
        settings: &ClientSettings,
        patience: Patience,
        availability: Arc<Availability>,
    ) -> Result<Self, ClientError> {
        let settings = settings.clone();
        files::off_thread(move || Self::noting(&settings, patience, availability)).await?
    }

    /// A client that has not connected yet. It takes as long as the file system does.
    ///
    /// # Errors
    ///
    /// What of the settings is of no use.
    pub fn new(settings: &ClientSettings, patience: Patience) -> Result<Self, ClientError> {
        Self::noting(settings, patience, Arc::default())
    }

    /// The same, which notes in `availability` whether the switchboard answers.
    ///
    /// # Errors
    ///
    /// What of the settings is of no use.
    pub fn noting(
        settings: &ClientSettings,
        patience: Patience,
        availability: Arc<Availability>,
    ) -> Result<Self, ClientError> {
        let base = settings.url.clone();
        let token = Token::read(&settings.token_file)?;
        let connector = tls::connector(&base, settings.ca_file.as_deref(), patience.connect)?;
        Ok(Self(Arc::new(Inner {
            reads: connections(connector.clone(), IDLE_CONNECTIONS),
            base,
            token_file: settings.token_file.clone(),
            token: Mutex::new(token),
            renewing: tokio::sync::Mutex::default(),
            job_reader: Mutex::default(),
            connector,
            patience,
            multiplexed: watch::Sender::new(None),
            availability,
        })))
    }

    /// Where the switchboard is.
    pub fn base(&self) -> &BaseUrl {
        &self.0.base
    }

    /// Reads the token again, and says whether it is another.
    ///
    /// # Errors
    ///
    /// Why the file gives none; the token known so far stays in use.
    pub async fn renew_token(&self) -> Result<bool, TokenError> {
        let path = self.0.token_file.clone();
        let read = files::off_thread(move || Token::read(&path)).await;
        let token = read.map_err(|unanswered| TokenError::File {
            path: self.0.token_file.clone(),
            reason: unanswered.into(),
        })??;
        let mut known = self.0.token.lock().unwrap_or_else(PoisonError::into_inner);
        let replaced = *known != token;
        *known = token;
        Ok(replaced)
    }

    /// Up to `limit` jobs of the listing, newest first, from `cursor` on.
    ///
    /// # Errors
    ///
    /// See [`Failure`].
    pub async fn jobs(&self, limit: u16, cursor: Option<&Cursor>) -> Result<Page, Failure> {
        let mut route = format!("/jobs?include=all&state=active&limit={limit}");
        if let Some(cursor) = cursor {
            route.push_str("&cursor=");
            route.push_str(&cursor.in_query());
        }
        let question = Question {
            about: About::Listing,
            ..Question::get(&route)
        };
        let (_, body) = self.read(question, LISTING_AT_MOST).await?;
        Ok(read::page(&body)?)
    }

    /// One job in detail.
    ///
    /// # Errors
    ///
    /// See [`Failure`].
    pub async fn job(&self, id: &JobId) -> Result<Detail, Failure> {
        let route = format!("/jobs/{id}");
        let asked = Instant::now();
        let (_, body) = self.read(Question::get(&route), JOB_AT_MOST).await?;
        let detail = read::detail(id, &body)?;
        let reader = self.job_reader().as_ref().and_then(Weak::upgrade);
        if let Some(reader) = reader {
            reader.job_was_read(id, asked, &body);
        }
        Ok(detail)
    }

    /// Every host.
    ///
    /// # Errors
    ///
    /// See [`Failure`].
    pub async fn hosts(&self) -> Result<Hosts, Failure> {
        let (_, body) = self.read(Question::get("/hosts"), LISTING_AT_MOST).await?;
        Ok(read::hosts(&body)?)
    }

    /// Which jobs the account of the token may read.
    ///
    /// # Errors
    ///
    /// See [`Failure`].
    pub async fn rights(&self) -> Result<Rights, Failure> {
        let (_, body) = self.read(Question::get("/users/me"), JOB_AT_MOST).await?;
        Ok(read::rights(&body)?)
    }

    /// Until when the token is good; `None` where the switchboard does not say.
    ///
    /// # Errors
    ///
    /// See [`Failure`].
    pub async fn token_expiry(&self) -> Result<Option<SystemTime>, Failure> {
        let (_, body) = self
            .read(Question::get("/users/me/tokens"), JOB_AT_MOST)
            .await?;
        Ok(read::token_expiry(&body)?)
    }

    /// The annotations of a job, and their version.
    ///
    /// # Errors
    ///
    /// See [`Failure`]; [`Failure::Invalid`] where the switchboard knows no annotations.
    pub(super) async fn annotations(&self, id: &JobId) -> Result<Annotated, Failure> {
        let route = format!("/jobs/{id}");
        let (head, body) = self.read(Question::get(&route), JOB_AT_MOST).await?;
        Ok(read::annotations(id, head.get(ETAG).cloned(), &body)?)
    }

    /// Replaces the annotations of a job, if they still are of the version in `annotated`.
    ///
    /// # Errors
    ///
    /// See [`Failure`]; [`Failure::Outdated`] if they are not.
    pub(super) async fn annotate(&self, id: &JobId, annotated: &Annotated) -> Result<(), Failure> {
        let route = format!("/jobs/{id}");
        let question = Question {
            method: Method::PATCH,
            about: About::Aside,
            if_match: Some(&annotated.version),
            body: Bytes::from(annotated.to_patch()),
            ..Question::get(&route)
        };
        self.read(question, JOB_AT_MOST).await.map(|_| ())
    }

    /// Opens the watch at `route` on `connections`.
    ///
    /// # Errors
    ///
    /// See [`Failure`]; [`Failure::Invalid`] if the answer is no stream of events.
    pub(super) async fn watch(
        &self,
        connections: &Connections,
        route: &str,
    ) -> Result<Incoming, Failure> {
        let question = Question {
            accept: "text/event-stream",
            about: About::Aside,
            ..Question::get(route)
        };
        let asked = Instant::now();
        let answer = self.bounded(self.ask(connections, &question)).await;
        self.note(&question, asked, &answer);
        let answer = answer?;
        let kind = answer.headers().get(CONTENT_TYPE);
        let kind = kind.map_or(&b""[..], HeaderValue::as_bytes);
        match kind.starts_with(b"text/event-stream") {
            true => Ok(answer.into_body()),
            false => Err(Failure::invalid("a watch that is not text/event-stream")),
        }
    }

    /// A pool of its own, for one connection that others are not to wait for.
    pub(super) fn lane(&self) -> Connections {
        connections(self.0.connector.clone(), 1)
    }

    /// Whether many requests share a connection, as far as the last answer showed.
    pub(super) fn is_multiplexed(&self) -> bool {
        self.0.multiplexed.borrow().unwrap_or(false)
    }

    /// Waits for the first answer, before which nobody knows how many requests a connection takes.
    pub(super) async fn answered(&self) {
        // Fails only without a sender, which is here.
        let mut answers = self.0.multiplexed.subscribe();
        let _ = answers.wait_for(Option::is_some).await;
    }

    /// Has `reader` see every job that is read from now on, as long as it exists.
    pub(super) fn show_jobs_to(&self, reader: Weak<dyn JobReader>) {
        *self.job_reader() = Some(reader);
    }

    fn job_reader(&self) -> MutexGuard<'_, Option<Weak<dyn JobReader>>> {
        let reader = self.0.job_reader.lock();
        reader.unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the switchboard answers.
    pub fn availability(&self) -> &Arc<Availability> {
        &self.0.availability
    }

    /// How long it waits for what.
    pub(super) fn patience(&self) -> Patience {
        self.0.patience
    }

    async fn read(
        &self,
        question: Question<'_>,
        allowed: u64,
    ) -> Result<(http::HeaderMap, Bytes), Failure> {
        let asked = Instant::now();
        let reading = async {
            let answer = self.ask(&self.0.reads, &question).await?;
            let multiplexed = Some(answer.version() == Version::HTTP_2);
            self.0.multiplexed.send_if_modified(|known| {
                let differs = *known != multiplexed;
                *known = multiplexed;
                differs
            });
            let (head, body) = answer.into_parts();
            Ok((head.headers, whole(body, allowed).await?))
        };
        let answer = self.bounded(reading).await;
        self.note(&question, asked, &answer);
        answer
    }

    fn note<T>(&self, question: &Question<'_>, asked: Instant, answer: &Result<T, Failure>) {
        let failure = answer.as_ref().err();
        self.0.availability.note(question.about, asked, failure);
    }

    async fn bounded<T>(
        &self,
        answer: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let allowed = self.0.patience.answer;
        let late = |_elapsed| Failure::Timeout { allowed };
        timeout(allowed, answer).await.map_err(late)?
    }

    /// Asks, once more if the token turns out to have been replaced.
    async fn ask(
        &self,
        connections: &Connections,
        question: &Question<'_>,
    ) -> Result<Response<Incoming>, Failure> {
        let token = self.token();
        match self.ask_with(connections, question, &token).await {
            Err(Failure::Unauthorized) => match self.renewed(&token).await {
                Some(token) => self.ask_with(connections, question, &token).await,
                None => Err(Failure::Unauthorized),
            },
            answer => answer,
        }
    }

    async fn ask_with(
        &self,
        connections: &Connections,
        question: &Question<'_>,
        token: &Token,
    ) -> Result<Response<Incoming>, Failure> {
        let malformed = |error: http::Error| Failure::invalid(&error.to_string());
        let uri = self.0.base.uri(question.route).map_err(malformed)?;
        let mut request = Request::builder()
            .method(question.method.clone())
            .uri(uri)
            .header(AUTHORIZATION, token.header())
            .header(ACCEPT, question.accept)
            .header(USER_AGENT, AGENT);
        if let Some(version) = question.if_match {
            request = request.header(IF_MATCH, version);
        }
        if !question.body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let body = Full::new(question.body.clone());
        let request = request.body(body).map_err(malformed)?;
        let answer = connections.request(request).await;
        let answer = answer.map_err(|error| Failure::of_connection(&error, error.is_connect()))?;
        match answer.status().is_success() {
            true => Ok(answer),
            false => Err(Failure::of_status(answer.status())),
        }
    }

    fn token(&self) -> Token {
        let token = self.0.token.lock().unwrap_or_else(PoisonError::into_inner);
        token.clone()
    }

    /// The token to use instead of `refused`, if there is another.
    async fn renewed(&self, refused: &Token) -> Option<Token> {
        // Many may be refused at once, and one reading is enough for all of them.
        let _turn = self.0.renewing.lock().await;
        let token = self.token();
        if token != *refused {
            return Some(token);
        }
        // Without a readable file the old token is as good as any.
        let _ = self.renew_token().await;
        let token = self.token();
        (token != *refused).then_some(token)
    }
}

fn connections(connector: HttpsConnector<HttpConnector>, idle: usize) -> Connections {
    legacy::Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_FOR)
        .pool_max_idle_per_host(idle)
        .http1_max_buf_size(HEAD_AT_MOST)
        .http2_keep_alive_interval(PING_EVERY)
        .http2_keep_alive_timeout(PING_EVERY)
        .build(connector)
}

/// All of `body`, if that is at most `allowed` bytes. A body that says beforehand that it is larger
/// is not read at all, and one that turns out to be is left where it is.
async fn whole(mut body: Incoming, allowed: u64) -> Result<Bytes, Failure> {
    let announced = body.size_hint();
    if announced.lower() > allowed {
        let found = announced.exact();
        return Err(Failure::TooLarge { found, allowed });
    }
    let mut content = Vec::with_capacity(announced.lower() as usize);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failure::of_connection(&error, false))?;
        let Some(data) = frame.data_ref() else {
            continue;
        };
        if (content.len() + data.len()) as u64 > allowed {
            return Err(Failure::TooLarge {
                found: None,
                allowed,
            });
        }
        content.extend_from_slice(data);
    }
    Ok(content.into())
}
