//! Targets about providers: their requests, handshakes, keys and presets.

use std::sync::LazyLock;

use bellwire_verify::handshake::{Answer, CHALLENGE_BYTES_MAX, Flow, Handshake, Knowledge, Signature};
use bellwire_verify::vectors::{self, Case};
use bellwire_verify::{Credentials, Key, Preset, Presets, Request, Secret, Signed, SigningKey, VerifyingKey, fixtures};
use http::HeaderValue;
use serde_json::Value;

use crate::feature;
use crate::input::{self, Input};

const CASES: &str = include_str!("../../bellwire-verify/tests/data/vectors.json");
const HANDSHAKES: &str = include_str!("../../bellwire-verify/tests/data/handshakes.json");
const SECRET: &str = "a-secret-of-the-seeds-0123456789";
const NOW_S: u64 = 1_767_225_600;

/// Whose request it is, what the receiver holds, and what its clock says.
struct Holder {
    preset: &'static Preset,
    credentials: Credentials,
    now_s: u64,
    seed: Vec<u8>,
    secrets: Vec<String>,
}

/// The recorded requests of libraries, and a signed example and fixtures of every provider.
static HOLDERS: LazyLock<Vec<Holder>> = LazyLock::new(|| {
    let mut holders: Vec<Holder> = Vec::new();
    let recorded: Vec<Value> = serde_json::from_str(CASES).expect("the recorded cases are JSON");
    for case in recorded {
        if case["body_base64"].is_string() {
            continue;
        }
        let case: Case = serde_json::from_value(case).expect("the recorded cases have their form");
        let Some(preset) = Presets::builtin().get(&case.provider) else { continue };
        let secrets: Vec<String> = case.secrets.iter().chain(&case.secret).filter(|secret| !secret.is_empty()).cloned().collect();
        let mut credentials = secrets.iter().fold(Credentials::none(), |all, secret| all.and_secret(secret.as_str()));
        for (name, value) in &case.config {
            match value {
                Value::Object(certificates) => {
                    for (url, pem) in certificates {
                        credentials = credentials.certificate(url.as_str(), pem.as_str().unwrap_or_default());
                    }
                }
                value => credentials = credentials.setting(name.as_str(), value.as_str().unwrap_or_default()),
            }
        }
        let headers: Vec<(&str, &[u8])> = case.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        let body = case.body.as_deref().unwrap_or_default().as_bytes();
        let request = Request { method: &case.method, url: &case.url, headers: &headers, body, peer: None };
        let seed = input::write(holders.len(), &request);
        holders.push(Holder { preset, credentials, now_s: case.now, seed, secrets });
    }
    for preset in Presets::builtin().iter() {
        let example = preset.example();
        let credentials =
            example.settings.iter().fold(Credentials::secret(SECRET), |all, (name, value)| all.setting(name, value));
        let own = std::iter::once((example.headers.clone(), example.body.as_bytes()));
        let events = fixtures::for_provider(preset.id()).map(|fixture| (fixture.headers().collect(), fixture.body()));
        for (headers, body) in own.chain(events) {
            let headers: Vec<(&str, &[u8])> = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
            let request = Request { method: example.method, url: &example.url, headers: &headers, body, peer: example.peer };
            // Where private keys sign, the unsigned request is a seed as well.
            let number = holders.len();
            let seed = match preset.sign(&request, &credentials, NOW_S) {
                Ok(signed) => Signed::with_request(&signed, |signed| input::write(number, signed)),
                Err(_) => input::write(number, &request),
            };
            let secrets = vec![SECRET.to_owned()];
            holders.push(Holder { preset, credentials: credentials.clone(), now_s: NOW_S, seed, secrets });
        }
    }
    holders
});

pub fn requests() -> Vec<Vec<u8>> {
    HOLDERS.iter().map(|holder| holder.seed.clone()).collect()
}

