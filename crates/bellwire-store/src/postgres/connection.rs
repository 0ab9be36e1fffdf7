//! Connections: a pool of them, statements with a time limit, transactions that end one way or the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bellwire_core::limits;
use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime, Timeouts};
use parking_lot::Mutex;
use tokio_postgres::config::SslMode;
use tokio_postgres::{NoTls, Row};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::fault::{Fault, Outcome};
use super::param::Param;
use crate::StoreError;

/// Statements of the way of a message, and of chores.
pub const WRITE_MAX: Duration = Duration::from_millis(limits::WRITER_WAIT_MS_MAX);
/// Lists and counts for people.
pub const READ_MAX: Duration = Duration::from_millis(limits::READ_STATEMENT_MS_MAX);
/// Connecting to one host of the address. Well below the lease of a node: one host that does not answer must not cost it its shards.
const CONNECT_MAX: Duration = Duration::from_secs(1);
/// Logging in, on the host that was found.
const LOGIN_MAX: Duration = Duration::from_secs(3);
/// A transaction in which nothing happens is ended by the server after so long.
const IDLE_MS_MAX: u32 = 5_000;
/// Waiting for a connection of the pool.
const POOL_WAIT_MAX: Duration = Duration::from_secs(5);
/// One that was not borrowed for so long may have broken unnoticed: it is asked first, which costs a round trip.
const TRUSTED_MAX: Duration = Duration::from_millis(500);
/// How long a connection, or a request to cancel a statement, may take to be answered.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// Connections to one database.
#[derive(Clone)]
pub struct Db {
    pool: Pool,
    /// For cancelling statements, as for the connections themselves.
    tls: Option<MakeRustlsConnect>,
    /// Whether statements may be kept prepared; shared with all its connections.
    keeps_statements: Arc<AtomicBool>,
}

/// How a connection is set up.
const SETTINGS: &str = "SET jit = off"; // Compiling costs more than any of our statements.
/// The same where all statements are kept: they are planned once, so the plan must be the one for large tables from the start.
const SETTINGS_KEPT: &str = "SET jit = off; SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off";

impl Db {
    /// For connections that run the same few statements over and over, and nothing else: each is parsed and planned once. See
    /// [`Self::keep_statements`].
    pub fn keeping_statements(url: &str, connections_max: usize) -> Result<Self, StoreError> {
        let db = Self::with_settings(url, connections_max, SETTINGS_KEPT)?;
        db.keep_statements();
        Ok(db)
    }

    /// From here on, statements that come again and again ([`Conn::query_kept`]) are parsed once, and planned as often as the server sees fit.
    /// Only without a pooler in between, which would give a connection's next statement to another one of the server's.
    pub fn keep_statements(&self) {
        self.keeps_statements.store(true, Ordering::Relaxed);
    }

    /// Whether a pooler in transaction mode stands in between: it gives each transaction a server process of its own, so that a second
    /// connection's transaction takes the one that the first one had.
    pub async fn is_pooled(&self) -> Outcome<bool> {
        let (conn, mut other) = (self.get().await?, self.get().await?);
        let pid = async |conn: &Conn| -> Outcome<i32> { Ok(conn.query_one("SELECT pg_backend_pid()", &[]).await?.try_get(0)?) };
        let before = pid(&conn).await?;
        let tx = other.begin().await?;
        let theirs = pid(&tx).await?;
        let after = pid(&conn).await?;
        tx.rollback().await?;
        Ok(before != after || theirs == before)
    }

    /// Connects to nothing yet. `url` as libpq knows it, with several hosts if there are several.
    pub fn new(url: &str, connections_max: usize) -> Result<Self, StoreError> {
        Self::with_settings(url, connections_max, SETTINGS)
    }

