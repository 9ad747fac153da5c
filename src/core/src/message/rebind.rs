//! What root asks about trees that go to another OS account. Accepted from uid 0 alone.
//!
//! A request has any number of [`RebindReply::Progress`], [`RebindReply::Problems`] and [`RebindReply::Found`], and then
//! one answer that is its last.

use serde::{Deserialize, Serialize};

use crate::ids::RebindId;
use crate::names::OsUserName;
use crate::rebind::{NamedGroup, NamedUser, Problem, RebindEnd, RebindPlan, RebindState};

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RebindRequest {
    /// Look through a tree and write down what would be changed. Answered by [`RebindReply::Planned`].
    Plan {
        /// The tree's absolute path.
        path: Vec<u8>,
        /// Whose files are to be moved.
        from: Vec<NamedUser>,
        /// To whom.
        to: OsUserName,
        /// Groups that become others, beside the primary ones.
        groups: Vec<(NamedGroup, NamedGroup)>,
        /// Whether files with names outside of the tree stay as they are, instead of there being no plan.
        leave_linked: bool,
    },
    /// Do what a plan says, or go on with it. Answered by [`RebindReply::Ended`].
    Apply {
        /// Which plan.
        id: RebindId,
        /// Whether processes of the accounts may run meanwhile.
        while_running: bool,
    },
    /// Put everything back as it was, or go on with that. Answered by [`RebindReply::Ended`].
    Undo {
        /// Which plan.
        id: RebindId,
        /// Whether processes of the accounts may run meanwhile.
        while_running: bool,
    },
    /// All plans, each a [`RebindReply::Found`]. Answered by [`RebindReply::Done`].
    List,
    /// One plan, with everything that was to be said about it. Answered by [`RebindReply::Found`].
    Show {
        /// Which plan.
        id: RebindId,
    },
    /// Remove a plan and its records; one that was begun and not ended stays. Answered by [`RebindReply::Done`].
    Forget {
        /// Which plan.
        id: RebindId,
    },
}

/// What is answered, beside refusals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RebindReply {
    /// How far the work is.
    Progress {
        /// So many entries.
        done: u64,
        /// Of so many, where that is known.
        of: Option<u64>,
    },
    /// What is to be said about entries.
    Problems(Vec<Problem>),
    /// The plan is made.
    Planned(Box<RebindPlan>),
    /// The work has come to its end.
    Ended(RebindEnd),
    /// A plan.
    Found {
        /// What it says.
        plan: Box<RebindPlan>,
        /// How far it has come.
        state: RebindState,
        /// How many entries were done with.
        done: u64,
    },
    /// Done.
    Done,
}
