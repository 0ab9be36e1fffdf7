//! Following a preset: is this request genuine? Everything malformed is refused before anything is compared, and nothing in a
//! request can choose a weaker check than the preset's.

use crate::algorithm::{Algorithm, keyed};
use crate::credentials::{Credentials, SECRETS_MAX};
use crate::network::Range;
use crate::place::{Place, Scope};
use crate::preset::{AlgorithmRule, Preset, RequireCheck, Scheme, SignatureRule};
use crate::request::{Request, View};
use crate::{Reason, Refusal};

/// Longest message id.
const ID_BYTES_MAX: usize = 256;

/// A request that its provider has sent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// Which of the secrets fitted, counted from 0; `None` where a certificate did.
    pub secret: Option<usize>,
    /// When the provider signed it, in milliseconds since 1970, if it says so.
    pub timestamp_ms: Option<i64>,
}

/// What a request is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// The provider's word for what happened; parts from several places are joined with a full stop (`issues.opened`).
    pub kind: Option<String>,
    /// What stays the same when the provider sends the event again.
    pub id: Option<String>,
}

/// Signatures that belong together, with the other fields that stood beside them.
pub(crate) struct Group {
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) signatures: Vec<(Algorithm, Vec<u8>)>,
}

impl Preset {
    /// Whether the request was sent by the provider, or by somebody who holds a secret of `credentials`.
    ///
    /// `now_s`: seconds since 1970 from the receiver's clock. Change no state before this has returned `Ok`, and keep the raw body:
    /// what is verified are its bytes.
    ///
    /// # Errors
    /// [`Refusal`], with a stable code. Answer 401 (or what the provider's notes say) and tell the sender no more than that.
    pub fn verify(&self, request: &Request<'_>, credentials: &Credentials, now_s: u64) -> Result<Verified, Refusal> {
        self.check_credentials(credentials)?;
        self.check_peer(request, credentials)?;
        let view = self.view(*request, credentials)?;
        let scope = self.scope(&view, credentials, &[]);
        self.check_requires(&scope, |place| !matches!(place, Place::Field(_)))?;
        match &self.scheme {
            Scheme::Signature(rule) => self.check_signature(rule, &scope, now_s),
            Scheme::Jwt(rule) => self.check_jwt(rule, &scope, now_s),
            Scheme::Token(places) => self.check_token(places, &scope),
        }
    }

    /// What can be said before the body has arrived: refuses requests without credentials, with malformed or with stale ones, so that
    /// nobody has to take in a large body for them. `Ok` is no verification. `request.body` is not looked at.
    ///
    /// # Errors
    /// Those of [`Preset::verify`] that the head alone leads to.
    pub fn check_head(&self, request: &Request<'_>, credentials: &Credentials, now_s: u64) -> Result<(), Refusal> {
        self.check_credentials(credentials)?;
        self.check_peer(request, credentials)?;
        let head = Request { body: &[], ..*request };
        let view = self.view(head, credentials)?;
        let scope = self.scope(&view, credentials, &[]);
        self.check_requires(&scope, Place::is_in_head)?;
        match &self.scheme {
            Scheme::Signature(rule) if rule.at.iter().all(Place::is_in_head) => {
                let is_fixed = |place: &Place| place.is_in_head() || matches!(place, Place::Field(_));
                let is_algorithm_known = !matches!(&rule.algorithm, AlgorithmRule::ByPlace(place, _) if !is_fixed(place));
                let groups = if is_algorithm_known { rule.groups(&scope)? } else { Vec::new() };
                let timestamp = rule.timestamp.as_ref().filter(|timestamp| timestamp.at.0.iter().all(is_fixed));
                let mut last = Ok(());
                for group in groups.iter().filter(|_| timestamp.is_some()) {
                    last = rule.check_timestamp(&self.scope(&view, credentials, &group.fields), now_s).map(|_| ());
                    if last.is_ok() {
                        break;
                    }
                }
                last
            }
            Scheme::Jwt(rule) if rule.at.is_in_head() => self.jwt_text(rule, &scope).map(|_| ()),
            Scheme::Token(places) if places.iter().all(Place::is_in_head) => self.check_token(places, &scope).map(|_| ()),
            _ => Ok(()),
        }
    }

