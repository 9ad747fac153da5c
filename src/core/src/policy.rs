//! The decisions: may this application act as this OS account, run this command, set these variables?
//!
//! Each function takes what root wrote down and what the name service says, and answers with a value. The
//! launcher's children call them at the moment of use; the daemon never decides in their place.

use crate::application::{Application, DEFAULT_KIND, Mode, Service};
use crate::denial::{Code, Denial};
use crate::ids::{OsGid, OsUid};
use crate::job::OsIdentity;
use crate::kind::Kind;
use crate::names::{ApplicationName, KindName, OsUserName};
use crate::pattern::{CommandRule, allows_variable};
use crate::settings::{OsAccountSettings, Settings};

/// The name of the daemon's own user and group.
pub const DAEMON_USER: &str = "deputy";

/// Uids that systemd gives to services and containers it makes up, and the 16-bit specials; see systemd's
/// `UIDS-GIDS.md`.
pub(crate) const DYNAMIC_UIDS: std::ops::RangeInclusive<u32> = 61_184..=65_535;

/// A passwd entry, as the name service gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PasswdEntry {
    /// The name.
    pub name: String,
    /// The uid.
    pub uid: u32,
    /// The primary gid.
    pub gid: u32,
    /// The home directory, as bytes.
    pub home: Vec<u8>,
    /// The login shell, as bytes.
    pub shell: Vec<u8>,
}

/// A group of which an OS account is a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The name.
    pub name: String,
    /// The gid.
    pub gid: u32,
}

/// The service users of this machine: Deputy's own and those of all applications. None of them is ever a target,
/// nor is a member of their groups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceIdentities {
    /// Their uids.
    pub uids: Vec<u32>,
    /// Their own groups.
    pub gids: Vec<u32>,
}

/// Everything that speaks against this OS account as a target of this application; empty if nothing does.
pub fn target_denials(
    settings: &Settings,
    name: &ApplicationName,
    application: &Application,
    services: &ServiceIdentities,
    entry: &PasswdEntry,
    groups: &[Group],
) -> Vec<Denial> {
    let mut denials = Vec::new();
    let file = |key: &str| format!("applications.d/{name}.toml: {key}");
    let who = &entry.name;

    denials.extend(reserved(entry));
    let minimum = settings.os_accounts.min_uid.max(application.os_accounts.min_uid);
    let maximum = settings.os_accounts.max_uid.min(application.os_accounts.max_uid);
    if !(minimum..=maximum).contains(&entry.uid) {
        denials.push(
            Denial::new(
                Code::OsAccountOutOfRange,
                file("os_accounts.min_uid, os_accounts.max_uid"),
                format!("{who} has uid {}, outside {minimum} to {maximum}", entry.uid),
            )
            .remedy(
                "choose an OS account of a person, or let root change the range in this file and deputy.toml",
            ),
        );
    }
    denials.extend(service(services, entry, groups));
    if application.mode == Mode::SingleUser
        && !matches!(&application.service, Service::User(user) if user.as_str() == who)
    {
        denials.push(
            Denial::new(
                Code::OsAccountDenied,
                file("mode, service_user"),
                format!("this application is for one person, and {who} is somebody else"),
            )
            .remedy("choose the OS account that service_user names"),
        );
    }
    if application.os_accounts.deny_users.iter().any(|denied| denied.as_str() == who) {
        denials.push(
            Denial::new(
                Code::OsAccountDenied,
                file("os_accounts.deny_users"),
                format!("{who} is denied by name"),
            )
            .remedy("root can take the name out of this list"),
        );
    }
    denials.extend(privileged(settings, entry, groups));
    if let Some(allowed) = &application.os_accounts.allow_groups
        && !groups.iter().any(|group| allowed.iter().any(|name| name.as_str() == group.name))
    {
        denials.push(
            Denial::new(
                Code::OsAccountNotInGroup,
                file("os_accounts.allow_groups"),
                format!("{who} is in none of the groups that this application may act for"),
            )
            .remedy("add the OS account to one of them, or the group to this list"),
        );
    }
    denials
}

