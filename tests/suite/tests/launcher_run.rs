//! G2 at the launcher's socket: whom, what and with what a taken-over `deputyd` can make it run. Refusals first.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};

use deputy_core::Code;
use deputy_core::consent::{Consent, GivenBy};
use deputy_core::job::OsIdentity;
use deputy_core::limits::JobBounds;
use deputy_core::message::{ExamineRequest, LauncherReply, LauncherRequest, encode};
use deputy_core::stream::Streams;
use deputy_suite::acting::{identity, ids, made_up_identity};
use deputy_suite::machine::{add_person, consent_path, install_application};
use deputy_suite::requests::{account, app, consents_of, grant, link, run_as};
use deputy_suite::{Descriptor, Fake, as_user, job_id, need_the_sandbox};
use serde::Serialize;

/// Consent that a careless root wrote by hand, past every check: what the launcher's child decides by itself at the
/// use is what these tests are about.
fn consent_by_hand(application: &str, account_name: &str, os_account: &OsIdentity) {
    let (application, account) = (app(application), account(account_name));
    let service = if application.as_str() == "other" { "otherportal" } else { "portal" };
    let consent = Consent {
        version: Consent::VERSION,
        service_uid: ids(service).uid,
        os_account: os_account.clone(),
        given_by: GivenBy::Root,
        by_uid: 0,
        made: 1,
        expires: None,
        application,
        account,
    };
    let path = consent_path(&consent.application, &consent.account, os_account.uid.raw());
    fs::write(path, consent.to_text().unwrap()).unwrap();
}

/// The code with which a job as this OS account is refused, if it is, although there is consent.
fn code_with_consent(application: &str, os_account: &OsIdentity) -> Option<Code> {
    let name = format!("by-hand-{}", os_account.name);
    consent_by_hand(application, &name, os_account);
    let mut request = run_as(os_account.clone(), &name, &["id", "-u"]);
    request.application = app(application);
    let answers = Fake::daemon().run(&request);
    let code = answers.code();
    assert!(code.is_some() || answers.output.trim() == os_account.uid.to_string(), "{answers:?}");
    code
}

/// All codes of the findings about an OS account, as a dry run tells them.
fn findings(application: &str, os_user: &str) -> Vec<String> {
    let request = LauncherRequest::Examine(ExamineRequest {
        application: app(application),
        account: account("anybody"),
        os_user: os_user.parse().unwrap(),
        pinned: None,
    });
    let answers = Fake::daemon().ask(&request, &[]);
    let [LauncherReply::Findings(findings)] = &answers.replies[..] else { panic!("{answers:?}") };
    findings.iter().map(|finding| finding.code.clone()).collect()
}

#[test]
fn without_consent_nothing_runs() {
    need_the_sandbox();
    let request = run_as(identity("bob"), "nobody-consented", &["id", "-u"]);
    assert_eq!(Fake::daemon().run(&request).code(), Some(Code::NoConsent));
    assert!(consents_of("nobody-consented").is_empty());
    grant("nobody-consented", "bob");
    let again = run_as(identity("bob"), "nobody-consented", &["id", "-u"]);
    assert_eq!(Fake::daemon().run(&again).output.trim(), ids("bob").uid.to_string());
}

#[test]
fn consent_is_for_one_account_of_one_application_and_one_os_account() {
    need_the_sandbox();
    grant("only-mine", "alice");
    let mut elsewhere = run_as(identity("alice"), "only-mine", &["id"]);
    elsewhere.application = app("other");
    assert_eq!(Fake::daemon().run(&elsewhere).code(), Some(Code::NoConsent));
    let another = run_as(identity("alice"), "not-mine", &["id"]);
    assert_eq!(Fake::daemon().run(&another).code(), Some(Code::NoConsent));
    let somebody = run_as(identity("carol"), "only-mine", &["id"]);
    assert_eq!(Fake::daemon().run(&somebody).code(), Some(Code::NoConsent));
    let mine = run_as(identity("alice"), "only-mine", &["id"]);
    assert_eq!(Fake::daemon().run(&mine).status(), Some(0));
}

