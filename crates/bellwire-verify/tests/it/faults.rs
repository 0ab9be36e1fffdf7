//! Faults of other webhook software, by their numbers in the project's list of known faults, and random damage to genuine requests.

use bellwire_verify::{Credentials, Presets, Request, SECRETS_MAX, SIGNATURES_MAX, Signed};

use crate::provider::{NOW_S, Provider};

fn provider(id: &str) -> Provider<'static> {
    Provider::of(Presets::builtin().get(id).unwrap(), false).unwrap()
}

fn all() -> Vec<Provider<'static>> {
    Presets::builtin().iter().filter_map(|preset| Provider::of(preset, false)).collect()
}

fn header<'s>(signed: &'s Signed, place: &str) -> Option<&'s [u8]> {
    let name = place.strip_prefix("header:")?;
    signed.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_slice())
}

fn with_header(signed: &Signed, name: &str, value: &[u8]) -> Signed {
    let mut changed = signed.clone();
    for (known, old) in &mut changed.headers {
        if known.eq_ignore_ascii_case(name) {
            *old = value.to_vec();
        }
    }
    changed
}

/// Broken: a short, long, empty or repeated signature passes because the comparison stops early, or panics (T1, T2).
#[test]
fn t1_t2_signatures_of_every_wrong_length_are_refused_without_a_panic() {
    let mut checked = 0;
    for provider in all() {
        let signed = provider.sign(NOW_S);
        for place in provider.preset.signature_places() {
            let Some(good) = header(&signed, &place) else { continue };
            let name = place.trim_start_matches("header:");
            checked += 1;
            for length in 0..good.len() {
                let verdict = provider.verify(&with_header(&signed, name, &good[..length]), NOW_S);
                assert!(verdict.is_err(), "{} takes the first {length} of {} characters", provider.preset.id(), good.len());
            }
            for longer in [[good, b"0"].concat(), [good, b"00"].concat(), [b"0", good].concat(), [b"00", good].concat()] {
                assert!(provider.verify(&with_header(&signed, name, &longer), NOW_S).is_err(), "{}", provider.preset.id());
            }
            // In a list, a second copy of the last element is a genuine signature; elsewhere copies make the only one too long.
            let is_list = provider.preset.family().starts_with("hmac") && good.iter().any(|c| b",;&".contains(c));
            for copies in [2, 10_000].into_iter().filter(|_| !is_list) {
                let verdict = provider.verify(&with_header(&signed, name, &good.repeat(copies)), NOW_S);
                assert!(verdict.is_err(), "{} takes {copies} copies", provider.preset.id());
            }
        }
    }
    assert!(checked > 130, "only {checked} presets were checked");
}

/// Broken: an empty secret is taken, so that everybody knows it (T3), or some value turns verification off (T6).
#[test]
fn t3_t6_empty_secrets_are_refused_at_configuration_and_none_is_magic() {
    for provider in all() {
        let (preset, signed) = (provider.preset, provider.sign(NOW_S));
        let with_settings = |credentials| {
            preset.example().settings.iter().fold(credentials, |all: Credentials, (name, value)| all.setting(name, value))
        };
        for empty in ["", " ", "\t\r\n"] {
            for credentials in [Credentials::secret(empty), Credentials::secret("0123456789abcdef:").and_secret(empty)] {
                let credentials = with_settings(credentials);
                if preset.family() != "certificate" {
                    assert!(preset.check_credentials(&credentials).is_err(), "{} takes {empty:?}", preset.id());
                }
                assert!(signed.with_request(|request| preset.verify(request, &credentials, NOW_S)).is_err(), "{}", preset.id());
            }
        }
        for magic in ["***", "whsec_", "none", "null", "false", "*", "disabled", "insecure_no_auth", "signkey-", "v1,whsec_"] {
            let credentials = with_settings(Credentials::secret(magic));
            assert!(
                signed.with_request(|request| preset.verify(request, &credentials, NOW_S)).is_err(),
                "{} {magic}",
                preset.id()
            );
        }
        let none = with_settings(Credentials::none());
        let code = signed.with_request(|request| preset.verify(request, &none, NOW_S)).unwrap_err().code();
        assert!(matches!(code, "secret_missing" | "certificate_missing"), "{}: {code}", preset.id());
    }
    let many = (0..=SECRETS_MAX).fold(Credentials::none(), |all, index| all.and_secret(format!("secret-{index}")));
    assert_eq!(provider("github").preset.check_credentials(&many).unwrap_err().code(), "secrets_too_many");
}

/// Broken: something is changed or remembered before a request is verified, so that the next one slips through (T5).
#[test]
fn t5_refused_requests_leave_nothing_behind() {
    for provider in all() {
        let (signed, receiver) = (provider.sign(NOW_S), provider.receiver());
        let verify = |request: &Request<'_>| provider.preset.verify(request, &receiver, NOW_S);
        let before = signed.with_request(verify);
        for _ in 0..3 {
            let refused = provider.preset.example().with_request(verify);
            assert!(refused.is_err(), "{}", provider.preset.id());
            assert_eq!(provider.preset.example().with_request(verify), refused, "{}", provider.preset.id());
        }
        assert_eq!(signed.with_request(verify), before, "{}", provider.preset.id());
    }
}

