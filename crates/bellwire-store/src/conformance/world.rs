//! What the cases are built from: ids, nouns, a clock that is set by hand, and a sink that can be waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU8, Ordering};
use std::time::{Duration, Instant};

use bellwire_core::{
    AppId, Application, ApplicationKind, Attempt, AttemptStatus, Direction, Endpoint, EndpointHealth, EndpointId, HeaderSet,
    IdGenerator, IdKind, Message, MessageId, Metadata, OrgId, Page, PageQuery, Secret, ShardSet, SigningSecret, Timestamp,
    Trigger,
};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Opener;
use crate::{
    Accepted, AttemptRecord, CommitSink, DeliveryNext, DueDelivery, Idempotency, IdempotencyRecord, NewMessage, NodeInfo, Result,
    Store, StoreError, Written,
};

/// No case waits longer for anything.
const DEADLINE: Duration = Duration::from_secs(20);
pub const HOUR: Duration = Duration::from_secs(3_600);
pub const DAY: Duration = Duration::from_secs(86_400);

/// What the sink was told.
#[derive(Default)]
pub struct Told {
    pub accepted: Mutex<Vec<MessageId>>,
    pub recorded: Mutex<Vec<(MessageId, EndpointId)>>,
    pub requeued: Mutex<Vec<DueDelivery>>,
    pub fenced: Mutex<Vec<(MessageId, EndpointId)>>,
    /// Of what was accepted, the deliveries in local shards.
    pub local: Mutex<Vec<(MessageId, EndpointId)>>,
    changed: Notify,
}

impl CommitSink for Told {
    fn accepted(&self, messages: &[Arc<NewMessage>], local: &ShardSet, _begun: Instant) {
        self.accepted.lock().extend(messages.iter().map(|new| new.message.id));
        let of = |new: &Arc<NewMessage>| -> Vec<_> {
            new.endpoints.iter().filter(|endpoint| local.has(**endpoint)).map(|endpoint| (new.message.id, *endpoint)).collect()
        };
        self.local.lock().extend(messages.iter().flat_map(of));
    }

    fn requeued(&self, deliveries: &[DueDelivery]) {
        self.requeued.lock().extend(deliveries.iter().cloned());
    }

    fn fenced(&self, attempts: &[AttemptRecord]) {
        self.fenced.lock().extend(attempts.iter().map(|record| (record.message, record.endpoint)));
        self.changed.notify_waiters();
    }

    fn recorded(&self, attempts: &[AttemptRecord]) {
        self.recorded.lock().extend(attempts.iter().map(|record| (record.message, record.endpoint)));
        self.changed.notify_waiters();
    }
}

/// One case's surroundings.
pub struct World {
    pub store: Arc<dyn Store>,
    pub told: Arc<Told>,
    /// Of this world's membership.
    pub epoch: i64,
    pub org: OrgId,
    opener: Option<Opener>,
    ids: IdGenerator,
    now: AtomicI64,
    random: AtomicU8,
}

impl World {
    /// Joins and takes over all shards, as every store wants it.
    pub async fn open(store: Arc<dyn Store>, opener: Opener) -> Self {
        let mut world = Self { opener: Some(opener), ..Self::new(store) };
        world.join().await;
        assert_eq!(world.take_all().await, world.store.is_shared(), "what is shared is nobody's at first");
        world
    }

    /// Becomes a member.
    pub async fn join(&mut self) {
        let membership = self.store.join(Self::node(), None).await.unwrap();
        self.epoch = membership.epoch;
        self.ids.set_slot(membership.slot);
    }

    /// What a world says of itself.
    pub fn node() -> NodeInfo {
        NodeInfo { name: "world".to_owned(), is_worker: true, version: "0".to_owned(), address: String::new() }
    }

    /// Claims all shards and makes them local. Whether all were free.
    pub async fn take_all(&self) -> bool {
        let claimed = self.store.claim_shards(ShardSet::ALL).await.unwrap();
        self.store.set_local(ShardSet::ALL).await.unwrap();
        claimed == ShardSet::ALL
    }

    /// Another node on the same store, a member without shards. Its applications are of the same organisation.
    pub async fn another(&self) -> Self {
        let opener = self.opener.as_ref().expect("the case was given a way to open the store again");
        let mut world = Self::new(opener().await);
        world.now = AtomicI64::new(self.now().as_millis());
        world.join().await;
        world
    }

    /// As the embedded store has it: member of itself from the start.
    pub fn new(store: Arc<dyn Store>) -> Self {
        let told = Arc::new(Told::default());
        store.set_sink(told.clone());
        let start = Timestamp(1_767_225_600_000);
        Self {
            store,
            told,
            epoch: 0,
            org: OrgId::from_bytes([9; 20]),
            opener: None,
            ids: IdGenerator::new(0),
            now: AtomicI64::new(start.as_millis()),
            random: AtomicU8::new(0),
        }
    }

