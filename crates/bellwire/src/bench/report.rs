//! What the bench prints: progress on standard error, results on standard output.

use std::io::{IsTerminal as _, Write as _};

use super::Phase;
use super::ground::{StoreKind, Variant};
use super::latency::{Quantiles, median, ratio};
use super::phase::Measured;
use super::run::{PhaseRun, Results, summary};
use super::turns::Turns;
use crate::terminal::{self, thousands};

/// The column of the table, from 0.
const ACKNOWLEDGE: usize = 4;

/// A line of progress: rewritten in place on a terminal, left out elsewhere (the notes remain).
pub fn progress(text: &str) {
    let mut stderr = std::io::stderr().lock();
    if stderr.is_terminal() {
        // Progress that cannot be shown is no reason to stop.
        drop(write!(stderr, "\r\x1b[2K{text}").and_then(|()| stderr.flush()));
    }
}

/// Clears the line of progress.
pub fn progress_end() {
    progress("");
}

/// A line that stays.
pub fn note(text: &str) {
    progress("");
    eprintln!("{text}");
}

/// Prints the results.
///
/// # Errors
/// Standard output is closed.
pub fn print(results: &Results, json: bool) -> anyhow::Result<()> {
    if json {
        terminal::line(&serde_json::to_string_pretty(results)?)?;
        return Ok(());
    }
    let mut variants: Vec<Variant> = Vec::new();
    for run in results.runs.iter().flatten() {
        if !variants.contains(&run.variant) {
            variants.push(run.variant);
        }
    }
    let all = Phase::ALL.iter().flat_map(|phase| variants.iter().map(|variant| (*phase, *variant)));
    let phases: Vec<PhaseRun> = all.filter_map(|(phase, variant)| summary(&results.runs, phase, variant)).collect();
    if !phases.is_empty() {
        standard(&phases, results.runs.len())?;
    }
    if variants.len() > 1 {
        side_by_side(results, &variants)?;
    }
    if let Some(flat) = &results.flat {
        self::flat(flat)?;
    }
    for turns in &results.turns {
        self::turns(turns)?;
    }
    if !results.turns.is_empty() {
        terminal::line("Ratios are geometric means of the turns, with their 95 % intervals; the figures after them medians.")?;
    }
    if let Some(isolation) = &results.isolation {
        terminal::line(&format!(
            "One hanging endpoint among {}, {} messages/s in all, {} pairs of rounds, published to arrived at the other {}:",
            isolation.endpoints,
            isolation.per_second,
            isolation.rounds,
            isolation.endpoints - 1
        ))?;
        terminal::line(&format!("  all healthy    {}", quantiles(&isolation.without)))?;
        terminal::line(&format!("  one hanging    {}", quantiles(&isolation.with_one_hanging)))?;
        terminal::line(&format!("  p99 with / without: {:.3} (median of the pairs)", isolation.p99_ratio))?;
    }
    Ok(())
}

/// The stores beside each other, as fractions of R in the same run, and by messages a second: R, too, is measured anew for each.
fn side_by_side(results: &Results, variants: &[Variant]) -> anyhow::Result<()> {
    terminal::line("")?;
    for phase in Phase::ALL {
        let over = |a: Variant, b: Variant, value: fn(&PhaseRun) -> f64| {
            let of = |runs: &[PhaseRun], variant| runs.iter().find(|run| run.phase == phase && run.variant == variant).map(value);
            median(results.runs.iter().filter_map(|run| Some(ratio(of(run, a)?, of(run, b)?))).collect::<Vec<_>>())
        };
        let parts: Vec<String> = variants
            .iter()
            .filter_map(|variant| {
                let of_r = summary(&results.runs, phase, *variant)?.of_r;
                let before = variants.iter().rev().find(|other| other.nodes < variant.nodes && other.store == variant.store);
                let base = before.copied().or_else(|| variants.first().copied()).filter(|base| base != variant);
                let compared = base.map(|base| {
                    let by_messages = over(*variant, base, |run| run.measured.messages_per_s);
                    format!(" ({:.2} of {}, {by_messages:.2} by messages)", over(*variant, base, |run| run.of_r), base.title())
                });
                Some(format!("{} {of_r:.3} R{}", variant.title(), compared.unwrap_or_default()))
            })
            .collect();
        if !parts.is_empty() {
            terminal::line(&format!("{}: {}", title(phase), parts.join("; ")))?;
        }
    }
    Ok(())
}