/// A request with an identity that the real type cannot hold.
#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
#[derive(Serialize)]
enum Forged<'a> {
    #[expect(dead_code, reason = "it keeps the place of the real request's first variant")]
    Converse,
    Run {
        job: String,
        application: &'a str,
        account: &'a str,
        os_account: (&'a str, u32, u32),
        kind: Option<&'a str>,
        argv: Vec<Vec<u8>>,
        script: bool,
        directory: Option<Vec<u8>>,
        environment: Vec<Vec<u8>>,
        environment_descriptor: bool,
        umask: Option<u32>,
        os_group: Option<String>,
        project_group: Option<u32>,
        streams: Streams,
        bounds: JobBounds,
        gpus: Vec<u16>,
        login: Option<u64>,
    },
}

fn forged<'a>(application: &'a str, name: &'a str, uid: u32, gid: u32) -> Forged<'a> {
    Forged::Run {
        job: job_id().to_string(),
        application,
        account: "forged",
        os_account: (name, uid, gid),
        kind: None,
        argv: vec![b"id".to_vec(), b"-u".to_vec()],
        script: false,
        directory: None,
        environment: Vec::new(),
        environment_descriptor: false,
        umask: None,
        os_group: None,
        project_group: None,
        streams: Streams::default(),
        bounds: JobBounds::default(),
        gpus: Vec::new(),
        login: None,
    }
}

#[test]
fn root_and_reserved_ids_cannot_even_be_said() {
    need_the_sandbox();
    grant("forged", "alice");
    let alice = ids("alice");
    let send = |request: &Forged<'_>| {
        let stdio = [Descriptor::Null, Descriptor::Output, Descriptor::Null];
        Fake::daemon().send(&encode(request).unwrap(), &stdio)
    };
    for (name, uid, gid) in [
        ("root", 0, 0),
        ("alice", 0, alice.gid),
        ("alice", alice.uid, 0),
        ("nobody", 65534, 65534),
        ("alice", 65535, alice.gid),
        ("alice", u32::MAX, alice.gid),
        ("alice", alice.uid, u32::MAX),
        ("", alice.uid, alice.gid),
        ("alice:x", alice.uid, alice.gid),
        ("1001", alice.uid, alice.gid),
    ] {
        let answers = send(&forged("demo", name, uid, gid));
        assert_eq!(answers.code(), Some(Code::BadMessage), "{name} {uid} {gid}");
    }
    for application in ["../deputy", "..", "", "demo.toml/../demo", "demo\0", ".hidden", "*"] {
        let answers = send(&forged(application, "alice", alice.uid, alice.gid));
        assert_eq!(answers.code(), Some(Code::BadMessage), "{application}");
    }
    let honest = send(&forged("demo", "alice", alice.uid, alice.gid));
    assert_eq!(honest.output.trim(), alice.uid.to_string(), "{honest:?}");
}

#[test]
fn an_identity_put_together_from_two_people_is_refused() {
    need_the_sandbox();
    grant("mixed", "alice");
    let (alice, bob) = (ids("alice"), ids("bob"));
    let run = |name: &str, uid: u32, gid: u32| {
        Fake::daemon().run(&run_as(made_up_identity(name, uid, gid), "mixed", &["id"]))
    };
    assert_eq!(run("bob", alice.uid, alice.gid).code(), Some(Code::LinkStale));
    assert_eq!(run("root", alice.uid, alice.gid).code(), Some(Code::LinkStale));
    assert_eq!(run("alice", alice.uid, bob.gid).code(), Some(Code::LinkStale));
    assert_eq!(run("alice", bob.uid, alice.gid).code(), Some(Code::NoConsent));
    assert_eq!(run("alice", alice.uid, alice.gid).status(), Some(0));
}

