//! The exchange against scripted receivers in memory: each writes exactly the bytes that it is told to, when it is told to.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;

const HEAD: &[u8] = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n";
const BODY: &[u8] = b"{}";
/// Long enough for a loaded machine; reached only when something is broken.
const LONG: Duration = Duration::from_secs(10);
/// For exchanges that are meant to run out of time.
const SHORT: Duration = Duration::from_millis(60);
const SMALL: ResponseLimits = ResponseLimits { kept_bytes: 10, drained_bytes: 1_000 };

type Outcome = (Result<Response, TransportError>, bool);

/// Reads one request, then writes the pieces one after another.
async fn serve(peer: &mut DuplexStream, pieces: &[&[u8]]) {
    let mut request = vec![0; HEAD.len() + BODY.len()];
    peer.read_exact(&mut request).await.unwrap();
    assert_eq!(request, [HEAD, BODY].concat());
    for piece in pieces {
        // We may have hung up on an answer that is too long.
        let _ = peer.write_all(piece).await;
        tokio::task::yield_now().await;
    }
}

/// One exchange; the receiver closes after its answer if `closes`.
async fn run(pieces: &[&[u8]], limits: ResponseLimits, closes: bool, timeout: Duration) -> Outcome {
    let (ours, mut theirs) = duplex(1 << 20);
    let mut http = Http1::new(ours, limits);
    let receiver = async move {
        serve(&mut theirs, pieces).await;
        (!closes).then_some(theirs)
    };
    let (result, _open) = tokio::join!(http.exchange(HEAD, BODY, Instant::now() + timeout), receiver);
    (result, http.is_reusable())
}

async fn answered(answer: &str) -> (Response, bool) {
    let (result, is_reusable) = run(&[answer.as_bytes()], ResponseLimits::default(), false, LONG).await;
    (result.unwrap(), is_reusable)
}

async fn failed(answer: &str) -> TransportError {
    let (result, is_reusable) = run(&[answer.as_bytes()], ResponseLimits::default(), false, LONG).await;
    assert!(!is_reusable, "{answer}");
    result.unwrap_err()
}

