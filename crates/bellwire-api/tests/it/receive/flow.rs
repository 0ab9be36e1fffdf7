//! Every recorded registration flow, through a source of its provider and over a real socket; the answer is compared to the byte.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use bellwire_api::ApiState;
use bellwire_core::egress::EgressPolicy;
use bellwire_engine::transport::{Answers, Client, ClientOptions, Proxy, Resolve};
use bellwire_verify::fixtures::handshake::{self, Case};
use bellwire_verify::{Credentials, Preset, Presets, Request, Signed};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::SECRET;
use crate::harness::{Harness, text};

#[allow(
    dead_code,
    reason = "the keys and certificates of providers, as the tests of bellwire-verify make them; they use more of it"
)]
#[path = "../../../../bellwire-verify/tests/it/provider.rs"]
mod provider;

/// Flows that say how events are acknowledged; what is recorded of their requests is no more than `{...}` of some.
const EVENTS: [&str; 6] = ["dropbox-sign", "adyen", "salesforce", "wechat-pay", "zendesk", "box"];
/// Answered by who has no preset: the operator brings it.
const OWN_PRESET: &str = r#"
id = "smartcar"
name = "Smartcar"
family = "hmac"
confidence = "docs"
docs = "https://smartcar.com/docs/api-reference/webhooks/verify-webhooks"
content_types = ["application/json"]
handshake = "smartcar"
key = "utf8"

[signature]
at = ["header:SC-Signature"]
encoding = "hex"
algorithm = "hmac-sha256"
content = ["{body}"]

[event]
type = ["json:/eventType"]

[example]
body = '{"eventType":"VEHICLE_STATE"}'

[example.headers]
"Content-Type" = "application/json"
"#;

fn own_preset() -> Preset {
    Preset::parse("smartcar.toml", OWN_PRESET).unwrap()
}

/// The preset of the source that the flow comes to; `None`: a generic one, with the handshake named.
fn preset_of(case: &Case) -> Option<Preset> {
    let id = match case.id.as_str() {
        "discord-webhook-events" => "discord",
        "xero-ok" | "xero-bad" => "xero",
        "cloudevents" => "cloudevents-http",
        id => id,
    };
    Presets::builtin().get(id).cloned().or_else(|| (id == "smartcar").then(own_preset))
}

fn is_event(case: &Case) -> bool {
    EVENTS.contains(&case.id.as_str())
}

/// `verify_token` → `verifyToken`, as it is entered.
fn to_camel(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |all, word| all + &word[..1].to_uppercase() + &word[1..])
}

/// A provider: what it signs with, and what the operator enters.
struct Player {
    preset: Option<Preset>,
    signing: Option<String>,
    credentials: Credentials,
    config: Map<String, Value>,
}

impl Player {
    fn of(case: &Case) -> Self {
        let preset = preset_of(case);
        let mut config = Map::new();
        let mut credentials = Credentials::none();
        let is_asymmetric = preset.as_ref().is_some_and(Preset::is_asymmetric);
        let needs_all = case.is_signed() || case.id == "xero-bad" || is_event(case);
        let of_preset = preset.iter().filter(|_| needs_all).flat_map(|preset| preset.example().settings);
        let mut settings: Vec<(&str, &str)> = of_preset.map(|(name, value)| (name.as_str(), value.as_str())).collect();
        settings.extend(case.settings());
        match case.id.as_str() {
            "aws-sns" => settings.push(("topic_arn", "arn:aws:sns:us-west-2:123456789012:MyTopic")),
            "salesforce" => settings.push(("allow", "127.0.0.0/8")),
            _ => {}
        }
        for (name, value) in settings {
            config.insert(to_camel(name), json!(value));
            credentials = credentials.setting(name, value);
        }
        let mut signing = None;
        if is_asymmetric && needs_all {
            let preset = preset.as_ref().unwrap();
            let can_sign = |pair: &&provider::Pair| {
                let credentials = credentials.clone().and_secret(&pair.private);
                preset.example().with_request(|request| preset.sign(request, &credentials, provider::NOW_S)).is_ok()
            };
            let pair = provider::pairs(false).iter().find(can_sign).unwrap();
            signing = Some(pair.private.clone());
            if preset.family() != "certificate" {
                config.insert("secret".to_owned(), json!(pair.public));
            }
        } else if needs_all || case.secret().is_some() {
            // Salesforce signs nothing: its secret is the organisation's id.
            let default = if case.id == "salesforce" { "00D000000000001EAA" } else { SECRET };
            let secret = case.secret().unwrap_or(default);
            let is_basic = preset.as_ref().is_some_and(|preset| preset.signature_places() == ["basic"]);
            let secret = if is_basic { format!("user:{secret}") } else { secret.to_owned() };
            config.insert("secret".to_owned(), json!(secret));
            signing = Some(if case.id == "xero-bad" { "another secret".to_owned() } else { secret });
        }
        Self { preset, signing, credentials, config }
    }

