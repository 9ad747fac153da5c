//! `.Accounts`: how much of the machine one account's jobs may have at once.

use deputy_core::queue::Ceilings;
use deputy_core::schedule::AccountKey;
use deputy_core::{AccountName, Denial};

use crate::authority::{About, Call, Granted};
use crate::bus::options::{Options, parse};
use crate::jobs::asked;
use crate::store::Change;

/// `Accounts.SetLimits`.
pub async fn set_limits(
    call: Call,
    (account, mut options): (String, Options),
) -> Result<Granted<()>, Denial> {
    let account: AccountName = parse("account", &account)?;
    let about = About::application(options.application()?).account(&account).by(options.by()?);
    let resources = asked::resources(&mut options)?;
    let limits = Ceilings {
        jobs: options.number("jobs")?,
        cpus: resources.cpus,
        memory: resources.memory,
        gpus: asked::count(&mut options, "gpus")?,
    };
    options.finish()?;
    let grant = call.authorize(about).await?;
    let application = grant.application()?.name.clone();
    let change =
        Change::AccountLimited { application: application.clone(), account: account.clone(), limits };
    call.daemon.store.commit(change, grant.actor()?).await?;
    call.daemon.tracker.queue().limits_changed(&call.daemon, &AccountKey { application, account })?;
    Ok(grant.answer(()))
}
