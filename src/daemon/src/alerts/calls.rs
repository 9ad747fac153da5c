//! The methods, and the signal.

use deputy_core::{AccountName, Denial};
use zbus::Message;

use crate::accounts::page;
use crate::authority::{About, Call, Granted};
use crate::bus::options::Options;
use crate::bus::record::Record;
use crate::bus::{INTERFACES, ROOT};
use crate::jobs::signals::{Subscribers, only_for_those_it_belongs_to};
use crate::store::Alert;

/// `Alerts.List`.
pub async fn list(call: Call, (mut options,): (Options,)) -> Result<Granted<(Vec<Record>, String)>, Denial> {
    let account: Option<AccountName> = options.name("account")?;
    let mut about = About::application(options.application()?).by(options.by()?);
    about.account.clone_from(&account);
    let request = page(options.page()?);
    options.finish()?;
    let grant = call.authorize(about).await?;
    let application = &grant.application()?.name;
    let found = call.daemon.store.alerts(application, account.as_ref(), &request)?;
    let next = found.next.map(String::from).unwrap_or_default();
    Ok(grant.answer((found.items.iter().map(Record::from).collect(), next)))
}

/// `Alerts.Subscribe`.
pub async fn subscribe(call: Call, (options,): (Options,)) -> Result<Granted<()>, Denial> {
    options.finish()?;
    let grant = call.authorize_any(About::application(None)).await?;
    only_for_those_it_belongs_to(&grant, "Alerts.Subscribe", "look at Alerts.List")?;
    call.daemon.alerts.subscribers.add(&call.caller).await?;
    Ok(grant.answer(()))
}

/// `Alerts.Unsubscribe`.
pub async fn unsubscribe(call: Call, (options,): (Options,)) -> Result<Granted<()>, Denial> {
    options.finish()?;
    let grant = call.authorize_any(About::application(None)).await?;
    call.daemon.alerts.subscribers.forget(&call.caller.bus_name);
    Ok(grant.answer(()))
}

/// Tells of an alert that was raised, or is over.
pub fn tell(subscribers: &Subscribers, alert: &Alert) {
    subscribers.tell_those_of(&alert.application, alert.os.uid, |name| {
        Message::signal(ROOT, format!("{INTERFACES}Alerts"), "Changed")
            .destination(name)
            .build(&(Record::from(alert),))
    });
}

impl From<&Alert> for Record {
    fn from(alert: &Alert) -> Self {
        Record::new()
            .text("application", &alert.application)
            .text("account", &alert.account)
            .text("os_user", &alert.os.name)
            .with("place", alert.place.0.clone())
            .text("whose", alert.whose)
            .text("of", alert.of.as_str())
            .with("threshold", u32::from(alert.threshold))
            .with("used", alert.used)
            .with("limit", alert.limit)
            .with("since", alert.since.0)
    }
}
