//! Groups of projects: what a taken-over `deputyd` cannot have from them, and what they are. Refusals first.
#![forbid(unsafe_code)]

use std::fs;

use deputy_core::Code;
use deputy_core::ids::OsGid;
use deputy_core::message::{FileRequest, LauncherReply, LauncherRequest, NotInGroup};
use deputy_core::project_group::{GroupMember, GroupRecord};
use deputy_suite::acting::made_up_identity;
use deputy_suite::files::{Ended, FileAgent, files_of};
use deputy_suite::groups::{
    accounts_in, ask, consented, group_of, install, make, member, record, set, set_as_of, text,
};
use deputy_suite::machine::{account_files, add_person, install_application, run};
use deputy_suite::people::{as_user, deputyctl, ok, refused};
use deputy_suite::pool::{Pool, pool};
use deputy_suite::requests::{app, grant_in, run_as, withdrawal};
use deputy_suite::{Fake, need_the_sandbox};

fn begin(first: u32) -> Pool {
    need_the_sandbox();
    let pool = pool(first, first + 9, "");
    install();
    pool
}

/// What a job of `application` with this group printed, or why it was refused.
fn job(application: &str, who: &GroupMember, gid: OsGid, argv: &[&str]) -> Result<String, Code> {
    let mut request = run_as(who.os_account.clone(), who.account.as_str(), argv);
    request.application = app(application);
    request.project_group = Some(gid);
    let answers = Fake::daemon().run(&request);
    answers.code().map_or(Ok(answers.output.trim().to_owned()), Err)
}

/// Why these are not in the group.
fn reasons(left_out: &[NotInGroup]) -> Vec<(&str, Code)> {
    left_out.iter().map(|one| (one.account.as_str(), one.denial.code)).collect()
}

/// What every program hears of a group.
fn getent(name: &str) -> String {
    as_user("alice", &["getent", "group", name]).stdout.trim().to_owned()
}

#[test]
fn without_roots_word_no_project_has_a_group() {
    let range = begin(400_000);
    for application in ["demo", "other", "plain", "tenants"] {
        assert_eq!(ask(application, "pi/x").code(), Some(Code::PoolNotAllowed), "{application}");
    }
    assert_eq!(ask("no-such-application", "pi/x").code(), Some(Code::ApplicationInvalid));
    let group = make("pi/range");
    assert_eq!((group.gid.raw(), group.name.as_str()), (range.first - 1000, "dg399000"));
    assert!(group.members.is_empty());
    assert_eq!(getent("dg399000"), "dg399000:*:399000:");
    // A range that is all the accounts' own has none left for projects.
    let path = "/etc/deputy/deputy.toml";
    let before = fs::read_to_string(path).unwrap();
    fs::write(path, before.replace("gid_min = 399000", "gid_min = 400000")).unwrap();
    assert_eq!(ask("team", "pi/none").code(), Some(Code::PoolExhausted));
    // And a machine without a pool has no groups either.
    fs::write(path, before.split("[pool]").next().unwrap()).unwrap();
    assert_eq!(ask("team", "pi/none").code(), Some(Code::PoolNotAllowed));
    fs::write(path, before).unwrap();
}

