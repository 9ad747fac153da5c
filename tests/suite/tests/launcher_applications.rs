//! An application's file that is missing, invalid, or not root's alone: what it governs fails closed. One test at a
//! time, since a file that cannot be read fails all applications.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use deputy_core::Code;
use deputy_core::message::{LauncherRequest, OwnerReply, OwnerRequest, Purpose};
use deputy_suite::acting::{identity, ids};
use deputy_suite::machine::install_application;
use deputy_suite::requests::{app, consents_of, grant_in, link, owner_code, run_as};
use deputy_suite::talk::{log_in, wanted};
use deputy_suite::{Fake, need_the_sandbox};

static FILES: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    need_the_sandbox();
    FILES.lock().unwrap_or_else(PoisonError::into_inner)
}

const GOOD: &str =
    "service_user = \"portal\"\nauthentication = [\"os\"]\n[kinds.batch]\ncommands = [\"*\"]\n";

fn code(application: &str) -> Option<Code> {
    let mut request = run_as(identity("alice"), "user", &["id", "-u"]);
    request.application = app(application);
    let answers = Fake::daemon().run(&request);
    assert!(answers.code().is_some() || answers.status() == Some(0), "{answers:?}");
    answers.code()
}

/// Every door of this application is shut.
fn is_closed(application: &str, what: &str) {
    let refused = Some(Code::ApplicationInvalid);
    assert_eq!(code(application), refused, "{what}");
    let wish = link(application, "user", "alice");
    assert_eq!(
        Fake::daemon().ask(&LauncherRequest::RequestLink(wish.clone()), &[]).code(),
        refused,
        "{what}"
    );
    assert_eq!(Fake::as_user("root").ask(&LauncherRequest::Grant(wish), &[]).code(), refused, "{what}");
    for purpose in [Purpose::Login, Purpose::Link] {
        let talk = deputy_suite::talk::Talk::begin(&wanted(purpose, application, "user", "alice"));
        let outcome = talk.end();
        assert_eq!(outcome.code(), refused, "{what}");
        assert!(outcome.packets.is_empty(), "{what}: PAM was asked");
    }
}

#[test]
fn an_application_that_nobody_wrote_down_is_refused() {
    let _alone = alone();
    is_closed("nowhere", "no file");
    install_application("nowhere", GOOD);
    grant_in("nowhere", "user", "alice");
    assert_eq!(code("nowhere"), None);
    fs::remove_file("/etc/deputy/applications.d/nowhere.toml").unwrap();
    is_closed("nowhere", "the file was removed");
}

#[test]
fn a_file_that_is_no_application_is_refused() {
    let _alone = alone();
    install_application("broken", GOOD);
    grant_in("broken", "user", "alice");
    grant_in("demo", "user", "alice");
    for text in [
        "",
        "service_user = \"portal\"\nservice_uid = 5\n",
        "service_uid = 0\n[kinds.batch]\ncommands = [\"*\"]\n",
        "service_user = \"root\"\n[kinds.batch]\ncommands = [\"*\"]\n",
        "service_user = \"nosuchuser\"\n[kinds.batch]\ncommands = [\"*\"]\n",
        "service_user = \"portal\"\n[kinds.batch]\ncommands = [\"*\"]\nunknown = 1\n",
        "service_user = \"portal\"\n[kinds.batch]\ncommands = [\"bin/id\"]\n",
        "service_user = \"portal\"\n[kinds.batch]\ncommands = [\"/bin/../bin/id\"]\n",
        "service_user = \"portal\"\nenvironment = [\"LD_PRELOAD\"]\n[kinds.batch]\ncommands = [\"*\"]\n",
        "service_user = \"portal\"\nenvironment = [\"*\"]\n[kinds.batch]\ncommands = [\"*\"]\n",
        "service_user = \"portal\"\n[link]\nrule = \"alice\"\n[kinds.batch]\ncommands = [\"*\"]\n",
        "service_user = \"portal\"\n[pam]\njob = \"../../tmp/x\"\n[kinds.batch]\ncommands = [\"*\"]\n",
        "service_user = \"portal\"\n[[kinds",
        "\u{feff}service_user = 5\n",
    ] {
        install_application("broken", text);
        is_closed("broken", text);
        // One application's mistake is not another's.
        assert_eq!(code("demo"), None, "{text}");
    }
    install_application("broken", &format!("{GOOD}# {}\n", "x".repeat(300_000)));
    assert_eq!(code("broken"), Some(Code::ApplicationInvalid), "too large");
    install_application("broken", GOOD);
    assert_eq!(code("broken"), None);
}

