//! A sealed connection: frames under AES-256-GCM, with keys of this connection alone.
//!
//! ```text
//! opener   -> magic (8) | nonce (32)
//! acceptor -> nonce (32)
//! both        keys = HKDF-SHA256(ikm = the key all nodes share, salt = both nonces, info = direction)
//! opener   -> frame: its epoch (8) | the epoch it wants to talk to (8)
//! acceptor -> frame: empty
//! ```
//!
//! A frame is `length (4, little endian, of what follows) | ciphertext | tag (16)`; its nonce is its number, its length is authenticated.
//! Who lacks the key cannot make the first frame; who recorded another connection has other nonces.

use std::io;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::LinkKey;
use crate::random;

/// The protocol and its version: nodes of another one are not talked to, and everything goes through the database.
const MAGIC: &[u8; 8] = b"bwlink2\n";
const NONCE_BYTES: usize = 32;
const TAG_BYTES: usize = 16;
const LENGTH_BYTES: usize = 4;
const HELLO_BYTES: usize = 16;
/// A frame's content.
pub const FRAME_BYTES_MAX: usize = 512 * 1024;
const READ_BYTES: usize = 64 * 1024;

fn broken(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// One direction's key, and the number of the next frame.
struct Keyed {
    key: LessSafeKey,
    next: u64,
}

impl Keyed {
    fn new(shared: &LinkKey, salt: &[u8], direction: &'static [u8]) -> io::Result<Self> {
        let wrong = |_| io::Error::other("the keys of a link could not be derived");
        let mut raw = [0; 32];
        let info = [direction];
        let derived = Salt::new(HKDF_SHA256, salt).extract(&shared.0);
        derived.expand(&info, HKDF_SHA256).and_then(|okm| okm.fill(&mut raw)).map_err(wrong)?;
        Ok(Self { key: LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &raw).map_err(wrong)?), next: 0 })
    }

    fn nonce(&mut self) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        nonce[..8].copy_from_slice(&self.next.to_le_bytes());
        // 2^64 frames are not sent in one connection's life.
        self.next += 1;
        Nonce::assume_unique_for_key(nonce)
    }
}

pub struct Sender {
    socket: OwnedWriteHalf,
    keyed: Keyed,
    frame: Vec<u8>,
}

impl Sender {
    /// Sends one frame; `fill` appends its content.
    pub async fn send(&mut self, fill: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        self.frame.clear();
        self.frame.extend_from_slice(&[0; LENGTH_BYTES]);
        fill(&mut self.frame);
        let sealed = self.frame.len() - LENGTH_BYTES + TAG_BYTES;
        if sealed > FRAME_BYTES_MAX + TAG_BYTES {
            return Err(broken("a frame that is too large was to be sent"));
        }
        let length = u32::try_from(sealed).map_err(|_| broken("a frame without end"))?.to_le_bytes();
        let (head, content) = self.frame.split_at_mut(LENGTH_BYTES);
        head.copy_from_slice(&length);
        let nonce = self.keyed.nonce();
        let tag = self.keyed.key.seal_in_place_separate_tag(nonce, Aad::from(length), content);
        self.frame.extend_from_slice(tag.map_err(|_| broken("a frame could not be sealed"))?.as_ref());
        self.socket.write_all(&self.frame).await?;
        if self.frame.capacity() > 2 * FRAME_BYTES_MAX {
            self.frame = Vec::new();
        }
        Ok(())
    }
}

pub struct Receiver {
    socket: OwnedReadHalf,
    keyed: Keyed,
    buffer: BytesMut,
    /// Of a frame's content.
    max: usize,
}

impl Receiver {
    /// The next frame's content. May be dropped while it waits: nothing that was read is lost.
    pub async fn next(&mut self) -> io::Result<BytesMut> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(frame);
            }
            self.buffer.reserve(READ_BYTES);
            if self.socket.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn take(&mut self) -> io::Result<Option<BytesMut>> {
        let Some(length) = self.buffer.first_chunk::<LENGTH_BYTES>().copied() else { return Ok(None) };
        let sealed = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        if sealed < TAG_BYTES || sealed > self.max + TAG_BYTES {
            return Err(broken("a frame of an impossible length"));
        }
        if self.buffer.len() < LENGTH_BYTES + sealed {
            return Ok(None);
        }
        self.buffer.advance(LENGTH_BYTES);
        let mut frame = self.buffer.split_to(sealed);
        let nonce = self.keyed.nonce();
        let opened = self.keyed.key.open_in_place(nonce, Aad::from(length), &mut frame);
        let bytes = opened.map_err(|_| broken("a frame does not open: another key, or it was altered"))?.len();
        frame.truncate(bytes);
        Ok(Some(frame))
    }
}