#[test]
fn a_lying_daemon_puts_nobody_into_a_group_who_has_no_consent_of_its_application() {
    let _range = begin(402_000);
    let group = make("pi/lies");
    let pi = consented("liar-pi", "alice");
    grant_in("demo", "elsewhere", "bob");
    let bobs = member("liar-pi", "bob");
    let (stale, renamed) = (made_up_identity("alice", 4711, 4711), {
        let mut os_account = pi.os_account.clone();
        os_account.name = "bob".parse().unwrap();
        os_account
    });
    let as_made_up = |os_account| GroupMember { account: pi.account.clone(), os_account };
    for (wanted, code) in [
        (member("nobody-asked", "bob"), Code::NoConsent),
        (member("elsewhere", "bob"), Code::NoConsent),
        (bobs, Code::NoConsent),
        (member("liar-pi", "dave"), Code::NoConsent),
        (member("liar-pi", "portal"), Code::NoConsent),
        (as_made_up(stale), Code::NoConsent),
        (as_made_up(renamed), Code::LinkStale),
    ] {
        let (record, left_out) = set(group.gid, &[pi.clone(), wanted.clone()]);
        assert_eq!(record.members, std::slice::from_ref(&pi), "{wanted:?}");
        assert_eq!(left_out.iter().map(|one| one.denial.code).collect::<Vec<_>>(), [code], "{wanted:?}");
        assert_eq!(getent("dg401000"), "dg401000:*:401000:alice", "{wanted:?}");
    }
    // A consent onto an OS account that is no target any more is none.
    add_person("risen", "x", &[]);
    let risen = consented("riser", "risen");
    let guard = account_files();
    run("gpasswd", &["-a", "risen", "sudo"]);
    drop(guard);
    let (record, left_out) = set(group.gid, &[pi.clone(), risen]);
    assert_eq!(record.members, std::slice::from_ref(&pi));
    assert_eq!(reasons(&left_out), [("riser", Code::OsAccountPrivileged)]);

    // Another application's group, gids of the system's and of nobody's: there is no such group.
    for (application, gid) in [
        ("rivals", group.gid.raw()),
        ("demo", group.gid.raw()),
        ("team", 27),
        ("team", 1001),
        ("team", 401_001),
    ] {
        let gid = OsGid::new(gid).unwrap();
        let named = GroupRecord { gid, ..record.clone() };
        assert_eq!(set_as_of(application, &named, &[]).code(), Some(Code::NotFound), "{application} {gid}");
        let request = LauncherRequest::Group { application: app(application), gid };
        assert_eq!(Fake::daemon().ask(&request, &[]).code(), Some(Code::NotFound), "{application} {gid}");
    }
    // A request that comes late undoes nothing.
    let old = GroupRecord { revision: record.revision - 1, ..record.clone() };
    assert_eq!(set_as_of("team", &old, &[]).code(), Some(Code::Conflict));
    assert_eq!(accounts_in(group.gid), ["liar-pi"]);
}

#[test]
fn a_job_and_an_agent_get_the_group_only_as_the_record_says() {
    let _range = begin(404_000);
    let group = make("pi/jobs");
    let (pi, postdoc) = (consented("job-pi", "alice"), consented("job-postdoc", "bob"));
    let outsider = consented("job-outsider", "carol");
    set(group.gid, &[pi.clone(), postdoc.clone()]);
    let none = OsGid::new(403_001).unwrap();
    let sudo = OsGid::new(27).unwrap();
    let other = make("pi/other");
    for (application, who, gid, code) in [
        ("team", &outsider, group.gid, Code::OsAccountNotInGroup),
        ("team", &pi, other.gid, Code::OsAccountNotInGroup),
        ("team", &pi, none.max(other.gid), Code::OsAccountNotInGroup),
        ("team", &pi, sudo, Code::NotFound),
        ("team", &pi, OsGid::new(403_777).unwrap(), Code::NotFound),
    ] {
        assert_eq!(job(application, who, gid, &["id"]), Err(code), "{application} {who:?} {gid}");
        let mut files = files_of(application, who.account.as_str(), who.os_account.name.as_str());
        files.project_group = Some(gid);
        assert_eq!(FileAgent::start(&files).unwrap_err().code, code, "{application} {who:?} {gid}");
    }
    // Another application with the same person: neither one that may have groups nor one that may not.
    for (application, code) in [("rivals", Code::NotFound), ("plain", Code::PoolNotAllowed)] {
        grant_in(application, "job-pi", "alice");
        assert_eq!(job(application, &pi, group.gid, &["id"]), Err(code), "{application}");
    }
    let said = job("team", &postdoc, group.gid, &["sh", "-c", "id -Gn; id -u"]).unwrap();
    assert!(said.starts_with("bob ") && said.contains(" dg403000"), "{said}");

    // An agent sees at its next call that its account has left.
    let mut files = files_of("team", "job-postdoc", "bob");
    files.project_group = Some(group.gid);
    let agent = FileAgent::start(&files).unwrap();
    let list = FileRequest::List { path: b"/srv/team/own".to_vec(), after: Vec::new(), limit: 1 };
    assert!(matches!(agent.call(&list), Ended::Answer(_)));
    set(group.gid, std::slice::from_ref(&pi));
    assert_eq!(agent.call(&list), Ended::Stale(Code::ApplicationInvalid));
    assert_eq!(FileAgent::start(&files).unwrap_err().code, Code::OsAccountNotInGroup);
    assert_eq!(job("team", &postdoc, group.gid, &["id"]), Err(Code::OsAccountNotInGroup));

    // Root's word is asked each time.
    install_application("team", &text("team", false));
    assert_eq!(job("team", &pi, group.gid, &["id"]), Err(Code::PoolNotAllowed));
    let (emptied, left_out) = set(group.gid, std::slice::from_ref(&pi));
    assert!(emptied.members.is_empty());
    assert_eq!(reasons(&left_out), [("job-pi", Code::PoolNotAllowed)]);
    install_application("team", &text("team", true));
    set(group.gid, std::slice::from_ref(&pi));
    assert!(job("team", &pi, group.gid, &["id", "-Gn"]).unwrap().contains("dg403000"));
}

