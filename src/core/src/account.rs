//! The states of an account, and what leads from one to another.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Where an account stands. One that was deleted, or never made, is not there at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// It registered itself, and waits to be approved.
    Pending,
    /// It can be used.
    #[default]
    Active,
    /// Its registration was refused; it may register again.
    Rejected,
    /// It was put out of use; what is its own stays.
    Deactivated,
}

impl Status {
    /// Every status, in the order of a life.
    pub const ALL: [Status; 4] = [Status::Pending, Status::Active, Status::Rejected, Status::Deactivated];

    /// The status as the interfaces name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Pending => "pending",
            Status::Active => "active",
            Status::Rejected => "rejected",
            Status::Deactivated => "deactivated",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Status {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|status| status.as_str() == text);
        found.ok_or_else(|| "an account is pending, active, rejected or deactivated".to_owned())
    }
}

/// What is done to an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Somebody who may makes it.
    Create,
    /// A person asks for it himself.
    Register,
    /// The registration is granted.
    Approve,
    /// The registration is refused.
    Reject,
    /// What is known of the person changes.
    Edit,
    /// It is given another role.
    SetRole,
    /// It is put out of use.
    Deactivate,
    /// It is put into use again.
    Reactivate,
    /// It is removed for good.
    Delete,
}

impl Step {
    /// Every step.
    pub const ALL: [Step; 9] = [
        Step::Create,
        Step::Register,
        Step::Approve,
        Step::Reject,
        Step::Edit,
        Step::SetRole,
        Step::Deactivate,
        Step::Reactivate,
        Step::Delete,
    ];

    /// Where the step leads from a state, `None` being an account that is not there; or why it cannot be taken.
    pub fn from(self, status: Option<Status>) -> Result<Option<Status>, Refused> {
        use Status::{Active, Deactivated, Pending, Rejected};
        match (self, status) {
            (Step::Create, None) | (Step::Approve, Some(Pending)) | (Step::Reactivate, Some(Deactivated)) => {
                Ok(Some(Active))
            }
            (Step::Register, None | Some(Rejected)) => Ok(Some(Pending)),
            (Step::Create | Step::Register, Some(_)) => Err(Refused::Exists),
            (_, None) => Err(Refused::Absent),
            (Step::Reject, Some(Pending)) => Ok(Some(Rejected)),
            (Step::Deactivate, Some(Active)) => Ok(Some(Deactivated)),
            (Step::Edit | Step::SetRole, Some(status @ (Pending | Active | Deactivated))) => Ok(Some(status)),
            (Step::Delete, Some(_)) => Ok(None),
            (_, Some(status)) => Err(Refused::Is(status)),
        }
    }
}

/// Why a step cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// There is one of that name.
    Exists,
    /// There is none of that name.
    Absent,
    /// It is in a state in which this cannot be done.
    Is(Status),
}

impl Refused {
    /// In words.
    pub fn why(self) -> &'static str {
        match self {
            Refused::Exists => "it exists already",
            Refused::Absent => "it is not there",
            Refused::Is(Status::Pending) => "it is pending: it has to be approved or rejected first",
            Refused::Is(Status::Active) => "it is active",
            Refused::Is(Status::Rejected) => "it was rejected: it has to register again",
            Refused::Is(Status::Deactivated) => "it is deactivated",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every state by every step. `X`: refused; `-`: the account is gone or never was.
    const TABLE: &str = "
        step        absent      pending      active       rejected  deactivated
        create      active      X            X            X         X
        register    pending     X            X            pending   X
        approve     X           active       X            X         X
        reject      X           rejected     X            X         X
        edit        X           pending      active       X         deactivated
        setrole     X           pending      active       X         deactivated
        deactivate  X           X            deactivated  X         X
        reactivate  X           X            X            X         active
        delete      X           -            -            -         -
    ";

    #[test]
    fn every_transition_is_as_the_table_says() {
        let rows: Vec<Vec<&str>> =
            TABLE.trim().lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows.len(), Step::ALL.len());
        for (row, step) in rows.iter().zip(Step::ALL) {
            assert_eq!(row[0], format!("{step:?}").to_lowercase());
            let from = [None].into_iter().chain(Status::ALL.map(Some));
            for (expected, status) in row[1..].iter().zip(from) {
                let shown = match step.from(status) {
                    Err(_) => "X",
                    Ok(None) => "-",
                    Ok(Some(to)) => to.as_str(),
                };
                assert_eq!(shown, *expected, "{step:?} from {status:?}");
            }
        }
    }

    #[test]
    fn only_the_absent_is_absent_and_only_the_present_exists() {
        for step in Step::ALL {
            assert!(matches!(step.from(None), Ok(Some(_)) | Err(Refused::Absent)), "{step:?}");
            for status in Status::ALL {
                assert_ne!(step.from(Some(status)), Err(Refused::Absent), "{step:?} {status}");
            }
        }
    }

    #[test]
    fn a_status_comes_back_from_its_name() {
        for status in Status::ALL {
            assert_eq!(status.as_str().parse::<Status>(), Ok(status));
            assert!(Refused::Is(status).why().contains("it "));
        }
        assert!("deleted".parse::<Status>().is_err());
    }
}