/// Broken: a rotation with several signatures in one header fails, or their number is not bounded (T9).
#[test]
fn t9_any_of_several_signatures_passes_in_any_order_up_to_the_bound() {
    for (id, separator) in [("standard-webhooks", " "), ("svix", " "), ("pagerduty", ","), ("mollie", ", "), ("revolut", ",")] {
        let own = provider(id);
        let signed = own.sign(NOW_S);
        let name = own.preset.signature_places()[0].trim_start_matches("header:").to_owned();
        let good = String::from_utf8(header(&signed, &format!("header:{name}")).unwrap().to_vec()).unwrap();
        let stranger = Provider::of(own.preset, true).unwrap().sign(NOW_S);
        let wrong = String::from_utf8(header(&stranger, &format!("header:{name}")).unwrap().to_vec()).unwrap();
        let verdict = |parts: &[&str]| own.verify(&with_header(&signed, &name, parts.join(separator).as_bytes()), NOW_S);
        assert!(verdict(&[&good, &wrong]).is_ok() && verdict(&[&wrong, &good]).is_ok(), "{id}");
        assert_eq!(verdict(&[&wrong, &wrong]).unwrap_err().code(), "no_match", "{id}");
        let mut many = vec![wrong.as_str(); SIGNATURES_MAX - 1];
        many.push(&good);
        assert!(verdict(&many).is_ok(), "{id}");
        many.push(&wrong);
        assert_eq!(verdict(&many).unwrap_err().code(), "signatures_too_many", "{id}");
        assert_eq!(verdict(&vec![good.as_str(); 1_000]).unwrap_err().code(), "signatures_too_many", "{id}");
    }
}

/// Broken: Stripe's list takes a second time that is not the signed one.
#[test]
fn two_times_in_one_signature_header_are_refused() {
    let stripe = provider("stripe");
    let signed = stripe.sign(NOW_S);
    let good = String::from_utf8(header(&signed, "header:Stripe-Signature").unwrap().to_vec()).unwrap();
    for twice in [format!("t=1,{good}"), format!("{good},t=1")] {
        let refusal = stripe.verify(&with_header(&signed, "Stripe-Signature", twice.as_bytes()), NOW_S).unwrap_err();
        assert_eq!((refusal.code(), refusal.place()), ("signature_malformed", Some("field:t")));
    }
}

/// Broken: one of two headers of the same name is verified and the other one used.
#[test]
fn repeated_headers_are_refused() {
    for provider in all() {
        let signed = provider.sign(NOW_S);
        for place in provider.preset.signature_places() {
            let Some(good) = header(&signed, &place).map(<[u8]>::to_vec) else { continue };
            for second in [good, b"x".to_vec()] {
                let mut twice = signed.clone();
                twice.headers.push((place.trim_start_matches("header:").to_ascii_uppercase(), second));
                assert_eq!(provider.verify(&twice, NOW_S).unwrap_err().code(), "header_repeated", "{}", provider.preset.id());
            }
        }
    }
}

/// Broken: one of two form fields of the same name is verified and the other one used: a genuine request with a field put before or
/// behind says what a stranger wants (T10).
#[test]
fn repeated_fields_of_forms_are_refused() {
    let braintree = provider("braintree");
    let signed = braintree.sign(NOW_S);
    let own = String::from_utf8(signed.body.clone()).unwrap();
    for field in ["bt_payload=PG5vdGlmaWNhdGlvbj4%3D", "bt_signature=a%7Cb"] {
        for body in [format!("{own}&{field}"), format!("{field}&{own}")] {
            let changed = Signed { body: body.into_bytes(), ..signed.clone() };
            let refusal = braintree.verify(&changed, NOW_S).unwrap_err();
            let name = field.split('=').next().unwrap();
            assert_eq!((refusal.code(), refusal.place()), ("field_repeated", Some(format!("form:{name}").as_str())));
        }
    }
    let twice = Signed { body: format!("{own}&kind=a&kind=b").into_bytes(), ..signed };
    assert!(braintree.verify(&twice, NOW_S).is_ok(), "fields that nobody reads may be repeated");
}

/// Broken: a JSON body posing as a form or as a file upload reaches another parser than the provider's (T10).
#[test]
fn t10_the_content_type_decides_the_parser() {
    for (id, other) in [
        ("mailgun", "multipart/form-data; boundary=x"),
        ("figma", "application/x-www-form-urlencoded"),
        ("adyen", "multipart/form-data; boundary=x"),
        ("aws-sns", "application/x-www-form-urlencoded"),
        ("braintree", "application/json"),
        ("mandrill", "application/json"),
        ("twilio", "application/json"),
        ("dropbox-sign", "application/json"),
    ] {
        let provider = provider(id);
        let changed = with_header(&provider.sign(NOW_S), "content-type", other.as_bytes());
        let code = provider.verify(&changed, NOW_S).unwrap_err().code();
        assert!(matches!(code, "signature_missing" | "body_malformed" | "value_missing"), "{id}: {code}");
    }
}

