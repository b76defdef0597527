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
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

use http::{
    HeaderMap, HeaderValue, Method, Request, Response, Version,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, ETAG, IF_MATCH, USER_AGENT},
};
use http_body_util::{BodyExt, Full, Limited};
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
use crate::{
    files::{self, Unanswered},
    mutex::lock,
};

pub(crate) use self::failure::Fault;
use self::{availability::About, token::Token};
pub use self::{
    availability::{Availability, Outage, SavedAvailability},
    base::{BaseUrl, UrlError},
    failure::{ConnectCause, Failure, FailureKind},
    tls::TrustError,
    token::TokenError,
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
const LISTING_AT_MOST: usize = 16 << 20;

/// The largest single job read, in bytes; usual is 1 KiB.
const JOB_AT_MOST: usize = 4 << 20;

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
#[allow(missing_docs, reason = "the messages say it")]
pub enum ClientError {
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    Trust(#[from] TrustError),
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
    /// How often another token took its place.
    token_changes: AtomicU64,
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

impl Client {
    /// A client that has not connected yet and notes in `availability` whether the switchboard
    /// answers, made by a thread that may wait for its files.
    pub(crate) async fn open(
        settings: &ClientSettings,
        patience: Patience,
        availability: Arc<Availability>,
    ) -> Result<Self, ClientError> {
        let settings = settings.clone();
        files::off_thread(move || Self::new(&settings, patience, availability)).await?
    }

    /// The same, which takes as long as the file system does.
    ///
    /// # Errors
    ///
    /// What of the settings is of no use.
    pub fn new(
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
            token_changes: AtomicU64::new(0),
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

    /// Reads the token again.
    ///
    /// # Errors
    ///
    /// Why the file gives none; the token known so far stays in use.
    pub async fn renew_token(&self) -> Result<(), TokenError> {
        let path = self.0.token_file.clone();
        let read = files::off_thread(move || Token::read(&path)).await;
        let token = read.map_err(|late| TokenError::unanswered(&self.0.token_file, late))??;
        let mut known = lock(&self.0.token);
        if *known != token {
            *known = token;
            self.0.token_changes.fetch_add(1, Relaxed);
        }
        Ok(())
    }

    /// How often the token was replaced, by whoever found another in the file.
    pub(crate) fn token_changes(&self) -> u64 {
        self.0.token_changes.load(Relaxed)
    }

    /// Up to `limit` jobs of the listing, newest first, from `cursor` on.
    pub(crate) async fn jobs(&self, limit: u16, cursor: Option<&Cursor>) -> Result<Page, Failure> {
        let mut route = format!("/jobs?include=all&state=active&limit={limit}");
        if let Some(cursor) = cursor {
            route.push_str("&cursor=");
            route.push_str(&cursor.in_query());
        }
        let request = self.get(&route)?;
        let (_, body) = self.read(About::Listing, request, LISTING_AT_MOST).await?;
        Ok(read::page(&body)?)
    }

    /// One job in detail.
    pub(crate) async fn job(&self, id: &JobId) -> Result<Detail, Failure> {
        let asked = Instant::now();
        let (_, body) = self.read_small(&format!("/jobs/{id}")).await?;
        let detail = read::detail(id, &body)?;
        let reader = lock(&self.0.job_reader).as_ref().and_then(Weak::upgrade);
        if let Some(reader) = reader {
            reader.job_was_read(id, asked, &body);
        }
        Ok(detail)
    }

    /// Every host.
    ///
    /// # Errors
    ///
    /// Why there is no answer.
    pub async fn hosts(&self) -> Result<Hosts, Failure> {
        let request = self.get("/hosts")?;
        let (_, body) = self.read(About::Reading, request, LISTING_AT_MOST).await?;
        Ok(read::hosts(&body)?)
    }

    /// Which jobs the account of the token may read.
    pub(crate) async fn rights(&self) -> Result<Rights, Failure> {
        let (_, body) = self.read_small("/users/me").await?;
        Ok(read::rights(&body)?)
    }

    /// Until when the token is good; `None` where the switchboard does not say.
    pub(crate) async fn token_expiry(&self) -> Result<Option<SystemTime>, Failure> {
        let (_, body) = self.read_small("/users/me/tokens").await?;
        Ok(read::token_expiry(&body)?)
    }

    /// The annotations of a job, and their version; [`Failure::Invalid`] where the switchboard knows
    /// no annotations.
    pub(super) async fn annotations(&self, id: &JobId) -> Result<Annotated, Failure> {
        let (head, body) = self.read_small(&format!("/jobs/{id}")).await?;
        Ok(read::annotations(id, head.get(ETAG).cloned(), &body)?)
    }

    /// Replaces the annotations of a job, if they still are of the version in `annotated`; otherwise
    /// that is [`Failure::Outdated`].
    pub(super) async fn annotate(&self, id: &JobId, annotated: &Annotated) -> Result<(), Failure> {
        let mut request = self.get(&format!("/jobs/{id}"))?;
        *request.method_mut() = Method::PATCH;
        *request.body_mut() = Full::from(annotated.to_patch());
        let headers = request.headers_mut();
        headers.insert(IF_MATCH, annotated.version.clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self.read(About::Aside, request, JOB_AT_MOST).await?;
        Ok(())
    }

    /// Opens the watch at `route` on `connections`; [`Failure::Invalid`] if the answer is no stream
    /// of events.
    pub(super) async fn watch(
        &self,
        connections: &Connections,
        route: &str,
    ) -> Result<Incoming, Failure> {
        const STREAM: &str = "text/event-stream";
        let mut request = self.get(route)?;
        let accepted = HeaderValue::from_static(STREAM);
        request.headers_mut().insert(ACCEPT, accepted);
        let opening = self.ask(connections, request);
        let answer = self.noted(About::Aside, opening).await?;
        let kind = answer.headers().get(CONTENT_TYPE);
        match kind.is_some_and(|kind| kind.as_bytes().starts_with(STREAM.as_bytes())) {
            true => Ok(answer.into_body()),
            false => Err(Failure::invalid("a watch that is not text/event-stream")),
        }
    }

    /// A pool of its own, for one connection that others are not to wait for.
    pub(super) fn own_connection(&self) -> Connections {
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
        *lock(&self.0.job_reader) = Some(reader);
    }

    /// Whether the switchboard answers.
    pub(crate) fn availability(&self) -> &Arc<Availability> {
        &self.0.availability
    }

    pub(super) fn patience(&self) -> Patience {
        self.0.patience
    }

    /// The request that reads `route`, without a token.
    fn get(&self, route: &str) -> Result<Request<Full<Bytes>>, Failure> {
        let request = self.0.base.uri(route).and_then(|uri| {
            Request::get(uri)
                .header(ACCEPT, "application/json")
                .header(USER_AGENT, AGENT)
                .body(Full::default())
        });
        request.map_err(|error| Failure::invalid(&error.to_string()))
    }

    async fn read_small(&self, route: &str) -> Result<(HeaderMap, Bytes), Failure> {
        let request = self.get(route)?;
        self.read(About::Reading, request, JOB_AT_MOST).await
    }

    async fn read(
        &self,
        about: About,
        request: Request<Full<Bytes>>,
        allowed: usize,
    ) -> Result<(HeaderMap, Bytes), Failure> {
        let reading = async {
            let answer = self.ask(&self.0.reads, request).await?;
            let multiplexed = Some(answer.version() == Version::HTTP_2);
            self.0.multiplexed.send_if_modified(|known| {
                let differs = *known != multiplexed;
                *known = multiplexed;
                differs
            });
            let (head, body) = answer.into_parts();
            Ok((head.headers, whole(body, allowed).await?))
        };
        self.noted(about, reading).await
    }

    /// Waits for an answer as long as that may take, and notes what it says of the switchboard.
    async fn noted<T>(
        &self,
        about: About,
        answer: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let asked = Instant::now();
        let allowed = self.0.patience.answer;
        let answer = timeout(allowed, answer).await;
        let answer = answer.unwrap_or(Err(Failure::Timeout { allowed }));
        let failure = answer.as_ref().err();
        self.0.availability.note(about, asked, failure);
        answer
    }

    /// Asks, once more if the token turns out to have been replaced.
    async fn ask(
        &self,
        connections: &Connections,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, Failure> {
        let token = self.token();
        match ask_with(connections, request.clone(), &token).await {
            Err(Failure::Unauthorized) => match self.renewed(&token).await {
                Some(token) => ask_with(connections, request, &token).await,
                None => Err(Failure::Unauthorized),
            },
            answer => answer,
        }
    }

    fn token(&self) -> Token {
        let token = lock(&self.0.token);
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

async fn ask_with(
    connections: &Connections,
    mut request: Request<Full<Bytes>>,
    token: &Token,
) -> Result<Response<Incoming>, Failure> {
    request.headers_mut().insert(AUTHORIZATION, token.header());
    let answer = connections.request(request).await;
    let answer = answer.map_err(|error| Failure::of_connection(&error, error.is_connect()))?;
    match answer.status().is_success() {
        true => Ok(answer),
        false => Err(Failure::of_status(answer.status())),
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
async fn whole(body: Incoming, allowed: usize) -> Result<Bytes, Failure> {
    let announced = body.size_hint();
    if announced.lower() > allowed as u64 {
        let found = announced.exact();
        return Err(Failure::TooLarge { found, allowed });
    }
    match Limited::new(body, allowed).collect().await {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(error) => Err(match error.downcast_ref::<hyper::Error>() {
            Some(error) => Failure::of_connection(error, false),
            None => Failure::TooLarge {
                found: None,
                allowed,
            },
        }),
    }
}
