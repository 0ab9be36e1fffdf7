//! Scopes: what a credential may do. `noun:verb`, with `noun:*` and `*` for all of a noun and for everything.

use std::fmt;

macro_rules! scopes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)+) => {
        /// One permission. Every route names one (see [`crate::router::ROUTES`]).
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Scope { $($(#[$doc])* $variant,)+ }

        impl Scope {
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

scopes! {
    ApplicationRead = "application:read",
    ApplicationWrite = "application:write",
    EndpointRead = "endpoint:read",
    EndpointWrite = "endpoint:write",
    /// Reading signing secrets.
    EndpointSecret = "endpoint:secret",
    /// Rotating signing secrets: who may look at one must not thereby cut off the receivers that verify with it.
    EndpointSecretWrite = "endpoint:secret-write",
    MessageRead = "message:read",
    /// Publishing, and deleting what was sent and answered.
    MessageWrite = "message:write",
    AttemptRead = "attempt:read",
    /// Resending, recovering, sending examples.
    AttemptWrite = "attempt:write",
    EventTypeRead = "event-type:read",
    EventTypeWrite = "event-type:write",
    ApiKeyRead = "api-key:read",
    ApiKeyWrite = "api-key:write",
    /// Handing out portal access.
    PortalWrite = "portal:write",
    OperationalWebhookRead = "operational-webhook:read",
    OperationalWebhookWrite = "operational-webhook:write",
    TaskRead = "task:read",
    SourceRead = "source:read",
    SourceWrite = "source:write",
}

/// A text that names no scope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a scope; there are {list}", list = Scope::ALL.iter().map(|s| s.as_str()).collect::<Vec<_>>().join(", "))]
pub struct UnknownScope(pub String);

/// A set of scopes.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct ScopeSet(u32);

impl ScopeSet {
    /// All scopes, those of later versions too (a key with `*` is read anew at every start).
    pub const ALL: Self = Self(u32::MAX);

    pub fn of(scopes: &[Scope]) -> Self {
        Self(scopes.iter().fold(0, |set, scope| set | 1 << *scope as u8))
    }

    /// Reads names as they stand in a key: `message:write`, `endpoint:*`, `*`.
    ///
    /// # Errors
    /// [`UnknownScope`] for the first name that is none.
    pub fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, UnknownScope> {
        let mut set = 0;
        for name in names {
            let part = if name == "*" {
                u32::MAX
            } else {
                let wanted = |scope: &&Scope| {
                    scope.as_str() == name
                        || name.strip_suffix('*').is_some_and(|noun| noun.ends_with(':') && scope.as_str().starts_with(noun))
                };
                Scope::ALL.iter().filter(wanted).fold(0, |set, scope| set | 1 << *scope as u8)
            };
            if part == 0 {
                return Err(UnknownScope(name.chars().take(64).collect()));
            }
            set |= part;
        }
        Ok(Self(set))
    }

    pub fn contains(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u8) != 0
    }

    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether everything in `self` is in `other` too.
    pub fn is_within(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }
}

impl fmt::Debug for ScopeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(Scope::ALL.iter().filter(|s| self.contains(**s)).map(|s| s.as_str())).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_give_a_noun_or_everything_and_nothing_else() {
        let endpoint = ScopeSet::parse(["endpoint:*"]).unwrap();
        assert!(endpoint.contains(Scope::EndpointSecretWrite) && endpoint.contains(Scope::EndpointRead));
        assert!(!endpoint.contains(Scope::EventTypeRead) && !endpoint.contains(Scope::MessageWrite));
        assert!(endpoint.is_within(ScopeSet::ALL) && !ScopeSet::ALL.is_within(endpoint));
        assert!(Scope::ALL.iter().all(|scope| ScopeSet::parse(["*"]).unwrap().contains(*scope)));
        for wrong in ["", "e*", "endpoint", ":*", "endpoint:delete", "**"] {
            assert!(ScopeSet::parse([wrong]).is_err(), "{wrong:?} was taken for a scope");
        }
    }
}
