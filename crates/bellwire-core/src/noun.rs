//! The nouns as they are kept: application, endpoint, event type, message. (Deliveries have no rows of their own once they
//! are done; attempts are in `attempt.rs`.)

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;

use crate::id::{AppId, EndpointId, MessageId, OrgId};
use crate::time::Timestamp;

/// Free-form key/value pairs of the caller's.
pub type Metadata = BTreeMap<String, String>;

/// A text that no log, error or debug output may show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself; every call is a place to check.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// An isolated stream: who publishes into it and who subscribes to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Application {
    pub id: AppId,
    pub org: OrgId,
    pub kind: ApplicationKind,
    pub uid: Option<String>,
    pub name: String,
    /// Messages per second.
    pub throttle_rate: Option<u16>,
    pub metadata: Metadata,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// `Operational` is the hidden application of an organisation through which Bellwire's own events go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ApplicationKind {
    Customer = 0,
    Operational = 1,
}

/// The signing keys of an endpoint: the current one, and older ones that still sign until they expire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningSecret {
    /// `whsec_…` (HMAC-SHA256) or `whsk_…` (Ed25519).
    pub current: Secret,
    /// Newest first.
    pub old: Vec<(Secret, Timestamp)>,
}

impl SigningSecret {
    /// Replaces the current key; the old one goes on signing until `old_expires_at`. At most `keep` old keys stay.
    pub fn rotate(&mut self, new: Secret, now: Timestamp, old_expires_at: Timestamp, keep: usize) {
        let old = std::mem::replace(&mut self.current, new);
        self.old.insert(0, (old, old_expires_at));
        self.old.retain(|(_, expires)| *expires > now);
        self.old.truncate(keep);
    }
}

/// Extra headers sent with every delivery, in the order they were set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderSet(pub Vec<(String, Secret)>);

/// How an endpoint has been doing; what decides that it is disabled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndpointHealth {
    /// Since when it has done nothing but fail.
    pub failing_since: Option<Timestamp>,
}

/// A way out: where it goes, which messages it wants, how it is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub id: EndpointId,
    pub app: AppId,
    pub uid: Option<String>,
    pub url: String,
    pub description: String,
    /// `None`: all.
    pub event_types: Option<Vec<String>>,
    /// `None`: all.
    pub channels: Option<Vec<String>>,
    /// Messages per second.
    pub throttle_rate: Option<u16>,
    pub disabled: bool,
    pub metadata: Metadata,
    pub headers: HeaderSet,
    pub secret: SigningSecret,
    pub health: EndpointHealth,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl Endpoint {
    /// Whether this endpoint subscribes to a message of this type and these channels (its being disabled apart).
    pub fn wants(&self, event_type: &str, channels: &[String]) -> bool {
        let type_wanted = self.event_types.as_ref().is_none_or(|wanted| wanted.iter().any(|w| w == event_type));
        let channel_wanted = self.channels.as_ref().is_none_or(|wanted| wanted.iter().any(|w| channels.iter().any(|c| c == w)));
        type_wanted && channel_wanted
    }
}

/// A dotted event name, with optional JSON Schemas by version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventType {
    pub org: OrgId,
    pub name: String,
    pub description: String,
    pub archived: bool,
    pub deprecated: bool,
    /// A JSON object as text: version → JSON Schema.
    pub schemas: Option<String>,
    pub feature_flags: Option<Vec<String>>,
    pub group_name: Option<String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// One immutable event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub id: MessageId,
    pub app: AppId,
    pub event_type: String,
    /// The caller's own unique id of the event.
    pub event_id: Option<String>,
    /// The exact bytes that are signed and sent; `None` once deleted or expired.
    pub payload: Option<Bytes>,
    pub content_type: String,
    pub channels: Vec<String>,
    pub tags: Vec<String>,
    pub created_at: Timestamp,
    /// Not before this.
    pub deliver_at: Option<Timestamp>,
    /// When the payload is deleted.
    pub payload_expires_at: Timestamp,
    /// Where it came from, if a source made it.
    pub origin: Option<Box<crate::source::Origin>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(event_types: Option<&[&str]>, channels: Option<&[&str]>) -> Endpoint {
        let own = |list: Option<&[&str]>| list.map(|l| l.iter().map(ToString::to_string).collect());
        Endpoint {
            id: crate::id::IdKind::from_bytes([0; 20]),
            app: crate::id::IdKind::from_bytes([0; 20]),
            uid: None,
            url: String::new(),
            description: String::new(),
            event_types: own(event_types),
            channels: own(channels),
            throttle_rate: None,
            disabled: false,
            metadata: Metadata::new(),
            headers: HeaderSet::default(),
            secret: SigningSecret { current: Secret::new("whsec_x"), old: vec![] },
            health: EndpointHealth::default(),
            created_at: Timestamp(0),
            updated_at: Timestamp(0),
        }
    }

    #[test]
    fn an_endpoint_receives_what_it_subscribed_to_and_nothing_else() {
        let channel = ["project_1".to_owned()];
        assert!(endpoint(None, None).wants("a.b", &[]));
        assert!(endpoint(None, None).wants("a.b", &channel));
        assert!(endpoint(Some(&["a.b"]), None).wants("a.b", &[]));
        assert!(!endpoint(Some(&["a.b"]), None).wants("a.c", &[]));
        assert!(endpoint(None, Some(&["project_1", "x"])).wants("a.b", &channel));
        assert!(!endpoint(None, Some(&["project_2"])).wants("a.b", &channel));
        assert!(!endpoint(None, Some(&["project_2"])).wants("a.b", &[]));
        assert!(!endpoint(Some(&["a.c"]), Some(&["project_1"])).wants("a.b", &channel));
    }

    #[test]
    fn rotation_keeps_the_old_key_signing_until_it_expires() {
        let mut secret = SigningSecret { current: Secret::new("one"), old: vec![] };
        secret.rotate(Secret::new("two"), Timestamp(0), Timestamp(10), 10);
        secret.rotate(Secret::new("three"), Timestamp(5), Timestamp(15), 10);
        assert_eq!(secret.current.expose(), "three");
        assert_eq!(secret.old.iter().map(|(s, _)| s.expose()).collect::<Vec<_>>(), ["two", "one"]);
        secret.rotate(Secret::new("four"), Timestamp(12), Timestamp(12), 10);
        assert_eq!(secret.old.iter().map(|(s, _)| s.expose()).collect::<Vec<_>>(), ["two"]);
    }

    #[test]
    fn secrets_do_not_show_in_debug_output() {
        assert!(!format!("{:?}", endpoint(None, None)).contains("whsec_x"));
    }
}
