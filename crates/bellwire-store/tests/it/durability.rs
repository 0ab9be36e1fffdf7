//! `kill -9` at any moment loses nothing that was acknowledged.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use bellwire_core::{AppId, Clock, EndpointId, IdGenerator, IdKind, Message, MessageId, SystemClock};
use bellwire_store::conformance::world::fresh;
use bellwire_store::sqlite::SqliteStore;
use bellwire_store::{
    Accepted, ApplicationStore, AttemptRecord, CommitSink, DeliveryNext, DeliveryStore, EndpointStore, MaintenanceStore,
    MessageStore, NewMessage,
};

use super::{open, options};

const CHILD: &str = "BELLWIRE_STORE_TEST_CHILD";
const CYCLES: usize = 5;
const ACKNOWLEDGED: usize = 400;

/// Says on standard output what has been promised. Ends the process when nobody listens any more.
fn say(what: &str, message: MessageId) {
    if writeln!(std::io::stdout(), "{what} {message}").is_err() {
        std::process::exit(0);
    }
}

struct Says;

impl CommitSink for Says {
    fn accepted(&self, _: &[Arc<NewMessage>], _local: &bellwire_core::ShardSet, _begun: std::time::Instant) {}
    fn requeued(&self, _: &[bellwire_store::DueDelivery]) {}
    fn fenced(&self, _: &[AttemptRecord]) {}
    fn recorded(&self, attempts: &[AttemptRecord]) {
        for record in attempts {
            say("recorded", record.message);
        }
    }
}

/// Publishes until it is killed; records every second message as delivered.
async fn be_killed(dir: &Path, app: AppId, endpoint: EndpointId) {
    let store = SqliteStore::open(options(dir)).unwrap();
    store.set_sink(Arc::new(Says));
    let ids = Arc::new(IdGenerator::new(store.last_key().await.unwrap()));
    let publishers: Vec<_> = (0..8u8)
        .map(|n| {
            let (store, ids) = (store.clone(), ids.clone());
            tokio::spawn(async move {
                for round in 0u64.. {
                    let id: MessageId = ids.generate(SystemClock.now(), [n; 12]);
                    let new =
                        NewMessage { message: message(id, app), endpoints: vec![endpoint], idempotency: None, app_version: None };
                    assert_eq!(store.accept(Arc::new(new)).await.unwrap(), Accepted::Fresh);
                    say("accepted", id);
                    if round % 2 == 0 {
                        store.record_attempt(AttemptRecord {
                            message: id,
                            endpoint,
                            app,
                            attempt: None,
                            next: DeliveryNext::Delivered,
                            is_first_try: true,
                            epoch: 0,
                        });
                    }
                }
            })
        })
        .collect();
    for publisher in publishers {
        publisher.await.unwrap();
    }
}

fn message(id: MessageId, app: AppId) -> Message {
    Message {
        id,
        app,
        event_type: "a".to_owned(),
        event_id: None,
        payload: Some(id.to_string().into()),
        content_type: "application/json".to_owned(),
        channels: vec![],
        tags: vec![],
        created_at: id.created(),
        deliver_at: None,
        payload_expires_at: id.created().plus(std::time::Duration::from_secs(90 * 86_400)),
        origin: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_has_lost_nothing_it_acknowledged() {
    if let Ok(child) = std::env::var(CHILD) {
        let [dir, app, endpoint] = <[&str; 3]>::try_from(child.split(',').collect::<Vec<_>>()).unwrap();
        be_killed(Path::new(dir), app.parse().unwrap(), endpoint.parse().unwrap()).await;
        unreachable!("publishing never ends by itself");
    }
    let dir = tempfile::tempdir().unwrap();
    let (store, w) = open(options(dir.path()));
    let app = fresh(store.create_application(w.application("x"), None).await.unwrap()).id;
    let endpoint = fresh(store.create_endpoint(w.endpoint(app), None).await.unwrap()).id;
    store.close().await.unwrap();
    drop((store, w));
    let mut promised: HashMap<String, HashSet<MessageId>> = HashMap::new();
    for _ in 0..CYCLES {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["durability::a_killed_process_has_lost_nothing_it_acknowledged", "--exact", "--nocapture"])
            .env(CHILD, format!("{},{app},{endpoint}", dir.path().display()))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut listen = |line: String| {
            if let Some((what, id)) = line.split_once(' ')
                && let Ok(id) = id.parse()
            {
                promised.entry(what.to_owned()).or_default().insert(id);
            }
        };
        said.by_ref().take(ACKNOWLEDGED).for_each(|line| listen(line.unwrap()));
        child.kill().unwrap();
        // What it had said before it died counts too; its last line may be cut.
        said.map_while(Result::ok).for_each(listen);
        child.wait().unwrap();

        let (store, w) = open(options(dir.path()));
        for id in &promised["accepted"] {
            assert_eq!(store.load_message(*id).await.unwrap(), Some(message(*id, app)));
        }
        let queued: HashSet<MessageId> = w.queued().await.into_iter().map(|(id, _)| id).collect();
        let recorded = &promised["recorded"];
        assert!(recorded.is_disjoint(&queued), "what is recorded is not sent again");
        assert!(store.check().await.unwrap().is_empty());
        store.close().await.unwrap();
    }
    assert!(promised["accepted"].len() > CYCLES * ACKNOWLEDGED / 4, "the children were alive");
    assert!(promised["recorded"].len() > CYCLES * ACKNOWLEDGED / 16);
}

#[tokio::test]
async fn a_fan_out_interrupted_half_way_goes_on_with_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let (store, w) = open(options(dir.path()));
    let app = w.new_application().await.id;
    let mut endpoints = Vec::new();
    for _ in 0..5 {
        endpoints.push(w.new_endpoint(app).await.id);
    }
    let message = w.publish(app, &endpoints).await;
    for endpoint in &endpoints[..2] {
        w.record(&message, *endpoint, 200, DeliveryNext::Delivered, true).await;
    }
    store.close().await.unwrap();
    drop((store, w));
    let (store, w) = open(options(dir.path()));
    let left: Vec<EndpointId> = w.queued().await.into_iter().map(|(_, endpoint)| endpoint).collect();
    assert_eq!(left, endpoints[2..]);
    w.pass(std::time::Duration::from_secs(60));
    for endpoint in &endpoints[2..] {
        assert_eq!(store.count_unfinished().await.unwrap().0, 5, "the row stays until the last one is done");
        w.record(&message, *endpoint, 200, DeliveryNext::Delivered, true).await;
    }
    assert_eq!(store.count_unfinished().await.unwrap(), (0, 0));
}

#[tokio::test]
async fn what_was_handed_over_before_closing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let (store, w) = open(options(dir.path()));
    let app = w.new_application().await.id;
    let endpoint = w.new_endpoint(app).await.id;
    let message = w.publish(app, &[endpoint]).await;
    let attempt = w.attempt(message.id, endpoint, 200);
    let record = AttemptRecord {
        message: message.id,
        endpoint,
        app,
        attempt: Some(attempt.clone()),
        next: DeliveryNext::Delivered,
        is_first_try: true,
        epoch: 0,
    };
    store.record_attempt(record);
    store.close().await.unwrap();
    drop((store, w));
    let (store, w) = open(options(dir.path()));
    assert_eq!(w.queued().await, []);
    assert!(bellwire_store::AttemptStore::get_attempt(&*store, app, message.id, attempt.id).await.unwrap().is_some());
}
