//! Why something that was open no longer is.

use super::Reason;

/// Why something that was open no longer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closing {
    /// The job has ended.
    Ended,
    /// The rule is no longer in the configuration.
    RuleRemoved,
    /// The rule no longer fits the job: it announces other services.
    RuleUnfit,
    /// It may no longer be exposed.
    Refused(Reason),
}

impl Closing {
    /// How many there are.
    pub const COUNT: usize = 3 + Reason::ALL.len();

    /// Every one, in the order of their numbers.
    pub fn all() -> impl Iterator<Item = Self> {
        let own = [Self::Ended, Self::RuleRemoved, Self::RuleUnfit];
        own.into_iter().chain(Reason::ALL.map(Self::Refused))
    }

    /// Its number.
    pub const fn number(self) -> usize {
        match self {
            Self::Ended => 0,
            Self::RuleRemoved => 1,
            Self::RuleUnfit => 2,
            Self::Refused(reason) => 3 + reason as usize,
        }
    }

    /// It in one word, as metrics and the log have it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::RuleRemoved => "rule_removed",
            Self::RuleUnfit => "rule_unfit",
            Self::Refused(reason) => reason.word(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_closing_has_its_number_and_a_word_of_its_own() {
        let mut words = std::collections::HashSet::new();
        for (number, closing) in Closing::all().enumerate() {
            assert_eq!(closing.number(), number);
            assert!(words.insert(closing.word()), "{} twice", closing.word());
        }
        assert_eq!(words.len(), Closing::COUNT);
    }
}
