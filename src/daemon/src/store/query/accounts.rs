//! Reading accounts and groups.

use deputy_core::account::Status;
use deputy_core::{AccountName, ApplicationName, GroupName, JobId};

use crate::store::clock::Timestamp;
use crate::store::error::StoreError;
use crate::store::page::{Page, PageRequest};
use crate::store::record::{Account, Counts, Group, Job, Membership, Remaining};
use crate::store::view::{Draft, decode, keys};
use crate::store::{Store, rules};

/// In which order accounts are listed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AccountSort {
    /// By name.
    #[default]
    Name,
    /// By when they were created.
    Created,
    /// By when their last session began; those that never had one first.
    LastLogin,
}

impl AccountSort {
    fn key(self) -> u8 {
        match self {
            AccountSort::Name => keys::BY_NAME,
            AccountSort::Created => keys::BY_CREATED,
            AccountSort::LastLogin => keys::BY_LOGIN,
        }
    }
}

/// Which accounts of an application, and in which order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccountFilter {
    /// Those whose names begin so.
    pub name_start: Option<String>,
    /// Those with this role in the whole application.
    pub role: Option<String>,
    /// Those with this status.
    pub status: Option<Status>,
    /// Those in this group.
    pub group: Option<GroupName>,
    /// Those with this in their name, their person's names or address, whatever the case.
    pub text: Option<String>,
    /// Those that were neither created nor used since.
    pub unused_since: Option<Timestamp>,
    /// The order.
    pub sort: AccountSort,
    /// The order backwards.
    pub descending: bool,
}

impl AccountFilter {
    /// Whether an account is one of those, its group apart.
    fn takes(&self, account: &Account) -> bool {
        let contains = |text: &str| {
            let texts = [&account.email, &account.first_name, &account.last_name];
            let named = account.name.as_str().to_lowercase().contains(text);
            named || texts.into_iter().flatten().any(|field| field.to_lowercase().contains(text))
        };
        let used = account.last_login.unwrap_or_default().max(account.created);
        self.name_start.as_deref().is_none_or(|start| account.name.as_str().starts_with(start))
            && self.role.as_ref().is_none_or(|role| *role == account.role)
            && self.status.is_none_or(|status| status == account.status)
            && self.unused_since.is_none_or(|since| used < since)
            && self.text.as_deref().is_none_or(|text| contains(&text.to_lowercase()))
    }

    /// The rows to walk along: the fewest that hold all of those, in the order.
    fn prefix(&self, application: &ApplicationName) -> Vec<u8> {
        let start = self.name_start.as_deref().unwrap_or("");
        if self.sort == AccountSort::Name
            && let Some(group) = &self.group
        {
            return [keys::members(application, group), start.as_bytes().to_vec()].concat();
        }
        let by_status = self.status.and_then(keys::status_facet);
        let facet = by_status.or_else(|| self.role.as_deref().and_then(keys::role_facet));
        let facet = facet.unwrap_or_default();
        if self.sort != AccountSort::Name {
            return keys::sorted_accounts(application, &facet, self.sort.key());
        }
        if facet.is_empty() {
            return keys::accounts(application, start);
        }
        [keys::sorted_accounts(application, &facet, keys::BY_NAME), start.as_bytes().to_vec()].concat()
    }
}

impl Store {
    /// An account.
    pub fn account(
        &self,
        application: &ApplicationName,
        name: &AccountName,
    ) -> Result<Option<Account>, StoreError> {
        self.inner.view.record(&keys::account(application, name))
    }

    /// The accounts of an application, as the filter says.
    pub fn accounts(
        &self,
        application: &ApplicationName,
        filter: &AccountFilter,
        page: &PageRequest,
    ) -> Result<Page<Account>, StoreError> {
        let prefix = filter.prefix(application);
        let own_rows = prefix.starts_with(keys::ACCOUNTS);
        let of_group = prefix.starts_with(keys::MEMBERS);
        let end = match (filter.sort, filter.unused_since) {
            // Who logged in since was not unused since, so the walk ends there.
            (AccountSort::LastLogin, Some(since)) => Some([&prefix[..], &since.0.to_be_bytes()].concat()),
            _ => None,
        };
        self.page_before(&prefix, end.as_deref(), filter.descending, page, |_, row| {
            let account: Option<Account> = if own_rows {
                Some(decode(row)?)
            } else if of_group {
                let membership: Membership = decode(row)?;
                self.account(application, &membership.account)?
            } else {
                self.inner.view.record(&[&keys::accounts(application, "")[..], row].concat())?
            };
            let Some(account) = account.filter(|account| filter.takes(account)) else { return Ok(None) };
            let inside = match &filter.group {
                Some(group) if !of_group => {
                    let key = keys::member(application, group, &account.name);
                    self.inner.view.get(&key)?.is_some()
                }
                _ => true,
            };
            Ok(inside.then_some(account))
        })
    }

    /// How many accounts an application has.
    pub fn account_count(&self, application: &ApplicationName) -> Result<u64, StoreError> {
        let counts: Option<Counts> = self.inner.view.record(&keys::counts(application))?;
        Ok(counts.unwrap_or_default().accounts)
    }

    /// What keeps an account from being deleted.
    pub fn remaining(
        &self,
        application: &ApplicationName,
        account: &AccountName,
    ) -> Result<Vec<Remaining>, StoreError> {
        rules::remaining(&Draft::new(&self.inner.view), application, account, self.inner.clock.now())
    }

    /// The jobs of an account whose end is not recorded, oldest first.
    pub fn open_jobs_of(
        &self,
        application: &ApplicationName,
        account: &AccountName,
    ) -> Result<Vec<JobId>, StoreError> {
        let mut ids = Vec::new();
        for (_, id) in Draft::new(&self.inner.view).rows(&keys::open_jobs_of_account(application, account))? {
            let job: Option<Job> = self.inner.view.record(&[b"J", &id[..]].concat())?;
            ids.extend(job.map(|job| job.id));
        }
        Ok(ids)
    }

    /// A group.
    pub fn group(
        &self,
        application: &ApplicationName,
        group: &GroupName,
    ) -> Result<Option<Group>, StoreError> {
        self.inner.view.record(&keys::group(application, group))
    }

    /// The groups of an application, by name.
    pub fn groups(
        &self,
        application: &ApplicationName,
        page: &PageRequest,
    ) -> Result<Page<Group>, StoreError> {
        self.page(&keys::groups(application), false, page, |_, row| decode(row).map(Some))
    }

    /// That an account is in a group, if it is.
    pub fn membership(
        &self,
        application: &ApplicationName,
        group: &GroupName,
        account: &AccountName,
    ) -> Result<Option<Membership>, StoreError> {
        self.inner.view.record(&keys::member(application, group, account))
    }

    /// Who is in a group, by name.
    pub fn members(
        &self,
        application: &ApplicationName,
        group: &GroupName,
        page: &PageRequest,
    ) -> Result<Page<Membership>, StoreError> {
        self.page(&keys::members(application, group), false, page, |_, row| decode(row).map(Some))
    }

    /// The groups that an account is in, by name.
    pub fn memberships(
        &self,
        application: &ApplicationName,
        account: &AccountName,
    ) -> Result<Vec<Membership>, StoreError> {
        let rows = Draft::new(&self.inner.view).rows(&keys::memberships(application, account))?;
        rows.iter().map(|(_, row)| decode(row)).collect()
    }
}