/// Everything that speaks against an OS account on this machine, whatever the application; empty if nothing does.
pub fn machine_denials(
    settings: &Settings,
    services: &ServiceIdentities,
    entry: &PasswdEntry,
    groups: &[Group],
) -> Vec<Denial> {
    let OsAccountSettings { min_uid, max_uid, .. } = settings.os_accounts;
    let range = (!(min_uid..=max_uid).contains(&entry.uid)).then(|| {
        Denial::new(
            Code::OsAccountOutOfRange,
            "deputy.toml: os_accounts.min_uid, os_accounts.max_uid",
            format!("{} has uid {}, outside {min_uid} to {max_uid}", entry.name, entry.uid),
        )
        .remedy("choose an OS account of a person, or let root change the range in deputy.toml")
    });
    [reserved(entry), range, service(services, entry, groups), privileged(settings, entry, groups)]
        .into_iter()
        .flatten()
        .collect()
}

fn reserved(entry: &PasswdEntry) -> Option<Denial> {
    let is_reserved = OsUid::new(entry.uid).is_none()
        || OsGid::new(entry.gid).is_none()
        || DYNAMIC_UIDS.contains(&entry.uid);
    is_reserved.then(|| {
        Denial::new(
            Code::OsAccountReserved,
            "never a target: reserved ids",
            format!(
                "{} has uid {} and gid {}, of which one is root's or reserved",
                entry.name, entry.uid, entry.gid
            ),
        )
        .remedy("choose an OS account of a person")
    })
}

fn service(services: &ServiceIdentities, entry: &PasswdEntry, groups: &[Group]) -> Option<Denial> {
    let is_service = services.uids.contains(&entry.uid)
        || services.gids.contains(&entry.gid)
        || groups.iter().any(|group| services.gids.contains(&group.gid));
    is_service.then(|| {
        Denial::new(
            Code::OsAccountIsService,
            "never a target: service users",
            format!("{} is a service user of this machine, or in the group of one", entry.name),
        )
        .remedy("choose an OS account of a person; take it out of the service's group if it is one")
    })
}

fn privileged(settings: &Settings, entry: &PasswdEntry, groups: &[Group]) -> Option<Denial> {
    let group = groups.iter().find(|group| settings.os_accounts.privileged_groups.contains(&group.name))?;
    let denial = Denial::new(
        Code::OsAccountPrivileged,
        "deputy.toml: os_accounts.privileged_groups",
        format!("{} is a member of {}, which amounts to root's power", entry.name, group.name),
    );
    Some(denial.remedy("use an OS account without administrator's rights for jobs"))
}

/// The first of [`target_denials`] as the answer of a decision.
pub fn check_target(
    settings: &Settings,
    name: &ApplicationName,
    application: &Application,
    services: &ServiceIdentities,
    entry: &PasswdEntry,
    groups: &[Group],
) -> Result<OsIdentity, Denial> {
    match target_denials(settings, name, application, services, entry, groups).into_iter().next() {
        Some(denial) => Err(denial),
        None => identity(entry),
    }
}

/// The entry as an identity to pin; refuses what can never be a target.
pub fn identity(entry: &PasswdEntry) -> Result<OsIdentity, Denial> {
    let reserved = || {
        Denial::new(
            Code::OsAccountReserved,
            "never a target: reserved ids",
            format!("{:?} has ids or a name that are reserved", entry.name),
        )
    };
    Ok(OsIdentity {
        name: OsUserName::new(entry.name.clone()).map_err(|_| reserved())?,
        uid: OsUid::new(entry.uid).ok_or_else(reserved)?,
        gid: OsGid::new(entry.gid).ok_or_else(reserved)?,
    })
}

