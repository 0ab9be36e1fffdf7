//! The example events: every provider has some, each is what its content type says, and its preset understands it.

use std::collections::BTreeSet;
use std::path::Path;

use bellwire_verify::fixtures::{self, Fixture};
use bellwire_verify::handshake::{Flow, Handshake, Knowledge, Signature};
use bellwire_verify::{Credentials, Presets, Request};
use serde_json::Value;

use crate::provider::{NOW_S, Provider};

const PROVIDERS: usize = 183;

fn with_request<T>(fixture: &Fixture, f: impl FnOnce(&Request<'_>) -> T) -> T {
    let preset = Presets::builtin().get(fixture.provider()).unwrap_or_else(|| panic!("no preset {}", fixture.provider()));
    let example = preset.example();
    let headers: Vec<(&str, &[u8])> = fixture.headers().map(|(name, value)| (name, value.as_bytes())).collect();
    f(&Request { method: "POST", url: &example.url, headers: &headers, body: fixture.body(), peer: example.peer })
}

/// Broken: a preset cannot be tried out, or a file and its row in the index do not belong together.
#[test]
fn every_provider_has_an_event_and_every_file_a_row() {
    let providers: BTreeSet<&str> = fixtures::all().iter().map(Fixture::provider).collect();
    let presets: BTreeSet<&str> = Presets::builtin().iter().map(|preset| preset.id()).collect();
    assert_eq!(providers, presets);
    assert_eq!(providers.len(), PROVIDERS);

    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let mut found = BTreeSet::new();
    for provider in std::fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()) {
        for file in std::fs::read_dir(provider).unwrap() {
            found.insert(file.unwrap().path().strip_prefix(&root).unwrap().to_str().unwrap().to_owned());
        }
    }
    let listed: BTreeSet<String> = fixtures::all().iter().map(|fixture| fixture.file().to_owned()).collect();
    assert_eq!(listed, found);
    assert_eq!(listed.len(), fixtures::all().len(), "a file is listed twice");
    for fixture in fixtures::all() {
        assert_eq!(fixture.body(), std::fs::read(root.join(fixture.file())).unwrap(), "{}", fixture.file());
        assert_eq!(fixture.body().is_empty(), fixture.content_type().is_none(), "{}", fixture.file());
        assert!(fixture.body().len() < 4096, "{} is not small", fixture.file());
    }
    assert!(fixtures::for_provider("github").count() >= 5);
    assert_eq!(fixtures::for_provider("nobody").count(), 0);
}

/// Broken: an example is not what it says it is, so that receivers fail at it.
#[test]
fn every_event_parses_as_its_content_type() {
    for fixture in fixtures::all() {
        let Some(content_type) = fixture.content_type() else { continue };
        let text = std::str::from_utf8(fixture.body()).unwrap();
        let file = fixture.file();
        match content_type.split(';').next().unwrap() {
            "application/x-www-form-urlencoded" => assert_form(text, file),
            "multipart/form-data" => assert_multipart(text, content_type, file),
            "text/xml" | "application/atom+xml" => assert_xml(text, file),
            "text/plain" if text.starts_with("ey") => assert_token(text, file),
            media if media.ends_with("json") || media == "text/plain" => {
                let parsed: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{file}: {error}"));
                assert!(parsed.is_object() || parsed.is_array(), "{file}");
            }
            media => panic!("{file}: nothing here reads {media}"),
        }
        let is_xml_inside = fixture.provider() == "braintree";
        if is_xml_inside {
            let payload = form(text).into_iter().find(|(name, _)| name == "bt_payload").unwrap().1;
            assert_xml(&decode_base64(payload.trim_end()), file);
        }
    }
}

