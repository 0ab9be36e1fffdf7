//! Which file holds which messages: segments by ranges of the message key.
//!
//! A segment holds the keys from its own start up to the next one's; the first also holds all below. So the file of a message,
//! and of everything that hangs on it, follows from its id alone, and segments are disjoint in time.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use super::fault::{Outcome, io};

/// One segment file.
#[derive(Debug, PartialEq, Eq)]
pub struct Segment {
    pub start: i64,
    pub path: PathBuf,
}

impl Segment {
    pub fn new(dir: &Path, start: i64) -> Self {
        Self { start, path: dir.join(format!("seg-{start:016x}.db")) }
    }
}

/// By start, never empty once the store is open.
pub type Segments = Arc<[Arc<Segment>]>;

/// The segments of this moment, for the writer and all readers.
#[derive(Debug)]
pub struct Catalogue {
    segments: RwLock<Segments>,
    generation: AtomicU64,
}

impl Catalogue {
    pub fn new(segments: Vec<Arc<Segment>>) -> Self {
        Self { segments: RwLock::new(segments.into()), generation: AtomicU64::new(0) }
    }

    pub fn get(&self) -> Segments {
        self.segments.read().clone()
    }

    pub fn set(&self, segments: Vec<Arc<Segment>>) {
        *self.segments.write() = segments.into();
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Changes with every [`Catalogue::set`].
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub fn has(&self, start: i64) -> bool {
        self.segments.read().iter().any(|segment| segment.start == start)
    }
}

/// The place of `key` among segments that begin at `starts` (ascending, not empty).
pub fn place_of(starts: impl ExactSizeIterator<Item = i64>, key: i64) -> usize {
    starts.enumerate().take_while(|(_, start)| *start <= key).last().map_or(0, |(at, _)| at)
}

/// The segment files in `dir`, by start. Removes what an interrupted creation or removal left behind.
pub fn scan(dir: &Path) -> Outcome<Vec<Arc<Segment>>> {
    let wrong = |error: std::io::Error| io("reading the data directory", &error);
    let mut segments = Vec::new();
    let mut leftovers = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(wrong)? {
        let path = entry.map_err(wrong)?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let Some(rest) = name.strip_prefix("seg-") else { continue };
        match rest.split_once('.') {
            Some((hex, "db")) => {
                if let Ok(start) = i64::from_str_radix(hex, 16) {
                    segments.push(Arc::new(Segment { start, path }));
                }
            }
            Some((hex, "db-wal" | "db-shm")) if !dir.join(format!("seg-{hex}.db")).exists() => leftovers.push(path),
            Some((_, rest)) if rest.starts_with("new") => leftovers.push(path),
            _ => {}
        }
    }
    for path in leftovers {
        std::fs::remove_file(&path).map_err(wrong)?;
    }
    segments.sort_by_key(|segment| segment.start);
    Ok(segments)
}

/// Makes changes to the directory itself durable.
pub fn sync_dir(dir: &Path) -> Outcome<()> {
    std::fs::File::open(dir).and_then(|d| d.sync_all()).map_err(|error| io("syncing the data directory", &error).into())
}

/// The file with its log and shared index.
pub fn companions(path: &Path) -> [PathBuf; 3] {
    let with = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    [path.to_owned(), with("-wal"), with("-shm")]
}

/// Bytes the file takes on disk, its log included.
pub fn bytes_on_disk(path: &Path) -> u64 {
    companions(path).iter().filter_map(|path| std::fs::metadata(path).ok()).map(|meta| meta.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_belongs_to_the_last_segment_that_starts_at_or_before_it() {
        let starts = [10, 20, 30];
        for (key, at) in [(5, 0), (10, 0), (19, 0), (20, 1), (30, 2), (i64::MAX, 2), (i64::MIN, 0)] {
            assert_eq!(place_of(starts.into_iter(), key), at, "{key}");
        }
    }
}
