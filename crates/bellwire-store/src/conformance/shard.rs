//! Shards: who is a member, who owns what, and that no delivery is lost or handed out twice on the way from one node to another.
//!
//! Of a store that belongs to one process, the cases ask that it is its own only member.

use std::sync::Arc;
use std::time::Duration;

use bellwire_core::{
    AppId, Application, Endpoint, EndpointHealth, EndpointId, IdKind, Message, MessageId, SHARDS, Shard, ShardSet,
};

use super::world::{DAY, World, fresh};
use crate::{
    Accepted, AttemptRecord, Changes, Cluster, DeliveryNext, DueDelivery, Forgotten, HandedOver, Known, NewMessage, NodeInfo,
    StoreError, Task, TaskKind, TaskStatus,
};

type Delivery = (MessageId, EndpointId);

fn owned_by(cluster: &Cluster, owner: Option<i64>) -> ShardSet {
    assert_eq!(cluster.owners.len(), SHARDS);
    (0..=u8::MAX).map(Shard).filter(|shard| cluster.owners[shard.index()] == owner).collect()
}

/// As the one node sees the other's counter.
async fn counter_of(watcher: &World, epoch: i64) -> i64 {
    let cluster = watcher.store.beat().await.unwrap();
    cluster.nodes.iter().find(|node| node.epoch == epoch).expect("it is a member").beat
}

/// Declares a node dead, which did not beat.
async fn bury(watcher: &World, epoch: i64) {
    let counter = counter_of(watcher, epoch).await;
    assert!(watcher.store.declare_dead(epoch, counter).await.unwrap());
}

/// Everything that was handed over for these shards.
async fn take(w: &World, shards: ShardSet) -> HandedOver {
    let mut all = HandedOver::default();
    loop {
        let some = w.store.take_handed_over(shards, Known::NOTHING).await.unwrap();
        for (due, new) in &some.first_tries {
            assert!(shards.has(due.endpoint), "of another shard");
            assert_eq!((due.tries, due.resume_at), (0, None));
            if let Some(new) = new {
                assert_eq!((new.message.id, new.message.app), (due.message, due.app), "the message that comes along is its own");
                assert!(new.message.payload.is_some());
            }
        }
        all.first_tries.extend(some.first_tries);
        all.retries.extend(some.retries);
        if !some.more {
            return all;
        }
    }
}

fn firsts(handed: &HandedOver) -> Vec<Delivery> {
    handed.first_tries.iter().map(|(due, _)| (due.message, due.endpoint)).collect()
}

async fn adopt(w: &World, shards: ShardSet, last_key: i64) -> Vec<Delivery> {
    let mut adopted: Vec<Delivery> = Vec::new();
    let mut feed = |page: Vec<DueDelivery>| adopted.extend(page.iter().map(|due| (due.message, due.endpoint)));
    w.store.adopt(shards, last_key, &mut feed).await.unwrap();
    assert!(adopted.is_sorted_by_key(|(message, _)| *message), "in message order");
    adopted
}

/// An application with so many endpoints, each of another shard.
async fn spread(w: &World, count: usize) -> (AppId, Vec<EndpointId>) {
    let app = w.new_application().await.id;
    let mut endpoints = Vec::new();
    for _ in 0..count {
        endpoints.push(w.new_endpoint(app).await.id);
    }
    assert_eq!(shards_of(&endpoints).len(), count, "each has a shard to itself");
    (app, endpoints)
}

fn shards_of(endpoints: &[EndpointId]) -> ShardSet {
    endpoints.iter().map(|endpoint| Shard::of(*endpoint)).collect()
}

