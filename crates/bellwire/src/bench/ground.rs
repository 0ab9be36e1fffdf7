//! What the servers of a phase stand on: a fresh folder, and for PostgreSQL a fresh database; and the servers, one or several.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bellwire_core::Secret;
use bellwire_engine::EngineConfig;
use bellwire_store::Store;
use bellwire_store::postgres::database;
use serde::{Deserialize, Serialize};

use super::process;
use super::target::{Launch, Server, Target};
use crate::config::storage::{Backend, Storage};
use crate::vault;

/// Opening a database that was made a moment ago.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Removing one: the server writes a checkpoint first, of all its databases.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(120);
/// Nodes have divided the work by then.
const DIVIDE_TIMEOUT: Duration = Duration::from_secs(20);
const CONNECTIONS: usize = 16;

/// Where a measured server keeps its messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    #[default]
    Embedded,
    PostgreSql,
    /// Another's server (`--target`): it does not say.
    Unknown,
}

/// What is measured in one run side by side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variant {
    pub store: StoreKind,
    pub nodes: u32,
}

impl Variant {
    pub fn title(self) -> String {
        let store = match self.store {
            StoreKind::Embedded => "embedded",
            StoreKind::PostgreSql => "PostgreSQL",
            StoreKind::Unknown => "target",
        };
        if self.nodes > 1 { format!("{store}, {} nodes", self.nodes) } else { store.to_owned() }
    }
}

/// Removed with all it holds when dropped.
pub struct Ground {
    pub data_dir: PathBuf,
    database: Option<Database>,
}

struct Database {
    /// Of the server it was made on.
    server: String,
    name: String,
    url: String,
}

impl Ground {
    /// A new folder `tag` in `parent`, and a new database on the server of `database`.
    ///
    /// # Errors
    /// They cannot be made.
    pub async fn lay(parent: &Path, tag: &str, database: Option<&str>) -> anyhow::Result<Self> {
        let data_dir = parent.join(tag);
        std::fs::create_dir_all(&data_dir)?;
        let mut ground = Self { data_dir, database: None };
        if let Some(server) = database {
            let name = format!("bellwire_bench_{:016x}", u64::from_ne_bytes(vault::random()?));
            let url = database::create(server, &name).await.with_context(|| {
                format!("the bench cannot make its own database on {}", Backend::Postgres(Secret::new(server)))
            })?;
            ground.database = Some(Database { server: server.to_owned(), name, url });
        }
        Ok(ground)
    }

    pub fn store_kind(&self) -> StoreKind {
        if self.database.is_some() { StoreKind::PostgreSql } else { StoreKind::Embedded }
    }

    /// Starts `nodes` servers and waits until they have divided the work. `token`: of an earlier start.
    ///
    /// # Errors
    /// One does not start.
    pub async fn start(&self, nodes: u32, token: Option<&str>) -> anyhow::Result<Servers> {
        let mut servers: Vec<Server> = Vec::new();
        for node in 1..=nodes {
            let token = servers.first().map_or(token, |first| Some(first.target.token.as_str()));
            let launch = Launch {
                data_dir: &self.data_dir,
                database: self.database.as_ref().map(|database| database.url.as_str()),
                node,
                token,
            };
            servers.push(Server::start(&launch)?);
        }
        let servers = Servers { targets: servers.iter().map(|server| server.target.clone()).collect(), servers };
        if nodes > 1 {
            divided(&servers.targets).await?;
        }
        Ok(servers)
    }

    /// Opens the store itself, without a server.
    ///
    /// # Errors
    /// The store's.
    pub async fn open(&self) -> anyhow::Result<std::sync::Arc<dyn Store>> {
        let backend = match &self.database {
            Some(database) => Backend::Postgres(Secret::new(database.url.as_str())),
            None => Backend::Sqlite(self.data_dir.clone()),
        };
        let retention = EngineConfig::default().retention;
        let storage = Storage { backend, retention, connections: CONNECTIONS, start_timeout: OPEN_TIMEOUT };
        let place = vault::Place { storage: &storage, data_dir: &self.data_dir, master_key: None };
        Ok(vault::open(&place, OPEN_TIMEOUT).await?.1)
    }

    /// What the store takes on the disk.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn disk_bytes(&self) -> anyhow::Result<u64> {
        match &self.database {
            Some(database) => Ok(database::size_bytes(&database.url).await?),
            None => Ok(process::disk_bytes(&self.data_dir)),
        }
    }

    /// After much has been written at once: what the server would do in time anyway must not fall into the measurement.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn settle(&self) -> anyhow::Result<()> {
        if let Some(database) = &self.database {
            database::settle(&database.url).await?;
        }
        Ok(())
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        // Nothing can be done about a folder that stays.
        drop(std::fs::remove_dir_all(&self.data_dir));
        let Some(Database { server, name, .. }) = self.database.take() else { return };
        // A drop cannot wait for a future of the runtime it runs on; a thread of its own can.
        let removing = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                match tokio::time::timeout(REMOVE_TIMEOUT, database::remove(&server, &name)).await {
                    Ok(removed) => Ok(removed?),
                    Err(_) => bail!("no answer within {REMOVE_TIMEOUT:?}"),
                }
            })
        });
        if let Ok(Err(error)) = removing.join() {
            super::report::note(&format!("NOTE: a database of the bench (bellwire_bench_…) stays: {error}"));
        }
    }
}

/// Servers that the bench started on one ground. Drop them before it.
pub struct Servers {
    servers: Vec<Server>,
    pub targets: Vec<Target>,
}

impl Servers {
    /// Of the first one.
    pub fn token(&self) -> Option<&str> {
        self.targets.first().map(|target| target.token.as_str())
    }

    /// Stops them one after another and waits until each has closed its store.
    ///
    /// # Errors
    /// One did not end well.
    pub fn stop(self) -> anyhow::Result<()> {
        self.servers.into_iter().try_for_each(Server::stop)
    }
}

/// Waits until every node owns about its share of the shards.
async fn divided(targets: &[Target]) -> anyhow::Result<()> {
    let share = (bellwire_core::SHARDS / targets.len()) as f64;
    let deadline = Instant::now() + DIVIDE_TIMEOUT;
    loop {
        let mut owned = Vec::with_capacity(targets.len());
        for target in targets {
            owned.push(target.metric("bellwire_shard_owned").await?);
        }
        if owned.iter().all(|owned| (owned - share).abs() <= 1.0) {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("the nodes have not divided the work within {DIVIDE_TIMEOUT:?}: {owned:?} shards of {}", bellwire_core::SHARDS);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
