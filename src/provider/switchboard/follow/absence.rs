//! When a job that the switchboard no longer mentions is over.
//!
//! A job is over when a valid answer or a row of a listing says that it is finalized; when it is
//! missing from a complete listing of all jobs, had by an account that was seen to have the right to
//! all of them, and a question about the job itself, asked because of that, does not say otherwise, or
//! it is missing from the next such listing as well; and when it is missing from any complete listing
//! and the answer about itself is 404. Nothing else ends a job: not an error, not a refusal, not an
//! answer that cannot be read, not part of a listing.
//!
//! Many jobs that are missing all at once are held back until the next such listing. Whatever was
//! concluded, a job that a later listing has as active is followed again.

use crate::provider::switchboard::client::FailureKind;

/// Jobs that may be missing from one listing without anybody wondering; of more, a third.
const MISSING_AT_MOST: usize = 5;

/// A complete listing did not have the job.
#[derive(Debug, Clone, Copy)]
pub(super) struct Absence {
    /// The account was seen to have the right to all jobs.
    of_all: bool,
    /// It was one of too many.
    is_held: bool,
    /// It was asked about since.
    asked: bool,
}

/// What a failure to read a job says of the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Conclusion {
    /// Nothing.
    Nothing,
    /// It may be over; a complete listing will tell.
    Doubtful,
    /// It is over.
    Over,
}

impl Absence {
    /// Of one of `missing` jobs that a listing did not have, of all jobs or of some, where `known`
    /// are followed.
    pub(super) fn of_many(missing: usize, known: usize, of_all: bool) -> Self {
        let many = missing > MISSING_AT_MOST && missing * 3 > known;
        Self {
            of_all,
            is_held: of_all && many,
            asked: false,
        }
    }

    /// Whether it is one of too many to be believed.
    pub(super) fn is_held(self) -> bool {
        self.is_held
    }

    /// Whether the job is over that is missing from another listing, of all jobs or of some: it was
    /// asked about since, without an answer.
    pub(super) fn is_confirmed(self, of_all: bool) -> bool {
        of_all && self.of_all && self.asked
    }

    /// What it says of a job, absent or not, that reading it fails so.
    pub(super) fn after(absence: &mut Option<Self>, kind: FailureKind) -> Conclusion {
        if let Some(absent) = absence {
            absent.asked = true;
        }
        match (kind, absence) {
            // Who may read all jobs is never refused one: it is about the account, and so was the
            // listing.
            (FailureKind::Forbidden | FailureKind::Unauthorized, absence) => {
                *absence = None;
                Conclusion::Nothing
            }
            // An admin gets 500 for a job that does not exist, and for any other trouble.
            (FailureKind::NotFound | FailureKind::Server, None) => Conclusion::Doubtful,
            (_, Some(Self { is_held: true, .. })) => Conclusion::Nothing,
            (FailureKind::NotFound, Some(_))
            | (FailureKind::Server, Some(Self { of_all: true, .. })) => Conclusion::Over,
            _ => Conclusion::Nothing,
        }
    }
}
