//! The schema of the database: made and changed by `tml-proxy fleet migrate`, never by a proxy that
//! serves.

use serde::Deserialize;

use super::{
    database::{Database, DatabaseError},
    settings::Access,
};

/// Every migration, the first leading from nothing to version 1.
const MIGRATIONS: [&str; 2] = [
    include_str!("migrations/1.sql"),
    include_str!("migrations/2.sql"),
];

/// The version of the schema that this program makes.
pub const VERSION: i32 = MIGRATIONS.len() as i32;

/// What a proxy may call.
const FUNCTIONS: [&str; 12] = [
    "schema_version()",
    "register(text, text, text, text)",
    "heartbeat(text, text, bigint)",
    "publish(text, text, bigint, boolean, jsonb)",
    "published(text, text, text, bigint)",
    "leave(text, text)",
    "region_beat(text, text, bigint, text, bigint, bigint, boolean, jsonb)",
    "region_map(text, text, bigint)",
    "region_write(text, text, text, bigint, bigint, bigint, jsonb, jsonb)",
    "region_block(text, text, text, integer, bigint)",
    "region_assert(text, text, text, bigint, jsonb)",
    "region_reserve(text, text, text, jsonb, jsonb, integer)",
];

/// The schema that a database has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) struct Schema {
    /// Its version.
    pub version: i32,
    /// The oldest version whose programs it serves.
    pub serves: i32,
}

/// Why the schema of a database is of no use to this program.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum SchemaError {
    #[error(
        "the schema of the database has version {found} and this program knows version {VERSION}: \
         run `tml-proxy fleet migrate` of this version"
    )]
    Older { found: i32 },
    #[error(
        "the schema of the database has version {found} and this program knows version {VERSION} at \
         most: it takes a newer tml-proxy"
    )]
    Newer { found: i32 },
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl Schema {
    /// Whether this program can do with it.
    pub fn check(self) -> Result<(), SchemaError> {
        let found = self.version;
        match found {
            _ if found < VERSION => Err(SchemaError::Older { found }),
            _ if self.serves > VERSION => Err(SchemaError::Newer { found }),
            _ => Ok(()),
        }
    }

    /// The one that a database has, as any role of a proxy may know.
    pub async fn of(database: &Database) -> Result<Self, DatabaseError> {
        let query = "select tml_proxy.schema_version()::text";
        let found = database.ask::<Option<Self>>(query, &[]).await?;
        found.ok_or(DatabaseError::NoSchema)
    }
}

/// What a migration has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migrated {
    /// The version before; 0 if there was no schema.
    pub from: i32,
    /// The version now.
    pub to: i32,
}

/// Brings the schema up to date, as a whole or not at all, and lets a role be that of proxies. Two who do so at
/// a time do so one after the other.
///
/// # Errors
///
/// Why nothing has changed.
pub async fn migrate(access: &Access, role: Option<&str>) -> Result<Migrated, SchemaError> {
    let database = Database::connect(access, None).await?;
    database
        .run("begin; set local lock_timeout = '4s'; select pg_advisory_xact_lock(hashtext('tml_proxy'))")
        .await?;
    let query = "select to_json(to_regclass('tml_proxy.schema') is not null)::text";
    let from = match database.ask(query, &[]).await? {
        true => Schema::of(&database).await?.version,
        false => 0,
    };
    if from > VERSION {
        return Err(SchemaError::Newer { found: from });
    }
    for migration in &MIGRATIONS[usize::try_from(from).unwrap_or(0)..] {
        database.run(migration).await?;
    }
    if let Some(role) = role {
        database.run(&grants(role)).await?;
    }
    database.run("commit").await?;
    Ok(Migrated { from, to: VERSION })
}

fn grants(role: &str) -> String {
    let role = format!("\"{}\"", role.replace('"', "\"\""));
    let functions = FUNCTIONS.map(|function| format!("tml_proxy.{function}"));
    let functions = functions.join(", ");
    format!(
        "grant usage on schema tml_proxy to {role}; grant execute on function {functions} to {role}"
    )
}

/// What an operator does to a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// It must not register any more.
    Remove,
    /// It may again.
    Restore,
}

/// Does it; whether there is such a proxy.
///
/// # Errors
///
/// Why nothing has changed.
pub async fn carry_out(access: &Access, deed: Deed, name: &str) -> Result<bool, SchemaError> {
    let database = Database::connect(access, None).await?;
    let query = match deed {
        Deed::Remove => "select to_json(tml_proxy.remove($1))::text",
        Deed::Restore => "select to_json(tml_proxy.restore($1))::text",
    };
    let values: [(&(dyn tokio_postgres::types::ToSql + Sync), _); 1] =
        [(&name, tokio_postgres::types::Type::TEXT)];
    match database.ask(query, &values).await {
        Err(DatabaseError::Rights(said)) => {
            let advice = "give the role that migrated the schema by --database";
            Err(DatabaseError::Refused(format!("{said}: {advice}")).into())
        }
        answer => Ok(answer?),
    }
}

/// Whether a proxy with these settings could take part, and if not, why: for whoever wants to know
/// beforehand.
///
/// # Errors
///
/// Why it could not.
pub async fn examine(access: &Access) -> Result<String, SchemaError> {
    let database = Database::connect(access, None).await?;
    Schema::of(&database).await?.check()?;
    Ok(database.server.clone())
}
