//! Reading the state: look-ups by key, and lists in pages.

use deputy_core::{AccountName, ApplicationName, JobId, OsUid, SessionId};

mod accounts;
#[cfg(test)]
mod tests;
pub(super) mod walk;

pub use accounts::{AccountFilter, AccountSort};

use super::Store;
use super::change::Entry;
use super::clock::Timestamp;
use super::error::StoreError;
use super::job::Job;
use super::ledger::Walk;
use super::page::{Cursor, Page, PageRequest};
use super::record::{Account, Alert, Link, LinkState, PasswordFact, Session};
use super::view::keys;

/// The most records of the ledger that are looked at for one page.
const MAX_RECORDS: usize = 20_000;

/// Whose links or jobs are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// An application's.
    Application(ApplicationName),
    /// One account's.
    Account(ApplicationName, AccountName),
    /// Those that concern an OS account, of any application.
    OsUid(OsUid),
}

/// Which jobs of a scope.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// In one of these states, by [`super::JobState::as_str`]; empty for any.
    pub states: Vec<String>,
    /// With this label.
    pub kind: Option<deputy_core::KindName>,
}

/// Which records of the audit log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Of an application: those that name it, and those that its service user caused.
    pub application: Option<ApplicationName>,
    /// Of an account.
    pub account: Option<AccountName>,
    /// Of a job.
    pub job: Option<JobId>,
    /// Caused by a caller of this uid.
    pub caller_uid: Option<u32>,
    /// Refusals only.
    pub denied: bool,
}

impl AuditFilter {
    fn takes(&self, entry: &Entry) -> bool {
        let of_application = self.application.as_ref().is_none_or(|application| {
            entry.change.application().or(entry.actor.application.as_ref()) == Some(application)
        });
        of_application
            && self.account.as_ref().is_none_or(|account| entry.change.account() == Some(account))
            && self.job.as_ref().is_none_or(|job| entry.change.job() == Some(job))
            && self.caller_uid.is_none_or(|uid| entry.actor.caller_uid == uid)
            && (!self.denied || matches!(entry.change, super::Change::Denied { .. }))
    }
}

impl Store {
    /// The link of an account.
    pub fn link(
        &self,
        application: &ApplicationName,
        account: &AccountName,
    ) -> Result<Option<Link>, StoreError> {
        self.inner.view.record(&keys::link(application, account))
    }

    /// Links, by application and account; those in `state` where one is given.
    pub fn links(
        &self,
        scope: &Scope,
        state: Option<LinkState>,
        page: &PageRequest,
    ) -> Result<Page<Link>, StoreError> {
        let wanted = |link: &Link| state.is_none_or(|state| link.state == state);
        match scope {
            Scope::Application(application) => self.page(&keys::links(application), false, page, |_, row| {
                Ok(Some(self.decoded::<Link>(row)?).filter(wanted))
            }),
            Scope::Account(application, account) => Ok(Page {
                items: self.link(application, account)?.into_iter().filter(wanted).collect(),
                next: None,
            }),
            Scope::OsUid(uid) => {
                let prefix = keys::links_of_uid(*uid);
                self.page_of_entries(&prefix, false, page, |work, key, _| {
                    // The rest of the key is the link's own.
                    let link_key = [keys::LINKS, &key[prefix.len()..]].concat();
                    // It may have moved to another OS account since the entry was read.
                    let link: Option<Link> = self.looked_up(work, &link_key)?;
                    Ok(link.filter(|link| link.os.uid == *uid).filter(wanted))
                })
            }
        }
    }

    /// A session that was not closed; whether it has expired is the caller's to see.
    pub fn session(&self, id: &SessionId) -> Result<Option<Session>, StoreError> {
        self.inner.view.record(&keys::session(id))
    }

    /// The alerts of an application, or of one of its accounts.
    pub fn alerts(
        &self,
        application: &ApplicationName,
        account: Option<&AccountName>,
        page: &PageRequest,
    ) -> Result<Page<Alert>, StoreError> {
        let prefix = match account {
            Some(account) => keys::alerts_of(application, account),
            None => keys::alerts(application),
        };
        self.page(&prefix, false, page, |_, row| self.decoded(row).map(Some))
    }

    /// What is known of an account's password; none if it has none.
    pub fn password(
        &self,
        application: &ApplicationName,
        account: &AccountName,
    ) -> Result<Option<PasswordFact>, StoreError> {
        self.inner.view.record(&keys::password(application, account))
    }

    /// The sessions of an application, or of one of its accounts.
    pub fn sessions(
        &self,
        application: &ApplicationName,
        account: Option<&AccountName>,
        page: &PageRequest,
    ) -> Result<Page<Session>, StoreError> {
        let prefix = match account {
            Some(account) => keys::sessions_of_account(application, account),
            None => keys::sessions_of_application(application),
        };
        self.page_of_entries(&prefix, false, page, |work, _, id| {
            self.looked_up(work, &[keys::SESSIONS, id].concat())
        })
    }

