//! Connections are used again when that is safe, replaced when it is not, and a request is sent twice only when it must be.

use bellwire_core::egress::Target;
use bellwire_engine::transport::{Connection, RequestHead, Response, TransportError};
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::*;

fn head(target: &Target) -> Vec<u8> {
    let mut head = Vec::new();
    RequestHead::new("POST", target, "test").unwrap().write(&mut head, &[], 2).unwrap();
    head
}

async fn exchange(client: &Client, slot: &mut Option<Connection>, url: &str) -> Result<Response, TransportError> {
    let target = client.policy().judge_url(url).unwrap_or_else(|_| loopback().judge_url(url).unwrap());
    client.exchange(slot, &target, &head(&target), b"{}", Instant::now() + LONG, || true).await.map(Option::unwrap)
}

/// Broken: every delivery pays for a new connection, which is most of its cost.
#[tokio::test]
async fn a_hundred_requests_share_one_connection() {
    let receiver = Receiver::answering(OK).await;
    let (client, mut slot) = (client(), None);
    for _ in 0..100 {
        let answer = exchange(&client, &mut slot, &receiver.url()).await.unwrap();
        assert_eq!((answer.status, &answer.body[..], answer.is_resent), (200, &b"ok"[..], false));
    }
    assert_eq!(receiver.accepted(), 1);
}

/// Broken: a receiver that closes idle connections makes deliveries fail, or gets requests twice although it answered.
#[tokio::test]
async fn connections_closed_between_requests_are_replaced() {
    let seen = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&seen);
    let receiver = Receiver::start(move |_, mut stream| {
        let counter = Arc::clone(&counter);
        async move {
            if read_request(&mut stream).await.is_some() {
                counter.fetch_add(1, Ordering::SeqCst);
                let _ = stream.write_all(OK).await;
            }
        }
    })
    .await;
    let (client, mut slot) = (client(), None);
    for _ in 0..20 {
        assert_eq!(exchange(&client, &mut slot, &receiver.url()).await.unwrap().status, 200);
    }
    assert_eq!((receiver.accepted(), seen.load(Ordering::SeqCst)), (20, 20));
}

/// Broken: a request is lost, or repeated more than once, when its kept-alive connection dies under it.
#[tokio::test]
async fn a_request_whose_reused_connection_dies_is_sent_once_more_and_says_so() {
    let receiver = Receiver::start(|_, mut stream| async move {
        read_request(&mut stream).await;
        let _ = stream.write_all(OK).await;
        // Takes the second request and drops it without a byte.
        read_request(&mut stream).await;
    })
    .await;
    let (client, mut slot) = (client(), None);
    assert!(!exchange(&client, &mut slot, &receiver.url()).await.unwrap().is_resent);
    let second = exchange(&client, &mut slot, &receiver.url()).await.unwrap();
    assert!(second.status == 200 && second.is_resent);
    assert_eq!(receiver.accepted(), 2);
}

/// Broken: a node that was stopped, or took long to connect, sends what has become another node's meanwhile.
#[tokio::test]
async fn nothing_is_written_once_it_may_not_be_sent_any_more() {
    let seen = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&seen);
    let receiver = Receiver::start(move |_, mut stream| {
        let counter = Arc::clone(&counter);
        async move {
            // Answers the first request on a connection, and drops the second without a byte.
            for answer in [OK, b""] {
                if read_request(&mut stream).await.is_some() {
                    counter.fetch_add(1, Ordering::SeqCst);
                    let _ = stream.write_all(answer).await;
                }
            }
        }
    })
    .await;
    let (client, mut slot) = (client(), None);
    let target = loopback().judge_url(&receiver.url()).unwrap();
    let head = head(&target);
    // On a fresh connection, that then is of use to who may send.
    let withdrawn = client.exchange(&mut slot, &target, &head, b"{}", Instant::now() + LONG, || false).await;
    assert_eq!((withdrawn, seen.load(Ordering::SeqCst)), (Ok(None), 0));
    assert_eq!(exchange(&client, &mut slot, &receiver.url()).await.unwrap().status, 200);
    assert_eq!((receiver.accepted(), seen.load(Ordering::SeqCst)), (1, 1));
    // On the connection that takes the place of one that died under the request.
    let asked = AtomicUsize::new(0);
    let may_send_once = || asked.fetch_add(1, Ordering::SeqCst) == 0;
    let withdrawn = client.exchange(&mut slot, &target, &head, b"{}", Instant::now() + LONG, may_send_once).await;
    assert_eq!((withdrawn, asked.into_inner(), seen.load(Ordering::SeqCst)), (Ok(None), 2, 2));
}

/// Broken: a receiver that had begun to answer gets the request again at once.
#[tokio::test]
async fn nothing_is_sent_again_once_a_byte_came_back_or_on_a_fresh_connection() {
    let receiver = Receiver::start(|number, mut stream| async move {
        read_request(&mut stream).await;
        if number == 0 {
            let _ = stream.write_all(OK).await;
            read_request(&mut stream).await;
            let _ = stream.write_all(b"HTTP/1.1 2").await;
        }
    })
    .await;
    let (client, mut slot) = (client(), None);
    assert!(exchange(&client, &mut slot, &receiver.url()).await.is_ok());
    let error = exchange(&client, &mut slot, &receiver.url()).await.unwrap_err();
    assert_eq!(error, TransportError::Closed { response_started: true, is_reused: true });
    assert!(slot.is_none());
    let error = exchange(&client, &mut slot, &receiver.url()).await.unwrap_err();
    assert_eq!(error, TransportError::Closed { response_started: false, is_reused: false });
    assert_eq!(receiver.accepted(), 2);
}

/// Broken: a message goes to the host that an endpoint had before its URL was changed.
#[tokio::test]
async fn another_target_or_policy_means_another_connection() {
    let (first, second) = (Receiver::answering(OK).await, Receiver::answering(OK).await);
    let (client, mut slot) = (client(), None);
    exchange(&client, &mut slot, &first.url()).await.unwrap();
    exchange(&client, &mut slot, &second.url()).await.unwrap();
    assert_eq!(slot.as_ref().map(Connection::address), Some(second.address));
    assert_eq!((first.accepted(), second.accepted()), (1, 1));

    client.set_policy(EgressPolicy::default());
    let error = exchange(&client, &mut slot, &second.url()).await.unwrap_err();
    assert!(matches!(error, TransportError::Refused(_)), "{error:?}");
    assert_eq!(second.accepted(), 1);
}

/// Broken: a receiver that asks for the connection to be closed gets further requests on it.
#[tokio::test]
async fn connection_close_is_obeyed() {
    let receiver = Receiver::answering(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
    let (client, mut slot) = (client(), None);
    for _ in 0..3 {
        exchange(&client, &mut slot, &receiver.url()).await.unwrap();
        assert!(slot.is_none());
    }
    assert_eq!(receiver.accepted(), 3);
}