    /// The recorded request to this URL, with a genuine signature if the provider makes one.
    fn request(&self, case: &Case, url: &str, now_s: u64) -> Signed {
        let recorded = &case.request;
        let (path, query) = recorded.path.split_once('?').map_or((&*recorded.path, ""), |(path, query)| (path, query));
        // What follows the source's own part: IFTTT adds it.
        let rest = if path.starts_with("/in/") { "" } else { path };
        let query = if query.is_empty() { String::new() } else { format!("?{query}") };
        let url = format!("{url}{rest}{query}");
        // Amazon's example is signed over SHA-1, which is not made here.
        let body = recorded.body.clone().unwrap_or_default().replace(r#""SignatureVersion":"1""#, r#""SignatureVersion":"2""#);
        let headers: Vec<(&str, &[u8])> =
            recorded.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        let request = Request { method: &recorded.method, url: &url, headers: &headers, body: body.as_bytes(), peer: None };
        let needs_signature = case.is_signed() || case.id == "xero-bad";
        let (Some(preset), Some(signing), true) = (&self.preset, &self.signing, needs_signature) else {
            return unsigned(&request);
        };
        let credentials = self.credentials.clone().and_secret(signing);
        let is_placeholder = body.contains("...") && is_event(case);
        let signed = if is_placeholder {
            let example = preset.example();
            example.with_request(|request| preset.sign(&Request { url: &url, ..*request }, &credentials, now_s))
        } else {
            preset.sign(&request, &credentials, now_s)
        };
        signed.unwrap_or_else(|refusal| panic!("{}: {refusal}", case.id))
    }
}

fn unsigned(request: &Request<'_>) -> Signed {
    Signed {
        method: request.method.to_owned(),
        url: request.url.to_owned(),
        headers: request.headers.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect(),
        body: request.body.to_vec(),
        peer: None,
    }
}

/// Reads a head (up to the empty line) and whatever came with it.
async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> (String, Vec<u8>) {
    let (mut all, mut part) = (Vec::new(), [0; 4_096]);
    loop {
        if let Some(end) = all.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let rest = all.split_off(end + 4);
            return (String::from_utf8(all).unwrap(), rest);
        }
        let count = stream.read(&mut part).await.unwrap();
        assert!(count > 0, "the head broke off: {:?}", String::from_utf8_lossy(&all));
        all.extend_from_slice(&part[..count]);
    }
}

/// What came back: status, headers in lower case, body.
type Answered = (u16, Vec<(String, String)>, String);

async fn send(address: SocketAddr, request: &Signed) -> Answered {
    let path = request.url.trim_start_matches("https://hooks.example.com");
    let mut bytes =
        format!("{} {path} HTTP/1.1\r\nHost: hooks.example.com\r\nConnection: close\r\n", request.method).into_bytes();
    for (name, value) in request.headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("content-length")) {
        bytes.extend_from_slice(format!("{name}: ").as_bytes());
        bytes.extend_from_slice(value);
        bytes.extend_from_slice(b"\r\n");
    }
    if request.method == "POST" {
        bytes.extend_from_slice(format!("Content-Length: {}\r\n", request.body.len()).as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(&request.body);
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let (head, mut body) = read_head(&mut stream).await;
        stream.read_to_end(&mut body).await.unwrap();
        (head, body)
    };
    let (head, body) = tokio::time::timeout(Duration::from_secs(20), exchange).await.unwrap();
    let mut lines = head.trim_end().split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers: Vec<(String, String)> = lines
        .map(|line| line.split_once(": ").unwrap_or_else(|| panic!("{line}")))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length").map(|(_, value)| value.parse::<usize>().unwrap());
    assert!(request.method == "HEAD" || status == 204 || length == Some(body.len()), "{head}");
    (status, headers, String::from_utf8(body).unwrap())
}

/// What is wrong with an answer.
fn faults(case: &Case, url: &str, (status, headers, body): &Answered) -> Vec<String> {
    // Of the server itself, what keeps browsers from guessing, and what the specification of CloudEvents wants with OPTIONS.
    const OWN: [&str; 5] = ["content-length", "date", "connection", "x-content-type-options", "allow"];
    let expected = &case.expected_response;
    let expected_body = if case.id == "ebay" { ebay_answer(case, url) } else { expected.body.clone() };
    let mut faults = Vec::new();
    if (*status, body) != (expected.status, &expected_body) {
        faults.push(format!("{status} {body:?}, not {} {expected_body:?}", expected.status));
    }
    for (name, value) in &expected.headers {
        let given: Vec<&str> =
            headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()).collect();
        if given != [value.as_str()] {
            faults.push(format!("{name} is {given:?}, not {value:?}"));
        }
    }
    let is_named = |name: &str| OWN.contains(&name) || expected.headers.keys().any(|known| known.eq_ignore_ascii_case(name));
    faults.extend(headers.iter().filter(|(name, _)| !is_named(name)).map(|(name, value)| format!("{name}: {value} is too much")));
    faults
}

