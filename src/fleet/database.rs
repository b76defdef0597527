//! One connection to the database: to whichever of its servers takes writes, with a limit on everything
//! that is waited for.
//!
//! No statement has a name: behind a pooler that lends connections for a transaction, another program's
//! could be meant by it.

use std::{
    error::Error as _,
    future::{Future, poll_fn},
    io,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use rustls::{ClientConfig, pki_types::ServerName};
use serde::de::DeserializeOwned;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, lookup_host},
    sync::{Notify, watch},
    time::timeout,
};
use tokio_postgres::{
    AsyncMessage, Client, Connection,
    config::SslMode,
    error::SqlState,
    tls::{ChannelBinding, TlsConnect},
    types::{ToSql, Type},
};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use super::settings::{Access, Fleet};
use crate::{
    files::{self, FileError},
    os_error::in_words,
    text::printable,
    tls_roots::{self, TrustError},
    units::duration,
};

/// How long it may take with one server until it is ready for a question: to look its name up, to
/// connect, to encrypt, to say who we are.
const SERVER_WITHIN: Duration = Duration::from_secs(5);

/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// How long what was sent may be without an acknowledgement, and how long an idle connection is left
/// alone.
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);

/// The longest password, in bytes.
const LONGEST_PASSWORD: u64 = 1024;

/// Characters of what a server says that are shown.
const SHOWN: usize = 300;

/// The channel on which the functions of the database tell whose entries have changed.
const CHANNEL: &str = "tml_proxy";

/// The one on which they tell of which region the ports have changed, and the generation of them.
const REGIONS: &str = "tml_proxy_region";

/// Why the database is of no use.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// There is no password where there should be one.
    #[error("password_file {path}: {reason}")]
    Password {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// Nobody can wait for the files it takes.
    #[error("password_file and ca_file: {0}")]
    Files(String),
    /// It is not known whose certificates to trust.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// No server is of use; each with why.
    #[error("{0}")]
    NoServer(String),
    /// It has not what proxies ask for.
    #[error("the database has no schema for proxies: run `tml-proxy fleet migrate`")]
    NoSchema,
    /// The role may not do that.
    #[error("{0} (`tml-proxy fleet migrate` gives a proxy's role the rights it needs)")]
    Rights(String),
    /// It cannot do what it was asked.
    #[error("{0}")]
    Refused(String),
    /// The connection has ended, or an answer is not to be had.
    #[error("{0}")]
    Lost(String),
}

impl DatabaseError {
    /// Of an answer that is not what it should be.
    pub fn of_no_use(error: &serde_json::Error) -> Self {
        Self::Refused(format!("an answer of no use: {error}"))
    }

    /// Of a question that was asked.
    fn of(error: &tokio_postgres::Error) -> Self {
        let Some(said) = error.as_db_error() else {
            return Self::Lost(in_full(error));
        };
        let words = printable(said.message(), SHOWN);
        match said.code() {
            code if [
                SqlState::INVALID_SCHEMA_NAME,
                SqlState::UNDEFINED_FUNCTION,
                SqlState::UNDEFINED_TABLE,
            ]
            .contains(code) =>
            {
                Self::NoSchema
            }
            code if *code == SqlState::INSUFFICIENT_PRIVILEGE => Self::Rights(words),
            // A primary that has become a standby, or is going down.
            code if *code == SqlState::READ_ONLY_SQL_TRANSACTION
                || code.code().starts_with("57P") =>
            {
                Self::Lost(words)
            }
            _ => Self::Refused(words),
        }
    }
}

/// An error with its causes, in a line.
fn in_full(error: &tokio_postgres::Error) -> String {
    if let Some(said) = error.as_db_error() {
        return printable(said.message(), SHOWN);
    }
    let Some(cause) = error.source() else {
        return error.to_string();
    };
    match cause.downcast_ref::<io::Error>() {
        Some(cause) => in_words(cause),
        None => printable(&format!("{error}: {cause}"), SHOWN),
    }
}

/// A connection, until it is dropped.
pub(super) struct Database {
    client: Client,
    /// The server.
    pub server: String,
    /// Whenever somebody else's entries have changed.
    pub changed: Arc<Notify>,
    /// The generation of the region's ports, as it was last told of.
    pub region: watch::Receiver<u64>,
    ended: watch::Receiver<()>,
    _driver: AbortOnDropHandle<()>,
}

