//! Deliveries waiting for endpoints that answer quickly: the backlog that is our doing, not a receiver's. Ingest is held back
//! by it, and only those applications that make it.

use std::collections::HashMap;

use bellwire_core::AppId;

#[derive(Debug, Default)]
pub struct Backlog {
    total: usize,
    /// Only applications that have some.
    by_app: HashMap<AppId, usize>,
}

impl Backlog {
    pub fn add(&mut self, app: AppId, count: usize) {
        if count > 0 {
            self.total += count;
            *self.by_app.entry(app).or_default() += count;
        }
    }

    pub fn remove(&mut self, app: AppId, count: usize) {
        let Some(of_app) = self.by_app.get_mut(&app) else { return };
        let count = count.min(*of_app);
        *of_app -= count;
        self.total -= count;
        if *of_app == 0 {
            self.by_app.remove(&app);
        }
    }

    /// Those of which [`Backlog::is_made_by`] holds, in order.
    pub fn makers(&self, max: usize) -> Vec<AppId> {
        let mut makers: Vec<AppId> = self.by_app.keys().filter(|app| self.is_made_by(**app, max)).copied().collect();
        makers.sort_unstable();
        makers
    }

    pub fn total(&self) -> usize {
        self.total
    }

    /// The backlog is above `max`, and this application has more than an equal share of that in it.
    pub fn is_made_by(&self, app: AppId, max: usize) -> bool {
        let of_app = self.by_app.get(&app).copied().unwrap_or(0);
        self.total > max && of_app * self.by_app.len() > max
    }
}
