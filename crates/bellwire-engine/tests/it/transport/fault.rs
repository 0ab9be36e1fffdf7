//! The receiver fault matrix: whatever a receiver does, the request ends in time and is recorded as what it was.

use std::time::Instant;

use bellwire_engine::transport::{ConnectFailure, Phase, Response, TransportError};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::*;

/// The time limit of every request here, and what it may be overrun by on a loaded machine.
const LIMIT: Duration = Duration::from_millis(400);
const OVERRUN: Duration = Duration::from_secs(1);
/// How slow a slow receiver is: a few bytes before the limit, never all of them.
const DRIP: Duration = Duration::from_millis(40);

type Outcome = Result<Response, TransportError>;

/// Runs one request of `body_bytes` against a receiver that behaves as `script` says once it has read the request's head.
async fn run<F, Fut>(name: &str, body_bytes: usize, script: F) -> Outcome
where
    F: Fn(TcpStream) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let script = Arc::new(script);
    let receiver = Receiver::start(move |_, stream| script(stream)).await;
    let started = Instant::now();
    let outcome = client().request("POST", &receiver.url(), &[], &vec![b'x'; body_bytes], LIMIT).await;
    assert!(started.elapsed() < LIMIT + OVERRUN, "{name} took {:?}", started.elapsed());
    assert_eq!(receiver.accepted(), 1, "{name}: a failure on a fresh connection is not sent again");
    outcome
}

async fn after_request(mut stream: TcpStream) -> TcpStream {
    read_request(&mut stream).await;
    stream
}

async fn hang(stream: TcpStream) {
    let _open = stream;
    std::future::pending::<()>().await;
}

async fn answer(stream: TcpStream, text: &[u8]) -> TcpStream {
    let mut stream = after_request(stream).await;
    let _ = stream.write_all(text).await;
    stream
}

async fn repeat(mut stream: TcpStream, text: &[u8]) {
    while stream.write_all(text).await.is_ok() {}
}

async fn drip(mut stream: TcpStream, text: &[u8]) {
    for byte in text.iter().cycle() {
        tokio::time::sleep(DRIP).await;
        if stream.write_all(&[*byte]).await.is_err() {
            return;
        }
    }
}

fn reset(stream: TcpStream) {
    stream.set_zero_linger().unwrap();
    drop(stream);
}

fn status(outcome: &Outcome) -> u16 {
    outcome.as_ref().unwrap().status
}

fn interrupted(outcome: Outcome) -> Option<TransportError> {
    outcome.unwrap().interrupted
}

const CLOSED_SILENTLY: Outcome = Err(TransportError::Closed { response_started: false, is_reused: false });
const NO_ANSWER: Outcome = Err(TransportError::Timeout(Phase::Head));

/// Broken: a hanging or dripping receiver holds a worker for longer than the request's time limit.
#[tokio::test]
async fn slow_receivers_end_at_the_limit() {
    tokio::join!(
        async { assert_eq!(run("accept then hang", 2, hang).await, NO_ANSWER) },
        async { assert_eq!(run("read then hang", 2, |s| async { hang(after_request(s).await).await }).await, NO_ANSWER) },
        async {
            let outcome = run("100 and nothing more", 2, |s| async {
                hang(answer(s, b"HTTP/1.1 100 Continue\r\n\r\n").await).await;
            });
            assert_eq!(outcome.await, NO_ANSWER);
        },
        async {
            let outcome = run("headers byte by byte", 2, |s| async {
                drip(after_request(s).await, b"HTTP/1.1 200 OK\r\nx: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy").await;
            });
            assert_eq!(outcome.await, NO_ANSWER);
        },
        async {
            let outcome = run("body byte by byte", 2, |s| async {
                drip(answer(s, b"HTTP/1.1 200 OK\r\ncontent-length: 10000\r\n\r\n").await, b"x").await;
            })
            .await;
            assert!(status(&outcome) == 200 && !outcome.as_ref().unwrap().body.is_empty());
            assert_eq!(interrupted(outcome), Some(TransportError::Timeout(Phase::Body)));
        },
        async {
            // More than the socket buffers of both sides hold.
            let outcome = run("zero window", 16 * 1024 * 1024, hang).await;
            assert_eq!(outcome, Err(TransportError::Timeout(Phase::Write)));
        },
        async {
            let outcome = run("answers after the limit", 2, |s| async {
                tokio::time::sleep(LIMIT + DRIP).await;
                answer(s, OK).await;
            });
            assert_eq!(outcome.await, NO_ANSWER);
        },
    );
}