#[test]
fn a_file_that_is_not_roots_alone_is_refused_and_so_is_every_target() {
    let _alone = alone();
    let alice = ids("alice");
    install_application("handed", GOOD);
    grant_in("handed", "user", "alice");
    grant_in("demo", "user", "alice");
    let path = Path::new("/etc/deputy/applications.d/handed.toml");
    let folder = path.parent().unwrap();
    let mode = |path: &Path, mode: u32| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let closed = |what: &str| {
        is_closed("handed", what);
        // Whom the file protects cannot be told, so nobody is a target of anybody.
        assert_eq!(code("demo"), Some(Code::ApplicationInvalid), "{what}");
    };
    chown(path, Some(alice.uid), None).unwrap();
    closed("the file is alice's");
    chown(path, Some(0), Some(alice.gid)).unwrap();
    mode(path, 0o664);
    closed("alice's group can write the file");
    mode(path, 0o646);
    closed("everybody can write the file");
    mode(path, 0o644);
    assert_eq!((code("handed"), code("demo")), (None, None));

    chown(folder, Some(ids("deputy").uid), None).unwrap();
    closed("the folder is the daemon's");
    chown(folder, Some(0), None).unwrap();
    mode(folder, 0o775);
    closed("a group can write the folder");
    mode(folder, 0o755);
    assert_eq!((code("handed"), code("demo")), (None, None));

    fs::copy(path, "/home/alice/handed.toml").unwrap();
    fs::remove_file(path).unwrap();
    symlink("/home/alice/handed.toml", path).unwrap();
    closed("a link into alice's home");
    fs::remove_file(path).unwrap();
    fs::create_dir(path).unwrap();
    closed("a folder in the file's place");
    fs::remove_dir(path).unwrap();
    install_application("handed", GOOD);
    assert_eq!((code("handed"), code("demo")), (None, None));
    fs::remove_file(path).unwrap();
    fs::remove_file("/home/alice/handed.toml").unwrap();
}

#[test]
fn settings_that_are_broken_or_not_roots_stop_everything() {
    let _alone = alone();
    let path = Path::new("/etc/deputy/deputy.toml");
    let before = fs::read(path).unwrap();
    grant_in("demo", "settings", "alice");
    let run = || Fake::daemon().run(&run_as(identity("alice"), "settings", &["true"]));
    let owner = || Fake::as_user("alice").ask_as_owner(&OwnerRequest::List { after: None });
    fs::write(path, "[os_accounts]\nmin_uidd = 0\n").unwrap();
    assert_eq!(run().code(), Some(Code::SettingsInvalid));
    assert_eq!(owner_code(&owner()), Some(Code::SettingsInvalid));
    fs::write(path, &before).unwrap();
    chown(path, Some(ids("deputy").uid), None).unwrap();
    assert_eq!(run().code(), Some(Code::SettingsInvalid));
    assert_eq!(owner_code(&owner()), Some(Code::SettingsInvalid));
    chown(path, Some(0), None).unwrap();
    assert_eq!(run().status(), Some(0));
    assert!(matches!(owner(), OwnerReply::Consents(_)));
    // What an application allows itself below the machine's minimum has no effect.
    install_application("lower", &format!("{GOOD}[os_accounts]\nmin_uid = 0\n"));
    let grant = LauncherRequest::Grant(link("lower", "user", "daemon"));
    assert_eq!(Fake::as_user("root").ask(&grant, &[]).code(), Some(Code::OsAccountOutOfRange));
    fs::remove_file("/etc/deputy/applications.d/lower.toml").unwrap();
}

#[test]
fn a_pam_service_without_a_file_or_a_method_that_is_not_listed_is_refused() {
    let _alone = alone();
    install_application(
        "nopam",
        &format!("{GOOD}[pam]\njob = \"no-such-service\"\nlogin = \"no-such-login\"\n"),
    );
    grant_in("nopam", "user", "alice");
    assert_eq!(code("nopam"), Some(Code::PamServiceMissing));
    let login = wanted(Purpose::Link, "nopam", "user", "alice");
    assert_eq!(deputy_suite::talk::Talk::begin(&login).end().code(), Some(Code::PamServiceMissing));
    install_application("nopam", &GOOD.replace("authentication = [\"os\"]\n", ""));
    assert_eq!(deputy_suite::talk::Talk::begin(&login).end().code(), Some(Code::MethodNotAllowed));
    assert_eq!(code("nopam"), None);
    install_application("nopam", GOOD);
    assert!(log_in(&login, "wonder").is_success());
    fs::remove_file("/etc/deputy/applications.d/nopam.toml").unwrap();
}

#[test]
fn when_another_speaks_for_the_application_earlier_consent_does_not_hold() {
    let _alone = alone();
    install_application("sold", GOOD);
    grant_in("sold", "user", "alice");
    assert_eq!(code("sold"), None);
    install_application("sold", &GOOD.replace("portal", "otherportal"));
    assert_eq!(code("sold"), Some(Code::NoConsent));
    assert!(consents_of("user").iter().any(|consent| consent.application == app("sold")));
    install_application("sold", GOOD);
    assert_eq!(code("sold"), None);
    fs::remove_file("/etc/deputy/applications.d/sold.toml").unwrap();
}
