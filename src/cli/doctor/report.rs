//! What was found, and how it is printed.

use serde::Serialize;

use crate::cli::output::{Paint, Screen};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Grade {
    /// As it should be.
    Good,
    /// To be known.
    Note,
    /// It will do, and could be better.
    Poor,
    /// It has to change.
    Bad,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub grade: Grade,
    pub check: String,
    pub found: String,
    /// What to do about it; empty where nothing is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub advice: String,
}

impl Finding {
    fn new(grade: Grade, check: &str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            grade,
            check: check.to_owned(),
            found: found.into(),
            advice: advice.into(),
        }
    }

    pub fn good(check: &str, found: impl Into<String>) -> Self {
        Self::new(Grade::Good, check, found, "")
    }

    pub fn note(check: &str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(Grade::Note, check, found, advice)
    }

    pub fn poor(check: &str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(Grade::Poor, check, found, advice)
    }

    pub fn bad(check: &str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(Grade::Bad, check, found, advice)
    }
}

/// One paragraph a finding: how it is, what it is, and what to do.
pub(super) fn text(findings: &[Finding], screen: &Screen) -> String {
    let mut text = String::new();
    for finding in findings {
        let (paint, word) = match finding.grade {
            Grade::Good => (Paint::Good, "ok  "),
            Grade::Note => (Paint::Dim, "note"),
            Grade::Poor => (Paint::Warn, "warn"),
            Grade::Bad => (Paint::Bad, "BAD "),
        };
        let word = screen.paint(paint, word);
        text.push_str(&format!("{word}  {}: {}\n", finding.check, finding.found));
        if !finding.advice.is_empty() {
            text.push_str(&format!("      -> {}\n", finding.advice));
        }
    }
    text
}
