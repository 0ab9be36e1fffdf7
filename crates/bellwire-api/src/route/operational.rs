//! Operational webhooks: the handlers of endpoints, over the organisation's hidden application. Only their names differ.

use super::{endpoint, endpoint_header, endpoint_secret};
use crate::openapi::operation::{Operation, of};
use crate::wire::endpoint::EndpointOut;

const TAG: &str = "Webhook Endpoint";

pub const LIST: Operation = Operation {
    id: "v1.operational-webhook.endpoint.list",
    tag: TAG,
    summary: "List the endpoints that Bellwire's own events go to",
    ..endpoint::LIST
};
pub const CREATE: Operation = Operation { id: "v1.operational-webhook.endpoint.create", tag: TAG, ..endpoint::CREATE };
pub const GET: Operation = Operation { id: "v1.operational-webhook.endpoint.get", tag: TAG, ..endpoint::GET };
pub const UPSERT: Operation = Operation {
    id: "v1.operational-webhook.endpoint.upsert",
    tag: TAG,
    answers: &[(200, of::<EndpointOut>())],
    ..endpoint::UPSERT
};
pub const DELETE: Operation = Operation { id: "v1.operational-webhook.endpoint.delete", tag: TAG, ..endpoint::DELETE };
pub const GET_HEADERS: Operation =
    Operation { id: "v1.operational-webhook.endpoint.get-headers", tag: TAG, ..endpoint_header::GET };
pub const SET_HEADERS: Operation =
    Operation { id: "v1.operational-webhook.endpoint.set-headers", tag: TAG, ..endpoint_header::SET };
pub const GET_SECRET: Operation =
    Operation { id: "v1.operational-webhook.endpoint.get-secret", tag: TAG, ..endpoint_secret::GET };
pub const ROTATE_SECRET: Operation =
    Operation { id: "v1.operational-webhook.endpoint.rotate-secret", tag: TAG, ..endpoint_secret::ROTATE };
