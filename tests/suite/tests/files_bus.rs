//! Files over D-Bus, as an application uses them; and what becomes of an agent whose ground goes, or whose owner stops it.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deputy_core::Code;
use deputy_core::message::{FileReply, LauncherReply};
use deputy_suite::acting::ids;
use deputy_suite::client::{Client, Dictionary, Failed, Options, on_bus, options, text};
use deputy_suite::files::{Ended, FileAgent, files_of, stat};
use deputy_suite::machine::{
    add_service_user, children_of, install_application, launcher_pid, run, wait_until,
};
use deputy_suite::portal::{application, flags, policy, root};
use deputy_suite::requests::{grant_in, withdrawal};
use deputy_suite::{Fake, as_user};
use serde_json::Value;
use zbus::Variant;

type Opened = (zbus::OwnedFd, String);

/// One test at a time: an application that one installs ends the agents of all.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn open(client: &Client, path: &str, options: Options) -> Result<(File, String), Failed> {
    let (file, handle): Opened = client.call("Files.Open", &("ada", path.as_bytes(), options)).await?;
    Ok((std::os::fd::OwnedFd::from(file).into(), handle))
}

async fn look(client: &Client, path: &str) -> Result<Dictionary, Failed> {
    client.call("Files.Stat", &("ada", path.as_bytes(), Options::new())).await
}