/// Broken: the index and a preset do not mean the same by an event type, or an event is taken for a handshake.
#[test]
fn presets_read_the_event_types_of_the_index() {
    let mut wrong = Vec::new();
    let mut read = 0;
    for fixture in fixtures::all() {
        let preset = Presets::builtin().get(fixture.provider()).unwrap();
        let event = with_request(fixture, |request| preset.event(request));
        if let Some(kind) = event.kind {
            read += 1;
            if kind != fixture.event() {
                wrong.push(format!("{} = {kind}", fixture.file()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(read > 200, "{read}");
}

/// Broken: an event never becomes a message because its provider's handshake swallows it.
#[test]
fn only_what_is_named_so_is_a_handshake() {
    let nothing = Credentials::none();
    let handshakes = [
        "aws-sns/subscriptionconfirmation.json",
        "azure-event-grid/microsoft-eventgrid-subscriptionvalidationevent.json",
        "tebex/validation-webhook.json",
    ];
    for fixture in fixtures::all() {
        let Some(flow) = Flow::named(fixture.provider()) else { continue };
        let outcome = with_request(fixture, |request| flow.judge(request, &Knowledge::new(&nothing), Signature::Valid));
        assert_eq!(outcome != Handshake::NotOne, handshakes.contains(&fixture.file()), "{}: {outcome:?}", fixture.file());
    }
}

/// Broken: a receiver cannot be tried out with a fixture, because no genuine request can be made of it.
#[test]
fn fixtures_can_be_signed_and_are_taken() {
    let mut tried = 0;
    let mut wrong = Vec::new();
    for fixture in fixtures::all() {
        let preset = Presets::builtin().get(fixture.provider()).unwrap();
        // Who receives from these holds no key to sign with; their round trip is tested with the examples of the presets.
        if preset.is_asymmetric() {
            continue;
        }
        let provider = Provider::of(preset, false).unwrap();
        let verdict = with_request(fixture, |request| preset.sign(request, &provider.receiver(), NOW_S))
            .and_then(|signed| provider.verify(&signed, NOW_S));
        match verdict {
            Ok(_) => tried += 1,
            Err(refusal) => wrong.push(format!("{}: {refusal}", fixture.file())),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(tried > 200, "{tried}");
}

fn form(text: &str) -> Vec<(String, String)> {
    text.split('&').filter_map(|pair| pair.split_once('=')).map(|(name, value)| (unescape(name), unescape(value))).collect()
}

fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let pair = [rest.next().unwrap(), rest.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&pair).unwrap(), 16).unwrap()
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).unwrap()
}

fn decode_base64(text: &str) -> String {
    use base64::Engine;
    String::from_utf8(base64::engine::general_purpose::STANDARD.decode(text).unwrap()).unwrap()
}

fn assert_form(text: &str, file: &str) {
    assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{file}");
    assert!(text.split('&').all(|pair| pair.contains('=')), "{file}");
    assert!(!form(text).is_empty(), "{file}");
    for (name, value) in form(text) {
        if name == "mandrill_events" {
            serde_json::from_str::<Vec<Value>>(&value).unwrap_or_else(|error| panic!("{file}: {error}"));
        }
    }
}

fn assert_multipart(text: &str, content_type: &str, file: &str) {
    let boundary = content_type.split_once("boundary=").unwrap().1;
    let inside =
        text.strip_prefix(&format!("--{boundary}\r\n")).and_then(|rest| rest.strip_suffix(&format!("\r\n--{boundary}--\r\n")));
    let (head, value) = inside.unwrap_or_else(|| panic!("{file}")).split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("Content-Disposition: form-data; name="), "{file}");
    serde_json::from_str::<Value>(value).unwrap_or_else(|error| panic!("{file}: {error}"));
}

fn assert_token(text: &str, file: &str) {
    use base64::Engine;
    let parts: Vec<_> = text.split('.').collect();
    assert_eq!(parts.len(), 3, "{file}");
    for part in &parts[..2] {
        let json = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).unwrap();
        serde_json::from_slice::<Value>(&json).unwrap_or_else(|error| panic!("{file}: {error}"));
    }
}

/// Well formed as far as these documents go: elements are closed in order, there is one root, and `&` begins an entity.
fn assert_xml(text: &str, file: &str) {
    let mut open = Vec::new();
    let mut roots = 0;
    let body = text.strip_prefix("<?xml version=\"1.0\" encoding=\"UTF-8\"?>").unwrap_or_else(|| panic!("{file}"));
    for tag in body.split('<').skip(1) {
        let (tag, content) = tag.split_once('>').unwrap_or_else(|| panic!("{file}: {tag}"));
        assert!(
            content.split('&').skip(1).all(|entity| entity.starts_with("amp;") || entity.starts_with("lt;")),
            "{file}: {content}"
        );
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "{file}");
        } else {
            roots += usize::from(open.is_empty());
            if !tag.ends_with('/') {
                open.push(tag.split_whitespace().next().unwrap());
            }
        }
    }
    assert_eq!((roots, open.len()), (1, 0), "{file}");
}