#[test]
fn who_takes_his_consent_back_has_left_every_group() {
    let _range = begin(406_000);
    let (first, second) = (make("pi/first"), make("pi/second"));
    let (pi, leaver) = (consented("rev-pi", "alice"), consented("rev-leaver", "bob"));
    for group in [&first, &second] {
        set(group.gid, &[pi.clone(), leaver.clone()]);
    }
    assert_eq!(getent("dg405000"), "dg405000:*:405000:alice,bob");
    assert!(as_user("bob", &["id", "-Gn", "bob"]).stdout.contains("dg405001"));
    ok(&deputyctl("bob", &["--yes", "consent", "revoke", "team", "rev-leaver"]));
    for (group, name) in [(&first, "dg405000"), (&second, "dg405001")] {
        assert_eq!(accounts_in(group.gid), ["rev-pi"]);
        assert_eq!(getent(name), format!("{name}:*:{}:alice", group.gid));
        assert_eq!(job("team", &leaver, group.gid, &["id"]), Err(Code::NoConsent));
    }
    let groups = as_user("bob", &["id", "-Gn", "bob"]).stdout;
    assert!(!groups.contains("dg405"), "{groups}");
    // A new consent brings him back only when he is said to be a member again.
    consented("rev-leaver", "bob");
    assert_eq!(job("team", &leaver, first.gid, &["id"]), Err(Code::OsAccountNotInGroup));
    set(first.gid, &[pi.clone(), leaver.clone()]);
    assert!(job("team", &leaver, first.gid, &["id", "-Gn"]).unwrap().contains("dg405000"));
    // And deputyd's own word takes away too.
    Fake::daemon().ask(&withdrawal("team", "rev-pi", "alice", false), &[]);
    assert_eq!((accounts_in(first.gid), accounts_in(second.gid)), (vec!["rev-leaver".to_owned()], vec![]));
}

#[test]
fn a_gid_is_of_one_project_for_ever_and_of_nobody_else() {
    let range = begin(408_000);
    let guard = account_files();
    run("groupadd", &["--gid", "407000", "elsegid"]);
    run("groupadd", &["dg407001"]);
    drop(guard);
    let first = make("pi/one");
    assert_eq!(first.gid.raw(), 407_002, "what others have is passed over");
    // The same project by name is another one: nobody hears of an older one's files.
    assert_eq!(make("pi/one").gid.raw(), 407_003);
    let pi = consented("num-pi", "alice");
    set(first.gid, std::slice::from_ref(&pi));
    let (emptied, _) = set(first.gid, &[]);
    assert!(emptied.members.is_empty());
    assert_eq!(getent("dg407002"), "dg407002:*:407002:", "files of it still have a name");
    // Its record is damaged: nobody is in it, nobody gets the number, and no other group minds.
    let path = format!("{}/407003", deputy_suite::groups::RECORDS);
    fs::write(&path, "[[[").unwrap();
    assert_eq!(make("pi/two").gid.raw(), 407_004);
    assert_eq!(job("team", &pi, OsGid::new(407_003).unwrap(), &["id"]), Err(Code::Internal));
    fs::remove_file(&path).unwrap();
    set(first.gid, std::slice::from_ref(&pi));
    // One that `files` gets later under another name is not given any more.
    let guard = account_files();
    run("groupadd", &["--gid", "407002", "--non-unique", "latecomer"]);
    drop(guard);
    assert_eq!(job("team", &pi, first.gid, &["id"]), Err(Code::Conflict));
    drop(range);
}

