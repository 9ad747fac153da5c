//! `.Accounts`: the users of an application.

mod limits;
mod passwords;
mod setup;
mod standing;

pub use limits::set_limits;
pub use passwords::{reset_password, set_password};
pub use setup::setup;
pub use standing::{act_for, approve, deactivate, delete, deletion_report, reactivate, reject};

use deputy_core::role::DEFAULT_ROLE;
use deputy_core::{AccountName, Denial, GroupName, Permission};

use crate::acting;
use crate::authority::{About, Call, Granted};
use crate::bus::options::{Options, PageOptions, parse};
use crate::bus::record::Record;
use crate::jobs::queue::shown::ceilings;
use crate::store::{Account, AccountFilter, AccountSort, Change, PageRequest, Timestamp};

/// The most days for which somebody can be asked to have been away.
const MAX_DAYS: u32 = 36_500;

const DAY_US: u64 = 24 * 3600 * 1_000_000;

/// The store's page for what a caller asked.
pub fn page(options: PageOptions) -> PageRequest {
    PageRequest { limit: options.limit, after: options.cursor.map(Into::into) }
}

/// What is known of a person, in the options of several methods.
struct Person {
    email: Option<String>,
    first_name: Option<String>,
    last_name: Option<String>,
}

impl Person {
    fn take(options: &mut Options) -> Result<Self, Denial> {
        Ok(Self {
            email: options.free_text("email")?,
            first_name: options.free_text("first_name")?,
            last_name: options.free_text("last_name")?,
        })
    }

    /// Without what was left empty.
    fn known(self) -> Self {
        let known = |text: Option<String>| text.filter(|text| !text.is_empty());
        Self {
            email: known(self.email),
            first_name: known(self.first_name),
            last_name: known(self.last_name),
        }
    }
}

/// `Accounts.Create`.
pub async fn create(call: Call, (account, mut options): (String, Options)) -> Result<Granted<()>, Denial> {
    let account: AccountName = parse("account", &account)?;
    let about = About::application(options.application()?).account(&account).by(options.by()?);
    let Person { email, first_name, last_name } = Person::take(&mut options)?.known();
    let role = options.text("role")?.unwrap_or_else(|| DEFAULT_ROLE.to_owned());
    let group: Option<GroupName> = options.name("group")?;
    options.finish()?;
    let grant = call.authorize(about.group(group.as_ref())).await?;
    let application = grant.application()?.name.clone();
    grant.may_give(&role)?;
    if role != DEFAULT_ROLE {
        grant.has(Permission::ManageRoles)?;
        grant.in_the_whole_application()?;
    }
    let change = Change::AccountCreated {
        application,
        account,
        email,
        first_name,
        last_name,
        role,
        group,
        first: false,
    };
    call.daemon.store.commit(change, grant.actor()?).await?;
    Ok(grant.answer(()))
}

/// `Accounts.Register`.
pub async fn register(call: Call, (account, mut options): (String, Options)) -> Result<Granted<()>, Denial> {
    let account: AccountName = parse("account", &account)?;
    let about = About::application(options.application()?).account(&account);
    let Person { email, first_name, last_name } = Person::take(&mut options)?.known();
    let group: Option<GroupName> = options.name("group")?;
    options.finish()?;
    let grant = call.authorize(about.group(group.as_ref())).await?;
    let application = grant.application()?.name.clone();
    let role = DEFAULT_ROLE.to_owned();
    let change =
        Change::AccountRegistered { application, account, email, first_name, last_name, role, group };
    call.daemon.store.commit(change, grant.actor()?).await?;
    Ok(grant.answer(()))
}

/// `Accounts.Edit`.
pub async fn edit(call: Call, (account, mut options): (String, Options)) -> Result<Granted<()>, Denial> {
    let account: AccountName = parse("account", &account)?;
    let about = About::application(options.application()?).account(&account).by(options.by()?);
    let Person { email, first_name, last_name } = Person::take(&mut options)?;
    options.finish()?;
    if email.is_none() && first_name.is_none() && last_name.is_none() {
        return Err(Denial::invalid("nothing is to be changed: give email, first_name or last_name"));
    }
    let grant = call.authorize(about).await?;
    let application = grant.application()?.name.clone();
    let change = Change::AccountEdited { application, account, email, first_name, last_name };
    call.daemon.store.commit(change, grant.actor()?).await?;
    Ok(grant.answer(()))
}

