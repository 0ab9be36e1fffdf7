//! One try of one delivery: what was sent, what came back, and how it was judged.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::id::{AttemptId, EndpointId, MessageId};
use crate::time::Timestamp;

/// The status numbers of the Svix API (`MessageStatus`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum AttemptStatus {
    Success = 0,
    Pending = 1,
    Fail = 2,
    Sending = 3,
    Canceled = 4,
}

impl AttemptStatus {
    pub fn from_code(code: i64) -> Option<Self> {
        Some(match code {
            0 => Self::Success,
            1 => Self::Pending,
            2 => Self::Fail,
            3 => Self::Sending,
            4 => Self::Canceled,
            _ => return None,
        })
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Pending => "pending",
            Self::Fail => "fail",
            Self::Sending => "sending",
            Self::Canceled => "canceled",
        }
    }
}

/// What started an attempt: the schedule, or a person or program asking for it (`MessageAttemptTriggerType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Trigger {
    Scheduled = 0,
    Manual = 1,
}

/// A recorded attempt.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub id: AttemptId,
    pub message: MessageId,
    pub endpoint: EndpointId,
    pub status: AttemptStatus,
    pub trigger: Trigger,
    pub timestamp: Timestamp,
    pub duration: Duration,
    /// 0 when no HTTP answer came.
    pub response_status: u16,
    /// The kept part of the response body (see `limits::RESPONSE_BODY_KEPT_BYTES`), or the error text when no answer came.
    pub response: Bytes,
    /// Where it was sent.
    pub url: Arc<str>,
}

/// What one exchange with a receiver came to, before the retry policy judges it.
#[derive(Clone, Debug)]
pub struct AttemptOutcome {
    /// 0 when no HTTP answer came.
    pub response_status: u16,
    pub response: Bytes,
    /// What the receiver's `Retry-After` asked for.
    pub retry_after: Option<Duration>,
    pub duration: Duration,
}

impl AttemptOutcome {
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.response_status)
    }
}
