//! Trees that go to another OS account while somebody works against it, and while the child is killed again and again.
#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use deputy_core::message::{LauncherRequest, RebindReply, RebindRequest, encode};
use deputy_core::rebind::{ProblemKind, RebindState};
use deputy_core::{Code, RebindId};
use deputy_suite::Fake;
use deputy_suite::acting::ids;
use deputy_suite::machine::{add_person, children_of, launcher_pid, signal, wait_until};
use deputy_suite::people::as_user;
use deputy_suite::rebind::{Heard, Wanted, alone, apply, ask_as, heard, listing, owner, shell, state, undo};
use rustix::fs::{AtFlags, RenameFlags, linkat, mkdirat, renameat, renameat_with, symlinkat, unlinkat};
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// For how long it is worked against.
fn seconds() -> Duration {
    Duration::from_secs(if std::env::var_os("DEPUTY_SOAK").is_some() { 120 } else { 8 })
}

const TOP: &str = "/srv/raced";
const VICTIMS: &str = "/srv/victims";

/// Folders in which the group may do everything, whoever owns them; and outside, in a folder of root's, what must stay.
fn raced_tree() {
    shell(&format!(
        "mkdir -p {TOP}/a/sub {TOP}/b {TOP}/c {VICTIMS}/folder; cd {TOP}
         for n in $(seq 40); do echo x >a/sub/$n; echo x >b/$n; echo x >c/$n; done
         for n in $(seq 20); do echo secret >{VICTIMS}/$n; echo secret >{VICTIMS}/folder/$n; done
         chown -R alice:lab1 .; chmod 755 .; chmod 2775 a a/sub b c; ln -s {VICTIMS}/folder a/link; chown -h alice:lab1 a/link
         chown alice:alice {VICTIMS}/? {VICTIMS}/?? {VICTIMS}/folder/*; chmod 755 {VICTIMS} {VICTIMS}/folder"
    ));
}

/// Work of alice's, who goes on to be in the group, with folders that she had open before.
fn racing(stop: &AtomicBool, work: impl Fn(&[OwnedFd; 3], u64)) {
    let folders = ["a", "b", "c"].map(|name| OwnedFd::from(File::open(format!("{TOP}/{name}")).unwrap()));
    let lab1 = owner(format!("{TOP}/b")).1;
    let alice = ids("alice");
    set_thread_groups(&[Gid::from_raw(lab1)]).unwrap();
    let (uid, gid) = (Uid::from_raw(alice.uid), Gid::from_raw(alice.gid));
    set_thread_res_gid(gid, gid, gid).unwrap();
    set_thread_res_uid(uid, uid, uid).unwrap();
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) {
        work(&folders, round);
        round += 1;
    }
}

/// Ends the others' work when it is dropped, also by a test that fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn whoever_swaps_links_and_renames_meanwhile_leads_nothing_outside_over() {
    let _alone = alone();
    raced_tree();
    let victims = listing(VICTIMS).replace(" 2 ", " n ").replace(" 3 ", " n ").replace(" 1 ", " n ");
    let stop = AtomicBool::new(false);
    let linked = AtomicU64::new(0);
    let (mut plans, mut changed, mut told) = (0, 0, 0);
    std::thread::scope(|scope| {
        // A folder and a link to the victims change places.
        scope.spawn(|| {
            racing(&stop, |[a, ..], _| {
                let _ = renameat_with(a, "sub", a, "link", RenameFlags::EXCHANGE);
            });
        });
        // A victim gets a name in the tree, which wanders through it: one name that is to be counted twice.
        scope.spawn(|| {
            racing(&stop, |[a, b, c], round| {
                let from = format!("{VICTIMS}/{}", 1 + round % 20);
                if linkat(rustix::fs::CWD, &from, a, "0", AtFlags::empty()).is_ok() {
                    linked.fetch_add(1, Ordering::Relaxed);
                    for _ in 0..50 {
                        let _ = renameat(a, "0", b, "0").and_then(|()| renameat(b, "0", c, "0"));
                        let _ = renameat(c, "0", a, "0");
                    }
                }
                for folder in [a, b, c] {
                    let _ = unlinkat(folder, "0", AtFlags::empty());
                }
            });
        });
        // Others stay, and each is now in one folder and now in another.
        scope.spawn(|| {
            racing(&stop, |[a, b, c], round| {
                let name = format!("stays-{}", 1 + round % 5);
                let from = format!("{VICTIMS}/folder/{}", 1 + round % 5);
                if round < 5 {
                    linkat(rustix::fs::CWD, &from, a, &name, AtFlags::empty()).unwrap();
                }
                let _ = renameat(a, &name, b, &name);
                let _ = renameat(b, &name, c, &name);
                let _ = renameat(c, &name, a, &name);
            });
        });
        // Files change places with links to victims, names with names, and folders are moved about.
        scope.spawn(|| {
            racing(&stop, |[a, b, c], round| {
                let name = format!("{}", 1 + round % 40);
                let _ = symlinkat(format!("{VICTIMS}/{name}"), b, "new");
                let _ = renameat_with(b, "new", b, &name, RenameFlags::EXCHANGE);
                let _ = renameat_with(b, "new", b, &name, RenameFlags::EXCHANGE);
                let _ = unlinkat(b, "new", AtFlags::empty());
                let _ = renameat_with(b, &name, c, &name, RenameFlags::EXCHANGE);
                let _ = mkdirat(c, "moving", 0o775.into());
                let _ = renameat(c, "moving", a, "moving");
                let _ = renameat(a, "moving", c, "moving");
            });
        });
        let _stop = Stop(&stop);
        let end = Instant::now() + seconds();
        // At least a few rounds, however slow the machine is.
        while Instant::now() < end || plans < 3 {
            let wanted = Wanted { leave_linked: true, ..Wanted::new(TOP, &["alice"], "carol") };
            let planned = wanted.ask();
            match planned.last {
                Ok(RebindReply::Planned(plan)) => {
                    plans += 1;
                    told += planned.problems.len();
                    let id = plan.id;
                    let request = |undo: bool| {
                        let (id, while_running) = (id.clone(), true);
                        if undo {
                            RebindRequest::Undo { id, while_running }
                        } else {
                            RebindRequest::Apply { id, while_running }
                        }
                    };
                    changed += ask_as("root", request(false)).ended().changed;
                    assert_victims_stay();
                    ask_as("root", request(true)).ended();
                    assert_victims_stay();
                    // What was not found again on the way back is alice's again for the next round, as far as chown
                    // finds it.
                    ask_as("root", RebindRequest::Forget { id }).last.unwrap();
                    shell(&format!("chown -hR --from=carol alice {TOP} 2>/dev/null || true"));
                }
                Err(denial) => assert_eq!(denial.code, Code::RebindBlocked, "{denial:?}"),
                other => panic!("{other:?}"),
            }
        }
    });
    assert!(changed > 0 && told > 0 && linked.load(Ordering::Relaxed) > 0, "{changed} {told} {linked:?}");
    let now = listing(VICTIMS).replace(" 2 ", " n ").replace(" 3 ", " n ").replace(" 1 ", " n ");
    assert_eq!(now, victims);
}

/// Every file outside is alice's still.
fn assert_victims_stay() {
    let strange = as_user("root", &["find", VICTIMS, "-type", "f", "!", "-user", "alice"]);
    assert_eq!((strange.status, strange.stdout.as_str()), (0, ""), "{}", strange.stderr);
}

/// A tree of some batches, made the same each time.
fn large_tree(top: &str, owner: &str) {
    shell(&format!(
        "rm -rf {top}; mkdir -p {top}; cd {top}; for d in $(seq 40); do mkdir -p $d/x; (cd $d/x; seq 300 | xargs touch); done
         ln -s a link; chown -hR {owner}:{owner} {top}; chmod 2750 {top}
         for d in $(seq 1 7 40); do setfacl -m u:{owner}:rwx,u:bob:r $d; setfacl -d -m u:{owner}:rwx $d; chmod g+s $d/x; done"
    ));
}

/// Asks, and kills the child after a while; whether it was before it had answered.
fn cut(request: RebindRequest, after: Duration) -> bool {
    let packet = encode(&LauncherRequest::Rebind(request)).unwrap();
    let pending = Fake::as_user("root").start(&packet, &[]);
    std::thread::sleep(after);
    for child in children_of(launcher_pid()) {
        // It may have ended by itself.
        let _ = as_user("root", &["kill", "-KILL", &child.to_string()]);
    }
    pending
        .answers()
        .replies
        .iter()
        .all(|reply| !matches!(reply, deputy_core::message::LauncherReply::Rebind(RebindReply::Ended(_))))
}

#[test]
fn a_child_that_is_killed_at_any_moment_leaves_what_can_be_gone_on_with_both_ways() {
    let _alone = alone();
    add_person("cutfrom", "pw", &["lab1"]);
    add_person("cutto", "pw", &["lab1"]);
    let top = "/srv/cut";
    large_tree(top, "cutfrom");
    let before = listing(top);
    let plan = || Wanted::new(top, &["cutfrom"], "cutto").plan().0;

    // What comes of it without any kill.
    let whole = plan();
    assert_eq!(apply(&whole.id).ended().left, 0);
    let after = listing(top);
    assert_eq!(undo(&whole.id).ended().left, 0);
    assert_eq!(listing(top), before);
    assert_ne!(before, after);

    let rounds = if std::env::var_os("DEPUTY_SOAK").is_some() { 60 } else { 8 };
    let (mut cuts, mut half) = (0, 0);
    for round in 0..rounds {
        let id = plan().id;
        let there = RebindRequest::Apply { id: id.clone(), while_running: true };
        let back = RebindRequest::Undo { id: id.clone(), while_running: true };
        for again in 0..3 {
            cuts += u32::from(cut(
                there.clone(),
                Duration::from_micros(1500 * (round * 7 + again * 11) % 60_000),
            ));
        }
        if state(&id) == RebindState::Applying {
            half += 1;
            assert_eq!(owner(top), (0, 0), "the tree is closed while it is between two owners");
        }
        if round % 2 == 0 {
            assert_eq!(apply(&id).ended().left, 0);
            assert_eq!(listing(top), after, "round {round}");
        }
        if state(&id) == RebindState::Planned {
            continue;
        }
        cuts += u32::from(cut(back, Duration::from_micros(3100 * round % 40_000)));
        assert_eq!(undo(&id).ended().left, 0);
        assert_eq!(listing(top), before, "round {round}");
    }
    assert!(cuts > 0 && half > 0, "the kills were in time: {cuts}, {half}");
}

#[test]
fn who_stops_waiting_stops_it_and_it_goes_on_when_asked_again() {
    let _alone = alone();
    let top = "/srv/stopped";
    large_tree(top, "alice");
    let before = listing(top);
    let id = Wanted::new(top, &["alice"], "carol").plan().0.id;
    let request = RebindRequest::Apply { id: id.clone(), while_running: false };
    let packet = encode(&LauncherRequest::Rebind(request)).unwrap();
    drop(Fake::as_user("root").start(&packet, &[]));
    // The child may come as late as it likes, and has the turn then.
    let turn = |way: fn(&RebindId) -> Heard| {
        let mut heard = way(&id);
        wait_until("the turn is free", || {
            let is_busy = matches!(&heard.last, Err(denial) if denial.code == Code::Busy);
            if is_busy {
                heard = way(&id);
            }
            !is_busy
        });
        heard.ended()
    };
    assert_eq!(turn(apply).left, 0);
    assert_eq!(state(&id), RebindState::Applied);
    assert_eq!(turn(undo).left, 0);
    assert_eq!(listing(top), before);
}

#[test]
fn a_tree_that_is_being_moved_is_closed_and_one_at_a_time_is_moved() {
    let _alone = alone();
    let top = "/srv/closed";
    large_tree(top, "alice");
    fs::create_dir_all("/srv/closed-two").unwrap();
    let id = Wanted::new(top, &["alice"], "carol").plan().0.id;
    let request = RebindRequest::Apply { id: id.clone(), while_running: false };
    let packet = encode(&LauncherRequest::Rebind(request)).unwrap();
    let pending = Fake::as_user("root").start(&packet, &[]);
    wait_until("the walk has begun", || owner(top) == (0, 0));
    let child = children_of(launcher_pid());
    for pid in &child {
        signal(*pid, "STOP");
    }
    let closed = owner(top) == (0, 0);
    let others = as_user("alice", &["ls", top]);
    let second = Wanted::new("/srv/closed-two", &["alice"], "carol").ask();
    for pid in &child {
        signal(*pid, "CONT");
    }
    if closed {
        assert_ne!(others.status, 0, "{others:?}");
        assert_eq!(second.refused().code, Code::Busy);
    }
    let ended = heard(pending.answers().replies);
    assert_eq!(ended.ended().left, 0);
    assert!(!ended.problems.iter().any(|problem| problem.kind != ProblemKind::Gone));
    assert_eq!(owner(top).0, ids("carol").uid);
}
