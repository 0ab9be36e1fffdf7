//! `bellwire serve`: the server, until a signal.

use clap::Args;

use super::{Threads, on_threads};
use crate::cli::ConfigArgs;
use crate::config::Config;
use crate::config::storage::Backend;
use crate::exit::Exit;
use crate::signal::Signals;
use crate::{lifecycle, telemetry, terminal};

#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Where to listen, such as 127.0.0.1:8071
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// Stop when standard input closes: for programs that start a server of their own
    #[arg(long, hide = true)]
    pub stop_with_stdin: bool,
}

/// # Errors
/// It does not start, or does not stop cleanly.
pub fn run(args: &ServeArgs, config: &ConfigArgs) -> anyhow::Result<Exit> {
    let config = Config::load(&config.sources(&[("--listen", "listen", args.listen.clone())])?)?;
    telemetry::start(&config.log);
    let threads = match (config.server.worker_threads, &config.storage.backend) {
        (Some(count), _) => Threads::Count(count),
        (None, Backend::Sqlite(_)) => Threads::Spread,
        (None, Backend::Postgres(_)) => Threads::Default,
    };
    on_threads(threads, serve(config, args.stop_with_stdin))
}

async fn serve(config: Config, stop_with_stdin: bool) -> anyhow::Result<Exit> {
    let mut signals = Signals::install()?;
    let grace = config.server.stop_grace;
    let listener = lifecycle::bind(config.server.listen).await?;
    // It may wait for a database for long.
    let running = tokio::select! {
        running = lifecycle::start(config, listener) => running?,
        name = signals.next() => {
            tracing::info!(reason = name, "stopped before it had started");
            return Ok(Exit::Ok);
        }
    };
    if let Some(key) = &running.first_key {
        terminal::line("This is the first API key, with all rights. It is shown this once; keep it:")?;
        terminal::line(&format!("\n    {}\n", key.expose()))?;
    }
    terminal::line(&format!("Bellwire {} listens at http://{}", env!("CARGO_PKG_VERSION"), running.address))?;
    let reason = tokio::select! {
        name = signals.next() => name,
        () = input_closed(stop_with_stdin) => "end of input",
    };
    tracing::info!(
        reason,
        grace_ms = grace.as_millis() as u64,
        "stopping: attempts in flight may finish; a second signal ends it at once"
    );
    signals.force_on_next();
    running.stop(grace).await?;
    Ok(Exit::Ok)
}

/// Waits for the end of standard input, for ever if that is not wanted.
async fn input_closed(is_wanted: bool) {
    if !is_wanted {
        return std::future::pending().await;
    }
    let (closed, end) = tokio::sync::oneshot::channel();
    let watch = move || {
        let mut buffer = [0; 64];
        while std::io::Read::read(&mut std::io::stdin(), &mut buffer).is_ok_and(|count| count > 0) {}
        // Nobody waits any more: the server is stopping already.
        let _ = closed.send(());
    };
    if std::thread::Builder::new().name("stdin".to_owned()).spawn(watch).is_ok() {
        drop(end.await);
    }
}