/// `Accounts.SetRole`.
pub async fn set_role(
    call: Call,
    (account, role, mut options): (String, String, Options),
) -> Result<Granted<()>, Denial> {
    let account: AccountName = parse("account", &account)?;
    let about = About::application(options.application()?).account(&account).by(options.by()?);
    let group: Option<GroupName> = options.name("group")?;
    options.finish()?;
    let grant = call.authorize(about.group(group.as_ref())).await?;
    let application = grant.application()?.name.clone();
    let store = &call.daemon.store;
    let from = if let Some(group) = &group {
        store.membership(&application, group, &account)?.ok_or_else(Denial::not_found)?.role
    } else {
        grant.in_the_whole_application()?;
        Some(store.account(&application, &account)?.ok_or_else(Denial::not_found)?.role)
    };
    let to = Some(role).filter(|role| !role.is_empty());
    match &to {
        Some(role) => grant.may_give(role)?,
        None if group.is_none() => return Err(Denial::invalid("an account has a role in its application")),
        None => {}
    }
    let change = Change::RoleChanged { application, account, group, from, to };
    store.commit(change, grant.actor()?).await?;
    Ok(grant.answer(()))
}

/// `Accounts.Get`.
pub async fn get(
    call: Call,
    (account, mut options): (String, Options),
) -> Result<Granted<(Record,)>, Denial> {
    let account: AccountName = parse("account", &account)?;
    let about = About::application(options.application()?).account(&account).by(options.by()?);
    options.finish()?;
    let grant = call.authorize(about).await?;
    let registered = grant.application()?;
    let store = &call.daemon.store;
    let found = store.account(&registered.name, &account)?.ok_or_else(Denial::not_found)?;
    let memberships = store.memberships(&registered.name, &account)?;
    let groups: Vec<String> = memberships.iter().map(|member| member.group.to_string()).collect();
    let may = acting::whole(&call.daemon, registered, &found)?.permissions;
    let may: Vec<String> = may.iter().map(|permission| permission.to_string()).collect();
    Ok(grant.answer((Record::from(&found).with("groups", groups).with("permissions", may),)))
}

/// `Accounts.List`.
pub async fn list(call: Call, (mut options,): (Options,)) -> Result<Granted<(Vec<Record>, String)>, Denial> {
    let about = About::application(options.application()?).by(options.by()?);
    let filter = filter(&mut options)?;
    let request = page(options.page()?);
    options.finish()?;
    let grant = call.authorize(about.group(filter.group.as_ref())).await?;
    let found = call.daemon.store.accounts(&grant.application()?.name, &filter, &request)?;
    let next = found.next.map(String::from).unwrap_or_default();
    Ok(grant.answer((found.items.iter().map(Record::from).collect(), next)))
}

fn filter(options: &mut Options) -> Result<AccountFilter, Denial> {
    let days = options.number("unused_days")?;
    if days.is_some_and(|days| days > MAX_DAYS) {
        return Err(Denial::invalid(format!("the option unused_days is at most {MAX_DAYS}")));
    }
    let unused_since =
        days.map(|days| Timestamp(Timestamp::now().0.saturating_sub(u64::from(days) * DAY_US)));
    let sort = match options.text("sort")?.as_deref() {
        // The unused are found at one end of this order.
        None if unused_since.is_some() => AccountSort::LastLogin,
        None | Some("name") => AccountSort::Name,
        Some("created") => AccountSort::Created,
        Some("last_login") => AccountSort::LastLogin,
        Some(_) => return Err(Denial::invalid("accounts are sorted by name, created or last_login")),
    };
    Ok(AccountFilter {
        name_start: options.text("name_start")?,
        role: options.text("role")?,
        status: options.name("status")?,
        group: options.name("group")?,
        text: options.free_text("text")?,
        unused_since,
        sort,
        descending: options.flag("descending")?,
    })
}

impl From<&Account> for Record {
    fn from(account: &Account) -> Self {
        Record::new()
            .text("application", &account.application)
            .text("account", &account.name)
            .maybe("email", account.email.clone())
            .maybe("first_name", account.first_name.clone())
            .maybe("last_name", account.last_name.clone())
            .text("role", &account.role)
            .text("status", account.status)
            .maybe("reason", account.reason.clone())
            .with("created", account.created.0)
            .with("changed", account.changed.0)
            .maybe("last_login", account.last_login.map(|moment| moment.0))
            .maybe("limits", (!account.limits.is_none()).then(|| ceilings(account.limits)))
    }
}
