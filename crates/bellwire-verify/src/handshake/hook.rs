//! Answers that are computed: signed challenges, WebSub's verification of intent, CloudEvents' permission to send.

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::challenge::{At, Found, Shape};
use super::{Answer, Handshake, HandshakeReason, Keep, Knowledge, Refused};
use crate::algorithm::{Algorithm, is_equal};
use crate::encoding::{from_hex, to_hex};
use crate::request::View;

type Outcome = Result<Handshake, Refused>;

/// Requests a minute that a CloudEvents sender is granted if the source says nothing else; the specification's own example.
const CLOUDEVENTS_RATE_DEFAULT: u64 = 100;

fn hmac(algorithm: Algorithm, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let parts: Vec<_> = parts.iter().map(|part| std::borrow::Cow::Borrowed(*part)).collect();
    algorithm.compute(key, &parts).unwrap_or_default()
}

fn hmac_hex(key: &str, text: &str) -> String {
    to_hex(&hmac(Algorithm::HmacSha256, key.as_bytes(), &[text.as_bytes()]))
}

fn answer_json(value: &serde_json::Value) -> Outcome {
    Ok(Handshake::Answer(Answer::json(value)))
}

/// The order of the members is that of Zoom's documentation, so the text is written by hand; the token has no character to escape.
pub(super) fn zoom(view: &View<'_>, knowledge: &Knowledge<'_>, token: &str) -> Outcome {
    let key = zoom_secret(view, knowledge)?;
    let body = format!(r#"{{"plainToken":"{token}","encryptedToken":"{}"}}"#, hmac_hex(key, token));
    Ok(Handshake::Answer(Answer::empty(200).with_body("application/json", body)))
}

/// During a rotation Zoom expects the secret that it signed with itself.
fn zoom_secret<'a>(view: &View<'_>, knowledge: &Knowledge<'a>) -> Result<&'a str, Refused> {
    let read = |name| view.header(name).ok().flatten().unwrap_or_default();
    let (timestamp, signature) = (read("x-zm-request-timestamp"), read("x-zm-signature"));
    let signed_with = |secret: &&String| {
        let parts: [&[u8]; 4] = [b"v0:", timestamp.as_bytes(), b":", view.request.body];
        let right = hmac(Algorithm::HmacSha256, secret.as_bytes(), &parts);
        let given = signature.strip_prefix("v0=").and_then(from_hex).unwrap_or_default();
        !secret.trim().is_empty() && is_equal(&right, &given)
    };
    match knowledge.credentials.secrets.iter().find(signed_with) {
        Some(secret) => Ok(secret),
        None => knowledge.secret(),
    }
}

pub(super) fn x_crc(_: &View<'_>, knowledge: &Knowledge<'_>, token: &str) -> Outcome {
    let signature = hmac(Algorithm::HmacSha256, knowledge.secret()?.as_bytes(), &[token.as_bytes()]);
    answer_json(&json!({ "response_token": format!("sha256={}", STANDARD.encode(signature)) }))
}

pub(super) fn linkedin(_: &View<'_>, knowledge: &Knowledge<'_>, code: &str) -> Outcome {
    let response = hmac_hex(knowledge.secret()?, code);
    answer_json(&json!({ "challengeCode": code, "challengeResponse": response }))
}

pub(super) fn smartcar(_: &View<'_>, knowledge: &Knowledge<'_>, challenge: &str) -> Outcome {
    answer_json(&json!({ "challenge": hmac_hex(knowledge.secret()?, challenge) }))
}

/// A digest over code, token and our own URL as it is registered; `endpoint_url` says it where the public URL is another one.
pub(super) fn ebay(view: &View<'_>, knowledge: &Knowledge<'_>, code: &str) -> Outcome {
    let token = knowledge.setting("verification_token")?;
    let url = knowledge.optional("endpoint_url").unwrap_or_else(|| view.request.url_without_query());
    let mut context = digest::Context::new(&digest::SHA256);
    for part in [code, token, url] {
        context.update(part.as_bytes());
    }
    answer_json(&json!({ "challengeResponse": to_hex(context.finish().as_ref()) }))
}

pub(super) fn braintree(_: &View<'_>, knowledge: &Knowledge<'_>, challenge: &str) -> Outcome {
    let public_key = knowledge.setting("public_key")?;
    let key = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, knowledge.secret()?.as_bytes());
    let signature = hmac(Algorithm::HmacSha1, key.as_ref(), &[challenge.as_bytes()]);
    Ok(Handshake::Answer(Answer::text(format!("{public_key}|{}", to_hex(&signature)))))
}