impl Database {
    /// Connects to the first server that takes writes. A member hears of changes by others.
    pub async fn connect(
        access: &Access,
        member: Option<&Arc<Fleet>>,
    ) -> Result<Self, DatabaseError> {
        let (password, tls) = {
            let access = access.clone();
            let read = files::off_thread(move || credentials(&access)).await;
            read.map_err(|error| DatabaseError::Files(error.to_string()))??
        };
        let mut config = tokio_postgres::Config::new();
        config
            .user(&access.url.user)
            .dbname(&access.url.database)
            .application_name("tml-proxy")
            .ssl_mode(match access.url.is_encrypted {
                true => SslMode::Require,
                false => SslMode::Disable,
            });
        if let Some(password) = password {
            config.password(password);
        }
        let mut failed = Vec::new();
        for (host, port) in &access.url.hosts {
            let server = format!("{host}:{port}");
            let connecting = connect_to(&config, host, *port, tls.clone(), member.cloned());
            match timeout(SERVER_WITHIN, connecting).await {
                Ok(Ok(database)) => return Ok(database),
                Ok(Err(why)) => failed.push(format!("{server}: {why}")),
                Err(_) => {
                    let within = duration(SERVER_WITHIN);
                    failed.push(format!("{server}: not ready for questions within {within}"));
                }
            }
        }
        Err(DatabaseError::NoServer(failed.join("; ")))
    }