    pub fn now(&self) -> Timestamp {
        Timestamp(self.now.load(Ordering::Relaxed))
    }

    pub fn pass(&self, time: Duration) {
        self.now.store(self.now().plus(time).as_millis(), Ordering::Relaxed);
    }

    pub fn id<I: IdKind>(&self) -> I {
        self.ids.generate(self.now(), [self.random.fetch_add(1, Ordering::Relaxed); 12])
    }

    pub fn application(&self, name: &str) -> Application {
        Application {
            id: self.id(),
            org: self.org,
            kind: ApplicationKind::Customer,
            uid: None,
            name: name.to_owned(),
            throttle_rate: None,
            metadata: Metadata::new(),
            created_at: self.now(),
            updated_at: self.now(),
        }
    }

    pub async fn new_application(&self) -> Application {
        fresh(self.store.create_application(self.application("customer"), None).await.unwrap())
    }

    pub fn endpoint(&self, app: AppId) -> Endpoint {
        Endpoint {
            id: self.id(),
            app,
            uid: None,
            url: "https://receiver.example/hook".to_owned(),
            description: String::new(),
            event_types: None,
            channels: None,
            throttle_rate: None,
            disabled: false,
            metadata: Metadata::new(),
            headers: HeaderSet::default(),
            secret: SigningSecret { current: Secret::new("whsec_bm90IGEgcmVhbCBrZXkgYXQgYWxs"), old: vec![] },
            health: EndpointHealth::default(),
            created_at: self.now(),
            updated_at: self.now(),
        }
    }

    pub async fn new_endpoint(&self, app: AppId) -> Endpoint {
        fresh(self.store.create_endpoint(self.endpoint(app), None).await.unwrap())
    }

    pub fn message(&self, app: AppId) -> Message {
        let id: MessageId = self.id();
        Message {
            id,
            app,
            event_type: "invoice.paid".to_owned(),
            event_id: None,
            payload: Some(Bytes::from_static(b"{\"amount\":1}")),
            content_type: "application/json".to_owned(),
            channels: vec![],
            tags: vec![],
            created_at: id.created(),
            deliver_at: None,
            payload_expires_at: id.created().plus(90 * DAY),
            origin: None,
        }
    }

    pub async fn accept(&self, message: Message, endpoints: &[EndpointId]) -> Result<Accepted> {
        self.store
            .accept(Arc::new(NewMessage { message, endpoints: endpoints.to_vec(), idempotency: None, app_version: None }))
            .await
    }

    /// A plain message, accepted for these endpoints.
    pub async fn publish(&self, app: AppId, endpoints: &[EndpointId]) -> Message {
        let message = self.message(app);
        assert_eq!(self.accept(message.clone(), endpoints).await.unwrap(), Accepted::Fresh);
        message
    }

    pub fn attempt(&self, message: MessageId, endpoint: EndpointId, response_status: u16) -> Attempt {
        let is_success = (200..300).contains(&response_status);
        Attempt {
            id: self.id(),
            message,
            endpoint,
            status: if is_success { AttemptStatus::Success } else { AttemptStatus::Fail },
            trigger: Trigger::Scheduled,
            timestamp: self.now(),
            duration: Duration::from_millis(12),
            response_status,
            response: Bytes::from_static(b"the response"),
            url: Arc::from("https://receiver.example/hook"),
        }
    }

    /// Records an attempt with this answer and waits until it is durable.
    pub async fn record(
        &self,
        message: &Message,
        endpoint: EndpointId,
        status: u16,
        next: DeliveryNext,
        is_first_try: bool,
    ) -> Attempt {
        let attempt = self.attempt(message.id, endpoint, status);
        self.record_as(message, endpoint, Some(attempt.clone()), next, is_first_try).await;
        attempt
    }

    pub async fn record_as(
        &self,
        message: &Message,
        endpoint: EndpointId,
        attempt: Option<Attempt>,
        next: DeliveryNext,
        is_first_try: bool,
    ) {
        let before = self.told.recorded.lock().len();
        self.store.record_attempt(AttemptRecord {
            message: message.id,
            endpoint,
            app: message.app,
            attempt,
            next,
            is_first_try,
            epoch: self.epoch,
        });
        self.wait_for_records(before + 1).await;
    }

    /// Until this many attempts are durable in all.
    pub async fn wait_for_records(&self, count: usize) {
        self.wait_until("attempts are recorded", |told| told.recorded.lock().len() >= count).await;
    }

