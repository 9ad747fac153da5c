//! Trees that go to another OS account: who may ask, what is refused, what is left, what is done, and put back.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;

use deputy_core::Code;
use deputy_core::message::{RebindReply, RebindRequest};
use deputy_core::rebind::{ProblemKind, RebindEnd, RebindState};
use deputy_suite::acting::{Ids, ids};
use deputy_suite::line::Line;
use deputy_suite::machine::{add_person, change_person, launcher_log};
use deputy_suite::people::{as_user, command_as, deputyctl, ok, refused};
use deputy_suite::rebind::{RECORDS, Wanted, alone, apply, ask_as, listing, owner, shell, state, undo};

/// A tree of alice's with a bit of everything.
fn tree(name: &str) -> String {
    let top = format!("/srv/{name}");
    shell(&format!(
        "rm -rf {top}; mkdir -p {top}/inner/deep; cd {top}; echo 1 >file; echo 2 >inner/file; echo 3 >inner/deep/file
         ln -s /etc/passwd link; ln -s nowhere inner/broken; mkfifo inner/pipe
         chown -hR alice:alice {top}; chmod 750 {top}; chmod 2770 inner; chgrp lab1 inner/file"
    ));
    top
}

fn plan_of(top: &str) -> Wanted<'_> {
    Wanted::new(top, &["alice"], "carol")
}

#[test]
fn only_root_at_the_launcher_may_ask() {
    let _alone = alone();
    let top = tree("asked-by-others");
    let (plan, _) = plan_of(&top).plan();
    let before = listing(&top);
    let id = plan.id;
    let requests = || {
        vec![
            RebindRequest::Plan {
                path: top.clone().into_bytes(),
                from: vec!["alice".parse().unwrap()],
                to: "carol".parse().unwrap(),
                groups: vec![],
                leave_linked: false,
            },
            RebindRequest::Apply { id: id.clone(), while_running: true },
            RebindRequest::Undo { id: id.clone(), while_running: true },
            RebindRequest::List,
            RebindRequest::Show { id: id.clone() },
            RebindRequest::Forget { id: id.clone() },
        ]
    };
    for request in requests() {
        // A deputyd that was taken over is let in, and then refused.
        let refused = ask_as("deputy", request.clone()).refused();
        assert_eq!(refused.code, Code::PeerNotAllowed, "{request:?}");
    }
    // Others are not let in.
    for user in ["alice", "portal"] {
        assert!(Line::to_launcher(ids(user)).is_err(), "{user}");
    }
    assert_eq!(listing(&top), before);
    assert_eq!(state(&id), RebindState::Planned);
    for arguments in [&["rebind", "list"][..], &["rebind", "apply", id.as_str(), "--yes"]] {
        assert_eq!(refused(&deputyctl("alice", arguments)), "NotAuthorized");
    }
    // Nothing of it is on the bus.
    let bus = as_user("root", &["busctl", "introspect", "org.deputy.Deputy1", "/org/deputy/Deputy1"]);
    assert!(bus.status == 0 && !bus.stdout.to_lowercase().contains("rebind"), "{}{}", bus.stdout, bus.stderr);
}