fn standard(phases: &[PhaseRun], runs: usize) -> anyhow::Result<()> {
    let r = median(phases.iter().flat_map(|phase| [phase.r_before, phase.r_after]));
    terminal::line(&format!(
        "R (bare signed POSTs to the receiver, {} in flight): {}/s{}",
        super::bare::IN_FLIGHT,
        thousands(r as u64),
        if runs > 1 { format!(". Medians of {runs} runs.") } else { String::new() }
    ))?;
    terminal::line("")?;
    let has_variants = phases.iter().any(|phase| phase.variant != phases[0].variant);
    let name = |phase: &PhaseRun| match has_variants {
        true => format!("{}, {}", title(phase.phase), phase.variant.title()),
        false => title(phase.phase).to_owned(),
    };
    let has_half_rate = phases.iter().any(|phase| phase.measured.half_rate.is_some());
    let rows = phases.iter().map(|phase| {
        let m = &phase.measured;
        let is_delivering = phase.phase != Phase::Receive;
        let or_none = |text: String| if is_delivering { text } else { "–".to_owned() };
        let or_unknown = |known: bool, text: String| if known { text } else { "?".to_owned() };
        let mut row = vec![
            name(phase),
            format!("{}/s", thousands(m.messages_per_s as u64)),
            or_none(format!("{}/s", thousands(m.deliveries_per_s as u64))),
            format!("{:.3}", phase.of_r),
            quantiles(&m.acknowledge),
            or_none(quantiles(&m.end_to_end)),
            or_unknown(m.server_cpu_s > 0.0, cpu(m)),
            or_unknown(m.server_cpu_s > 0.0, format!("{:.2}", m.server_cpu_ratio())),
            or_unknown(m.resident_bytes_max > 0, format!("{} MiB", m.resident_bytes_max >> 20)),
            or_unknown(phase.disk_bytes_per_message > 0.0, thousands(phase.disk_bytes_per_message as u64)),
        ];
        if has_half_rate {
            row.insert(ACKNOWLEDGE + 1, m.half_rate.as_ref().map_or_else(|| "–".to_owned(), |half| quantiles(&half.acknowledge)));
        }
        row
    });
    let mut head = vec![
        "PHASE",
        "MESSAGES",
        "DELIVERIES",
        "OF R",
        "ACKNOWLEDGE p50/p99/p99.9",
        "END TO END p50/p99/p99.9",
        "SERVER CPU/MSG",
        "CPU RATIO",
        "MEMORY",
        "DISK B/MSG",
    ];
    if has_half_rate {
        head.insert(ACKNOWLEDGE + 1, "AT HALF THE RATE p50/p99/p99.9");
    }
    terminal::line(&terminal::table(&head, rows))?;
    terminal::line("")?;
    terminal::line("OF R: deliveries per second over R before and after. CPU RATIO: server over loader and receiver together.")?;
    terminal::line("A phase ends when everything has arrived and is recorded; the rates count that time too.")?;
    if has_half_rate {
        terminal::line(
            "receive: OF R is acknowledgements per second over R; half of that rate follows, open loop, with nothing attached.",
        )?;
    }
    if phases.iter().any(|phase| phase.measured.database_cpu_s > 0.0) {
        terminal::line("SERVER CPU/MSG: of Bellwire, plus that of the database server.")?;
    }
    for phase in phases {
        let m = &phase.measured;
        let name = name(phase);
        if let Some(half) = &m.half_rate {
            terminal::line(&format!(
                "{name}: {} messages, then {} at {}/s",
                thousands(m.messages),
                thousands(half.messages),
                thousands(half.per_second as u64)
            ))?;
        } else {
            terminal::line(&format!(
                "{name}: {} messages, {:.2} s after the last acknowledgement, at most {} deliveries outstanding",
                thousands(m.messages),
                m.drain_s,
                thousands(m.backlog_max)
            ))?;
        }
        if m.repeated > 0 {
            terminal::line(&format!("{name}: {} deliveries came more than once", m.repeated))?;
        }
        if m.refused > 0 {
            let first = terminal::escaped(m.first_error.as_deref().unwrap_or_default());
            terminal::line(&format!("{name}: {} requests were refused, first: {first}", m.refused))?;
        }
        if !m.is_recorded {
            terminal::line(&format!("{name}: the server does not tell whether all of it is recorded"))?;
        }
    }
    Ok(())
}

