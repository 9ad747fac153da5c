//! The pool: what a taken-over `deputyd` cannot have from it, and what a lease is. Refusals first.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};

use deputy_core::Code;
use deputy_core::consent::GivenBy;
use deputy_core::message::{LauncherReply, LauncherRequest, LinkState};
use deputy_core::pool::PoolState;
use deputy_suite::acting::ids;
use deputy_suite::machine::{account_files, add_service_user, install_application, run};
use deputy_suite::people::as_user;
use deputy_suite::pool::{ask, identity, lease, pool, record_path, records};
use deputy_suite::requests::{account, app, consents, link, run_as, withdrawal};
use deputy_suite::{Fake, need_the_sandbox};

#[test]
fn without_roots_word_in_the_applications_file_nothing_is_leased() {
    need_the_sandbox();
    let pool = pool(200_000, 200_009, "");
    for application in ["demo", "other"] {
        assert_eq!(ask(application, "ada").code(), Some(Code::PoolNotAllowed), "{application}");
    }
    assert_eq!(ask("no-such-application", "ada").code(), Some(Code::ApplicationInvalid));
    // The name service answers once there is a lease.
    assert_eq!(lease("first").os_account.uid.raw(), pool.first);
    // A rule about names, however wide, is no lease.
    let answers =
        Fake::daemon().ask(&LauncherRequest::RequestLink(link("other", "dp200001", "dp200001")), &[]);
    assert_eq!(answers.code(), Some(Code::OsAccountUnknown));
    assert!(!record_path(pool.first + 1).exists());
    assert!(!consents().iter().any(|consent| consent.os_account.uid.raw() == pool.first + 1));
    // Not even a whole file of settings is a pool where it is not in order.
    drop(pool);
    let pool = self::pool(200_010, 200_019, "home = \"/tmp/{name}\"");
    assert_eq!(
        ask("tenants", "homeless").code(),
        Some(Code::SettingsInvalid),
        "homes where everybody can write"
    );
    drop(pool);
    let pool = self::pool(61_000, 61_500, "");
    assert_eq!(ask("tenants", "low").code(), Some(Code::SettingsInvalid), "ids of the system's");
    drop(pool);
}

#[test]
fn only_root_returns_lists_and_imports() {
    need_the_sandbox();
    let _pool = pool(201_000, 201_009, "");
    let uid = lease("kept").os_account.uid;
    let record = records().into_iter().find(|record| record.os_account.uid == uid).unwrap();
    let requests = [
        LauncherRequest::ReturnPool { application: app("tenants"), account: account("kept") },
        LauncherRequest::ListPool { after: None },
        LauncherRequest::ImportPool { records: vec![record.clone()] },
    ];
    for request in &requests {
        assert_eq!(Fake::daemon().ask(request, &[]).code(), Some(Code::PeerNotAllowed), "{request:?}");
    }
    assert!(records().contains(&record));
    let listed = Fake::as_user("root").ask(&requests[1], &[]);
    let [LauncherReply::Pool(page)] = &listed.replies[..] else { panic!("{listed:?}") };
    assert!(page.records.iter().all(|record| record.state == PoolState::Leased), "{page:?}");
}

#[test]
fn a_lease_is_one_account_of_one_application_for_life() {
    need_the_sandbox();
    let _pool = pool(202_000, 202_009, "skeleton = \"/srv/skeleton\"\nshell = \"/bin/sh\"");
    let ada = lease("ada").os_account;
    assert_eq!(lease("ada").os_account, ada, "the same again");
    let eve = lease("eve").os_account;
    let answers = ask("neighbours", "ada");
    let [LauncherReply::Leased(neighbour)] = &answers.replies[..] else { panic!("{answers:?}") };
    let uids = [ada.uid.raw(), eve.uid.raw(), neighbour.os_account.uid.raw()];
    assert_eq!(uids, [202_000, 202_001, 202_002]);
    assert_eq!(ada, identity(202_000));

    // The name service says it to every program.
    let said = |argv: &[&str]| as_user("alice", argv).stdout.trim().to_owned();
    assert_eq!(
        said(&["getent", "passwd", "dp202000"]),
        "dp202000:*:202000:202000::/home/pool/dp202000:/bin/sh"
    );
    assert_eq!(said(&["getent", "group", "202001"]), "dp202001:*:202001:");
    assert_eq!(
        said(&["id", "dp202001"]),
        "uid=202001(dp202001) gid=202001(dp202001) groups=202001(dp202001)"
    );
    assert_eq!(said(&["stat", "-c", "%U %G %a", "/home/pool/dp202000"]), "dp202000 dp202000 700");
    let listed = said(&["ls", "-ld", "/home/pool/dp202001"]);
    assert!(listed.contains(" dp202001 dp202001 "), "{listed}");
    for file in [".profile", "inner/file"] {
        let found = fs::metadata(format!("/home/pool/dp202000/{file}")).unwrap();
        assert_eq!((found.uid(), found.gid()), (202_000, 202_000), "{file}");
    }

    // The consent is policy's, for this key alone, and a job runs under it.
    let given: Vec<_> = consents().into_iter().filter(|consent| consent.os_account == ada).collect();
    assert_eq!(given.len(), 1, "{given:?}");
    assert_eq!(
        (given[0].given_by, given[0].account.as_str(), given[0].expires),
        (GivenBy::Policy, "ada", None)
    );
    let runs = |application: &str, name: &str| {
        let mut request = run_as(ada.clone(), name, &["sh", "-c", "id -un; id -Gn; pwd; cat .profile"]);
        request.application = app(application);
        let answers = Fake::daemon().run(&request);
        answers.code().map_or(Ok(answers.output), Err)
    };
    assert_eq!(
        runs("tenants", "ada").unwrap(),
        "dp202000\ndp202000\n/home/pool/dp202000\n# of the skeleton\n"
    );
    for (application, name) in [("tenants", "eve"), ("neighbours", "ada"), ("demo", "ada")] {
        assert_eq!(runs(application, name), Err(Code::NoConsent), "{application} {name}");
    }
}