fn holder(input: &Input<'_>) -> &'static Holder {
    &HOLDERS[input.number % HOLDERS.len()]
}

/// Whatever comes: a verdict, the same one each time, without a secret in its words; and the head is not refused when the whole is not.
pub fn verify(data: &[u8]) -> u64 {
    let input = Input::read(data);
    let Holder { preset, credentials, now_s, secrets, .. } = holder(&input);
    input.with_request(|request| {
        let verdict = preset.verify(request, credentials, *now_s);
        assert_eq!(verdict, preset.verify(request, credentials, *now_s), "two verdicts about one request");
        let head = preset.check_head(request, credentials, *now_s);
        let event = preset.event(request);
        let url = preset.certificate_url(request);
        match &verdict {
            Ok(_) => {
                assert!(head.is_ok(), "the head of a genuine request is refused: {head:?}");
                feature(&(preset.id(), true, event.kind.is_some(), event.id.is_some()))
            }
            Err(refusal) => {
                let words = refusal.to_string();
                let is_told = |secret: &&String| secret.len() >= 16 && !has(request, secret) && words.contains(secret.as_str());
                assert!(!secrets.iter().any(|secret| is_told(&secret)), "a refusal tells a secret");
                feature(&(
                    preset.id(),
                    refusal.code(),
                    refusal.place().map(|place| place.chars().take(24).collect::<String>()),
                    url.is_ok(),
                ))
            }
        }
    })
}

fn has(request: &Request<'_>, text: &str) -> bool {
    let is_in = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains(text);
    is_in(request.body)
        || request.url.contains(text)
        || request.headers.iter().any(|(name, value)| name.contains(text) || is_in(value))
}

/// Nobody who does not know the secret is let in. The secret here is one that no seed was signed with.
pub fn forge(data: &[u8]) -> u64 {
    const UNKNOWN: [&str; 4] = [
        "nobody-knows-this-one-6f1c2a9b",
        "whsec_bm9ib2R5LWtub3dzLXRoaXMtb25lLTZmMWMyYTli",
        "6e6f626f64792d6b6e6f77732d746869732d6f6e652d36663163326139620000",
        "nobody:knows-this-one-6f1c2a9b",
    ];
    let input = Input::read(data);
    let Holder { preset, now_s, .. } = holder(&input);
    let settings = preset.example().settings;
    let verdicts = UNKNOWN.map(|secret| {
        let credentials = settings.iter().fold(Credentials::secret(secret), |all, (name, value)| all.setting(name, value));
        let verdict = input.with_request(|request| preset.verify(request, &credentials, *now_s));
        assert!(verdict.is_err(), "{} lets in a request that nobody signed", preset.id());
        verdict.err().map(|refusal| refusal.code())
    });
    let nothing = input.with_request(|request| preset.verify(request, &Credentials::none(), *now_s));
    assert!(nothing.is_err(), "{} lets in a request although there is no secret", preset.id());
    feature(&(preset.id(), verdicts))
}

pub fn handshakes() -> Vec<Vec<u8>> {
    let mut seeds = requests();
    let flows: Value = serde_json::from_str(HANDSHAKES).expect("the handshakes are JSON");
    // Their texts, whatever they are called: the mutations carry pieces of them into requests.
    let mut texts = Vec::new();
    collect(&flows, &mut texts);
    seeds.extend(
        texts
            .into_iter()
            .enumerate()
            .map(|(at, text)| format!("{at} POST https://h.test/?{text}\nContent-Type: application/json\n\n{text}").into_bytes()),
    );
    seeds
}

fn collect(value: &Value, texts: &mut Vec<String>) {
    match value {
        Value::String(text) => texts.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| collect(item, texts)),
        Value::Object(members) => {
            texts.push(value.to_string());
            members.values().for_each(|item| collect(item, texts));
        }
        _ => {}
    }
}

/// What is answered can harm no browser and no proxy, whatever was asked.
pub fn handshake(data: &[u8]) -> u64 {
    let input = Input::read(data);
    let flow = &Flow::all()[input.number % Flow::all().len()];
    let credentials = ["verify_token", "topic_arn", "hostname", "origin"]
        .iter()
        .fold(Credentials::secret(SECRET), |all, name| all.setting(*name, "a-setting"));
    let outcomes = [Signature::Valid, Signature::NotValid].map(|signature| {
        let outcome = input.with_request(|request| flow.judge(request, &Knowledge::new(&credentials), signature));
        match &outcome {
            Handshake::NotOne => 0,
            Handshake::Answer(answer) => check_answer(answer),
            Handshake::Confirm { url, then } => {
                assert!(url.starts_with("https://"), "{url:?} would be fetched");
                check_answer(then)
            }
            Handshake::Refuse(refused) => {
                assert!((400..600).contains(&refused.status), "{refused:?}");
                refused.status
            }
        }
    });
    feature(&(flow.id(), outcomes))
}

