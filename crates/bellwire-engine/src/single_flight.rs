//! One read for all who ask for the same at the same time. What is asked for most is asked for by everybody at once when it has just been
//! forgotten: 64 publishers would send 64 times the same statements, over as many connections as there may be.

use std::collections::HashMap;
use std::hash::Hash;
use std::pin::Pin;

use parking_lot::Mutex;
use tokio::sync::watch;

/// Reads under way, by what they read. Where it can change, its generation belongs into the key: who asks after a change must not be
/// given what was read before it.
#[derive(Debug)]
pub struct SingleFlight<K, V> {
    under_way: Mutex<HashMap<K, watch::Receiver<Option<V>>>>,
}

/// However a read ends, the next one who asks begins another.
struct Landing<'a, K: Eq + Hash, V>(&'a SingleFlight<K, V>, K);

impl<K: Eq + Hash, V> Drop for Landing<'_, K, V> {
    fn drop(&mut self) {
        self.0.under_way.lock().remove(&self.1);
    }
}

impl<K: Eq + Hash + Clone + Send, V: Clone + Send + Sync> SingleFlight<K, V> {
    pub fn new() -> Self {
        Self { under_way: Mutex::new(HashMap::new()) }
    }

    /// What `load` returns, or what somebody else is about to read. Where that fails, or nobody waits for it any more, `load` after all:
    /// not one after the other, as each may take long to fail.
    ///
    /// In a box, as this is what happens seldom: else everybody who finds the answer in a cache would carry, and move, what it takes to read it.
    ///
    /// # Errors
    /// Those of `load`.
    pub fn read<'a, E: Send + 'a>(
        &'a self,
        key: K,
        load: impl Future<Output = Result<V, E>> + Send + 'a,
    ) -> Pin<Box<dyn Future<Output = Result<V, E>> + Send + 'a>> {
        Box::pin(async move {
            let begun = match self.board(&key) {
                Ok(tell) => Ok((tell, Landing(self, key))),
                Err(told) => Err(told),
            };
            match begun {
                Ok((tell, _landing)) => {
                    let value = load.await?;
                    tell.send_replace(Some(value.clone()));
                    Ok(value)
                }
                Err(mut told) => {
                    let value = told.wait_for(Option::is_some).await.ok().and_then(|value| value.clone());
                    match value {
                        Some(value) => Ok(value),
                        None => load.await,
                    }
                }
            }
        })
    }

    /// The means to tell the others, or to be told.
    fn board(&self, key: &K) -> Result<watch::Sender<Option<V>>, watch::Receiver<Option<V>>> {
        let mut under_way = self.under_way.lock();
        if let Some(told) = under_way.get(key) {
            return Err(told.clone());
        }
        let (tell, told) = watch::channel(None);
        under_way.insert(key.clone(), told);
        Ok(tell)
    }
}

impl<K: Eq + Hash + Clone + Send, V: Clone + Send + Sync> Default for SingleFlight<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    async fn counted(reads: &AtomicUsize, value: Result<u8, &'static str>) -> Result<u8, &'static str> {
        reads.fetch_add(1, Ordering::Relaxed);
        tokio::task::yield_now().await;
        value
    }

    /// Broken: when a hot entry expires, everybody reads it, over all connections.
    #[tokio::test]
    async fn who_comes_meanwhile_is_told_what_the_first_one_reads() {
        let (flights, reads) = (SingleFlight::new(), AtomicUsize::new(0));
        let read = |key, value| flights.read(key, counted(&reads, Ok(value)));
        let answers = tokio::join!(read(1, 10), read(1, 11), read(2, 20), read(1, 12));
        assert_eq!(answers, (Ok(10), Ok(10), Ok(20), Ok(10)));
        assert_eq!(reads.load(Ordering::Relaxed), 2);
        // Later on it may have changed.
        assert_eq!(read(1, 13).await, Ok(13));
        assert!(flights.under_way.lock().is_empty());
    }

    /// Broken: one failed read fails everybody, or they fail one after the other.
    #[tokio::test]
    async fn where_the_first_one_fails_the_others_read_together() {
        let (flights, reads) = (SingleFlight::new(), AtomicUsize::new(0));
        let read = |value| flights.read(1, counted(&reads, value));
        let answers = tokio::join!(read(Err("away")), read(Ok(2)), read(Ok(3)), read(Err("again")));
        assert_eq!(answers, (Err("away"), Ok(2), Ok(3), Err("again")));
        assert_eq!(reads.load(Ordering::Relaxed), 4);
        assert!(flights.under_way.lock().is_empty());
    }

    /// Broken: somebody hangs up, and who waited for his read waits for ever.
    #[tokio::test]
    async fn nobody_waits_for_who_has_left() {
        let flights = SingleFlight::<_, u8>::new();
        let mut first = Box::pin(flights.read(1, std::future::pending::<Result<u8, ()>>()));
        assert!(polled_once(&mut first).await.is_none());
        let second = flights.read(1, async { Ok::<_, ()>(2) });
        let left = async {
            tokio::task::yield_now().await;
            drop(first);
        };
        assert_eq!(tokio::join!(second, left).0, Ok(2));
        assert!(flights.under_way.lock().is_empty());
    }

    async fn polled_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        std::future::poll_fn(|context| match std::pin::Pin::new(&mut *future).poll(context) {
            std::task::Poll::Ready(output) => std::task::Poll::Ready(Some(output)),
            std::task::Poll::Pending => std::task::Poll::Ready(None),
        })
        .await
    }
}
