//! Two and three nodes on one PostgreSQL: what holds whichever node is asked, and while nodes come, go and lose their database.

use std::collections::HashMap;
use std::time::Duration;

use bellwire_core::{Application, AttemptStatus, Endpoint, MessageId, SHARDS, Timestamp};
use bellwire_engine::EngineConfig;
use bellwire_engine::link::{LinkConfig, LinkKey};
use bellwire_postgres_testkit::query;
use bellwire_store::{Task, TaskKind, TaskStatus};
use bellwire_testkit::{Receiver, Reply, TestApp, database, test_config};
use bytes::Bytes;

use crate::line::Line;
use crate::wait_until;

pub const PAYLOAD: &str = r#"{"a": 1}"#;
const LEASE: Duration = Duration::from_millis(1_500);

/// Requests say by their user agent which node they came from. As a server configures it, it is reachable for nodes that have the same key.
pub fn config(name: &str) -> EngineConfig {
    let link = LinkConfig { listen: "127.0.0.1:0".parse().unwrap(), advertise: None, key: LinkKey::new([3; 32]) };
    EngineConfig { node_name: name.to_owned(), user_agent: name.to_owned(), lease: LEASE, link: Some(link), ..test_config() }
}

pub async fn node(url: &str, name: &str) -> TestApp {
    TestApp::node(url, config(name)).await
}

pub async fn owns(app: &TestApp, shards: usize) {
    wait_until(|| async { app.engine.shards_owned() == shards }).await;
}

async fn pair() -> (TestApp, TestApp, String) {
    pair_of(config("a"), config("b")).await
}

/// Two nodes, each with half of the shards.
pub async fn pair_of(a: EngineConfig, b: EngineConfig) -> (TestApp, TestApp, String) {
    let url = database().await;
    let a = TestApp::node(&url, a).await;
    owns(&a, SHARDS).await;
    let b = TestApp::node(&url, b).await;
    owns(&b, SHARDS / 2).await;
    owns(&a, SHARDS / 2).await;
    (a, b, url)
}

/// An endpoint that this node delivers to. `path` with the number of the try.
pub async fn endpoint_of(owner: &TestApp, application: &Application, receiver: &Receiver, path: &str) -> (Endpoint, String) {
    for number in 0.. {
        let path = format!("{path}{number}");
        let endpoint = owner.endpoint(application, receiver.url(&path), |_| {}).await;
        if owner.engine.delivers_to(endpoint.id) {
            return (endpoint, path);
        }
        assert!(owner.store().delete_endpoint(application.id, endpoint.id, owner.now()).await.unwrap());
        owner.engine.endpoint_changed(application.id, endpoint.id);
    }
    unreachable!("half of all endpoints are this node's")
}

pub fn by_message(receiver: &Receiver, path: &str) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for request in receiver.received(path) {
        *counts.entry(request.header("webhook-id").unwrap().to_owned()).or_insert(0) += 1;
    }
    counts
}

