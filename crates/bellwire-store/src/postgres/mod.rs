//! The backend for many nodes: PostgreSQL 15 or newer.
//!
//! Any node accepts; batches go to the server as one statement and one commit. Which node delivers is decided by shards
//! (`shard.rs`). Statements are unnamed and transactions short, so that PgBouncer in transaction mode may stand in between.
//! The files named after nouns implement the traits of the same name, as in `sqlite/`.

mod accept;
mod accept_lane;
mod application;
mod attempt;
mod attempted;
mod connection;
mod credential;
pub mod database;
mod delivery;
pub mod diagnose;
mod doubt;
mod endpoint;
mod event_type;
mod fault;
mod handed_out;
mod handover;
mod idempotency;
pub(crate) mod import;
mod inbox;
mod local;
mod maintenance;
mod message;
mod migrate;
mod param;
mod partition;
mod record;
mod record_lane;
mod row;
mod shard;
mod source;
mod state;
mod task;
mod unannounced;
mod writer;

use std::sync::{Arc, OnceLock};

use bellwire_core::OrgId;

use crate::{Cipher, CommitSink, Result, Store, StoreError};
use connection::{Conn, Db};
use fault::Outcome;
use param::p;
use writer::Writer;

/// Connections beside the writer's and the membership's, however few are allowed: one for what takes long, one for all else.
const CONNECTIONS_MIN: usize = 2;
/// Connections for membership and ownership: one for reading what stands in shards just taken, which may take long, one for all
/// else, and where there are enough one for waiting until a dead node's writes have ended.
const MEMBERSHIP_CONNECTIONS: std::ops::RangeInclusive<usize> = 2..=3;

/// How the store is opened.
#[derive(Clone)]
pub struct PostgresOptions {
    /// `postgres://user:password@host[,host…]/database?sslmode=…`
    pub url: String,
    pub cipher: Cipher,
    /// Connections this process opens at most.
    pub connections_max: usize,
    /// How long messages are kept. Payloads that expire earlier are deleted one by one.
    pub retention: std::time::Duration,
    /// It is opened to be filled from another store ([`crate::transfer`]); others may not open it until that has ended.
    pub is_move_target: bool,
}

impl PostgresOptions {
    pub fn new(url: impl Into<String>, cipher: Cipher) -> Self {
        let retention = std::time::Duration::from_secs(90 * 86_400);
        Self { url: url.into(), cipher, connections_max: 16, retention, is_move_target: false }
    }
}

/// The store on PostgreSQL.
pub struct PostgresStore {
    db: Db,
    /// For membership and ownership alone (`shard.rs`): however many lists are being read, the heart beats.
    members: Db,
    cipher: Cipher,
    options: PostgresOptions,
    sink: Arc<OnceLock<Arc<dyn CommitSink>>>,
    writer: Arc<Writer>,
    seen: shard::Seen,
}

impl Store for PostgresStore {}

impl PostgresStore {
    /// Connects and brings the schema up to date. Errors: [`StoreError::Unavailable`], [`StoreError::TooNew`],
    /// [`StoreError::Cipher`] (another master key), [`StoreError::Move`] (a move into it has not ended).
    pub async fn open(options: PostgresOptions) -> Result<Arc<Self>> {
        Ok(Self::open_inner(options).await?)
    }

    async fn open_inner(options: PostgresOptions) -> Outcome<Arc<Self>> {
        let others = options.connections_max.saturating_sub(writer::CONNECTIONS);
        let of_membership = (others / 2).clamp(*MEMBERSHIP_CONNECTIONS.start(), *MEMBERSHIP_CONNECTIONS.end());
        let db = Db::new(&options.url, others.saturating_sub(of_membership).max(CONNECTIONS_MIN))?;
        let members = Db::new(&options.url, of_membership)?;
        let mut conn = db.get().await?;
        migrate::run(&mut conn).await?;
        check_key(&conn, &options.cipher).await?;
        if !options.is_move_target {
            import::refuse_unfinished(&conn).await?;
        }
        drop(conn);
        let is_pooled = db.is_pooled().await?;
        let sink = Arc::new(OnceLock::new());
        // The writer's connections are its own: however many reads wait for one, writes go on.
        let lanes = if is_pooled {
            Db::new(&options.url, writer::CONNECTIONS)?
        } else {
            members.keep_statements();
            Db::keeping_statements(&options.url, writer::CONNECTIONS)?
        };
        let writer = Writer::start(db.clone(), lanes, sink.clone(), options.retention);
        Ok(Arc::new(Self { db, members, cipher: options.cipher.clone(), options, sink, writer, seen: shard::Seen::default() }))
    }
}

/// Notices a wrong master key at the start and not at the first delivery.
async fn check_key(conn: &Conn, cipher: &Cipher) -> Outcome<()> {
    let nobody: OrgId = bellwire_core::IdKind::from_bytes([0; 20]);
    let sealed = cipher.seal(&nobody, "meta/key_check", b"bellwire")?;
    // Of several that start at once, the first one's stays.
    let sql = "INSERT INTO meta (name, value) VALUES ('key_check', $1) ON CONFLICT (name) DO NOTHING";
    conn.execute(sql, &[p(&sealed)]).await?;
    let row = conn.query_one("SELECT value FROM meta WHERE name = 'key_check'", &[]).await?;
    let known: Vec<u8> = row.try_get(0)?;
    cipher
        .open(&nobody, "meta/key_check", &known)
        .map(|_| ())
        .map_err(|_| StoreError::Cipher("the master key is not the one this store was created with".to_owned()).into())
}
