//! What root wrote down and what the name service says, read afresh for one request.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;

use deputy_core::application::{Application, Mode, Service};
use deputy_core::denial::{Code, Denial};
use deputy_core::job::OsIdentity;
use deputy_core::names::{ApplicationName, OsUserName};
use deputy_core::policy::{self, Group, PasswdEntry, ServiceIdentities};
use deputy_core::settings::Settings;
use deputy_etc::{Directory, ETC_DEPUTY};
use deputy_sys::accounts;

/// The rules that hold for one request about one application.
pub struct Rules {
    /// The machine's settings.
    pub settings: Settings,
    /// The application's name.
    pub name: ApplicationName,
    /// The application.
    pub application: Application,
    /// The uid that speaks for it.
    pub service_uid: u32,
    services: ServiceIdentities,
}

/// An OS account with its groups.
pub struct Target {
    /// Its passwd entry.
    pub entry: PasswdEntry,
    /// Its groups by name.
    pub groups: Vec<Group>,
}

/// The machine's settings.
pub fn settings() -> Result<Settings, Denial> {
    Directory::new(ETC_DEPUTY).settings()
}

impl Rules {
    /// Reads the rules for an application.
    pub fn read(name: &ApplicationName) -> Result<Self, Denial> {
        Self::under(settings()?, name)
    }

    /// Reads the rules for an application under settings that this request has read already.
    pub fn under(settings: Settings, name: &ApplicationName) -> Result<Self, Denial> {
        let etc = Directory::new(ETC_DEPUTY);
        let application = etc.application(name)?;
        // Each name is asked for once: the same user is named in several places, and a second answer that differed would
        // not be a better one.
        let by_name = Asked::default();
        // Only where there is one person and no login is an application's own user its target: there, whoever speaks
        // for the application is that person anyway. All others' service users stay out of reach.
        let but = (application.mode == Mode::SingleUser).then_some(name);
        let services = services(&etc, but, Some((name, &application)), &by_name)?;
        let service_uid = match &application.service {
            Service::Uid(uid) => *uid,
            Service::User(user) => service_uid(name, user, by_name.entry(user))?,
        };
        Ok(Self { settings, name: name.clone(), application, service_uid, services })
    }

    /// Everything that speaks against an OS account as a target.
    pub fn denials(&self, target: &Target) -> Vec<Denial> {
        policy::target_denials(
            &self.settings,
            &self.name,
            &self.application,
            &self.services,
            &target.entry,
            &target.groups,
        )
    }

    /// The OS account of this name, if the application may act as it at all.
    pub fn target(&self, user: &OsUserName) -> Result<(Target, OsIdentity), Denial> {
        let target = look_up(user)?;
        if let Some(denial) = self.denials(&target).into_iter().next() {
            return Err(denial);
        }
        let identity = policy::identity(&target.entry)?;
        check_pinned(&identity, Some(&target.entry))?;
        Ok((target, identity))
    }

    /// The OS account that was pinned, if the name service still says the same and the application may act as it.
    pub fn pinned_target(&self, pinned: &OsIdentity) -> Result<Target, Denial> {
        let entry = accounts::by_name(pinned.name.as_str()).map_err(name_service)?;
        check_pinned(pinned, entry.as_ref())?;
        let target = with_groups(entry.ok_or_else(|| unknown(&pinned.name))?)?;
        match self.denials(&target).into_iter().next() {
            Some(denial) => Err(denial),
            None => Ok(target),
        }
    }
}

/// The service users of this machine, but for what the file of `but` says; `read` is an application that was read already.
fn services(
    etc: &Directory,
    but: Option<&ApplicationName>,
    read: Option<(&ApplicationName, &Application)>,
    by_name: &Asked,
) -> Result<ServiceIdentities, Denial> {
    let ids = |entry: PasswdEntry| (entry.uid, entry.gid);
    // "There is no such service user" and "the name service does not say" are not the same: whom it fails to name
    // would be left unprotected.
    let failed = Cell::new(None);
    let found = |entry: io::Result<Option<PasswdEntry>>| {
        entry.unwrap_or_else(|error| {
            failed.set(Some(error));
            None
        })
    };
    let services = etc.services(
        but,
        read,
        |user| found(by_name.entry(user)).map(ids),
        |uid| found(accounts::by_uid(uid)).map(ids),
    )?;
    failed.take().map_or(Ok(services), |error| Err(name_service(error)))
}

