//! Which host names and ports are refused whatever they resolve to.

use super::EgressError;

/// Special-use names (RFC 6761, 6762, 7686, 8375), names that were never delegated because companies use them inside,
/// and cluster names. The last labels of a name; a name is refused if it is one of these or ends in one.
const SPECIAL: &[&str] = &[
    "local", "internal", "home.arpa", "invalid", "onion", "corp", "home", "lan", "mail", "intranet", "private", "localdomain",
    "svc",
];

/// Ports that browsers refuse (Fetch standard, "bad port"): protocols that a crafted HTTP request can speak to.
const BAD_PORTS: &[u16] = &[
    0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109, 110, 111,
    113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526, 530, 531, 532, 540, 548, 554,
    556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6379, 6566, 6665,
    6666, 6667, 6668, 6669, 6679, 6697, 10080, 11211,
];

const LABEL_BYTES_MAX: usize = 63;
const NAME_BYTES_MAX: usize = 253;

/// Ports of the Fetch standard's list, and two data stores that answer to lines of text (Redis, Memcached).
pub(super) fn is_bad_port(port: u16) -> bool {
    BAD_PORTS.contains(&port)
}

/// `localhost` and every name below it.
pub(super) fn is_localhost(name: &str) -> bool {
    is_at_or_below(name, "localhost")
}

pub(super) fn is_special(name: &str) -> bool {
    SPECIAL.iter().any(|special| is_at_or_below(name, special))
}

fn is_at_or_below(name: &str, parent: &str) -> bool {
    name.strip_suffix(parent).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Checks labels and lengths (RFC 1035). Underscores are let through: they occur in real host names.
pub(super) fn check_syntax(name: &str) -> Result<(), EgressError> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(EgressError::Malformed("has a host name that is empty or too long (253 characters at most)"));
    }
    let is_label = |label: &str| {
        (1..=LABEL_BYTES_MAX).contains(&label.len()) && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_')
    };
    if name.split('.').all(is_label) { Ok(()) } else { Err(EgressError::Malformed("has a host that is not a valid name")) }
}

/// One name of the operator's allow-list, in lower case; a leading dot (or `*.`) stands for all names below.
pub(super) fn normalise_allowed(entry: &str) -> Option<String> {
    let lower = entry.to_ascii_lowercase();
    let lower = lower.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(&lower);
    let bare = lower.strip_prefix('.').unwrap_or(lower);
    // A mistyped network (10.0.0.0/33, 10.0.0) must not become a name that allows nothing.
    let is_numeric = bare.rsplit('.').next().is_some_and(|label| label.bytes().all(|c| c.is_ascii_digit()));
    (check_syntax(bare).is_ok() && !is_numeric).then(|| lower.to_owned())
}
