//! Cursor pages: keyset pagination with an opaque iterator, as every list of the API has it.

/// Which way a list runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Ascending,
    Descending,
}

impl Direction {
    pub fn reversed(self) -> Self {
        match self {
            Self::Ascending => Self::Descending,
            Self::Descending => Self::Ascending,
        }
    }
}

/// One page asked for.
#[derive(Clone, Debug)]
pub struct PageQuery<C> {
    pub limit: usize,
    pub order: Direction,
    /// The row after which (in `order`) the page begins; not part of the page.
    pub after: Option<C>,
    /// `true`: the cursor came from `prevIterator`: the page is the one *before* it, still listed in `order`.
    pub backwards: bool,
}

/// One page answered: the rows in the asked order and whether more follow in the direction of travel.
#[derive(Clone, Debug)]
pub struct Page<T> {
    pub rows: Vec<T>,
    /// No further rows in the direction of travel.
    pub done: bool,
}
