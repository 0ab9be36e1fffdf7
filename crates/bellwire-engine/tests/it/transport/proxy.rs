//! Deliveries through an HTTP proxy: the proxy is told the judged address, never the name.

use bellwire_engine::transport::{Proxy, TransportError};
use tokio::io::AsyncWriteExt;

use super::*;

/// A CONNECT proxy that records what it is asked for, and tunnels there or answers `refusal`.
async fn start_proxy(refusal: Option<&'static str>) -> (Receiver, Arc<Mutex<Vec<String>>>) {
    let requests = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&requests);
    let proxy = Receiver::start(move |_, mut stream| {
        let log = Arc::clone(&log);
        async move {
            let request = String::from_utf8(read_request(&mut stream).await.unwrap()).unwrap();
            let destination = request.split(' ').nth(1).unwrap().to_owned();
            log.lock().push(request);
            if let Some(refusal) = refusal {
                let _ = stream.write_all(refusal.as_bytes()).await;
                return;
            }
            let mut onward = TcpStream::connect(destination).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut stream, &mut onward).await;
        }
    })
    .await;
    (proxy, requests)
}

fn client_through(proxy: &Receiver, answers: Vec<IpAddr>) -> (Client, Arc<Scripted>) {
    let resolver = Scripted::new([answers]);
    let proxy = Proxy::parse(&format!("http://user:pass@{}", proxy.address)).unwrap();
    (Client::with_resolver(ClientOptions { proxy: Some(proxy), ..options() }, resolver.clone()), resolver)
}

/// Broken: the proxy resolves the name again and reaches an address that was never judged (T21).
#[tokio::test]
async fn the_proxy_is_asked_for_the_judged_address() {
    let receiver = Receiver::answering(OK).await;
    let (proxy, requests) = start_proxy(None).await;
    let (client, resolver) = client_through(&proxy, vec![ip("127.0.0.1")]);
    let url = format!("http://receiver.test.example:{}/hook", receiver.address.port());
    let answer = client.request("POST", &url, &[], b"{}", LONG).await.unwrap();
    assert_eq!((answer.status, resolver.lookups(), receiver.accepted()), (200, 1, 1));
    let request = requests.lock()[0].clone();
    assert!(request.starts_with(&format!("CONNECT {} HTTP/1.1\r\n", receiver.address)), "{request}");
    assert!(request.contains("proxy-authorization: Basic dXNlcjpwYXNz\r\n") && !request.contains("test.example"), "{request}");
}

/// Broken: a forbidden address is reached by way of the proxy.
#[tokio::test]
async fn forbidden_addresses_never_reach_the_proxy() {
    let (proxy, requests) = start_proxy(None).await;
    let (client, _) = client_through(&proxy, vec![ip("10.0.0.5")]);
    for url in ["http://receiver.test.example/", "http://10.0.0.5/", "https://169.254.169.254/"] {
        let error = client.request("POST", url, &[], b"{}", LONG).await.unwrap_err();
        assert!(matches!(error, TransportError::Refused(_)), "{url}: {error:?}");
    }
    assert_eq!((proxy.accepted(), requests.lock().len()), (0, 0));
}

/// Broken: a proxy's refusal is taken for the receiver's answer, or its page for the receiver's bytes.
#[tokio::test]
async fn a_proxy_that_refuses_is_a_failure_of_the_way() {
    for (refusal, status) in [
        ("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n", 403),
        ("HTTP/1.1 407 Who are you\r\n\r\n", 407),
        ("HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 200),
        ("SSH-2.0\r\n", 0),
        ("", 0),
    ] {
        let (proxy, _) = start_proxy(Some(refusal)).await;
        let (client, _) = client_through(&proxy, vec![ip("127.0.0.1")]);
        let error = client.request("POST", "http://receiver.test.example/", &[], b"{}", LONG).await.unwrap_err();
        assert_eq!((error.clone(), error.code()), (TransportError::Proxy { status }, "proxy_failed"), "{refusal}");
    }
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let proxy = Some(Proxy::parse(&format!("http://{gone}")).unwrap());
    let client = Client::with_resolver(ClientOptions { proxy, ..options() }, Scripted::new([vec![ip("127.0.0.1")]]));
    let error = client.request("POST", "http://receiver.test.example/", &[], b"{}", LONG).await.unwrap_err();
    assert_eq!(error, TransportError::Proxy { status: 0 });
}