/// Whether the name service still says what was pinned. Both look-ups, by name and by uid, have to agree: a name
/// that moved to another uid and a uid that moved to another name are both somebody else.
pub fn check_pinned(
    pinned: &OsIdentity,
    by_name: Option<&PasswdEntry>,
    by_uid: Option<&PasswdEntry>,
) -> Result<(), Denial> {
    let agrees = |entry: Option<&PasswdEntry>| {
        entry.is_some_and(|entry| {
            entry.name == pinned.name.as_str()
                && entry.uid == pinned.uid.raw()
                && entry.gid == pinned.gid.raw()
        })
    };
    if agrees(by_name) && agrees(by_uid) {
        return Ok(());
    }
    Err(Denial::new(
        Code::LinkStale,
        "pinned identity",
        format!("the name service no longer says what was linked: {pinned}"),
    )
    .remedy("if it is still the same person, link the account again"))
}

/// The kind that a request asks for, or the default kind.
pub fn check_kind<'a>(
    name: &ApplicationName,
    application: &'a Application,
    asked: Option<&KindName>,
) -> Result<&'a Kind, Denial> {
    let wanted = asked.map_or(DEFAULT_KIND, KindName::as_str);
    application.kinds.iter().find(|(kind, _)| kind.as_str() == wanted).map(|(_, kind)| kind).ok_or_else(
        || {
            Denial::new(
                Code::KindNotAllowed,
                format!("applications.d/{name}.toml: kinds"),
                format!("this application has no kind of job called {wanted}"),
            )
            .remedy(format!(
                "ask for a kind that the file lists, or let root add [kinds.{wanted}] with its commands"
            ))
        },
    )
}

/// The rule that allows this command.
pub fn check_command<'a>(
    name: &ApplicationName,
    kind_name: &str,
    kind: &'a Kind,
    argv: &[Vec<u8>],
) -> Result<&'a CommandRule, Denial> {
    let Some(program) = argv.first().filter(|program| !program.is_empty()) else {
        return Err(Denial::invalid("a job needs a program"));
    };
    if argv.iter().any(|argument| argument.contains(&0)) {
        return Err(Denial::invalid("an argument cannot contain a NUL byte"));
    }
    // A path that starts elsewhere than at the root would depend on a directory that nobody has checked.
    if program.contains(&b'/') && program[0] != b'/' {
        return Err(Denial::invalid(
            "a program is named by an absolute path, or by a plain name found in PATH",
        ));
    }
    kind.commands.iter().find(|rule| rule.allows(argv)).ok_or_else(|| {
        Denial::new(
            Code::CommandNotAllowed,
            format!("applications.d/{name}.toml: kinds.{kind_name}.commands"),
            "no rule of this kind allows this program with these arguments",
        )
        .remedy("compare the argument vector, element by element, with the rules of the kind")
    })
}

/// The rule that allows a program that comes with the request: only one that allows any.
pub fn check_script<'a>(
    name: &ApplicationName,
    kind_name: &str,
    kind: &'a Kind,
) -> Result<&'a CommandRule, Denial> {
    kind.commands.iter().find(|rule| rule.allows_any_program()).ok_or_else(|| {
        Denial::new(
            Code::CommandNotAllowed,
            format!("applications.d/{name}.toml: kinds.{kind_name}.commands"),
            "no rule of this kind allows any program, so none can come as a script",
        )
        .remedy("install the program where a rule of the kind can name it, or ask for a kind with commands = [\"*\"]")
    })
}