pub async fn joining_begins_a_membership_and_leaving_ends_it(mut w: World) {
    let first = w.epoch;
    let cluster = w.store.beat().await.unwrap();
    assert_eq!(owned_by(&cluster, Some(first)), ShardSet::ALL);
    if !w.store.is_shared() {
        assert_eq!(cluster.nodes, [], "nobody else, ever");
        w.join().await;
        assert_eq!(w.epoch, first);
        w.store.leave().await.unwrap();
        return;
    }
    let [node] = &cluster.nodes[..] else { panic!("one member: {cluster:?}") };
    assert_eq!((node.epoch, &node.info), (first, &World::node()));
    assert!(w.store.beat().await.unwrap().nodes[0].beat > node.beat, "each beat is seen");
    // Joining again ends what was.
    w.join().await;
    assert!(w.epoch > first, "epochs are never used twice");
    let cluster = w.store.beat().await.unwrap();
    assert_eq!(cluster.nodes.iter().map(|node| node.epoch).collect::<Vec<_>>(), [w.epoch]);
    assert_eq!(owned_by(&cluster, None), ShardSet::ALL, "what the earlier membership owned is nobody's");
    // Two members have numbers of their own.
    let other = w.another().await;
    let observer =
        NodeInfo { name: "observer".to_owned(), is_worker: false, version: "1.2".to_owned(), address: "10.0.0.1:7".to_owned() };
    let rejoined = other.store.join(observer.clone(), None).await.unwrap();
    assert!(rejoined.epoch > other.epoch);
    let cluster = w.store.beat().await.unwrap();
    let [one, two] = &cluster.nodes[..] else { panic!("two members: {cluster:?}") };
    assert_eq!((one.epoch, two.epoch), (w.epoch, rejoined.epoch), "by epoch");
    assert!(one.slot != two.slot && rejoined.slot == Some(two.slot));
    assert_eq!(two.info, observer);
    // Leaving gives up everything.
    assert!(w.take_all().await);
    w.store.leave().await.unwrap();
    assert!(matches!(w.store.beat().await, Err(StoreError::Fenced)), "no member, no beat");
    let cluster = other.store.beat().await.unwrap();
    assert_eq!(cluster.nodes.len(), 1);
    assert_eq!(owned_by(&cluster, None), ShardSet::ALL);
}

/// Broken: the shards of a node that is stopping wait until it has left.
pub async fn who_retires_is_a_member_but_no_worker(w: World) {
    w.store.retire().await.unwrap();
    let cluster = w.store.beat().await.unwrap();
    assert_eq!(owned_by(&cluster, Some(w.epoch)), ShardSet::ALL, "it still owns what it has not given up");
    if w.store.is_shared() {
        let me = cluster.nodes.iter().find(|node| node.epoch == w.epoch).unwrap();
        assert!(!me.info.is_worker, "the others divide the shards among themselves");
    }
}

pub async fn a_shard_has_one_owner_at_a_time(w: World) {
    assert_eq!(w.store.claim_shards(ShardSet::ALL).await.unwrap(), ShardSet::EMPTY, "its own are not free");
    w.store.release_shards(ShardSet::EMPTY).await.unwrap();
    if !w.store.is_shared() {
        return;
    }
    let other = w.another().await;
    assert_eq!(other.store.claim_shards(ShardSet::ALL).await.unwrap(), ShardSet::EMPTY);
    let given: ShardSet = (0..100).map(Shard).collect();
    // Who does not own them cannot give them up.
    other.store.release_shards(given).await.unwrap();
    assert_eq!(owned_by(&w.store.beat().await.unwrap(), Some(w.epoch)), ShardSet::ALL);
    w.store.set_local(ShardSet::ALL.without(&given)).await.unwrap();
    w.store.release_shards(given).await.unwrap();
    assert_eq!(owned_by(&other.store.beat().await.unwrap(), None), given);
    let wanted: ShardSet = (50..150).map(Shard).collect();
    assert_eq!(other.store.claim_shards(wanted).await.unwrap(), wanted.intersection(&given));
    // Both at once: each shard goes to one of them.
    let (mine, theirs) = tokio::join!(w.store.claim_shards(given), other.store.claim_shards(given));
    let (mine, theirs) = (mine.unwrap(), theirs.unwrap());
    assert_eq!(mine.intersection(&theirs), ShardSet::EMPTY);
    assert_eq!(mine.union(&theirs), (0..50).map(Shard).collect());
    let cluster = w.store.beat().await.unwrap();
    assert_eq!(owned_by(&cluster, Some(w.epoch)), ShardSet::ALL.without(&given).union(&mine));
    assert_eq!(owned_by(&cluster, Some(other.epoch)), wanted.intersection(&given).union(&theirs));
}

