//! Providers that the Svix API names as types of sources: requests signed by other programs, and the flow that one of them needs.

use bellwire_verify::handshake::{Flow, Handshake, HandshakeReason, Knowledge, Signature};
use bellwire_verify::vectors::{Case, Expect, run};
use bellwire_verify::{Credentials, Request};

/// How many cases the file holds, so that none is lost in silence when it is written anew.
const CASES: usize = 50;

/// Broken: a genuine request of one of these providers is refused, or a forged one is taken. `tests/data/svix_sources.py` says how the
/// requests were made.
#[test]
fn requests_signed_by_other_programs_are_judged_right() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../data/svix_sources.json")).unwrap();
    assert_eq!(cases.len(), CASES);
    let outcomes = cases.iter().map(|case| (case, run(case))).filter(|(_, outcome)| !outcome.is_right());
    let wrong: Vec<_> = outcomes.map(|(case, outcome)| format!("{}: {:?} ({})", case.id, outcome.got, outcome.detail)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for case in &cases {
        let has = |expect| cases.iter().any(|other| other.provider == case.provider && other.expect == expect);
        assert!(has(Expect::Valid) && has(Expect::Invalid), "{} has cases of one kind only", case.provider);
    }
}

fn adobe_sign(method: &str, client_id: &[&str], credentials: &Credentials) -> Handshake {
    let headers: Vec<(&str, &[u8])> = client_id.iter().map(|id| ("x-adobesign-clientid", id.as_bytes())).collect();
    let request = Request { method, url: "https://hooks.example.test/in/1", headers: &headers, body: b"", peer: None };
    Flow::named("adobe-sign").unwrap().judge(&request, &Knowledge::new(credentials), Signature::NotValid)
}

/// Broken: Acrobat Sign cannot register the webhook or repeats each event for three days, or somebody else's webhook is registered.
#[test]
fn acrobat_sign_reads_its_client_id_in_every_answer() {
    let own = Credentials::secret("CBJCHBCAABAA");
    match adobe_sign("GET", &["CBJCHBCAABAA"], &own) {
        Handshake::Answer(answer) => {
            assert_eq!((answer.status, answer.body.as_str(), &answer.keep), (200, "", &None));
            assert!(answer.headers.contains(&("X-AdobeSign-ClientId", "CBJCHBCAABAA".to_owned())), "{answer:?}");
        }
        other => panic!("{other:?}"),
    }
    let acknowledgement = Flow::named("adobe-sign").unwrap().acknowledgement(&own);
    assert_eq!(acknowledgement.status, 200);
    assert!(acknowledgement.headers.contains(&("X-AdobeSign-ClientId", "CBJCHBCAABAA".to_owned())), "{acknowledgement:?}");

    for (client_ids, credentials) in
        [(["CBJCHBCAABAB"].as_slice(), &own), (&["CBJCHBCAABAA"], &Credentials::none()), (&[""], &Credentials::secret(""))]
    {
        match adobe_sign("GET", client_ids, credentials) {
            Handshake::Refuse(refused) => assert_eq!((refused.status, refused.reason), (401, HandshakeReason::TokenMismatch)),
            other => panic!("{client_ids:?}: {other:?}"),
        }
    }
    assert_eq!(adobe_sign("POST", &["CBJCHBCAABAA"], &own), Handshake::NotOne, "an event is taken for a handshake");
    assert_eq!(adobe_sign("GET", &[], &own), Handshake::NotOne);
    assert!(Flow::named("adobe-sign").unwrap().acknowledgement(&Credentials::none()).headers.is_empty());
}
