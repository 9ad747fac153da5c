//! Requests to the owner's socket: what the owner of an OS account says about links onto it.
//!
//! Whose account is meant is the peer's uid; no request names one.

use serde::{Deserialize, Serialize};

use super::launcher::{ConsentPage, Withdrawn};
use crate::denial::Denial;
use crate::ids::LinkCode;
use crate::names::{AccountName, ApplicationName};

/// One request; a connection carries one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OwnerRequest {
    /// List the consents onto the peer's OS account.
    List {
        /// The last file name of the page before.
        after: Option<String>,
    },
    /// Say what a code is for, so that the owner sees it before consenting.
    Describe {
        /// The code.
        code: LinkCode,
    },
    /// Give consent to the link that the code is for.
    Give {
        /// The code.
        code: LinkCode,
    },
    /// Let a consent onto the peer's OS account hold as long as one given now. Answered by [`OwnerReply::Renewed`].
    Renew {
        /// Of which application.
        application: ApplicationName,
        /// Of which of its accounts.
        account: AccountName,
    },
    /// Take back a consent, whoever gave it. Answered by [`OwnerReply::Withdrawn`].
    Revoke {
        /// Of which application.
        application: ApplicationName,
        /// Of which of its accounts.
        account: AccountName,
        /// Whether what runs under it is ended too.
        end_jobs: bool,
    },
}

/// What a link code is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The application that asked.
    pub application: ApplicationName,
    /// The account that it wants to link.
    pub account: AccountName,
    /// Until when the code is good, seconds since 1970.
    pub expires: u64,
}

/// An answer to the owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OwnerReply {
    /// Refused, with the reason.
    Denied(Denial),
    /// Done.
    Done,
    /// The consents onto the peer's OS account.
    Consents(ConsentPage),
    /// What the code is for.
    Offer(Offer),
    /// A consent holds anew.
    Renewed {
        /// Until when, seconds since 1970.
        expires: Option<u64>,
    },
    /// A consent was taken back.
    Withdrawn(Withdrawn),
}