pub async fn whoever_beats_is_not_declared_dead(w: World) {
    if !w.store.is_shared() {
        assert!(!w.store.declare_dead(w.epoch, 0).await.unwrap());
        w.store.beat().await.unwrap();
        return;
    }
    let other = w.another().await;
    let seen = counter_of(&other, w.epoch).await;
    w.store.beat().await.unwrap();
    assert!(!other.store.declare_dead(w.epoch, seen).await.unwrap(), "its counter goes up");
    let cluster = w.store.beat().await.unwrap();
    assert_eq!(owned_by(&cluster, Some(w.epoch)), ShardSet::ALL);
    bury(&other, w.epoch).await;
    assert!(!other.store.declare_dead(w.epoch, seen).await.unwrap(), "it is gone already");
    assert!(matches!(w.store.beat().await, Err(StoreError::Fenced)));
    let cluster = other.store.beat().await.unwrap();
    assert_eq!(cluster.nodes.iter().map(|node| node.epoch).collect::<Vec<_>>(), [other.epoch]);
    assert_eq!(owned_by(&cluster, None), ShardSet::ALL);
    assert!(w.store.claim_shards(ShardSet::ALL).await.unwrap_or(ShardSet::EMPTY).is_empty(), "who is no member owns nothing");
    assert_eq!(other.store.claim_shards(ShardSet::ALL).await.unwrap(), ShardSet::ALL);
}

pub async fn records_of_a_lost_membership_change_nothing(mut w: World) {
    let (app, endpoints) = spread(&w, 1).await;
    let endpoint = endpoints[0];
    let message = w.publish(app, &[endpoint]).await;
    if !w.store.is_shared() {
        w.record(&message, endpoint, 200, DeliveryNext::Delivered, true).await;
        assert!(w.told.fenced.lock().is_empty(), "its membership is never lost");
        return;
    }
    let other = w.another().await;
    bury(&other, w.epoch).await;
    let lost = w.epoch;
    // Once as it finds out, once after it has joined again.
    for times in 1..=2 {
        let attempt = w.attempt(message.id, endpoint, 200);
        let id = attempt.id;
        w.store.record_attempt(AttemptRecord {
            message: message.id,
            endpoint,
            app,
            attempt: Some(attempt),
            next: DeliveryNext::Delivered,
            is_first_try: true,
            epoch: lost,
        });
        w.wait_until("the record is refused", |told| told.fenced.lock().len() >= times).await;
        assert_eq!(w.told.fenced.lock()[..], vec![(message.id, endpoint); times]);
        assert!(w.told.recorded.lock().is_empty());
        assert_eq!(other.queued().await, [(message.id, endpoint)]);
        assert!(other.store.get_attempt(app, message.id, id).await.unwrap().is_none());
        let counts = other.store.count_deliveries(endpoint, None, None).await.unwrap();
        assert_eq!((counts.success, counts.pending), (0, 1));
        w.join().await;
        assert!(w.epoch > lost);
    }
    // Whose shard it is now records.
    assert!(other.take_all().await);
    let attempt = other.record(&message, endpoint, 200, DeliveryNext::Delivered, true).await;
    assert_eq!(other.queued().await, []);
    assert!(w.store.get_attempt(app, message.id, attempt.id).await.unwrap().is_some());
}

