//! Reading accounts and groups.

use deputy_core::account::Status;
use deputy_core::{AccountName, ApplicationName, GroupName, JobId};

use crate::store::clock::Timestamp;
use crate::store::error::StoreError;
use crate::store::job::Job;
use crate::store::page::{Cursor, Page, PageRequest};
use crate::store::record::{Account, Counts, Group, Membership, Remaining};
use crate::store::view::{Draft, keys};
use crate::store::{Store, rules};

use super::walk::{Rows, Work};

/// Groups of up to so many members are put in order when they are asked for.
const SMALL: usize = 100;

/// In which order accounts are listed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AccountSort {
    /// By name.
    #[default]
    Name,
    /// By when they were created.
    Created,
    /// By when their last session began; those that never had one first, by when they were created.
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
    /// Whether an account is one of those, its group apart. The text is in lower case.
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
            && self.text.as_deref().is_none_or(contains)
    }

    /// Whether an account may be one of those, by what an order's entry says of it.
    fn may_take(&self, name: &str, status: &str, role: &str) -> bool {
        self.name_start.as_deref().is_none_or(|start| name.starts_with(start))
            && self.role.as_ref().is_none_or(|wanted| wanted == role)
            && self.status.is_none_or(|wanted| wanted.as_str() == status)
    }

    /// The entries of the order, of the few with the status or the role where one of them has entries of its own.
    fn order(&self, application: &ApplicationName) -> Vec<u8> {
        let by_status = self.status.and_then(keys::status_facet);
        let facet = by_status.or_else(|| self.role.as_deref().and_then(keys::role_facet));
        keys::sorted_accounts(application, &facet.unwrap_or_default(), self.sort.key())
    }

    /// The rows to walk along: the fewest that hold all of those, in the order.
    fn rows(&self, application: &ApplicationName) -> Rows {
        let start = self.name_start.as_deref().unwrap_or("");
        let order = self.order(application);
        match (self.sort, self.unused_since) {
            (AccountSort::Name, _) => {
                let facet = order != keys::sorted_accounts(application, "", keys::BY_NAME);
                Rows::below(match &self.group {
                    Some(group) => [keys::members(application, group), start.as_bytes().to_vec()].concat(),
                    None if facet => [&order[..], start.as_bytes()].concat(),
                    None => keys::accounts(application, start),
                })
            }
            // Who was made since, or logged in since, was not unused since.
            (AccountSort::Created, Some(since)) => {
                let end = [&order[..], &since.0.to_be_bytes()].concat();
                Rows { ranges: vec![(order.clone(), Some(end))], prefix: order }
            }
            (AccountSort::LastLogin, Some(since)) => {
                let moment = |login: u64| [&order[..], &login.to_be_bytes()].concat();
                let never = [moment(0), since.0.to_be_bytes().to_vec()].concat();
                let ranges = vec![(order.clone(), Some(never)), (moment(1), Some(moment(since.0)))];
                Rows { ranges, prefix: order }
            }
            (AccountSort::Created | AccountSort::LastLogin, None) => Rows::below(order),
        }
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
        self.accounts_within(application, filter, page, &mut Work::for_items(page.limit()))
    }

    /// The same, with so much work.
    pub(super) fn accounts_within(
        &self,
        application: &ApplicationName,
        filter: &AccountFilter,
        page: &PageRequest,
        work: &mut Work,
    ) -> Result<Page<Account>, StoreError> {
        let text = filter.text.as_deref().map(str::to_lowercase);
        let filter = &AccountFilter { text, ..filter.clone() };
        if filter.sort != AccountSort::Name
            && let Some(group) = &filter.group
            && let Some(page) = self.small_group(application, group, filter, page, work)?
        {
            return Ok(page);
        }
        let rows = filter.rows(application);
        let own_rows = rows.prefix.starts_with(keys::ACCOUNTS);
        let of_group = rows.prefix.starts_with(keys::MEMBERS);
        self.walk(&rows, filter.descending, page, work, |work, _, row| {
            let account: Option<Account> = if own_rows {
                Some(self.decoded(row)?)
            } else if of_group {
                let membership: Membership = self.decoded(row)?;
                self.looked_up(work, &keys::account(application, &membership.account))?
            } else {
                let (name, status, role) = keys::entry_parts(row)
                    .ok_or_else(|| self.inner.view.fail("an entry of an account is broken".to_owned()))?;
                if !filter.may_take(name, status, role) {
                    return Ok(None);
                }
                if let Some(group) = &filter.group {
                    let key = [&keys::members(application, group)[..], name.as_bytes()].concat();
                    if self.looked_up::<Membership>(work, &key)?.is_none() {
                        return Ok(None);
                    }
                }
                self.looked_up(work, &keys::accounts(application, name))?
            };
            Ok(account.filter(|account| filter.takes(account)))
        })
    }

    /// A page of a group that is small enough to be put in order here; none if it is not.
    fn small_group(
        &self,
        application: &ApplicationName,
        group: &GroupName,
        filter: &AccountFilter,
        page: &PageRequest,
        work: &mut Work,
    ) -> Result<Option<Page<Account>>, StoreError> {
        let members = self.inner.view.rows(&keys::members(application, group), None, SMALL + 1)?;
        if members.len() > SMALL {
            return Ok(None);
        }
        // The marks are those of a walk along the order: the group may grow before the next page.
        let order = filter.order(application);
        let after = page.after.as_ref().map(Cursor::key).transpose()?;
        if after.as_ref().is_some_and(|key| !key.starts_with(&order)) {
            return Err(StoreError::Cursor);
        }
        let mut found: Vec<(Vec<u8>, Account)> = Vec::new();
        for (_, row) in members {
            let membership: Membership = self.decoded(&row)?;
            let account: Option<Account> =
                self.looked_up(work, &keys::account(application, &membership.account))?;
            let Some(account) = account.filter(|account| filter.takes(account)) else { continue };
            let moment = keys::moment(filter.sort.key(), &account);
            let key = keys::sorted_account(order.clone(), &moment, &account.name);
            let behind = |after: &Vec<u8>| if filter.descending { key < *after } else { key > *after };
            if after.as_ref().is_none_or(behind) {
                found.push((key, account));
            }
        }
        found.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        if filter.descending {
            found.reverse();
        }
        let more = found.len() > page.limit();
        found.truncate(page.limit());
        let next = found.last().filter(|_| more).map(|(key, _)| Cursor::new(key));
        Ok(Some(Page { items: found.into_iter().map(|(_, account)| account).collect(), next }))
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
        self.page(&keys::groups(application), false, page, |_, row| self.decoded(row).map(Some))
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
        self.page(&keys::members(application, group), false, page, |_, row| self.decoded(row).map(Some))
    }

    /// The groups that an account is in, by name.
    pub fn memberships(
        &self,
        application: &ApplicationName,
        account: &AccountName,
    ) -> Result<Vec<Membership>, StoreError> {
        let rows = Draft::new(&self.inner.view).rows(&keys::memberships(application, account))?;
        rows.iter().map(|(_, row)| self.decoded(row)).collect()
    }
}
