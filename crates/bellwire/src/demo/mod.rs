//! `bellwire demo`: the whole product on one terminal. A temporary server, a receiver in the same process, real-shaped payloads
//! going in, deliveries coming out: one endpoint that is well, one that fails and recovers, one with a filter.

mod payload;
mod receiver;
mod view;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::bench::run::TemporaryFolder;
use crate::cli::ConfigArgs;
use crate::client::{Api, Call, ServerArgs};
use crate::config::Config;
use crate::exit::{Exit, Failure, code_of};
use crate::lifecycle::{self, Running};
use crate::signal::Signals;
use crate::{telemetry, terminal};
use payload::PAYLOADS;
use receiver::{ENDPOINTS, Ledger};

/// One message after another, slow enough to read along.
const PACE: Duration = Duration::from_millis(900);
/// `--once`: quicker, a few of each payload.
const PACE_ONCE: Duration = Duration::from_millis(120);
const ROUNDS_ONCE: usize = 2;
/// Everything published must have arrived by then (retries take a few seconds).
const DRAIN_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_GRACE: Duration = Duration::from_secs(5);

/// When to stop publishing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Until {
    Interrupted,
    Elapsed(Duration),
    /// Each payload some times.
    Once,
}

/// Runs the demo.
///
/// # Errors
/// The server does not start, or not everything was delivered.
pub async fn run(config_args: &ConfigArgs, listen: Option<String>, until: Until) -> anyhow::Result<Exit> {
    let mut signals = Signals::install()?;
    let folder = TemporaryFolder::new(&std::env::temp_dir())?;
    let config = configure(config_args, listen, &folder)?;
    telemetry::start(&config.log);
    let listener = bind(config.server.listen).await?;
    let running = lifecycle::start(config.clone(), listener).await?;
    let ledger = Arc::new(Ledger::default());
    let result = tokio::select! {
        result = show(&running, &config, &ledger, until) => result,
        _ = signals.next() => {
            signals.force_on_next();
            view::line("\nStopping.")
        }
    };
    let summary = ledger.summary();
    running.stop(STOP_GRACE).await?;
    result?;
    view::line(&summary)?;
    Ok(Exit::Ok)
}

/// Loopback receivers, quick retries, everything in a temporary folder: none of that is for real use, so it beats all layers.
fn configure(args: &ConfigArgs, listen: Option<String>, folder: &TemporaryFolder) -> anyhow::Result<Config> {
    let text = |text: &str| Some(text.to_owned());
    let data_dir = folder.0.display().to_string();
    let storage = format!("sqlite://{data_dir}");
    let mut sources = args.sources(&[
        ("--listen", "listen", listen),
        ("demo", "data_dir", Some(data_dir)),
        ("demo", "storage.url", Some(storage)),
        ("demo", "node.roles", text("api,worker")),
        ("demo", "egress.allow", text("127.0.0.0/8")),
        ("demo", "egress.https_only", text("false")),
        ("demo", "delivery.proxy", text("")),
        ("demo", "delivery.retry_schedule", text("1s,2s,3s,5s")),
    ])?;
    // Only what is wrong may disturb the picture, unless more is asked for.
    sources.flags.insert(0, ("demo".to_owned(), "log.level".to_owned(), "error".to_owned()));
    Ok(Config::load(&sources)?)
}

/// The wanted address, or any free one: a demo must not fail because something runs already.
async fn bind(wanted: SocketAddr) -> anyhow::Result<TcpListener> {
    match lifecycle::bind(wanted).await {
        Err(error) if code_of(&error) == Exit::PortTaken => {
            view::line(&format!("{wanted} is taken, using a free port."))?;
            lifecycle::bind((Ipv4Addr::LOCALHOST, 0).into()).await
        }
        result => result,
    }
}

