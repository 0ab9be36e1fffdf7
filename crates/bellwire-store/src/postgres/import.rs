//! Filling an empty database from another store (`transfer.rs`): pages with their positions, sums, and reading everything back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::PostgresStore;
use super::connection::Conn;
use super::fault::Outcome;
use super::param::{Param, p};
use super::partition;
use crate::transfer::{Kind, PAGE_ROWS, Page, Row, Sum, TABLES, Table, Value};
use crate::{Result, StoreError};

/// One page in, or one page read back.
const PAGE_MAX: Duration = Duration::from_secs(60);
/// One look at all rows of a table.
const WHOLE_MAX: Duration = Duration::from_secs(3_600);
/// Bytes read back at a time, at most (of one row: as large as it is).
const READ_BACK_BYTES: i64 = 16 * 1024 * 1024;
const STATE: &str = "transfer";
const POSITION: &str = "transfer/";
const SUM: &str = "transfer-sum/";

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
struct State {
    /// The source's identity.
    source: Vec<u8>,
    /// Rows it had in all.
    total: u64,
    step: Step,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Step {
    Copying,
    Copied,
    Finished,
}

/// How far a part has been read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Position {
    pub after: Vec<u8>,
    /// Rows of the source read so far.
    pub rows: u64,
    pub is_end: bool,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct StoredSum {
    rows: u64,
    hash: u64,
}

/// A move into one database.
pub struct Import {
    store: Arc<PostgresStore>,
    state: State,
    was_resumed: bool,
    positions: BTreeMap<String, Position>,
    sums: BTreeMap<&'static str, Sum>,
}

impl Import {
    /// Begins a move, or goes on with one from the same source.
    pub async fn begin(store: &Arc<PostgresStore>, source: &[u8], total: u64) -> Result<Self> {
        Ok(Self::begin_inner(store, source, total).await?)
    }

    async fn begin_inner(store: &Arc<PostgresStore>, source: &[u8], total: u64) -> Outcome<Self> {
        let mut conn = store.db.get().await?;
        let tx = conn.begin().await?;
        let mut import = Self {
            store: store.clone(),
            state: State { source: source.to_vec(), total, step: Step::Copying },
            was_resumed: false,
            positions: BTreeMap::new(),
            sums: BTreeMap::new(),
        };
        let result = async {
            // Of two that begin at once, the second waits here and then finds the first one's.
            let sql = "INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING";
            if tx.execute(sql, &[p(&STATE), p(&encode(&import.state)?)]).await? > 0 {
                return check_empty(&tx).await;
            }
            import.was_resumed = true;
            import.state = locked_state(&tx).await?;
            if import.state.source != source {
                let text = "the target database holds a move from another store; use an empty database";
                return Err(StoreError::Move(text.to_owned()).into());
            }
            if import.state.total != total && import.state.step != Step::Finished {
                return Err(crate::transfer::source_changed("its number of rows").into());
            }
            import.read_marks(&tx).await
        }
        .await;
        tx.end(result).await?;
        Ok(import)
    }

    async fn read_marks(&mut self, conn: &Conn) -> Outcome<()> {
        for row in conn.query("SELECT name, value FROM meta WHERE name LIKE 'transfer%/%'", &[]).await? {
            let (name, value): (String, Vec<u8>) = (row.try_get(0)?, row.try_get(1)?);
            if let Some(part) = name.strip_prefix(POSITION) {
                self.positions.insert(part.to_owned(), decode(value)?);
            } else if let Some(table) = name.strip_prefix(SUM)
                && let Some(table) = TABLES.iter().find(|known| known.name == table)
            {
                let StoredSum { rows, hash } = decode(value)?;
                self.sums.insert(table.name, Sum { rows, hash });
            }
        }
        Ok(())
    }

    pub fn was_resumed(&self) -> bool {
        self.was_resumed
    }

    /// It was finished before.
    pub fn is_finished(&self) -> bool {
        self.state.step == Step::Finished
    }

    /// Everything has been copied; what is left is to verify it.
    pub fn is_copied(&self) -> bool {
        self.state.step != Step::Copying
    }

    pub fn position(&self, part: &str) -> Option<Position> {
        self.positions.get(part).cloned()
    }

    /// What each table should hold.
    pub fn sums(&self) -> Vec<(&'static Table, Sum)> {
        TABLES.iter().map(|table| (*table, self.sums.get(table.name).copied().unwrap_or_default())).collect()
    }

