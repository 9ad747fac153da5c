//! Links that an application asked for and that wait for the OS account's owner.
//!
//! An offer gives nobody any right: it lets the owner see who asks, and say yes with a code.

use std::fs;
use std::path::Path;

use deputy_core::consent::Consent;
use deputy_core::denial::{Code, Denial};
use deputy_core::ids::{LinkCode, OsUid};
use deputy_core::job::OsIdentity;
use deputy_core::names::{AccountName, ApplicationName};
use serde::{Deserialize, Serialize};

use crate::consents::now;
use crate::durable;
use crate::paths::OFFERS;

const MAX_RECORD: u64 = 16 * 1024;

/// How many offers may wait on this machine; beyond it an application that asks without end is told so.
const MAX_OFFERS: usize = 20_000;

/// An offer on disk. There is at most one for each (application, account, OS uid).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    /// The code that the owner types.
    pub code: LinkCode,
    /// The application that asked.
    pub application: ApplicationName,
    /// The account to be linked.
    pub account: AccountName,
    /// Until when the code is good, seconds since 1970.
    pub expires: u64,
    /// Until when the consent is to hold, seconds since 1970.
    pub consent_expires: Option<u64>,
    /// The OS account.
    pub os_account: OsIdentity,
}

/// The offer that waits for this key, made if there is none: asking twice gives the same code.
pub fn make(
    application: &ApplicationName,
    account: &AccountName,
    identity: &OsIdentity,
    lifetime: u64,
    consent_expires: Option<u64>,
) -> Result<Offer, Denial> {
    let name = Consent::file_name(application, account, identity.uid);
    if let Some(offer) = read(&name)?
        && offer.expires > now()
        && offer.os_account == *identity
        && offer.consent_expires == consent_expires
    {
        return Ok(offer);
    }
    if live()?.len() >= MAX_OFFERS {
        return Err(Denial::new(Code::Busy, OFFERS, "too many links wait for their owners")
            .remedy("wait until some have expired, or let the applications ask for fewer"));
    }
    let offer = Offer {
        code: LinkCode::from_random(crate::request::random()?),
        application: application.clone(),
        account: account.clone(),
        expires: now() + lifetime,
        consent_expires,
        os_account: identity.clone(),
    };
    let text = toml::to_string(&offer).map_err(|error| Denial::internal(error.to_string()))?;
    durable::replace(Path::new(OFFERS), &name, text.as_bytes()).map_err(disk)?;
    Ok(offer)
}

/// The offer of this code to this OS account. A code for somebody else is as unknown as one that never was.
pub fn find(code: &LinkCode, uid: OsUid) -> Result<Offer, Denial> {
    live()?.into_iter().find(|offer| offer.code == *code && offer.os_account.uid == uid).ok_or_else(|| {
        Denial::new(
            Code::LinkCodeUnknown,
            "link code",
            "this code is not for your OS account, or it has expired",
        )
        .remedy("ask the application for a new one, and check that you are logged in as yourself")
    })
}

/// Takes an offer away: it has been used.
pub fn forget(offer: &Offer) -> Result<(), Denial> {
    let name = Consent::file_name(&offer.application, &offer.account, offer.os_account.uid);
    durable::remove(Path::new(OFFERS), &name).map_err(disk)?;
    Ok(())
}

/// All offers that have not expired; those that have are removed on the way.
fn live() -> Result<Vec<Offer>, Denial> {
    let entries = fs::read_dir(OFFERS).map_err(|error| Denial::internal(format!("{OFFERS}: {error}")))?;
    let mut offers = Vec::new();
    for name in entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
        if name.starts_with('.') {
            continue;
        }
        match read(&name) {
            Ok(Some(offer)) if offer.expires > now() => offers.push(offer),
            // Expired, or of a form that this program does not write.
            Ok(Some(_)) | Err(_) => {
                let _ = durable::remove(Path::new(OFFERS), &name);
            }
            Ok(None) => {}
        }
    }
    Ok(offers)
}

fn read(name: &str) -> Result<Option<Offer>, Denial> {
    let text = durable::read(Path::new(OFFERS), name, MAX_RECORD)
        .map_err(|error| Denial::internal(format!("{OFFERS}/{name}: {error}")))?;
    text.map(|text| toml::from_str(&text).map_err(|error| Denial::internal(error.to_string()))).transpose()
}

fn disk(error: std::io::Error) -> Denial {
    Denial::new(Code::Disk, OFFERS, format!("the link could not be written down: {error}"))
        .remedy("make room on the file system of /var/lib/deputy; nothing was changed")
}
