//! ASOF joins, as plans have them.

/// Each left row with the one right row of its key whose time is nearest on one side. Output columns are the left's followed by the right's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AsOf {
    /// Key columns of the left input.
    pub left_keys: Vec<usize>,
    /// Key columns of the right input, same number and types.
    pub right_keys: Vec<usize>,
    /// The left row's time: any type that has an order.
    pub left_time: usize,
    /// The right row's time, of the same type.
    pub right_time: usize,
    /// On which side of the left row's time the right row's is.
    pub side: TimeSide,
    /// Whether a right row of the very same time is a match.
    pub takes_equal: bool,
    /// Whether a left row without a match is put out, with NULLs.
    pub keeps_unmatched: bool,
}

/// A side of a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeSide {
    /// The right row is the last one before: `left >= right`.
    Before,
    /// The right row is the first one after: `left <= right`.
    After,
}

impl AsOf {
    /// The comparison of the left time with the right one.
    pub fn comparison(&self) -> &'static str {
        match (self.side, self.takes_equal) {
            (TimeSide::Before, true) => ">=",
            (TimeSide::Before, false) => ">",
            (TimeSide::After, true) => "<=",
            (TimeSide::After, false) => "<",
        }
    }
}
