//! What the receiver knows: secrets, settings, fetched certificates. Shown redacted in debug output.

use std::collections::BTreeMap;
use std::fmt;

use aws_lc_rs::hmac;

use crate::algorithm::Algorithm;
use crate::key_format::KeyFormat;

/// Secrets that may be valid at once: two during a rotation, and room for several senders behind one source.
pub const SECRETS_MAX: usize = 16;

/// What a receiver holds for one source. A request passes if any one of the secrets fits.
#[derive(Clone, Default)]
pub struct Credentials {
    pub(crate) secrets: Vec<String>,
    pub(crate) settings: BTreeMap<String, String>,
    pub(crate) certificates: BTreeMap<String, String>,
    pub(crate) tolerance_s: Option<u64>,
    pub(crate) may_certificates_begin_later: bool,
    keys: Option<Keys>,
}

/// The HMAC keys of all secrets, in their order, for presets with this form of keys and this algorithm.
#[derive(Clone)]
struct Keys {
    format: KeyFormat,
    algorithm: Algorithm,
    list: Vec<hmac::Key>,
}

impl Credentials {
    /// Nothing yet; verifies nothing.
    pub fn none() -> Self {
        Self::default()
    }

    /// One secret, in the form in which the provider shows it (a shared secret, a token, `user:password`, a public key).
    pub fn secret(secret: impl Into<String>) -> Self {
        Self::none().and_secret(secret)
    }

    /// One more secret that is valid now, for a rotation.
    #[must_use]
    pub fn and_secret(mut self, secret: impl Into<String>) -> Self {
        self.secrets.push(secret.into());
        self.keys = None;
        self
    }

    /// A setting that the preset names, such as PayPal's `webhook_id`.
    #[must_use]
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.insert(name.into(), value.into());
        self
    }

    /// A certificate (PEM) as it was fetched over https from `url`, the address that [`crate::Preset::certificate_url`] gave.
    #[must_use]
    pub fn certificate(mut self, url: impl Into<String>, pem: impl Into<String>) -> Self {
        self.certificates.insert(url.into(), pem.into());
        self
    }

    /// Takes certificates whose first day is after the clock; the last one still counts. For recorded requests only: their clock stands
    /// still, and may stand before the day on which the certificate was made for them.
    #[must_use]
    pub fn certificates_may_begin_later(mut self) -> Self {
        self.may_certificates_begin_later = true;
        self
    }

    /// Another tolerance for timestamps, in seconds, on both sides. Also switches the check on where the provider names none.
    #[must_use]
    pub fn tolerance_s(mut self, seconds: u64) -> Self {
        self.tolerance_s = Some(seconds);
        self
    }

    /// Makes the keys ready; nothing if one of the secrets has none, for which every request will be refused.
    pub(crate) fn with_keys(mut self, format: KeyFormat, algorithm: Algorithm) -> Self {
        let key = |secret: &String| algorithm.hmac_key(&format.bytes(secret).ok()?);
        self.keys = self.secrets.iter().map(key).collect::<Option<_>>().map(|list| Keys { format, algorithm, list });
        self
    }

    /// The key of the secret at `index`, if it was made ready for just this.
    pub(crate) fn key(&self, index: usize, format: KeyFormat, algorithm: Algorithm) -> Option<&hmac::Key> {
        let keys = self.keys.as_ref().filter(|keys| keys.format == format && keys.algorithm == algorithm)?;
        keys.list.get(index)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("secrets", &format_args!("[{} redacted]", self.secrets.len()))
            .field("settings", &self.settings.keys().collect::<Vec<_>>())
            .field("certificates", &self.certificates.keys().collect::<Vec<_>>())
            .field("tolerance_s", &self.tolerance_s)
            .finish()
    }
}
