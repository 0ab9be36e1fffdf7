//! What waits for a writing lane. Bounded by who puts in: accepts have permits, records are bounded by what is in flight.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

struct State<T> {
    items: VecDeque<T>,
    /// Since when the oldest has been waiting.
    since: Option<Instant>,
    is_closed: bool,
    /// So many are enough for whoever waits.
    enough: usize,
}

/// What a batch waits for.
#[derive(Clone, Copy, Debug)]
pub struct Company {
    pub until: Instant,
    /// So many do not wait any longer.
    pub enough: usize,
}

pub struct Inbox<T> {
    state: Mutex<State<T>>,
    arrived: Notify,
}

impl<T> Inbox<T> {
    pub fn new() -> Self {
        let state = State { items: VecDeque::new(), since: None, is_closed: false, enough: 1 };
        Self { state: Mutex::new(state), arrived: Notify::new() }
    }

    /// False: it is closed, and the item is dropped.
    pub fn push(&self, item: T) -> bool {
        let mut state = self.state.lock();
        if state.is_closed {
            return false;
        }
        state.items.push_back(item);
        let is_news = state.items.len() == 1 || state.items.len() == state.enough;
        state.since.get_or_insert_with(Instant::now);
        drop(state);
        if is_news {
            self.arrived.notify_one();
        }
        true
    }

    /// Back to the front, whether closed or not.
    pub fn put_back(&self, items: Vec<T>) {
        let mut state = self.state.lock();
        for item in items.into_iter().rev() {
            state.items.push_front(item);
        }
        state.since.get_or_insert_with(Instant::now);
        drop(state);
        self.arrived.notify_one();
    }

    /// Wakes another who waits for work: the one that was woken cannot do it now.
    pub fn pass_on(&self) {
        self.arrived.notify_one();
    }

    pub fn close(&self) {
        self.state.lock().is_closed = true;
        self.arrived.notify_one();
    }

    pub fn is_closed(&self) -> bool {
        self.state.lock().is_closed
    }

    pub fn len(&self) -> usize {
        self.state.lock().items.len()
    }

    /// Until there is something and it has had company for long enough, as `company` says of so many since then, or the inbox is closed.
    /// False: it is closed and empty.
    pub async fn wait(&self, mut company: impl FnMut(usize, Instant) -> Company) -> bool {
        loop {
            let until = {
                let mut state = self.state.lock();
                if state.is_closed {
                    // Whoever shares this inbox has to hear of it too.
                    self.arrived.notify_one();
                    return !state.items.is_empty();
                }
                let company = state.since.map(|since| company(state.items.len(), since));
                state.enough = company.map_or(1, |company| company.enough);
                if company.is_some_and(|company| state.items.len() >= company.enough) {
                    return true;
                }
                company.map(|company| company.until)
            };
            match until {
                Some(until) if until <= Instant::now() => return true,
                Some(until) => tokio::select! {
                    () = self.arrived.notified() => {}
                    () = tokio::time::sleep_until(until) => {}
                },
                None => self.arrived.notified().await,
            }
        }
    }

    /// From the front, as long as `fits` says so.
    pub fn take(&self, mut fits: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut state = self.state.lock();
        let mut taken = Vec::new();
        while state.items.front().is_some_and(&mut fits) {
            taken.extend(state.items.pop_front());
        }
        let has_more = !state.items.is_empty();
        // What is left has waited enough: it goes next.
        state.since = state.since.filter(|_| has_more);
        drop(state);
        if has_more {
            self.arrived.notify_one();
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn what_waits_is_taken_after_the_delay_or_when_there_is_much() {
        let inbox = Inbox::new();
        let within = |delay| move |_, since| Company { until: since + delay, enough: 3 };
        let started = Instant::now();
        assert!(inbox.push(1));
        assert!(inbox.wait(within(Duration::from_millis(8))).await);
        assert!(started.elapsed() >= Duration::from_millis(8));
        assert_eq!(inbox.take(|_| true), [1]);
        let inbox = &inbox;
        let waits = inbox.wait(within(Duration::from_secs(60)));
        let three = async {
            for n in 0..3 {
                tokio::task::yield_now().await;
                assert!(inbox.push(n));
            }
        };
        let at_once = tokio::time::timeout(Duration::from_secs(20), async { tokio::join!(waits, three).0 });
        assert_eq!(at_once.await, Ok(true), "three are much");
    }

    #[tokio::test]
    async fn a_closed_inbox_gives_out_what_is_left_and_takes_nothing() {
        let inbox = Inbox::new();
        let long = |_, since| Company { until: since + Duration::from_secs(9), enough: 3 };
        assert!(inbox.push(1));
        inbox.close();
        assert!(!inbox.push(2));
        inbox.put_back(vec![0]);
        assert!(inbox.wait(long).await);
        assert_eq!(inbox.take(|_| true), [0, 1]);
        assert!(!inbox.wait(long).await);
    }
}
