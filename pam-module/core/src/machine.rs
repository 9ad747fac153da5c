//! The machine as it is: the daemon's socket, root's files, the name service of this process.

use std::cell::Cell;
use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use deputy_core::application::{Application, Mode, Service};
use deputy_core::consent::Consent;
use deputy_core::job::OsIdentity;
use deputy_core::message::ConverseRequest;
use deputy_core::message::query::{Query, QueryReply};
use deputy_core::policy::{self, Group, PasswdEntry};
use deputy_core::{AccountName, ApplicationName, Code, Denial, OsUserName};
use deputy_etc::root_owned::read_text;
use deputy_etc::{Directory, ETC_DEPUTY};
use nix::unistd::{self, Gid, Uid, User};
use zeroize::Zeroizing;

use crate::converse::Ended;
use crate::pam::{Refusal, Turn, World};
use crate::{client, launcher};

/// Where the launcher's children keep consents.
const CONSENT: &str = "/var/lib/deputy/consent";

/// The most bytes of a consent.
const MAX_RECORD: u64 = 16 * 1024;

/// The machine.
#[derive(Debug, Clone, Copy)]
pub struct Machine;

impl World for Machine {
    fn ask(&self, query: &Query<'_>) -> Result<QueryReply, String> {
        client::ask(query)
    }

    fn converse(
        &self,
        request: &ConverseRequest,
        turn: &mut dyn FnMut(Turn) -> Result<Option<Zeroizing<Vec<u8>>>, Refusal>,
    ) -> Result<OsIdentity, Ended> {
        launcher::converse(request, turn)
    }

    fn application(&self, name: &ApplicationName) -> Result<Application, Denial> {
        Directory::new(ETC_DEPUTY).application(name)
    }

    fn may_log_in(
        &self,
        name: &ApplicationName,
        account: &AccountName,
        pinned: &OsIdentity,
    ) -> Result<(), Denial> {
        let rules = Rules::read(name)?;
        let entry = by_name(pinned.name.as_str()).map_err(name_service)?;
        let by_uid = by_uid(pinned.uid.raw()).map_err(name_service)?;
        policy::check_pinned(pinned, entry.as_ref(), by_uid.as_ref())?;
        let entry = entry.ok_or_else(Consent::missing)?;
        if let Some(denial) = rules.denials(&entry)?.into_iter().next() {
            return Err(denial);
        }
        consent(name, account, pinned)?.check(pinned, rules.service_uid()?, now())
    }

    fn is_no_system_account(&self, name: &ApplicationName, account: &AccountName) -> Result<(), Denial> {
        let Some(entry) = by_name(account.as_str()).map_err(name_service)? else { return Ok(()) };
        let never = [Code::OsAccountReserved, Code::OsAccountOutOfRange, Code::OsAccountIsService];
        let denials = Rules::read(name)?.denials(&entry)?;
        match denials.into_iter().find(|denial| never.contains(&denial.code)) {
            Some(denial) => Err(denial),
            None => Ok(()),
        }
    }

    fn is_os_account(&self, name: &str) -> Result<bool, Denial> {
        Ok(by_name(name).map_err(name_service)?.is_some())
    }

    fn wait(&self, time: Duration) {
        // A handler of the program's may cut a sleep short.
        let until = Instant::now() + time;
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            std::thread::sleep(left);
        }
    }
}

/// Root's rules for an application, as the launcher's children read them.
struct Rules {
    name: ApplicationName,
    settings: deputy_core::settings::Settings,
    application: Application,
    services: policy::ServiceIdentities,
}

impl Rules {
    fn read(name: &ApplicationName) -> Result<Self, Denial> {
        let etc = Directory::new(ETC_DEPUTY);
        let settings = etc.settings()?;
        let application = etc.application(name)?;
        // "There is no such service user" and "the name service does not say" are not the same: whom it fails to name
        // would be left unprotected.
        let failed = Cell::new(None);
        let ids = |entry: io::Result<Option<PasswdEntry>>| {
            let entry = entry.unwrap_or_else(|error| {
                failed.set(Some(error));
                None
            });
            entry.map(|entry| (entry.uid, entry.gid))
        };
        let but = (application.mode == Mode::SingleUser).then_some(name);
        let services = etc.services(but, None, |user| ids(by_name(user.as_str())), |uid| ids(by_uid(uid)))?;
        match failed.take() {
            Some(error) => Err(name_service(error)),
            None => Ok(Self { name: name.clone(), settings, application, services }),
        }
    }

    fn denials(&self, entry: &PasswdEntry) -> Result<Vec<Denial>, Denial> {
        let groups = groups(entry).map_err(name_service)?;
        Ok(policy::target_denials(
            &self.settings,
            &self.name,
            &self.application,
            &self.services,
            entry,
            &groups,
        ))
    }

    fn service_uid(&self) -> Result<u32, Denial> {
        let user: &OsUserName = match &self.application.service {
            Service::Uid(uid) => return Ok(*uid),
            Service::User(user) => user,
        };
        let entry = by_name(user.as_str()).map_err(name_service)?;
        entry.map(|entry| entry.uid).filter(|&uid| uid != 0).ok_or_else(|| {
            Denial::new(Code::ApplicationInvalid, "service_user", format!("{user} is not known, or is root"))
        })
    }
}

/// The consent of a key, if it is there, root's, and written by nobody else along its path.
fn consent(
    application: &ApplicationName,
    account: &AccountName,
    identity: &OsIdentity,
) -> Result<Consent, Denial> {
    let unreadable = |error: String| Denial::new(Code::NoConsent, CONSENT, format!("the consent: {error}"));
    let name = Consent::file_name(application, account, identity.uid);
    match read_text(&Path::new(CONSENT).join(&name), MAX_RECORD) {
        Ok(text) => {
            let consent = Consent::parse(&name, &text).map_err(|error| unreadable(error.to_string()))?;
            // The name is a hash of all three; this says so without it.
            if consent.application != *application || consent.account != *account {
                return Err(Consent::missing());
            }
            Ok(consent)
        }
        Err(error) if error.is_absent() => Err(Consent::missing()),
        Err(error) => Err(unreadable(error.to_string())),
    }
}

fn now() -> u64 {
    // A clock before 1970 is no reason to believe an old consent.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(u64::MAX, |since| since.as_secs())
}

fn name_service(error: io::Error) -> Denial {
    Denial::internal(format!("the name service failed: {error}"))
}

fn entry(user: User) -> PasswdEntry {
    PasswdEntry {
        name: user.name,
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
        home: user.dir.as_os_str().as_bytes().to_vec(),
        shell: user.shell.as_os_str().as_bytes().to_vec(),
    }
}

fn by_name(name: &str) -> io::Result<Option<PasswdEntry>> {
    Ok(User::from_name(name)?.map(entry))
}

fn by_uid(uid: u32) -> io::Result<Option<PasswdEntry>> {
    Ok(User::from_uid(Uid::from_raw(uid))?.map(entry))
}

/// The groups of an OS account by name. A gid that has no name is left out: no rule can name it.
fn groups(entry: &PasswdEntry) -> io::Result<Vec<Group>> {
    let name = CString::new(entry.name.as_str())?;
    let mut groups = Vec::new();
    for gid in unistd::getgrouplist(&name, Gid::from_raw(entry.gid))? {
        if let Some(group) = unistd::Group::from_gid(gid)? {
            groups.push(Group { name: group.name, gid: gid.as_raw() });
        }
    }
    Ok(groups)
}