#[test]
fn who_may_not_take_part_does_not() {
    let _alone = alone();
    let top = tree("parties");
    let before = listing(&top);
    let code = |from: &[&str], to: &str, groups: &[(&str, &str)]| {
        Wanted { groups, ..Wanted::new(&top, from, to) }.ask().refused().code
    };
    let from = &["alice"];
    // Nobody is given files who is no target.
    for (to, expected) in [
        ("root", Code::OsAccountReserved),
        ("nobody", Code::OsAccountReserved),
        ("daemon", Code::OsAccountOutOfRange),
        ("portal", Code::OsAccountOutOfRange),
        ("dave", Code::OsAccountPrivileged),
        ("no-such-user", Code::OsAccountUnknown),
    ] {
        assert_eq!(code(from, to, &[]), expected, "{to}");
    }
    // Nobody loses files whose files are the machine's or Deputy's.
    for from in ["root", "0", "65534", "4294967295", "deputy"] {
        assert_eq!(code(&[from], "carol", &[]), Code::OsAccountReserved, "{from}");
    }
    for from in [&["carol"][..], &["alice", "alice"], &[]] {
        assert_eq!(code(from, "carol", &[]), Code::InvalidArgument, "{from:?}");
    }
    assert_eq!(code(&["no-such-user"], "carol", &[]), Code::OsAccountUnknown);
    for group in ["root", "0", "sudo", "shadow", "deputy", "portal"] {
        assert_eq!(code(from, "carol", &[("alice", group)]), Code::OsAccountPrivileged, "{group}");
    }
    assert_eq!(code(from, "carol", &[("alice", "no-such-group")]), Code::InvalidArgument);
    // Where it is: no folder, no way, or a way that alice made.
    shell(&format!(
        "ln -s {top} /srv/parties-link; chown -h alice /srv/parties-link; mkdir -p /srv/parties-of-alice; \
                    chown alice /srv/parties-of-alice; ln -sf {top} /srv/parties-of-alice/link"
    ));
    for (path, expected) in [
        ("srv", Code::InvalidArgument),
        ("/", Code::InvalidArgument),
        ("/srv/../srv", Code::InvalidArgument),
        ("/srv/parties/file", Code::FileError),
        ("/srv/parties/not-there", Code::FileError),
        ("/srv/parties-link", Code::FileError),
        ("/srv/parties-of-alice/link/inner", Code::FileError),
    ] {
        assert_eq!(Wanted::new(path, from, "carol").ask().refused().code, expected, "{path}");
    }
    let unknown = RebindRequest::Apply { id: "abcdefgh".parse().unwrap(), while_running: true };
    assert_eq!(ask_as("root", unknown).refused().code, Code::NotFound);
    assert_eq!(listing(&top), before);
}

#[test]
fn names_outside_of_the_tree_keep_a_file_from_being_moved() {
    let _alone = alone();
    let top = tree("linked");
    shell(&format!(
        "mkdir -p /srv/outside; echo x >/srv/outside/file; chown alice /srv/outside/file
         ln -f /srv/outside/file {top}/inner/stolen
         ln {top}/file {top}/inner/second; ln {top}/file {top}/inner/deep/third"
    ));
    let before = listing(&top);
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let heard = plan_of(&top).ask();
    assert_eq!(heard.told(), [(ProblemKind::Linked, "inner/stolen".into())]);
    assert!(heard.problems[0].in_the_way);
    assert_eq!(heard.refused().code, Code::RebindBlocked);
    assert_eq!(listing(&top), before);

    let (plan, heard) = Wanted { leave_linked: true, ..plan_of(&top) }.plan();
    assert_eq!(heard.told(), [(ProblemKind::Linked, "inner/stolen".into())]);
    apply(&plan.id).ended();
    let (alice, carol) = (ids("alice"), ids("carol"));
    assert_eq!(owner("/srv/outside/file"), (alice.uid, 0), "what is outside stays");
    for name in ["file", "inner/second", "inner/deep/third", "inner", "inner/broken"] {
        assert_eq!(owner(format!("{top}/{name}")).0, carol.uid, "{name}");
    }
    // A name that is there only since the plan: it is left too.
    let (plan, _) = Wanted { leave_linked: true, ..Wanted::new(&top, &["carol"], "alice") }.plan();
    shell(&format!("ln {top}/inner/deep/file /srv/outside/later"));
    let heard = apply(&plan.id);
    assert_eq!(heard.told(), [(ProblemKind::Linked, "inner/deep/file".into())]);
    assert_eq!(owner(format!("{top}/inner/deep/file")).0, carol.uid);
}