async fn show(running: &Running, config: &Config, ledger: &Arc<Ledger>, until: Until) -> anyhow::Result<()> {
    let key = running.first_key.as_ref().context("a new store without a first key")?.expose().to_owned();
    let server = format!("http://{}", running.address);
    let api = Api::new(&ServerArgs { server: Some(server.clone()), token: Some(key.clone()) }, config)?;
    let receiver = receiver::start(Arc::clone(ledger)).await?;
    set_up(&api, receiver, ledger).await?;
    welcome(&server, &key)?;
    publish(&api, ledger, until).await?;
    drain(ledger).await
}

async fn set_up(api: &Api, receiver: SocketAddr, ledger: &Ledger) -> anyhow::Result<()> {
    create(api, &["app"], &json!({ "name": "Demo", "uid": "demo" })).await?;
    for endpoint in ENDPOINTS {
        let mut body = json!({
            "url": format!("http://{receiver}/{}", endpoint.name),
            "uid": endpoint.name,
            "description": endpoint.about,
        });
        if let Some(event_type) = endpoint.event_type {
            body["filterTypes"] = json!([event_type]);
        }
        create(api, &["app", "demo", "endpoint"], &body).await?;
        let path = ["app", "demo", "endpoint", endpoint.name, "secret"];
        let secret = api.call(Call { method: "GET", path: &path, ..Call::default() }).await?;
        let secret = secret.get("key").and_then(Value::as_str).context("an endpoint without a secret")?;
        ledger.learn_key(endpoint.name, secret)?;
    }
    Ok(())
}

async fn create(api: &Api, path: &[&str], body: &Value) -> Result<Value, Failure> {
    api.call(Call { method: "POST", path, body: Some(body.to_string()), ..Call::default() }).await
}

fn welcome(server: &str, key: &str) -> anyhow::Result<()> {
    view::line(&format!("\nBellwire {} is running on a temporary store.\n", env!("CARGO_PKG_VERSION")))?;
    view::line(&format!("  API      {server}"))?;
    view::line(&format!("  key      {key}\n"))?;
    for endpoint in ENDPOINTS {
        view::line(&format!("  endpoint {:<9} {}", endpoint.name, endpoint.about))?;
    }
    view::line("\nPublish a message yourself, from another terminal:\n")?;
    view::line(&format!(
        "curl {server}/api/v1/app/demo/msg \\\n  -H 'authorization: Bearer {key}' \\\n  -H 'content-type: application/json' \\\n  \
         -d '{{\"eventType\": \"invoice.paid\", \"payload\": {{\"invoice\": \"in_42\", \"amount\": 1999}}}}'"
    ))?;
    view::line("")
}

async fn publish(api: &Api, ledger: &Ledger, until: Until) -> anyhow::Result<()> {
    let (started, pace) = (Instant::now(), if until == Until::Once { PACE_ONCE } else { PACE });
    let mut ticks = tokio::time::interval(pace);
    for (number, payload) in PAYLOADS.iter().cycle().enumerate() {
        ticks.tick().await;
        let is_over = match until {
            Until::Interrupted => false,
            Until::Elapsed(duration) => started.elapsed() >= duration,
            Until::Once => number >= PAYLOADS.len() * ROUNDS_ONCE,
        };
        if is_over {
            break;
        }
        let body = format!("{{\"eventType\":\"{}\",\"payload\":{}}}", payload.event_type, payload.text.trim());
        let path = ["app", "demo", "msg"];
        let query = vec![("with_content", "false".to_owned())];
        ledger.view.publishing();
        let began = Instant::now();
        let answer = api.call(Call { method: "POST", path: &path, query, body: Some(body), ..Call::default() }).await?;
        let Some(id) = answer.get("id").and_then(Value::as_str) else { bail!("a message without an id: {answer}") };
        ledger.published(id, payload.event_type);
        ledger.view.published(payload, id, began.elapsed())?;
    }
    Ok(())
}

async fn drain(ledger: &Ledger) -> anyhow::Result<()> {
    let deadline = Instant::now() + DRAIN_TIMEOUT;
    while ledger.outstanding() > 0 {
        if Instant::now() > deadline {
            bail!("{} deliveries did not arrive within {DRAIN_TIMEOUT:?}", ledger.outstanding());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    terminal::line("")?;
    Ok(())
}
