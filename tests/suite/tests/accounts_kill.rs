//! `kill -9` of `deputyd` at random moments while accounts change: every acknowledged change is there afterwards, and
//! of one that was not acknowledged all or nothing.
//!
//! `DEPUTY_SOAK=1` makes it ten times as long.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use deputy_core::account::{Status, Step};
use deputy_suite::client::{Client, Dictionary, Failed, Options, on_bus, options, text};
use deputy_suite::machine::{add_service_user, install_application, service_pid, signal, wait_until};
use deputy_suite::need_the_sandbox;
use zbus::Variant;

/// How many clients change accounts at once, and how many accounts each has for itself.
const CLIENTS: usize = 8;
const ACCOUNTS: u64 = 12;

/// After how many more changes, at most, the next kill comes.
const BETWEEN: u64 = 60;

/// An account as this test knows it; `None`: not there.
type Known = Option<Account>;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Account {
    status: Status,
    role: String,
    email: String,
    in_group: bool,
}

/// A small generator of numbers, told at the start, so that a failure can be looked at again.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// One change, and what it makes of the account; `None` where it has to be refused.
struct Change {
    method: &'static str,
    options: Options,
    arguments: Vec<String>,
    after: Option<Known>,
}

fn any_change(dice: &mut Dice, name: &str, known: &Known) -> Change {
    let number = dice.below(11);
    if number >= 9 {
        let add = number == 9;
        let after = known.as_ref().filter(|known| known.in_group != add);
        let after = after.map(|known| Some(Account { in_group: add, ..known.clone() }));
        let method = if add { "Groups.Add" } else { "Groups.Remove" };
        return Change { method, options: Options::new(), arguments: vec!["lab".into(), name.into()], after };
    }
    let step = Step::ALL[usize::try_from(number).expect("a small number")];
    let email = format!("e{}@example.org", dice.below(1000));
    let role = ["user", "viewer", "administrator"][usize::try_from(dice.below(3)).expect("a small number")];
    let (method, argument) = match step {
        Step::Create => ("Accounts.Create", None),
        Step::Register => ("Accounts.Register", None),
        Step::Approve => ("Accounts.Approve", None),
        Step::Reject => ("Accounts.Reject", Some("no")),
        Step::Edit => ("Accounts.Edit", None),
        Step::SetRole => ("Accounts.SetRole", Some(role)),
        Step::Deactivate => ("Accounts.Deactivate", None),
        Step::Reactivate => ("Accounts.Reactivate", None),
        Step::Delete => ("Accounts.Delete", None),
    };
    let mut options = Options::new();
    if matches!(step, Step::Create | Step::Register | Step::Edit) {
        options.insert("email", Variant::from(email.clone()));
    }
    let status = known.as_ref().map(|known| known.status);
    let member = known.as_ref().is_some_and(|known| known.in_group);
    let after = step.from(status).ok().filter(|_| step != Step::Delete || !member).map(|status| {
        status.map(|status| match step {
            Step::Create | Step::Register => Account { status, role: "user".into(), email, in_group: member },
            _ => {
                let old = known.clone().expect("there is one");
                let email = if step == Step::Edit { email } else { old.email.clone() };
                let role = if step == Step::SetRole { role.to_owned() } else { old.role.clone() };
                Account { status, role, email, in_group: member }
            }
        })
    });
    let arguments = [Some(name.to_owned()), argument.map(str::to_owned)].into_iter().flatten().collect();
    Change { method, options, arguments, after }
}

async fn make(bus: &Client, change: Change) -> Result<(), Failed> {
    match change.arguments.as_slice() {
        [one] => bus.call(change.method, &(one.as_str(), change.options)).await,
        [one, other] => bus.call(change.method, &(one.as_str(), other.as_str(), change.options)).await,
        other => panic!("{other:?}"),
    }
}

