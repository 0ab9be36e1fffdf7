//! No byte leaves for an address that the policy forbids, whatever DNS or the receiver says.

use bellwire_core::egress::UNREACHABLE_HOST;
use bellwire_engine::transport::{Phase, RequestHead, TransportError};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::*;

/// A URL whose host is a name and whose port is the receiver's.
fn named(receiver: &Receiver) -> String {
    format!("http://receiver.test.example:{}/hook", receiver.address.port())
}

async fn post(client: &Client, url: &str) -> Result<u16, TransportError> {
    client.request("POST", url, &[], b"{}", LONG).await.map(|answer| answer.status)
}

/// Broken: one of the published DNS tricks leads a request inside, or a name is looked up twice per dial (rebinding).
#[tokio::test]
async fn every_published_dns_case_is_refused_after_one_lookup() {
    let text = include_str!("../../../../bellwire-core/tests/data/ssrf_cases.json");
    let cases: Vec<Value> = serde_json::from_str(text).unwrap();
    let mut run = 0;
    for case in cases.iter().filter(|case| case["expect"] == "blocked") {
        let fixture = &case["fixture"];
        let answers: Vec<IpAddr> = ["A", "AAAA"]
            .iter()
            .flat_map(|kind| fixture[kind].as_array().cloned().unwrap_or_default())
            .map(|text| ip(&text.as_str().unwrap().replace("<own public ip>", "93.184.215.77")))
            .collect();
        if answers.is_empty() {
            continue;
        }
        let resolver = Scripted::new([answers]);
        let policy = EgressPolicy { own: vec!["93.184.215.77:80".parse().unwrap()], ..EgressPolicy::default() };
        let client = Client::with_resolver(ClientOptions { policy, ..ClientOptions::default() }, resolver.clone());
        let error = post(&client, case["url"].as_str().unwrap()).await.unwrap_err();
        assert!(matches!(error, TransportError::Refused(_)), "{case}: {error:?}");
        assert_eq!(resolver.lookups(), 1, "{case}");
        run += 1;
    }
    assert_eq!(run, 6);
}

/// Broken: a name that turns private after its first answer is dialled again (DNS rebinding; a pooled connection may stay).
#[tokio::test]
async fn a_new_dial_is_judged_anew_and_looks_up_exactly_once() {
    let receiver = Receiver::start(|_, mut stream| async move {
        for _ in 0..2 {
            read_request(&mut stream).await;
            let _ = stream.write_all(OK).await;
        }
    })
    .await;
    let resolver = Scripted::new([vec![ip("127.0.0.1")], vec![ip("10.0.0.5")]]);
    let client = Client::with_resolver(options(), resolver.clone());
    let target = client.policy().judge_url(&named(&receiver)).unwrap();
    let mut head = Vec::new();
    RequestHead::new("POST", &target, "test").unwrap().write(&mut head, &[], 0).unwrap();
    let mut slot = None;
    for _ in 0..2 {
        let answer = client.exchange(&mut slot, &target, &head, b"", Instant::now() + LONG, || true).await.unwrap().unwrap();
        assert_eq!((answer.status, resolver.lookups()), (200, 1));
    }
    let error = client.exchange(&mut slot, &target, &head, b"", Instant::now() + LONG, || true).await.unwrap_err();
    assert!(matches!(error, TransportError::Refused(_)), "{error:?}");
    assert_eq!((resolver.lookups(), receiver.accepted()), (2, 1));
}

/// Broken: one good answer beside a forbidden one is enough to be let through.
#[tokio::test]
async fn mixed_answers_refuse_the_whole_name() {
    let receiver = Receiver::answering(OK).await;
    for answers in [["127.0.0.1", "10.0.0.5"], ["10.0.0.5", "127.0.0.1"], ["127.0.0.1", "::1"]] {
        let client = Client::with_resolver(options(), Scripted::new([answers.map(ip).to_vec()]));
        let error = post(&client, &named(&receiver)).await.unwrap_err();
        assert!(matches!(error, TransportError::Refused(_)), "{answers:?}");
    }
    assert_eq!(receiver.accepted(), 0);
}

/// Broken: a host with one dead address is never reached at its other one.
#[tokio::test]
async fn the_next_address_is_tried_when_one_refuses() {
    let receiver = Receiver::answering(OK).await;
    let client = Client::with_resolver(options(), Scripted::new([vec![ip("127.0.0.2"), ip("127.0.0.1")]]));
    assert_eq!(post(&client, &named(&receiver)).await, Ok(200));
}