/// Messages a second and processor time, several nodes beside one.
fn turns(of: &Turns) -> anyhow::Result<()> {
    let middle = |field: fn(&Measured) -> f64| {
        let one = median(of.turns.iter().map(|turn| field(&turn.one)));
        (one, median(of.turns.iter().map(|turn| field(&turn.several))))
    };
    let relation = |field: fn(&Measured) -> f64| {
        let (mean, from, to) = of.relation(field);
        format!("{mean:.3} ({from:.3} to {to:.3})")
    };
    let title = Variant { store: StoreKind::PostgreSql, nodes: of.nodes }.title();
    terminal::line(&format!("{}, {title} beside one, {} turns:", self::title(of.phase), of.turns.len()))?;
    let (one, several) = middle(|m| m.messages_per_s);
    let rates = relation(|m| m.messages_per_s);
    terminal::line(&format!("  messages    {rates}, {}/s and {}/s", thousands(several as u64), thousands(one as u64)))?;
    for (name, field) in [
        ("servers   ", Measured::server_cpu_ms_per_message as fn(&Measured) -> f64),
        ("database  ", Measured::database_cpu_ms_per_message),
    ] {
        let (one, several) = middle(field);
        terminal::line(&format!("  {name}  {}, {several:.3} ms and {one:.3} ms of processor time a message", relation(field)))?;
    }
    Ok(())
}

fn flat(flat: &super::prefill::Flat) -> anyhow::Result<()> {
    terminal::line(&format!(
        "{}: {} stored messages, of which {} wait for a retry ({} MiB, filled in {:.0} s), against an empty store:",
        Variant { store: flat.store, nodes: 1 }.title(),
        thousands(flat.messages),
        thousands(flat.pending),
        flat.disk_bytes >> 20,
        flat.fill_s
    ))?;
    for phase in [Phase::EndToEnd, Phase::FanOut] {
        let of = || flat.of(phase);
        let rate = |field: fn(&super::prefill::Pair) -> f64| thousands(median(of().map(field)) as u64);
        let memory = of().map(|pair| pair.filled.resident_bytes_max).max().unwrap_or(0);
        terminal::line(&format!(
            "  {:<11} empty {}/s, filled {}/s; as fractions of R, filled / empty: {:.3}; memory {} MiB",
            title(phase),
            rate(|pair| pair.empty.deliveries_per_s),
            rate(|pair| pair.filled.deliveries_per_s),
            flat.ratio(phase),
            memory >> 20
        ))?;
        let cost = |field: fn(&super::prefill::Pair) -> f64| median(of().map(field));
        terminal::line(&format!(
            "  {:<11} processor time{} of a delivery, from claim to completion: empty {:.1} us, filled {:.1} us; filled / empty: {:.3}",
            "",
            if flat.store == StoreKind::PostgreSql { " (server and database)" } else { "" },
            cost(|pair| pair.empty.cpu_us_per_delivery()),
            cost(|pair| pair.filled.cpu_us_per_delivery()),
            flat.cpu_ratio(phase)
        ))?;
    }
    let worst = flat.restart_to_first_delivery_s.iter().copied().fold(0.0, f64::max);
    terminal::line(&format!(
        "  restart to first delivery: {worst:.2} s (the slowest of {})",
        flat.restart_to_first_delivery_s.len()
    ))?;
    Ok(())
}

fn title(phase: Phase) -> &'static str {
    match phase {
        Phase::EndToEnd => "end to end",
        Phase::FanOut => "fan-out 10",
        Phase::Gentle => "200/s",
        Phase::Deep => "256 in flight",
        Phase::Receive => "receive",
    }
}

fn cpu(m: &Measured) -> String {
    let server = m.server_cpu_ms_per_message();
    match m.database_cpu_s > 0.0 {
        true => format!("{server:.3} + {:.3} ms", m.database_cpu_ms_per_message()),
        false => format!("{server:.3} ms"),
    }
}

fn quantiles(q: &Quantiles) -> String {
    format!("{:.2} / {:.2} / {:.2} ms", q.p50_ms, q.p99_ms, q.p999_ms)
}