async fn lines(
    client: &Client,
    method: &str,
    body: &(impl serde::Serialize + zbus::DynamicType),
) -> Vec<Value> {
    let (pipe,): (zbus::OwnedFd,) = client.call(method, body).await.expect("a pipe");
    let mut text = String::new();
    File::from(std::os::fd::OwnedFd::from(pipe)).read_to_string(&mut text).expect("lines");
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

#[test]
fn an_application_does_with_files_what_the_user_could() {
    let _turn = turn();
    let user = application("allfiles");
    on_bus(&user, async |client: Client| {
        let none = Options::new;
        let (mut file, handle) =
            open(&client, "/data/bus/upload", flags(&["write", "create", "exclusive", "keep"]))
                .await
                .expect("a file");
        file.write_all(b"hello").expect("written");
        let body = ("ada", handle.as_str(), none());
        client.call::<_, ()>("Files.Commit", &body).await.expect("committed");
        // A handle is for once.
        assert_eq!(client.call::<_, ()>("Files.Commit", &body).await.expect_err("used").code(), "NotFound");
        let found = fs::metadata("/data/bus/upload").expect("the file");
        assert_eq!(
            (found.uid(), found.gid(), found.mode() & 0o7777),
            (ids("alice").uid, ids("alice").gid, 0o644)
        );
        let (mut file, handle) = open(&client, "/data/bus/upload", none()).await.expect("a file");
        let mut held = String::new();
        file.read_to_string(&mut held).expect("read");
        assert_eq!((held.as_str(), handle.as_str()), ("hello", ""));
        assert!(file.write_all(b"x").is_err());

        let p = |name: &str| format!("/data/bus/{name}").into_bytes();
        let make: Options = [("parents", Variant::from(true)), ("mode", Variant::from("0750"))].into();
        client.call::<_, ()>("Files.MakeDirectory", &("ada", p("a/b/c"), make)).await.expect("made");
        assert_eq!(fs::metadata("/data/bus/a/b/c").expect("made").mode() & 0o7777, 0o750);
        client
            .call::<_, ()>("Files.Symlink", &("ada", b"b".to_vec(), p("a/link"), none()))
            .await
            .expect("made");
        let (target,): (Vec<u8>,) =
            client.call("Files.ReadLink", &("ada", p("a/link"), none())).await.expect("read");
        assert_eq!(target, b"b");
        client
            .call::<_, ()>("Files.Rename", &("ada", p("upload"), p("a/b/file"), flags(&["no_replace"])))
            .await
            .expect("renamed");
        client
            .call::<_, ()>("Files.Link", &("ada", p("a/b/file"), p("a/second"), none()))
            .await
            .expect("linked");
        client.call::<_, ()>("Files.SetMode", &("ada", p("a/second"), "600", none())).await.expect("changed");
        let acl = format!("user::rw-,user:{}:r--,group::---,mask::r--,other::---", ids("bob").uid);
        client
            .call::<_, ()>("Files.SetAcl", &("ada", p("a/second"), acl.as_str(), none()))
            .await
            .expect("changed");
        let (read,): (String,) =
            client.call("Files.GetAcl", &("ada", p("a/second"), none())).await.expect("read");
        assert_eq!(read, acl);
        let times: Options = [("modified", Variant::from(1_000_000_000_000_000u64))].into();
        client.call::<_, ()>("Files.SetTimes", &("ada", p("a/second"), times)).await.expect("changed");
        let known = look(&client, "/data/bus/a/second").await.expect("known");
        assert_eq!(text(&known, "kind").as_deref(), Some("file"));
        assert_eq!(fs::metadata("/data/bus/a/second").expect("the file").mtime(), 1_000_000_000);

        let (entries, more): (Vec<Dictionary>, bool) =
            client.call("Files.List", &("ada", p("a"), none())).await.expect("a page");
        assert_eq!((entries.len(), more), (3, false));
        let listed = lines(&client, "Files.ListStream", &("ada", p("a"), none())).await;
        assert_eq!((listed.len(), listed[3]["done"].as_u64()), (4, Some(3)));
        let copied = lines(&client, "Files.CopyTree", &("ada", p("a"), p("copy"), none())).await;
        assert_eq!(copied.last().expect("a line")["result"], "done");
        // The portal itself may not: it is alice's alone.
        assert!(File::open("/data/bus/copy/b/file").is_err());
        let (mut file, _) = open(&client, "/data/bus/copy/b/file", none()).await.expect("copied");
        held.clear();
        file.read_to_string(&mut held).expect("read");
        assert_eq!(held, "hello");
        let measured = lines(&client, "Files.DiskUsage", &("ada", p("a"), none())).await;
        // The file with two names counts once.
        assert_eq!(measured.last().expect("a line")["done"], 5);
        let removed = lines(&client, "Files.RemoveTree", &("ada", p("copy"), none())).await;
        assert_eq!(removed.last().expect("a line")["result"], "done");
        assert!(!Path::new("/data/bus/copy").exists());
        client.call::<_, ()>("Files.Remove", &("ada", p("a/second"), none())).await.expect("removed");
        let gone = client.call::<_, ()>("Files.Remove", &("ada", p("a/second"), none())).await;
        assert_eq!(gone.expect_err("gone").code(), "FileError");
        client
            .call::<_, ()>("Files.Remove", &("ada", p("a/second"), flags(&["missing_ok"])))
            .await
            .expect("well");
        let (places,): (Vec<Dictionary>,) =
            client.call("Files.Quota", &("ada", none())).await.expect("places");
        assert_eq!(places.len(), 1);
        assert!(places[0].contains_key("free") && places[0].contains_key("quotas"));
    });
}

#[test]
fn many_files_are_opened_by_one_call_and_each_has_its_own_result() {
    let _turn = turn();
    let user = application("manyfiles");
    fs::create_dir_all("/data/bus/many").expect("a folder");
    let path = |number: usize| format!("/data/bus/many/{number}");
    for number in 0..14 {
        fs::write(path(number), number.to_string()).expect("a file");
    }
    fs::set_permissions(path(3), Permissions::from_mode(0o600)).expect("a mode");
    let paths = |count: usize| -> Vec<Vec<u8>> {
        let mut paths: Vec<Vec<u8>> = (0..count.min(14)).map(|number| path(number).into_bytes()).collect();
        paths.extend([b"/etc/passwd".to_vec(), b"/data/bus/many".to_vec()]);
        paths
    };
    on_bus(&user, async |client: Client| {
        type Many = (Vec<zbus::OwnedFd>, Vec<Dictionary>);
        let (files, results): Many =
            client.call("Files.OpenMany", &("ada", paths(14), Options::new())).await.expect("files");
        assert_eq!((files.len(), results.len()), (13, 16));
        let code = |number: usize| text(&results[number], "error");
        let message = |number: usize| text(&results[number], "message").expect("why");
        assert_eq!(
            (code(3).as_deref(), code(14).as_deref(), code(15).as_deref()),
            (Some("FileError"), Some("PathOutside"), Some("FileError"))
        );
        assert!(message(3).starts_with("EACCES: ") && message(15).starts_with("EISDIR: "));
        let opened = (0..14).filter(|number| *number != 3);
        for (file, number) in files.into_iter().zip(opened) {
            assert!(results[number].is_empty());
            let mut held = String::new();
            File::from(std::os::fd::OwnedFd::from(file)).read_to_string(&mut held).expect("read");
            assert_eq!(held, number.to_string());
        }
        for (paths, options) in [
            (vec![path(0).into_bytes(); 17], Options::new()),
            (vec![path(0).into_bytes()], flags(&["write", "keep"])),
        ] {
            let refused: Result<Many, _> = client.call("Files.OpenMany", &("ada", paths, options)).await;
            assert_eq!(refused.expect_err("refused").code(), "InvalidArgument");
        }
    });
}

#[test]
fn what_is_refused_has_its_code() {
    let _turn = turn();
    let user = application("refused");
    fs::write("/data/bus/secret", "secret").expect("a file");
    fs::set_permissions("/data/bus/secret", Permissions::from_mode(0o600)).expect("a mode");
    on_bus(&user, async |client: Client| {
        for (path, options, code) in [
            ("/data/bus/secret", Options::new(), "FileError"),
            ("/etc/passwd", Options::new(), "PathOutside"),
            ("/data/bus/../../etc/passwd", Options::new(), "PathOutside"),
            ("relative", Options::new(), "PathOutside"),
            ("/data/bus", Options::new(), "FileError"),
            ("/data/bus/new", flags(&["create"]), "InvalidArgument"),
            ("/data/bus/new", flags(&["colour"]), "InvalidArgument"),
            ("/data/bus/new", options(&[("project", "ada/none")]), "NotFound"),
        ] {
            let refused = open(&client, path, options).await.expect_err("refused");
            assert_eq!(refused.code(), code, "{path}");
        }
        let other: Result<Opened, _> =
            client.call("Files.Open", &("nobody", b"/data/bus/secret".to_vec(), Options::new())).await;
        assert_eq!(other.expect_err("no such account").code(), "NotFound");
    });
    // Who speaks for no application, and who speaks for one that has to bring a session.
    for (caller, code) in [("carol", "NotAuthorized"), ("otherportal", "SessionRequired")] {
        let refused = on_bus(caller, async |client: Client| look(&client, "/data/bus").await);
        assert_eq!(refused.expect_err("refused").code(), code, "{caller}");
    }
}

#[test]
fn a_role_without_the_permission_touches_no_file() {
    let _turn = turn();
    let user = application("viewers");
    on_bus(&user, async |client: Client| {
        client.call::<_, ()>("Accounts.SetRole", &("ada", "viewer", Options::new())).await.expect("a viewer");
        assert_eq!(look(&client, "/data/bus").await.expect_err("refused").code(), "PermissionMissing");
    });
}

#[test]
fn a_descriptor_opened_for_reading_stays_so() {
    let _turn = turn();
    let user = application("readers");
    let path = "/data/bus/for-reading";
    fs::write(path, "text").expect("a file");
    let alice = ids("alice");
    std::os::unix::fs::chown(path, Some(alice.uid), Some(alice.gid)).expect("its owner");
    fs::set_permissions(path, Permissions::from_mode(0o640)).expect("a mode");
    let reopen = |file: &File| {
        let link = format!("/proc/self/fd/{}", file.as_raw_fd());
        OpenOptions::new().write(true).open(link).err().map(|error| error.kind())
    };
    on_bus(&user, async |client: Client| {
        let (mut file, _) = open(&client, path, Options::new()).await.expect("a file");
        assert!(file.write_all(b"x").is_err());
        assert!(file.set_len(0).is_err());
        assert_eq!(reopen(&file), Some(std::io::ErrorKind::PermissionDenied));
        // Nor can it be read anew by whoever was given one for writing.
        let (file, _) = open(&client, path, flags(&["write"])).await.expect("a file");
        let link = format!("/proc/self/fd/{}", file.as_raw_fd());
        assert!(File::open(link).is_err());
        assert!(file.set_permissions(Permissions::from_mode(0o666)).is_err());
    });
    // What the docs warn of: a file that everybody may write is one that everybody who holds it may write.
    fs::set_permissions(path, Permissions::from_mode(0o666)).expect("a mode");
    on_bus(&user, async |client: Client| {
        let (file, _) = open(&client, path, Options::new()).await.expect("a file");
        assert_eq!(reopen(&file), None);
    });
}

/// The agents that run as this user.
fn agents_of(user: &str) -> Vec<i32> {
    let uid = ids(user).uid;
    let is_his = |pid: &i32| {
        fs::metadata(format!("/proc/{pid}/status")).is_ok()
            && fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| {
                status.lines().any(|line| {
                    line.starts_with("Uid:") && line.split_ascii_whitespace().nth(1) == Some(&uid.to_string())
                })
            })
    };
    children_of(launcher_pid()).into_iter().filter(is_his).collect()
}

