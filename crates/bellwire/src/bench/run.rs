//! The order of things: R before and after each phase, a fresh server and store for each, medians at the end.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bellwire_store::postgres::database::{self, check_url};
use serde::{Deserialize, Serialize};

use super::ground::{Ground, StoreKind, Variant};
use super::isolation::{self, Hanging, Isolation};
use super::latency::{Quantiles, median, ratio};
use super::phase::{Bench, Measured};
use super::prefill::{self, Flat};
use super::receive::Receiver;
use super::source::{self, HalfRate};
use super::target::Target;
use super::turns::{self, Turns};
use super::{BenchArgs, Phase, bare, load_threads, process, report};
use crate::exit::{Exit, Failure};

/// A phase between two measurements of R.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PhaseRun {
    pub phase: Phase,
    #[serde(flatten)]
    pub variant: Variant,
    pub r_before: f64,
    pub r_after: f64,
    /// Deliveries (when receiving: acknowledgements) per second over the mean of R before and after.
    pub of_r: f64,
    /// Store on the disk after a clean stop, over the messages in it. 0 for another's server.
    pub disk_bytes_per_message: f64,
    pub measured: Measured,
}

/// Everything measured.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Results {
    pub runs: Vec<Vec<PhaseRun>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flat: Option<Flat>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub turns: Vec<Turns>,
}

/// What all measurements share.
pub struct Session {
    pub receiver: Receiver,
    pub folder: PathBuf,
    pub duration: Duration,
    /// Zero: none.
    warm_up: Duration,
    pub threads: usize,
    external: Option<Target>,
    /// Of the server whose databases are measured.
    database: Option<String>,
    /// Its first process, if it is on this machine.
    database_pid: Option<u32>,
    nodes: u32,
    counter: std::cell::Cell<u32>,
}

/// Runs the bench and prints what it found.
///
/// # Errors
/// A process failed, or not everything that was acknowledged arrived.
pub async fn run(args: BenchArgs, database: Option<String>) -> anyhow::Result<()> {
    if args.nodes > 1 && database.is_none() {
        bail!("--nodes {} needs --database: the embedded store belongs to one process", args.nodes);
    }
    if args.turns > 0 && args.nodes < 2 {
        bail!("--turns {} compares one node with several: name --nodes and --database", args.turns);
    }
    let database_pid = match &database {
        Some(_) if args.target.is_some() => bail!("--database and --target are two things to measure; name one"),
        Some(url) => {
            check_url(url).map_err(|problem| Failure::new(Exit::Usage, format!("--database {problem}")))?;
            process::postmaster_of(database::backend_pid(url).await?)
        }
        None => None,
    };
    let parent = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let folder = TemporaryFolder::new(&parent)?;
    if args.target.is_none() && process::is_in_memory(&folder.0) {
        report::note(&format!(
            "NOTE: {} is in memory, where a sync costs nothing: name a folder on a real disk with --dir",
            parent.display()
        ));
    }
    let external = match (&args.target, &args.token) {
        (Some(url), Some(token)) => Some(Target::external(url, token.clone(), args.target_pid)?),
        _ => None,
    };
    if cfg!(debug_assertions) {
        report::note("NOTE: this is a debug build, many times slower than `cargo build --release` makes it");
    }
    let threads = load_threads();
    let session = Session {
        receiver: Receiver::start(args.receiver_bind, threads)?,
        folder: folder.0.clone(),
        duration: Duration::from_secs_f64(args.seconds),
        warm_up: Duration::from_secs_f64(args.warm_up),
        threads,
        external,
        database,
        database_pid,
        nodes: args.nodes,
        counter: std::cell::Cell::new(0),
    };
    let mut results = Results::default();
    if args.isolation {
        results.isolation = Some(session.isolation(args.runs).await?);
    } else if let Some(messages) = args.prefill {
        results.flat = Some(prefill::compare(&session, messages, args.pending, args.runs).await?);
    } else if args.turns > 0 {
        results.turns = turns::compare(&session, &args.phases, args.nodes, args.turns).await?;
    } else {
        for run in 1..=args.runs {
            if args.runs > 1 {
                report::note(&format!("run {run} of {}", args.runs));
            }
            results.runs.push(session.standard(&args.phases, run).await?);
        }
    }
    report::print(&results, args.json)?;
    Ok(())
}

impl Session {
    /// A name that no other measurement of this session has.
    pub fn tag(&self) -> String {
        self.counter.set(self.counter.get() + 1);
        format!("{}-{}", std::process::id(), self.counter.get())
    }