    /// Writes a page, and where the next one begins, in one transaction.
    pub async fn write(&mut self, part: String, page: Page) -> Result<Position> {
        Ok(self.write_inner(part, page).await?)
    }

    async fn write_inner(&mut self, part: String, page: Page) -> Outcome<Position> {
        let mut conn = self.store.db.get().await?;
        let days: BTreeSet<i32> = page.rows.iter().flat_map(|(table, rows)| days(table, rows)).collect();
        if !days.is_empty() {
            partition::ensure(&mut conn, days).await?;
        }
        let before = self.position(&part).map_or(0, |position| position.rows);
        let position = Position { after: page.after, rows: before + page.read, is_end: page.is_end };
        let mut sums = self.sums.clone();
        let name = format!("{POSITION}{part}");
        let tx = conn.begin().await?;
        let result = async {
            // Whoever moves at the same time waits here, and finds the position changed.
            let is_same = locked_state(&tx).await? == self.state;
            let found = tx.query_opt("SELECT value FROM meta WHERE name = $1", &[p(&name)]).await?;
            let found: u64 = found.map(|row| decode::<Position>(row.try_get(0)?)).transpose()?.map_or(0, |found| found.rows);
            if !is_same || found != before {
                let text = "another process moves into the same target database; let it finish, or end it and move again";
                return Err(StoreError::Move(text.to_owned()).into());
            }
            for (table, rows) in &page.rows {
                insert(&tx, table, rows).await?;
                let sum = sums.entry(table.name).or_default();
                sum.add_rows(table, rows);
                put(&tx, &format!("{SUM}{}", table.name), &StoredSum { rows: sum.rows, hash: sum.hash }).await?;
            }
            put(&tx, &name, &position).await
        }
        .await;
        tx.end(result).await?;
        self.sums = sums;
        self.positions.insert(part, position.clone());
        Ok(position)
    }

    pub async fn copied(&mut self) -> Result<()> {
        self.step(Step::Copied).await
    }

    /// Everything is there. The positions are forgotten; that it was moved, and how much, is not.
    pub async fn finish(&mut self) -> Result<()> {
        if self.is_finished() {
            return Ok(());
        }
        let conn = self.store.db.get().await?;
        // The planner has never seen these tables filled. Without it the first queries are slow, no more.
        if let Err(fault) = conn.query_within(WHOLE_MAX, "ANALYZE", &[]).await {
            tracing::warn!(error = %StoreError::from(fault), "ANALYZE did not succeed; autovacuum will do it");
        }
        drop(conn);
        self.step(Step::Finished).await?;
        let conn = self.store.db.get().await?;
        conn.execute("DELETE FROM meta WHERE name LIKE 'transfer/%'", &[]).await.map_err(StoreError::from)?;
        Ok(())
    }

    async fn step(&mut self, step: Step) -> Result<()> {
        let state = State { step, ..self.state.clone() };
        let mut conn = self.store.db.get().await?;
        let tx = conn.begin().await?;
        put(&tx, STATE, &state).await?;
        tx.commit().await?;
        self.state = state;
        Ok(())
    }

    /// Reads a whole table. `progress` is told how many rows were read so far.
    pub async fn read_back(&self, table: &Table, progress: &mut (dyn FnMut(u64) + Send)) -> Result<Sum> {
        Ok(self.read_back_inner(table, progress).await?)
    }

