//! The same event again, at once or later: one message, the same answer.

use std::sync::Arc;

use axum::body::Body;
use bellwire_api::{Api, ApiConfig, ApiState, ReceiveConfig};
use bellwire_core::{Direction, PageQuery, Secret, Source, SourceSettings};
use bellwire_store::MessageFilter;
use bellwire_testkit::{Backend, TestApp};
use serde_json::json;

use super::{SECRET, generic, github, push, send};
use crate::harness::{Harness, text};

fn api(app: &TestApp) -> Arc<Api> {
    let config =
        ApiConfig { jwt_secret: None, portal_secret: [3; 32], public_url: String::new(), receive: ReceiveConfig::default() };
    Arc::new(Api::new(ApiState::new(app.engine.clone(), config)))
}

async fn eight_at_once(api: &Arc<Api>) {
    let sent: Vec<_> = (0..8)
        .map(|_| {
            let (api, signed) = (api.clone(), push(SECRET, "d-1"));
            tokio::spawn(async move {
                let mut request = http::Request::post("/in/a-token-for-this-test");
                for (name, value) in &signed.headers {
                    request = request.header(name, &value[..]);
                }
                api.handle(request.body(Body::from(signed.body)).unwrap()).await.status()
            })
        })
        .collect();
    for sent in sent {
        assert_eq!(sent.await.unwrap(), 200, "a repeat is answered otherwise than the first");
    }
}

async fn one_message_whatever_happens(backend: Backend) {
    let app = TestApp::on(backend).await;
    let application = app.application("code").await;
    let source = Source {
        id: app.engine.new_id(),
        org: app.org,
        app: application.id,
        is_app_own: false,
        uid: None,
        name: "code".into(),
        kind: "github".into(),
        token: Secret::new("a-token-for-this-test"),
        config: [("secret".to_owned(), Secret::new(SECRET))].into(),
        settings: SourceSettings::default(),
        state: Default::default(),
        metadata: Default::default(),
        created_at: app.now(),
        updated_at: app.now(),
    };
    app.store().create_source(source.clone(), None, None).await.unwrap();
    eight_at_once(&api(&app)).await;
    let app = app.restart().await;
    let served = api(&app);
    eight_at_once(&served).await;
    served.state().receive().flush().await;
    let page = PageQuery { limit: 50, order: Direction::Descending, after: None, backwards: false };
    let messages = app.store().list_messages(application.id, MessageFilter::default(), page, true).await.unwrap().rows;
    assert_eq!(messages.len(), 1, "identical events made several messages");
    let page = PageQuery { limit: 50, order: Direction::Descending, after: None, backwards: false };
    let log = app.store().list_receipts(source.id, page).await.unwrap().rows;
    assert!(log.len() >= 8 && log.iter().all(|entry| entry.reason == "duplicate"), "{log:?}");
    assert!(log.iter().all(|entry| entry.duplicate_of == Some(messages[0].id)));
    app.stop().await;
}

/// Broken: a provider that repeats an event makes receivers act twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_identical_events_at_once_make_one_message_also_across_a_restart_on_sqlite() {
    one_message_whatever_happens(Backend::Sqlite).await;
}

/// As above, on the other store.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_identical_events_at_once_make_one_message_also_across_a_restart_on_postgres() {
    one_message_whatever_happens(Backend::Postgres).await;
}

/// Broken: what is the same by the source's rule makes two messages, or what is another is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_says_what_makes_two_events_the_same() {
    let h = Harness::start().await;
    let (source, url) = github(&h).await;
    for delivery in ["d-1", "d-1", "d-2"] {
        assert_eq!(send(&h, &url, &push(SECRET, delivery)).await.status, 200);
    }
    let messages = h.received(&source).await;
    assert_eq!(messages.len(), 2, "the provider's event id decides");
    let log = h.log(&source, 1).await;
    assert_eq!((log[0].0.as_str(), log[0].1, log[0].2.clone()), ("duplicate", 200, Some(messages[1].id.to_string())));

    let cases = [
        (json!({ "by": "parts", "parts": ["/order/id", "header:x-kind"] }), 2),
        (json!({ "by": "body" }), 2),
        (json!({ "by": "off" }), 4),
    ];
    let first = r#"{"order":{"id":7},"try":1}"#;
    let second = r#"{"order":{"id":7},"try":2}"#;
    for (duplicates, wanted) in cases {
        let (source, url) = generic(&h, json!({ "duplicates": duplicates })).await;
        let json = ("content-type", "application/json");
        for (kind, body) in [("a", first), ("a", first), ("a", second), ("b", second)] {
            assert_eq!(h.receive("POST", &url, &[json, ("x-kind", kind)], body).await.status, 200);
        }
        assert_eq!(h.received(&source).await.len(), wanted, "{duplicates}");
    }
}

/// Broken: an event is remembered for longer or shorter than the source says, or another source's event passes for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_window_is_the_sources_own() {
    let h = Harness::start().await;
    let (source, url) = generic(&h, json!({ "duplicates": { "windowSeconds": 3600 } })).await;
    let (other, other_url) = generic(&h, json!({ "duplicates": { "windowSeconds": 864000 } })).await;
    let both = async |count: [usize; 2]| {
        for url in [&url, &other_url] {
            assert_eq!(h.receive("POST", url, &[], "the same").await.status, 200);
        }
        assert_eq!([h.received(&source).await.len(), h.received(&other).await.len()], count);
    };
    both([1, 1]).await;
    h.clock.turn(std::time::Duration::from_secs(3_500));
    both([1, 1]).await;
    h.clock.turn(std::time::Duration::from_secs(3_700));
    both([2, 1]).await;
    h.clock.turn(std::time::Duration::from_secs(8 * 86_400));
    both([3, 1]).await;
    assert!(text(&source["appId"]) != text(&other["appId"]));
}
