//! The API's own sign of life.

use crate::answer::{self, Answer};
use crate::call::Call;
use crate::openapi::operation::{OPERATION, Operation};

pub const GET: Operation =
    Operation { id: "v1.health.get", tag: "Health", summary: "Whether the API is up", answers: &[(204, None)], ..OPERATION };
pub const PING: Operation = Operation { id: "v1.health.ping", ..GET };

pub async fn get(_call: Call) -> Answer {
    answer::no_content()
}