    /// Until the sink was told of what makes `is_so` true.
    pub async fn wait_until(&self, what: &str, is_so: impl Fn(&Told) -> bool) {
        let wait = async {
            loop {
                let changed = self.told.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if is_so(&self.told) {
                    return;
                }
                changed.await;
            }
        };
        assert!(tokio::time::timeout(DEADLINE, wait).await.is_ok(), "not within the deadline: {what}");
    }

    pub fn key(&self, key: u8, request: u8) -> Idempotency {
        Idempotency { key: [key; 16], request: [request; 16], expires_at: self.now().plus(DAY), window: DAY }
    }

    pub fn keyed(&self, key: u8, request: u8) -> IdempotencyRecord {
        IdempotencyRecord {
            org: self.org,
            idempotency: self.key(key, request),
            status: 201,
            response: Bytes::from_static(b"{\"the\":\"answer\"}"),
        }
    }

    /// Deliveries whose first try is outstanding.
    pub async fn queued(&self) -> Vec<(MessageId, EndpointId)> {
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let (due, next) = self.store.load_first_tries(None, after, 100).await.unwrap();
            found.extend(due.iter().map(|due| (due.message, due.endpoint)));
            match next {
                Some(next) => after = Some(next),
                None => return found,
            }
        }
    }
}

/// Changes that [`contend`] makes to one thing.
pub const CHANGES: usize = 16;

/// Four at a time, two of them on another node where there can be one, read, change and write one thing, each change again until the
/// store takes it. `change` is given the store to do it on, and the change's number.
pub async fn contend<Fut: Future<Output = Result<()>>>(w: &World, change: impl Fn(Arc<dyn Store>, usize) -> Fut) {
    let other = if w.store.is_shared() { w.another().await.store } else { w.store.clone() };
    let change_in_turn = async |store: &Arc<dyn Store>, first: usize| {
        for number in (first..CHANGES).step_by(4) {
            while let Err(error) = change(store.clone(), number).await {
                assert!(matches!(error, StoreError::Outdated(_)), "{error}");
            }
        }
    };
    let four = async {
        tokio::join!(
            change_in_turn(&w.store, 0),
            change_in_turn(&other, 1),
            change_in_turn(&w.store, 2),
            change_in_turn(&other, 3)
        )
    };
    assert!(tokio::time::timeout(DEADLINE, four).await.is_ok(), "not within the deadline");
}

pub fn fresh<T: std::fmt::Debug>(written: Written<T>) -> T {
    match written {
        Written::Fresh(value) => value,
        Written::Replayed { .. } => panic!("expected a fresh write, got {written:?}"),
    }
}

pub fn is_replayed<T>(written: &Written<T>) -> bool {
    matches!(written, Written::Replayed { status: 201, response } if response == "{\"the\":\"answer\"}")
}

pub fn page<C>(limit: usize) -> PageQuery<C> {
    PageQuery { limit, order: Direction::Ascending, after: None, backwards: false }
}

pub fn newest_first<C>(limit: usize) -> PageQuery<C> {
    PageQuery { limit, order: Direction::Descending, after: None, backwards: false }
}

/// Walks a list of `expected` (ascending) in every way there is, `limit` rows at a time, and compares.
pub async fn walk<C, T, F, Fut>(expected: &[C], cursor_of: impl Fn(&T) -> C, mut list: F)
where
    C: Clone + PartialEq + std::fmt::Debug,
    F: FnMut(PageQuery<C>) -> Fut,
    Fut: Future<Output = Page<T>>,
{
    for order in [Direction::Ascending, Direction::Descending] {
        let mut wanted: Vec<C> = expected.to_vec();
        if order == Direction::Descending {
            wanted.reverse();
        }
        for limit in 1..=wanted.len() + 1 {
            let mut seen: Vec<C> = Vec::new();
            loop {
                let got = list(PageQuery { limit, order, after: seen.last().cloned(), backwards: false }).await;
                seen.extend(got.rows.iter().map(&cursor_of));
                assert_eq!(got.done, seen.len() == wanted.len(), "done after {} rows, limit {limit}, {order:?}", seen.len());
                if got.done {
                    break;
                }
                assert_eq!(got.rows.len(), limit, "a page that is not the last is full");
            }
            assert_eq!(seen, wanted, "forwards, limit {limit}, {order:?}");
            // Back again, from the last row: each page is listed in the asked order.
            let mut seen: Vec<C> = wanted.last().cloned().into_iter().collect();
            while let Some(first) = seen.first().cloned() {
                let got = list(PageQuery { limit, order, after: Some(first), backwards: true }).await;
                let is_done = got.done;
                seen.splice(0..0, got.rows.iter().map(&cursor_of));
                if is_done {
                    break;
                }
            }
            assert_eq!(seen, wanted, "backwards, limit {limit}, {order:?}");
        }
    }
}