    /// All sessions, of all applications: for the daemon's start and its clean-up.
    pub fn all_sessions(&self, page: &PageRequest) -> Result<Page<Session>, StoreError> {
        self.page(keys::SESSIONS, false, page, |_, row| self.decoded(row).map(Some))
    }

    /// All links, of all applications, in `state` where one is given: for the daemon's regular checks.
    pub fn all_links(&self, state: Option<LinkState>, page: &PageRequest) -> Result<Page<Link>, StoreError> {
        self.page(keys::LINKS, false, page, |_, row| {
            Ok(Some(self.decoded::<Link>(row)?).filter(|link| state.is_none_or(|state| link.state == state)))
        })
    }

    /// All accounts, of all applications.
    pub fn all_accounts(&self, page: &PageRequest) -> Result<Page<Account>, StoreError> {
        self.page(keys::ACCOUNTS, false, page, |_, row| self.decoded(row).map(Some))
    }

    /// A job.
    pub fn job(&self, id: &JobId) -> Result<Option<Job>, StoreError> {
        self.inner.view.record(&keys::job(id))
    }

    /// Jobs, newest first.
    pub fn jobs(
        &self,
        scope: &Scope,
        filter: &JobFilter,
        page: &PageRequest,
    ) -> Result<Page<Job>, StoreError> {
        let prefix = match scope {
            Scope::Application(application) => keys::jobs_of_application(application),
            Scope::Account(application, account) => keys::jobs_of_account(application, account),
            Scope::OsUid(uid) => keys::jobs_of_uid(*uid),
        };
        // Jobs of an account that was deleted are not those of another one of its name.
        let since = match scope {
            Scope::Account(application, account) => self.account(application, account)?,
            _ => None,
        };
        let since = since.map_or(Timestamp(0), |account| account.created);
        self.page_of_entries(&prefix, true, page, |work, _, id| {
            let job: Option<Job> = self.looked_up(work, &[b"J", id].concat())?;
            Ok(job.filter(|job| {
                job.queued >= since
                    && (filter.states.is_empty()
                        || filter.states.iter().any(|state| state == job.state.as_str()))
                    && filter.kind.as_ref().is_none_or(|kind| *kind == job.kind)
            }))
        })
    }

    /// The jobs whose end is not recorded, oldest first: for the daemon's start.
    pub fn open_jobs(&self, page: &PageRequest) -> Result<Page<Job>, StoreError> {
        self.page_of_entries(keys::OPEN_JOBS, false, page, |work, _, id| {
            let job: Option<Job> = self.looked_up(work, &[b"J", id].concat())?;
            Ok(job.filter(|job| job.state.is_open()))
        })
    }

    /// Ended jobs whose folders are kept, the oldest first.
    pub fn kept_jobs(&self, page: &PageRequest) -> Result<Page<Job>, StoreError> {
        self.page_of_entries(keys::KEPT_JOBS, false, page, |work, _, id| {
            self.looked_up(work, &[b"J", id].concat())
        })
    }

    /// The latest job of each service that goes on, ended or not.
    pub fn services(&self, page: &PageRequest) -> Result<Page<Job>, StoreError> {
        self.page_of_entries(keys::SERVICES, false, page, |work, _, id| {
            self.looked_up(work, &[b"J", id].concat())
        })
    }

    /// The number of the last record on disk.
    pub fn last_number(&self) -> u64 {
        self.inner.index.read().tip.number
    }

    /// When the last record was written, by the clock of then; none if there is no record.
    pub fn last_recorded(&self) -> Result<Option<Timestamp>, StoreError> {
        let last = self.audit(self.last_number(), &AuditFilter::default(), &PageRequest::first(1))?;
        Ok(last.items.first().map(|entry| entry.at))
    }

    /// Records of the ledger from number `from`, oldest first. This reads segments: call it where blocking is allowed.
    pub fn audit(
        &self,
        from: u64,
        filter: &AuditFilter,
        page: &PageRequest,
    ) -> Result<Page<Entry>, StoreError> {
        let mut number = from.max(1);
        if let Some(cursor) = &page.after {
            let key = cursor.key()?;
            number = u64::from_be_bytes(key.try_into().map_err(|_| StoreError::Cursor)?);
        }
        let mut walk = Walk::new(self.inner.folder.clone(), &self.inner.index, number);
        let mut items = Vec::new();
        for _ in 0..MAX_RECORDS {
            let Some(frame) = walk.advance()? else { return Ok(Page { items, next: None }) };
            let entry = super::replay::entry(&frame)?;
            number = entry.number;
            if filter.takes(&entry) {
                items.push(entry);
                if items.len() == page.limit() {
                    break;
                }
            }
        }
        let next = (number < self.last_number()).then(|| Cursor::new(&(number + 1).to_be_bytes()));
        Ok(Page { items, next })
    }
}