    async fn read_back_inner(&self, table: &Table, progress: &mut (dyn FnMut(u64) + Send)) -> Outcome<Sum> {
        let columns: Vec<String> = table.columns.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        let mut conn = self.store.db.get().await?;
        let tx = conn.begin().await?;
        // A role may have a limit for statements that suits servers.
        tx.batch("SET LOCAL statement_timeout = 0").await?;
        let sizes: Vec<String> = table
            .columns
            .iter()
            .filter(|(_, kind)| matches!(kind, Kind::Text | Kind::Bytes))
            .map(|(name, _)| format!("coalesce(octet_length(\"{name}\"), 0)"))
            .collect();
        let size = if sizes.is_empty() { "0".to_owned() } else { sizes.join(" + ") };
        let sql = format!("SELECT coalesce(max({size}), 0)::bigint FROM {}", table.name);
        let row_bytes: i64 = match tx.query_within(WHOLE_MAX, &sql, &[]).await?.first() {
            Some(row) => row.try_get(0)?,
            None => 0,
        };
        let rows_max = usize::try_from(READ_BACK_BYTES / row_bytes.max(1)).unwrap_or(1).clamp(1, PAGE_ROWS);
        tx.batch(&format!("DECLARE read_back NO SCROLL CURSOR FOR SELECT {} FROM {}", columns.join(", "), table.name)).await?;
        let mut sum = Sum::default();
        let mut read = 0;
        loop {
            let rows = tx.query_within(PAGE_MAX, &format!("FETCH {rows_max} FROM read_back"), &[]).await?;
            if rows.is_empty() {
                break;
            }
            for row in &rows {
                let values = values(table, row)?;
                if table.is_summed {
                    sum.add_figures(&values);
                } else {
                    sum.add(&values);
                }
            }
            read += rows.len() as u64;
            progress(read);
        }
        tx.rollback().await?;
        sum.rows = read;
        Ok(sum)
    }
}

/// Whether a move into this database has begun and not ended: nobody should work on it yet.
async fn is_unfinished(conn: &Conn) -> Outcome<bool> {
    match conn.query_opt("SELECT value FROM meta WHERE name = $1", &[p(&STATE)]).await? {
        Some(row) => Ok(decode::<State>(row.try_get(0)?)?.step != Step::Finished),
        None => Ok(false),
    }
}

fn unfinished() -> StoreError {
    StoreError::Move(
        "a move into this database was begun and has not ended: run `bellwire migrate` again to finish it, or use another database"
            .to_owned(),
    )
}

/// Refuses a database that holds half of what is to be in it.
pub async fn refuse_unfinished(conn: &Conn) -> Outcome<()> {
    if is_unfinished(conn).await? { Err(unfinished().into()) } else { Ok(()) }
}

/// The state, held until the transaction ends.
async fn locked_state(tx: &Conn) -> Outcome<State> {
    let row = tx.query_one("SELECT value FROM meta WHERE name = $1 FOR UPDATE", &[p(&STATE)]).await?;
    decode(row.try_get(0)?)
}

/// Nothing of anybody else is there, and no server runs.
async fn check_empty(conn: &Conn) -> Outcome<()> {
    for table in TABLES {
        let sql = format!("SELECT EXISTS (SELECT 1 FROM {})", table.name);
        if conn.query_one(&sql, &[]).await?.try_get(0)? {
            let text = format!("the target database is not empty: its table {} has rows; use an empty database", table.name);
            return Err(StoreError::Move(text).into());
        }
    }
    if let Some(row) = conn.query_opt("SELECT name FROM node LIMIT 1", &[]).await? {
        let name: String = row.try_get(0)?;
        let text = format!("a server (node {name}) runs on the target database: stop it, or use an empty database");
        return Err(StoreError::Move(text).into());
    }
    Ok(())
}

fn encode<T: Serialize>(value: &T) -> Outcome<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| StoreError::Io(error.to_string()).into())
}

fn decode<T: serde::de::DeserializeOwned>(value: Vec<u8>) -> Outcome<T> {
    serde_json::from_slice(&value).map_err(|error| StoreError::Corrupt(format!("marks of a move: {error}")).into())
}

async fn put<T: Serialize>(conn: &Conn, name: &str, value: &T) -> Outcome<()> {
    let value = encode(value)?;
    let sql = "INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    conn.execute(sql, &[p(&name), p(&value)]).await?;
    Ok(())
}

/// The days whose partitions these rows need.
fn days(table: &Table, rows: &[Row]) -> Vec<i32> {
    let (column, is_minute) = match table.name {
        "message" | "outcome" | "attempt" => (0, false),
        "counter" => (1, true),
        _ => return Vec::new(),
    };
    let day = |row: &Row| match &row[column] {
        Value::Int(minute) if is_minute => Some(partition::day_of_minute(*minute)),
        Value::Int(key) => Some(partition::day_of_key(*key)),
        _ => None,
    };
    rows.iter().filter_map(day).collect()
}

/// One column of many rows, typed.
enum Column {
    Bool(Vec<Option<bool>>),
    Int2(Vec<Option<i16>>),
    Int4(Vec<Option<i32>>),
    Int8(Vec<Option<i64>>),
    Text(Vec<Option<String>>),
    Bytes(Vec<Option<Vec<u8>>>),
}

