//! A setting that the program picks unless the operator does: `"auto"`.

/// A value, or the wish that the program picks one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AutoOr<T> {
    /// The program picks.
    #[default]
    Auto,
    /// The operator picked.
    Value(T),
}

impl<T> AutoOr<T> {
    /// The operator's value, if there is one.
    pub fn value(self) -> Option<T> {
        match self {
            Self::Auto => None,
            Self::Value(value) => Some(value),
        }
    }

    /// The operator's value, or what `pick` says.
    pub fn or_else(self, pick: impl FnOnce() -> T) -> T {
        match self {
            Self::Auto => pick(),
            Self::Value(value) => value,
        }
    }
}
