//! One way through the listing, page by page.
//!
//! A walk to the end that read every row is complete, and only then what it did not meet is missing
//! from the listing. Where the end is a long way off, a walk ends where an earlier one began: what is
//! below was seen by that one, and has ended or is followed by itself. A look at the top ends where
//! nothing is new on the lower half of a page, or below the last job that nothing else keeps an eye on.

use std::{collections::HashSet, time::Instant};

use crate::provider::switchboard::{
    client::{Failure, FailureKind},
    job::JobId,
    read::{Cursor, Page, Position},
};

use super::job_table::Sequence;

/// Rows of a page of a walk: the most there are.
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
    /// To the end, or to where that is known.
    Whole,
    /// Until nothing is new.
    Top,
}

/// A walk that is going on.
#[derive(Debug)]
pub(super) struct Walk {
    pub(super) extent: Extent,
    /// Before the first request: what became known later need not be in the listing.
    pub(super) began: Sequence,
    pub(super) started: Instant,
    /// Whether the account had the right to all jobs when it began.
    pub(super) of_all: bool,
    /// Where to end, if not at the end.
    down_to: Option<Position>,
    limit: u16,
    cursor: Option<Cursor>,
    cursors: HashSet<Cursor>,
    present: HashSet<JobId>,
    /// Where its first page ended.
    first_page: Option<Position>,
    /// It has met the end of the listing.
    whole: bool,
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
    /// One that ends at `down_to` at the latest; a look at the top goes on to there even if nothing
    /// is new.
    pub(super) fn new(extent: Extent, began: Sequence, down_to: Option<Position>) -> Self {
        Self {
            extent,
            began,
            started: Instant::now(),
            of_all: false,
            limit: match (extent, &down_to) {
                (Extent::Top, None) => TOP_PAGE,
                (Extent::Top, Some(_)) | (Extent::Whole, _) => WHOLE_PAGE,
            },
            down_to,
            cursor: None,
            cursors: HashSet::new(),
            present: HashSet::new(),
            first_page: None,
            whole: false,
            pages: 0,
            lost: 0,
        }
    }

    /// What to ask for next.
    pub(super) fn question(&self) -> (u16, Option<Cursor>) {
        (self.limit, self.cursor.clone())
    }

    /// Takes in the next page; `goes_on` says whether anything new may be below it.
    ///
    /// # Errors
    ///
    /// [`Failure::Invalid`] if the listing has no end.
    pub(super) fn page(mut self, page: Page, goes_on: bool) -> Result<Step, Failure> {
        let last = page.rows.last().and_then(|row| row.position.clone());
        if self.pages == 0 {
            self.first_page.clone_from(&last);
        }
        self.pages += 1;
        self.lost += page.lost;
        let below = |place: &Position| last.as_ref().is_some_and(|last| last <= place);
        let is_there = self.down_to.as_ref().is_some_and(below);
        self.present.extend(page.rows.into_iter().map(|row| row.id));
        let Some(next) = page.next else {
            self.whole = true;
            return Ok(Step::Done(self));
        };
        let enough = match self.extent {
            Extent::Whole => is_there,
            Extent::Top => {
                let rest = self.down_to.is_some() && !is_there;
                !(goes_on || rest) || self.pages >= TOP_PAGES_AT_MOST
            }
        };
        if enough {
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
    pub(super) fn smaller(mut self, failure: &Failure) -> Result<Self, Box<Self>> {
        if failure.kind() == FailureKind::TooLarge && self.limit > 1 {
            self.limit /= 2;
            return Ok(self);
        }
        Err(Box::new(self))
    }

    /// The jobs it met, if it left none out.
    pub(super) fn complete(&self) -> Option<&HashSet<JobId>> {
        (self.extent == Extent::Whole && self.lost == 0).then_some(&self.present)
    }

    /// Where it ended, if not at the end.
    pub(super) fn down_to(&self) -> Option<&Position> {
        self.down_to.as_ref().filter(|_| !self.whole)
    }

    /// Where a later walk may end: a page below its beginning, as a row may show up late.
    pub(super) fn first_page(&self) -> Option<&Position> {
        self.first_page.as_ref()
    }

    /// Of a look at the top that was to go on where nothing is new: whether it came as far as it was
    /// to.
    pub(super) fn looked_down(&self) -> Option<bool> {
        let is_there = self.whole || self.pages < TOP_PAGES_AT_MOST;
        self.down_to.is_some().then_some(is_there)
    }

    /// Rows that it met so far.
    pub(super) fn rows(&self) -> usize {
        self.present.len()
    }

    /// Pages that it read so far.
    pub(super) fn pages(&self) -> usize {
        self.pages
    }

    /// Rows that do not say whose they are.
    pub(super) fn lost(&self) -> usize {
        self.lost
    }
}