/// eBay has the URL signed, which is another one for each source.
fn ebay_answer(case: &Case, url: &str) -> String {
    let of = |url: &str| {
        let challenge = case.request.path.split_once("challenge_code=").unwrap().1;
        let hash = digest(&SHA256, format!("{challenge}{}{url}", case.settings()[0].1).as_bytes());
        let hex: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        format!(r#"{{"challengeResponse":"{hex}"}}"#)
    };
    assert_eq!(of("https://hooks.example.test/in/ebay"), case.expected_response.body, "how it is computed");
    of(url)
}

/// Every name is this machine's.
struct Loopback;

impl Resolve for Loopback {
    fn resolve<'a>(&'a self, _: &'a str) -> Pin<Box<dyn Future<Output = Answers> + Send + 'a>> {
        Box::pin(async { Ok(vec![[127, 0, 0, 1].into()]) })
    }
}

/// Amazon SNS behind a proxy: shows its certificate, and remembers what was asked for.
struct Amazon {
    proxy: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Amazon {
    async fn start() -> Self {
        let certificate = CertificateDer::from(&include_bytes!("../../data/tls/sns.der")[..]);
        let key = PrivateKeyDer::try_from(&include_bytes!("../../data/tls/sns-key.der")[..]).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        // Signed with the key that the provider's player took.
        let rsa = provider::certificate("sns.amazonaws.com", &provider::pairs(false)[0], provider::DATES);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = listener.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let seen = asked.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (acceptor, seen, rsa) = (acceptor.clone(), seen.clone(), rsa.clone());
                tokio::spawn(async move {
                    let (tunnel, _) = read_head(&mut stream).await;
                    assert!(tunnel.starts_with("CONNECT 127.0.0.1:443 "), "{tunnel}");
                    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                    let mut stream = acceptor.accept(stream).await.unwrap();
                    let (head, _) = read_head(&mut stream).await;
                    let path = head.split(' ').nth(1).unwrap().to_owned();
                    let body = if path.ends_with(".pem") { &rsa } else { "<ConfirmSubscriptionResponse/>" };
                    seen.lock().unwrap().push(format!("{} {path}", head.split(' ').next().unwrap()));
                    let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
                    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
                    // The client may be gone already.
                    let _ = stream.shutdown().await;
                });
            }
        });
        Self { proxy, asked }
    }

    fn client(&self) -> Client {
        let mut policy = EgressPolicy::default();
        policy.allow_entries(["127.0.0.0/8"]).unwrap();
        let proxy = Some(Proxy::parse(&format!("http://{}", self.proxy)).unwrap());
        let extra_roots = vec![CertificateDer::from(&include_bytes!("../../data/tls/ca.der")[..])];
        Client::with_resolver(ClientOptions { policy, proxy, extra_roots, ..ClientOptions::default() }, Arc::new(Loopback))
    }
}

async fn serve(state: ApiState) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(bellwire_api::serve(listener, state, std::future::pending(), Duration::ZERO));
    address
}

/// Broken: a provider whose URL points here refuses to register it, or goes on repeating what we took.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_recorded_flow_is_answered_to_the_byte_by_a_source_of_its_provider() {
    let h = Harness::start().await;
    let amazon = Amazon::start().await;
    let state = h.another_node_with(vec![own_preset()]);
    assert!(state.receive().fetch_with(amazon.client()), "something was fetched before");
    let address = serve(state).await;
    let now_s = u64::try_from(h.engine.now().as_unix_seconds()).unwrap();
    let (mut tried, mut wrong) = (Vec::new(), Vec::new());
    for case in handshake::all() {
        let player = Player::of(case);
        let kind = player.preset.as_ref().map_or("generic-webhook", |preset| preset.id());
        let settings = if player.preset.is_none() { json!({ "handshake": case.id }) } else { json!({}) };
        let body = json!({ "name": case.id, "type": kind, "config": player.config, "settings": settings }).to_string();
        let create = Signed {
            method: "POST".to_owned(),
            url: "/ingest/api/v1/source".to_owned(),
            headers: vec![
                ("authorization".to_owned(), format!("Bearer {}", h.key).into_bytes()),
                ("content-type".to_owned(), b"application/json".to_vec()),
            ],
            body: body.into_bytes(),
            peer: None,
        };
        let (status, _, created) = send(address, &create).await;
        assert_eq!(status, 201, "{}: {created}", case.id);
        let source: Value = serde_json::from_str(&created).unwrap();
        let url = text(&source["ingestUrl"]);
        let answered = send(address, &player.request(case, &url, now_s)).await;
        wrong.extend(faults(case, &url, &answered).into_iter().map(|fault| format!("{}: {fault}", case.id)));
        let stored = h.received(&source).await.len();
        if stored != usize::from(is_event(case)) {
            wrong.push(format!("{}: {stored} messages", case.id));
        }
        tried.push(case.id.as_str());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(tried.len(), handshake::COUNT);
    let asked = amazon.asked.lock().unwrap().clone();
    let confirmation = "GET /?Action=ConfirmSubscription&TopicArn=arn:aws:sns:us-west-2:123456789012:MyTopic&Token=2336412f37...";
    assert_eq!(asked, ["GET /SimpleNotificationService-f3ecfb7224c7233fe7bb5f59f96de52f.pem", confirmation]);
}