/// What the opener says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    pub from: i64,
    pub to: i64,
}

fn pair(socket: TcpStream, sends: Keyed, receives: Keyed) -> (Sender, Receiver) {
    let (read, write) = socket.into_split();
    let sender = Sender { socket: write, keyed: sends, frame: Vec::new() };
    let receiver = Receiver { socket: read, keyed: receives, buffer: BytesMut::new(), max: FRAME_BYTES_MAX };
    (sender, receiver)
}

const TO_ACCEPTOR: &[u8] = b"bellwire link 1, opener to acceptor";
const TO_OPENER: &[u8] = b"bellwire link 1, acceptor to opener";

/// The opener's side, up to the proof that the other one has the key and is the one that is wanted.
///
/// # Errors
/// It is not, or it is gone.
pub async fn open(mut socket: TcpStream, key: &LinkKey, hello: Hello) -> io::Result<(Sender, Receiver)> {
    socket.set_nodelay(true)?;
    let mine: [u8; NONCE_BYTES] = random::secret_bytes();
    socket.write_all(&[&MAGIC[..], &mine].concat()).await?;
    let mut theirs = [0; NONCE_BYTES];
    socket.read_exact(&mut theirs).await?;
    let salt = [mine, theirs].concat();
    let keys = (Keyed::new(key, &salt, TO_ACCEPTOR)?, Keyed::new(key, &salt, TO_OPENER)?);
    let (mut sender, mut receiver) = pair(socket, keys.0, keys.1);
    sender
        .send(|out| {
            out.extend_from_slice(&hello.from.to_le_bytes());
            out.extend_from_slice(&hello.to.to_le_bytes());
        })
        .await?;
    match receiver.next().await?.is_empty() {
        true => Ok((sender, receiver)),
        false => Err(broken("an unknown answer to the first frame")),
    }
}

