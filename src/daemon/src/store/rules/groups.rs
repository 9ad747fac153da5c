//! What happens to groups.

use deputy_core::{AccountName, ApplicationName, GroupName};

use super::{accounts, conflict, missing, pair};
use crate::store::change::Change;
use crate::store::clock::Timestamp;
use crate::store::error::StoreError;
use crate::store::record::{Group, Membership};
use crate::store::view::{Draft, keys};

pub(super) fn apply(change: &Change, at: Timestamp, draft: &mut Draft<'_>) -> Result<(), StoreError> {
    match change {
        Change::GroupCreated { application, group, description } => {
            let key = keys::group(application, group);
            if draft.has(&key)? {
                return Err(conflict("group", of(application, group), "it exists already"));
            }
            let record = Group {
                application: application.clone(),
                name: group.clone(),
                description: description.clone(),
                created: at,
                members: 0,
            };
            draft.put(key, &record);
        }
        Change::GroupDeleted { application, group } => {
            let found = find(draft, application, group)?;
            if found.members > 0 {
                let remaining = format!("it has {} members", found.members);
                return Err(StoreError::NotEmpty { key: of(application, group), remaining });
            }
            draft.remove(keys::group(application, group));
        }
        Change::MemberAdded { application, group, account, role } => {
            let found = find(draft, application, group)?;
            accounts::need(draft, application, account)?;
            if is_member(draft, application, group, account)? {
                return Err(conflict("group", of(application, group), "the account is in it already"));
            }
            join(draft, found, account, role.clone(), at);
        }
        Change::MemberRemoved { application, group, account } => {
            let mut found = find(draft, application, group)?;
            need(draft, application, group, account)?;
            draft.remove(keys::member(application, group, account));
            draft.remove(keys::membership(application, account, group));
            found.members = found.members.saturating_sub(1);
            draft.put(keys::group(application, group), &found);
        }
        Change::RoleChanged { application, account, group: Some(group), from, to } => {
            let old = need(draft, application, group, account)?;
            if old.role != *from {
                return Err(conflict(
                    "account",
                    pair(application, account),
                    "its role in the group was changed meanwhile",
                ));
            }
            write(draft, &Membership { role: to.clone(), ..old });
        }
        _ => {}
    }
    Ok(())
}

/// Takes an account, which is not in it, into a group.
pub(super) fn join(
    draft: &mut Draft<'_>,
    mut group: Group,
    account: &AccountName,
    role: Option<String>,
    at: Timestamp,
) {
    let membership = Membership {
        application: group.application.clone(),
        group: group.name.clone(),
        account: account.clone(),
        role,
        since: at,
    };
    write(draft, &membership);
    group.members += 1;
    draft.put(keys::group(&group.application, &group.name), &group);
}

/// A membership is written under its group and under its account, so that each is read in one go.
fn write(draft: &mut Draft<'_>, membership: &Membership) {
    let Membership { application, group, account, .. } = membership;
    draft.put(keys::member(application, group, account), membership);
    draft.put(keys::membership(application, account, group), membership);
}

pub(super) fn is_member(
    draft: &Draft<'_>,
    application: &ApplicationName,
    group: &GroupName,
    account: &AccountName,
) -> Result<bool, StoreError> {
    draft.has(&keys::member(application, group, account))
}

/// The role of an account in a group.
pub(super) fn role(
    draft: &Draft<'_>,
    application: &ApplicationName,
    group: &GroupName,
    account: &AccountName,
) -> Result<Option<String>, StoreError> {
    let found: Option<Membership> = draft.record(&keys::member(application, group, account))?;
    Ok(found.and_then(|membership| membership.role))
}

pub(super) fn find(
    draft: &Draft<'_>,
    application: &ApplicationName,
    group: &GroupName,
) -> Result<Group, StoreError> {
    draft.record(&keys::group(application, group))?.ok_or_else(|| missing("group", of(application, group)))
}

fn need(
    draft: &Draft<'_>,
    application: &ApplicationName,
    group: &GroupName,
    account: &AccountName,
) -> Result<Membership, StoreError> {
    draft
        .record(&keys::member(application, group, account))?
        .ok_or_else(|| missing("member", format!("{application}/{group}/{account}")))
}

fn of(application: &ApplicationName, group: &GroupName) -> String {
    format!("{application}/{group}")
}