    /// R now.
    ///
    /// # Errors
    /// The receiver failed.
    pub async fn bare(&self) -> anyhow::Result<f64> {
        let duration = (self.duration / 2).clamp(Duration::from_millis(200), Duration::from_secs(3));
        let path = format!("/p/{}-bare", self.tag());
        let rate = bare::measure(self.receiver.address(), &path, duration, self.threads).await?;
        report::note(&format!("R: {} signed POSTs/s", crate::terminal::thousands(rate as u64)));
        Ok(rate)
    }

    /// Side by side: each phase on the embedded store, on the database, on the database with several nodes. In every other run the other
    /// way round, so that none always comes after the same one.
    fn variants(&self, run: u32) -> Vec<Variant> {
        if self.external.is_some() {
            return vec![Variant { store: StoreKind::Unknown, nodes: 1 }];
        }
        let mut variants = vec![Variant { store: StoreKind::Embedded, nodes: 1 }];
        if self.database.is_some() {
            variants.push(Variant { store: StoreKind::PostgreSql, nodes: 1 });
            if self.nodes > 1 {
                variants.push(Variant { store: StoreKind::PostgreSql, nodes: self.nodes });
            }
        }
        if run.is_multiple_of(2) {
            variants.reverse();
        }
        variants
    }

    async fn standard(&self, phases: &[Phase], run: u32) -> anyhow::Result<Vec<PhaseRun>> {
        let mut r_before = self.bare().await?;
        let mut runs = Vec::with_capacity(phases.len());
        let all = phases.iter().flat_map(|phase| self.variants(run).into_iter().map(|variant| (*phase, variant)));
        for (phase, variant) in all {
            let (measured, disk_bytes_per_message) = match &self.external {
                Some(target) => (self.on(std::slice::from_ref(target), variant.store, phase).await?, 0.0),
                None => self.on_own(variant, phase).await?,
            };
            let r_after = self.bare().await?;
            let rate = if phase == Phase::Receive { measured.messages_per_s } else { measured.deliveries_per_s };
            let of_r = ratio(rate, (r_before + r_after) / 2.0);
            if variant.store == StoreKind::PostgreSql {
                report::note(&format!("{}, {}: {of_r:.3} of R", phase.name(), variant.title()));
            }
            runs.push(PhaseRun { phase, variant, r_before, r_after, of_r, disk_bytes_per_message, measured });
            r_before = r_after;
        }
        Ok(runs)
    }

    /// A phase on servers of ours with a fresh store; also bytes on disk per message after a clean stop.
    async fn on_own(&self, variant: Variant, phase: Phase) -> anyhow::Result<(Measured, f64)> {
        let ground = self.ground(variant.store).await?;
        let servers = ground.start(variant.nodes, None).await?;
        let measured = self.on(&servers.targets, variant.store, phase).await?;
        servers.stop()?;
        let disk = ratio(ground.disk_bytes().await? as f64, measured.messages_stored() as f64);
        Ok((measured, disk))
    }

    /// A fresh one.
    ///
    /// # Errors
    /// As [`Ground::lay`].
    pub async fn ground(&self, store: StoreKind) -> anyhow::Result<Ground> {
        let database = self.database.as_deref().filter(|_| store == StoreKind::PostgreSql);
        Ground::lay(&self.folder, &self.tag(), database).await
    }

    /// The store of the longer experiments: the database if one is named.
    pub fn store(&self) -> StoreKind {
        if self.database.is_some() { StoreKind::PostgreSql } else { StoreKind::Embedded }
    }

    /// A phase on running servers, after a warm-up.
    ///
    /// # Errors
    /// As [`Bench::run`].
    pub async fn on(&self, targets: &[Target], store: StoreKind, phase: Phase) -> anyhow::Result<Measured> {
        let warm_up_messages = self.warm_up(targets, store, phase).await?;
        Ok(Measured { warm_up_messages, ..self.load(targets, store, phase, self.duration).await? })
    }

    /// What comes before the first measurement on servers that have just started, in messages.
    ///
    /// # Errors
    /// As [`Bench::run`].
    pub async fn warm_up(&self, targets: &[Target], store: StoreKind, phase: Phase) -> anyhow::Result<u64> {
        match self.warm_up {
            Duration::ZERO => Ok(0),
            warm_up => Ok(self.load(targets, store, phase, warm_up).await?.messages_stored()),
        }
    }

    /// One load on running servers.
    ///
    /// # Errors
    /// As [`Bench::run`].
    pub async fn load(&self, targets: &[Target], store: StoreKind, phase: Phase, duration: Duration) -> anyhow::Result<Measured> {
        let bench = Bench {
            targets,
            receiver: &self.receiver,
            is_ours: store != StoreKind::Unknown,
            database_pid: self.database_pid.filter(|_| store == StoreKind::PostgreSql),
            threads: self.threads,
            tag: self.tag(),
        };
        let measured = match phase.shape() {
            Some(shape) => bench.run(phase.name(), shape, duration).await,
            None => source::run(&bench, duration).await,
        };
        measured.with_context(|| format!("phase {}", phase.name()))
    }

