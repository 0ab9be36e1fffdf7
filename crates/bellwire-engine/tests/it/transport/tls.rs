//! HTTPS: certificates are checked against the URL's name, and each way of failing has its own words.

use bellwire_engine::transport::{Phase, Response, TlsFailure, TransportError};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::AsyncWriteExt;
use tokio_rustls::TlsAcceptor;

use super::*;

const AUTHORITY: &[u8] = include_bytes!("../../data/tls/ca.der");
const OTHER_AUTHORITY: &[u8] = include_bytes!("../../data/tls/other-ca.der");
const RECEIVER: &[u8] = include_bytes!("../../data/tls/receiver.der");
const EXPIRED: &[u8] = include_bytes!("../../data/tls/expired.der");
const KEY: &[u8] = include_bytes!("../../data/tls/receiver-key.der");

fn server_config(certificate: &'static [u8], versions: &[&'static rustls::SupportedProtocolVersion]) -> rustls::ServerConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![CertificateDer::from(certificate)], PrivateKeyDer::try_from(KEY).unwrap())
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

/// Answers requests over TLS with the server name and protocol that were agreed on as the body.
async fn start(config: rustls::ServerConfig) -> Receiver {
    let acceptor = TlsAcceptor::from(Arc::new(config));
    Receiver::start(move |_, stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let session = stream.get_ref().1;
            let alpn = String::from_utf8_lossy(session.alpn_protocol().unwrap_or_default()).into_owned();
            let body = format!("{} {alpn}", session.server_name().unwrap_or("-"));
            while read_request(&mut stream).await.is_some() {
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream.flush().await.unwrap();
            }
        }
    })
    .await
}

fn client_trusting(authority: &'static [u8]) -> Client {
    let extra_roots = vec![CertificateDer::from(authority)];
    Client::with_resolver(ClientOptions { extra_roots, ..options() }, Scripted::new([vec![ip("127.0.0.1")]]))
}

async fn post(client: &Client, host: &str, receiver: &Receiver) -> Result<Response, TransportError> {
    let url = format!("https://{host}:{}/", receiver.address.port());
    client.request("POST", &url, &[], &[b'x'; 100_000], LONG).await
}

/// Broken: HTTPS receivers cannot be delivered to, or are spoken to in a protocol that we do not speak (h2).
#[tokio::test]
async fn a_trusted_certificate_with_the_right_name_is_delivered_to() {
    let client = client_trusting(AUTHORITY);
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let receiver = start(server_config(RECEIVER, &[version])).await;
        let answer = post(&client, "receiver.test.example", &receiver).await.unwrap();
        assert_eq!((answer.status, &answer.body[..]), (200, &b"receiver.test.example http/1.1"[..]));
        assert_eq!(post(&client, "127.0.0.1", &receiver).await.unwrap().body, "- http/1.1");
    }
}

/// Broken: a TLS connection is made anew for every delivery.
#[tokio::test]
async fn tls_connections_are_kept() {
    let receiver = start(server_config(RECEIVER, rustls::ALL_VERSIONS)).await;
    let client = client_trusting(AUTHORITY);
    let target = client.policy().judge_url(&format!("https://receiver.test.example:{}/", receiver.address.port())).unwrap();
    let mut head = Vec::new();
    bellwire_engine::transport::RequestHead::new("POST", &target, "test").unwrap().write(&mut head, &[], 2).unwrap();
    let mut slot = None;
    for _ in 0..10 {
        let deadline = tokio::time::Instant::now() + LONG;
        let answer = client.exchange(&mut slot, &target, &head, b"{}", deadline, || true).await.unwrap().unwrap();
        assert_eq!((answer.status, answer.is_resent), (200, false));
    }
    assert_eq!(receiver.accepted(), 1);
}

/// Broken: a payload goes to an impostor, or the user is not told what is wrong with the certificate.
#[tokio::test]
async fn bad_certificates_are_refused_in_words() {
    let good = start(server_config(RECEIVER, rustls::ALL_VERSIONS)).await;
    let expired = start(server_config(EXPIRED, rustls::ALL_VERSIONS)).await;
    for (authority, host, receiver, failure) in [
        (AUTHORITY, "other.test.example", &good, TlsFailure::WrongName),
        (AUTHORITY, "receiver.test.example", &expired, TlsFailure::Expired),
        (OTHER_AUTHORITY, "receiver.test.example", &good, TlsFailure::UnknownIssuer),
    ] {
        let error = post(&client_trusting(authority), host, receiver).await.unwrap_err();
        assert_eq!((error.clone(), error.code()), (TransportError::Tls(failure), "tls_failed"));
    }
}

/// Broken: a port that does not speak TLS hangs a worker or is recorded as something else.
#[tokio::test]
async fn receivers_that_fail_in_the_handshake() {
    let client = client_trusting(AUTHORITY);
    let plain = Receiver::start(|_, mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        read_request(&mut stream).await;
    })
    .await;
    assert_eq!(post(&client, "receiver.test.example", &plain).await, Err(TransportError::Tls(TlsFailure::Protocol)));

    let alert = Receiver::start(|_, mut stream| async move {
        // handshake_failure, fatal.
        let _ = stream.write_all(&[0x15, 3, 3, 0, 2, 2, 40]).await;
        read_request(&mut stream).await;
    })
    .await;
    assert_eq!(post(&client, "receiver.test.example", &alert).await, Err(TransportError::Tls(TlsFailure::Alert)));

    let closing = Receiver::start(|_, stream| async move { drop(stream) }).await;
    assert_eq!(post(&client, "receiver.test.example", &closing).await, Err(TransportError::Tls(TlsFailure::Closed)));

    let silent = Receiver::start(|_, stream| async move {
        let _open = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let url = format!("https://127.0.0.1:{}/", silent.address.port());
    let outcome = client.request("POST", &url, &[], b"", Duration::from_millis(100)).await;
    assert_eq!(outcome, Err(TransportError::Timeout(Phase::TlsHandshake)));
}
