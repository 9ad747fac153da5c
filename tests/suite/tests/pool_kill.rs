//! Many leases at once, while the processes that write them are killed: no two accounts share a uid, and each gets one.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use deputy_core::Code;
use deputy_core::message::LauncherReply;
use deputy_core::pool::PoolState;
use deputy_suite::machine::{children_of, launcher_pid};
use deputy_suite::need_the_sandbox;
use deputy_suite::people::as_user;
use deputy_suite::pool::{ask, pool, records};
use deputy_suite::requests::consents;

/// How many leases; `DEPUTY_SOAK=1` makes it ten times as many.
fn wanted() -> usize {
    if std::env::var_os("DEPUTY_SOAK").is_some() { 20_000 } else { 2000 }
}

// Each account is asked for by two clients.
const CLIENTS: usize = 48;

/// A child of the launcher is killed whenever so many requests more were begun.
const REQUESTS_A_KILL: usize = 10;

#[test]
fn no_two_accounts_share_a_uid_whatever_is_killed() {
    need_the_sandbox();
    let count = wanted();
    let _pool = pool(300_000, 399_999, "skeleton = \"/srv/skeleton\"");
    let leases: Mutex<BTreeMap<String, HashSet<u32>>> = Mutex::default();
    let (killed, unanswered) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let over = AtomicBool::new(false);
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= count * 2 {
                            return;
                        }
                        let name = format!("person{}", number / 2);
                        let uid = insist(&name, &unanswered);
                        leases.lock().unwrap().entry(name).or_default().insert(uid);
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            let mut begun = 0;
            while !over.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(1));
                // By what is begun, not by a clock: on a slow machine no lease would live long enough to end.
                if next.load(Ordering::Relaxed) < begun + REQUESTS_A_KILL {
                    continue;
                }
                // Any of them, at any moment; one that has just ended is no loss.
                let children = children_of(launcher_pid());
                let round = killed.load(Ordering::Relaxed);
                if let Some(child) = children.get(round * 7 % children.len().max(1))
                    && let Some(pid) = rustix::process::Pid::from_raw(*child)
                    && rustix::process::kill_process(pid, rustix::process::Signal::KILL).is_ok()
                {
                    killed.fetch_add(1, Ordering::Relaxed);
                    begun = next.load(Ordering::Relaxed);
                }
            }
        });
        let ended: Vec<_> = clients.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        over.store(true, Ordering::Relaxed);
        assert!(ended.iter().all(Result::is_ok), "a client gave up");
    });
    let leases = leases.into_inner().unwrap();
    assert_eq!(leases.len(), count);
    let mut uids = HashSet::new();
    for (name, had) in &leases {
        assert_eq!(had.len(), 1, "{name} was told different uids: {had:?}");
        assert!(uids.is_disjoint(had), "{name} shares {had:?}");
        uids.extend(had);
    }
    let (killed, unanswered) = (killed.into_inner(), unanswered.into_inner());
    assert!(killed >= 20 && unanswered >= 5, "{killed} killed, {unanswered} requests without an answer");

    // What is on disk says the same, and so does the name service.
    let records: Vec<_> =
        records().into_iter().filter(|record| record.application.as_str() == "tenants").collect();
    assert_eq!(records.len(), count, "a number was lost");
    for record in &records {
        let uid = record.os_account.uid.raw();
        assert_eq!((record.state, record.home_made), (PoolState::Leased, true), "{record:?}");
        assert!(leases[record.account.as_str()].contains(&uid), "{record:?}");
    }
    let pools = |uid: u32| (300_000..=399_999).contains(&uid);
    let consents = consents().into_iter().filter(|consent| pools(consent.os_account.uid.raw()));
    let consented: HashSet<u32> = consents.map(|consent| consent.os_account.uid.raw()).collect();
    assert_eq!(consented, uids);
    let said = as_user("alice", &["getent", "passwd"]).stdout;
    let named =
        said.lines().filter_map(|line| line.split(':').nth(2)?.parse().ok()).filter(|uid| pools(*uid));
    assert_eq!(named.collect::<HashSet<u32>>(), uids);
}

/// Asks until there is a lease: a process that is killed answers nothing, and the launcher has room for so many.
fn insist(name: &str, unanswered: &AtomicUsize) -> u32 {
    for _ in 0..200 {
        let answers = ask("tenants", name);
        match &answers.replies[..] {
            [LauncherReply::Leased(leased)] => return leased.os_account.uid.raw(),
            [] => {
                unanswered.fetch_add(1, Ordering::Relaxed);
            }
            // A skeleton's copier is one of those that are killed.
            [LauncherReply::Denied(denial)] if matches!(denial.code, Code::Busy | Code::Disk) => {}
            _ => panic!("{name}: {answers:?}"),
        }
    }
    panic!("{name} has no lease after 200 tries")
}