/// Broken: a plain 200, the answer of nearly every receiver, is misread.
#[tokio::test]
async fn usual_answers_keep_the_connection() {
    let text = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nretry-after: 7\r\ncontent-length: 2\r\n\r\nok";
    let (answer, is_reusable) = answered(text).await;
    assert_eq!((answer.status, &answer.body[..], is_reusable), (200, &b"ok"[..], true));
    assert_eq!((answer.content_type.as_deref(), answer.retry_after.as_deref()), (Some("text/plain"), Some("7")));
    assert!(!answer.is_truncated && answer.interrupted.is_none());

    let (answer, is_reusable) = answered("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!((answer.status, answer.body.len(), is_reusable), (204, 0, true));
    let (answer, is_reusable) = answered("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!((answer.status, is_reusable), (200, false));
}

/// Broken: an answer is misread when its packets are cut at an unlucky place.
#[tokio::test]
async fn every_split_of_an_answer_reads_the_same() {
    for text in [
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nx: y\r\n\r\n",
    ] {
        let whole = run(&[text.as_bytes()], ResponseLimits::default(), false, LONG).await;
        for at in 1..text.len() {
            let (first, second) = text.as_bytes().split_at(at);
            assert_eq!(run(&[first, second], ResponseLimits::default(), false, LONG).await, whole, "cut at {at}: {text}");
        }
        let single: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        assert_eq!(run(&single, ResponseLimits::default(), false, LONG).await, whole, "byte by byte: {text}");
        assert_eq!((&whole.0.unwrap().body[..], whole.1), (&b"hello"[..], true));
    }
}

/// Broken: what a packet happens to hold beyond the limit decides whether an answer counts as broken.
#[tokio::test]
async fn a_long_chunked_body_ends_at_the_limit_wherever_it_is_cut() {
    let text = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{}oops", "5;x\r\nhello\r\n".repeat(92));
    let whole = run(&[text.as_bytes()], SMALL, false, LONG).await;
    let pieces: Vec<&[u8]> = text.as_bytes().chunks(7).collect();
    assert_eq!(run(&pieces, SMALL, false, LONG).await, whole);
    let answer = whole.0.unwrap();
    assert_eq!((&answer.body[..], answer.is_truncated, answer.interrupted), (&b"hellohello"[..], true, None));
}

/// Broken: a receiver that sends empty lines byte by byte has us read all of them anew each time, or is sent the request again.
#[tokio::test]
async fn empty_lines_before_an_answer_are_read_once() {
    let (ours, mut theirs) = duplex(1 << 20);
    let mut http = Http1::new(ours, ResponseLimits::default());
    let text = [&b"\r\n".repeat(5_000)[..], b"HTTP/1.1 204 No Content\r\n\r\n"].concat();
    let pieces: Vec<&[u8]> = text.chunks(1).collect();
    let (result, ()) = tokio::join!(http.exchange(HEAD, BODY, Instant::now() + LONG), serve(&mut theirs, &pieces));
    assert_eq!(result.unwrap().status, 204);
    assert!(http.scanned_bytes() <= 200, "{} bytes were looked at", http.scanned_bytes());

    let lines = b"\n".repeat(limits::RESPONSE_HEAD_BYTES_MAX + 1);
    assert_eq!(run(&[&lines], ResponseLimits::default(), false, LONG).await.0, Err(TransportError::HeadTooLarge));
    let closed = TransportError::Closed { response_started: true, is_reused: false };
    assert_eq!(run(&[b"\r\n"], ResponseLimits::default(), true, LONG).await.0, Err(closed));
}

/// Broken: a receiver fills our memory with its answer, or a long answer costs a good connection.
#[tokio::test]
async fn bodies_are_kept_up_to_a_limit_and_drained_up_to_another() {
    let chunks = |count: usize| format!("{}0\r\n\r\n", "5\r\nhello\r\n".repeat(count));
    let length = |count: usize| format!("HTTP/1.1 200 OK\r\ncontent-length: {count}\r\n\r\n{}", "x".repeat(count));
    let chunked = |count: usize| format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{}", chunks(count));
    let until_close = |count: usize| format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(count));
    for (text, closes, kept, is_truncated, is_reusable) in [
        (length(10), false, 10, false, true),
        (length(11), false, 10, true, true),
        (length(900), false, 10, true, true),
        (length(100_000), false, 10, true, false),
        (chunked(2), false, 10, false, true),
        (chunked(50), false, 10, true, true),
        (chunked(10_000), false, 10, true, false),
        (until_close(10), true, 10, false, false),
        (until_close(100_000), false, 10, true, false),
    ] {
        let (result, reusable) = run(&[text.as_bytes()], SMALL, closes, LONG).await;
        let answer = result.unwrap();
        let seen = (answer.status, answer.body.len(), answer.is_truncated, reusable);
        assert_eq!(seen, (200, kept, is_truncated, is_reusable), "{text:.60}");
        assert_eq!(answer.interrupted, None);
    }
}

/// Broken: bytes that a faulty receiver sends behind its answer are taken for the answer to the next message.
#[tokio::test]
async fn surplus_bytes_end_the_connection() {
    for text in [
        "HTTP/1.1 204 No Content\r\ncontent-length: 4\r\n\r\nbody",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 500 Wrong\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nHTTP/1.1 500 Wrong\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n0\r\n\r\n",
    ] {
        let (answer, is_reusable) = answered(text).await;
        assert!((200..=204).contains(&answer.status) && !is_reusable, "{text}");
    }
    // The surplus comes after the answer was read: the next request must not go out on this connection.
    let (ours, mut theirs) = duplex(1 << 16);
    let mut http = Http1::new(ours, ResponseLimits::default());
    let answer: [&[u8]; 1] = [b"HTTP/1.1 204 No Content\r\n\r\n"];
    let (first, ()) = tokio::join!(http.exchange(HEAD, BODY, Instant::now() + LONG), serve(&mut theirs, &answer));
    assert!(first.is_ok() && http.is_reusable());
    theirs.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    let second = http.exchange(HEAD, BODY, Instant::now() + LONG).await;
    assert_eq!(second, Err(TransportError::Closed { response_started: false, is_reused: true }));
}

/// Broken: a receiver that does not speak HTTP keeps a worker until the deadline, or is taken for one that does.
#[tokio::test]
async fn what_is_not_http_fails_at_once() {
    for text in [
        "SSH-2.0-OpenSSH_9.2\r\n",
        "<html>\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
    ] {
        assert!(matches!(failed(text).await, TransportError::Protocol(_)), "{text}");
    }
    let flood = "HTTP/1.1 102 Processing\r\n\r\n".repeat(1_000);
    assert!(matches!(failed(&flood).await, TransportError::Protocol(_)));
    let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(100_000));
    assert_eq!(failed(&endless).await, TransportError::HeadTooLarge);
    let many = format!("HTTP/1.1 200 OK\r\n{}", "x: y\r\n".repeat(20_000));
    assert_eq!(failed(&many).await, TransportError::HeadTooLarge);
    // Bad chunks come after the head: the status stands, the connection does not.
    let (answer, is_reusable) = answered("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\nhello").await;
    assert!(matches!(answer.interrupted, Some(TransportError::Protocol(_))) && !is_reusable);
}

