//! What sources have beyond the Svix API: settings, the log with duplicates, what handshakes left, and the list of providers.

use bellwire_core::{Direction, DuplicateKey, SourceSettings, Timestamp, limits};
use bellwire_verify::handshake::Flow;
use http::{HeaderName, StatusCode};
use serde_json::Value;

use super::source::{find, write};
use super::{BODY_MAX, page};
use crate::answer::{self, Answer};
use crate::body;
use crate::call::Call;
use crate::error::ApiError;
use crate::iterator::ListOut;
use crate::openapi::operation::{OPERATION, Operation, Param, list_of, of};
use crate::receive;
use crate::wire::source::{HandshakeOut, ProviderOut, ReceiptOut, SettingsBody};
use crate::wire::text::DateTime;

const BASE: Operation = Operation { tag: "Source", answers: &[(200, of::<SettingsBody>())], ..OPERATION };

pub const GET: Operation = Operation { id: "v1.source.get-settings", summary: "Get a source's settings", ..BASE };

pub async fn get(call: Call) -> Answer {
    let source = find(&call).await?;
    answer::json(StatusCode::OK, &SettingsBody(source.settings))
}

pub const SET: Operation = Operation {
    id: "v1.source.set-settings",
    summary: "Replace all settings of a source; what is absent is off",
    body: of::<SettingsBody>(),
    ..BASE
};

pub async fn set(call: Call) -> Answer {
    find(&call).await?;
    let body = call.body(BODY_MAX).await?;
    let settings: SourceSettings = body::parse(&body)?;
    check_settings(&settings, &["body"])?;
    let source = write(&call, |source| {
        source.settings.clone_from(&settings);
        Ok(())
    })
    .await?;
    answer::json(StatusCode::OK, &SettingsBody(source.settings))
}

pub const PATCH: Operation = Operation {
    id: "v1.source.patch-settings",
    summary: "Change some settings of a source; what is absent stays, null switches off",
    body: of::<SettingsBody>(),
    ..BASE
};

pub async fn patch(call: Call) -> Answer {
    let body = call.body(BODY_MAX).await?;
    let patch: serde_json::Map<String, Value> = body::parse(&body)?;
    let source = write(&call, |source| {
        let now = serde_json::to_value(&source.settings).map_err(|error| ApiError::internal(error.to_string()))?;
        let Value::Object(mut fields) = now else { return Err(ApiError::internal("settings are no object")) };
        for (name, value) in &patch {
            match value {
                Value::Null => drop(fields.remove(name)),
                value => drop(fields.insert(name.clone(), value.clone())),
            }
        }
        let bytes = serde_json::to_vec(&fields).map_err(|error| ApiError::internal(error.to_string()))?;
        let settings: SourceSettings = body::parse(&bytes)?;
        check_settings(&settings, &["body"])?;
        source.settings = settings;
        Ok(())
    })
    .await?;
    answer::json(StatusCode::OK, &SettingsBody(source.settings))
}

/// The beginning of a text that may be long.
fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

/// Everything that would show only when an event comes.
pub fn check_settings(settings: &SourceSettings, at: &[&str]) -> Result<(), ApiError> {
    let wrong = |name: &str, text: String| {
        let loc: Vec<&str> = at.iter().copied().chain([name]).collect();
        Err(ApiError::invalid(&loc, text, "value_error"))
    };
    if let Some(max) = settings.body_bytes_max
        && !(1..=limits::RECEIVED_BODY_BYTES_MAX).contains(&max)
    {
        return wrong("bodyBytesMax", format!("{max} is not between 1 and {}", limits::RECEIVED_BODY_BYTES_MAX));
    }
    let lists = [
        ("allowedNetworks", &settings.allowed_networks),
        ("clientCertificateSubjects", &settings.client_certificate_subjects),
        ("duplicates", &settings.duplicates.parts),
    ];
    for (name, list) in lists {
        if list.len() > limits::SOURCE_LIST_ENTRIES_MAX || list.iter().any(|text| text.len() > limits::NAME_CHARS_MAX) {
            let text =
                format!("at most {} entries of {} bytes are allowed", limits::SOURCE_LIST_ENTRIES_MAX, limits::NAME_CHARS_MAX);
            return wrong(name, text);
        }
    }
    if let Some(bad) = settings.allowed_networks.iter().find(|text| receive::parse_network(text).is_none()) {
        return wrong("allowedNetworks", format!("{bad:?} is neither a network such as 192.0.2.0/24 nor an address"));
    }
    if settings.rate_limit == Some(0) {
        return wrong("rateLimit", "0 would let nothing through; null is no limit".to_owned());
    }
    if let Some(user) = &settings.basic_user
        && (user.is_empty() || user.contains(':') || user.len() > limits::UID_CHARS_MAX)
    {
        return wrong("basicUser", format!("{:?} cannot be a user: 1 to {} bytes, no colon", shown(user), limits::UID_CHARS_MAX));
    }
    if let Some(name) = &settings.token_header
        && HeaderName::from_bytes(name.as_bytes()).is_err()
    {
        return wrong("tokenHeader", format!("{:?} is no header name", shown(name)));
    }
    if let Some(answer) = &settings.answer {
        let bytes: usize = answer.headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() + answer.body.len();
        if bytes > limits::SOURCE_ANSWER_BYTES_MAX {
            return wrong("answer", format!("it has {bytes} bytes; at most {} are allowed", limits::SOURCE_ANSWER_BYTES_MAX));
        }
        if let Err(text) = receive::check_answer(answer) {
            return wrong("answer", text.chars().take(256).collect());
        }
    }
    let window = settings.duplicates.window_seconds;
    if !(1..=limits::DUPLICATE_WINDOW_SECONDS_MAX).contains(&window) {
        let text = format!("windowSeconds {window} is not between 1 and {}", limits::DUPLICATE_WINDOW_SECONDS_MAX);
        return wrong("duplicates", text);
    }
    if settings.duplicates.by == DuplicateKey::Parts && settings.duplicates.parts.is_empty() {
        return wrong("duplicates", "by is parts, but parts is empty: name at least one place".to_owned());
    }
    let places = [
        ("orderingKey", &settings.ordering_key),
        ("eventType", &settings.event_type),
        ("occurredAt", &settings.occurred_at),
        ("sequence", &settings.sequence),
    ];
    let named = places.into_iter().filter_map(|(name, place)| Some((name, place.as_ref()?)));
    let of_parts = settings.duplicates.parts.iter().map(|part| ("duplicates", part));
    for (name, place) in named.chain(of_parts) {
        if !receive::is_place(place) {
            return wrong(
                name,
                format!("{:?} is no place; write a JSON Pointer (/data/id), header:NAME or query:NAME", shown(place)),
            );
        }
    }
    if let Some(name) = &settings.handshake
        && Flow::named(name).is_none()
    {
        let known: Vec<&str> = Flow::all().iter().map(Flow::id).collect();
        return wrong("handshake", format!("there is no handshake {:?}; there are {}", shown(name), known.join(", ")));
    }
    if let Some(schema) = &settings.schema {
        let bytes = schema.to_string().len();
        if bytes > limits::SOURCE_SCHEMA_BYTES_MAX {
            return wrong("schema", format!("it has {bytes} bytes; at most {} are allowed", limits::SOURCE_SCHEMA_BYTES_MAX));
        }
        if let Err(error) = receive::compile_schema(schema) {
            return wrong("schema", format!("it cannot be used: {error}"));
        }
    }
    Ok(())
}