/// Verification of intent: only the topic and the mode that this source wants; 404 tells the hub no.
pub(super) fn websub(view: &View<'_>, knowledge: &Knowledge<'_>, challenge: &str) -> Outcome {
    let no = |place| Refused::new(404, HandshakeReason::NotRequested, place);
    let Found::One(topic) = At::Query("hub.topic").find(view) else { return Err(no("hub.topic")) };
    match knowledge.optional("topic") {
        Some(wanted) if is_equal(wanted.as_bytes(), topic.as_bytes()) => {}
        Some(_) => return Err(no("hub.topic")),
        None => return Err(Refused { status: 404, ..Refused::setting("topic") }),
    }
    let Found::One(mode) = At::Query("hub.mode").find(view) else { return Err(no("hub.mode")) };
    if mode != knowledge.optional("mode").unwrap_or("subscribe") {
        return Err(no("hub.mode"));
    }
    let answer = Answer::text(challenge);
    let lease = match At::Query("hub.lease_seconds").find(view) {
        Found::One(seconds) => Some(seconds.parse().map_err(|_| no("hub.lease_seconds"))?),
        Found::Nothing => None,
        Found::Unclear => return Err(no("hub.lease_seconds")),
    };
    Ok(Handshake::Answer(match lease {
        Some(seconds) if mode == "subscribe" => answer.keeping(Keep::LeaseSeconds(seconds)),
        _ => answer,
    }))
}

/// Who may send is granted to the origin that asks, unless the source names others; how often is granted up to the source's rate.
pub(super) fn cloudevents(view: &View<'_>, knowledge: &Knowledge<'_>, origin: &str) -> Outcome {
    if let Some(allowed) = knowledge.optional("allowed_origins") {
        let mut allowed = allowed.split([',', ' ']).filter(|origin| !origin.is_empty());
        if !allowed.any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(origin)) {
            return Err(Refused::new(403, HandshakeReason::NotRequested, "WebHook-Request-Origin"));
        }
    }
    let answer = Answer::empty(200).with_header("WebHook-Allowed-Origin", origin).with_header("Allow", "POST");
    let asked = match At::Header("WebHook-Request-Rate").find(view) {
        Found::Nothing => return Ok(Handshake::Answer(answer)),
        Found::One(rate) => rate,
        Found::Unclear => return Err(Refused::new(400, HandshakeReason::ChallengeMalformed, "WebHook-Request-Rate")),
    };
    Shape::Token.check(&asked, "WebHook-Request-Rate").or_else(|refused| if asked == "*" { Ok(()) } else { Err(refused) })?;
    let ours = knowledge.optional("allowed_rate");
    let rate = match (ours, asked.parse::<u64>()) {
        (Some("*"), _) => asked,
        (ours, asked) => {
            let ours = ours.and_then(|rate| rate.parse().ok()).unwrap_or(CLOUDEVENTS_RATE_DEFAULT);
            asked.map_or(ours, |asked| asked.min(ours)).to_string()
        }
    };
    Ok(Handshake::Answer(answer.with_header("WebHook-Allowed-Rate", rate)))
}

/// The header that proves to Vercel that the URL is ours.
pub(super) fn vercel(_: &View<'_>, knowledge: &Knowledge<'_>, _: &str) -> Outcome {
    let token = knowledge.setting("verify_header")?;
    Shape::HeaderValue.check(token, "verify_header")?;
    Ok(Handshake::Answer(Answer::empty(200).with_header("x-vercel-verify", token)))
}
