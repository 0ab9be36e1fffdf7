//! Presets that users write: the format's document is true, and mistakes are explained.

use bellwire_verify::{Confidence, Credentials, Preset, PresetError, Request};

use crate::provider::NOW_S;

const FORMAT: &str = include_str!("../../presets/FORMAT.md");

/// The whole preset that the document shows.
fn documented() -> String {
    let (_, rest) = FORMAT.split_once("```toml\n").unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

fn error(text: &str) -> PresetError {
    Preset::parse("mine.toml", text).unwrap_err()
}

/// Broken: the document shows a preset that does not work.
#[test]
fn the_documented_preset_works() {
    let preset = Preset::parse("acme.toml", &documented()).unwrap();
    assert_eq!((preset.id(), preset.confidence(), preset.tolerance_s()), ("acme", Confidence::Docs, Some(300)));
    let credentials = Credentials::secret("s3cret").setting("account", "42");
    let signed = preset.example().with_request(|request| preset.sign(request, &credentials, NOW_S)).unwrap();
    assert!(signed.with_request(|request| preset.verify(request, &credentials, NOW_S)).is_ok());
    let event = signed.with_request(|request: &Request<'_>| preset.event(request));
    assert_eq!((event.kind.as_deref(), event.id.as_deref()), (Some("order.paid"), Some("evt_1")));
    let other = credentials.setting("account", "43");
    assert_eq!(signed.with_request(|request| preset.verify(request, &other, NOW_S)).unwrap_err().code(), "no_match");
}

/// Broken: somebody whose preset has a mistake is not told which file, key and value it is, or what to write instead.
#[test]
fn mistakes_name_file_key_value_and_the_way_out() {
    let good = documented();
    let mistakes = [
        ("encoding = \"hex\"", "encoding = \"hexadecimal\"", "encoding", "hex-upper"),
        ("algorithm = \"hmac-sha256\"", "algorithm = \"md5\"", "algorithm", "hmac-sha256"),
        ("separator = \",\"", "seperator = \",\"", "seperator", "separator"),
        ("header:Acme-Signature", "Acme-Signature", "signature.at", "header:NAME"),
        ("{field:t}.{body}", "{field:t}.{bdy}", "signature.content", "body, url"),
        ("unit = \"seconds\"", "unit = \"minutes\"", "unit", "milliseconds"),
        ("json:/type", "json:type", "event.type", "JSON pointer"),
        ("id = \"acme\"", "id = \"Acme Inc\"", "id", "lower-case"),
        ("key = \"utf8\"", "key = \"public-key\"", "key", "public-key algorithms"),
        ("field = \"v1\"", "", "signature.field", "name of the field"),
        ("tolerance_s = 300", "tolerance_s = -1", "tolerance_s", "u64"),
        ("name = \"Acme\"", "", "name", "missing field"),
        ("[signature]", "[token]\nat = [\"url\"]\n\n[signature]", "signature, jwt, token", "exactly one"),
    ];
    for (right, wrong, key, hint) in mistakes {
        assert!(good.contains(right), "{right}");
        let message = error(&good.replacen(right, wrong, 1)).to_string();
        for part in ["mine.toml", key, hint] {
            assert!(message.contains(part), "{wrong}: {message} does not name {part}");
        }
    }
}

/// Broken: a preset turns verification off, or verifies with a key that anybody can read.
#[test]
fn presets_cannot_be_written_that_accept_everything() {
    let good = documented();
    for (right, wrong) in [
        ("at = [\"header:Acme-Signature\"]", "at = []"),
        ("algorithm = \"hmac-sha256\"", "algorithm = \"none\""),
        ("content = [\"{setting:account}.{field:t}.{body}\"]", "content = []"),
        ("key = \"utf8\"", "key = \"certificate\""),
    ] {
        assert!(good.contains(right), "{right}");
        error(&good.replacen(right, wrong, 1));
    }
    let jwt = |algorithms: &str| {
        let head = "id = \"x\"\nname = \"X\"\nfamily = \"jwt\"\nconfidence = \"docs\"\ndocs = \"\"\ncontent_types = []\n";
        format!("{head}[jwt]\nat = \"bearer\"\nalgorithms = [{algorithms}]\n[example]\nbody = \"\"\n")
    };
    assert!(Preset::parse("x.toml", &jwt("\"HS256\"")).is_ok());
    for bad in ["", "\"none\"", "\"HS256\", \"none\""] {
        assert!(error(&jwt(bad)).to_string().contains("jwt.algorithms"));
    }
}