#[test]
fn system_accounts_service_users_and_privileged_people_are_never_targets() {
    need_the_sandbox();
    for user in ["daemon", "backup", "deputy", "portal", "otherportal"] {
        assert_eq!(code_with_consent("demo", &identity(user)), Some(Code::OsAccountOutOfRange), "{user}");
        let grant = LauncherRequest::Grant(link("demo", "by-root", user));
        assert!(Fake::as_user("root").ask(&grant, &[]).code().is_some(), "root granted consent to {user}");
    }
    // Each for its own reason, not only for its uid.
    for (user, reason) in [
        ("deputy", Code::OsAccountIsService),
        ("portal", Code::OsAccountIsService),
        ("otherportal", Code::OsAccountIsService),
        ("backup", Code::OsAccountDenied),
        ("root", Code::OsAccountReserved),
        ("dave", Code::OsAccountPrivileged),
    ] {
        let codes = findings("demo", user);
        assert!(
            codes.contains(
                &deputy_core::finding::Finding::from(deputy_core::Denial::new(reason, "", "")).code
            ),
            "{user}: {codes:?}"
        );
    }
    assert_eq!(code_with_consent("demo", &identity("dave")), Some(Code::OsAccountPrivileged));
    assert_eq!(code_with_consent("other", &identity("bob")), Some(Code::OsAccountNotInGroup));
    assert_eq!(code_with_consent("other", &identity("carol")), None);
    assert_eq!(code_with_consent("demo", &identity("bob")), None);
}

#[test]
fn people_denied_by_name_or_range_are_never_targets() {
    need_the_sandbox();
    add_person("eve", "eve", &["lab1"]);
    let uid = ids("alice").uid;
    install_application(
        "picky",
        &format!(
            "service_user = \"portal\"\n[os_accounts]\nmin_uid = {}\nmax_uid = {}\ndeny_users = [\"eve\"]\n\
             [kinds.batch]\ncommands = [\"*\"]\n",
            uid + 1,
            ids("carol").uid + 100
        ),
    );
    assert_eq!(code_with_consent("picky", &identity("eve")), Some(Code::OsAccountDenied));
    assert_eq!(code_with_consent("picky", &identity("alice")), Some(Code::OsAccountOutOfRange));
    assert_eq!(code_with_consent("picky", &identity("bob")), None);
    assert_eq!(code_with_consent("demo", &identity("eve")), None);
}

#[test]
fn service_users_with_a_persons_uid_and_members_of_their_groups_are_never_targets() {
    need_the_sandbox();
    add_person("farmer", "farmer", &["lab1"]);
    add_person("brokenfarmer", "farmer", &["lab1"]);
    assert_eq!(code_with_consent("demo", &identity("farmer")), None);
    assert_eq!(code_with_consent("demo", &identity("brokenfarmer")), None);
    install_application("farm", "service_user = \"farmer\"\n");
    install_application("brokenfarm", "service_user = \"brokenfarmer\"\nno toml [[[\n");
    add_person("helper", "helper", &["lab1", "farmer"]);
    add_person("brokenhelper", "helper", &["brokenfarmer"]);
    add_person("daemonhelper", "helper", &["deputy"]);
    add_person("portalhelper", "helper", &["portal"]);
    for user in ["farmer", "brokenfarmer", "helper", "brokenhelper", "daemonhelper", "portalhelper"] {
        assert_eq!(code_with_consent("demo", &identity(user)), Some(Code::OsAccountIsService), "{user}");
    }
    // Written so that only a whole reader of TOML finds the name.
    add_person("hiddenfarmer", "farmer", &["lab1"]);
    assert_eq!(code_with_consent("demo", &identity("hiddenfarmer")), None);
    install_application("hiddenfarm", "\"service_user\" = \"hidden\\u0066armer\"\n");
    assert_eq!(code_with_consent("demo", &identity("hiddenfarmer")), Some(Code::OsAccountIsService));
}

