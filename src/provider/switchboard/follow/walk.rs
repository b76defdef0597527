//! One way through the listing, page by page.
//!
//! A walk to the end that read every row is complete, and only then what it did not meet is missing
//! from the listing. A look at the top ends where nothing is new.

use std::{collections::HashSet, time::Instant};

use crate::provider::switchboard::{
    client::{Failure, FailureKind},
    job::JobId,
    read::{Cursor, Page},
};

use super::book::Moment;

/// Rows of a page of a walk to the end: the most there are.
const WHOLE_PAGE: u16 = 200;

/// Rows of a page of a look at the top.
const TOP_PAGE: u16 = 50;

/// Pages of a look at the top; whatever is new below is left to the next walk.
const TOP_PAGES_AT_MOST: usize = 20;

/// Pages of a walk, two million rows of them. A listing without end must not be walked for ever.
const PAGES_AT_MOST: usize = 10_000;

/// How far to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// To the end.
    Whole,
    /// Until nothing is new.
    Top,
}

/// A walk that is going on.
#[derive(Debug)]
pub(super) struct Walk {
    pub(super) extent: Extent,
    /// Before the first request: what became known later need not be in the listing.
    pub(super) began: Moment,
    pub(super) started: Instant,
    limit: u16,
    cursor: Option<Cursor>,
    cursors: HashSet<Cursor>,
    present: HashSet<JobId>,
    pages: usize,
    lost: usize,
}

/// What to do after a page.
#[derive(Debug)]
pub(super) enum Step {
    /// Ask for the next.
    On(Walk),
    /// Nothing: that was all that is wanted.
    Done(Walk),
}

impl Walk {
    pub(super) fn new(extent: Extent, began: Moment) -> Self {
        Self {
            extent,
            began,
            started: Instant::now(),
            limit: match extent {
                Extent::Whole => WHOLE_PAGE,
                Extent::Top => TOP_PAGE,
            },
            cursor: None,
            cursors: HashSet::new(),
            present: HashSet::new(),
            pages: 0,
            lost: 0,
        }
    }

    /// What to ask for next.
    pub(super) fn question(&self) -> (u16, Option<Cursor>) {
        (self.limit, self.cursor.clone())
    }

    /// Takes in the next page; `any_new` says whether anything on it was.
    ///
    /// # Errors
    ///
    /// [`Failure::Invalid`] if the listing has no end.
    pub(super) fn page(mut self, page: Page, any_new: bool) -> Result<Step, Failure> {
        self.pages += 1;
        self.lost += page.lost;
        self.present.extend(page.rows.into_iter().map(|row| row.id));
        let Some(next) = page.next else {
            return Ok(Step::Done(self));
        };
        if self.extent == Extent::Top && (!any_new || self.pages >= TOP_PAGES_AT_MOST) {
            return Ok(Step::Done(self));
        }
        if self.pages >= PAGES_AT_MOST {
            let reason = format!("a listing of more than {PAGES_AT_MOST} pages");
            return Err(Failure::invalid(&reason));
        }
        if !self.cursors.insert(next.clone()) {
            return Err(Failure::invalid(
                "a listing whose pages go round in circles",
            ));
        }
        self.cursor = Some(next);
        Ok(Step::On(self))
    }

    /// The same place with smaller pages, if a page was too large and there are any smaller.
    pub(super) fn smaller(mut self, failure: &Failure) -> Option<Self> {
        self.limit /= 2;
        (failure.kind() == FailureKind::TooLarge && self.limit > 0).then_some(self)
    }

    /// The jobs it met, if that are all there are.
    pub(super) fn complete(&self) -> Option<&HashSet<JobId>> {
        (self.extent == Extent::Whole && self.lost == 0).then_some(&self.present)
    }

    /// Rows that it met so far.
    pub(super) fn rows(&self) -> usize {
        self.present.len()
    }

    /// Rows that do not say whose they are.
    pub(super) fn lost(&self) -> usize {
        self.lost
    }
}