impl Column {
    fn of(table: &Table, at: usize, rows: &[Row]) -> Outcome<Self> {
        let (name, kind) = table.columns[at];
        let wrong = |what: &dyn std::fmt::Debug| StoreError::Corrupt(format!("{}.{name} cannot be {what:?}", table.name));
        let int = |value: &Value| match value {
            Value::Null => Ok(None),
            Value::Int(number) => Ok(Some(*number)),
            other => Err(wrong(other)),
        };
        let narrow = |value: &Value| -> Result<Option<i32>> {
            int(value)?.map(|number| i32::try_from(number).map_err(|_| wrong(&number))).transpose()
        };
        let cells = rows.iter().map(|row| &row[at]);
        Ok(match kind {
            Kind::Bool => Self::Bool(cells.map(|cell| Ok(int(cell)?.map(|number| number != 0))).collect::<Result<_>>()?),
            Kind::Int2 => Self::Int2(
                cells
                    .map(|cell| narrow(cell)?.map(|number| i16::try_from(number).map_err(|_| wrong(&number))).transpose())
                    .collect::<Result<_>>()?,
            ),
            Kind::Int4 => Self::Int4(cells.map(narrow).collect::<Result<_>>()?),
            Kind::Int8 => Self::Int8(cells.map(int).collect::<Result<_>>()?),
            Kind::Text => Self::Text(
                cells
                    .map(|cell| match cell {
                        Value::Null => Ok(None),
                        Value::Text(text) => Ok(Some(text.clone())),
                        other => Err(wrong(other)),
                    })
                    .collect::<Result<_>>()?,
            ),
            Kind::Bytes => Self::Bytes(
                cells
                    .map(|cell| match cell {
                        Value::Null => Ok(None),
                        Value::Blob(bytes) => Ok(Some(bytes.clone())),
                        other => Err(wrong(other)),
                    })
                    .collect::<Result<_>>()?,
            ),
        })
    }

    fn param(&self) -> Param<'_> {
        match self {
            Self::Bool(values) => p(values),
            Self::Int2(values) => p(values),
            Self::Int4(values) => p(values),
            Self::Int8(values) => p(values),
            Self::Text(values) => p(values),
            Self::Bytes(values) => p(values),
        }
    }
}

async fn insert(conn: &Conn, table: &Table, rows: &[Row]) -> Outcome<()> {
    let columns = (0..table.columns.len()).map(|at| Column::of(table, at, rows)).collect::<Outcome<Vec<_>>>()?;
    let names: Vec<String> = table.columns.iter().map(|(name, _)| format!("\"{name}\"")).collect();
    let places: Vec<String> = (1..=columns.len()).map(|number| format!("${number}")).collect();
    let names = names.join(", ");
    let places = places.join(", ");
    let sql = if table.is_summed {
        // A page may hold a key twice only if two segments do, which are in different pages.
        let sums: Vec<String> =
            table.columns[2..].iter().map(|(name, _)| format!("{name} = t.{name} + excluded.{name}")).collect();
        format!(
            "INSERT INTO {} AS t ({names}) SELECT * FROM unnest({places}) ON CONFLICT (endpoint, minute) DO UPDATE SET {}",
            table.name,
            sums.join(", ")
        )
    } else {
        format!("INSERT INTO {} ({names}) SELECT * FROM unnest({places})", table.name)
    };
    let params: Vec<Param<'_>> = columns.iter().map(Column::param).collect();
    conn.query_within(PAGE_MAX, &sql, &params).await?;
    Ok(())
}

fn values(table: &Table, row: &tokio_postgres::Row) -> Outcome<Row> {
    let mut values = Vec::with_capacity(table.columns.len());
    for (at, (_, kind)) in table.columns.iter().enumerate() {
        let int = |number: Option<i64>| number.map_or(Value::Null, Value::Int);
        values.push(match kind {
            Kind::Bool => int(row.try_get::<_, Option<bool>>(at)?.map(i64::from)),
            Kind::Int2 => int(row.try_get::<_, Option<i16>>(at)?.map(i64::from)),
            Kind::Int4 => int(row.try_get::<_, Option<i32>>(at)?.map(i64::from)),
            Kind::Int8 => int(row.try_get(at)?),
            Kind::Text => row.try_get::<_, Option<String>>(at)?.map_or(Value::Null, Value::Text),
            Kind::Bytes => row.try_get::<_, Option<Vec<u8>>>(at)?.map_or(Value::Null, Value::Blob),
        });
    }
    Ok(values)
}
