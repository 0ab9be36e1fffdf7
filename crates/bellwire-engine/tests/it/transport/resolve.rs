//! The resolver against a DNS server of our own: what it asks, how often, and what it does with the answers.

use bellwire_engine::transport::SystemResolver;
use tokio::net::UdpSocket;

use super::*;

const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;
/// "No such name", the response code.
const NXDOMAIN: u8 = 3;

/// A DNS server that knows `hooks.test.example` (one A record, in an answer that lives a day) and logs every question.
struct NameServer {
    address: SocketAddr,
    questions: Arc<Mutex<Vec<(String, u16)>>>,
    task: tokio::task::JoinHandle<()>,
}

impl NameServer {
    async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let questions = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&questions);
        let task = tokio::spawn(async move {
            let mut packet = [0; 512];
            while let Ok((_, from)) = socket.recv_from(&mut packet).await {
                let (name, kind, end) = read_question(&packet);
                let answer = answer(&packet, &name, kind, end);
                log.lock().push((name, kind));
                let _ = socket.send_to(&answer, from).await;
            }
        });
        Self { address, questions, task }
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The name asked for, the record type, and where the question ends.
fn read_question(packet: &[u8]) -> (String, u16, usize) {
    let (mut labels, mut at) = (Vec::new(), 12);
    while packet[at] != 0 {
        let length = usize::from(packet[at]);
        labels.push(String::from_utf8(packet[at + 1..=at + length].to_vec()).unwrap());
        at += length + 1;
    }
    (labels.join(".").to_lowercase(), u16::from_be_bytes([packet[at + 1], packet[at + 2]]), at + 5)
}

/// An answer to the question that ends at `end`.
fn answer(packet: &[u8], name: &str, kind: u16, end: usize) -> Vec<u8> {
    let is_known = name == "hooks.test.example";
    let has_address = is_known && kind == TYPE_A;
    let mut answer = packet[..end].to_vec();
    answer[2..12].copy_from_slice(&[
        0x85,
        0x80 | if is_known { 0 } else { NXDOMAIN },
        0,
        1,
        0,
        u8::from(has_address),
        0,
        0,
        0,
        0,
    ]);
    if has_address {
        let day = 86_400_u32.to_be_bytes();
        answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, day[0], day[1], day[2], day[3], 0, 4, 127, 0, 0, 1]);
    }
    answer
}

/// Broken: real receivers cannot be found, or names are completed with the machine's search domains and lead inside.
#[tokio::test]
async fn names_are_asked_for_as_they_are_and_answers_are_kept() {
    let server = NameServer::start().await;
    let resolver = SystemResolver::with_name_servers(vec![server.address]);
    let first = resolver.resolve("hooks.test.example").await.unwrap();
    assert_eq!(first, [ip("127.0.0.1")]);
    let mut asked = server.questions.lock().clone();
    asked.sort();
    assert_eq!(asked, [("hooks.test.example".to_owned(), TYPE_A), ("hooks.test.example".to_owned(), TYPE_AAAA)]);

    assert_eq!(resolver.resolve("hooks.test.example").await.unwrap(), first);
    assert_eq!(server.questions.lock().len(), 2, "the second lookup is answered from the cache");
}

/// Broken: names of /etc/hosts, single labels and unknown names lead somewhere although DNS does not know them.
#[tokio::test]
async fn what_dns_does_not_know_has_no_address() {
    let server = NameServer::start().await;
    let resolver = SystemResolver::with_name_servers(vec![server.address]);
    for name in ["ip6-localhost", "db", "unknown.test.example"] {
        let answers = resolver.resolve(name).await;
        assert!(answers.is_err(), "{name}: {answers:?}");
        assert!(server.questions.lock().iter().all(|(asked, _)| !asked.starts_with(&format!("{name}."))));
    }
}

/// Broken: the delivery client cannot use the resolver it is shipped with.
#[tokio::test]
async fn a_delivery_finds_its_receiver_through_dns() {
    let server = NameServer::start().await;
    let receiver = Receiver::answering(OK).await;
    let client = Client::with_resolver(options(), Arc::new(SystemResolver::with_name_servers(vec![server.address])));
    let url = format!("http://hooks.test.example:{}/", receiver.address.port());
    assert_eq!(client.request("POST", &url, &[], b"{}", LONG).await.unwrap().status, 200);
}
