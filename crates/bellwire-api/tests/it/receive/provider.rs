//! Every provider, from its preset's example to a stored message, over the real path.

use bellwire_verify::{Credentials, Preset, Presets, Request};
use serde_json::{Map, Value, json};

use super::SECRET;
use crate::harness::{Harness, text};

/// What a source of this preset is set up with, and what the provider holds.
fn set_up(preset: &Preset) -> (Map<String, Value>, Credentials) {
    let is_basic = preset.signature_places() == ["basic"];
    let secret = if is_basic { format!("user:{SECRET}") } else { SECRET.to_owned() };
    let mut config = Map::new();
    config.insert("secret".to_owned(), json!(secret));
    let mut credentials = Credentials::secret(secret);
    for (name, value) in preset.example().settings {
        config.insert(name.clone(), json!(value));
        credentials = credentials.setting(name, value);
    }
    (config, credentials)
}

/// Broken: a source of some provider cannot be set up, or its genuine events are refused, or forged ones taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn genuine_events_of_every_provider_with_a_shared_secret_become_messages() {
    let h = Harness::start().await;
    let now = u64::try_from(h.engine.now().as_unix_seconds()).unwrap();
    let (mut tried, mut wrong) = (0, Vec::new());
    for preset in Presets::builtin().iter().filter(|preset| !preset.is_asymmetric()) {
        tried += 1;
        let (config, credentials) = set_up(preset);
        let source = h.source(json!({ "name": preset.name(), "type": preset.id(), "config": config })).await;
        let url = text(&source["ingestUrl"]);
        let example = preset.example();
        let headers: Vec<(&str, &[u8])> = example.headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        // What the provider's example has in its query goes along.
        let query = example.url.split_once('?').map_or(String::new(), |(_, query)| format!("?{query}"));
        let url = format!("{url}{query}");
        let request =
            Request { method: example.method, url: &url, headers: &headers, body: example.body.as_bytes(), peer: example.peer };
        let signed = match preset.sign(&request, &credentials, now) {
            Ok(signed) => signed,
            Err(refusal) => {
                wrong.push(format!("{}: cannot be signed: {refusal}", preset.id()));
                continue;
            }
        };
        let path = signed.url.trim_start_matches("https://hooks.example.com");
        let send = async |tampered: bool| {
            let mut request = http::Request::builder().method(signed.method.as_str()).uri(path);
            for (name, value) in &signed.headers {
                let value = if tampered && !name.eq_ignore_ascii_case("content-type") { b"0".to_vec() } else { value.clone() };
                request = request.header(name, value);
            }
            let mut request = request.body(axum::body::Body::from(signed.body.clone())).unwrap();
            if let Some(peer) = signed.peer {
                request.extensions_mut().insert(bellwire_api::receive::PeerAddress(peer));
            }
            h.send(request).await.status.as_u16()
        };
        let status = send(false).await;
        let stored = h.received(&source).await;
        if !(200..300).contains(&status) || stored.len() != 1 {
            wrong.push(format!("{}: {status}, {} messages, log {:?}", preset.id(), stored.len(), {
                h.api.state().receive().flush().await;
                h.get(&format!("/api/v1/source/{}/log", text(&source["id"]))).await.json()["data"][0]["detail"].clone()
            }));
            continue;
        }
        if stored[0].origin.as_deref().is_none_or(|origin| format!("{origin:?}").contains(SECRET)) {
            wrong.push(format!("{}: no origin, or one with the secret", preset.id()));
        }
        // Whatever the headers prove: without it nothing is taken, but where the URL or the body is the proof.
        let is_by_header = preset.signature_places().iter().all(|place| place.starts_with("header:") || place == "bearer");
        if is_by_header && send(true).await != 401 {
            wrong.push(format!("{}: taken without its proof", preset.id()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(tried > 140, "only {tried} providers were tried");
}
