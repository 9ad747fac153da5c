//! The end of a lease: what is left keeps it, quarantine, and nobody gets a uid of which anything is left.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use deputy_core::Code;
use deputy_core::message::{LauncherReply, LauncherRequest};
use deputy_core::pool::PoolState;
use deputy_suite::machine::run;
use deputy_suite::people::{as_user, deputyctl, ok, refused};
use deputy_suite::pool::{ask, give_back, identity, lease, left_of, pool, record_path, records};
use deputy_suite::requests::{app, consents, grant_in, run_as};
use deputy_suite::{Fake, need_the_sandbox};

/// Makes something of a uid's, and how it is taken away again.
struct Thing {
    make: String,
    take_away: String,
    listed: &'static str,
}

fn thing(make: String, take_away: String, listed: &'static str) -> Thing {
    Thing { make, take_away, listed }
}

/// Each sort of what can be left of a uid.
fn things(uid: u32) -> Vec<Thing> {
    let as_uid = format!("setpriv --reuid {uid} --regid {uid} --clear-groups");
    let file = |path: &str| {
        thing(
            format!("mkdir -p $(dirname {path}); touch {path}; chown {uid} {path}"),
            format!("rm {path}"),
            "file: /",
        )
    };
    vec![
        file("/data/lab1/deep/er/of-a-root"),
        file("/home/pool/in-anothers-home"),
        file("/tmp/temporary"),
        thing(
            "ln -s /etc/passwd /tmp/link; chown -h UID /tmp/link".replace("UID", &uid.to_string()),
            "rm /tmp/link".into(),
            "file: /tmp/link",
        ),
        thing(
            format!("touch /tmp/group; chgrp {uid} /tmp/group"),
            "rm /tmp/group".into(),
            "file: /tmp/group",
        ),
        thing(format!("touch /tmp/acl; setfacl -m u:{uid}:r /tmp/acl"), "rm /tmp/acl".into(), "access list"),
        thing(
            format!("touch /var/spool/cron/crontabs/dp{uid}"),
            format!("rm /var/spool/cron/crontabs/dp{uid}"),
            "crontab: ",
        ),
        thing(
            format!("mkdir -p /var/lib/systemd/linger; touch /var/lib/systemd/linger/dp{uid}"),
            format!("rm /var/lib/systemd/linger/dp{uid}"),
            "linger: ",
        ),
        thing(
            format!("{as_uid} touch /dev/mqueue/posix"),
            "rm /dev/mqueue/posix".into(),
            "message-queue: /dev/mqueue/posix",
        ),
        thing(format!("{as_uid} ipcmk -Q"), "ipcrm --all=msg".into(), "message-queue: System V"),
        thing(format!("{as_uid} ipcmk -M 4096"), "ipcrm --all=shm".into(), "shared-memory: System V"),
        thing(format!("{as_uid} ipcmk -S 1"), "ipcrm --all=sem".into(), "semaphore: System V"),
    ]
}

fn shell(script: &str) {
    run("sh", &["-ec", script]);
}

#[test]
fn what_is_left_is_listed_and_keeps_the_lease() {
    need_the_sandbox();
    let _pool = pool(210_000, 210_000, "quarantine_seconds = 0");
    let os_account = lease("leaving").os_account;
    let uid = os_account.uid.raw();
    let before = consents().into_iter().filter(|consent| consent.os_account == os_account).count();
    // The home is the first thing that is left.
    assert_eq!(left_of("leaving"), [format!("file: /home/pool/dp{uid}")]);
    fs::remove_dir_all(format!("/home/pool/dp{uid}")).unwrap();
    for Thing { make, take_away, listed } in things(uid) {
        shell(&make);
        let left = left_of("leaving");
        assert!(left.iter().any(|one| one.contains(listed)), "{make}: {left:?}");
        shell(&take_away);
    }
    let mut process = Command::new("sleep").arg("1000").uid(uid).gid(uid).spawn().unwrap();
    assert_eq!(left_of("leaving"), [format!("process: {} (sleep)", process.id())]);
    process.kill().unwrap();
    process.wait().unwrap();
    let record = records().into_iter().find(|record| record.os_account == os_account).unwrap();
    assert_eq!(record.state, PoolState::Leased, "nothing was changed");
    assert_eq!(consents().into_iter().filter(|consent| consent.os_account == os_account).count(), before);
    assert_eq!(lease("leaving").os_account, os_account);
}