    /// Rounds without and with a hanging endpoint take turns, and so does which of the two comes first: a machine that drifts
    /// drifts for both. Each round has a server of its own, since attempts that hang outlast theirs.
    async fn isolation(&self, rounds: u32) -> anyhow::Result<Isolation> {
        let mut pairs = Vec::new();
        for round in 1..=rounds {
            report::note(&format!("round {round} of {rounds}"));
            let order = if round % 2 == 1 { [Hanging::None, Hanging::One] } else { [Hanging::One, Hanging::None] };
            let first = self.isolation_round(order[0]).await?;
            let second = self.isolation_round(order[1]).await?;
            pairs.push(if order[0] == Hanging::None { (first, second) } else { (second, first) });
        }
        Ok(Isolation::of(&pairs))
    }

    async fn isolation_round(&self, hanging: Hanging) -> anyhow::Result<Quantiles> {
        let tag = self.tag();
        if let Some(target) = &self.external {
            return isolation::one_round(target, &self.receiver, &tag, hanging, self.duration).await;
        }
        let ground = self.ground(self.store()).await?;
        let servers = ground.start(1, None).await?;
        let target = servers.targets.first().context("a server that was not started")?;
        let quantiles = isolation::one_round(target, &self.receiver, &tag, hanging, self.duration).await?;
        // Killed, not stopped: a clean stop would wait for what hangs.
        drop(servers);
        Ok(quantiles)
    }
}

/// Medians over the runs of one phase in one variant.
pub fn summary(runs: &[Vec<PhaseRun>], phase: Phase, variant: Variant) -> Option<PhaseRun> {
    let of: Vec<&PhaseRun> = runs.iter().flatten().filter(|run| run.phase == phase && run.variant == variant).collect();
    of.first()?;
    let middle = |field: fn(&PhaseRun) -> f64| median(of.iter().map(|run| field(run)));
    let whole = |field: fn(&PhaseRun) -> u64| median(of.iter().map(|run| field(run) as f64)) as u64;
    let quantiles = |field: fn(&PhaseRun) -> Quantiles| Quantiles::median(&of.iter().map(|run| field(run)).collect::<Vec<_>>());
    Some(PhaseRun {
        phase,
        variant,
        r_before: middle(|run| run.r_before),
        r_after: middle(|run| run.r_after),
        of_r: middle(|run| run.of_r),
        disk_bytes_per_message: middle(|run| run.disk_bytes_per_message),
        measured: Measured {
            messages: whole(|run| run.measured.messages),
            refused: of.iter().map(|run| run.measured.refused).sum(),
            first_error: of.iter().find_map(|run| run.measured.first_error.clone()),
            deliveries: whole(|run| run.measured.deliveries),
            repeated: of.iter().map(|run| run.measured.repeated).sum(),
            wall_s: middle(|run| run.measured.wall_s),
            drain_s: middle(|run| run.measured.drain_s),
            backlog_max: whole(|run| run.measured.backlog_max),
            is_recorded: of.iter().all(|run| run.measured.is_recorded),
            messages_per_s: middle(|run| run.measured.messages_per_s),
            deliveries_per_s: middle(|run| run.measured.deliveries_per_s),
            acknowledge: quantiles(|run| run.measured.acknowledge),
            end_to_end: quantiles(|run| run.measured.end_to_end),
            server_cpu_s: middle(|run| run.measured.server_cpu_s),
            database_cpu_s: middle(|run| run.measured.database_cpu_s),
            loader_cpu_s: middle(|run| run.measured.loader_cpu_s),
            receiver_cpu_s: middle(|run| run.measured.receiver_cpu_s),
            resident_bytes_max: whole(|run| run.measured.resident_bytes_max),
            warm_up_messages: whole(|run| run.measured.warm_up_messages),
            half_rate: HalfRate::median(&of.iter().filter_map(|run| run.measured.half_rate.as_ref()).collect::<Vec<_>>()),
        },
    })
}

/// Removed with all it holds when dropped.
pub struct TemporaryFolder(pub PathBuf);

impl TemporaryFolder {
    /// A new folder below `parent`, for this user only.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new(parent: &std::path::Path) -> anyhow::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        let mut random = [0; 8];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| anyhow::anyhow!("no randomness to be had"))?;
        let path = std::path::absolute(parent)?.join(format!("bellwire-{:016x}", u64::from_ne_bytes(random)));
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("the temporary folder {} cannot be made", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        // Nothing can be done about a folder that stays.
        drop(std::fs::remove_dir_all(&self.0));
    }
}