#[test]
fn links_lead_nowhere_and_mounts_are_not_entered() {
    let _alone = alone();
    let top = tree("mounts");
    shell(&format!(
        "mkdir -p /srv/elsewhere/folder; echo x >/srv/elsewhere/file; chown -R alice /srv/elsewhere
         mkdir {top}/mounted {top}/bound; touch {top}/bound-file; chown alice {top}/mounted {top}/bound {top}/bound-file
         ln -s /srv/elsewhere {top}/to-folder; ln -s ../elsewhere/file {top}/to-file; chown -h alice {top}/to-*
         mount -t tmpfs tmpfs {top}/mounted; touch {top}/mounted/x; chown alice {top}/mounted/x
         mount --bind /srv/elsewhere {top}/bound; mount --bind /srv/elsewhere/file {top}/bound-file"
    ));
    let elsewhere = listing("/srv/elsewhere");
    let (plan, heard) = plan_of(&top).plan();
    let mounts = ["bound", "bound-file", "mounted"].map(|name| (ProblemKind::Mount, name.to_owned()));
    assert_eq!(heard.told(), mounts);
    assert!(heard.problems.iter().all(|problem| !problem.in_the_way));
    // One that comes between plan and apply is not entered either.
    shell(&format!("mount --bind /srv/elsewhere {top}/inner/deep"));
    let told = apply(&plan.id).told();
    shell(&format!("umount {top}/inner/deep {top}/bound-file {top}/bound"));
    let kinds: Vec<_> = told.iter().map(|(kind, path)| (*kind, path.as_str())).collect();
    assert_eq!(kinds, [(ProblemKind::Mount, "inner/deep"), (ProblemKind::Gone, "inner/deep/file")]);
    assert_eq!(listing("/srv/elsewhere"), elsewhere);
    assert_eq!(owner(format!("{top}/mounted/x")).0, ids("alice").uid);
    shell(&format!("umount {top}/mounted"));
    let (alice, carol) = (ids("alice").uid, ids("carol").uid);
    for (name, uid) in [("to-folder", carol), ("to-file", carol), ("mounted", alice), ("link", carol)] {
        assert_eq!(owner(format!("{top}/{name}")).0, uid, "{name}");
    }
    assert_eq!(owner("/etc/passwd").0, 0);
}

#[test]
fn programs_lose_their_owners_rights_and_do_not_get_them_back() {
    let _alone = alone();
    let top = tree("set-id");
    shell(&format!(
        "cd {top}; for name in suid sgid both locked capable; do cp /bin/true $name; chown alice:lab1 $name; done
         chmod 4755 suid; chmod 2755 sgid; chmod 6755 both; chmod 2644 locked
         mkdir -m 2775 shared; chown alice:lab1 shared; chmod 2775 shared; mkdir -m 1777 sticky; chown alice sticky"
    ));
    // Version 2 of cap_net_raw, permitted and effective.
    let mut capability = 0x0200_0001_u32.to_le_bytes().to_vec();
    capability.extend([0x2000_u32, 0, 0, 0].iter().flat_map(|word| word.to_le_bytes()));
    let capable = format!("{top}/capable");
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(&capable, "security.capability", &capability, flags).unwrap();
    let (plan, heard) = plan_of(&top).plan();
    let mut expected = vec![(ProblemKind::Capability, "capable".to_owned())];
    expected.extend(["both", "locked", "sgid", "suid"].map(|name| (ProblemKind::SetId, name.to_owned())));
    expected.sort_by(|a, b| a.1.cmp(&b.1));
    assert_eq!(heard.told(), expected);
    assert_eq!(apply(&plan.id).ended().left, 0);
    let mode = |name: &str| fs::metadata(format!("{top}/{name}")).unwrap().mode() & 0o7777;
    let programs = [("suid", 0o755), ("sgid", 0o755), ("both", 0o755), ("locked", 0o644)];
    let folders = [("shared", 0o2775), ("sticky", 0o1777), ("inner", 0o2770)];
    for (name, expected) in programs.into_iter().chain(folders) {
        assert_eq!(mode(name), expected, "{name} after apply");
    }
    let none = rustix::fs::getxattr(&capable, "security.capability", &mut [0u8; 64]);
    assert_eq!(none, Err(rustix::io::Errno::NODATA));
    // Whoever had the file meanwhile may have put a program of his own into it, and may give it such a bit himself.
    shell(&format!("chmod 6755 {top}/both"));
    assert_eq!(undo(&plan.id).ended().left, 0);
    for (name, expected) in programs.into_iter().chain(folders) {
        assert_eq!(mode(name), expected, "{name} after undo");
    }
    assert_eq!(owner(&capable), (ids("alice").uid, owner_of_group("lab1")));
}

