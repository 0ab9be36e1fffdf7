//! One node or several on the same machine: both are up, and loaded in turn. A machine that drifts within seconds drifts for both; what is left
//! of it is told as the interval in which the ratio lies.

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::Phase;
use super::ground::{StoreKind, Variant};
use super::latency::{ratio, relation};
use super::phase::Measured;
use super::report;
use super::run::Session;

/// Both, right after each other.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Turn {
    pub one: Measured,
    pub several: Measured,
}

/// All turns of a phase.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Turns {
    pub phase: Phase,
    pub nodes: u32,
    pub turns: Vec<Turn>,
}

impl Turns {
    /// `field` of several nodes over that of one: the geometric mean of all turns, and the interval it lies in with 95 %.
    pub fn relation(&self, field: fn(&Measured) -> f64) -> (f64, f64, f64) {
        relation(self.turns.iter().map(|turn| ratio(field(&turn.several), field(&turn.one))))
    }
}

/// # Errors
/// A server failed, or not everything that was acknowledged arrived.
pub async fn compare(session: &Session, phases: &[Phase], nodes: u32, turns: u32) -> anyhow::Result<Vec<Turns>> {
    let store = StoreKind::PostgreSql;
    let mut compared = Vec::with_capacity(phases.len());
    for phase in phases {
        let (one, several) = (session.ground(store).await?, session.ground(store).await?);
        let running = [one.start(1, None).await?, several.start(nodes, None).await?];
        let targets = [&running[0].targets, &running[1].targets];
        for targets in targets {
            session.warm_up(targets, store, *phase).await?;
        }
        let mut of_phase = Turns { phase: *phase, nodes, turns: Vec::new() };
        for turn in 1..=turns {
            // None always comes after the other.
            let order = if turn % 2 == 1 { [0, 1] } else { [1, 0] };
            let mut measured = [None, None];
            for place in order {
                measured[place] = Some(session.load(targets[place], store, *phase, session.duration).await?);
            }
            let [one, several] = measured;
            let turn = Turn { one: one.context("a turn left out")?, several: several.context("a turn left out")? };
            let [before, after] = [&turn.one, &turn.several].map(|of| of.messages_per_s);
            let title = Variant { store, nodes }.title();
            report::note(&format!("{}: {before:.0}/s, {title} {after:.0}/s, {:.2} of it", phase.name(), ratio(after, before)));
            of_phase.turns.push(turn);
        }
        compared.push(of_phase);
        for servers in running {
            servers.stop()?;
        }
    }
    Ok(compared)
}
