//! "Did you mean": the known name nearest to an unknown one.

/// The nearest of `known` to `unknown`, if any is near enough to be meant.
pub fn nearest<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = simplified(unknown);
    let wanted_leaf = simplified(leaf(unknown));
    known
        .into_iter()
        .filter_map(|name| {
            let (plain, plain_leaf) = (simplified(name), simplified(leaf(name)));
            let whole = distance(&wanted, &plain);
            // A key written without its section, or in the wrong one, is worth a step, not a rewrite.
            let by_leaf = 1 + distance(&wanted_leaf, &plain_leaf);
            let near = (plain.len().max(wanted.len()) / 3).clamp(1, 4);
            let near_leaf = (plain_leaf.len() / 3).clamp(1, 3);
            let best = if by_leaf <= near_leaf { whole.min(by_leaf) } else { whole };
            (best <= near).then_some((best, name))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Letter case, and the difference between `.`, `-`, `_` and `__`, are not what tells names apart.
fn simplified(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.trim_start_matches("BELLWIRE_").chars() {
        let c = if matches!(c, '.' | '-') { '_' } else { c.to_ascii_lowercase() };
        if c == '.' || c == '_' {
            if !out.ends_with('_') {
                out.push('_');
            }
        } else {
            out.push(c);
        }
    }
    out
}

/// What follows the section, if there is one.
fn leaf(name: &str) -> &str {
    name.rsplit_once("__").or_else(|| name.rsplit_once('.')).map_or(name, |(_, leaf)| leaf)
}

/// Edits between two texts: insert, delete, replace, swap of neighbours (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut rows = vec![vec![0usize; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let cost = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + cost);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    const KNOWN: [&str; 6] =
        ["listen", "data_dir", "delivery.request_timeout", "delivery.retry_schedule", "egress.allow", "egress.allow_metadata"];

    /// Broken: a typo in a configuration leaves its writer searching.
    #[test]
    fn typing_errors_find_the_name_that_was_meant() {
        for (wrong, right) in [
            ("lisen", "listen"),
            ("datadir", "data_dir"),
            ("data-dir", "data_dir"),
            ("delivery.reqest_timeuot", "delivery.request_timeout"),
            ("request_timeout", "delivery.request_timeout"),
            ("BELLWIRE_DELIVERY_RETRY_SCHEDULE", "delivery.retry_schedule"),
            ("egress.alow", "egress.allow"),
        ] {
            assert_eq!(nearest(wrong, KNOWN), Some(right), "{wrong}");
        }
    }

    /// Broken: an unknown name is answered with an unrelated one, which misleads more than silence.
    #[test]
    fn what_resembles_nothing_gets_no_suggestion() {
        for wrong in ["colour", "storage.compression", "x", ""] {
            assert_eq!(nearest(wrong, KNOWN), None, "{wrong}");
        }
    }
}
