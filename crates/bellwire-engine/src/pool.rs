//! Idle keep-alive connections, by destination. All deliveries obey one egress policy, so endpoints on one host share them.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bellwire_core::egress::Target;
use bellwire_core::limits;
use parking_lot::Mutex;

use crate::transport::Connection;

/// Idle connections kept to one destination: what the largest window uses.
const IDLE_MAX: usize = limits::ENDPOINT_WINDOW_MAX;

#[derive(Default)]
pub struct Pool {
    idle: Mutex<Vec<(Connection, Instant)>>,
}

impl Pool {
    /// The connection used last: the likeliest to be alive.
    pub fn take(&self) -> Option<Connection> {
        self.idle.lock().pop().map(|(connection, _)| connection)
    }

    pub fn put(&self, connection: Connection) {
        if !connection.is_reusable() {
            return;
        }
        let mut idle = self.idle.lock();
        if idle.len() < IDLE_MAX {
            idle.push((connection, Instant::now()));
        }
    }

    fn close_idle(&self, before: Instant) {
        // Closing sockets happens outside the lock.
        let closed: Vec<_> = {
            let mut idle = self.idle.lock();
            let alive = idle.iter().position(|(_, since)| *since >= before).unwrap_or(idle.len());
            idle.drain(..alive).collect()
        };
        drop(closed);
    }
}

/// Pools by scheme, host and port; a pool goes when the last route to it does.
#[derive(Default)]
pub struct Pools(Mutex<HashMap<(bool, String), Weak<Pool>>>);

impl Pools {
    pub fn get(&self, target: &Target) -> Arc<Pool> {
        let mut pools = self.0.lock();
        let slot = pools.entry((target.tls, target.authority.clone())).or_default();
        if let Some(pool) = slot.upgrade() {
            return pool;
        }
        let pool = Arc::new(Pool::default());
        *slot = Arc::downgrade(&pool);
        pool
    }

    /// Closes connections idle for longer than [`limits::CONNECTION_IDLE_SECONDS`] and forgets unused pools.
    pub fn sweep(&self) {
        let Some(before) = Instant::now().checked_sub(Duration::from_secs(limits::CONNECTION_IDLE_SECONDS)) else { return };
        let pools: Vec<_> = {
            let mut pools = self.0.lock();
            pools.retain(|_, pool| pool.strong_count() > 0);
            pools.values().filter_map(Weak::upgrade).collect()
        };
        for pool in pools {
            pool.close_idle(before);
        }
    }
}
