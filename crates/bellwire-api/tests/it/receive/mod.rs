//! What comes to the public URLs of sources: taken, refused, recognised, answered.

mod certificate;
mod duplicate;
mod flow;
mod handshake;
mod limit;
mod provider;
mod recognise;
mod verify;

use bellwire_verify::{Credentials, Presets, Request, Signed, fixtures};
use serde_json::{Value, json};

use crate::harness::{Answer, Harness, text};

pub const SECRET: &str = "8f3a1c5d7e9b0246813579bdf0246813579bdf02468ace13579bdf02468ace13";

/// A request of GitHub's, signed with `secret`.
pub fn push(secret: &str, delivery: &str) -> Signed {
    let fixture = fixtures::for_provider("github").find(|fixture| fixture.event() == "push").unwrap();
    let mut headers: Vec<(&str, &[u8])> = fixture.headers().map(|(name, value)| (name, value.as_bytes())).collect();
    headers.retain(|(name, _)| !name.eq_ignore_ascii_case("x-github-delivery"));
    headers.push(("X-GitHub-Delivery", delivery.as_bytes()));
    let request =
        Request { method: "POST", url: "https://hooks.example.com/", headers: &headers, body: fixture.body(), peer: None };
    Presets::builtin().get("github").unwrap().sign(&request, &Credentials::secret(secret), 0).unwrap()
}

pub async fn send(h: &Harness, url: &str, signed: &Signed) -> Answer {
    let headers: Vec<(&str, &str)> =
        signed.headers.iter().map(|(name, value)| (name.as_str(), std::str::from_utf8(value).unwrap())).collect();
    h.receive(&signed.method, url, &headers, signed.body.clone()).await
}

pub async fn github(h: &Harness) -> (Value, String) {
    let source = h.source(json!({ "name": "code", "type": "github", "config": { "secret": SECRET } })).await;
    let url = text(&source["ingestUrl"]);
    (source, url)
}

pub async fn generic(h: &Harness, settings: Value) -> (Value, String) {
    let source = h.source(json!({ "name": "any", "type": "generic-webhook", "settings": settings })).await;
    let url = text(&source["ingestUrl"]);
    (source, url)
}