/// The service users of this machine.
pub fn all_services() -> Result<ServiceIdentities, Denial> {
    services(&Directory::new(ETC_DEPUTY), None, None, &Asked::default())
}

/// The OS account of this name, if this machine's rules let any application act as it.
pub fn machine_target(
    settings: &Settings,
    services: &ServiceIdentities,
    user: &OsUserName,
) -> Result<OsIdentity, Denial> {
    let Target { entry, groups } = look_up(user)?;
    if let Some(denial) = policy::machine_denials(settings, services, &entry, &groups).into_iter().next() {
        return Err(denial);
    }
    let identity = policy::identity(&entry)?;
    check_pinned(&identity, Some(&entry))?;
    Ok(identity)
}

/// Names that the name service was asked about while the rules of one request were read, with its answers.
#[derive(Default)]
struct Asked(RefCell<HashMap<OsUserName, Option<PasswdEntry>>>);

impl Asked {
    /// The passwd entry of a name. A failure is not kept.
    fn entry(&self, user: &OsUserName) -> io::Result<Option<PasswdEntry>> {
        if let Some(answer) = self.0.borrow().get(user) {
            return Ok(answer.clone());
        }
        let answer = accounts::by_name(user.as_str())?;
        self.0.borrow_mut().insert(user.clone(), answer.clone());
        Ok(answer)
    }
}

fn service_uid(
    name: &ApplicationName,
    user: &OsUserName,
    entry: io::Result<Option<PasswdEntry>>,
) -> Result<u32, Denial> {
    let invalid = |message: String| {
        Denial::new(Code::ApplicationInvalid, format!("applications.d/{name}.toml: service_user"), message)
            .remedy("create the service user, or correct the name in the file")
    };
    match entry.map_err(name_service)? {
        Some(entry) if entry.uid != 0 => Ok(entry.uid),
        Some(_) => Err(invalid(format!("{user} is root; an application never is"))),
        None => Err(invalid(format!("the name service does not know {user}"))),
    }
}

/// The OS account of a name, with its groups.
pub fn look_up(user: &OsUserName) -> Result<Target, Denial> {
    let entry = accounts::by_name(user.as_str()).map_err(name_service)?;
    with_groups(entry.ok_or_else(|| unknown(user))?)
}

fn unknown(user: &OsUserName) -> Denial {
    Denial::new(Code::OsAccountUnknown, "name service", format!("the name service does not know {user}"))
        .remedy("check the spelling with: getent passwd NAME")
}

fn with_groups(entry: PasswdEntry) -> Result<Target, Denial> {
    let groups = accounts::groups(&entry).map_err(name_service)?;
    Ok(Target { entry, groups })
}

/// Whether the name service still says what was pinned.
pub fn is_still(pinned: &OsIdentity) -> Result<(), Denial> {
    check_pinned(pinned, accounts::by_name(pinned.name.as_str()).map_err(name_service)?.as_ref())
}

/// Compares what was pinned with the entry of its name, as just looked up, and with that of its uid.
fn check_pinned(pinned: &OsIdentity, by_name: Option<&PasswdEntry>) -> Result<(), Denial> {
    let by_uid = accounts::by_uid(pinned.uid.raw()).map_err(name_service)?;
    policy::check_pinned(pinned, by_name, by_uid.as_ref())
}

/// What a failure of the name service is.
pub fn name_service(error: io::Error) -> Denial {
    Denial::internal(format!("the name service failed: {error}")).remedy("check nsswitch.conf, SSSD or LDAP")
}
