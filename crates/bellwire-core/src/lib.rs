//! Decisions without I/O: the nouns, their ids, who wants which message, when a failed delivery is tried again,
//! which addresses may be dialled. Nothing here reads a clock, a socket or a random source: those are arguments.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod attempt;
pub mod egress;
pub mod header;
pub mod id;
pub mod limits;
pub mod noun;
pub mod page;
pub mod retry;
pub mod shard;
pub mod source;
pub mod time;

pub use attempt::{Attempt, AttemptOutcome, AttemptStatus, Trigger};
pub use id::{
    ApiKeyId, AppId, AttemptId, EndpointId, ID_SLOTS, IdGenerator, IdKind, MessageId, OrgId, ParseIdError, ReceiptId, SourceId,
    TaskId, TokenId,
};
pub use noun::{
    Application, ApplicationKind, Endpoint, EndpointHealth, EventType, HeaderSet, Message, Metadata, Secret, SigningSecret,
};
pub use page::{Direction, Page, PageQuery};
pub use retry::{RetryPolicy, RetryVerdict};
pub use shard::{SHARDS, Shard, ShardSet};
pub use source::{DuplicateKey, DuplicateRule, Origin, Source, SourceAnswer, SourceSettings};
pub use time::{Clock, SystemClock, Timestamp};