#[test]
fn a_mixed_tree_goes_over_with_groups_and_lists_and_comes_back_exactly() {
    let _alone = alone();
    for person in ["mix1", "mix2", "mixto"] {
        add_person(person, "pw", &["lab1"]);
    }
    shell("groupadd -f mixold; groupadd -f mixnew");
    let top = "/srv/mixed";
    shell(&format!(
        "mkdir -p {top}/a/b {top}/portal {top}/bobs; cd {top}; touch a/one a/b/two portal/three bobs/four bobs/five
         chown -R mix1:mix1 a; chown mix2:mix2 a/b/two; chown -R portal:portal portal; chown mix1:mixold a/one
         chown -R bob:bob bobs; chown mix2:lab1 bobs/five; chown root:root {top}; chmod 755 {top}
         ln -s x a/link; chown -h mix2:mix1 a/link; chmod 2775 a
         setfacl -m u:mix1:rwx,u:mix2:r-x,u:bob:r--,g:mixold:rwx,g:lab1:r-x a
         setfacl -d -m u:mix1:rwx,u:mixto:r--,g:mix1:r-x a; setfacl -m u:mix1:r bobs/four
         setfacl -m u:portal:rw a/one"
    ));
    let odd: [&[u8]; 5] = [b"new\nline", b"\xff\xfe", b" ", "ü\u{202e}".as_bytes(), &[b'n'; 255]];
    let mix1 = ids("mix1");
    for name in odd {
        let path = Path::new(top).join("a").join(OsStr::from_bytes(name));
        fs::write(&path, "x").unwrap();
        chown(&path, Some(mix1.uid), Some(mix1.gid)).unwrap();
    }
    let before = listing(top);
    let wanted =
        Wanted { groups: &[("mixold", "mixnew")], ..Wanted::new(top, &["mix1", "mix2", "portal"], "mixto") };
    let (plan, heard) = wanted.plan();
    assert_eq!(heard.told(), []);
    let Ids { uid: to, gid } = ids("mixto");
    let of = |user: &str| plan.owners.iter().find(|share| share.id == ids(user).uid).map(|share| share.files);
    assert_eq!((of("mix1"), of("mix2"), of("portal"), of("bob")), (Some(8), Some(3), Some(2), Some(2)));
    assert_eq!(plan.moved.files, 13);
    assert_eq!(listing(top), before, "a plan changes nothing");
    let told = apply(&plan.id);
    assert_eq!(told.ended(), RebindEnd { changed: 13, already: 0, left: 0 });
    let mixnew = owner_of_group("mixnew");
    for (name, uid, gid) in [
        ("a", to, gid),
        ("a/one", to, mixnew),
        ("a/b/two", to, gid),
        ("a/link", to, gid),
        ("portal", to, gid),
        ("portal/three", to, gid),
        ("bobs", ids("bob").uid, ids("bob").gid),
        ("bobs/four", ids("bob").uid, ids("bob").gid),
        ("bobs/five", to, owner_of_group("lab1")),
    ] {
        assert_eq!(owner(format!("{top}/{name}")), (uid, gid), "{name}");
    }
    for name in odd {
        assert_eq!(owner(Path::new(top).join("a").join(OsStr::from_bytes(name))), (to, gid));
    }
    let lists = as_user("root", &["getfacl", "-n", "-c", "--absolute-names", &format!("{top}/a")]).stdout;
    let lab1 = owner_of_group("lab1");
    for line in [
        format!("user:{to}:rwx"),
        format!("user:{}:r--", ids("bob").uid),
        format!("group:{mixnew}:rwx"),
        format!("group:{lab1}:r-x"),
        format!("default:user:{to}:rwx"),
        format!("default:group:{gid}:r-x"),
    ] {
        assert!(lists.lines().any(|found| found == line), "{line}: {lists}");
    }
    assert!(!lists.contains(&format!("user:{}:", mix1.uid)), "{lists}");
    assert_eq!(fs::metadata(format!("{top}/a")).unwrap().mode() & 0o7777, 0o2775);
    // Bob's file is not the plan's, its list neither.
    let bobs = as_user("root", &["getfacl", "-n", "--absolute-names", &format!("{top}/bobs/four")]).stdout;
    assert!(bobs.contains(&format!("user:{}:r--", mix1.uid)), "{bobs}");
    // It is done once; what follows says what was done.
    assert_eq!(apply(&plan.id).ended(), told.ended());
    assert_eq!(undo(&plan.id).ended(), RebindEnd { changed: 13, already: 0, left: 0 });
    assert_eq!(listing(top), before);
    assert_eq!(state(&plan.id), RebindState::Undone);
    assert_eq!(apply(&plan.id).refused().code, Code::Conflict);
    let log = launcher_log();
    for event in ["rebind_planned", "rebind_begun", "rebind_ended"] {
        assert!(log.lines().any(|line| line.contains(event) && line.contains(plan.id.as_str())), "{event}");
    }
}

