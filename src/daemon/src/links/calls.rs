//! The methods about one link, and their list.

use deputy_core::message::{
    Asking, ExamineRequest, LauncherReply, LauncherRequest, LinkState as Asked, WithdrawRequest,
};
use deputy_core::{
    AccountName, ApplicationName, Code, Denial, Finding, FindingCode, OsUid, OsUserName, Severity,
};

use super::{ask, learn, may_link, pool, record, refreshed};
use crate::accounts::page;
use crate::authority::{About, Call, Granted, Ground};
use crate::bus::options::{Options, parse};
use crate::bus::record::{Record, findings};
use crate::daemon::Daemon;
use crate::launcher::{ANSWER, LauncherError};
use crate::store::{Change, Link, LinkState, Page, Scope, StoreError};

/// `Links.Check`.
pub async fn check(
    call: Call,
    (account, os_user, mut options): (String, String, Options),
) -> Result<Granted<(Vec<Record>,)>, Denial> {
    let account: AccountName = parse("account", &account)?;
    let os_user: OsUserName = parse("os_user", &os_user)?;
    let about = About::application(options.application()?)
        .account(&account)
        .os_user(Some(&os_user))
        .by(options.by()?);
    options.finish()?;
    let grant = call.authorize(about).await?;
    let application = grant.application()?.name.clone();
    let found = found(&call.daemon, &application, &account, &os_user).await?;
    Ok(grant.answer((findings(&found),)))
}

/// Everything that is found about a link, wanted or there; what it says about one that is there is recorded.
pub async fn found(
    daemon: &Daemon,
    application: &ApplicationName,
    account: &AccountName,
    os_user: &OsUserName,
) -> Result<Vec<Finding>, Denial> {
    let mut found = daemon.authorizer.findings().await;
    if daemon.store.account(application, account)?.is_none() {
        found.push(
            Finding::new(FindingCode::AccountMissing, Severity::Error, "the application has no such account")
                .remedy("create the account first"),
        );
    }
    let link = daemon.store.link(application, account)?.filter(|link| link.os.name == *os_user);
    let request = LauncherRequest::Examine(ExamineRequest {
        application: application.clone(),
        account: account.clone(),
        os_user: os_user.clone(),
        pinned: link.as_ref().map(|link| link.os.clone()),
    });
    let LauncherReply::Findings(more) = daemon.launcher.ask(&request, &[], ANSWER).await? else {
        return Err(LauncherError::Foreign.into());
    };
    if let Some(link) = link.filter(|link| link.state == LinkState::Active) {
        // A name that is gone or another's makes the link stale, whatever the consent says.
        for code in [Code::LinkStale, Code::ConsentExpired, Code::NoConsent] {
            let word = Finding::from(Denial::new(code, "", "")).code;
            if let Some(finding) = more.iter().find(|finding| finding.code == word) {
                learn(daemon, &link, &Denial::new(code, "check", finding.message.clone())).await;
                break;
            }
        }
    }
    found.extend(more);
    Ok(found)
}

/// `Links.Request`.
pub async fn request(
    call: Call,
    (account, os_user, mut options): (String, String, Options),
) -> Result<Granted<(String, String)>, Denial> {
    let account: AccountName = parse("account", &account)?;
    let from_pool = options.flag("pool")?;
    // Which OS account a lease is, the launcher's child says.
    let os_user: Option<OsUserName> = match (from_pool, os_user.as_str()) {
        (true, "") => None,
        (true, _) => return Err(Denial::invalid("with the option pool the OS account is not named")),
        (false, os_user) => Some(parse("os_user", os_user)?),
    };
    let mut about = About::application(options.application()?)
        .account(&account)
        .os_user(os_user.as_ref())
        .by(options.by()?);
    let asking = if options.flag("renew")? { Asking::Renew } else { Asking::Link };
    let relink = options.flag("relink")?;
    options.finish()?;
    let mut grant = call.authorize(about.clone()).await?;
    let registered = grant.application()?.clone();
    about.application = Some(registered.name.clone());
    call.ask_too(&mut grant, about).await?;
    let daemon = &call.daemon;
    let application = &registered.name;
    daemon.store.account(application, &account)?.ok_or_else(Denial::not_found)?;
    let (os, state) = match &os_user {
        Some(os_user) => {
            if !relink {
                may_link(daemon, application, &account, os_user)?;
            }
            ask(daemon, application, &account, os_user, asking).await?
        }
        None => pool::lease(daemon, application, &account, relink).await?,
    };
    let renewal = match &state {
        Asked::Active { renewal, .. } => renewal.clone(),
        Asked::Waiting { .. } => None,
    };
    if relink && let Some(old) = daemon.store.link(application, &account)?.filter(|old| old.os != os) {
        // The older consent stays: projects that pinned that identity go on with it.
        let change =
            Change::LinkRemoved { application: old.application, account: old.account, jobs_ended: 0 };
        daemon.store.commit(change, grant.actor()?).await?;
    }
    let link = record(daemon, grant.actor()?, application, &account, os, state).await?;
    let code = link.code.or(renewal).map(String::from).unwrap_or_default();
    Ok(grant.answer((link.state.as_str().to_owned(), code)))
}