#[test]
fn numbers_go_to_another_host_and_members_do_not() {
    let _range = begin(410_000);
    let group = make("pi/exported");
    let pi = consented("exp-pi", "alice");
    set(group.gid, std::slice::from_ref(&pi));
    let json = ok(&deputyctl("root", &["pool", "export"]));
    let ldif = ok(&deputyctl("root", &["pool", "export", "--format", "ldif", "--base", "dc=example"]));
    assert!(ldif.contains("cn: dg409000\ngidNumber: 409000\nmemberUid: alice\n"), "{ldif}");
    assert!(ok(&deputyctl("root", &["pool", "groups"])).contains("pi/exported"));
    assert_eq!(refused(&deputyctl("alice", &["pool", "groups"])), "NotAuthorized");
    for request in [
        LauncherRequest::ListGroups { after: None },
        LauncherRequest::ImportGroups { groups: vec![record(group.gid).unwrap()] },
    ] {
        assert_eq!(Fake::daemon().ask(&request, &[]).code(), Some(Code::PeerNotAllowed), "{request:?}");
    }
    // What is here already changes nothing, its members neither; what contradicts it is refused.
    let only = |one: &serde_json::Value| one["project"] == "pi/exported";
    let all: Vec<serde_json::Value> = serde_json::from_str(&json).unwrap();
    let json = serde_json::to_string(&all.into_iter().filter(only).collect::<Vec<_>>()).unwrap();
    let ldif = ldif.lines().filter(|line| line.contains("pi/exported")).collect::<Vec<_>>().join("\n");
    for (file, text) in [("groups.json", json.clone()), ("groups.ldif", ldif)] {
        fs::write(format!("/srv/{file}"), text).unwrap();
        ok(&deputyctl("root", &["pool", "import", &format!("/srv/{file}")]));
        assert_eq!(accounts_in(group.gid), ["exp-pi"]);
    }
    assert!(json.contains("pi/exported"));
    fs::write("/srv/groups.json", json.replace("pi/exported", "eve/exported")).unwrap();
    assert_eq!(refused(&deputyctl("root", &["pool", "import", "/srv/groups.json"])), "Conflict");
    assert_eq!(record(group.gid).unwrap().project.to_string(), "pi/exported");
}

#[test]
fn an_imported_group_is_empty_and_is_its_projects() {
    let _range = begin(412_000);
    let exported = serde_json::json!([
        {"application": "team", "project": "pi/moved", "group": "dg411005", "gid": 411_005, "since": 7_000_000},
        {"application": "rivals", "project": "pi/moved", "group": "dg411006", "gid": 411_006, "since": 7_000_000},
    ]);
    fs::write("/srv/moved.json", exported.to_string()).unwrap();
    assert_eq!(refused(&deputyctl("alice", &["pool", "import", "/srv/moved.json"])), "NotAuthorized");
    for _ in 0..2 {
        ok(&deputyctl("root", &["pool", "import", "/srv/moved.json"]));
    }
    let here = record(OsGid::new(411_005).unwrap()).unwrap();
    assert_eq!((here.claimed, here.members.len()), (false, 0));
    assert_eq!(getent("dg411005"), "dg411005:*:411005:");
    // Whoever shares a project of this name here has the number, once; every other one gets another.
    assert_eq!(make("pi/else").gid.raw(), 411_000);
    assert_eq!(make("pi/moved").gid.raw(), 411_005);
    assert_eq!(make("pi/moved").gid.raw(), 411_001);
    assert_eq!(group_of(&ask("rivals", "pi/moved")).0.gid.raw(), 411_006);
    let wrong = exported.to_string().replace("dg411005", "sudo");
    fs::write("/srv/moved.json", wrong).unwrap();
    assert_eq!(refused(&deputyctl("root", &["pool", "import", "/srv/moved.json"])), "Conflict");
    let list = Fake::as_user("root").ask(&LauncherRequest::ListGroups { after: None }, &[]);
    assert!(matches!(list.replies[..], [LauncherReply::Groups(_)]), "{list:?}");
}
