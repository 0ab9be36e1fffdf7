//! Every preset signs its own example and takes it back, and takes nothing that differs from it.

use bellwire_verify::vectors::{Case, run};
use bellwire_verify::{Credentials, Presets, Signed};

use crate::provider::{NOW_S, Provider};

/// Signed with public keys over SHA-1, which this crate verifies but does not make: recorded requests stand in for them.
const VERIFY_ONLY: [&str; 2] = ["ebay", "postal"];

fn providers(is_stranger: bool) -> Vec<Provider<'static>> {
    let presets = Presets::builtin().iter();
    let providers: Vec<_> = presets.filter_map(|preset| Provider::of(preset, is_stranger)).collect();
    assert_eq!(providers.len() + VERIFY_ONLY.len(), 183);
    providers
}

/// Broken: genuine requests of a provider are refused, or `sign` and `verify` disagree.
#[test]
fn every_preset_takes_what_it_signs() {
    for provider in providers(false) {
        let signed = provider.sign(NOW_S);
        let verdict = provider.verify(&signed, NOW_S);
        assert!(verdict.is_ok(), "{}: {} {:?}", provider.preset.id(), verdict.unwrap_err(), signed);
        let verdict = signed.with_request(|request| provider.preset.check_head(request, &provider.receiver(), NOW_S));
        assert_eq!(verdict, Ok(()), "{}: the head alone is refused", provider.preset.id());
    }
}

/// Broken: the two presets that are not signed here are not tested at all.
#[test]
fn recorded_requests_of_verify_only_presets_are_taken_and_changed_ones_are_not() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../data/sha1_signed.json")).unwrap();
    for id in VERIFY_ONLY {
        assert!(Provider::of(Presets::builtin().get(id).unwrap(), false).is_none(), "{id} can be signed, so it belongs above");
        let own: Vec<_> = cases.iter().filter(|case| case.provider == id).collect();
        assert!(!own.is_empty(), "{id}");
        for case in own {
            assert_eq!((run(case).reason, run(case).is_right()), ("ok", true), "{}", case.id);
            let mut changed = case.clone();
            changed.body = changed.body.map(|body| body.replace('1', "2"));
            assert_eq!(run(&changed).reason, "no_match", "{}", case.id);
        }
    }
}

/// Broken: somebody who holds another secret can send in a provider's name.
#[test]
fn no_preset_takes_what_a_stranger_signs() {
    for (own, stranger) in providers(false).iter().zip(providers(true)) {
        let refusal = own.verify(&stranger.sign(NOW_S), NOW_S).unwrap_err();
        assert_eq!(refusal.code(), "no_match", "{}: {refusal}", own.preset.id());
    }
}

/// Broken: requests fail while a secret is being exchanged.
#[test]
fn any_of_several_secrets_fits_and_the_verdict_says_which() {
    for (own, stranger) in providers(false).iter().zip(providers(true)) {
        if own.preset.family() == "certificate" {
            continue; // One address has one certificate.
        }
        let both = own.and_receiver(stranger.receiver());
        let signed = own.sign(NOW_S);
        let verdict = signed.with_request(|request| own.preset.verify(request, &both, NOW_S));
        assert_eq!(verdict.unwrap().secret, Some(1), "{}", own.preset.id());
    }
}

/// Broken: a key that was made ready for another preset, or before a secret was added, decides; or the verdict names another secret.
#[test]
fn credentials_that_were_made_ready_lead_to_the_same_verdict() {
    let preset = |id: &str| Presets::builtin().get(id).unwrap();
    // Text, base64 and hexadecimal as keys, with three algorithms.
    let others = ["github", "intercom", "standard-webhooks", "adyen", "paystack"].map(preset);
    for (own, stranger) in providers(false).iter().zip(providers(true)) {
        let signed = own.sign(NOW_S);
        let judge = |credentials: &Credentials| signed.with_request(|request| own.preset.verify(request, credentials, NOW_S));
        let (alone, both) = (own.receiver(), own.and_receiver(stranger.receiver()));
        for preparer in others.iter().copied().chain([own.preset]) {
            let id = (own.preset.id(), preparer.id());
            assert_eq!(judge(&preparer.prepare(alone.clone())), judge(&alone), "{id:?}");
            assert_eq!(judge(&preparer.prepare(both.clone())), judge(&both), "{id:?}");
            assert_eq!(judge(&preparer.prepare(stranger.receiver())), judge(&stranger.receiver()), "{id:?}");
            let added_later = own.and_receiver(preparer.prepare(stranger.receiver()));
            assert_eq!(judge(&added_later), judge(&both), "{id:?}");
            let unusable = preparer.prepare(alone.clone().and_secret(" "));
            assert_eq!(judge(&unusable), judge(&alone.clone().and_secret(" ")), "{id:?}");
        }
    }
}

/// Broken: leaving the signature away turns verification off (T4).
#[test]
fn t4_no_preset_takes_a_request_without_its_signature() {
    for provider in providers(false) {
        let preset = provider.preset;
        let verdict = preset.example().with_request(|request| preset.verify(request, &provider.receiver(), NOW_S));
        let code = verdict.unwrap_err().code();
        // Where other things are looked for first, those may be missing too; a URL always has parts, none of which is the secret.
        let is_told = matches!(code, "signature_missing" | "value_missing")
            || code == "no_match" && matches!(preset.family(), "secret-url" | "network")
            || code == "signature_malformed" && preset.id() == "wix";
        assert!(is_told, "{}: {code}", preset.id());
    }
}