pub async fn what_a_node_accepts_after_its_death_is_handed_over(w: World) {
    let (app, endpoints) = spread(&w, 2).await;
    let before = w.publish(app, &endpoints).await;
    let both = |message: &Message| endpoints.iter().map(|endpoint| (message.id, *endpoint)).collect::<Vec<_>>();
    assert_eq!(w.told.local.lock()[..], both(&before));
    if !w.store.is_shared() {
        assert!(take(&w, ShardSet::ALL).await.first_tries.is_empty(), "there is nobody to hand over to");
        return;
    }
    let other = w.another().await;
    bury(&other, w.epoch).await;
    let after = w.publish(app, &endpoints).await;
    assert_eq!(w.told.local.lock()[..], both(&before), "what it accepts is not its to deliver any more");
    assert_eq!(other.store.claim_shards(ShardSet::ALL).await.unwrap(), ShardSet::ALL);
    let adopted = adopt(&other, ShardSet::ALL, i64::MAX).await;
    assert_eq!(adopted, [both(&before), both(&after)].concat());
    other.store.set_local(ShardSet::ALL).await.unwrap();
    assert_eq!(firsts(&take(&other, ShardSet::ALL).await), [], "what was adopted is not handed over too");
    let late = w.publish(app, &endpoints).await;
    let mut handed = firsts(&take(&other, ShardSet::ALL).await);
    handed.sort_unstable();
    assert_eq!(handed, both(&late));
    assert_eq!(firsts(&take(&other, ShardSet::ALL).await), [], "each is handed out once");
}

/// Broken: what a node accepted for shards that the store had as somebody else's waits until they change hands again.
pub async fn what_a_node_accepted_of_forgotten_shards_is_left_to_their_owner(w: World) {
    let (app, endpoints) = spread(&w, 2).await;
    let known = w.publish(app, &endpoints).await;
    w.pass(Duration::from_secs(60));
    let since = w.now();
    let unknown = w.publish(app, &endpoints).await;
    let shards = shards_of(&endpoints[..1]);
    if !w.store.is_shared() {
        w.store.join(World::node(), Some(Forgotten { shards, since })).await.unwrap();
        assert_eq!(firsts(&take(&w, ShardSet::ALL).await), [], "its shards are never forgotten");
        return;
    }
    let other = w.another().await;
    bury(&other, w.epoch).await;
    assert_eq!(other.store.claim_shards(ShardSet::ALL).await.unwrap(), ShardSet::ALL);
    assert_eq!(adopt(&other, ShardSet::ALL, i64::MAX).await.len(), 4);
    w.store.join(World::node(), Some(Forgotten { shards, since })).await.unwrap();
    assert_eq!(
        firsts(&take(&other, ShardSet::ALL).await),
        [(unknown.id, endpoints[0])],
        "not {}, which was long known",
        known.id
    );
    w.store.join(World::node(), None).await.unwrap();
    assert_eq!(firsts(&take(&other, ShardSet::ALL).await), [], "once");
}