#[test]
fn an_agent_that_its_owner_stops_or_kills_costs_a_clear_error_in_time() {
    let _turn = turn();
    root();
    add_service_user("stoppeduser");
    install_application("stopped", &policy("stopped", "read-write"));
    // Of somebody whose agents are nobody else's in these tests.
    wait_until("the application is known", || {
        on_bus("stoppeduser", async |client: Client| {
            client.call::<_, ()>("Accounts.Create", &("ada", Options::new())).await.is_ok()
        })
    });
    grant_in("stopped", "ada", "carol");
    on_bus("stoppeduser", async |client: Client| {
        let _: (String, String) =
            client.call("Links.Request", &("ada", "carol", Options::new())).await.expect("a link");
    });
    let call = |seconds: u32| -> Result<Dictionary, Failed> {
        let deadline: Options = [("deadline_seconds", Variant::from(seconds))].into();
        on_bus("stoppeduser", async |client: Client| {
            client.call("Files.Stat", &("ada", b"/data/bus".to_vec(), deadline)).await
        })
    };
    let signal = |agent: i32, signal: &str| {
        assert_eq!(as_user("carol", &["kill", signal, &agent.to_string()]).status, 0);
    };
    let has_gone = |agent: i32| {
        wait_until("the agent has ended", || !agents_of("carol").contains(&agent));
    };
    call(20).expect("an agent");
    for round in 0..3 {
        let agent = agents_of("carol").pop().expect("an agent");
        signal(agent, "-STOP");
        assert_eq!(call(1).expect_err("stopped").code(), "FileAgentLost", "round {round}");
        // The next call has another one; the stopped one ends when it goes on.
        call(20).expect("another agent");
        signal(agent, "-CONT");
        has_gone(agent);
    }
    // Killed while it is idle: nothing was asked of it, and another one answers.
    let agent = agents_of("carol").pop().expect("an agent");
    signal(agent, "-KILL");
    has_gone(agent);
    call(20).expect("another agent");
    // Killed while it is to answer.
    let agent = agents_of("carol").pop().expect("an agent");
    signal(agent, "-STOP");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(500));
            signal(agent, "-KILL");
        });
        assert_eq!(call(120).expect_err("killed").code(), "FileAgentLost");
    });
    call(20).expect("another agent");
    // Her other processes cannot look into it, nor can it become anything else.
    let agent = agents_of("carol").pop().expect("an agent");
    let seen = as_user("carol", &["cat", &format!("/proc/{agent}/environ")]);
    assert_ne!(seen.status, 0, "{}", seen.stdout);
    let status = fs::read_to_string(format!("/proc/{agent}/status")).expect("its status");
    for (name, expected) in
        [("NoNewPrivs", "1"), ("CapEff", "0000000000000000"), ("CapPrm", "0000000000000000")]
    {
        let line = status.lines().find_map(|line| line.strip_prefix(&format!("{name}:"))).expect("a line");
        assert_eq!(line.trim(), expected, "{name}");
    }
}

