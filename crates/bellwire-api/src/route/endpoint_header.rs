//! Extra headers of an endpoint. Values that name a credential are written, never read.

use std::collections::BTreeMap;

use bellwire_core::{HeaderSet, Secret, header};
use http::StatusCode;

use super::BODY_MAX;
use super::endpoint::change;
use crate::answer::{self, Answer};
use crate::body;
use crate::call::Call;
use crate::error::ApiError;
use crate::openapi::operation::{OPERATION, Operation, of};
use crate::wire::endpoint_part::{EndpointHeadersIn, EndpointHeadersOut, EndpointHeadersPatchIn};

const BASE: Operation = Operation { tag: "Endpoint", answers: &[(204, None)], ..OPERATION };

pub const GET: Operation = Operation {
    id: "v1.endpoint.get-headers",
    summary: "Get an endpoint's extra headers; of those that hold credentials the names only",
    answers: &[(200, of::<EndpointHeadersOut>())],
    ..BASE
};

pub async fn get(call: Call) -> Answer {
    let app = call.application().await?;
    let endpoint = call.endpoint(app.id).await?;
    let (mut headers, mut sensitive) = (BTreeMap::new(), Vec::new());
    for (name, value) in endpoint.headers.0 {
        if header::is_sensitive(&name) {
            sensitive.push(name);
        } else {
            headers.insert(name, value.expose().to_owned());
        }
    }
    answer::json(StatusCode::OK, &EndpointHeadersOut { headers, sensitive })
}

pub const SET: Operation = Operation {
    id: "v1.endpoint.set-headers",
    summary: "Replace all extra headers of an endpoint",
    body: of::<EndpointHeadersIn>(),
    ..BASE
};

pub async fn set(call: Call) -> Answer {
    let body = call.body(BODY_MAX).await?;
    let input: EndpointHeadersIn = body::parse(&body)?;
    let headers = input.headers.into_set();
    let app = call.application().await?;
    let _turn = call.turn(app.id).await?;
    change(&call, &app, |endpoint| {
        endpoint.headers.clone_from(&headers);
        Ok(())
    })
    .await?;
    answer::no_content()
}

pub const PATCH: Operation = Operation {
    id: "v1.endpoint.patch-headers",
    summary: "Set some extra headers, remove those that are null or in `deleteHeaders`; others stay",
    body: of::<EndpointHeadersPatchIn>(),
    ..BASE
};

pub async fn patch(call: Call) -> Answer {
    let body = call.body(BODY_MAX).await?;
    let input: EndpointHeadersPatchIn = body::parse(&body)?;
    let app = call.application().await?;
    let _turn = call.turn(app.id).await?;
    change(&call, &app, |endpoint| {
        let HeaderSet(kept) = &mut endpoint.headers;
        for name in input.delete_headers.iter().chain(input.headers.keys()) {
            kept.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        }
        let set = input.headers.iter().filter_map(|(name, value)| Some((name.clone(), Secret::new(value.clone()?))));
        kept.extend(set);
        let checked = header::check_all(kept.iter().map(|(name, value)| (name.as_str(), value.expose())));
        checked.map_err(|error| ApiError::field("headers", error.to_string()))
    })
    .await?;
    answer::no_content()
}
