//! Every published SSRF case that concerns URLs and addresses, and the operator's switches.

use serde_json::Value;

use super::*;

/// All cases of the file, so that none is lost in silence.
const CASES: usize = 89;
/// Cases that need a DNS answer or a response; the transport's tests serve those too.
const FIXTURE_CASES: usize = 11;

fn cases() -> Vec<Value> {
    serde_json::from_str(include_str!("../../tests/data/ssrf_cases.json")).unwrap()
}

fn policy(case: &Value) -> EgressPolicy {
    let mut policy = EgressPolicy::default();
    let nets = case["config"]["allow_cidrs"].as_array().into_iter().flatten();
    policy.allow_entries(nets.map(|net| net.as_str().unwrap())).unwrap();
    policy
}

/// Broken: a tenant reaches an internal service by writing its address in a way that we do not recognise, or a public
/// receiver is refused.
#[test]
fn every_url_case_is_judged_as_published() {
    let cases = cases();
    assert_eq!(cases.len(), CASES);
    let (mut judged, mut wrong) = (0, Vec::new());
    for case in cases.iter().filter(|case| case["fixture"].is_null()) {
        let verdict = policy(case).judge_url(case["url"].as_str().unwrap());
        if verdict.is_ok() != (case["expect"] == "allowed") {
            wrong.push(format!("{} {:.80} {}: {verdict:?}", case["id"], case["url"], case["why"]));
        }
        judged += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(judged, CASES - FIXTURE_CASES);
}

/// Broken: a harmless-looking name leads inside through what it resolves to.
#[test]
fn every_dns_case_is_judged_as_published() {
    let own: SocketAddr = "93.184.215.77:80".parse().unwrap();
    let (mut judged, mut seen) = (0, 0);
    for case in cases().iter().filter(|case| !case["fixture"].is_null()) {
        seen += 1;
        let policy = EgressPolicy { own: vec![own], ..EgressPolicy::default() };
        let target = policy.judge_url(case["url"].as_str().unwrap()).unwrap();
        let fixture = &case["fixture"];
        let parse = |text: &str| text.replace("<own public ip>", &own.ip().to_string()).parse().unwrap();
        let texts = |key: &str| fixture[key].as_array().cloned().unwrap_or_default();
        let mut answers: Vec<IpAddr> =
            [texts("AAAA"), texts("A")].concat().iter().map(|text| parse(text.as_str().unwrap())).collect();
        if let Some(last) = texts("sequence").last() {
            answers = last.as_array().unwrap().iter().map(|text| parse(text.as_str().unwrap())).collect();
        }
        if answers.is_empty() {
            // Redirects and Refresh: a matter of the transport, which never follows them.
            continue;
        }
        judged += 1;
        let verdict = policy.judge_answers(&target, &answers);
        assert_eq!(verdict.is_ok(), case["expect"] == "allowed", "{case}: {verdict:?}");
    }
    assert_eq!((seen, judged), (FIXTURE_CASES, FIXTURE_CASES - 2));
}

/// Broken: the bytes on the wire differ from the URL that was judged (decoded line breaks, letter case, trailing dot).
#[test]
fn the_target_is_the_serialised_form() {
    let policy = EgressPolicy::default();
    let target = policy.judge_url("http://example.com/%0d%0aX-Injected:%201?a=b%20c&ü").unwrap();
    assert_eq!(target.path_and_query, "/%0d%0aX-Injected:%201?a=b%20c&%C3%BC");
    let target = policy.judge_url("HTTPS://EXAMPLE.com.:443").unwrap();
    assert_eq!((target.authority.as_str(), target.port, target.tls), ("example.com", 443, true));
    assert_eq!((target.path_and_query.as_str(), target.url.as_str()), ("/", "https://example.com/"));
    let target = policy.judge_url("http://[2001:4860:4860::8888]:8080/x").unwrap();
    assert_eq!(target.authority, "[2001:4860:4860::8888]:8080");
    assert_eq!(policy.judge_url("https://bücher.example.com/").unwrap().authority, "xn--bcher-kva.example.com");
}

/// Broken: a URL reads differently to two parsers, and the judge sees the harmless reading.
#[test]
fn ambiguous_texts_are_refused() {
    let policy = EgressPolicy::default();
    for text in [
        "",
        "example.com",
        "http://",
        "http:///example.com/",
        "http:/example.com",
        "http://example.com..",
        "http://.example.com",
        "http://a..example.com",
        " http://example.com",
        "http://example.com ",
        "http://exa mple.com",
        "http://example.com/a\r\nb",
        "http://example.com\u{3000}/",
        "http://example.com/\u{85}",
        "http://user@example.com/",
        "http://:pw@example.com/",
        "http://@example.com/",
        "http://example.com/#x",
        "http://example.com/#",
        "http://[fe80::1%25eth0]/",
        "http://[::1",
        "http://[example.com]/",
        "http://example.com:0/",
        "http://example.com:99999/",
        "http://example.com:25/",
        "ftp://example.com/",
        "http://exa*mple.com/",
        "http://example.com%00.evil.com/",
        "javascript:alert(1)",
        "http:\\\\example.com",
        "https:example.com",
    ] {
        assert!(matches!(policy.judge_url(text), Err(EgressError::Malformed(_))), "{text:?}: {:?}", policy.judge_url(text));
    }
    let long = format!("https://example.com/{}", "ü".repeat(400));
    assert!(long.len() < limits::URL_BYTES_MAX, "short as written, too long as serialised");
    assert!(matches!(policy.judge_url(&long), Err(EgressError::Malformed(_))));
}

/// Broken: development and private deployments cannot be switched on, or switching them on opens more than was listed.
#[test]
fn the_operator_opens_exactly_what_is_listed() {
    let mut policy = EgressPolicy::default();
    policy.allow_entries("127.0.0.0/8, 10.1.0.0/16,receiver,.svc , *.example.internal".split(',')).unwrap();
    for url in [
        "http://127.0.0.1:1234",
        "http://localhost:1234/",
        "http://app.localhost/",
        "http://[::ffff:127.0.0.1]:99/x",
        "http://10.1.2.3/",
        "http://receiver:8080/",
        "http://web.default.svc/",
        "http://a.b.example.internal/",
    ] {
        assert!(policy.judge_url(url).is_ok(), "{url}: {:?}", policy.judge_url(url));
    }
    for url in
        ["http://10.2.0.1/", "http://[::1]/", "http://other/", "http://example.local/", "http://xsvc/", "http://169.254.169.254/"]
    {
        assert!(policy.judge_url(url).is_err(), "{url}");
    }
    let host = Host::Name("localhost".into());
    assert_eq!(policy.localhost_answers(&host), Some(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]));
    assert_eq!(EgressPolicy::default().localhost_answers(&host), Some(vec![]));

    let receiver = policy.judge_url("http://receiver/").unwrap();
    let private: IpAddr = "192.168.7.7".parse().unwrap();
    assert_eq!(policy.judge_answers(&receiver, &[private]), Ok(()));
    assert!(policy.judge_ip(private).is_err());
    for bad in ["10.0.0.0/33", "300.0.0.1", "a b", "http://x", "."] {
        assert!(policy.allow_entries([bad]).is_err(), "{bad}");
    }
}