/// An application whose programs are in a folder of root's, in one of alice's, and behind a script.
fn install_tools() {
    let folder = "/srv/tools/bin/sub";
    fs::create_dir_all(folder).unwrap();
    fs::create_dir_all("/srv/tools/scripts").unwrap();
    fs::create_dir_all("/home/alice/bin").unwrap();
    for place in
        ["/srv/tools/bin/id", "/srv/tools/bin/sub/id", "/home/alice/bin/id", "/srv/tools/bin/groupid"]
    {
        fs::copy("/usr/bin/id", place).unwrap();
    }
    for place in ["/srv/tools/scripts/roots.txt", "/srv/tools/scripts/hers.txt"] {
        fs::write(place, "text\n").unwrap();
    }
    chown("/srv/tools/scripts/hers.txt", Some(ids("alice").uid), None).unwrap();
    fs::set_permissions("/srv/tools/bin/groupid", fs::Permissions::from_mode(0o775)).unwrap();
    std::os::unix::fs::symlink("/home/alice/bin/id", "/srv/tools/bin/linked").ok();
    install_application(
        "tools",
        "service_user = \"portal\"\n[kinds.batch]\ncommands = [\"/srv/tools/bin/*\", \"/srv/tools/bin/id -u\", \
         \"/home/alice/bin/*\", \"/usr/bin/cat /srv/tools/scripts/*.txt\"]\n[kinds.open]\ncommands = [\"*\"]\n",
    );
}

#[test]
fn nothing_outside_the_kinds_commands_runs() {
    need_the_sandbox();
    install_tools();
    let run = |kind: Option<&str>, argv: &[&str]| {
        consent_by_hand("tools", "toolmaker", &identity("alice"));
        let mut request = run_as(identity("alice"), "toolmaker", argv);
        request.application = app("tools");
        request.kind = kind.map(|kind| kind.parse().unwrap());
        Fake::daemon().run(&request)
    };
    for argv in [
        &["/srv/tools/bin/../../../usr/bin/id"][..],
        &["/srv/tools/bin/.."],
        &["/srv/tools/bin/./id"],
        &["/srv/tools/bin//id"],
        &["/srv/tools/bin/"],
        &["/srv/tools/bin/sub/id"],
        &["/srv/tools/bin/id", "-g"],
        &["/srv/tools/bin/id", "-u", "root"],
        &["/usr/bin/id"],
        &["id"],
        &["/usr/bin/cat", "/srv/tools/scripts/../../../etc/passwd"],
        &["/usr/bin/cat", "/etc/passwd"],
        &["/usr/bin/cat", "/srv/tools/scripts/roots.txt", "/etc/passwd"],
        &["/usr/bin/cat", "/srv/tools/scripts/sub/roots.txt"],
        // What a rule names by path has to be root's all along.
        &["/home/alice/bin/id"],
        &["/srv/tools/bin/linked"],
        &["/srv/tools/bin/groupid"],
        &["/usr/bin/cat", "/srv/tools/scripts/hers.txt"],
    ] {
        assert_eq!(run(None, argv).code(), Some(Code::CommandNotAllowed), "{argv:?}");
    }
    for argv in
        [&[][..], &[""], &["bin/id"], &["./id"], &["../id"], &["/srv/tools/bin/id\0"], &["/bin/id", "a\0b"]]
    {
        assert_eq!(run(Some("open"), argv).code(), Some(Code::InvalidArgument), "{argv:?}");
    }
    assert_eq!(run(Some("nothing-of-the-kind"), &["/srv/tools/bin/id"]).code(), Some(Code::KindNotAllowed));
    assert_eq!(run(None, &["/srv/tools/bin/id"]).status(), Some(0));
    assert_eq!(run(None, &["/srv/tools/bin/id", "-u"]).output.trim(), ids("alice").uid.to_string());
    assert_eq!(run(None, &["/usr/bin/cat", "/srv/tools/scripts/roots.txt"]).output, "text\n");
    // Where the kind allows everything, her own programs are hers to run.
    assert_eq!(run(Some("open"), &["/home/alice/bin/id", "-u"]).status(), Some(0));
}