/// The account as the daemon has it, as soon as there is one again.
async fn look(bus: &Client, name: &str) -> Known {
    for _ in 0..6000 {
        let found: Result<Dictionary, Failed> = bus.call("Accounts.Get", &(name, Options::new())).await;
        match found {
            Ok(record) => {
                let field = |name: &str| text(&record, name).unwrap_or_default();
                let groups = record.get("groups").and_then(|groups| groups.try_clone().ok());
                let groups =
                    groups.and_then(|groups| Vec::<String>::try_from(groups).ok()).unwrap_or_default();
                return Some(Account {
                    status: field("status").parse().expect("a status"),
                    role: field("role"),
                    email: field("email"),
                    in_group: !groups.is_empty(),
                });
            }
            Err(Failed::Refused(code)) if code == "NotFound" => return None,
            // It starts, or is about to be killed again.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    panic!("deputyd does not come back");
}

/// What one client did: its accounts in the end, and how often it was left without an answer.
struct Done {
    accounts: BTreeMap<String, Known>,
    unanswered: usize,
}

async fn change_accounts(
    bus: Client,
    client: usize,
    mut dice: Dice,
    count: usize,
    made: &AtomicUsize,
) -> Done {
    let mut accounts: BTreeMap<String, Known> = BTreeMap::new();
    let mut unanswered = 0;
    let mut acknowledged = 0;
    while acknowledged < count {
        let name = format!("k{client}-{}", dice.below(ACCOUNTS));
        let before = accounts.get(&name).cloned().flatten();
        let change = any_change(&mut dice, &name, &before);
        let (what, after) = (change.method, change.after.clone());
        match make(&bus, change).await {
            Ok(()) => {
                let after =
                    after.unwrap_or_else(|| panic!("{what} of {name}, {before:?}, has to be refused"));
                accounts.insert(name, after);
                acknowledged += 1;
                made.fetch_add(1, Ordering::Relaxed);
            }
            Err(Failed::Refused(code)) => {
                assert!(after.is_none(), "{what} of {name}, {before:?}, was refused: {code}");
            }
            Err(Failed::Unknown(_)) => {
                unanswered += 1;
                let now = look(&bus, &name).await;
                let whole = now == before || after.as_ref() == Some(&now);
                assert!(whole, "{what} of {name}: before {before:?}, now {now:?}, wanted {after:?}");
                accounts.insert(name, now);
            }
        }
    }
    Done { accounts, unanswered }
}

/// Kills the daemon again and again, each time after some more changes.
fn kill_at_random(mut dice: Dice, made: &AtomicUsize, over: &AtomicBool) -> usize {
    let mut kills = 0;
    let mut next = 0;
    while !over.load(Ordering::Relaxed) {
        if made.load(Ordering::Relaxed) < next {
            std::thread::sleep(Duration::from_micros(200));
            continue;
        }
        std::thread::sleep(Duration::from_micros(dice.below(5000)));
        let pid = service_pid("deputyd");
        signal(pid, "KILL");
        kills += 1;
        wait_until("deputyd is started again", || service_pid("deputyd") != pid);
        next = made.load(Ordering::Relaxed) + usize::try_from(dice.below(BETWEEN)).expect("small") + 1;
    }
    kills
}

#[test]
fn every_acknowledged_change_survives_a_kill_at_any_moment() {
    need_the_sandbox();
    let soak = std::env::var_os("DEPUTY_SOAK").is_some();
    let each = if soak { 10_000 } else { 1_000 } / CLIENTS;
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_nanos();
    let seed = u64::try_from(seed & u128::from(u64::MAX)).expect("masked") | 1;
    println!("dice: {seed}");
    add_service_user("killportal");
    install_application("kill", "service_user = \"killportal\"\ntrust = \"application\"\n");
    on_bus("killportal", async |bus| {
        let created: Result<(), Failed> = bus.call("Groups.Create", &("lab", options(&[]))).await;
        created.expect("a group");
    });
    let (made, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (done, kills) = std::thread::scope(|scope| {
        let killer = scope.spawn(|| kill_at_random(Dice(seed), &made, &over));
        let made = &made;
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let dice = Dice(seed.wrapping_mul(2 * client as u64 + 3) | 1);
                scope.spawn(move || {
                    on_bus("killportal", async |bus| change_accounts(bus, client, dice, each, made).await)
                })
            })
            .collect();
        let done: Vec<_> = clients.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        // Before anything can fail: the killer has to end too.
        over.store(true, Ordering::Relaxed);
        let kills = killer.join().expect("the killer");
        let done: Vec<Done> = done
            .into_iter()
            .map(|done| done.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect();
        (done, kills)
    });
    // Once more, so that what is compared comes from the ledger.
    let pid = service_pid("deputyd");
    signal(pid, "KILL");
    wait_until("deputyd is started again", || service_pid("deputyd") != pid);
    let mut there = 0;
    on_bus("killportal", async |bus| {
        for (name, known) in done.iter().flat_map(|done| &done.accounts) {
            assert_eq!(look(&bus, name).await, *known, "{name}");
            there += usize::from(known.is_some());
        }
        let (listed, next): (Vec<Dictionary>, String) = bus
            .call("Accounts.List", &(BTreeMap::from([("limit", Variant::from(1000u32))]),))
            .await
            .expect("a list");
        assert_eq!((listed.len(), next.as_str()), (there, ""), "no account that nobody made");
        let (members, _): (Vec<Dictionary>, String) =
            bus.call("Groups.Members", &("lab", options(&[]))).await.expect("the members");
        let known = done.iter().flat_map(|done| done.accounts.values()).flatten();
        assert_eq!(members.len(), known.filter(|known| known.in_group).count(), "members of the group");
    });
    let unanswered: usize = done.iter().map(|done| done.unanswered).sum();
    println!(
        "{} changes acknowledged, {kills} kills, {unanswered} changes without an answer",
        made.into_inner()
    );
    assert!(kills >= 5 && unanswered > 0, "{kills} kills met {unanswered} changes");
}