pub async fn what_a_node_was_told_of_need_not_be_read(w: World) {
    let (app, endpoints) = spread(&w, 2).await;
    let endpoint = endpoints[0];
    if !w.store.is_shared() {
        let handed = w.store.take_handed_over(ShardSet::ALL, Known { message: &|_| None, is_told: true }).await.unwrap();
        assert!(!handed.left && handed.first_tries.is_empty(), "there is nobody to tell");
        return;
    }
    w.store.set_local(ShardSet::EMPTY).await.unwrap();
    let message = w.publish(app, &[endpoint]).await;
    let nothing = Known { message: &|_| None, is_told: true };
    let handed = w.store.take_handed_over(ShardSet::ALL, nothing).await.unwrap();
    assert!(handed.left && handed.first_tries.is_empty(), "word of it may be on the way");
    let handed = w.store.take_handed_over(ShardSet::ALL, nothing).await.unwrap();
    assert_eq!((firsts(&handed), handed.told, handed.left), (vec![(message.id, endpoint)], 0, false), "once");
    // With word of it, it is taken as it was told; for another endpoint than that, it is read.
    let message = w.publish(app, &endpoints).await;
    let new = NewMessage { message: message.clone(), endpoints: vec![endpoint], idempotency: None, app_version: None };
    let new = Arc::new(new);
    let heard = |key| (key == message.id.key()).then(|| new.clone());
    let handed = w.store.take_handed_over(ShardSet::ALL, Known { message: &heard, is_told: true }).await.unwrap();
    assert_eq!((handed.told, handed.first_tries.len(), handed.left), (1, 2, false));
    let is_told = |given: &Option<Arc<NewMessage>>| given.as_ref().is_some_and(|given| Arc::ptr_eq(given, &new));
    assert!(handed.first_tries.iter().all(|(due, given)| is_told(given) == (due.endpoint == endpoint)));
    assert!(handed.first_tries.iter().all(|(due, _)| (due.message, due.app) == (message.id, app)));
    assert_eq!(firsts(&take(&w, ShardSet::ALL).await), []);
}

pub async fn what_a_peer_gives_its_word_for_is_handed_out_once(w: World) {
    let (app, endpoints) = spread(&w, 2).await;
    let [here, there] = endpoints[..] else { unreachable!() };
    if !w.store.is_shared() {
        let message = w.publish(app, &[here]).await;
        assert!(!w.store.take_by_word(message.id, here), "there is nobody to give it");
        return;
    }
    w.store.set_local(ShardSet::EMPTY).await.unwrap();
    // Word first: of a row, what was not spoken of is still handed out.
    let message = w.publish(app, &endpoints).await;
    assert!(w.store.take_by_word(message.id, here));
    assert!(!w.store.take_by_word(message.id, here), "twice");
    assert_eq!(firsts(&take(&w, ShardSet::ALL).await), [(message.id, there)]);
    assert!(!w.store.take_by_word(message.id, here), "its row is gone, and it is remembered");
    // The row first.
    let message = w.publish(app, &[here]).await;
    assert_eq!(firsts(&take(&w, ShardSet::ALL).await), [(message.id, here)]);
    assert!(!w.store.take_by_word(message.id, here), "word that comes late");
    // What is handed out is not delivered: who gains the shard finds it, whoever was told of it.
    let message = w.publish(app, &[here]).await;
    assert!(w.store.take_by_word(message.id, here));
    let adopted = adopt(&w, shards_of(&[here]), i64::MAX).await;
    assert!(adopted.contains(&(message.id, here)), "{adopted:?}");
    assert_eq!(firsts(&take(&w, ShardSet::ALL).await), []);
    // A message of which nobody speaks is left once, and what is in its row besides with it, until then.
    let (known, unknown) = (w.publish(app, &[here]).await, w.publish(app, &[here]).await);
    assert!(w.store.take_by_word(known.id, here));
    let nothing = Known { message: &|_| None, is_told: true };
    let handed = w.store.take_handed_over(ShardSet::ALL, nothing).await.unwrap();
    assert!(handed.left && handed.first_tries.is_empty(), "{handed:?}");
    let handed = w.store.take_handed_over(ShardSet::ALL, nothing).await.unwrap();
    assert_eq!((firsts(&handed), handed.left), (vec![(unknown.id, here)], false));
    // Another membership begins with nothing.
    let message = w.publish(app, &[here]).await;
    assert!(w.store.take_by_word(message.id, here));
    w.store.join(World::node(), None).await.unwrap();
    assert_eq!(firsts(&take(&w, ShardSet::ALL).await), [(message.id, here)]);
}

