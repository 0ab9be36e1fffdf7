//! The only SQL of the house: what must survive, behind one small family of use-case traits.
//!
//! One trait a noun, one file a trait; `sqlite/` and `postgres/` mirror the files. One method is one transaction. Time and ids are arguments:
//! no SQL here calls `now()`. Both backends run the same `conformance/` suite.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod application;
pub mod attempt;
pub mod cipher;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod credential;
pub mod delivery;
pub mod endpoint;
pub mod error;
pub mod event_type;
pub mod idempotency;
mod keyset;
pub mod maintenance;
pub mod message;
mod pace;
pub mod postgres;
mod sealed;
pub mod shard;
pub mod source;
pub mod sqlite;
pub mod stored;
pub mod task;
pub mod transfer;

pub use application::{ApplicationFilter, ApplicationStore};
pub use attempt::{AttemptFilter, AttemptStore, AttemptedEndpoint, AttemptedMessage, EndpointCounts};
pub use cipher::Cipher;
pub use credential::{ApiKeyRecord, CredentialStore};
pub use delivery::{AttemptRecord, CommitSink, DeliveryNext, DeliveryStore, DueCursor, DueDelivery};
pub use endpoint::EndpointStore;
pub use error::StoreError;
pub use event_type::EventTypeStore;
pub use idempotency::{Idempotency, IdempotencyRecord, Written};
pub use maintenance::{MaintenanceStore, RetentionReport, StoreReport};
pub use message::{Accepted, MessageFilter, MessageStore, NewMessage};
pub use shard::{Changes, Cluster, Forgotten, HandedOver, Known, Membership, Node, NodeInfo, ShardStore};
pub use source::{Receipt, SourceStore, StateChange};
pub use task::{Task, TaskKind, TaskStatus, TaskStore};

/// Everything a backend does. `Arc<dyn Store>` is what the engine and the API hold.
pub trait Store:
    ApplicationStore
    + AttemptStore
    + CredentialStore
    + DeliveryStore
    + EndpointStore
    + EventTypeStore
    + MaintenanceStore
    + MessageStore
    + ShardStore
    + SourceStore
    + TaskStore
    + Send
    + Sync
    + 'static
{
}

pub type Result<T, E = StoreError> = std::result::Result<T, E>;