#[test]
fn a_returned_uid_is_nobodys_until_nothing_is_left_of_it() {
    need_the_sandbox();
    let range = pool(211_000, 211_000, "quarantine_seconds = 100000");
    let os_account = lease("first").os_account;
    let uid = os_account.uid.raw();
    // Another application's account has a consent of root's onto it too.
    grant_in("demo", "guest", os_account.name.as_str());
    fs::remove_dir_all(format!("/home/pool/dp{uid}")).unwrap();
    assert_eq!(left_of("first"), [""; 0]);
    assert!(!consents().iter().any(|consent| consent.os_account.uid.raw() == uid), "every consent has gone");
    assert_eq!(as_user("alice", &["getent", "passwd", &uid.to_string()]).stdout, "");
    let mut request = run_as(os_account.clone(), "first", &["id"]);
    request.application = app("tenants");
    assert!(matches!(Fake::daemon().run(&request).code(), Some(Code::NoConsent)), "no job of its");
    // In quarantine it is nobody's, not even whose it was: the name may be another person's by now.
    for name in ["second", "first"] {
        assert_eq!(ask("tenants", name).code(), Some(Code::PoolExhausted), "{name}");
    }
    assert_eq!(give_back("first").code(), Some(Code::Conflict), "its time is not over");
    drop(range);

    let _range = pool(211_000, 211_000, "quarantine_seconds = 0");
    for Thing { make, take_away, .. } in things(uid) {
        shell(&make);
        assert_eq!(ask("tenants", "second").code(), Some(Code::PoolExhausted), "{make}");
        assert!(!left_of("first").is_empty(), "{make}");
        shell(&take_away);
    }
    assert_eq!(left_of("first"), [""; 0]);
    let record = records().into_iter().find(|record| record.os_account == os_account).unwrap();
    assert_eq!(record.state, PoolState::Free);
    // Free is not enough: it is searched for once more when somebody is to have it.
    fs::write("/tmp/came-back", "").unwrap();
    chown("/tmp/came-back", Some(uid), None).unwrap();
    assert_eq!(ask("tenants", "second").code(), Some(Code::PoolExhausted));
    fs::remove_file("/tmp/came-back").unwrap();
    assert_eq!(lease("second").os_account, os_account);
    assert_eq!(
        ask("tenants", "first").code(),
        Some(Code::PoolExhausted),
        "it is not the first one's any more"
    );
    assert_eq!(Fake::daemon().run(&request).code(), Some(Code::JobExists));
    let mut again = run_as(os_account, "first", &["id"]);
    again.application = app("tenants");
    assert_eq!(Fake::daemon().run(&again).code(), Some(Code::NoConsent));
}

#[test]
fn a_uid_of_which_a_cluster_says_nothing_is_kept() {
    need_the_sandbox();
    let range = pool(214_000, 214_000, "quarantine_seconds = 0");
    let uid = lease("clustered").os_account.uid.raw();
    fs::remove_dir_all(format!("/home/pool/dp{uid}")).unwrap();
    drop(range);
    let away = "quarantine_seconds = 0\n[executor.slurm.clusters.away]\nconf = \"/etc/slurm/slurm.conf\"\nprograms = \"/nonexistent\"";
    let range = pool(214_000, 214_000, away);
    let left = left_of("clustered");
    assert!(left.len() == 1 && left[0].contains("Slurm's queue"), "{left:?}");
    drop(range);
    let _pool = pool(214_000, 214_000, "quarantine_seconds = 0");
    assert_eq!(left_of("clustered"), [""; 0]);
}