/// The acceptor's side. `own`: the epoch that must be wanted.
///
/// # Errors
/// The other one has not the key, or wants somebody else.
pub async fn accept(mut socket: TcpStream, key: &LinkKey, own: i64) -> io::Result<(Sender, Receiver, Hello)> {
    socket.set_nodelay(true)?;
    let mut first = [0; MAGIC.len() + NONCE_BYTES];
    socket.read_exact(&mut first).await?;
    let (magic, theirs) = first.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err(broken("another protocol, or another version of it"));
    }
    let mine: [u8; NONCE_BYTES] = random::secret_bytes();
    let salt = [theirs, &mine].concat();
    let keys = (Keyed::new(key, &salt, TO_OPENER)?, Keyed::new(key, &salt, TO_ACCEPTOR)?);
    socket.write_all(&mine).await?;
    let (mut sender, mut receiver) = pair(socket, keys.0, keys.1);
    // Whoever has not shown the key yet is not given memory.
    receiver.max = HELLO_BYTES;
    let hello = receiver.next().await?;
    let (Some(from), Some(to)) = (hello.first_chunk::<8>(), hello.last_chunk::<8>()) else {
        return Err(broken("a first frame without epochs"));
    };
    let hello = Hello { from: i64::from_le_bytes(*from), to: i64::from_le_bytes(*to) };
    if hello.to != own {
        return Err(broken("another node is wanted"));
    }
    receiver.max = FRAME_BYTES_MAX;
    sender.send(|_| ()).await?;
    Ok((sender, receiver, hello))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const HELLO: Hello = Hello { from: 3, to: 7 };

    async fn sockets() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (opened, accepted) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (opened.unwrap(), accepted.unwrap().0)
    }

    #[tokio::test]
    async fn both_sides_read_what_the_other_one_sent_frame_by_frame() {
        let (opened, accepted) = sockets().await;
        let key = LinkKey::new([1; 32]);
        let (opener, acceptor) = tokio::join!(open(opened, &key, HELLO), accept(accepted, &key, 7));
        let ((mut to_b, mut from_b), (mut to_a, mut from_a, hello)) = (opener.unwrap(), acceptor.unwrap());
        assert_eq!(hello, HELLO);
        to_b.send(|out| out.extend_from_slice(b"one")).await.unwrap();
        let large = vec![5; FRAME_BYTES_MAX];
        let (sent, received) = tokio::join!(to_b.send(|out| out.extend_from_slice(&large)), async {
            (from_a.next().await.unwrap(), from_a.next().await.unwrap())
        });
        sent.unwrap();
        assert_eq!((&received.0[..], &received.1[..]), (&b"one"[..], &large[..]));
        to_a.send(|out| out.extend_from_slice(b"two")).await.unwrap();
        assert_eq!(&from_b.next().await.unwrap()[..], b"two");
        assert!(to_b.send(|out| out.resize(out.len() + FRAME_BYTES_MAX + 1, 0)).await.is_err());
    }

    #[tokio::test]
    async fn who_lacks_the_key_or_wants_another_node_is_refused_by_both_sides() {
        for (theirs, own) in [(LinkKey::new([2; 32]), 7), (LinkKey::new([1; 32]), 8)] {
            let (opened, accepted) = sockets().await;
            let key = LinkKey::new([1; 32]);
            let (opener, acceptor) = tokio::join!(open(opened, &theirs, HELLO), accept(accepted, &key, own));
            assert!(acceptor.is_err());
            assert!(opener.is_err());
        }
    }

    #[tokio::test]
    async fn an_altered_frame_a_repeated_one_and_an_endless_one_end_the_connection() {
        for damage in 0..3 {
            let (mut opened, between_a) = sockets().await;
            let (mut between_b, accepted) = sockets().await;
            let key = LinkKey::new([1; 32]);
            let acceptor = tokio::spawn(async move { accept(accepted, &LinkKey::new([1; 32]), 7).await });
            // A man in the middle who passes the opening on and then alters what comes.
            let middle = tokio::spawn(async move {
                let mut between_a = between_a;
                let mut first = [0; 40];
                between_a.read_exact(&mut first).await.unwrap();
                between_b.write_all(&first).await.unwrap();
                let mut nonce = [0; 32];
                between_b.read_exact(&mut nonce).await.unwrap();
                between_a.write_all(&nonce).await.unwrap();
                let mut hello = [0; LENGTH_BYTES + HELLO_BYTES + TAG_BYTES];
                between_a.read_exact(&mut hello).await.unwrap();
                match damage {
                    0 => hello[LENGTH_BYTES] ^= 1,
                    1 => {}
                    _ => hello[..LENGTH_BYTES].copy_from_slice(&u32::MAX.to_le_bytes()),
                }
                between_b.write_all(&hello).await.unwrap();
                if damage == 1 {
                    between_b.write_all(&hello).await.unwrap();
                }
                let mut rest = Vec::new();
                let _ = between_b.read_to_end(&mut rest).await;
            });
            let mine = [9; NONCE_BYTES];
            opened.write_all(&[&MAGIC[..], &mine].concat()).await.unwrap();
            let mut theirs = [0; NONCE_BYTES];
            opened.read_exact(&mut theirs).await.unwrap();
            let salt = [mine, theirs].concat();
            let keys = (Keyed::new(&key, &salt, TO_ACCEPTOR).unwrap(), Keyed::new(&key, &salt, TO_OPENER).unwrap());
            let (mut sender, _receiver) = pair(opened, keys.0, keys.1);
            sender.send(|out| out.extend_from_slice(&[3i64.to_le_bytes(), 7i64.to_le_bytes()].concat())).await.unwrap();
            match acceptor.await.unwrap() {
                Ok((_, mut receiver, _)) => {
                    assert_eq!(damage, 1, "damage of the first frame was not seen");
                    assert!(receiver.next().await.is_err(), "a repeated frame was taken");
                    drop(receiver);
                }
                Err(_) => assert_ne!(damage, 1),
            }
            middle.abort();
        }
    }
}