pub const LOG: Operation = Operation {
    id: "v1.source.log",
    summary: "List what came to a source and became no message of its own, with reasons, newest first",
    params: &[Param::Limit, Param::Iterator("log"), Param::Order],
    answers: &[(200, list_of::<ReceiptOut>())],
    ..BASE
};

pub async fn log(call: Call) -> Answer {
    let query = call.query()?.page(Direction::Descending)?;
    let source = find(&call).await?;
    let found = call.store().list_receipts(source.id, query).await?;
    page(found, ReceiptOut::from, |entry| entry.id.clone())
}

pub const HANDSHAKE: Operation = Operation {
    id: "v1.source.get-handshake",
    summary: "What a handshake has left: a secret that must be copied to the provider is shown here",
    answers: &[(200, of::<HandshakeOut>())],
    ..BASE
};

pub async fn handshake(call: Call) -> Answer {
    let source = find(&call).await?;
    let text = |name: &str| source.state.get(name).map(|secret| secret.expose().to_owned());
    let is_for_operator = text(receive::STATE_FOR_OPERATOR).as_deref() == Some("true");
    let lease = text(receive::STATE_LEASE).and_then(|text| text.parse().ok());
    let out = HandshakeOut {
        secret_name: text(receive::STATE_SECRET_NAME),
        secret: text(receive::STATE_SECRET).filter(|_| is_for_operator),
        lease_ends_at: lease.map(|seconds| DateTime(Timestamp::from_unix_seconds(seconds))),
    };
    answer::json(StatusCode::OK, &out)
}

pub const FORGET_HANDSHAKE: Operation = Operation {
    id: "v1.source.forget-handshake",
    summary: "Forget what a handshake has left, so that the provider can set up another secret",
    answers: &[(204, None)],
    ..BASE
};

pub async fn forget_handshake(call: Call) -> Answer {
    let source = find(&call).await?;
    let _turn = call.api().key_locks().lock(source.id).await?;
    let forgotten = source.state.keys().map(|name| (name.clone(), None)).collect();
    call.store().set_source_state(source.id, forgotten, None, call.now()).await?;
    call.api().receive().source_changed(source.token.expose());
    answer::no_content()
}

pub const PROVIDERS: Operation = Operation {
    id: "v1.provider.list",
    summary: "List the providers whose requests can be verified, in the order of their ids; all on one page",
    answers: &[(200, list_of::<ProviderOut>())],
    ..BASE
};

pub async fn providers(call: Call) -> Answer {
    let rows: Vec<ProviderOut> = call.api().receive().presets().map(|preset| ProviderOut::from(&**preset)).collect();
    answer::json(StatusCode::OK, &ListOut::new(rows, true, |row| row.id.clone()))
}

pub const PROVIDER: Operation = Operation {
    id: "v1.provider.get",
    summary: "What is known about a provider",
    answers: &[(200, of::<ProviderOut>())],
    ..BASE
};

pub async fn provider(call: Call) -> Answer {
    let id = call.param("provider_id")?;
    match call.api().receive().preset(id) {
        Some(preset) => answer::json(StatusCode::OK, &ProviderOut::from(&**preset)),
        None => Err(ApiError::not_found("provider", id)),
    }
}