#[test]
fn the_search_follows_no_link_and_leaves_no_mark() {
    need_the_sandbox();
    let _pool = pool(212_000, 212_000, "");
    let uid = lease("linked").os_account.uid.raw();
    fs::remove_dir_all(format!("/home/pool/dp{uid}")).unwrap();
    fs::create_dir_all("/srv/outside").unwrap();
    fs::write("/srv/outside/file", "").unwrap();
    chown("/srv/outside/file", Some(uid), None).unwrap();
    symlink("/srv/outside", "/data/way-out").unwrap();
    symlink("/data", "/data/round").unwrap();
    assert_eq!(left_of("linked"), [""; 0], "what lies outside the roots is not looked at through a link");
    fs::remove_file("/data/way-out").unwrap();
    fs::remove_file("/data/round").unwrap();
}

#[test]
fn leases_go_to_another_host_with_their_numbers() {
    need_the_sandbox();
    let _pool = pool(213_000, 213_009, "quarantine_seconds = 0");
    let (ada, eve) = (lease("ada213").os_account, lease("eve213").os_account);
    let json = ok(&deputyctl("root", &["pool", "export"]));
    let ldif = ok(&deputyctl("root", &["pool", "export", "--format", "ldif", "--base", "dc=example,dc=org"]));
    assert!(
        ldif.contains("dn: uid=dp213000,dc=example,dc=org\n") && ldif.contains("uidNumber: 213001\n"),
        "{ldif}"
    );
    assert_eq!(refused(&deputyctl("alice", &["pool", "export"])), "NotAuthorized");
    assert_eq!(refused(&deputyctl("alice", &["pool", "import", "/etc/passwd"])), "NotAuthorized");
    assert!(ok(&deputyctl("root", &["pool", "list"])).contains("dp213001"));

    // The other host: nobody has a lease there.
    let keep = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let only: Vec<serde_json::Value> = serde_json::from_str::<Vec<serde_json::Value>>(&json)
        .unwrap()
        .into_iter()
        .filter(|lease| lease["account"].as_str().is_some_and(|name| name.ends_with("213")))
        .collect();
    assert_eq!(only.len(), 2, "{json}");
    for (file, text) in [
        ("/srv/leases.json", serde_json::to_string(&only).unwrap()),
        (
            "/srv/leases.ldif",
            keep(&ldif).into_iter().filter(|line| line.contains("213\"")).collect::<Vec<_>>().join("\n"),
        ),
    ] {
        for os_account in [&ada, &eve] {
            fs::remove_file(record_path(os_account.uid.raw())).unwrap();
            let home = format!("/home/pool/{}", os_account.name);
            assert!(fs::metadata(&home).is_ok(), "the hosts share the homes");
        }
        // The map is written anew without them.
        lease(&format!("other-{}", text.len()));
        fs::write(file, text).unwrap();
        assert!(ok(&deputyctl("root", &["pool", "import", file])).starts_with('2'));
        assert_eq!(as_user("alice", &["id", "-u", "dp213001"]).stdout.trim(), "213001");
        assert_eq!((lease("ada213").os_account, lease("eve213").os_account), (ada.clone(), eve.clone()));
    }
    // What would give a number to a second account is refused as a whole.
    let wrong = serde_json::to_string(&only).unwrap().replace("eve213", "mallory");
    fs::write("/srv/wrong.json", wrong).unwrap();
    assert_eq!(refused(&deputyctl("root", &["pool", "import", "/srv/wrong.json"])), "Conflict");
    let outside = serde_json::to_string(&only).unwrap().replace("213001", "1001");
    fs::write("/srv/outside.json", outside).unwrap();
    assert_eq!(refused(&deputyctl("root", &["pool", "import", "/srv/outside.json"])), "Conflict");
    assert_eq!(lease("eve213").os_account, identity(213_001));
    let request = LauncherRequest::ListPool { after: Some(ada.uid) };
    let answers = Fake::as_user("root").ask(&request, &[]);
    assert!(matches!(&answers.replies[..], [LauncherReply::Pool(page)] if page.records[0].os_account == eve));
}