/// Broken: a receiver steers us to an internal address with a redirect or a refresh (T13, ssrf-147, ssrf-149).
#[tokio::test]
async fn redirects_and_refreshes_are_answers_and_not_followed() {
    let inside = Receiver::answering(OK).await;
    for (status, header) in
        [(301, "location"), (302, "location"), (303, "location"), (307, "location"), (308, "location"), (200, "refresh")]
    {
        let value = if header == "refresh" { format!("0;url={}", inside.url()) } else { inside.url() };
        let text = format!(
            "HTTP/1.1 {status} x\r\n{header}: {value}\r\nalt-svc: h2=\"{}\"\r\ncontent-length: 0\r\n\r\n",
            inside.address
        );
        let receiver = Receiver::answering(text.leak().as_bytes()).await;
        assert_eq!(post(&client(), &receiver.url()).await, Ok(status));
    }
    assert_eq!(inside.accepted(), 0);
}

/// Broken: development against `localhost` needs a DNS server, or works without the operator's consent.
#[tokio::test]
async fn localhost_needs_the_allow_list_and_no_dns() {
    let receiver = Receiver::answering(OK).await;
    let url = format!("http://localhost:{}/", receiver.address.port());
    let resolver = Scripted::new([vec![ip("10.0.0.5")]]);
    let client = Client::with_resolver(options(), resolver.clone());
    assert_eq!(post(&client, &url).await, Ok(200));
    assert_eq!(resolver.lookups(), 0);
    client.set_policy(EgressPolicy::default());
    assert!(matches!(post(&client, &url).await, Err(TransportError::Refused(_))));
    assert!(matches!(post(&client, &receiver.url()).await, Err(TransportError::Refused(_))));
}

/// Broken: tenants learn from the error which internal names exist.
#[tokio::test]
async fn refused_and_unresolvable_read_the_same() {
    let refused = Client::with_resolver(ClientOptions::default(), Scripted::new([vec![ip("10.0.0.5")]]));
    let missing = Client::with_resolver(ClientOptions::default(), Scripted::with([Err("NXDOMAIN".into())]));
    let empty = Client::with_resolver(ClientOptions::default(), Scripted::new([vec![]]));
    let mut reasons = Vec::new();
    for client in [&refused, &missing, &empty] {
        let error = post(client, "http://db.test.example/").await.unwrap_err();
        assert_eq!((error.code(), error.to_string().as_str()), ("host_unreachable", UNREACHABLE_HOST));
        reasons.push(error.operator_reason().unwrap());
    }
    assert!(reasons[0].contains("10.0.0.5") && reasons[1].contains("NXDOMAIN") && reasons[2].contains("no address"));
}

struct Silent;

impl Resolve for Silent {
    fn resolve<'a>(&'a self, _: &'a str) -> Pin<Box<dyn Future<Output = Answers> + Send + 'a>> {
        Box::pin(std::future::pending())
    }
}

/// Broken: a dead DNS server holds workers for the whole request time, or for ever.
#[tokio::test]
async fn lookups_have_a_budget_of_their_own() {
    let client = Client::with_resolver(options(), Arc::new(Silent));
    let (slow, short) = tokio::join!(
        client.request("POST", "http://a.test.example/", &[], b"", LONG),
        client.request("POST", "http://a.test.example/", &[], b"", Duration::from_millis(50)),
    );
    assert!(matches!(slow, Err(TransportError::Unresolvable(_))), "{slow:?}");
    assert_eq!(short, Err(TransportError::Timeout(Phase::Resolve)));
}

/// Broken: line breaks in a path become real ones on the wire (ssrf-119).
#[tokio::test]
async fn the_request_line_is_the_serialised_url() {
    let (sender, mut requests) = tokio::sync::mpsc::channel(1);
    let receiver = Receiver::start(move |_, mut stream| {
        let sender = sender.clone();
        async move {
            let request = read_request(&mut stream).await.unwrap();
            sender.send(String::from_utf8(request).unwrap()).await.unwrap();
            let _ = stream.write_all(OK).await;
        }
    })
    .await;
    let url = format!("HTTP://127.1:{}/%0d%0aX-Injected:%201?ü", receiver.address.port());
    assert_eq!(post(&client(), &url).await, Ok(200));
    let request = requests.recv().await.unwrap();
    let expected = format!("POST /%0d%0aX-Injected:%201?%C3%BC HTTP/1.1\r\nhost: {}\r\n", receiver.address);
    assert!(request.starts_with(&expected) && request.ends_with("content-length: 2\r\n\r\n{}"), "{request}");
}
