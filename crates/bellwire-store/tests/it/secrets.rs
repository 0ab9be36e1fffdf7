//! Secrets at rest.

use bellwire_core::{HeaderSet, Secret};
use bellwire_store::conformance::world::{HOUR, fresh};
use bellwire_store::{ApplicationStore, EndpointStore, IdempotencyRecord, MaintenanceStore, StoreError};

use super::{open, options};

const PLANTED: [&str; 4] = ["whsec_PLANTEDcurrent", "whsec_PLANTEDformer", "Bearer PLANTEDheader", "PLANTEDanswer"];

fn files_with(dir: &std::path::Path, text: &str) -> Vec<String> {
    std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| std::fs::read(path).unwrap().windows(text.len()).any(|window| window == text.as_bytes()))
        .map(|path| path.display().to_string())
        .collect()
}

#[tokio::test]
async fn planted_secrets_are_in_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let (store, w) = open(options(dir.path()));
    let app = w.new_application().await.id;
    let mut endpoint = w.endpoint(app);
    endpoint.url = "https://findable.example/".to_owned();
    endpoint.secret.current = Secret::new(PLANTED[1]);
    endpoint.secret.rotate(Secret::new(PLANTED[0]), w.now(), w.now().plus(HOUR), 10);
    endpoint.headers = HeaderSet(vec![("authorization".to_owned(), Secret::new(PLANTED[2]))]);
    let answer = IdempotencyRecord { response: PLANTED[3].into(), ..w.keyed(1, 1) };
    fresh(store.create_endpoint(endpoint.clone(), Some(answer)).await.unwrap());
    let message = w.publish(app, &[endpoint.id]).await;
    let answer = IdempotencyRecord { response: PLANTED[3].into(), ..w.keyed(2, 1) };
    fresh(w.store.requeue(app, message.id, endpoint.id, w.now(), Some(answer)).await.unwrap());
    assert!(!files_with(dir.path(), "findable.example").is_empty(), "the search finds what is not sealed");
    for _ in 0..2 {
        // In the logs while it is open, in the files once it is closed.
        for planted in PLANTED {
            assert_eq!(files_with(dir.path(), planted), Vec::<String>::new(), "{planted}");
            assert_eq!(files_with(dir.path(), "PLANTED"), Vec::<String>::new());
        }
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_secret_copied_to_another_row_does_not_open() {
    let dir = tempfile::tempdir().unwrap();
    let (store, w) = open(options(dir.path()));
    let app = w.new_application().await.id;
    let (mine, theirs) = (w.new_endpoint(app).await, w.new_endpoint(app).await);
    store.close().await.unwrap();
    let conn = rusqlite::Connection::open(dir.path().join("control.db")).unwrap();
    conn.execute_batch("CREATE TEMP TABLE old AS SELECT id, secret FROM endpoint").unwrap();
    let swap = "UPDATE endpoint SET secret = (SELECT old.secret FROM old WHERE old.id <> endpoint.id)";
    assert_eq!(conn.execute(swap, []).unwrap(), 2);
    drop(conn);
    drop((store, w));
    let (store, _w) = open(options(dir.path()));
    for id in [mine.id, theirs.id] {
        let result = store.endpoint_for_delivery(id).await;
        assert!(matches!(result, Err(StoreError::Cipher(_))), "{result:?}");
    }
    assert!(store.get_application(app).await.unwrap().is_some(), "the rest can be read");
}