/// Broken: an allow-list wide enough for a private network hands out the machine's cloud credentials.
#[test]
fn metadata_needs_its_own_switch() {
    let mut policy = EgressPolicy::default();
    policy.allow_entries(["0.0.0.0/0", "::/0", "metadata.google.internal"]).unwrap();
    let metadata: Vec<IpAddr> = ["169.254.169.254", "169.254.170.2", "168.63.129.16", "fd00:ec2::254", "::ffff:169.254.169.254"]
        .iter()
        .map(|text| text.parse().unwrap())
        .collect();
    let named = policy.judge_url("http://metadata.google.internal/").unwrap();
    for ip in &metadata {
        assert_eq!(policy.judge_ip(*ip).unwrap_err().kind(), RefusalKind::Metadata);
        assert!(policy.judge_answers(&named, &[*ip]).is_err());
    }
    policy.allow_metadata = true;
    for ip in metadata {
        assert_eq!(policy.judge_ip(ip), Ok(()));
        assert!(EgressPolicy { allow_metadata: true, ..EgressPolicy::default() }.judge_ip(ip).is_err());
    }
}

/// Broken: a delivery loops back into our own API.
#[test]
fn our_own_listeners_are_refused_even_when_their_network_is_allowed() {
    let mut policy = EgressPolicy { own: vec!["0.0.0.0:8071".parse().unwrap()], ..EgressPolicy::default() };
    policy.allow_entries(["127.0.0.0/8"]).unwrap();
    let Err(EgressError::Refused(refusal)) = policy.judge_url("http://127.0.0.1:8071/api/v1/app/") else { panic!("let through") };
    assert_eq!(refusal.kind(), RefusalKind::OwnListener);
    assert!(policy.judge_url("http://127.0.0.1:8072/").is_ok());
}

/// Broken: tenants map the operator's network by comparing error texts, or operators cannot see why a URL is refused.
#[test]
fn tenants_read_one_text_and_operators_the_reason() {
    let policy = EgressPolicy::default();
    for (url, reason) in
        [("http://10.0.0.1/", "private"), ("http://db/", "single label"), ("http://x.internal/", "private domain")]
    {
        let error = policy.judge_url(url).unwrap_err();
        assert_eq!(error.to_string(), UNREACHABLE_HOST);
        let EgressError::Refused(refusal) = error else { panic!("{url}") };
        assert!(refusal.reason().contains(reason), "{}", refusal.reason());
    }
}

/// Broken: `https_only` is configured and a signed payload still leaves in the clear.
#[test]
fn https_only_refuses_http() {
    let policy = EgressPolicy { https_only: true, ..EgressPolicy::default() };
    assert!(policy.judge_url("https://example.com/").is_ok());
    assert!(matches!(policy.judge_url("http://example.com/"), Err(EgressError::Malformed(_))));
}