/// Broken: a body can be exchanged under a genuine signature.
#[test]
fn a_changed_byte_anywhere_in_a_covered_body_is_noticed() {
    let mut covered = 0;
    for provider in providers(false).iter().filter(|provider| provider.preset.covers_body()) {
        let signed = provider.sign(NOW_S);
        covered += 1;
        for at in 0..signed.body.len() {
            let mut changed = signed.clone();
            changed.body[at] ^= 1;
            // What is not signed is the envelope: the name of a field, space in JSON. What is in it must be.
            if provider.verify(&changed, NOW_S).is_ok() {
                let text = String::from_utf8_lossy(&changed.body).into_owned();
                assert!(is_outside_of_signed_part(provider.preset.id(), &text, &signed), "{}: {text}", provider.preset.id());
            }
        }
    }
    assert!(covered > 130, "only {covered} presets cover the body");
}

/// Four providers sign a part of the body, in which everything that counts stands.
fn is_outside_of_signed_part(id: &str, changed: &str, signed: &Signed) -> bool {
    let original = String::from_utf8_lossy(&signed.body).into_owned();
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
    match id {
        "usps" => json(changed).zip(json(&original)).is_some_and(|(a, b)| a["payload"] == b["payload"]),
        "exact-online" => json(changed).zip(json(&original)).is_some_and(|(a, b)| a["Content"] == b["Content"]),
        // Names of members that are not signed; see the test of its own envelope.
        "aws-sns" => json(changed).zip(json(&original)).is_some_and(|(a, b)| a["Message"] == b["Message"]),
        _ => false,
    }
}

/// Broken: a recorded request can be sent again later, or a clock that is wrong is taken for an attack of some other kind.
#[test]
fn stale_and_future_requests_are_refused_wherever_the_provider_names_a_limit() {
    let mut limited = 0;
    for provider in providers(false) {
        let Some(tolerance_s) = provider.preset.tolerance_s() else { continue };
        limited += 1;
        let id = provider.preset.id();
        // Tokens carry their own end, which may come before the limit.
        let is_token = provider.preset.family() == "jwt";
        let border = if is_token { NOW_S + tolerance_s - 1 } else { NOW_S + tolerance_s };
        let signed = provider.sign(NOW_S);
        assert!(provider.verify(&signed, border).is_ok(), "{id}");
        assert_eq!(provider.verify(&signed, NOW_S + tolerance_s + 1).unwrap_err().code(), "timestamp_too_old", "{id}");
        assert_eq!(provider.verify(&signed, NOW_S - tolerance_s - 1).unwrap_err().code(), "timestamp_too_new", "{id}");
    }
    assert!(limited > 35, "only {limited} presets have a limit");
}

/// Broken: a receiver cannot widen Paddle's five seconds for requests that waited in a queue, or add a limit where there is none.
#[test]
fn receivers_set_their_own_tolerance() {
    for (id, age_s) in [("paddle", 600), ("discord", 600)] {
        let provider = Provider::of(Presets::builtin().get(id).unwrap(), false).unwrap();
        let signed = provider.sign(NOW_S);
        let verify = |credentials: &Credentials| {
            signed.with_request(|request| provider.preset.verify(request, credentials, NOW_S + age_s))
        };
        assert!(verify(&provider.receiver().tolerance_s(600)).is_ok(), "{id}");
        assert_eq!(verify(&provider.receiver().tolerance_s(599)).unwrap_err().code(), "timestamp_too_old", "{id}");
    }
}

/// Broken: addresses that are not the provider's pass, or nobody's address does.
#[test]
fn addresses_count_where_nothing_else_does() {
    let provider = Provider::of(Presets::builtin().get("salesforce").unwrap(), false).unwrap();
    let mut signed = provider.sign(NOW_S);
    for (peer, code) in [(None, "address_refused"), (Some("192.0.2.1".parse().unwrap()), "address_refused")] {
        signed.peer = peer;
        assert_eq!(provider.verify(&signed, NOW_S).unwrap_err().code(), code);
    }
    let own = provider.receiver().setting("allow", "192.0.2.0/24, 2001:db8::/32");
    assert!(signed.with_request(|request| provider.preset.verify(request, &own, NOW_S)).is_ok());
    let broken = provider.receiver().setting("allow", "192.0.2.0/24,office");
    assert_eq!(
        signed.with_request(|request| provider.preset.verify(request, &broken, NOW_S)).unwrap_err().code(),
        "setting_invalid"
    );
}

/// Broken: the two parts of an event are not found, so that nothing can be routed or recognised when it comes again.
#[test]
fn events_are_found_where_the_presets_say() {
    for preset in Presets::builtin().iter() {
        let event = preset.example().with_request(|request| preset.event(request));
        let names =
            |text: &str| preset.example().body.contains(text) || preset.example().headers.iter().any(|(_, value)| *value == text);
        if names("example.created") && names("evt_1") && preset.id() != "wix" {
            assert!(event.kind.is_some_and(|kind| kind.contains("example.created")) || event.id.is_some(), "{}", preset.id());
        }
    }
    let github = Presets::builtin().get("github").unwrap();
    let request = |headers, body| bellwire_verify::Request { method: "POST", url: "/", headers, body, peer: None };
    let event = github.event(&request(&[("x-github-event", b"issues"), ("x-github-delivery", b"1")], br#"{"action":"opened"}"#));
    assert_eq!((event.kind.as_deref(), event.id.as_deref()), (Some("issues.opened"), Some("1")));
    let form = github.event(&request(&[("x-github-event", b"issues")], b"payload=%7B%22action%22%3A%22closed%22%7D"));
    assert_eq!(form.kind.as_deref(), Some("issues.closed"));
}
