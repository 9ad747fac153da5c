//! `.Accounts`: the users of an application.

use deputy_core::{AccountName, Denial};

use crate::authority::{About, Call, Granted};
use crate::bus::options::{Options, PageOptions, parse};
use crate::bus::record::Record;
use crate::store::{Account, AccountFilter, Change, PageRequest};

/// The role of an account that was given none.
const DEFAULT_ROLE: &str = "user";

/// The most bytes of a role's name.
const MAX_ROLE: usize = 64;

/// The store's page for what a caller asked.
pub fn page(options: PageOptions) -> PageRequest {
    PageRequest { limit: options.limit, after: options.cursor.map(Into::into) }
}

/// `Accounts.Create`.
pub async fn create(call: Call, (account, mut options): (String, Options)) -> Result<Granted<()>, Denial> {
    let account: AccountName = parse("account", &account)?;
    let application = options.application()?;
    let email = options.free_text("email")?;
    let first_name = options.free_text("first_name")?;
    let last_name = options.free_text("last_name")?;
    let role = options.text("role")?.unwrap_or_else(|| DEFAULT_ROLE.to_owned());
    options.finish()?;
    if role.is_empty() || role.len() > MAX_ROLE || role.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(Denial::invalid(format!("a role's name has 1 to {MAX_ROLE} bytes, and no spaces")));
    }
    let grant = call.authorize(About::application(application).account(&account)).await?;
    let application = grant.application()?.name.clone();
    let change = Change::AccountCreated { application, account, email, first_name, last_name, role };
    call.daemon.store.commit(change, grant.actor()?).await?;
    Ok(grant.answer(()))
}

/// `Accounts.Get`.
pub async fn get(
    call: Call,
    (account, mut options): (String, Options),
) -> Result<Granted<(Record,)>, Denial> {
    let account: AccountName = parse("account", &account)?;
    let application = options.application()?;
    options.finish()?;
    let grant = call.authorize(About::application(application).account(&account)).await?;
    let found =
        call.daemon.store.account(&grant.application()?.name, &account)?.ok_or_else(Denial::not_found)?;
    Ok(grant.answer((Record::from(&found),)))
}

/// `Accounts.List`.
pub async fn list(call: Call, (mut options,): (Options,)) -> Result<Granted<(Vec<Record>, String)>, Denial> {
    let application = options.application()?;
    let filter = AccountFilter { name_start: options.text("name_start")?, role: options.text("role")? };
    let request = page(options.page()?);
    options.finish()?;
    let grant = call.authorize(About::application(application)).await?;
    let found = call.daemon.store.accounts(&grant.application()?.name, &filter, &request)?;
    let next = found.next.map(String::from).unwrap_or_default();
    Ok(grant.answer((found.items.iter().map(Record::from).collect(), next)))
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
            .with("created", account.created.0)
    }
}