    /// Whether a source can be set up with these credentials: none empty, none in a form that can never fit.
    ///
    /// # Errors
    /// [`Reason::SecretMissing`], [`Reason::SecretInvalid`], [`Reason::SecretsTooMany`], [`Reason::SettingMissing`].
    pub fn check_credentials(&self, credentials: &Credentials) -> Result<(), Refusal> {
        if credentials.secrets.len() > SECRETS_MAX {
            return Err(Refusal::new(Reason::SecretsTooMany));
        }
        let missing = |(name, setting): &(&String, &crate::Setting)| {
            setting.is_required
                && setting.default.is_none()
                && credentials.settings.get(*name).is_none_or(|value| value.trim().is_empty())
        };
        if let Some((name, _)) = self.settings().iter().find(missing) {
            return Err(Refusal::at(Reason::SettingMissing, format!("setting:{name}")));
        }
        if self.certificate.is_some() {
            return Ok(());
        }
        if credentials.secrets.is_empty() || credentials.secrets.iter().any(|secret| secret.trim().is_empty()) {
            return Err(Refusal::new(Reason::SecretMissing));
        }
        for secret in &credentials.secrets {
            match &self.scheme {
                Scheme::Signature(_) if self.is_asymmetric() => {
                    // A set of keys is read when a request says which of them it means.
                    let is_set = secret.trim_start().starts_with('{');
                    if !is_set && crate::public_key::PublicKey::parse(secret, None).is_none() {
                        return Err(Refusal::new(Reason::SecretInvalid));
                    }
                }
                Scheme::Signature(_) => drop(self.key.bytes(secret)?),
                Scheme::Token(places) if places == &[Place::Basic] && !secret.contains(':') => {
                    return Err(Refusal::new(Reason::SecretInvalid));
                }
                Scheme::Token(_) | Scheme::Jwt(_) => {}
            }
        }
        Ok(())
    }

    /// The same credentials with what this preset needs of them made ready, for who verifies many requests with them. Every preset
    /// takes them and says the same as without it.
    #[must_use]
    pub fn prepare(&self, credentials: Credentials) -> Credentials {
        match &self.scheme {
            Scheme::Signature(SignatureRule { algorithm: AlgorithmRule::One(algorithm), .. }) if algorithm.is_hmac() => {
                credentials.with_keys(self.key, *algorithm)
            }
            _ => credentials,
        }
    }

    /// Where the certificate is that this request was signed with, for presets that need one: fetch it over https, without redirects,
    /// and hand it over with [`Credentials::certificate`]. Addresses that are not the provider's are refused here.
    ///
    /// # Errors
    /// [`Reason::CertificateRefused`], [`Reason::ValueMissing`].
    pub fn certificate_url(&self, request: &Request<'_>) -> Result<Option<String>, Refusal> {
        if self.certificate.is_none() {
            return Ok(None);
        }
        let credentials = Credentials::none();
        let view = self.view(*request, &credentials)?;
        crate::certificate::checked_url(self, &self.scope(&view, &credentials, &[]))
    }

    /// What the request says that it is about. Trust it after [`Preset::verify`] only.
    pub fn event(&self, request: &Request<'_>) -> Event {
        let credentials = Credentials::none();
        let Ok(view) = self.view(*request, &credentials) else { return Event::default() };
        let view = view.plucked();
        let scope = self.scope(&view, &credentials, &[]);
        let parts: Vec<_> = self.event_type.iter().filter_map(|places| places.read(&scope).ok().flatten()).collect();
        let kind = (!parts.is_empty()).then(|| parts.join("."));
        let id = self.event_id.iter().find_map(|places| places.read(&scope).ok().flatten()).map(std::borrow::Cow::into_owned);
        Event { kind, id }
    }

    pub(crate) fn scope<'s, 'a>(
        &'s self,
        view: &'s View<'a>,
        credentials: &'s Credentials,
        fields: &'s [(String, String)],
    ) -> Scope<'s, 'a> {
        Scope { view, credentials, defaults: &self.defaults, fields }
    }

    /// Chooses between the names that a provider uses for the same headers; the sets are never mixed.
    fn view<'a>(&'a self, request: Request<'a>, credentials: &Credentials) -> Result<View<'a>, Refusal> {
        let places = match &self.scheme {
            Scheme::Signature(rule) => rule.at.as_slice(),
            Scheme::Jwt(rule) => std::slice::from_ref(&rule.at),
            Scheme::Token(places) => places.as_slice(),
        };
        let aliases = self.aliases.iter().map(|(from, to)| Some((from.as_str(), to.as_str())));
        for alias in std::iter::once(None).chain(aliases) {
            let view = View::new(request, alias);
            let scope = self.scope(&view, credentials, &[]);
            for place in places.iter().filter(|place| matches!(place, Place::Header(_))) {
                if place.read_first(&scope)?.is_some() {
                    return Ok(view);
                }
            }
        }
        Ok(View::new(request, None))
    }

    fn check_peer(&self, request: &Request<'_>, credentials: &Credentials) -> Result<(), Refusal> {
        let Some(builtin) = &self.network else { return Ok(()) };
        let own = credentials.settings.get("allow");
        let ranges: Vec<&str> = match own {
            Some(list) => list.split(',').collect(),
            None => builtin.iter().map(String::as_str).collect(),
        };
        let ranges: Option<Vec<Range>> = ranges.into_iter().map(Range::parse).collect();
        let ranges = ranges.ok_or_else(|| Refusal::at(Reason::SettingInvalid, "setting:allow"))?;
        match request.peer {
            Some(peer) if ranges.iter().any(|range| range.contains(peer)) => Ok(()),
            _ => Err(Refusal::new(Reason::AddressRefused)),
        }
    }

