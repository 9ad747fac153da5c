//! Consent: by root over the launcher's socket, by an OS account's owner over the owner's.

use std::process::ExitCode;

use deputy_core::consent::Consent;
use deputy_core::message::{
    Asking, ConsentRequest, LauncherReply, LauncherRequest, Offer, OwnerReply, OwnerRequest, WithdrawRequest,
    Withdrawn,
};
use deputy_core::names::{AccountName, ApplicationName};
use deputy_core::{Code, Denial};

use super::{Context, record_of};
use crate::confirm::confirm;
use crate::failure::Failure;
use crate::launcher::{self, is_root, needs_root, unexpected};
use crate::options::{ConsentCommand, GiveOptions, GrantOptions, LinkTarget, RevokeOptions};
use crate::value::Record;
use crate::{output, time};

const CONSENT: [&str; 10] = [
    "application",
    "account",
    "os_user",
    "uid",
    "gid",
    "given_by",
    "by_uid",
    "made",
    "expires",
    "service_uid",
];

/// `consent`.
pub fn consent(context: &Context, command: ConsentCommand) -> Result<ExitCode, Failure> {
    match command {
        ConsentCommand::Grant(options) => grant(context, options),
        ConsentCommand::Give(options) => give(context, options),
        ConsentCommand::Revoke(options) if is_root() => withdraw(context, &options),
        ConsentCommand::Revoke(options) => revoke(context, options),
        ConsentCommand::Renew { application, account } => renew(context, application, account),
        ConsentCommand::List { application } => list(context, application.as_ref()),
    }?;
    Ok(ExitCode::SUCCESS)
}

fn grant(context: &Context, options: GrantOptions) -> Result<(), Failure> {
    if !is_root() {
        return Err(needs_root("consent for the owner of an OS account"));
    }
    let LinkTarget { application, account, os_user } = options.target;
    let sentence = format!("root consents: {account} of {application} may act as {os_user}");
    let mut record = record_of([
        ("application", application.as_str()),
        ("account", account.as_str()),
        ("os_user", os_user.as_str()),
    ]);
    let expires = options.expires.map(|expiry| expiry.0);
    if let Some(seconds) = expires {
        record.insert("expires".into(), micros(seconds).into());
    }
    let asking = Asking::Link;
    match launcher::ask(&LauncherRequest::Grant(ConsentRequest {
        application,
        account,
        os_user,
        expires,
        asking,
    }))? {
        LauncherReply::Link { .. } => context.output.done(&sentence, &record),
        _ => Err(unexpected()),
    }
}

fn give(context: &Context, options: GiveOptions) -> Result<(), Failure> {
    let code = options.code;
    let OwnerReply::Offer(offer) = launcher::ask_owner(&OwnerRequest::Describe { code: code.clone() })?
    else {
        return Err(unexpected());
    };
    let Offer { application, account, expires } = offer;
    output::note(&format!(
        "The application {application} wants its account {account} to act as your OS account.\n\
         With your consent its jobs for {account} run as you, until you revoke that:\n\n    \
         deputyctl consent revoke {application} {account}\n\n\
         The code is good until {}.",
        time::show_seconds(expires)
    ))?;
    confirm(context.yes, "Give consent?")?;
    let OwnerReply::Done = launcher::ask_owner(&OwnerRequest::Give { code })? else {
        return Err(unexpected());
    };
    let record = record_of([("application", application.as_str()), ("account", account.as_str())]);
    context.output.done(&format!("you have consented: {account} of {application} may act as you"), &record)
}

fn revoke(context: &Context, options: RevokeOptions) -> Result<(), Failure> {
    if options.os_user.is_some() {
        return Err(needs_root("revoke a consent onto another OS account"));
    }
    let RevokeOptions { application, account, end_jobs, .. } = options;
    ask_before_revoking(context, application.as_str(), account.as_str(), end_jobs)?;
    let mut record = record_of([("application", application.as_str()), ("account", account.as_str())]);
    let sentence = format!("your consent is revoked: {account} of {application} may no longer act as you");
    match launcher::ask_owner(&OwnerRequest::Revoke { application, account, end_jobs })? {
        OwnerReply::Withdrawn(done) => {
            context.output.done(&format!("{sentence}{}", jobs(done, end_jobs, &mut record)), &record)
        }
        _ => Err(unexpected()),
    }
}