    /// What a query says whose answer is one value: JSON as text.
    pub async fn ask<T: DeserializeOwned>(
        &self,
        query: &str,
        values: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<T, DatabaseError> {
        let answer = self.client.query_typed(query, values);
        let rows = match timeout(ANSWER_WITHIN, answer).await {
            Ok(rows) => rows.map_err(|error| DatabaseError::of(&error))?,
            Err(_) => {
                let within = duration(ANSWER_WITHIN);
                return Err(DatabaseError::Lost(format!("no answer within {within}")));
            }
        };
        let text = rows.first().map(|row| row.try_get::<_, Option<&str>>(0));
        let text = text
            .transpose()
            .map_err(|error| DatabaseError::of(&error))?;
        let text = text.flatten().unwrap_or("null");
        serde_json::from_str(text).map_err(|error| DatabaseError::of_no_use(&error))
    }

    /// Runs statements that have no answer.
    pub async fn run(&self, statements: &str) -> Result<(), DatabaseError> {
        match timeout(ANSWER_WITHIN, self.client.batch_execute(statements)).await {
            Ok(done) => done.map_err(|error| DatabaseError::of(&error)),
            Err(_) => {
                let within = duration(ANSWER_WITHIN);
                Err(DatabaseError::Lost(format!("no answer within {within}")))
            }
        }
    }

    /// Has others' changes noticed at once, where no pooler is in the way.
    pub async fn listen(&self) -> Result<(), DatabaseError> {
        self.run(&format!("listen {CHANNEL}; listen {REGIONS}"))
            .await
    }

    /// Waits until the connection has ended.
    pub async fn ended(&self) -> DatabaseError {
        // Nothing is ever sent.
        while self.ended.clone().changed().await.is_ok() {}
        DatabaseError::Lost("the connection was lost".to_owned())
    }
}

/// The password, if there is one, and whom to trust, if anybody has to show a certificate.
type Credentials = (Option<Vec<u8>>, Option<Arc<ClientConfig>>);

fn credentials(access: &Access) -> Result<Credentials, DatabaseError> {
    let password = access.password_file.as_deref().map(password).transpose()?;
    let tls = match access.url.is_encrypted {
        true => Some(trusting(access.ca_file.as_deref())?),
        false => None,
    };
    Ok((password, tls))
}

fn password(path: &Path) -> Result<Vec<u8>, DatabaseError> {
    let read = files::read(path, LONGEST_PASSWORD);
    let reason = match read {
        Ok(content) => match content.trim_ascii() {
            [] => "is empty".to_owned(),
            password => return Ok(password.to_vec()),
        },
        Err(FileError::TooLong { .. }) => format!("longer than {LONGEST_PASSWORD} bytes"),
        Err(error) => error.to_string(),
    };
    let path = path.display().to_string();
    Err(DatabaseError::Password { path, reason })
}

fn trusting(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, TrustError> {
    let roots = match ca_file {
        Some(path) => tls_roots::of_file(path)?,
        None => tls_roots::of_system()?,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Connects to a server if it takes writes; otherwise says why it is of no use.
async fn connect_to(
    config: &tokio_postgres::Config,
    host: &str,
    port: u16,
    tls: Option<Arc<ClientConfig>>,
    member: Option<Arc<Fleet>>,
) -> Result<Database, String> {
    let stream = open(host, port).await.map_err(|error| in_words(&error))?;
    let name = ServerName::try_from(host.to_owned());
    let name = name.map_err(|_| "no certificate can be for such a name".to_owned())?;
    let tls = Tls(tls.map(|config| (TlsConnector::from(config), name)));
    let connected = config.connect_raw(stream, tls).await;
    let (client, connection) = connected.map_err(|error| in_full(&error))?;
    let changed = Arc::new(Notify::new());
    let (alive, ended) = watch::channel(());
    let (of_region, region) = watch::channel(0);
    let notices = member.map(|member| Notices {
        member,
        changed: Arc::clone(&changed),
        region: of_region,
    });
    let driver = drive(connection, notices, alive);
    let database = Database {
        client,
        server: format!("{host}:{port}"),
        changed,
        region,
        ended,
        _driver: AbortOnDropHandle::new(tokio::spawn(driver)),
    };
    let query = "select to_json(current_setting('transaction_read_only'))::text";
    match database.ask::<String>(query, &[]).await {
        Ok(read_only) if read_only == "off" => Ok(database),
        Ok(_) => Err("takes no writes, it is a standby".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

async fn open(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut failed = io::Error::from(io::ErrorKind::NotFound);
    for address in lookup_host((host, port)).await? {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                let socket = SockRef::from(&stream);
                socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
                let probes = TcpKeepalive::new().with_time(UNACKNOWLEDGED);
                socket.set_tcp_keepalive(&probes.with_interval(UNACKNOWLEDGED / 3))?;
                return Ok(stream);
            }
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// Moves what is said over a connection, until that ends.
async fn drive(
    mut connection: Connection<TcpStream, Encrypted>,
    notices: Option<Notices>,
    alive: watch::Sender<()>,
) {
    while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
        if let (AsyncMessage::Notification(of), Some(notices)) = (message, &notices) {
            notices.take(of.channel(), of.payload());
        }
    }
    drop(alive);
}

/// Where a member hears of changes.
struct Notices {
    member: Arc<Fleet>,
    changed: Arc<Notify>,
    region: watch::Sender<u64>,
}

impl Notices {
    fn take(&self, channel: &str, payload: &str) {
        if channel == REGIONS {
            let (region, generation) = payload.split_once(' ').unwrap_or_default();
            if region == self.member.region.as_str()
                && let Ok(generation) = generation.parse()
            {
                self.region.send_replace(generation);
            }
        } else if payload != self.member.name.as_str() {
            self.changed.notify_one();
        }
    }
}

/// Encrypts, if there is whom to trust, and believes whoever has a certificate for that name.
struct Tls(Option<(TlsConnector, ServerName<'static>)>);

type Encrypting = Pin<Box<dyn Future<Output = io::Result<Encrypted>> + Send>>;

impl TlsConnect<TcpStream> for Tls {
    type Stream = Encrypted;
    type Error = io::Error;
    type Future = Encrypting;

    fn connect(self, stream: TcpStream) -> Encrypting {
        Box::pin(async move {
            match self.0 {
                Some((connector, name)) => connector.connect(name, stream).await.map(Encrypted),
                None => Err(io::Error::from(io::ErrorKind::Unsupported)),
            }
        })
    }
}

/// An encrypted connection.
struct Encrypted(tokio_rustls::client::TlsStream<TcpStream>);

impl tokio_postgres::tls::TlsStream for Encrypted {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl AsyncRead for Encrypted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Encrypted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