    fn check_requires(&self, scope: &Scope<'_, '_>, is_due: impl Fn(&Place) -> bool) -> Result<(), Refusal> {
        for rule in self.requires.iter().filter(|rule| is_due(&rule.at)) {
            if matches!(rule.check, RequireCheck::Absent) {
                if rule.at.is_there(scope)? {
                    return Err(Refusal::at(Reason::ValueMismatch, rule.at.to_string()));
                }
                continue;
            }
            let value = rule.at.read_first(scope)?;
            let at = || rule.at.to_string();
            let Some(value) = value else {
                match &rule.check {
                    _ if rule.is_optional => continue,
                    RequireCheck::Equals(expected) if expected.render_text(scope).is_err() => continue,
                    _ => return Err(Refusal::at(Reason::ValueMissing, at())),
                }
            };
            let is_right = match &rule.check {
                RequireCheck::Present => !value.is_empty(),
                RequireCheck::Absent => false,
                RequireCheck::Equals(expected) => expected.render_text(scope).map_or(true, |expected| expected == value),
                RequireCheck::OneOf(list) => list.iter().any(|known| *known == value),
                RequireCheck::MessageId => {
                    (1..=ID_BYTES_MAX).contains(&value.len()) && value.bytes().all(|c| c.is_ascii_graphic() && c != b'.')
                }
            };
            if !is_right {
                return Err(Refusal::at(Reason::ValueMismatch, at()));
            }
        }
        Ok(())
    }

    fn check_signature(&self, rule: &SignatureRule, scope: &Scope<'_, '_>, now_s: u64) -> Result<Verified, Refusal> {
        let mut refusal = Refusal::new(Reason::NoMatch);
        for group in rule.groups(scope)? {
            let scope = Scope { fields: &group.fields, ..*scope };
            match self.check_group(rule, &scope, &group, now_s) {
                Ok(verified) => return Ok(verified),
                Err(other) => refusal = other,
            }
        }
        Err(refusal)
    }

    fn check_group(&self, rule: &SignatureRule, scope: &Scope<'_, '_>, group: &Group, now_s: u64) -> Result<Verified, Refusal> {
        self.check_requires(scope, |place| matches!(place, Place::Field(_)))?;
        let timestamp_ms = rule.check_timestamp(scope, now_s)?;
        let secret = if rule.algorithm.is_public() {
            crate::certificate::is_signed(self, rule, scope, group, now_s)?
        } else {
            Some(self.is_symmetric_match(rule, scope, group)?)
        };
        Ok(Verified { secret, timestamp_ms })
    }

    fn is_symmetric_match(&self, rule: &SignatureRule, scope: &Scope<'_, '_>, group: &Group) -> Result<usize, Refusal> {
        for (index, secret) in scope.credentials.secrets.iter().enumerate() {
            let key = self.key.bytes(secret)?;
            for content in rule.contents(scope, secret)? {
                for (algorithm, given) in &group.signatures {
                    let expected = match scope.credentials.key(index, self.key, *algorithm) {
                        Some(ready) => Some(keyed(ready, &content)),
                        None => algorithm.compute(&key, &content),
                    };
                    let Some(expected) = expected else { continue };
                    if crate::algorithm::is_equal(&expected, given) {
                        return Ok(index);
                    }
                }
            }
        }
        Err(Refusal::new(Reason::NoMatch))
    }

    /// Every value at the first place that has one must be the same secret; in a URL, any part may be it.
    fn check_token(&self, places: &[Place], scope: &Scope<'_, '_>) -> Result<Verified, Refusal> {
        let mut is_there = false;
        for place in places {
            let values = place.read_all(scope)?;
            let is_empty = values.iter().all(|value| value.is_empty());
            if is_empty {
                continue;
            }
            is_there = true;
            for (index, secret) in scope.credentials.secrets.iter().enumerate() {
                let mut matches = values.iter().map(|value| crate::algorithm::is_equal(value.as_bytes(), secret.as_bytes()));
                // All parts of a URL are looked at, so that the time says nothing about where a near miss is.
                let is_match =
                    if *place == Place::Url { matches.fold(false, |any, one| any | one) } else { matches.all(|one| one) };
                if is_match {
                    return Ok(Verified { secret: Some(index), timestamp_ms: None });
                }
            }
        }
        // A URL always has parts; what is missing there is the secret.
        let reason = if is_there { Reason::NoMatch } else { Reason::SignatureMissing };
        Err(Refusal::at(reason, places.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ")))
    }
}