pub async fn idle(apps: &[&TestApp]) {
    for app in apps {
        app.drain().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_join_and_stop_under_load_lose_nothing_and_send_nothing_twice() {
    let url = database().await;
    let receiver = Receiver::start().await.unwrap();
    let a = node(&url, "a").await;
    owns(&a, SHARDS).await;
    let application = a.application("acme").await;
    let paths: Vec<String> = (0..24).map(|n| format!("/{n}")).collect();
    for path in &paths {
        a.endpoint(&application, receiver.url(path), |_| {}).await;
    }
    let mut published = vec![];
    let mut b = None;
    let mut c = None;
    for step in 0..300 {
        match step {
            60 => b = Some(node(&url, "b").await),
            120 => c = Some(node(&url, "c").await),
            200 => TestApp::stop(b.take().unwrap()).await,
            _ => {}
        }
        let nodes: Vec<&TestApp> = [Some(&a), b.as_ref(), c.as_ref()].into_iter().flatten().collect();
        published.push(nodes[step % nodes.len()].publish(&application, "a.b", PAYLOAD).await);
        // The pace of the load, not a wait: nodes move while messages come steadily.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let c = c.unwrap();
    idle(&[&a, &c]).await;
    for path in &paths {
        let counts = by_message(&receiver, path);
        for id in &published {
            assert_eq!(counts.get(&id.to_string()), Some(&1), "{id} at {path}");
        }
    }
    let agents: HashMap<_, usize> =
        paths.iter().flat_map(|path| receiver.received(path)).fold(HashMap::new(), |mut all, request| {
            *all.entry(request.header("user-agent").unwrap().to_owned()).or_default() += 1;
            all
        });
    assert_eq!(agents.len(), 3, "every node delivered its share: {agents:?}");
    c.stop().await;
    owns(&a, SHARDS).await;
}

#[tokio::test]
async fn a_node_that_stops_while_an_endpoint_hangs_does_not_make_the_others_wait_for_it() {
    let (a, b, _) = pair().await;
    let receiver = Receiver::start().await.unwrap();
    let application = a.application("acme").await;
    let (_, hanging) = endpoint_of(&b, &application, &receiver, "/hang").await;
    receiver.script(&hanging, [Reply::Full { status: 200, headers: vec![], body: Bytes::new() }, Reply::Hang]);
    let (_, quick) = endpoint_of(&b, &application, &receiver, "/quick").await;
    a.publish(&application, "a.b", PAYLOAD).await;
    receiver.wait_for(&hanging, 1).await;
    let last = a.publish(&application, "a.b", PAYLOAD).await;
    receiver.wait_for(&hanging, 2).await;
    let began = tokio::time::Instant::now();
    let engine = b.engine.clone();
    let stopping = tokio::spawn(async move { engine.stop(Duration::from_secs(30)).await });
    wait_until(|| async { a.engine.shards_owned() >= SHARDS - 2 }).await;
    assert!(!stopping.is_finished(), "it still waits for the one that hangs");
    a.publish(&application, "a.b", PAYLOAD).await;
    receiver.wait_for(&quick, 3).await;
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert_eq!(stopping.await.unwrap().abandoned, 0);
    owns(&a, SHARDS).await;
    idle(&[&a]).await;
    let attempts = a.attempts(&application, last).await;
    assert_eq!(attempts.iter().filter(|(status, _)| *status == AttemptStatus::Success).count(), 2, "{attempts:?}");
    assert_eq!(attempts.len(), 3, "the one that ran out of time counts, and nothing was sent twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_cut_off_again_and_again_lose_nothing_and_record_every_delivery_once() {
    let url = database().await;
    let receiver = Receiver::start().await.unwrap();
    let a = node(&url, "a").await;
    let lines = [Line::to(&url).await, Line::to(&url).await];
    let others = [node(lines[0].url(), "b").await, node(lines[1].url(), "c").await];
    wait_until(|| async { others.iter().all(|node| node.engine.shards_owned() >= 85) }).await;
    let application = a.application("acme").await;
    let paths: Vec<String> = (0..12).map(|n| format!("/{n}")).collect();
    for (n, path) in paths.iter().enumerate() {
        a.endpoint(&application, receiver.url(path), |_| {}).await;
        // Some fail at first: their retries move too.
        receiver.script(path, vec![Reply::Status(500); n % 3]);
    }
    let mut published = vec![];
    for step in 0..400 {
        let at = step / 100 % 2;
        match step % 100 {
            10 => lines[at].cut(),
            75 => lines[at].mend(),
            _ => {}
        }
        published.push(a.publish(&application, "a.b", PAYLOAD).await);
        // And some through the others, as far as they are there.
        let Ok(Some(entry)) = others[1 - at].engine.application_by_id(application.id).await else { continue };
        let message = others[1 - at].message(&application, "a.b", PAYLOAD);
        let id = message.id;
        // One whose connections have just been lost may say that it does not know: then nothing was promised.
        if others[1 - at].engine.publish(&entry, message, None).await.is_ok() {
            published.push(id);
        }
        // The pace of the load: it has to go on through cuts of several leases.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(published.len() > 600, "{} messages were accepted", published.len());
    wait_until(|| async { others.iter().all(|node| node.engine.shards_owned() >= 85) }).await;
    idle(&[&a, &others[0], &others[1]]).await;
    for id in published {
        let attempts = a.attempts(&application, id).await;
        let delivered = attempts.iter().filter(|(status, _)| *status == AttemptStatus::Success).count();
        assert_eq!(delivered, paths.len(), "{id}: {attempts:?}");
    }
}

#[tokio::test]
async fn an_endpoint_created_on_one_node_gets_the_message_published_on_another_at_once() {
    let (a, b, _) = pair().await;
    let receiver = Receiver::start().await.unwrap();
    let application = a.application("acme").await;
    for n in 0..10 {
        // The other node knows the application as it was.
        b.publish(&application, "a.b", PAYLOAD).await;
        let path = format!("/{n}");
        a.endpoint(&application, receiver.url(&path), |_| {}).await;
        let message = b.publish(&application, "a.b", PAYLOAD).await;
        let got = receiver.wait_for(&path, 1).await;
        assert_eq!(got[0].header("webhook-id"), Some(message.to_string().as_str()));
    }
    idle(&[&a, &b]).await;
}

#[tokio::test]
async fn what_a_node_was_sending_when_it_was_declared_dead_counts_for_nothing_and_it_comes_back() {
    let (a, b, _) = pair().await;
    let receiver = Receiver::start().await.unwrap();
    let application = a.application("acme").await;
    let (_, path) = endpoint_of(&a, &application, &receiver, "/").await;
    receiver.script(&path, [Reply::Hang]);
    let message = b.publish(&application, "a.b", PAYLOAD).await;
    receiver.wait_for(&path, 1).await;
    let buried = async {
        let cluster = b.store().beat().await.unwrap();
        let of_a = cluster.nodes.iter().find(|node| node.info.name == "a").unwrap();
        // False: its heart beat in between.
        b.store().declare_dead(of_a.epoch, of_a.beat).await.unwrap()
    };
    assert!(buried.await);
    assert_eq!(receiver.wait_for(&path, 2).await.len(), 2);
    owns(&a, SHARDS / 2).await;
    owns(&b, SHARDS / 2).await;
    wait_until(|| async { a.engine.metrics_text().await.contains("record_attempts_fenced_total 1\n") }).await;
    idle(&[&a, &b]).await;
    assert_eq!(a.attempts(&application, message).await, [(AttemptStatus::Success, 200)]);
    assert!(a.engine.metrics_text().await.contains("shard_lease_losses_total 1\n"));
}

#[tokio::test]
async fn a_resend_asked_of_the_wrong_node_is_made_by_the_right_one() {
    let (a, b, _) = pair().await;
    let receiver = Receiver::start().await.unwrap();
    let application = a.application("acme").await;
    let (endpoint, path) = endpoint_of(&b, &application, &receiver, "/").await;
    let message = a.publish(&application, "a.b", PAYLOAD).await;
    receiver.wait_for(&path, 1).await;
    idle(&[&a, &b]).await;
    a.engine.resend(application.id, message, endpoint.id, None).await.unwrap();
    let got = receiver.wait_for(&path, 2).await;
    idle(&[&a, &b]).await;
    assert!(got.iter().all(|request| request.header("user-agent") == Some("b")));
    assert_eq!(a.attempts(&application, message).await, [(AttemptStatus::Success, 200); 2]);
    assert_eq!(receiver.received(&path).len(), 2);
}

#[tokio::test]
async fn a_recovery_asked_of_the_wrong_node_is_worked_on_by_the_right_one() {
    let (a, b, _) = pair().await;
    let receiver = Receiver::start().await.unwrap();
    let application = a.application("acme").await;
    let (endpoint, path) = endpoint_of(&b, &application, &receiver, "/").await;
    let since = a.now();
    receiver.script(&path, vec![Reply::Status(500); 12]);
    let mut missed: Vec<MessageId> = vec![];
    for _ in 0..3 {
        missed.push(a.publish(&application, "a.b", PAYLOAD).await);
    }
    receiver.wait_for(&path, 12).await;
    idle(&[&a, &b]).await;
    let task = Task {
        id: a.engine.new_id(),
        org: a.org,
        kind: TaskKind::EndpointRecover,
        status: TaskStatus::Running,
        app: application.id,
        endpoint: endpoint.id,
        since: Timestamp(since.0 - 1_000),
        until: a.now(),
        position: None,
        messages_sent: 0,
        created_at: a.now(),
        updated_at: a.now(),
    };
    let id = task.id;
    a.engine.recover(task, None).await.unwrap();
    let got = receiver.wait_for(&path, 15).await;
    wait_until(|| async { a.store().get_task(a.org, id).await.unwrap().unwrap().status == TaskStatus::Finished }).await;
    idle(&[&a, &b]).await;
    assert!(got.iter().all(|request| request.header("user-agent") == Some("b")));
    assert_eq!(a.store().get_task(a.org, id).await.unwrap().unwrap().messages_sent, 3);
    for message in missed {
        assert_eq!(a.attempts(&application, message).await.last(), Some(&(AttemptStatus::Success, 200)));
    }
    assert_eq!(receiver.received(&path).len(), 15);
}

#[tokio::test]
async fn a_scheduled_message_accepted_by_another_node_is_delivered_once_and_in_time() {
    let (a, b, _) = pair().await;
    let receiver = Receiver::start().await.unwrap();
    let application = a.application("acme").await;
    let (_, ours) = endpoint_of(&a, &application, &receiver, "/a").await;
    let (_, theirs) = endpoint_of(&b, &application, &receiver, "/b").await;
    let mut message = a.message(&application, "a.b", PAYLOAD);
    message.deliver_at = Some(a.now().plus(Duration::from_millis(900)));
    let began = tokio::time::Instant::now();
    a.publish_message(&application, message).await;
    for (path, agent) in [(ours, "a"), (theirs, "b")] {
        let got = receiver.wait_for(&path, 1).await;
        let waited = got[0].at - began;
        assert!(waited >= Duration::from_millis(890) && waited < Duration::from_millis(1_900), "{path} after {waited:?}");
        assert_eq!(got[0].header("user-agent"), Some(agent));
        idle(&[&a, &b]).await;
        assert_eq!(receiver.received(&path).len(), 1);
    }
}

#[tokio::test]
async fn the_rate_of_an_application_holds_over_all_nodes_together() {
    const RATE: u16 = 20;
    let (a, b, _) = pair().await;
    let receiver = Receiver::start().await.unwrap();
    let read = a.application("acme").await;
    let application = Application { throttle_rate: Some(RATE), ..read.clone() };
    a.store().change_application(&read, application.clone()).await.unwrap();
    a.engine.application_changed(application.id);
    let mut paths = vec![];
    for (node, name) in [(&a, "/a"), (&a, "/aa"), (&b, "/b"), (&b, "/bb")] {
        paths.push(endpoint_of(node, &application, &receiver, name).await.1);
    }
    for n in 0..15 {
        [&a, &b][n % 2].publish(&application, "a.b", PAYLOAD).await;
    }
    idle(&[&a, &b]).await;
    let mut times: Vec<_> = paths.iter().flat_map(|path| receiver.received(path)).map(|request| request.at).collect();
    times.sort();
    assert_eq!(times.len(), 60);
    let most =
        times.iter().map(|from| times.iter().filter(|at| **at >= *from && **at - *from < Duration::from_secs(1)).count()).max();
    // A token that is there at the beginning, and what starts before a rate is known: as on one node.
    let allowed = usize::from(RATE) + 20;
    assert!(most.unwrap() <= allowed, "{most:?} within a second");
    assert!(*times.last().unwrap() - times[0] >= Duration::from_millis(1_900), "60 at 20 a second");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_cut_off_from_the_database_stops_and_the_others_go_on_with_its_work() {
    let url = database().await;
    let line = Line::to(&url).await;
    let receiver = Receiver::start().await.unwrap();
    let a = node(&url, "a").await;
    owns(&a, SHARDS).await;
    let b = node(line.url(), "b").await;
    owns(&b, SHARDS / 2).await;
    owns(&a, SHARDS / 2).await;
    let application = a.application("acme").await;
    let (mut endpoint, path) = endpoint_of(&b, &application, &receiver, "/").await;
    // Paced, so that there is work left when the line is cut.
    endpoint.throttle_rate = Some(25);
    b.update(endpoint.clone()).await;
    let mut published = vec![];
    for _ in 0..150 {
        published.push(a.publish(&application, "a.b", PAYLOAD).await);
    }
    receiver.wait_for(&path, 10).await;
    line.cut();
    let cut = tokio::time::Instant::now();
    wait_until(|| async { a.engine.shards_owned() == SHARDS }).await;
    let taken = cut.elapsed();
    assert!(taken < Duration::from_secs(5), "taken over after {taken:?}");
    wait_until(|| async { by_message(&receiver, &path).len() == published.len() }).await;
    let got = receiver.received(&path);
    let late =
        got.iter().filter(|r| r.header("user-agent") == Some("b") && r.at > cut + LEASE + Duration::from_millis(500)).count();
    assert_eq!(late, 0, "started by a node that could not know any more whether it was alive");
    assert!(got.iter().any(|request| request.header("user-agent") == Some("a")));
    line.mend();
    owns(&b, SHARDS / 2).await;
    owns(&a, SHARDS / 2).await;
    idle(&[&a, &b]).await;
    for id in published {
        let delivered = a.attempts(&application, id).await.iter().filter(|(status, _)| *status == AttemptStatus::Success).count();
        assert_eq!(delivered, 1, "{id}: what the cut-off node had under way counts for nothing");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shards_that_the_database_has_forgotten_are_not_delivered_by_two_nodes_afterwards() {
    let (a, b, url) = pair().await;
    let receiver = Receiver::start().await.unwrap();
    let application = a.application("acme").await;
    let paths: Vec<String> = (0..16).map(|n| format!("/{n}")).collect();
    let mut endpoints = vec![];
    for path in &paths {
        endpoints.push(a.endpoint(&application, receiver.url(path), |_| {}).await.id);
    }
    let mut published = vec![];
    for step in 0..120 {
        if step == 40 {
            // As a standby that lacked the last commits would have it.
            let url = url.clone();
            tokio::task::spawn_blocking(move || query(&url, "UPDATE shard SET owner = NULL").unwrap()).await.unwrap();
        }
        published.push([&a, &b][step % 2].publish(&application, "a.b", PAYLOAD).await);
        // The pace of the load, so that ownership is lost in the middle of it.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let has_begun_anew = async |node: &TestApp| {
        let text = node.engine.metrics_text().await;
        text.lines().any(|line| line.contains("shard_lease_losses_total ") && !line.starts_with('#') && !line.ends_with(" 0"))
    };
    wait_until(|| async { has_begun_anew(&a).await && has_begun_anew(&b).await }).await;
    wait_until(|| async { a.engine.shards_owned() + b.engine.shards_owned() == SHARDS }).await;
    idle(&[&a, &b]).await;
    for endpoint in endpoints {
        assert!(a.engine.delivers_to(endpoint) != b.engine.delivers_to(endpoint), "{endpoint} is one node's");
    }
    for path in &paths {
        let counts = by_message(&receiver, path);
        assert!(published.iter().all(|id| counts.contains_key(&id.to_string())), "{path}");
    }
    // From here on everything has one owner again.
    let mut after = vec![];
    for step in 0..20 {
        after.push([&a, &b][step % 2].publish(&application, "a.b", PAYLOAD).await);
    }
    idle(&[&a, &b]).await;
    for path in &paths {
        let counts = by_message(&receiver, path);
        assert!(after.iter().all(|id| counts.get(&id.to_string()) == Some(&1)), "{path}: {counts:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_goes_on_delivering_while_it_waits_for_the_last_write_of_a_dead_one() {
    /// Longer than a lease after the other node's.
    const HELD: Duration = Duration::from_secs(5);
    let url = database().await;
    let line = Line::to(&url).await;
    let receiver = Receiver::start().await.unwrap();
    let a = node(&url, "a").await;
    owns(&a, SHARDS).await;
    let b = node(line.url(), "b").await;
    owns(&b, SHARDS / 2).await;
    owns(&a, SHARDS / 2).await;
    let application = a.application("acme").await;
    let (_, path) = endpoint_of(&a, &application, &receiver, "/").await;
    line.cut();
    // As a write of that node does that its server has not ended.
    let write = format!(
        "WITH held AS MATERIALIZED (SELECT 1 FROM fence WHERE epoch = (SELECT epoch FROM node WHERE name = 'b') FOR UPDATE) \
         SELECT pg_sleep({}) FROM held LIMIT 1",
        HELD.as_secs()
    );
    let writing = tokio::task::spawn_blocking(move || query(&url, &write).unwrap());
    let began = tokio::time::Instant::now();
    let mut published = 0;
    while !writing.is_finished() {
        let owned = a.engine.shards_owned();
        assert!(owned == SHARDS / 2 || began.elapsed() >= HELD, "what the dead node writes is still its own");
        a.publish(&application, "a.b", PAYLOAD).await;
        published += 1;
        receiver.wait_for(&path, published).await;
        // The pace of the load; what is waited for is that each has arrived.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let times: Vec<_> = receiver.received(&path).iter().map(|request| request.at).collect();
    let pause = times.windows(2).map(|pair| pair[1].saturating_duration_since(pair[0])).max().unwrap();
    assert!(times[times.len() - 1] - times[0] > 2 * LEASE, "it was waited for");
    assert!(pause < Duration::from_secs(1), "nothing was sent for {pause:?}");
    owns(&a, SHARDS).await;
    drop(b);
}

/// Broken: an endpoint that fails now and then has its row written twice for each failure, one write after the other, however many wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_fails_and_succeeds_by_turns_is_not_written_each_time() {
    let url = database().await;
    let (app, receiver) = (node(&url, "a").await, Receiver::start().await.unwrap());
    owns(&app, SHARDS).await;
    let application = app.application("acme").await;
    let (_, path) = endpoint_of(&app, &application, &receiver, "/").await;
    let written = |url: &str| -> u64 {
        query(url, "SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 'endpoint'").unwrap().trim().parse().unwrap()
    };
    receiver.script(&path, (0..40).map(|n| Reply::Status(if n % 2 == 0 { 500 } else { 200 })).collect::<Vec<_>>());
    for _ in 0..20 {
        app.publish(&application, "a.b", PAYLOAD).await;
        app.drain().await;
    }
    assert_eq!(receiver.received(&path).len(), 40);
    // What its connections have counted is there for all to see once they have ended.
    app.stop().await;
    let count = tokio::task::spawn_blocking(move || written(&url)).await.unwrap();
    assert!(count < 10, "{count} writes for twenty failures and as many successes");
}