/// Whether every variable of the request is allowed; each is `NAME=VALUE`.
pub fn check_environment(
    name: &ApplicationName,
    application: &Application,
    variables: &[Vec<u8>],
) -> Result<(), Denial> {
    for variable in variables {
        let at = variable.iter().position(|&b| b == b'=');
        let Some((key, value)) = at.map(|at| (&variable[..at], &variable[at + 1..])) else {
            return Err(Denial::invalid("a variable is written NAME=VALUE"));
        };
        if !allows_variable(&application.environment, key, value) {
            return Err(Denial::new(
                Code::EnvironmentNotAllowed,
                format!("applications.d/{name}.toml: environment"),
                format!(
                    "the variable {:?} is not allowed, or not with this value",
                    String::from_utf8_lossy(key)
                ),
            )
            .remedy(
                "root can add the name to the list; what loaders, shells and schedulers read cannot be added",
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn application(extra: &str) -> Application {
        Application::parse(&format!("service_user = \"portal\"\n{extra}")).unwrap()
    }

    fn entry(name: &str, uid: u32, gid: u32) -> PasswdEntry {
        PasswdEntry { name: name.into(), uid, gid, home: b"/home/x".to_vec(), shell: b"/bin/sh".to_vec() }
    }

    fn group(name: &str, gid: u32) -> Group {
        Group { name: name.into(), gid }
    }

    fn codes(application: &Application, entry: &PasswdEntry, groups: &[Group]) -> Vec<Code> {
        let services = ServiceIdentities { uids: vec![990, 1500], gids: vec![990, 1500] };
        let name = ApplicationName::new("demo").unwrap();
        target_denials(&Settings::default(), &name, application, &services, entry, groups)
            .into_iter()
            .map(|denial| denial.code)
            .collect()
    }

    #[test]
    fn never_a_target() {
        let app =
            application("[os_accounts]\nmin_uid = 0\ndeny_users = [\"backup\"]\nallow_groups = [\"lab1\"]");
        let lab = [group("lab1", 2001)];
        let own = |gid| [group("own", gid), group("lab1", 2001)];
        assert!(codes(&app, &entry("root", 0, 0), &lab).contains(&Code::OsAccountReserved));
        assert!(codes(&app, &entry("nobody", 65534, 65534), &lab).contains(&Code::OsAccountReserved));
        assert!(codes(&app, &entry("dyn", 61_500, 61_500), &lab).contains(&Code::OsAccountReserved));
        assert!(codes(&app, &entry("rootgroup", 1001, 0), &lab).contains(&Code::OsAccountReserved));
        // The machine's minimum holds even if the application's file names a lower one.
        assert_eq!(codes(&app, &entry("daemon", 2, 2), &lab), [Code::OsAccountOutOfRange]);
        assert_eq!(codes(&app, &entry("portal", 1500, 1400), &lab), [Code::OsAccountIsService]);
        assert_eq!(codes(&app, &entry("ann", 1001, 1500), &lab), [Code::OsAccountIsService]);
        assert_eq!(codes(&app, &entry("ann", 1001, 1001), &own(1500)), [Code::OsAccountIsService]);
        assert_eq!(codes(&app, &entry("backup", 1001, 1001), &lab), [Code::OsAccountDenied]);
        assert_eq!(
            codes(&app, &entry("ann", 1001, 1001), &[group("sudo", 27), group("lab1", 2001)]),
            [Code::OsAccountPrivileged]
        );
        assert_eq!(
            codes(&app, &entry("ann", 1001, 1001), &[group("lab9", 2009)]),
            [Code::OsAccountNotInGroup]
        );
        assert_eq!(codes(&app, &entry("ann", 1001, 1001), &lab), []);
    }

    #[test]
    fn an_application_for_one_person_acts_as_that_person_only() {
        let app = Application::parse("service_user = \"ann\"\nmode = \"single-user\"").unwrap();
        // Somebody else, another name for the same uid, and whoever speaks for another application too.
        assert_eq!(codes(&app, &entry("ben", 1002, 1002), &[]), [Code::OsAccountDenied]);
        assert_eq!(codes(&app, &entry("ann2", 1001, 1001), &[]), [Code::OsAccountDenied]);
        assert_eq!(codes(&app, &entry("ann", 1500, 1400), &[]), [Code::OsAccountIsService]);
        assert_eq!(codes(&app, &entry("ann", 1001, 1001), &[group("sudo", 27)]), [Code::OsAccountPrivileged]);
        // The launcher leaves out what the application's own file says, and nothing else.
        assert_eq!(codes(&app, &entry("ann", 1001, 1001), &[]), []);
    }

    #[test]
    fn an_identity_that_changed_in_any_part_is_stale() {
        let pinned = identity(&entry("ann", 1001, 1001)).unwrap();
        let same = entry("ann", 1001, 1001);
        assert_eq!(check_pinned(&pinned, Some(&same), Some(&same)), Ok(()));
        for (by_name, by_uid) in [
            (None, None),
            (Some(same.clone()), None),
            (None, Some(same.clone())),
            (Some(entry("ann", 1002, 1001)), Some(same.clone())),
            (Some(same.clone()), Some(entry("bob", 1001, 1001))),
            (Some(entry("ann", 1001, 1002)), Some(entry("ann", 1001, 1002))),
        ] {
            let denial = check_pinned(&pinned, by_name.as_ref(), by_uid.as_ref()).unwrap_err();
            assert_eq!(denial.code, Code::LinkStale);
        }
    }

    #[test]
    fn a_kind_that_is_not_written_down_runs_nothing() {
        let name = ApplicationName::new("demo").unwrap();
        let none = application("");
        assert_eq!(check_kind(&name, &none, None).unwrap_err().code, Code::KindNotAllowed);
        let app = application("[kinds.batch]\ncommands = [\"/bin/true\"]");
        let kind = check_kind(&name, &app, None).unwrap();
        let run = |argv: &[&[u8]]| {
            let argv: Vec<Vec<u8>> = argv.iter().map(|a| a.to_vec()).collect();
            check_command(&name, "batch", kind, &argv).map(|_| ()).map_err(|denial| denial.code)
        };
        assert_eq!(run(&[b"/bin/true"]), Ok(()));
        assert_eq!(run(&[b"/bin/true", b"x"]), Err(Code::CommandNotAllowed));
        assert_eq!(run(&[b"/bin/sh"]), Err(Code::CommandNotAllowed));
        assert_eq!(run(&[]), Err(Code::InvalidArgument));
        assert_eq!(run(&[b""]), Err(Code::InvalidArgument));
        assert_eq!(run(&[b"bin/true"]), Err(Code::InvalidArgument));
        assert_eq!(run(&[b"/bin/true\0x"]), Err(Code::InvalidArgument));
    }

    #[test]
    fn variables_need_the_allow_list() {
        let name = ApplicationName::new("demo").unwrap();
        let app = application("environment = [\"APP_*\"]");
        let set = |variable: &str| {
            check_environment(&name, &app, &[variable.as_bytes().to_vec()]).map_err(|denial| denial.code)
        };
        assert_eq!(set("APP_X=1"), Ok(()));
        assert_eq!(set("APP_X"), Err(Code::InvalidArgument));
        assert_eq!(set("OTHER=1"), Err(Code::EnvironmentNotAllowed));
        assert_eq!(set("LD_PRELOAD=/x"), Err(Code::EnvironmentNotAllowed));
    }

    #[test]
    fn a_script_needs_a_rule_that_allows_any_program() {
        let app = application(
            "[kinds.batch]\ncommands = [\"*\"]\n[kinds.strict]\ncommands = [\"/usr/bin/id *\", \"/opt/*/bin/*\"]\n",
        );
        let name = ApplicationName::new("demo").unwrap();
        let rule = |kind: &str| {
            let kind_name = KindName::new(kind).unwrap();
            let kind_of = check_kind(&name, &app, Some(&kind_name)).unwrap();
            check_script(&name, kind, kind_of).map(CommandRule::as_str).map_err(|denial| denial.code)
        };
        assert_eq!(rule("strict"), Err(Code::CommandNotAllowed));
        assert_eq!(rule("batch"), Ok("*"));
    }
}
