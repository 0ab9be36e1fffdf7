//! Which URLs and addresses requests may go to: the judge that every path that opens a socket asks, before it dials.
//!
//! Nothing here resolves or connects. A URL is parsed once (WHATWG) into a [`Target`]; from then on only the serialised
//! form is used, never the text that came in. The transport resolves the name itself, has every answer judged
//! ([`EgressPolicy::judge_answers`]), and dials a judged address.
//!
//! The default policy refuses every special-purpose address. Two texts come with a refusal: the error's `Display`, which is
//! the same for "refused" and "cannot be resolved" so that a tenant cannot map our network by trying names, and the
//! reason, which is for operators.

mod address;
mod name;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use url::Url;

use crate::limits;

/// What a tenant reads when a host is refused, and equally when it cannot be resolved.
pub const UNREACHABLE_HOST: &str = "the host does not resolve to an address that requests may be sent to";

/// What the operator allows beyond the public internet. `Default` allows nothing special.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EgressPolicy {
    /// Networks whose addresses are allowed although they are special (private, loopback, …).
    pub allow: Vec<IpNet>,
    /// Names that may be special (single-label, `.internal`, …) and may resolve to special addresses; see
    /// [`EgressPolicy::allow_entries`] for the forms. Lower case.
    pub allow_names: Vec<String>,
    /// Refuse `http:` URLs.
    pub https_only: bool,
    /// Lift the veto on cloud metadata addresses, which stands even above `allow` and `allow_names`.
    pub allow_metadata: bool,
    /// Our own listeners: no request may loop back into them. An unspecified address (`0.0.0.0`) stands for every
    /// loopback address with that port.
    pub own: Vec<SocketAddr>,
}

/// A destination that passed the URL rules. Its name is not yet resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The URL in its serialised form, without a trailing dot after the host.
    pub url: Url,
    pub host: Host,
    pub port: u16,
    /// `https:`.
    pub tls: bool,
    /// The value of the `Host` header: the host, with the port unless it is the scheme's default.
    pub authority: String,
    /// The request target of the request line; begins with `/`.
    pub path_and_query: String,
}

/// The host of a [`Target`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// Lower case, without a trailing dot.
    Name(String),
    Ip(IpAddr),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ip(ip) => ip.fmt(f),
        }
    }
}

/// Why a URL cannot be delivered to. `Display` is safe to show to tenants.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EgressError {
    /// The text is not a URL that we take; the fault lies in the text alone, so it may be named.
    #[error("the URL {0}")]
    Malformed(&'static str),
    /// The destination is forbidden.
    #[error(transparent)]
    Refused(Refusal),
}

/// A forbidden destination. `Display` is [`UNREACHABLE_HOST`]; [`Refusal::reason`] is for operators.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{UNREACHABLE_HOST}")]
pub struct Refusal {
    what: String,
    kind: RefusalKind,
}

impl Refusal {
    fn new(what: impl fmt::Display, kind: RefusalKind) -> Self {
        Self { what: what.to_string(), kind }
    }

    /// The class of the refusal, for logs and metrics.
    pub fn kind(&self) -> RefusalKind {
        self.kind
    }

    /// What was refused and why, for operator logs only.
    pub fn reason(&self) -> String {
        format!("{} is refused: {}", self.what, self.kind.as_str())
    }
}

/// Which rule refused a destination. Address classes follow the IANA special-purpose registries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalKind {
    SpecialName,
    SingleLabelName,
    Unspecified,
    Loopback,
    Private,
    LinkLocal,
    Metadata,
    Multicast,
    Documentation,
    Reserved,
    Tunnel,
    OwnListener,
}

impl RefusalKind {
    /// The rule in words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SpecialName => "a special-use or private domain name",
            Self::SingleLabelName => "a name of a single label",
            Self::Unspecified => "an unspecified address (this network)",
            Self::Loopback => "a loopback address",
            Self::Private => "a private or shared address",
            Self::LinkLocal => "a link-local address",
            Self::Metadata => "a cloud metadata address",
            Self::Multicast => "a multicast address",
            Self::Documentation => "a documentation or benchmarking address",
            Self::Reserved => "a reserved address",
            Self::Tunnel => "a translation or tunnel address",
            Self::OwnListener => "an address of this very server",
        }
    }
}