fn owner_of_group(name: &str) -> u32 {
    let line = as_user("root", &["getent", "group", name]).stdout;
    line.split(':').nth(2).and_then(|gid| gid.parse().ok()).unwrap_or_else(|| panic!("{name}: {line}"))
}

#[test]
fn an_account_that_is_gone_is_named_by_its_number_and_nobody_else_gets_its_files_back() {
    let _alone = alone();
    let top = tree("gone");
    shell(&format!("chown -hR 54321:54321 {top}"));
    let before = listing(&top);
    let wanted = Wanted { groups: &[("54321", "lab1")], ..Wanted::new(&top, &["54321"], "carol") };
    let (plan, _) = wanted.plan();
    apply(&plan.id).ended();
    assert_eq!(owner(format!("{top}/inner/deep/file")), (ids("carol").uid, owner_of_group("lab1")));
    // By now the number is a person's.
    add_person("newcomer", "pw", &["lab1"]);
    let old = ids("newcomer").uid.to_string();
    change_person("usermod", &["-u", "54321", "newcomer"]);
    assert_eq!(undo(&plan.id).refused().code, Code::LinkStale);
    change_person("usermod", &["-u", &old, "newcomer"]);
    undo(&plan.id).ended();
    assert_eq!(listing(&top), before);
}

#[test]
fn what_changed_since_the_plan_is_left_and_told() {
    let _alone = alone();
    let top = tree("changed");
    shell(&format!(
        "cd {top}; mkdir kept; for n in replaced removed bobs listed group moved type; do echo x >kept/$n; done
         mkdir kept/folder kept/swapped; touch kept/folder/x kept/swapped/y; chown -R alice:alice kept"
    ));
    let (plan, _) = plan_of(&top).plan();
    shell(&format!(
        "cd {top}/kept; cp -p replaced other; mv other replaced; rm removed; chown bob bobs; setfacl -m u:alice:r listed
         chgrp sudo group; mv moved elsewhere; rm type; mkdir type; chown alice type; mv folder away
         mkdir new; mv swapped old; mv new swapped; chown alice swapped; touch swapped/y; chown alice swapped/y
         touch later; chown alice later"
    ));
    let heard = apply(&plan.id);
    let expected = [
        (ProblemKind::Changed, "kept/bobs"),
        (ProblemKind::Gone, "kept/folder"),
        (ProblemKind::Gone, "kept/folder/x"),
        (ProblemKind::Changed, "kept/group"),
        (ProblemKind::Changed, "kept/listed"),
        (ProblemKind::Gone, "kept/moved"),
        (ProblemKind::Gone, "kept/removed"),
        (ProblemKind::Changed, "kept/replaced"),
        (ProblemKind::Changed, "kept/swapped"),
        (ProblemKind::Gone, "kept/swapped/y"),
        (ProblemKind::Changed, "kept/type"),
    ];
    assert_eq!(heard.told(), expected.map(|(kind, path)| (kind, path.to_owned())));
    assert_eq!(heard.ended().left, 11);
    let alice = ids("alice").uid;
    let there = [
        "replaced",
        "listed",
        "group",
        "elsewhere",
        "type",
        "away",
        "swapped",
        "swapped/y",
        "old/y",
        "later",
    ];
    for name in there {
        assert_eq!(owner(format!("{top}/kept/{name}")).0, alice, "{name}");
    }
    assert_eq!(owner(format!("{top}/kept/bobs")).0, ids("bob").uid);
    // It is remembered.
    let shown = ask_as("root", RebindRequest::Show { id: plan.id.clone() });
    assert_eq!(shown.told(), heard.told());
    // Back go what was moved and is the destination's still.
    shell(&format!("chown bob {top}/file"));
    let told = undo(&plan.id).told();
    assert!(told.contains(&(ProblemKind::Changed, "file".into())), "{told:?}");
    assert_eq!(owner(format!("{top}/file")).0, ids("bob").uid);
    assert_eq!(owner(format!("{top}/inner/deep/file")).0, alice);
}