/// What became of the jobs, as the end of a sentence and as fields.
fn jobs(done: Withdrawn, end_jobs: bool, record: &mut Record) -> String {
    if !end_jobs {
        return String::new();
    }
    record.insert("jobs_ended".into(), done.ended.into());
    record.insert("jobs_left".into(), done.left.into());
    let left = match done.left {
        0 => String::new(),
        left => format!("; {left} could not be told and still run: see the journal of deputy-launcher"),
    };
    format!("; {} of its jobs were told to end{left}", done.ended)
}

fn renew(context: &Context, application: ApplicationName, account: AccountName) -> Result<(), Failure> {
    let mut record = record_of([("application", application.as_str()), ("account", account.as_str())]);
    let sentence = format!("your consent is renewed: {account} of {application} may act as you");
    match launcher::ask_owner(&OwnerRequest::Renew { application, account })? {
        OwnerReply::Renewed { expires: None } => context.output.done(&sentence, &record),
        OwnerReply::Renewed { expires: Some(seconds) } => {
            record.insert("expires".into(), micros(seconds).into());
            context.output.done(&format!("{sentence} until {}", time::show_seconds(seconds)), &record)
        }
        _ => Err(unexpected()),
    }
}

/// Root takes back every consent of the account, or the one onto the OS account that is named.
fn withdraw(context: &Context, options: &RevokeOptions) -> Result<(), Failure> {
    let mut found = Vec::new();
    launcher::all_consents(Some(&options.application), |page| {
        found.extend(page.into_iter().filter(|consent| {
            consent.account == options.account
                && options.os_user.as_ref().is_none_or(|name| *name == consent.os_account.name)
        }));
        Ok(())
    })?;
    if found.is_empty() {
        return Err(Denial::new(Code::NotFound, "visibility", "there is no such consent")
            .remedy("see which there are: deputyctl consent list")
            .into());
    }
    let end_jobs = options.end_jobs;
    ask_before_revoking(context, options.application.as_str(), options.account.as_str(), end_jobs)?;
    for consent in found {
        let sentence = format!(
            "revoked: {} of {} may no longer act as {}",
            consent.account, consent.application, consent.os_account
        );
        let mut record = record(&consent);
        let Consent { application, account, os_account, .. } = consent;
        let request = WithdrawRequest { application, account, os_account, end_jobs };
        match launcher::ask(&LauncherRequest::Withdraw(request))? {
            LauncherReply::Withdrawn(done) => {
                let sentence = format!("{sentence}{}", jobs(done, end_jobs, &mut record));
                context.output.done(&sentence, &record)?;
            }
            _ => return Err(unexpected()),
        }
    }
    Ok(())
}

fn ask_before_revoking(
    context: &Context,
    application: &str,
    account: &str,
    end_jobs: bool,
) -> Result<(), Failure> {
    let jobs = if end_jobs {
        "Its running jobs end."
    } else {
        "What runs goes on (--end-jobs ends it); nothing new starts."
    };
    confirm(context.yes, &format!("Revoke the consent to {account} of {application}? {jobs}"))
}

fn list(context: &Context, application: Option<&ApplicationName>) -> Result<(), Failure> {
    let mut printed = context.output.list(&CONSENT);
    if is_root() {
        launcher::all_consents(application, |page| {
            printed.page(&page.iter().map(record).collect::<Vec<_>>())
        })?;
    } else {
        launcher::own_consents(|page| {
            let own =
                page.iter().filter(|consent| application.is_none_or(|name| *name == consent.application));
            printed.page(&own.map(record).collect::<Vec<_>>())
        })?;
    }
    printed.end()
}

/// A consent with the field names and the times of the D-Bus dictionaries.
fn record(consent: &Consent) -> Record {
    let mut record = record_of([
        ("application", consent.application.as_str()),
        ("account", consent.account.as_str()),
        ("os_user", consent.os_account.name.as_str()),
        ("given_by", consent.given_by.as_str()),
    ]);
    let numbers = [
        ("uid", Some(u64::from(consent.os_account.uid.raw()))),
        ("gid", Some(u64::from(consent.os_account.gid.raw()))),
        ("by_uid", Some(u64::from(consent.by_uid))),
        ("service_uid", Some(u64::from(consent.service_uid))),
        ("made", Some(micros(consent.made))),
        ("expires", consent.expires.map(micros)),
    ];
    record.extend(numbers.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.into()))));
    record
}

fn micros(seconds: u64) -> u64 {
    seconds.saturating_mul(1_000_000)
}