/// Broken: a receiver that dies in the middle is recorded as something else than what it did.
#[tokio::test]
async fn closed_connections_are_told_apart_by_what_had_come() {
    let closed = |response_started| Err(TransportError::Closed { response_started, is_reused: false });
    let limits = ResponseLimits::default();
    assert_eq!(run(&[], limits, true, LONG).await, (closed(false), false));
    assert_eq!(run(&[b"HTTP/1.1 20"], limits, true, LONG).await, (closed(true), false));
    assert_eq!(run(&[b"HTTP/1.1 100 Continue\r\n\r\n"], limits, true, LONG).await, (closed(true), false));
    for text in
        ["HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhel", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhel"]
    {
        let (result, is_reusable) = run(&[text.as_bytes()], limits, true, LONG).await;
        let answer = result.unwrap();
        assert_eq!((answer.status, &answer.body[..], is_reusable), (200, &b"hel"[..], false));
        assert!(matches!(answer.interrupted, Some(TransportError::Closed { response_started: true, .. })));
    }
}

/// Broken: a slow receiver holds a worker beyond the deadline.
#[tokio::test]
async fn the_deadline_ends_every_stage() {
    let limits = ResponseLimits::default();
    assert_eq!(run(&[], limits, false, SHORT).await, (Err(TransportError::Timeout(Phase::Head)), false));
    assert_eq!(run(&[b"HTTP/1.1 200 OK\r\nx: y"], limits, false, SHORT).await.0, Err(TransportError::Timeout(Phase::Head)));
    let (result, is_reusable) = run(&[b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"], limits, false, SHORT).await;
    let answer = result.unwrap();
    assert_eq!((answer.status, &answer.body[..], is_reusable), (200, &b"half"[..], false));
    assert_eq!(answer.interrupted, Some(TransportError::Timeout(Phase::Body)));

    // A receiver that takes nothing (zero window).
    let (ours, _theirs) = duplex(16);
    let mut http = Http1::new(ours, limits);
    let result = http.exchange(HEAD, &[b'x'; 1_000], Instant::now() + SHORT).await;
    assert_eq!(result, Err(TransportError::Timeout(Phase::Write)));
}

/// Broken: a receiver that refuses a large body before reading it (413) looks like a hanging one.
#[tokio::test]
async fn an_answer_before_the_request_is_written_counts() {
    let (ours, mut theirs) = duplex(64);
    let mut http = Http1::new(ours, ResponseLimits::default());
    let receiver = async {
        theirs.read_exact(&mut [0; 10]).await.unwrap();
        theirs.write_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        theirs
    };
    let (result, _open) = tokio::join!(http.exchange(HEAD, &[b'x'; 100_000], Instant::now() + LONG), receiver);
    assert_eq!((result.unwrap().status, http.is_reusable()), (413, false));
}

/// Broken: an exchange that was given up half-way leaves its answer for the next request on the connection.
#[tokio::test]
async fn an_abandoned_exchange_ends_the_connection() {
    let (ours, mut theirs) = duplex(1 << 16);
    let mut http = Http1::new(ours, ResponseLimits::default());
    tokio::select! {
        _ = http.exchange(HEAD, BODY, Instant::now() + LONG) => panic!("nobody answered"),
        () = serve(&mut theirs, &[]) => {}
    }
    assert!(!http.is_reusable());
    assert!(http.exchange(HEAD, BODY, Instant::now() + LONG).await.is_err());
}

/// Broken: the answer to a HEAD request is waited for although it never has a body; a large head costs memory for ever.
#[tokio::test]
async fn head_requests_and_large_heads() {
    let (ours, mut theirs) = duplex(1 << 20);
    let mut http = Http1::new(ours, ResponseLimits::default());
    let head = b"HEAD / HTTP/1.1\r\nhost: x\r\n\r\n";
    let large = format!("HTTP/1.1 200 OK\r\nx: {}\r\ncontent-length: 9\r\n\r\n", "y".repeat(20_000));
    let receiver = async {
        theirs.read_exact(&mut vec![0; head.len()]).await.unwrap();
        theirs.write_all(large.as_bytes()).await.unwrap();
        theirs
    };
    let (result, _open) = tokio::join!(http.exchange(head, b"", Instant::now() + LONG), receiver);
    assert_eq!((result.unwrap().status, http.is_reusable()), (200, true));
    assert_eq!(http.buffer.len(), limits::CONNECTION_BUFFER_BYTES);
}

/// Broken: some sequence of bytes makes us panic or hang; each of these answers is one that works, damaged at random places.
#[tokio::test]
async fn damaged_answers_end_without_a_panic() {
    let whole = [
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nretry-after: 7\r\ncontent-length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nx: y\r\n\r\n",
        "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\n\r\nhello",
    ];
    let palette = b"\r\n\0 :;,0129afx/\xff\x7f";
    // A fixed sequence (xorshift), so that a failure repeats.
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut draw = |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % below as u64) as usize
    };
    for round in 0..3_000 {
        let mut bytes = whole[round % whole.len()].as_bytes().to_vec();
        for _ in 0..=draw(4) {
            let at = draw(bytes.len());
            match draw(3) {
                0 => bytes[at] = palette[draw(palette.len())],
                1 => bytes.insert(at, palette[draw(palette.len())]),
                _ => drop(bytes.drain(at..(at + draw(8)).min(bytes.len()))),
            }
        }
        let (first, second) = bytes.split_at(draw(bytes.len() + 1));
        let (result, is_reusable) = run(&[first, second], SMALL, true, LONG).await;
        assert_ne!(result, Err(TransportError::Timeout(Phase::Head)), "{}", bytes.escape_ascii());
        assert!(result.is_ok() || !is_reusable, "{}", bytes.escape_ascii());
        if let Ok(answer) = result {
            assert!(answer.body.len() <= SMALL.kept_bytes && (200..600).contains(&answer.status), "{}", bytes.escape_ascii());
        }
    }
}
