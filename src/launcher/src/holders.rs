//! Which accounts of an application have one OS account.
//!
//! Only consents count: beside the records there is, for each application and OS uid, a folder with one empty file for
//! each record, so that a look at one OS account does not read all records of the machine. A name there without a
//! record means nothing. Consents are given one after the other, so that of two accounts that want the same OS account
//! at once one is refused.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use deputy_core::consent::Consent;
use deputy_core::denial::{Code, Denial};
use deputy_core::ids::OsUid;
use deputy_core::names::{AccountName, ApplicationName};

use crate::paths::{GIVING, HOLDERS};
use crate::rules::Rules;
use crate::{consents, durable};

/// The turn of whoever gives a consent; it ends when dropped.
#[derive(Debug)]
pub struct Turn(#[expect(dead_code, reason = "the lock lives as long as the open file")] File);

/// Waits for the turn to give a consent.
pub fn turn() -> Result<Turn, Denial> {
    let take = || -> io::Result<File> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(GIVING)?;
        file.lock()?;
        Ok(file)
    };
    take().map(Turn).map_err(|error| Denial::internal(format!("{GIVING}: {error}")))
}

fn folder(application: &ApplicationName, uid: OsUid) -> PathBuf {
    Path::new(HOLDERS).join(Consent::holders_name(application, uid))
}

/// Refuses where another account has this OS account and the application's file does not let them share it.
pub fn check(rules: &Rules, account: &AccountName, uid: OsUid) -> Result<(), Denial> {
    if rules.application.link.shared {
        return Ok(());
    }
    let names = match fs::read_dir(folder(&rules.name, uid)) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Denial::internal(format!("{HOLDERS}: {error}"))),
    };
    for name in names {
        let name = name.map_err(|error| Denial::internal(format!("{HOLDERS}: {error}")))?.file_name();
        let Some(name) = name.to_str().filter(|name| consents::is_record_name(name)) else { continue };
        // A record that cannot be read may be another account's: it is an error, not an absence.
        let Some(consent) = consents::read(name)? else { continue };
        let is_over = consent.expires.is_some_and(|expires| expires <= consents::now());
        if consent.account != *account && consent.os_account.uid == uid && !is_over {
            return Err(taken(&rules.name, &consent));
        }
    }
    Ok(())
}

fn taken(application: &ApplicationName, consent: &Consent) -> Denial {
    Denial::new(
        Code::OsAccountTaken,
        format!("applications.d/{application}.toml: link.shared"),
        format!("{} is linked to another account of this application", consent.os_account.name),
    )
    .remedy("remove the other link first, or let root set shared = true in [link]")
}

/// Writes down that this record is about this OS uid. It comes before the record, so that no record is without it.
pub fn add(application: &ApplicationName, uid: OsUid, record: &str) -> io::Result<()> {
    let folder = folder(application, uid);
    let is_new = !folder.is_dir();
    DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    durable::replace(&folder, record, b"")?;
    if is_new {
        durable::sync_folder(Path::new(HOLDERS))?;
    }
    Ok(())
}

/// Takes the name of a record away again, once the record has gone.
pub fn tidy(application: &ApplicationName, account: &AccountName, uid: OsUid) {
    // What stays where this fails is a name without a record.
    let Ok(_turn) = turn() else { return };
    // Somebody may have given a new consent meanwhile.
    if !consents::is_there(application, account, uid) {
        let folder = folder(application, uid);
        let _ = fs::remove_file(folder.join(Consent::file_name(application, account, uid)));
        let _ = fs::remove_dir(folder);
    }
}