    fn with_settings(url: &str, connections_max: usize, settings: &'static str) -> Result<Self, StoreError> {
        let mut config: tokio_postgres::Config =
            url.parse().map_err(|error: tokio_postgres::Error| StoreError::Io(format!("the database's address: {error}")))?;
        config.connect_timeout(CONNECT_MAX);
        if config.get_application_name().is_none() {
            config.application_name("bellwire");
        }
        // Only who takes writes is the database; a standby that was promoted is found by this.
        config.target_session_attrs(tokio_postgres::config::TargetSessionAttrs::ReadWrite);
        config.keepalives_idle(Duration::from_secs(5));
        config.keepalives_interval(Duration::from_secs(1));
        config.keepalives_retries(3);
        config.tcp_user_timeout(Duration::from_secs(10));
        let hosts = config.get_hosts().len().max(config.get_hostaddrs().len()).max(1);
        let create_max = CONNECT_MAX * u32::try_from(hosts).unwrap_or(u32::MAX) + LOGIN_MAX;
        let manager_config = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let tls = if config.get_ssl_mode() == SslMode::Disable { None } else { Some(tls()?) };
        let manager = match tls.clone() {
            None => Manager::from_config(config, NoTls, manager_config),
            Some(tls) => Manager::from_config(config, tls, manager_config),
        };
        // Since when all that had been open before is in doubt: where one broke unnoticed, the others did too.
        let doubted = Arc::new(Mutex::new(None::<Instant>));
        let pool = Pool::builder(manager)
            .max_size(connections_max)
            .runtime(Runtime::Tokio1)
            .timeouts(Timeouts { wait: Some(POOL_WAIT_MAX), create: Some(create_max), recycle: Some(POOL_WAIT_MAX) })
            .post_create(Hook::async_fn(move |client, _| {
                Box::pin(async move { client.batch_execute(settings).await.map_err(HookError::Backend) })
            }))
            .pre_recycle(Hook::async_fn(move |client, metrics| {
                let (doubted, borrowed) = (doubted.clone(), metrics.recycled.unwrap_or(metrics.created));
                Box::pin(async move {
                    if (*doubted.lock()).is_some_and(|doubted| borrowed < doubted) {
                        return Err(HookError::message("another one of its time broke unnoticed"));
                    }
                    if borrowed.elapsed() < TRUSTED_MAX || client.is_closed() {
                        return Ok(());
                    }
                    if let Ok(Ok(())) = tokio::time::timeout(ANSWER_MAX, client.batch_execute("")).await {
                        return Ok(());
                    }
                    *doubted.lock() = Some(Instant::now());
                    tracing::debug!("a connection to the database broke unnoticed: those of its time are closed");
                    Err(HookError::message("it broke unnoticed"))
                })
            }))
            .build()
            .map_err(|error| StoreError::Io(error.to_string()))?;
        Ok(Self { pool, tls, keeps_statements: Arc::new(AtomicBool::new(false)) })
    }

    /// A connection of the pool's.
    pub async fn get(&self) -> Outcome<Conn> {
        let object = self.pool.get().await.map_err(|error| match error {
            PoolError::Backend(error) => Fault::Sql(error),
            PoolError::Timeout(_) => StoreError::Unavailable("no connection was free or could be made in time".to_owned()).into(),
            PoolError::Closed => StoreError::Closed.into(),
            other => StoreError::Unavailable(other.to_string()).into(),
        })?;
        Ok(Conn {
            object: Some(object),
            is_waiting: AtomicBool::new(false),
            tls: self.tls.clone(),
            keeps_statements: self.keeps_statements.clone(),
        })
    }

    /// Closes all connections, also those that will be returned.
    pub fn close(&self) {
        self.pool.close();
    }

    /// (connections open, of these idle)
    pub fn connections(&self) -> (usize, usize) {
        let status = self.pool.status();
        (status.size, status.available)
    }
}