#[test]
fn no_rule_about_names_gives_somebodys_lease_to_another_account() {
    need_the_sandbox();
    let _pool = pool(203_000, 203_009, "");
    add_service_user("namesakes");
    install_application(
        "namesakes",
        "service_user = \"namesakes\"\ntrust = \"application\"\n[link]\nrule = \"{account}\"\n[kinds.batch]\ncommands = [\"*\"]\n",
    );
    let ada = lease("leased-to").os_account;
    let name = ada.name.as_str();
    let answers = Fake::daemon().ask(&LauncherRequest::RequestLink(link("namesakes", name, name)), &[]);
    assert!(
        matches!(answers.replies[..], [LauncherReply::Link { state: LinkState::Waiting { .. }, .. }]),
        "only its owner could: {answers:?}"
    );
    let mut request = run_as(ada.clone(), name, &["id"]);
    request.application = app("namesakes");
    assert_eq!(Fake::daemon().run(&request).code(), Some(Code::NoConsent));
}

#[test]
fn a_consent_that_was_taken_back_is_not_given_again_by_the_lease() {
    need_the_sandbox();
    let _pool = pool(204_000, 204_009, "");
    let os_account = lease("revoked").os_account;
    let LauncherRequest::Withdraw(mut unwanted) = withdrawal("tenants", "revoked", "alice", false) else {
        panic!()
    };
    unwanted.os_account = os_account.clone();
    Fake::as_user("root").ask(&LauncherRequest::Withdraw(unwanted), &[]);
    assert_eq!(ask("tenants", "revoked").code(), Some(Code::NoConsent));
    assert!(!consents().iter().any(|consent| consent.os_account == os_account));
}

#[test]
fn what_somebody_else_has_is_passed_over_and_reported() {
    need_the_sandbox();
    let _pool = pool(205_000, 205_009, "");
    let guard = account_files();
    run("useradd", &["--uid", "205000", "--no-create-home", "elsewhere"]);
    run("useradd", &["--no-create-home", "dp205001"]);
    run("groupadd", &["--gid", "205002", "elsegroup"]);
    run("groupadd", &["dp205003"]);
    drop(guard);
    fs::create_dir("/home/pool/dp205004").unwrap();
    symlink("/etc", "/home/pool/dp205005").unwrap();
    let leased = lease("passed");
    assert_eq!(leased.os_account, identity(205_006));
    let codes: Vec<_> = leased.findings.iter().map(|finding| finding.code.as_str()).collect();
    assert_eq!(codes, ["pool-number-taken"; 6], "{:?}", leased.findings);
    assert_eq!(fs::metadata("/home/pool/dp205004").unwrap().uid(), 0);
    assert_eq!(fs::metadata("/etc").unwrap().uid(), 0);
    // One that `files` gets later keeps nobody else from being named.
    let other = lease("later").os_account;
    let guard = account_files();
    run("useradd", &["--non-unique", "--uid", &other.uid.to_string(), "--no-create-home", "latecomer"]);
    drop(guard);
    assert_eq!(ask("tenants", "later").code(), Some(Code::OsAccountUnknown), "its uid is another's now");
    assert_eq!(lease("unharmed").os_account, identity(205_008));
    assert_eq!(as_user("alice", &["id", "-un", "dp205008"]).stdout.trim(), "dp205008");
}

#[test]
fn the_range_is_the_end() {
    need_the_sandbox();
    let pool = pool(206_000, 206_002, "");
    let mut leased: Vec<u32> = (0..3).map(|n| lease(&format!("last{n}")).os_account.uid.raw()).collect();
    leased.sort_unstable();
    assert_eq!(leased, [pool.first, pool.first + 1, pool.last]);
    assert_eq!(ask("tenants", "one-more").code(), Some(Code::PoolExhausted));
    assert!(!record_path(pool.last + 1).exists());
    assert_eq!(lease("last1").os_account.uid.raw(), leased[1], "who has one keeps it");
}

#[test]
fn a_record_that_is_damaged_gives_its_uid_to_nobody() {
    need_the_sandbox();
    let _pool = pool(207_000, 207_009, "");
    let uid = lease("damaged").os_account.uid.raw();
    let text = fs::read_to_string(record_path(uid)).unwrap();
    for damaged in [
        "",
        "[[[",
        &text[..text.len() / 2],
        &text.replace("207000", "207001"),
        &text.replace("version = 1", "version = 9"),
    ] {
        assert_ne!(damaged, text);
        fs::write(record_path(uid), damaged).unwrap();
        assert_eq!(ask("tenants", "damaged").code(), Some(Code::Internal), "{damaged}");
        assert_eq!(fs::read_to_string(record_path(uid)).unwrap(), damaged, "it was repaired");
    }
    fs::write(record_path(uid), &text).unwrap();
    assert_eq!(lease("damaged").os_account.uid.raw(), uid);
    assert_eq!(ids("deputy").uid, fs::metadata("/var/lib/deputy/ledger").unwrap().uid());
    assert_eq!(fs::metadata("/var/lib/deputy/pool").unwrap().mode() & 0o7777, 0o700);
}