/// Broken: a large body is taken in for a request that could be refused by its head (T22).
#[test]
fn t22_the_head_alone_refuses_what_it_can() {
    let mut early = 0;
    for provider in all().iter().filter(|provider| provider.preset.family() != "certificate") {
        let (preset, receiver) = (provider.preset, provider.receiver());
        let is_in_head = preset
            .signature_places()
            .iter()
            .all(|place| !place.contains("json:/") && !place.contains("form:") && place != "body");
        if !is_in_head
            || preset.signature_places().iter().any(|place| place.starts_with("xml:") || place.starts_with("multipart:"))
        {
            continue;
        }
        early += 1;
        let verdict = preset.example().with_request(|request| preset.check_head(request, &receiver, NOW_S));
        assert!(verdict.is_err(), "{} waits for the body although the signature is missing", preset.id());
        let signed = provider.sign(NOW_S);
        if preset.tolerance_s().is_some() && !matches!(preset.id(), "linear" | "plaid") {
            let late = signed.with_request(|request| preset.check_head(request, &receiver, NOW_S + 100_000));
            assert_eq!(late.unwrap_err().code(), "timestamp_too_old", "{}", preset.id());
        }
    }
    assert!(early > 150, "only {early} presets can say anything before the body");
}

/// Numbers that look random and are the same at every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn damage(&mut self, bytes: &mut Vec<u8>) {
        const ODD: [&[u8]; 12] =
            [b"", b"=", b",", b"..", b"{", b"\"", b"%", b"\xff\xfe", b"\0", b"[[[[[[[[", b"-1", b"\xf0\x9f\x92\xa9"];
        let at = self.below(bytes.len() + 1);
        match self.below(5) {
            0 => bytes.truncate(at),
            1 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
            2 => drop(bytes.splice(at..at, ODD[self.below(ODD.len())].iter().copied())),
            3 => drop(bytes.drain(at..(at + 3).min(bytes.len()))),
            _ => {
                let copy = bytes.clone();
                bytes.extend(copy.into_iter().take(at));
            }
        }
    }
}

/// Broken: a malformed request of some provider panics, or damage to what is signed goes unnoticed (T23).
#[test]
fn t23_damaged_requests_never_panic_and_never_gain_anything() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut refused = 0;
    for provider in all() {
        let (preset, receiver, signed) = (provider.preset, provider.receiver(), provider.sign(NOW_S));
        for _ in 0..300 {
            let mut damaged = signed.clone();
            match random.below(4) {
                0 => random.damage(&mut damaged.body),
                1 => {
                    let mut url = damaged.url.into_bytes();
                    random.damage(&mut url);
                    damaged.url = String::from_utf8_lossy(&url).into_owned();
                }
                _ => {
                    let at = random.below(damaged.headers.len());
                    random.damage(&mut damaged.headers[at].1);
                }
            }
            damaged.with_request(|request| {
                let verdict = preset.verify(request, &receiver, NOW_S);
                refused += usize::from(verdict.is_err());
                // Whatever the head alone refuses, the whole request must not pass.
                if preset.check_head(request, &receiver, NOW_S).is_err() {
                    assert!(verdict.is_err(), "{}: {request:?}", preset.id());
                }
                if verdict.is_ok() && preset.covers_body() && !matches!(preset.id(), "usps" | "exact-online" | "aws-sns") {
                    assert_eq!(request.body, signed.body, "{}", preset.id());
                }
                preset.event(request);
                drop(preset.certificate_url(request));
            });
        }
    }
    assert!(refused > 20_000, "only {refused} damaged requests were refused");
}

/// Broken: deep or endless bodies exhaust the stack or the memory before they are refused (T23).
#[test]
fn t23_hostile_bodies_are_refused() {
    let deep = b"[".repeat(1_000_000);
    let many = b"a=1&".repeat(100_000);
    let wide = [b"{\"value\":[".as_slice(), &b"{},".repeat(100_000), b"{}]}"].concat();
    for provider in all() {
        for body in [&deep, &many, &wide] {
            let mut signed = provider.sign(NOW_S);
            signed.body.clone_from(body);
            let verdict = provider.verify(&signed, NOW_S);
            assert!(verdict.is_err() || !provider.preset.covers_body(), "{}", provider.preset.id());
        }
    }
}

/// Broken: a secret, a signature or a token lands in a log line.
#[test]
fn refusals_and_debug_output_hold_no_secrets() {
    for provider in all() {
        let signed = provider.sign(NOW_S);
        let stranger = Provider::of(provider.preset, true).unwrap();
        let refusal = stranger.verify(&signed, NOW_S).unwrap_err();
        let shown = format!("{refusal} {refusal:?} {:?}", stranger.receiver());
        for secret in ["1f3a1c5d7e9b0246", "8f3a1c5d7e9b0246", "BEGIN PUBLIC"] {
            assert!(!shown.contains(secret), "{}: {shown}", provider.preset.id());
        }
        for place in provider.preset.signature_places() {
            if let Some(value) = header(&signed, &place) {
                assert!(!shown.contains(std::str::from_utf8(value).unwrap()), "{}: {shown}", provider.preset.id());
            }
        }
    }
}