#[test]
fn taking_consent_back_ends_the_agent_before_its_next_call() {
    let _turn = turn();
    application("revoked");
    let agent = FileAgent::start(&files_of("revoked", "ada", "alice")).expect("an agent");
    assert!(matches!(agent.call(&stat("/data/bus")), Ended::Answer(FileReply::Stat(_))));
    let answers = Fake::daemon().ask(&withdrawal("revoked", "ada", "alice", false), &[]);
    assert!(matches!(answers.replies[..], [LauncherReply::Withdrawn(_)]), "{answers:?}");
    assert_eq!(agent.call(&stat("/data/bus")), Ended::Stale(Code::NoConsent));
    assert_eq!(agent.call(&stat("/data/bus")), Ended::Gone);
    let refused = FileAgent::start(&files_of("revoked", "ada", "alice")).expect_err("no consent");
    assert_eq!(refused.code, Code::NoConsent);
    let refused = on_bus("revokeduser", async |client: Client| look(&client, "/data/bus").await);
    assert_eq!(refused.expect_err("revoked").code(), "NoConsent");
}

#[test]
fn changing_the_policy_ends_the_agent_before_its_next_call() {
    let _turn = turn();
    let user = application("changed");
    let begin = || FileAgent::start(&files_of("changed", "ada", "alice"));
    let works = |agent: &FileAgent| {
        assert!(matches!(agent.call(&stat("/data/bus")), Ended::Answer(FileReply::Stat(_))));
    };
    let file = "/etc/deputy/applications.d/changed.toml";
    // Replaced; written in place; taken away; another file in the folder above.
    let changes: [(&str, &dyn Fn()); 4] = [
        ("replaced", &|| drop(install_application("changed", &policy("changed", "read-only")))),
        ("written", &|| fs::write(file, policy("changed", "read-write")).expect("written")),
        ("settings", &|| fs::write("/etc/deputy/deputy.toml", "").expect("written")),
        ("moved", &|| fs::rename(file, "/etc/deputy/moved").expect("moved")),
    ];
    for (what, change) in changes {
        let agent = begin().expect("an agent");
        works(&agent);
        change();
        assert_eq!(agent.call(&stat("/data/bus")), Ended::Stale(Code::ApplicationInvalid), "{what}");
        assert_eq!(agent.call(&stat("/data/bus")), Ended::Gone, "{what}");
    }
    assert_eq!(begin().expect_err("no such application").code, Code::ApplicationInvalid);
    fs::rename("/etc/deputy/moved", file).expect("moved");
    // Over D-Bus another agent decides anew, and the caller sees what holds now.
    let ask = |flag: &[&'static str]| {
        on_bus(&user, async |client: Client| open(&client, "/data/bus/by-policy", flags(flag)).await)
    };
    wait_until("the application is known again", || ask(&["write", "create"]).is_ok());
    install_application("changed", &policy("changed", "read-only"));
    assert_eq!(ask(&["write"]).expect_err("refused").code(), "RootReadOnly");
    ask(&["read"]).expect("it can be read");
    run("rm", &["-f", "/etc/deputy/deputy.toml"]);
}
