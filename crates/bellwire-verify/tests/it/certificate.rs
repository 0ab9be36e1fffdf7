//! Certificates that requests point at: their dates and their names, with requests that are genuine in all else.

use bellwire_verify::{Credentials, Presets};

use crate::provider::{DATES, NOW_S, Provider, certificate, pairs};

const DAY_S: u64 = 86_400;
/// 1 January 2036.
const END_S: u64 = 2_082_758_400;
const PAYPAL: &str = "messageverificationcerts.paypal.com";
const SNS: &str = "sns.amazonaws.com";

/// The code of the verdict over the provider's own example, whose certificate has this name and these dates.
fn verdict(id: &str, name: &str, dates: [&str; 2], now_s: u64) -> &'static str {
    verdict_with(id, name, dates, now_s, Credentials::none())
}

fn verdict_with(id: &str, name: &str, dates: [&str; 2], now_s: u64, credentials: Credentials) -> &'static str {
    let preset = Presets::builtin().get(id).unwrap();
    let provider = Provider::of(preset, false).unwrap();
    // Both providers sign with RSA, which is the first pair.
    let pem = certificate(name, &pairs(false)[0], dates);
    let url = preset.example().with_request(|request| preset.certificate_url(request)).unwrap().unwrap();
    let settings = preset.example().settings.iter().fold(credentials, |all, (name, value)| all.setting(name, value));
    let credentials = settings.certificate(url.clone(), pem);
    let verdict = provider.sign(now_s).with_request(|request| preset.verify(request, &credentials, now_s));
    if let Err(refusal) = &verdict {
        assert_eq!(refusal.place(), Some(url.as_str()), "the refusal does not say which certificate it is about");
    }
    verdict.map_or_else(|refusal| refusal.code(), |_| "ok")
}

/// Broken: whoever got hold of the key of a certificate that has ended goes on sending in the provider's name, or genuine requests are
/// refused in the certificate's last second.
#[test]
fn certificates_count_from_their_first_second_to_their_last() {
    for (id, name) in [("paypal", PAYPAL), ("aws-sns", SNS)] {
        assert_eq!(verdict(id, name, DATES, NOW_S), "ok", "{id}");
        assert_eq!(verdict(id, name, DATES, END_S), "ok", "{id}");
        assert_eq!(verdict(id, name, DATES, NOW_S - 1), "certificate_not_yet_valid", "{id}");
        assert_eq!(verdict(id, name, DATES, END_S + 1), "certificate_expired", "{id}");
        assert_eq!(verdict(id, name, DATES, END_S + 3_650 * DAY_S), "certificate_expired", "{id}");
        assert_eq!(
            verdict(id, name, ["360101000000Z", "260101000000Z"], NOW_S + DAY_S),
            "certificate_expired",
            "{id}: turned round"
        );
        for odd in [["", ""], ["260101000000Z", "never"], ["260230000000Z", "360101000000Z"]] {
            assert_eq!(verdict(id, name, odd, NOW_S), "certificate_invalid", "{id}: {odd:?}");
        }
    }
}

/// Broken: recorded requests, whose clock stands before their certificates were made, cannot be judged, or can be with ended ones.
#[test]
fn the_first_day_alone_can_be_left_out_for_recorded_requests() {
    let verdict = |now_s| verdict_with("paypal", PAYPAL, DATES, now_s, Credentials::none().certificates_may_begin_later());
    assert_eq!(verdict(NOW_S - DAY_S), "ok");
    assert_eq!(verdict(END_S + 1), "certificate_expired");
}

/// Broken: a certificate that is somebody else's is taken because it lies on the provider's host.
#[test]
fn certificates_are_for_a_name_of_the_provider() {
    for name in [SNS, "SNS.amazonaws.com", "sns.eu-west-1.amazonaws.com", "sns-signing.me-south-1.amazonaws.com"] {
        assert_eq!(verdict("aws-sns", name, DATES, NOW_S), "ok", "{name}");
    }
    for name in ["sns-us-gov-west-1.amazonaws.com", "sns-cn-north-1.amazonaws.com.cn"] {
        assert_eq!(verdict("aws-sns", name, DATES, NOW_S), "ok", "{name}");
    }
    for name in ["", "evil.test", "amazonaws.com", "sns.amazonaws.com.evil.test", "sns.s3-us-west-2.amazonaws.com", PAYPAL] {
        assert_eq!(verdict("aws-sns", name, DATES, NOW_S), "certificate_invalid", "{name}");
    }
    for name in ["", "paypal.com", "evilpaypal.com", "paypal.com.evil.test", SNS] {
        assert_eq!(verdict("paypal", name, DATES, NOW_S), "certificate_invalid", "{name}");
    }
}