fn tls() -> Result<MakeRustlsConnect, StoreError> {
    use rustls_platform_verifier::BuilderVerifierExt;
    let wrong = |error: rustls::Error| StoreError::Io(format!("TLS to the database: {error}"));
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(wrong)?
        .with_platform_verifier()
        .map_err(wrong)?
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

/// One connection, on loan. Goes back to the pool when dropped, unless a statement or transaction was left in the middle: by a time
/// limit, or because who waited for it is gone (a client that closes its connection drops the request with all that it waits for).
pub struct Conn {
    object: Option<Object>,
    /// A statement was sent, and the end of its response has not been seen.
    is_waiting: AtomicBool,
    keeps_statements: Arc<AtomicBool>,
    tls: Option<MakeRustlsConnect>,
}

impl Conn {
    fn client(&self) -> Outcome<&tokio_postgres::Client> {
        match &self.object {
            Some(object) => Ok(object),
            None => Err(given_up()),
        }
    }

    /// One statement at a time: after one that was left in the middle there is no other.
    async fn within<T>(&self, limit: Duration, act: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Outcome<T> {
        if self.is_waiting.swap(true, Ordering::Relaxed) {
            return Err(given_up());
        }
        match tokio::time::timeout(limit, act).await {
            Ok(result) => {
                // An error that the server did not send is the connection's.
                let is_answered = result.as_ref().err().is_none_or(|error| error.code().is_some());
                self.is_waiting.store(!is_answered, Ordering::Relaxed);
                Ok(result?)
            }
            Err(_) => Err(StoreError::Busy("a statement took too long").into()),
        }
    }

    /// Not back to the pool. Closing it rolls back; what the server is still at is cancelled, which hits nobody else, for the
    /// connection is this one's to the end.
    fn close(&mut self) {
        let Some(object) = self.object.take() else { return };
        let client = Object::take(object);
        if self.is_waiting.load(Ordering::Relaxed)
            && !client.is_closed()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let (token, tls) = (client.cancel_token(), self.tls.clone());
            runtime.spawn(tokio::time::timeout(ANSWER_MAX, async move {
                let cancelled = match tls {
                    Some(tls) => token.cancel_query(tls).await,
                    None => token.cancel_query(NoTls).await,
                };
                if let Err(error) = cancelled {
                    tracing::debug!(%error, "a statement could not be cancelled: it ends by itself");
                }
            }));
        }
    }

    /// All rows. At most [`READ_MAX`].
    pub async fn query(&self, sql: &str, params: &[Param<'_>]) -> Outcome<Vec<Row>> {
        self.query_within(READ_MAX, sql, params).await
    }

    /// The first row, if any.
    pub async fn query_opt(&self, sql: &str, params: &[Param<'_>]) -> Outcome<Option<Row>> {
        Ok(self.query(sql, params).await?.into_iter().next())
    }

    /// The one row that a statement always has.
    pub async fn query_one(&self, sql: &str, params: &[Param<'_>]) -> Outcome<Row> {
        self.query_opt(sql, params).await?.ok_or_else(|| StoreError::Corrupt(format!("no row: {sql}")).into())
    }

    /// How many rows were changed.
    pub async fn execute(&self, sql: &str, params: &[Param<'_>]) -> Outcome<u64> {
        let client = self.client()?;
        self.within(WRITE_MAX, client.execute_typed(sql, params)).await
    }

    /// As [`Self::query`] with another time limit. When it has passed, the connection is of no use any more, and the server is told
    /// to stop as soon as it is dropped.
    pub async fn query_within(&self, limit: Duration, sql: &str, params: &[Param<'_>]) -> Outcome<Vec<Row>> {
        let client = self.client()?;
        self.within(limit, client.query_typed(sql, params)).await
    }

    /// As [`Self::query_within`], for a statement that comes again and again: parsed and planned once for each connection, if its
    /// connections keep statements. Not for one whose best plan depends on how much it is given.
    pub async fn query_kept(&self, limit: Duration, sql: &str, params: &[Param<'_>]) -> Outcome<Vec<Row>> {
        let kept = self.object.as_ref().filter(|_| self.keeps_statements.load(Ordering::Relaxed));
        let Some(object) = kept else { return self.query_within(limit, sql, params).await };
        let (values, types): (Vec<_>, Vec<_>) = params.iter().map(|(value, kind)| (*value, kind.clone())).unzip();
        let result = self
            .within(limit, async {
                let statement = object.prepare_typed_cached(sql, &types).await?;
                object.query(&statement, &values).await
            })
            .await;
        if result.as_ref().is_err_and(Fault::is_statement_elsewhere) {
            tracing::warn!("a pooler stands before the database: statements are not kept prepared any more");
            self.keeps_statements.store(false, Ordering::Relaxed);
        }
        result
    }

    /// Statements without parameters.
    pub async fn batch(&self, sql: &str) -> Outcome<()> {
        let client = self.client()?;
        self.within(WRITE_MAX, client.batch_execute(sql)).await
    }

    /// Whether it is known to be broken, or was left in the middle of a statement.
    pub fn is_closed(&self) -> bool {
        self.is_waiting.load(Ordering::Relaxed) || self.object.as_ref().is_none_or(|object| object.is_closed())
    }

    /// Closes it, instead of returning it to the pool: nobody knows what state it is in.
    pub fn discard(mut self) {
        self.close();
    }

    /// Begins a transaction; statements on this connection are then part of it until [`Tx::commit`].
    pub async fn begin(&mut self) -> Outcome<Tx<'_>> {
        self.begin_as("BEGIN").await
    }

    /// As [`Self::begin`], with all statements seeing the same moment.
    pub async fn begin_snapshot(&mut self) -> Outcome<Tx<'_>> {
        self.begin_as("BEGIN ISOLATION LEVEL REPEATABLE READ").await
    }

    async fn begin_as(&mut self, sql: &str) -> Outcome<Tx<'_>> {
        // A process that is stopped in the middle must not keep its locks: others wait for them before they take over its work.
        let begun = self.batch(&format!("{sql}; SET LOCAL idle_in_transaction_session_timeout = {IDLE_MS_MAX}")).await;
        if let Err(fault) = begun {
            // It may have begun all the same.
            self.close();
            return Err(fault);
        }
        Ok(Tx { conn: self, is_open: true })
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        if self.is_waiting.load(Ordering::Relaxed) {
            self.close();
        }
    }
}

fn given_up() -> Fault {
    StoreError::Unavailable("the connection was given up".to_owned()).into()
}

/// A transaction. Dropped without [`Tx::commit`], it is rolled back with its connection.
pub struct Tx<'a> {
    conn: &'a mut Conn,
    is_open: bool,
}

impl Tx<'_> {
    pub async fn commit(mut self) -> Outcome<()> {
        self.conn.batch("COMMIT").await?;
        self.is_open = false;
        Ok(())
    }

    /// Commits if all went well; else rolls back, so that the connection can be used again, and hands the error on.
    pub async fn end<T>(self, result: Outcome<T>) -> Outcome<T> {
        match result {
            Ok(value) => self.commit().await.map(|()| value),
            Err(fault) => {
                // If this fails too, the connection is closed, which rolls back.
                let _ = self.rollback().await;
                Err(fault)
            }
        }
    }

    pub async fn rollback(mut self) -> Outcome<()> {
        self.conn.batch("ROLLBACK").await?;
        self.is_open = false;
        Ok(())
    }
}

impl std::ops::Deref for Tx<'_> {
    type Target = Conn;
    fn deref(&self) -> &Conn {
        self.conn
    }
}

impl Drop for Tx<'_> {
    fn drop(&mut self) {
        if self.is_open {
            self.conn.close();
        }
    }
}

#[cfg(test)]
mod tests;