#[test]
fn variables_that_change_what_programs_do_are_refused_whatever_the_list_says() {
    need_the_sandbox();
    install_application(
        "wide",
        "service_user = \"portal\"\nenvironment = [\"A*\", \"B*\", \"D*\", \"E*\", \"G*\", \"H*\", \"I*\", \"L*\", \
         \"M*\", \"N*\", \"P*\", \"S*\", \"T*\", \"U*\", \"X*\"]\n[kinds.batch]\ncommands = [\"*\"]\n",
    );
    consent_by_hand("wide", "variable", &identity("alice"));
    let run = |environment: &[&str]| {
        let mut request = run_as(identity("alice"), "variable", &["env", "-0"]);
        request.application = app("wide");
        request.environment = environment.iter().map(|variable| variable.as_bytes().to_vec()).collect();
        Fake::daemon().run(&request)
    };
    for variable in [
        "LD_PRELOAD=/tmp/evil.so",
        "LD_LIBRARY_PATH=/tmp",
        "LD_AUDIT=/tmp/evil.so",
        "BASH_FUNC_x%%=() { :; }",
        "BASH_FUNC_x=1",
        "APP_X=() { :; }; id",
        "BASH_ENV=/tmp/x",
        "ENV=/tmp/x",
        "PATH=/tmp",
        "HOME=/tmp",
        "USER=root",
        "LOGNAME=root",
        "SHELL=/tmp/x",
        "IFS=x",
        "SHELLOPTS=xtrace",
        "PS4=$(id)",
        "SLURM_JOB_ID=1",
        "SLURM_CONF=/tmp/slurm.conf",
        "SBATCH_EXPORT=ALL",
        "SRUN_X=1",
        "PMI_RANK=0",
        "DEPUTY_X=1",
        "GCONV_PATH=/tmp",
        "GLIBC_TUNABLES=x",
        "NLSPATH=/tmp/x",
        "HOSTALIASES=/tmp/x",
        "XDG_RUNTIME_DIR=/tmp",
        "TZ=/etc/shadow",
        "TZ=../../../etc/shadow",
        "TZ=:/etc/shadow",
        "LANG=/tmp/evil",
        "LC_ALL=../../tmp/evil",
        "=x",
        "A B=x",
        "A-B=x",
        "1A=x",
        "KRB5CCNAME=FILE:/tmp/x",
    ] {
        assert_eq!(run(&[variable]).code(), Some(Code::EnvironmentNotAllowed), "{variable:?}");
        // One bad one among good ones is no better.
        assert_eq!(run(&["APP_A=1", variable]).code(), Some(Code::EnvironmentNotAllowed), "{variable:?}");
    }
    for variable in ["APP_X", "", "\n"] {
        assert_eq!(run(&[variable]).code(), Some(Code::InvalidArgument), "{variable:?}");
    }
    assert_eq!(run(&["APP_X=a\0LD_PRELOAD=/tmp/x"]).code(), Some(Code::EnvironmentNotAllowed));
    assert_eq!(run(&[&format!("APP_X={}", "x".repeat(40_000))]).code(), Some(Code::EnvironmentNotAllowed));

    let variables = |answers: &str| -> Vec<String> {
        let mut all: Vec<String> = answers.split_terminator('\0').map(str::to_owned).collect();
        all.sort();
        all
    };
    let plain = variables(&run(&[]).output);
    let added = variables(&run(&["APP_X=a\nLD_PRELOAD=/tmp/x\n", "TZ=Europe/Berlin", "APP_Y="]).output);
    let mut expected = plain.clone();
    expected.extend(["APP_X=a\nLD_PRELOAD=/tmp/x\n".to_owned(), "TZ=Europe/Berlin".into(), "APP_Y=".into()]);
    expected.sort();
    assert_eq!(added, expected, "a value with a line break stays one value");
    assert!(plain.contains(&"USER=alice".to_owned()), "{plain:?}");
}

#[test]
fn a_login_and_a_job_are_the_same_person() {
    need_the_sandbox();
    grant("same-person", "alice");
    let answers = Fake::daemon().run(&run_as(identity("alice"), "same-person", &["id"]));
    assert_eq!(answers.output, as_user("alice", &["id"]).stdout);
    assert_eq!(answers.status(), Some(0));
}