/// `Links.Unlink`.
pub async fn unlink(call: Call, (account, mut options): (String, Options)) -> Result<Granted<()>, Denial> {
    let account: AccountName = parse("account", &account)?;
    let asked = options.application()?;
    let by = options.by()?;
    let end_jobs = options.flag("end_jobs")?;
    options.finish()?;
    let own = call.daemon.directory.snapshot().of_uid(call.caller.uid).map(|own| own.name.clone());
    let application = match (asked, own) {
        (Some(asked), _) => asked,
        (None, Some(own)) => own,
        (None, None) => return Err(Denial::invalid("the option application is needed")),
    };
    let (mut grant, link) =
        call.authorize_object(|| Ok(call.daemon.store.link(&application, &account)?)).await?;
    let about = About::application(Some(application.clone())).account(&account).os_user(Some(&link.os.name));
    call.note(&about);
    call.act(&mut grant, about.by(by))?;
    let actor = grant.actor()?;
    let request = LauncherRequest::Withdraw(WithdrawRequest {
        application: application.clone(),
        account: account.clone(),
        os_account: link.os,
        end_jobs,
    });
    // That there was no consent is no reason to keep the link.
    let done = match call.daemon.launcher.ask(&request, &[], ANSWER).await {
        Ok(LauncherReply::Withdrawn(done)) => done,
        Ok(_) => return Err(LauncherError::Foreign.into()),
        Err(error) => return Err(error.into()),
    };
    if done.left > 0 {
        tracing::error!(left = done.left, account = ?account.as_str(), "jobs could not be ended with their link");
    }
    let change = Change::LinkRemoved { application, account, jobs_ended: done.ended };
    match call.daemon.store.commit(change, actor).await {
        Ok(_) | Err(StoreError::NotFound { .. }) => Ok(grant.answer(())),
        Err(error) => Err(error.into()),
    }
}

/// `Links.List`.
pub async fn list(call: Call, (mut options,): (Options,)) -> Result<Granted<(Vec<Record>, String)>, Denial> {
    let application = options.application()?;
    let account: Option<AccountName> = options.name("account")?;
    let os_user: Option<OsUserName> = options.name("os_user")?;
    let state = options.text("state")?.map(|text| link_state(&text)).transpose()?;
    let request = page(options.page()?);
    options.finish()?;
    let grant = call.authorize_any(About::application(application)).await?;
    let store = &call.daemon.store;
    let found: Page<Link> = match (grant.ground, grant.maybe_application()) {
        (Ground::Owner, _) => match OsUid::new(call.caller.uid) {
            Some(uid) => store.links(&Scope::OsUid(uid), state, &request)?,
            None => Page { items: Vec::new(), next: None },
        },
        (_, Some(registered)) => match &account {
            Some(account) => {
                // Who looks at one link wants to know whether its owner has consented since.
                if let Some(link) = store.link(&registered.name, account)?
                    && let Err(denial) = refreshed(&call.daemon, registered, link).await
                {
                    tracing::info!(code = %denial.code, "a link could not be asked for again");
                }
                store.links(&Scope::Account(registered.name.clone(), account.clone()), state, &request)?
            }
            None => store.links(&Scope::Application(registered.name.clone()), state, &request)?,
        },
        (_, None) => store.all_links(state, &request)?,
    };
    let wanted = |link: &&Link| {
        os_user.as_ref().is_none_or(|name| link.os.name == *name)
            && account.as_ref().is_none_or(|name| link.account == *name)
    };
    let records = found.items.iter().filter(wanted).map(Record::from).collect();
    Ok(grant.answer((records, found.next.map(String::from).unwrap_or_default())))
}

fn link_state(text: &str) -> Result<LinkState, Denial> {
    [LinkState::Waiting, LinkState::Active, LinkState::Stale, LinkState::Expired, LinkState::Revoked]
        .into_iter()
        .find(|state| state.as_str() == text)
        .ok_or_else(|| Denial::invalid("a link's state is waiting, active, stale, expired or revoked"))
}
