//! Two nodes with a direct link: what goes over it, and what holds when it does not answer.

use std::time::Duration;

use bellwire_core::{Application, Message, MessageId};
use bellwire_engine::{EngineConfig, Published};
use bellwire_postgres_testkit::query;
use bellwire_store::Idempotency;
use bellwire_testkit::{Receiver, TestApp};
use tokio::task::JoinSet;

use crate::cluster::{PAYLOAD, by_message, config, endpoint_of, idle, pair_of};
use crate::line::Line;
use crate::wait_until;

/// Far above what it takes, and below a link's longest pause.
const PATIENCE: Duration = Duration::from_millis(4_500);
const FORWARDED: &str = "link_messages_forwarded_total";
const FETCHED: &str = "shard_deliveries_handed_over_total";
const TOLD: &str = "shard_deliveries_told_total";
const WINDOW: Duration = Duration::from_secs(3_600);

async fn metric(app: &TestApp, name: &str) -> u64 {
    let text = app.engine.metrics_text().await;
    let line = text.lines().find_map(|line| line.strip_prefix("bellwire_")?.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no metric {name}")).parse().unwrap()
}

async fn linked(app: &TestApp) {
    wait_until(|| async { metric(app, "link_peers").await == 1 }).await;
}

/// Two nodes, the second of which the first one reaches by a line only.
async fn pair_on_a_line() -> (TestApp, TestApp, Line) {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let line = Line::to_address(port.to_string()).await;
    let mut b = config("b");
    let link = b.link.as_mut().unwrap();
    (link.listen, link.advertise) = (port, Some(line.address().to_string()));
    let (a, b, _) = pair_of(config("a"), b).await;
    linked(&a).await;
    // Until a heartbeat has shown the first one who owns what by now.
    let receiver = Receiver::start().await.unwrap();
    let application = a.application("before").await;
    endpoint_of(&b, &application, &receiver, "/").await;
    while metric(&a, FORWARDED).await == 0 {
        a.publish(&application, "a.b", PAYLOAD).await;
    }
    idle(&[&a, &b]).await;
    (a, b, line)
}

fn key(of: u8, at: &TestApp) -> Idempotency {
    Idempotency { key: [of; 16], request: [1; 16], expires_at: at.now().plus(WINDOW), window: WINDOW }
}

async fn publish(app: &TestApp, application: &Application, message: Message, key: Option<Idempotency>) -> MessageId {
    let entry = app.engine.application_by_id(application.id).await.unwrap().unwrap();
    match app.engine.publish(&entry, message, key).await.unwrap() {
        Published::Fresh(message) => message.id,
        Published::Replayed(id) => id,
    }
}

#[tokio::test]
async fn what_another_node_delivers_is_accepted_by_it_and_nothing_has_to_be_fetched() {
    let (a, b, _line) = pair_on_a_line().await;
    let receiver = Receiver::start().await.unwrap();
    let application = a.application("acme").await;
    let (_, path) = endpoint_of(&b, &application, &receiver, "/").await;
    let before = (metric(&a, FORWARDED).await, metric(&b, FETCHED).await);
    let mut published = vec![];
    for n in 0..30 {
        // Some by key, some that the link does not take for their size.
        let mut message = a.message(&application, "a.b", PAYLOAD);
        if n % 10 == 9 {
            message.payload = Some(vec![b'x'; 200_000].into());
        }
        published.push(publish(&a, &application, message, (n % 2 == 0).then(|| key(n, &a))).await);
    }
    let again = publish(&a, &application, a.message(&application, "a.b", PAYLOAD), Some(key(4, &a))).await;
    assert_eq!(again, published[4], "the same key makes the same message, over the link as without it");
    receiver.wait_for(&path, published.len()).await;
    idle(&[&a, &b]).await;
    all_once(&receiver, &[&path], &published);
    assert_eq!(metric(&a, FORWARDED).await - before.0, 28, "27 messages and a repeat");
    assert_eq!(metric(&b, FETCHED).await - before.1, 3, "those that were too large");
}

/// Broken: messages to a busy endpoint are sent to and fro one by one, and its owner's lanes accept what all nodes take in; or they go on being
/// accepted where they come when they come alone, and each costs a handover row.
#[tokio::test]
async fn messages_for_a_busy_endpoint_of_another_node_are_accepted_where_they_come_while_they_come_in_crowds() {
    let (a, b, _line) = pair_on_a_line().await;
    linked(&b).await;
    let receiver = Receiver::start().await.unwrap();
    let application = a.application("acme").await;
    let (_, path) = endpoint_of(&b, &application, &receiver, "/").await;
    let entry = a.engine.application_by_id(application.id).await.unwrap().unwrap();
    let before = metric(&a, FORWARDED).await;
    let mut published = vec![];
    for _ in 0..5 {
        let mut crowd = JoinSet::new();
        for _ in 0..40 {
            let (engine, entry, message) = (a.engine.clone(), entry.clone(), a.message(&application, "a.b", PAYLOAD));
            crowd.spawn(async move { engine.publish(&entry, message, None).await });
        }
        while let Some(ended) = crowd.join_next().await {
            let Ok(Ok(Published::Fresh(message))) = ended else { panic!("{ended:?}") };
            published.push(message.id);
        }
    }
    assert_eq!(metric(&a, FORWARDED).await - before, 7, "those of the first crowd that came before it was one");
    let mut alone = 0;
    while metric(&a, FORWARDED).await - before == 7 {
        published.push(publish(&a, &application, a.message(&application, "a.b", PAYLOAD), None).await);
        alone += 1;
        assert!(alone < 200, "the crowd has gone");
    }
    published.push(publish(&a, &application, a.message(&application, "a.b", PAYLOAD), None).await);
    assert_eq!(metric(&a, FORWARDED).await - before, 9);
    receiver.wait_for(&path, published.len()).await;
    idle(&[&a, &b]).await;
    all_once(&receiver, &[&path], &published);
}

#[tokio::test]
async fn of_a_message_that_both_deliver_the_other_node_fetches_its_deliveries_alone() {
    let (a, b, line) = pair_on_a_line().await;
    let receiver = Receiver::start().await.unwrap();
    let application = a.application("acme").await;
    let (_, of_a) = endpoint_of(&a, &application, &receiver, "/a").await;
    let (_, of_b) = endpoint_of(&b, &application, &receiver, "/b").await;
    let before = (metric(&a, FORWARDED).await, metric(&b, FETCHED).await, metric(&b, TOLD).await);
    let mut published = vec![];
    for n in 0..40 {
        let mut message = a.message(&application, "a.b", PAYLOAD);
        // Some that the link does not take for their size, and some that it does not get for itself.
        if n % 10 == 9 {
            message.payload = Some(vec![b'x'; 200_000].into());
        }
        match n {
            20 => line.cut(),
            30 => line.mend(),
            _ => {}
        }
        published.push(publish(&a, &application, message, None).await);
    }
    for path in [&of_a, &of_b] {
        receiver.wait_for(path, published.len()).await;
    }
    idle(&[&a, &b]).await;
    all_once(&receiver, &[&of_a, &of_b], &published);
    assert_eq!(metric(&a, FORWARDED).await, before.0, "each is accepted where it came in");
    assert_eq!(metric(&b, FETCHED).await - before.1, 40);
    let told = metric(&b, TOLD).await - before.2;
    assert!((10..=36).contains(&told), "the messages of {told} deliveries came along");
}

/// Of each, every message once.
fn all_once(receiver: &Receiver, paths: &[&str], published: &[MessageId]) {
    for path in paths {
        let counts = by_message(receiver, path);
        let is_once = |id: &MessageId| counts.get(&id.to_string()) == Some(&1);
        assert!(published.iter().all(is_once) && counts.len() == published.len(), "{path}: {counts:?}");
    }
}

#[tokio::test]
async fn a_fan_out_is_accepted_by_the_node_that_delivers_most_of_it_unless_that_is_away() {
    let (a, b, line) = pair_on_a_line().await;
    let receiver = Receiver::start().await.unwrap();
    let application = a.application("acme").await;
    let (_, of_a) = endpoint_of(&a, &application, &receiver, "/a").await;
    let (_, of_b) = endpoint_of(&b, &application, &receiver, "/b").await;
    let (_, too) = endpoint_of(&b, &application, &receiver, "/too").await;
    let metrics =
        async || (metric(&a, FORWARDED).await, metric(&b, FORWARDED).await, metric(&a, FETCHED).await, metric(&b, FETCHED).await);
    let before = (metrics().await, metric(&a, TOLD).await);
    let mut published = vec![];
    for n in 0..60u8 {
        match n {
            20 => line.cut(),
            40 => {
                line.mend();
                linked(&a).await;
            }
            _ => {}
        }
        // What comes to the node that delivers most stays there.
        let at = if n < 50 { &a } else { &b };
        published
            .push(publish(at, &application, at.message(&application, "a.b", PAYLOAD), (n % 2 == 0).then(|| key(n, at))).await);
    }
    for path in [&of_a, &of_b, &too] {
        receiver.wait_for(path, published.len()).await;
    }
    idle(&[&a, &b]).await;
    all_once(&receiver, &[&of_a, &of_b, &too], &published);
    let after = metrics().await;
    let (forwarded, fetched) = (after.0 - before.0.0, after.2 - before.0.2);
    assert!((29..=30).contains(&forwarded), "{forwarded} passed on, with the link up");
    assert_eq!(after.1, before.0.1, "nothing goes back");
    assert_eq!(fetched, forwarded + 10, "the first node's deliveries of what the second accepted");
    assert_eq!(after.3 - before.0.3, 2 * (50 - forwarded), "the second's of what the first accepted meanwhile");
    assert_eq!(metric(&a, TOLD).await - before.1, fetched, "who passed a message on, or was told of it, need not read it back");
}

#[tokio::test]
async fn a_fan_out_that_two_nodes_share_evenly_is_accepted_by_one_of_them_wherever_it_comes() {
    let (a, b, _line) = pair_on_a_line().await;
    let receiver = Receiver::start().await.unwrap();
    let application = a.application("acme").await;
    let (_, of_b) = endpoint_of(&b, &application, &receiver, "/b").await;
    let (_, of_a) = endpoint_of(&a, &application, &receiver, "/a").await;
    linked(&b).await;
    let before = (metric(&a, FORWARDED).await, metric(&b, FORWARDED).await, metric(&b, FETCHED).await);
    let mut published = vec![];
    for n in 0..20 {
        let at = if n % 2 == 0 { &a } else { &b };
        published.push(publish(at, &application, at.message(&application, "a.b", PAYLOAD), None).await);
    }
    for path in [&of_a, &of_b] {
        receiver.wait_for(path, published.len()).await;
    }
    idle(&[&a, &b]).await;
    all_once(&receiver, &[&of_a, &of_b], &published);
    assert_eq!(metric(&a, FORWARDED).await - before.0, 10);
    assert_eq!(metric(&b, FORWARDED).await, before.1);
    assert_eq!(metric(&b, FETCHED).await, before.2, "all of the second node's went straight into its queue");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_node_is_behind_with_waits_where_it_comes_in() {
    /// Above what may wait.
    const BACKLOG: u64 = 512;
    let (a, b, _line) = pair_on_a_line().await;
    let receiver = Receiver::start().await.unwrap();
    let (busy, quiet) = (a.application("busy").await, a.application("quiet").await);
    // One of the first node's before it, so that messages are accepted there.
    endpoint_of(&a, &busy, &receiver, "/a").await;
    let mut paced = None;
    while paced.is_none() {
        let endpoint = b.endpoint(&busy, receiver.url("/paced"), |endpoint| endpoint.throttle_rate = Some(1)).await;
        if b.engine.delivers_to(endpoint.id) {
            paced = Some(endpoint);
        } else {
            assert!(b.store().delete_endpoint(busy.id, endpoint.id, b.now()).await.unwrap());
            b.engine.endpoint_changed(busy.id, endpoint.id);
        }
    }
    endpoint_of(&a, &quiet, &receiver, "/b").await;
    endpoint_of(&b, &quiet, &receiver, "/c").await;
    let send = |application: &Application| {
        let (engine, id) = (a.engine.clone(), application.id);
        let message = a.message(application, "a.b", PAYLOAD);
        tokio::spawn(async move {
            let entry = engine.application_by_id(id).await.unwrap().unwrap();
            engine.publish(&entry, message, None).await.map(drop)
        })
    };
    let all: Vec<_> = (0..2 * BACKLOG).map(|_| send(&busy)).collect();
    wait_until(|| async { metric(&b, "queue_deliveries_quick").await > BACKLOG }).await;
    for sent in all {
        sent.await.unwrap().unwrap();
    }
    // Its next message waits while others' come and go.
    let held = send(&busy);
    for _ in 0..10 {
        send(&quiet).await.unwrap().unwrap();
    }
    assert!(!held.is_finished(), "it was not held back");
    held.await.unwrap().unwrap();
}

#[tokio::test]
async fn without_a_link_everything_goes_through_the_database() {
    let unlinked = |name: &str| EngineConfig { link: None, ..config(name) };
    let (a, b, _) = pair_of(unlinked("a"), unlinked("b")).await;
    let receiver = Receiver::start().await.unwrap();
    let application = a.application("acme").await;
    let (_, path) = endpoint_of(&b, &application, &receiver, "/").await;
    for _ in 0..10 {
        a.publish(&application, "a.b", PAYLOAD).await;
    }
    receiver.wait_for(&path, 10).await;
    idle(&[&a, &b]).await;
    assert_eq!(receiver.received(&path).len(), 10);
    assert_eq!(metric(&b, FETCHED).await, 10);
    assert_eq!(metric(&a, FORWARDED).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_whose_answer_is_lost_is_not_made_twice() {
    let (a, b, line) = pair_on_a_line().await;
    let receiver = Receiver::start().await.unwrap();
    let application = a.application("acme").await;
    let (_, path) = endpoint_of(&b, &application, &receiver, "/").await;
    // Also where some of it is the first node's.
    let (_, own) = endpoint_of(&a, &application, &receiver, "/own").await;
    // The other node has seen the application.
    a.publish(&application, "a.b", PAYLOAD).await;
    receiver.wait_for(&path, 1).await;
    line.mute();
    let asked = (0..24u8).map(|n| {
        let (engine, application) = (a.engine.clone(), application.clone());
        let mut message = a.message(&application, "a.b", PAYLOAD);
        message.event_id = (n % 3 == 0).then(|| format!("event-{n}"));
        let key = (n % 2 == 0).then(|| key(n, &a));
        tokio::spawn(async move {
            let id = message.id;
            let entry = engine.application_by_id(application.id).await.unwrap().unwrap();
            match engine.publish(&entry, message, key).await.unwrap() {
                Published::Fresh(message) => assert_eq!(message.id, id),
                Published::Replayed(other) => panic!("{id} is taken for a repeat of {other}"),
            }
            id
        })
    });
    let asked: Vec<_> = asked.collect();
    let mut published = vec![];
    for asked in asked {
        published.push(tokio::time::timeout(PATIENCE, asked).await.expect("accepted without the link").unwrap());
    }
    assert!(metric(&a, "link_messages_unanswered_total").await > 0);
    // What came meanwhile did not wait for a link that was silent.
    published.push(a.publish(&application, "a.b", PAYLOAD).await);
    line.mend();
    receiver.wait_for(&path, 1 + published.len()).await;
    linked(&a).await;
    published.push(a.publish(&application, "a.b", PAYLOAD).await);
    receiver.wait_for(&path, 1 + published.len()).await;
    receiver.wait_for(&own, 1 + published.len()).await;
    idle(&[&a, &b]).await;
    for path in [&path, &own] {
        let counts = by_message(&receiver, path);
        assert!(published.iter().all(|id| counts.get(&id.to_string()) == Some(&1)), "{counts:?}");
        assert_eq!(counts.len(), 1 + published.len());
    }
}

#[tokio::test]
async fn a_link_that_breaks_is_made_again_and_nobody_waits_for_it() {
    let (a, b, line) = pair_on_a_line().await;
    let receiver = Receiver::start().await.unwrap();
    let application = a.application("acme").await;
    let (_, path) = endpoint_of(&b, &application, &receiver, "/").await;
    for n in 0..40 {
        match n {
            10 => line.cut(),
            30 => {
                line.mend();
                linked(&a).await;
            }
            _ => {}
        }
        let publishing = a.publish(&application, "a.b", PAYLOAD);
        tokio::time::timeout(PATIENCE, publishing).await.expect("published with or without the link");
    }
    receiver.wait_for(&path, 40).await;
    idle(&[&a, &b]).await;
    assert_eq!(receiver.received(&path).len(), 40);
    assert!(metric(&a, FORWARDED).await >= 19);
    assert!(metric(&b, FETCHED).await >= 10);
}

#[tokio::test]
async fn nodes_with_another_key_are_not_linked_and_still_deliver_for_each_other() {
    let mut other = config("b");
    other.link.as_mut().unwrap().key = bellwire_engine::link::LinkKey::new([4; 32]);
    let (a, b, _) = pair_of(config("a"), other).await;
    let receiver = Receiver::start().await.unwrap();
    let application = a.application("acme").await;
    let (_, path) = endpoint_of(&b, &application, &receiver, "/").await;
    for _ in 0..5 {
        a.publish(&application, "a.b", PAYLOAD).await;
    }
    receiver.wait_for(&path, 5).await;
    assert_eq!((metric(&a, "link_peers").await, metric(&b, "link_peers").await), (0, 0));
    idle(&[&a, &b]).await;
}

/// Broken: nothing is delivered by word, so that all of a fan-out that is not the accepting node's waits until it is fetched; or what was is
/// delivered again when it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_peer_has_just_accepted_is_delivered_by_its_word_while_nothing_can_be_fetched() {
    let (a, b, url) = pair_of(config("a"), config("b")).await;
    linked(&a).await;
    linked(&b).await;
    let receiver = Receiver::start().await.unwrap();
    let application = a.application("acme").await;
    let (_, first) = endpoint_of(&a, &application, &receiver, "/first").await;
    let (_, second) = endpoint_of(&a, &application, &receiver, "/second").await;
    let (_, of_b) = endpoint_of(&b, &application, &receiver, "/b").await;
    // Who fetches what was handed over locks one of these rows.
    let block = "DO $$ BEGIN PERFORM 1 FROM fence WHERE lane = 5 FOR UPDATE; PERFORM pg_sleep(60); END $$";
    let locker = std::thread::spawn({
        let url = url.clone();
        move || query(&url, block)
    });
    let of_locker = "FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()";
    let ask = async |sql: String| {
        let url = url.clone();
        tokio::task::spawn_blocking(move || query(&url, &sql).unwrap()).await.unwrap().trim().to_owned()
    };
    wait_until(|| async { ask(format!("SELECT count(*) {of_locker}")).await == "1" }).await;
    // The first ones may come before the second node has held its shards long enough to take a word for it.
    let mut published = vec![];
    let arrived = async |at_least: usize| receiver.received(&of_b).len() >= at_least;
    let began = std::time::Instant::now();
    while !arrived(1).await && began.elapsed() < PATIENCE {
        for at in [&a, &b] {
            published.push(publish(at, &application, at.message(&application, "a.b", PAYLOAD), None).await);
        }
        wait_until(|| async { receiver.received(&first).len() == published.len() }).await;
    }
    // One that came in at either of them.
    for at in [&a, &b] {
        published.push(publish(at, &application, at.message(&application, "a.b", PAYLOAD), None).await);
    }
    let last = &published[published.len() - 2..];
    let by_word = || by_message(&receiver, &of_b);
    wait_until(|| async { last.iter().all(|id| by_word().contains_key(&id.to_string())) }).await;
    assert_ne!(ask("SELECT count(*) FROM handover".to_owned()).await, "0", "nothing was fetched meanwhile");
    ask(format!("SELECT pg_terminate_backend(pid) {of_locker}")).await;
    assert!(locker.join().unwrap().is_err());
    for path in [&first, &second, &of_b] {
        receiver.wait_for(path, published.len()).await;
    }
    wait_until(|| async { ask("SELECT count(*) FROM handover".to_owned()).await == "0" }).await;
    idle(&[&a, &b]).await;
    all_once(&receiver, &[&first, &second, &of_b], &published);
}