pub async fn commits_tell_of_local_shards_alone(w: World) {
    let (app, endpoints) = spread(&w, 2).await;
    let mine = shards_of(&endpoints[..1]);
    if !w.store.is_shared() {
        assert!(matches!(w.store.set_local(mine).await, Err(StoreError::Busy(_))), "it cannot be divided");
        w.store.set_local(ShardSet::ALL).await.unwrap();
        let message = w.publish(app, &endpoints).await;
        assert_eq!(w.told.local.lock()[..], [(message.id, endpoints[0]), (message.id, endpoints[1])]);
        return;
    }
    w.store.set_local(mine).await.unwrap();
    let message = w.publish(app, &endpoints).await;
    assert_eq!(w.told.local.lock()[..], [(message.id, endpoints[0])]);
    // Whose shard it is fetches it: here the same node, which has not made it local yet.
    assert_eq!(firsts(&take(&w, mine).await), []);
    assert_eq!(firsts(&take(&w, ShardSet::ALL).await), [(message.id, endpoints[1])]);
    w.store.set_local(ShardSet::EMPTY).await.unwrap();
    let message = w.publish(app, &endpoints).await;
    assert_eq!(w.told.local.lock().len(), 1);
    assert_eq!(firsts(&take(&w, ShardSet::ALL).await).len(), 2);
    assert_eq!(w.queued().await.iter().filter(|(id, _)| *id == message.id).count(), 2, "handing over is not delivering");
    // Messages that are to wait become retries, of whichever shard.
    let later = Message { deliver_at: Some(w.now().plus(DAY)), ..w.message(app) };
    w.accept(later.clone(), &endpoints).await.unwrap();
    let handed = take(&w, ShardSet::ALL).await;
    assert_eq!((handed.first_tries.len(), handed.retries.len()), (0, 2));
    assert!(handed.retries.iter().all(|due| due.message == later.id && Some(due.due_at) == later.deliver_at));
}

pub async fn what_is_made_due_again_reaches_its_owner(w: World) {
    let (app, endpoints) = spread(&w, 1).await;
    let endpoint = w.store.find_endpoint(app, &endpoints[0].to_string()).await.unwrap().unwrap();
    let task = Task {
        id: w.id(),
        org: w.org,
        kind: TaskKind::EndpointRecover,
        status: TaskStatus::Running,
        app,
        endpoint: endpoint.id,
        since: w.now(),
        until: w.now().plus(DAY),
        position: None,
        messages_sent: 0,
        created_at: w.now(),
        updated_at: w.now(),
    };
    let homes: &[bool] = if w.store.is_shared() { &[true, false] } else { &[true] };
    for is_local in homes {
        w.store.set_local(if *is_local { ShardSet::ALL } else { ShardSet::EMPTY }).await.unwrap();
        let resent = w.publish(app, &[endpoint.id]).await;
        w.record(&resent, endpoint.id, 200, DeliveryNext::Delivered, true).await;
        take(&w, ShardSet::ALL).await;
        let missed = w.publish(app, &[]).await;
        w.told.requeued.lock().clear();
        let manual = fresh(w.store.requeue(app, resent.id, endpoint.id, w.now(), None).await.unwrap());
        let task = fresh(w.store.create_task(Task { id: w.id(), ..task.clone() }, None).await.unwrap());
        let recovered = w.store.recover_step(&task, &endpoint, w.now(), 100).await;
        let handed = take(&w, ShardSet::ALL).await;
        assert!(handed.first_tries.is_empty());
        if *is_local {
            let recovered = recovered.unwrap().1;
            assert_eq!(recovered.iter().map(|due| due.message).collect::<Vec<_>>(), [missed.id]);
            assert_eq!(w.told.requeued.lock()[..], [vec![manual], recovered].concat()[..]);
            assert_eq!(handed.retries, []);
        } else {
            assert!(matches!(recovered, Err(StoreError::Fenced)), "its owner works on it");
            assert_eq!(w.told.requeued.lock()[..], []);
            assert_eq!(handed.retries, [manual]);
            let kept = w.store.get_task(w.org, task.id).await.unwrap().unwrap();
            assert_eq!((kept.status, kept.position), (TaskStatus::Running, None));
        }
    }
}