#[test]
fn another_top_an_old_plan_and_a_destination_that_changed_are_refused() {
    let _alone = alone();
    add_person("fleeting", "pw", &["lab1"]);
    let top = tree("another");
    let (plan, _) = Wanted::new(&top, &["alice"], "fleeting").plan();
    let before = listing(&top);
    shell(&format!("mv {top} {top}.old; mkdir {top}; chown alice:alice {top}; chmod 750 {top}"));
    assert_eq!(apply(&plan.id).refused().code, Code::Conflict);
    shell(&format!("rmdir {top}; mv {top}.old {top}; chmod 755 {top}"));
    assert_eq!(apply(&plan.id).refused().code, Code::Conflict);
    shell(&format!("chmod 750 {top}"));
    let old = ids("fleeting").uid.to_string();
    change_person("usermod", &["-u", "54400", "fleeting"]);
    assert_eq!(apply(&plan.id).refused().code, Code::LinkStale);
    change_person("usermod", &["-u", &old, "fleeting"]);
    change_person("usermod", &["-a", "-G", "sudo", "fleeting"]);
    assert_eq!(apply(&plan.id).refused().code, Code::OsAccountPrivileged);
    change_person("gpasswd", &["-d", "fleeting", "sudo"]);
    assert_eq!(undo(&plan.id).refused().code, Code::Conflict, "nothing was done yet");
    let file = format!("{RECORDS}/{}/plan", plan.id);
    let text = fs::read_to_string(&file).unwrap();
    let made = format!("made = {}", plan.made);
    assert!(text.contains(&made));
    fs::write(&file, text.replace(&made, "made = 5")).unwrap();
    assert_eq!(apply(&plan.id).refused().code, Code::Conflict);
    fs::write(&file, &text).unwrap();
    assert_eq!(listing(&top), before);
    assert_eq!(apply(&plan.id).ended().left, 0);
}

#[test]
fn processes_of_the_accounts_are_in_the_way_unless_told_otherwise() {
    let _alone = alone();
    add_person("busy", "pw", &["lab1"]);
    let top = tree("running");
    for (runs, from, to) in [("busy", "busy", "carol"), ("carol", "busy", "carol")] {
        shell(&format!("chown -hR {from}:{from} {top}"));
        let (plan, _) = Wanted::new(&top, &[from], to).plan();
        let mut process = command_as(runs, &["sleep", "1000"]).spawn().unwrap();
        deputy_suite::machine::wait_until("it runs as the user", || {
            as_user("root", &["pgrep", "-u", runs, "sleep"]).status == 0
        });
        let refused = apply(&plan.id).refused();
        assert_eq!(refused.code, Code::RebindBlocked);
        assert!(refused.message.contains("(sleep)"), "{}", refused.message);
        assert_eq!(state(&plan.id), RebindState::Planned);
        let request = RebindRequest::Apply { id: plan.id.clone(), while_running: true };
        assert_eq!(ask_as("root", request).ended().left, 0);
        shell(&format!("pkill -u {runs} sleep"));
        process.wait().unwrap();
        undo(&plan.id).ended();
    }
}

