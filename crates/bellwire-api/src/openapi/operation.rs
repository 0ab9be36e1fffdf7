//! How an operation is described: what the document says about it beyond its method and path.

use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// One operation of the document.
pub struct Operation {
    pub id: &'static str,
    pub tag: &'static str,
    pub summary: &'static str,
    /// Beside those of the path, which are known from it.
    pub params: &'static [Param],
    pub body: Option<Shape>,
    /// Successes: status and body.
    pub answers: &'static [(u16, Option<Shape>)],
}

/// The base of the constants in `route/`.
pub const OPERATION: Operation = Operation { id: "", tag: "", summary: "", params: &[], body: None, answers: &[] };

/// A query parameter or header.
#[derive(Clone, Copy, Debug)]
pub enum Param {
    IdempotencyKey,
    Limit,
    /// Of lists by id, with the id's prefix.
    Iterator(&'static str),
    /// Of the list of event types.
    NameIterator,
    Order,
    Before,
    After,
    Since,
    Until,
    Channel,
    Tag,
    EventTypes,
    Status,
    StatusCodeClass,
    EndpointId,
    Flag {
        name: &'static str,
        default: bool,
        about: &'static str,
    },
    /// One of some texts.
    Choice {
        name: &'static str,
        of: &'static [&'static str],
        about: &'static str,
    },
}

/// A named schema, or a list of them.
#[derive(Clone, Copy)]
pub struct Shape {
    pub is_list: bool,
    pub name: fn() -> std::borrow::Cow<'static, str>,
    pub schema: fn() -> RefOr<Schema>,
    pub nested: fn(&mut Vec<(String, RefOr<Schema>)>),
}

/// The shape of a wire type.
pub const fn of<T: ToSchema>() -> Option<Shape> {
    Some(Shape { is_list: false, name: T::name, schema: <T as PartialSchema>::schema, nested: T::schemas })
}

/// A page of a wire type.
pub const fn list_of<T: ToSchema>() -> Option<Shape> {
    Some(Shape { is_list: true, name: T::name, schema: <T as PartialSchema>::schema, nested: T::schemas })
}

pub const WITH_CONTENT: Param = Param::Flag { name: "with_content", default: true, about: "Whether content comes along." };
pub const EXPANDED_STATUSES: Param = Param::Flag {
    name: "expanded_statuses",
    default: false,
    about: "Show canceled (4) as such; otherwise it is shown as success (0).",
};