impl EgressPolicy {
    /// Reads the operator's allow-list: networks (`10.0.0.0/8`, `::1/128`), single addresses (`127.0.0.1`), and names
    /// (`receiver`, `hooks.example.internal`; `.example.internal` also stands for every name below it).
    ///
    /// # Errors
    /// The first entry that is none of these.
    pub fn allow_entries<'a>(&mut self, entries: impl IntoIterator<Item = &'a str>) -> Result<(), String> {
        for entry in entries.into_iter().map(str::trim).filter(|entry| !entry.is_empty()) {
            if let Ok(net) = entry.parse::<IpNet>() {
                self.allow.push(net.trunc());
            } else if let Ok(ip) = entry.parse::<IpAddr>() {
                self.allow.push(ip.into());
            } else if let Some(name) = name::normalise_allowed(entry) {
                self.allow_names.push(name);
            } else {
                return Err(format!("{entry:?} is neither a network (10.0.0.0/8), an address, nor a host name"));
            }
        }
        Ok(())
    }

    /// Parses and judges a URL. A host that is an address is judged here already; a name is judged as a name, and its
    /// addresses when they are known.
    ///
    /// # Errors
    /// [`EgressError::Malformed`], [`EgressError::Refused`].
    pub fn judge_url(&self, text: &str) -> Result<Target, EgressError> {
        check_text(text)?;
        let mut url = Url::parse(text).map_err(|_| EgressError::Malformed("cannot be parsed"))?;
        let tls = match url.scheme() {
            "https" => true,
            "http" if self.https_only => return Err(EgressError::Malformed("must begin with https://")),
            "http" => false,
            _ => return Err(EgressError::Malformed("must begin with https:// or http://")),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(EgressError::Malformed("must not hold a user name or password; use a header"));
        }
        if url.fragment().is_some() {
            return Err(EgressError::Malformed("must not hold a fragment (#)"));
        }
        let host = match url.host() {
            Some(url::Host::Ipv4(ip)) => Host::Ip(ip.into()),
            Some(url::Host::Ipv6(ip)) => Host::Ip(ip.into()),
            Some(url::Host::Domain(domain)) => Host::Name(domain.strip_suffix('.').unwrap_or(domain).to_owned()),
            None => return Err(EgressError::Malformed("has no host")),
        };
        if let Host::Name(name) = &host {
            name::check_syntax(name)?;
            if url.host_str() != Some(name) {
                url.set_host(Some(name)).map_err(|_| EgressError::Malformed("has a host that is not a valid name"))?;
            }
        }
        let port = url.port_or_known_default().unwrap_or(0);
        if name::is_bad_port(port) {
            return Err(EgressError::Malformed("has a port that is kept for another protocol"));
        }
        match &host {
            Host::Name(name) => self.judge_name(name).map_err(EgressError::Refused)?,
            Host::Ip(ip) => self.judge_address(&host, SocketAddr::new(*ip, port)).map_err(EgressError::Refused)?,
        }
        let authority = match (url.host_str(), url.port()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (Some(host), None) => host.to_owned(),
            (None, _) => return Err(EgressError::Malformed("has no host")),
        };
        let path_and_query = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        if url.as_str().len() > limits::URL_BYTES_MAX {
            return Err(EgressError::Malformed("is too long (2,048 bytes at most)"));
        }
        Ok(Target { url, host, port, tls, authority, path_and_query })
    }

    /// Judges one address on its own: without the port rules of [`EgressPolicy::own`] and without allowed names.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn judge_ip(&self, ip: IpAddr) -> Result<(), Refusal> {
        self.judge(ip, false)
    }

    /// Judges every address that `target`'s name resolved to, and refuses the name if any of them is forbidden: a name
    /// with public and private answers is a rebinding attempt.
    ///
    /// # Errors
    /// [`Refusal`] for the first forbidden answer.
    pub fn judge_answers(&self, target: &Target, answers: &[IpAddr]) -> Result<(), Refusal> {
        answers.iter().try_for_each(|ip| self.judge_address(&target.host, SocketAddr::new(*ip, target.port)))
    }

    /// The addresses of `localhost` names that this policy allows: such names are never asked of a DNS server (RFC 6761).
    /// `None`: not a `localhost` name.
    pub fn localhost_answers(&self, host: &Host) -> Option<Vec<IpAddr>> {
        let Host::Name(name) = host else { return None };
        let both = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let is_named = self.is_allowed_name(name);
        name::is_localhost(name).then(|| both.into_iter().filter(|ip| self.judge(*ip, is_named).is_ok()).collect())
    }

    fn judge_name(&self, name: &str) -> Result<(), Refusal> {
        if self.is_allowed_name(name) {
            return Ok(());
        }
        if name::is_localhost(name) {
            let is_usable = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]
                .into_iter()
                .any(|ip| self.judge(ip, false).is_ok());
            return if is_usable { Ok(()) } else { Err(Refusal::new(name, RefusalKind::Loopback)) };
        }
        if !name.contains('.') {
            return Err(Refusal::new(name, RefusalKind::SingleLabelName));
        }
        if name::is_special(name) {
            return Err(Refusal::new(name, RefusalKind::SpecialName));
        }
        Ok(())
    }

    fn judge_address(&self, host: &Host, address: SocketAddr) -> Result<(), Refusal> {
        let ip = address::canonical(address.ip());
        let is_own = self.own.iter().any(|own| {
            let own_ip = address::canonical(own.ip());
            own.port() == address.port()
                && (own_ip == ip || (own_ip.is_unspecified() && (ip.is_loopback() || ip.is_unspecified())))
        });
        if is_own {
            return Err(Refusal::new(address, RefusalKind::OwnListener));
        }
        let is_named = matches!(host, Host::Name(name) if self.is_allowed_name(name));
        self.judge(address.ip(), is_named)
    }

    /// `is_named`: the operator allowed the name, so special addresses are fine, metadata excepted.
    fn judge(&self, ip: IpAddr, is_named: bool) -> Result<(), Refusal> {
        let inner = address::canonical(ip);
        let Some(kind) = address::classify(inner) else { return Ok(()) };
        let is_vetoed = kind == RefusalKind::Metadata && !self.allow_metadata;
        let is_allowed = is_named || self.allow.iter().any(|net| net.contains(&inner) || net.contains(&ip));
        if is_allowed && !is_vetoed { Ok(()) } else { Err(Refusal::new(ip, kind)) }
    }

    fn is_allowed_name(&self, name: &str) -> bool {
        self.allow_names.iter().any(|allowed| match allowed.strip_prefix('.') {
            Some(parent) => name == parent || name.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.')),
            None => name == allowed,
        })
    }
}

/// The rules for the text itself, before a parser smooths anything over: parsers disagree about all of these.
fn check_text(text: &str) -> Result<(), EgressError> {
    if text.len() > limits::URL_BYTES_MAX {
        return Err(EgressError::Malformed("is too long (2,048 bytes at most)"));
    }
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(EgressError::Malformed("must not hold spaces or control characters"));
    }
    if text.contains('\\') {
        return Err(EgressError::Malformed("must not hold a backslash"));
    }
    let after_scheme = ["https://", "http://"]
        .into_iter()
        .find_map(|scheme| text.get(..scheme.len()).filter(|s| s.eq_ignore_ascii_case(scheme)).map(|_| &text[scheme.len()..]))
        .ok_or(EgressError::Malformed("must begin with https:// or http://"))?;
    let authority = after_scheme.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.is_empty() {
        return Err(EgressError::Malformed("has no host"));
    }
    if authority.contains('@') {
        return Err(EgressError::Malformed("must not hold a user name or password; use a header"));
    }
    if authority.starts_with('[') && authority.contains('%') {
        return Err(EgressError::Malformed("must not hold an IPv6 zone"));
    }
    Ok(())
}