#[test]
fn a_service_accounts_tree_goes_to_a_person_and_the_rest_of_the_service_stays() {
    let _alone = alone();
    let top = "/srv/portal-data";
    shell(&format!(
        "mkdir -p {top}/projects/7 {top}/projects/8 {top}/etc; cd {top}; touch projects/7/data projects/8/data etc/key
         chown -R portal:portal {top}"
    ));
    let rest = || (listing(&format!("{top}/projects/8")), listing(&format!("{top}/etc")));
    let before = rest();
    let one = format!("{top}/projects/7");
    let planned = deputyctl(
        "root",
        &["--json", "rebind", "plan", &one, "--from", "portal", "--to", "alice", "--group", "portal=lab1"],
    );
    let plan: serde_json::Value = serde_json::from_str(&ok(&planned)).unwrap();
    assert_eq!((&plan["files"], &plan["to"]), (&2.into(), &"alice".into()));
    let id = plan["id"].as_str().unwrap();
    let applied = ok(&deputyctl("root", &["--yes", "--json", "rebind", "apply", id]));
    let applied: serde_json::Value = serde_json::from_str(&applied).unwrap();
    assert_eq!(
        (&applied["moved"], &applied["left"], &applied["problems"]),
        (&2.into(), &0.into(), &serde_json::json!([]))
    );
    let expected = (ids("alice").uid, owner_of_group("lab1"));
    assert_eq!((owner(&one), owner(format!("{one}/data"))), (expected, expected));
    assert_eq!(rest(), before);
    assert_eq!(owner(top).0, ids("portal").uid);
    let listed = ok(&deputyctl("root", &["--json", "rebind", "list"]));
    assert!(listed.contains(id) && listed.contains("applied"), "{listed}");
    ok(&deputyctl("root", &["rebind", "show", id]));
    ok(&deputyctl("root", &["--yes", "rebind", "forget", id]));
    assert_eq!(refused(&deputyctl("root", &["rebind", "show", id])), "NotFound");
    assert!(!Path::new(RECORDS).join(id).exists());
}

#[test]
fn a_very_deep_tree_is_gone_through_to_its_end() {
    let _alone = alone();
    let depth = if std::env::var_os("DEPUTY_SOAK").is_some() { 10_000 } else { 1000 };
    let top = "/srv/deep-rebind";
    // By one folder after the other: no path is as long as this.
    let python = format!(
        "import os\nos.makedirs('{top}', exist_ok=True)\nos.chdir('{top}')\nfor i in range({depth}):\n os.mkdir('d')\n \
         os.chdir('d')\nopen('end','w')\n"
    );
    shell(&format!("python3 -c \"{python}\"; chown -R alice:alice {top}"));
    let count = |user: &str| as_user("root", &["find", top, "-user", user, "-printf", "."]).stdout.len();
    assert_eq!(count("alice"), depth + 2);
    let (plan, _) = Wanted::new(top, &["alice"], "carol").plan();
    assert_eq!(plan.moved.files, depth as u64 + 2);
    assert_eq!(apply(&plan.id).ended().left, 0);
    assert_eq!((count("alice"), count("carol")), (0, depth + 2));
    assert_eq!(undo(&plan.id).ended().left, 0);
    assert_eq!((count("alice"), count("carol")), (depth + 2, 0));
    shell(&format!("rm -rf {top}"));
}

#[test]
fn records_that_cannot_be_written_are_no_plan() {
    let _alone = alone();
    let top = tree("full");
    shell(&format!("cd {top}; for n in $(seq 3000); do ln -s x $n; done; chown -h alice {top}/*"));
    let before = listing(&top);
    shell(&format!("mount -t tmpfs -o size=64k,mode=700 tmpfs {RECORDS}"));
    let refused = plan_of(&top).ask().refused();
    let left = fs::read_dir(RECORDS).unwrap().count();
    shell(&format!("umount {RECORDS}"));
    assert_eq!((refused.code, left), (Code::Disk, 0));
    assert_eq!(listing(&top), before);
    assert_eq!(fs::metadata(RECORDS).unwrap().permissions().mode() & 0o7777, 0o700);
    // An answer that no plan is there for is no answer.
    assert!(matches!(ask_as("root", RebindRequest::List).last, Ok(RebindReply::Done)));
}