/// Broken: a receiver that never stops sending fills our memory or keeps the worker busy.
#[tokio::test]
async fn endless_receivers_are_cut_off() {
    tokio::join!(
        async {
            let outcome = run("endless headers", 2, |s| async {
                repeat(
                    answer(s, b"HTTP/1.1 200 OK\r\n").await,
                    b"x-more: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n",
                )
                .await;
            });
            assert_eq!(outcome.await, Err(TransportError::HeadTooLarge));
        },
        async {
            let outcome = run("one endless header", 2, |s| async {
                repeat(answer(s, b"HTTP/1.1 200 OK\r\nx: ").await, b"yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy").await;
            });
            assert_eq!(outcome.await, Err(TransportError::HeadTooLarge));
        },
        async {
            let outcome = run("1xx flood", 2, |s| async {
                repeat(after_request(s).await, b"HTTP/1.1 102 Processing\r\n\r\n").await;
            });
            assert!(matches!(outcome.await, Err(TransportError::Protocol(_))));
        },
        async {
            for head in
                ["content-length: 10000000000", "transfer-encoding: chunked", "content-encoding: gzip", "connection: close"]
            {
                let head = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n");
                let outcome =
                    run("endless body", 2, move |s| {
                        let head = head.clone();
                        async move {
                            repeat(answer(s, head.as_bytes()).await, b"10\r\n\x1f\x8b\x08\0\0\0\0\0\0\0\0\0\0\0\0\0\r\n").await
                        }
                    })
                    .await
                    .unwrap();
                let kept = bellwire_core::limits::RESPONSE_BODY_KEPT_BYTES;
                assert_eq!((outcome.status, outcome.body.len(), outcome.is_truncated), (200, kept, true));
                assert_eq!(outcome.interrupted, None);
            }
        },
    );
}

/// Broken: a crashing receiver is recorded as something else, or its 2xx is lost with the rest of its body.
#[tokio::test]
async fn dying_receivers_are_told_apart() {
    tokio::join!(
        async { assert_eq!(run("close at once", 2, |s| async { drop(s) }).await, CLOSED_SILENTLY) },
        async { assert_eq!(run("reset at once", 2, |s| async { reset(s) }).await, CLOSED_SILENTLY) },
        async {
            assert_eq!(run("reset after the request", 2, |s| async { reset(after_request(s).await) }).await, CLOSED_SILENTLY)
        },
        async {
            let outcome = run("half-close without an answer", 2, |s| async {
                let mut stream = after_request(s).await;
                stream.shutdown().await.unwrap();
                hang(stream).await;
            });
            assert_eq!(outcome.await, CLOSED_SILENTLY);
        },
        async {
            let outcome = run("half-close behind an answer", 2, |s| async {
                let mut stream = answer(s, b"HTTP/1.1 200 OK\r\n\r\nok").await;
                stream.shutdown().await.unwrap();
                hang(stream).await;
            })
            .await;
            assert_eq!((status(&outcome), interrupted(outcome)), (200, None));
        },
        async {
            let outcome = run("close in the head", 2, |s| async { drop(answer(s, b"HTTP/1.1 200 OK\r\nx").await) }).await;
            assert_eq!(outcome, Err(TransportError::Closed { response_started: true, is_reused: false }));
        },
        async {
            let outcome = run("reset in the body", 2, |s| async {
                let stream = answer(s, b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nhalf").await;
                // The reset must not overtake the head: give it time to be read.
                tokio::time::sleep(DRIP).await;
                reset(stream);
            })
            .await;
            assert_eq!((status(&outcome), &outcome.as_ref().unwrap().body[..]), (200, &b"half"[..]));
            assert!(matches!(interrupted(outcome), Some(TransportError::Closed { .. })));
        },
        async {
            let outcome = run("length longer than the body", 2, |s| async {
                drop(answer(s, b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nhalf").await);
            });
            assert!(matches!(interrupted(outcome.await), Some(TransportError::Closed { .. })));
        },
        async {
            let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let outcome = client().request("POST", &format!("http://{unused}/"), &[], b"", LIMIT).await;
            assert_eq!(outcome, Err(TransportError::Connect(ConnectFailure::Refused)));
        },
    );
}

/// Broken: answers that are valid but unusual, or not HTTP at all, are misjudged.
#[tokio::test]
async fn odd_answers_are_read_as_what_they_are() {
    for (text, expected) in [
        ("HTTP/1.1 204 No Content\r\ncontent-length: 4\r\n\r\nbody", Ok(204)),
        ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\ntoo long", Ok(200)),
        ("HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n", Ok(410)),
        ("HTTP/1.1 429 Slow down\r\nretry-after: 10 years\r\ncontent-length: 0\r\n\r\n", Ok(429)),
        ("HTTP/1.1 503\r\ncontent-length: 0\r\n\r\n", Ok(503)),
        ("HTTP/1.0 200 OK\r\n\r\nold", Ok(200)),
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n", Ok(200)),
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 50\r\n\r\nhello", Err("protocol_error")),
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\nx\r\n\r\nhello", Err("protocol_error")),
        ("\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0d\0\x04", Err("protocol_error")),
        ("220 mail.example ESMTP\r\n", Err("protocol_error")),
    ] {
        let outcome = run(text, 2, move |s| async move { drop(answer(s, text.as_bytes()).await) }).await;
        assert_eq!(outcome.map(|answer| answer.status).map_err(|error| error.code()), expected, "{text:?}");
    }
}
