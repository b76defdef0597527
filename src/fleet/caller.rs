//! Questions to the database by a proxy that takes part in a fleet. Whoever has something to ask shares the
//! one connection, on which questions do not wait for each other's answers.

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio_postgres::types::{ToSql, Type};

use super::{
    database::{Database, DatabaseError},
    migrate::SchemaError,
    settings::FleetName,
};
use crate::units::duration_ms;

/// Values of a query.
pub(super) type Values<'a> = [(&'a (dyn ToSql + Sync), Type)];

/// How it stands with a proxy, as the database says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Standing {
    Member,
    Taken,
    Fenced,
    OfAnotherRole,
    Full,
    #[serde(other)]
    Unknown,
}

/// Why it does not go on with a connection.
#[derive(Debug)]
pub(super) enum End {
    /// The database is of no use.
    Failed(SchemaError),
    /// It will not have this proxy, which somebody has to do something about; in words, what.
    Refused(String),
    /// It has forgotten this proxy.
    Forgotten,
    /// The proxy has let go of its name.
    Left,
}

impl End {
    /// It in words.
    pub fn why(&self) -> String {
        match self {
            Self::Failed(error) => error.to_string(),
            Self::Refused(why) => why.clone(),
            Self::Forgotten => "the database has forgotten this proxy".to_owned(),
            Self::Left => "this proxy has left the fleet".to_owned(),
        }
    }
}

impl From<DatabaseError> for End {
    fn from(error: DatabaseError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<SchemaError> for End {
    fn from(error: SchemaError) -> Self {
        Self::Failed(error)
    }
}

/// A connection on which a proxy asks.
pub(super) struct Caller {
    /// The connection.
    pub database: Database,
    name: FleetName,
    instance: String,
    failed: mpsc::Sender<End>,
}

impl Caller {
    /// One of a process of that name, and what whoever shares it gives it up for.
    pub fn new(
        database: Database,
        name: FleetName,
        instance: String,
    ) -> (Self, mpsc::Receiver<End>) {
        let (failed, failures) = mpsc::channel(1);
        let caller = Self {
            database,
            name,
            instance,
            failed,
        };
        (caller, failures)
    }

    /// Has the connection given up.
    pub fn give_up(&self, end: End) {
        // If it is given up already, that is enough.
        let _ = self.failed.try_send(end);
    }

    /// Calls a function as this proxy; what comes of it if the database has it as a member.
    pub async fn ask<A: DeserializeOwned>(
        &self,
        function: &str,
        particulars: &Values<'_>,
    ) -> Result<A, End> {
        #[derive(Deserialize)]
        struct Stands {
            standing: Standing,
            #[serde(default)]
            silent_ms: u64,
        }
        let (name, instance) = (self.name.as_str(), self.instance.as_str());
        let mut values: Vec<(&(dyn ToSql + Sync), Type)> =
            vec![(&name, Type::TEXT), (&instance, Type::TEXT)];
        values.extend_from_slice(particulars);
        let answer: Box<RawValue> = self.database.ask(function, &values).await?;
        let of_no_use = |error| DatabaseError::of_no_use(&error);
        let stands: Stands = serde_json::from_str(answer.get()).map_err(of_no_use)?;
        let silent = duration_ms(stands.silent_ms);
        Err(End::Refused(match stands.standing {
            Standing::Member => return Ok(serde_json::from_str(answer.get()).map_err(of_no_use)?),
            Standing::Unknown => return Err(End::Forgotten),
            Standing::Taken => format!(
                "another process has the name \"{name}\" in this fleet and was heard of {silent} ago; if that \
                 was this proxy before a restart, the name is free soon, otherwise give one of them \
                 another fleet.name"
            ),
            Standing::Fenced => format!(
                "the proxy \"{name}\" was removed from this fleet; `tml-proxy fleet restore {name}` \
                 takes that back"
            ),
            Standing::OfAnotherRole => format!(
                "the name \"{name}\" in this fleet belongs to another role of the database: take \
                 another fleet.name, or give this one free by `tml-proxy fleet remove {name}` and \
                 `restore {name}`"
            ),
            Standing::Full => "the fleet has 1000 proxies and takes no more".to_owned(),
        }))
    }
}