pub async fn while_shards_move_every_delivery_is_handed_out_once(w: World) {
    const MESSAGES: usize = 40;
    let (app, endpoints) = spread(&w, 16).await;
    let publish = async |by: &World| {
        let mut ids = Vec::new();
        for _ in 0..MESSAGES {
            ids.push(by.publish(app, &endpoints).await.id);
        }
        ids
    };
    let compare = |who: &str, endpoints: &[EndpointId], messages: &[MessageId], mut seen: Vec<Delivery>| {
        let mut expected: Vec<Delivery> = messages.iter().flat_map(|id| endpoints.iter().map(move |e| (*id, *e))).collect();
        expected.sort_unstable();
        seen.sort_unstable();
        let missing = expected.iter().filter(|delivery| seen.binary_search(delivery).is_err()).count();
        let twice = seen.windows(2).filter(|pair| pair[0] == pair[1]).count();
        assert_eq!((missing, twice, seen.len()), (0, 0, expected.len()), "{who}: missing, handed out twice, all");
    };
    if !w.store.is_shared() {
        let mut messages = publish(&w).await;
        let last = w.store.last_key().await.unwrap();
        w.told.local.lock().clear();
        let (later, adopted) = tokio::join!(publish(&w), adopt(&w, ShardSet::ALL, last));
        messages.extend(later);
        let seen = [adopted, w.told.local.lock().clone()].concat();
        compare("the only node", &endpoints, &messages, seen);
        return;
    }
    let other = w.another().await;
    let (kept, given) = endpoints.split_at(8);
    let (staying, moving) = (ShardSet::ALL.without(&shards_of(given)), shards_of(given));
    let mut messages = publish(&w).await;
    let mover = async {
        w.store.set_local(staying).await.unwrap();
        w.store.release_shards(moving).await.unwrap();
        assert_eq!(other.store.claim_shards(moving).await.unwrap(), moving);
        let mut seen = adopt(&other, moving, i64::MAX).await;
        other.store.set_local(moving).await.unwrap();
        seen.extend(firsts(&take(&other, moving).await));
        seen
    };
    // Both accept for all endpoints all the while.
    let (by_one, by_other, mut theirs) = tokio::join!(publish(&w), publish(&other), mover);
    messages.extend(by_one);
    messages.extend(by_other);
    theirs.extend(firsts(&take(&other, moving).await));
    theirs.extend(other.told.local.lock().iter());
    compare("who got shards", given, &messages, theirs);
    let mut ours = firsts(&take(&w, staying).await);
    // What it was told of shards before it gave them up went with them.
    ours.extend(w.told.local.lock().iter().filter(|(_, endpoint)| staying.has(*endpoint)));
    compare("who gave shards up", kept, &messages, ours);
    let at_all = take(&w, ShardSet::ALL).await;
    assert!(at_all.first_tries.is_empty() && at_all.retries.is_empty(), "nothing is left over");
}

