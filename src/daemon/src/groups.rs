//! `.Groups`: the groups of an application's accounts, laboratories for instance.

use deputy_core::{AccountName, Denial, GroupName, Permission};

use crate::accounts::page;
use crate::authority::{About, Call, Granted};
use crate::bus::options::{Options, parse};
use crate::bus::record::Record;
use crate::store::{Change, Group, Membership};

/// `Groups.Create`.
pub async fn create(call: Call, (group, mut options): (String, Options)) -> Result<Granted<()>, Denial> {
    let group: GroupName = parse("group", &group)?;
    let about = About::application(options.application()?).group(Some(&group)).by(options.by()?);
    let description = options.free_text("description")?;
    options.finish()?;
    let grant = call.authorize(about).await?;
    let application = grant.application()?.name.clone();
    let change = Change::GroupCreated { application, group, description };
    call.daemon.store.commit(change, grant.actor()?).await?;
    Ok(grant.answer(()))
}

/// `Groups.Delete`.
pub async fn delete(call: Call, (group, mut options): (String, Options)) -> Result<Granted<()>, Denial> {
    let group: GroupName = parse("group", &group)?;
    let about = About::application(options.application()?).group(Some(&group)).by(options.by()?);
    options.finish()?;
    let grant = call.authorize(about).await?;
    let application = grant.application()?.name.clone();
    call.daemon.store.commit(Change::GroupDeleted { application, group }, grant.actor()?).await?;
    Ok(grant.answer(()))
}

/// `Groups.List`.
pub async fn list(call: Call, (mut options,): (Options,)) -> Result<Granted<(Vec<Record>, String)>, Denial> {
    let about = About::application(options.application()?).by(options.by()?);
    let request = page(options.page()?);
    options.finish()?;
    let grant = call.authorize(about).await?;
    let found = call.daemon.store.groups(&grant.application()?.name, &request)?;
    let next = found.next.map(String::from).unwrap_or_default();
    Ok(grant.answer((found.items.iter().map(Record::from).collect(), next)))
}

/// `Groups.Members`.
pub async fn members(
    call: Call,
    (group, mut options): (String, Options),
) -> Result<Granted<(Vec<Record>, String)>, Denial> {
    let group: GroupName = parse("group", &group)?;
    let about = About::application(options.application()?).group(Some(&group)).by(options.by()?);
    let request = page(options.page()?);
    options.finish()?;
    let grant = call.authorize(about).await?;
    let application = &grant.application()?.name;
    call.daemon.store.group(application, &group)?.ok_or_else(Denial::not_found)?;
    let found = call.daemon.store.members(application, &group, &request)?;
    let next = found.next.map(String::from).unwrap_or_default();
    Ok(grant.answer((found.items.iter().map(Record::from).collect(), next)))
}

/// `Groups.Add`.
pub async fn add(
    call: Call,
    (group, account, mut options): (String, String, Options),
) -> Result<Granted<()>, Denial> {
    let group: GroupName = parse("group", &group)?;
    let account: AccountName = parse("account", &account)?;
    let about = About::application(options.application()?).account(&account).group(Some(&group));
    let about = about.by(options.by()?);
    let role = options.text("role")?.filter(|role| !role.is_empty());
    options.finish()?;
    let grant = call.authorize(about).await?;
    let application = grant.application()?.name.clone();
    if let Some(role) = &role {
        grant.may_give(role)?;
        grant.has(Permission::ManageRoles)?;
    }
    let change = Change::MemberAdded { application, group, account, role };
    call.daemon.store.commit(change, grant.actor()?).await?;
    Ok(grant.answer(()))
}

/// `Groups.Remove`.
pub async fn remove(
    call: Call,
    (group, account, mut options): (String, String, Options),
) -> Result<Granted<()>, Denial> {
    let group: GroupName = parse("group", &group)?;
    let account: AccountName = parse("account", &account)?;
    let about = About::application(options.application()?).account(&account).group(Some(&group));
    let about = about.by(options.by()?);
    options.finish()?;
    let grant = call.authorize(about).await?;
    let application = grant.application()?.name.clone();
    let change = Change::MemberRemoved { application, group, account };
    call.daemon.store.commit(change, grant.actor()?).await?;
    Ok(grant.answer(()))
}

impl From<&Group> for Record {
    fn from(group: &Group) -> Self {
        Record::new()
            .text("application", &group.application)
            .text("group", &group.name)
            .maybe("description", group.description.clone())
            .with("created", group.created.0)
            .with("members", group.members)
    }
}

impl From<&Membership> for Record {
    fn from(membership: &Membership) -> Self {
        Record::new()
            .text("application", &membership.application)
            .text("group", &membership.group)
            .text("account", &membership.account)
            .maybe("role", membership.role.clone())
            .with("since", membership.since.0)
    }
}
