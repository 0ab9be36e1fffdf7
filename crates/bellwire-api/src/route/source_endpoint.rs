//! Endpoints under a source: those of its application, by the paths of the Svix API. The handlers are the endpoints' own.

use crate::openapi::operation::{Operation, Param, list_of, of};
use crate::route::{endpoint, endpoint_header, endpoint_secret};
use crate::wire::endpoint::EndpointOut;

pub const LIST: Operation = Operation {
    id: "v1.ingest.endpoint.list",
    summary: "List the endpoints of a source's application",
    answers: &[(200, list_of::<EndpointOut>())],
    params: &[Param::Limit, Param::Iterator("ep_"), Param::Order],
    ..endpoint::LIST
};
pub const CREATE: Operation = Operation { id: "v1.ingest.endpoint.create", ..endpoint::CREATE };
pub const GET: Operation = Operation { id: "v1.ingest.endpoint.get", ..endpoint::GET };
pub const UPSERT: Operation =
    Operation { id: "v1.ingest.endpoint.upsert", answers: &[(200, of::<EndpointOut>())], ..endpoint::UPSERT };
pub const DELETE: Operation = Operation { id: "v1.ingest.endpoint.delete", ..endpoint::DELETE };
pub const GET_SECRET: Operation = Operation { id: "v1.ingest.endpoint.get-secret", ..endpoint_secret::GET };
pub const ROTATE_SECRET: Operation = Operation { id: "v1.ingest.endpoint.rotate-secret", ..endpoint_secret::ROTATE };
pub const GET_HEADERS: Operation = Operation { id: "v1.ingest.endpoint.get-headers", ..endpoint_header::GET };
pub const SET_HEADERS: Operation = Operation { id: "v1.ingest.endpoint.set-headers", ..endpoint_header::SET };