fn check_answer(answer: &Answer) -> u16 {
    assert!((200..300).contains(&answer.status), "{}", answer.status);
    assert!(answer.body.len() <= 2 * CHALLENGE_BYTES_MAX + 1_024, "{} bytes are echoed", answer.body.len());
    assert!(!answer.body.contains(SECRET), "the secret is told");
    for (name, value) in &answer.headers {
        assert!(HeaderValue::from_str(value).is_ok(), "{name} would be {value:?}");
        let is_page = name.eq_ignore_ascii_case("content-type") && value.contains("html");
        assert!(!is_page, "an answer poses as a page");
    }
    answer.status
}

pub fn keys() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> =
        HOLDERS.iter().flat_map(|holder| holder.secrets.iter().map(|secret| secret.as_bytes().to_vec())).collect();
    seeds.sort();
    seeds.dedup();
    seeds.extend([
        b"whsk_AAAA".to_vec(),
        b"whpk_AAAA".to_vec(),
        br#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AA"}]}"#.to_vec(),
    ]);
    seeds
}

/// A secret in any form makes an error or a key, with every preset.
pub fn key(data: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(data).into_owned();
    let parsed = (
        Key::parse(&text).is_ok(),
        Secret::parse(&text).is_ok(),
        SigningKey::parse(&text).is_ok(),
        VerifyingKey::parse(&text).is_ok(),
    );
    let at = usize::try_from(feature(&text)).unwrap_or_default() % HOLDERS.len();
    let Holder { preset, now_s, seed, .. } = &HOLDERS[at];
    let credentials =
        preset.example().settings.iter().fold(Credentials::secret(text.as_str()), |all, (name, value)| all.setting(name, value));
    let input = Input::read(seed);
    let checked = preset.check_credentials(&credentials).err().map(|refusal| refusal.code());
    let verdict = input.with_request(|request| preset.verify(request, &credentials, *now_s)).err().map(|refusal| refusal.code());
    let as_certificate = input.with_request(|request| preset.certificate_url(request)).ok().flatten().map(|url| {
        let credentials = credentials.clone().certificate(url, text.as_str());
        input.with_request(|request| preset.verify(request, &credentials, *now_s)).err().map(|refusal| refusal.code())
    });
    feature(&(parsed, preset.id(), checked, verdict, as_certificate))
}

pub fn presets() -> Vec<Vec<u8>> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../bellwire-verify/presets");
    let files = std::fs::read_dir(folder).expect("the folder of presets");
    let mut paths: Vec<_> = files.map(|file| file.expect("a readable folder").path()).collect();
    paths.sort();
    paths
        .iter()
        .filter(|path| path.extension().is_some_and(|end| end == "toml"))
        .map(|path| std::fs::read(path).expect("a preset"))
        .collect()
}

/// A file of an operator's makes an error that names the file, or a preset that judges requests without falling over.
pub fn preset(data: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(data);
    match Preset::parse("own.toml", &text) {
        Err(error) => {
            let words = error.to_string();
            assert!(words.contains("own.toml"), "{words}");
            feature(&words.chars().filter(char::is_ascii_alphabetic).take(48).collect::<String>())
        }
        Ok(preset) => {
            let credentials =
                preset.example().settings.iter().fold(Credentials::secret(SECRET), |all, (name, value)| all.setting(name, value));
            let verdict = preset.example().with_request(|request| {
                let signed = preset.sign(request, &credentials, NOW_S);
                let verdict = signed
                    .as_ref()
                    .ok()
                    .map(|signed| signed.with_request(|request| preset.verify(request, &credentials, NOW_S).is_ok()));
                (verdict, preset.verify(request, &credentials, NOW_S).err().map(|refusal| refusal.code()))
            });
            feature(&(preset.id(), verdict))
        }
    }
}

pub fn cases() -> Vec<Vec<u8>> {
    let cases: Vec<Value> = serde_json::from_str(CASES).expect("the recorded cases are JSON");
    cases.iter().map(|case| case.to_string().into_bytes()).collect()
}

/// A case of `bellwire verify --vectors` has an outcome or is none.
pub fn case(data: &[u8]) -> u64 {
    match serde_json::from_slice::<Case>(data) {
        Err(error) => feature(&(error.is_syntax(), error.is_data(), error.is_eof())),
        Ok(case) => feature(&(vectors::run(&case).reason, case.provider.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Broken: the fuzzers begin with nothing genuine, and never come past the first check.
    #[test]
    fn many_of_the_requests_to_begin_with_are_genuine() {
        let genuine = HOLDERS.iter().filter(|holder| {
            Input::read(&holder.seed)
                .with_request(|request| holder.preset.verify(request, &holder.credentials, holder.now_s).is_ok())
        });
        assert!(genuine.count() > HOLDERS.len() / 4);
    }
}