pub async fn writes_are_named_to_other_nodes(w: World) {
    let app = w.new_application().await;
    if !w.store.is_shared() {
        assert_eq!(w.store.changes().await.unwrap(), Changes::Some(Vec::new()), "nobody else writes");
        assert_eq!(w.store.application_version(app.id).await.unwrap(), Some(0));
        return;
    }
    let other = w.another().await;
    assert_eq!(other.store.changes().await.unwrap(), Changes::All, "nothing is known at first");
    assert_eq!(other.store.application_version(w.id()).await.unwrap(), None);
    let mut known = other.store.application_version(app.id).await.unwrap().unwrap();
    let mut hears = async |what: &str| {
        match other.store.changes().await.unwrap() {
            Changes::All => panic!("{what}: one change can be named"),
            Changes::Some(apps) => assert!(apps.contains(&app.id), "{what} is told to others"),
        }
        let version = other.store.application_version(app.id).await.unwrap();
        assert!(version.is_none_or(|version| version > known), "{what} raises the version");
        known = version.unwrap_or(known);
        version
    };
    let endpoint = w.new_endpoint(app.id).await;
    hears("a new endpoint").await;
    let changed = Endpoint { description: "x".to_owned(), ..endpoint.clone() };
    w.store.change_endpoint(&endpoint, changed, None).await.unwrap();
    hears("an endpoint's change").await;
    let failing = EndpointHealth { failing_since: Some(w.now()) };
    assert!(w.store.set_endpoint_health(endpoint.id, failing, true, w.now()).await.unwrap());
    hears("an endpoint's disabling").await;
    assert!(w.store.delete_endpoint(app.id, endpoint.id, w.now()).await.unwrap());
    hears("an endpoint's deletion").await;
    let renamed = w.store.change_application(&app, Application { name: "renamed".to_owned(), ..app.clone() }).await.unwrap();
    assert!(hears("an application's change").await.is_some());
    assert!(w.store.delete_application(w.org, renamed.id, w.now()).await.unwrap());
    assert_eq!(hears("an application's deletion").await, None);
    // What several write meanwhile is all named, whatever order it commits in.
    let apps = [w.new_application().await.id, w.new_application().await.id, w.new_application().await.id];
    other.store.changes().await.unwrap();
    let (one, two, three) = tokio::join!(
        w.store.create_endpoint(w.endpoint(apps[0]), None),
        other.store.create_endpoint(other.endpoint(apps[1]), None),
        w.store.create_endpoint(w.endpoint(apps[2]), None)
    );
    drop((one.unwrap(), two.unwrap(), three.unwrap()));
    let Changes::Some(named) = other.store.changes().await.unwrap() else { panic!("three changes can be named") };
    assert!(apps.iter().all(|app| named.contains(app)), "{named:?}");
}

pub async fn messages_for_endpoints_chosen_too_early_are_not_accepted(w: World) {
    let app = w.new_application().await.id;
    let chosen = w.store.application_version(app).await.unwrap();
    let new = |message: &Message, endpoints: Vec<EndpointId>, app_version| {
        let idempotency = Some(w.key(7, 7));
        Arc::new(NewMessage { message: message.clone(), endpoints, idempotency, app_version })
    };
    let event = Message { event_id: Some("event".to_owned()), ..w.message(app) };
    let endpoint = w.new_endpoint(app).await.id;
    if !w.store.is_shared() {
        // Its only process knows of every write, and has chosen again.
        assert_eq!(w.store.accept(new(&event, vec![endpoint], chosen)).await.unwrap(), Accepted::Fresh);
        return;
    }
    assert_eq!(w.store.accept(new(&event, vec![], chosen)).await.unwrap(), Accepted::Outdated);
    assert!(w.store.load_message(event.id).await.unwrap().is_none());
    assert!(w.told.accepted.lock().is_empty() && w.queued().await.is_empty());
    // Neither its event id nor its key is taken.
    let now = w.store.application_version(app).await.unwrap();
    assert_eq!(w.store.accept(new(&event, vec![endpoint], now)).await.unwrap(), Accepted::Fresh);
    assert_eq!(w.queued().await, [(event.id, endpoint)]);
    // Who repeats it gets its answer.
    let again = w.message(app);
    assert_eq!(w.store.accept(new(&again, vec![endpoint], now)).await.unwrap(), Accepted::Replayed(event.id));
    // Of an application that is gone nothing is current.
    assert!(w.store.delete_application(w.org, app, w.now()).await.unwrap());
    let late = w.message(app);
    let unkeyed = NewMessage { message: late.clone(), endpoints: vec![endpoint], idempotency: None, app_version: now };
    assert_eq!(w.store.accept(Arc::new(unkeyed)).await.unwrap(), Accepted::Outdated);
    assert!(w.store.load_message(late.id).await.unwrap().is_none());
}
