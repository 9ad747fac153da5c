//! Hundreds of jobs while `deputyd`, the launcher, and then shepherds too, are killed at random moments: what ran, ran
//! once, each exact end is recorded once, everybody who asks is told the same, and nothing is left.
//!
//! `DEPUTY_SOAK=1` makes it 10,000 jobs; `DEPUTY_STORM=N` makes it N.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use deputy_suite::client::{Client, Dictionary, Failed, Options, on_bus, text};
use deputy_suite::machine::{
    add_service_user, command_line, install_application, jobs_cgroup, processes, service_pid, signal,
    wait_until,
};
use deputy_suite::people::ok;
use deputy_suite::{as_user, deputyctl, need_the_sandbox};
use serde_json::Value;
use zbus::{Fd, OwnedObjectPath, Variant};

const PORTAL: &str = "stormportal";

/// Accounts and whose OS accounts they are.
const PEOPLE: [(&str, &str); 3] = [("ann", "alice"), ("ben", "bob"), ("cy", "carol")];

/// How many clients submit at once, and how many jobs each has under way.
const CLIENTS: usize = 8;
const WINDOW: usize = 6;

/// How many jobs the machine runs at once: fewer than are under way, so that some wait.
const CAPACITY: usize = 24;

/// The signals by which jobs end.
const SIGNALS: [(&str, i64); 6] =
    [("TERM", 15), ("KILL", 9), ("HUP", 1), ("INT", 2), ("USR1", 10), ("PIPE", 13)];

/// What a shepherd's death is called.
const SHEPHERD_DIED: &str = "its shepherd died without an exit record";

/// A small generator of numbers, told at the start, so that a failure can be looked at again.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end as u64).expect("below a usize")
    }

    fn thrown(salt: u64) -> Self {
        let seed = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_nanos();
        let seed = u64::try_from(seed & u128::from(u64::MAX)).expect("masked");
        println!("dice: {seed}");
        Self(seed.wrapping_mul(2 * salt + 3) | 1)
    }
}

/// Held by each test: there is one machine.
fn machine() -> MutexGuard<'static, ()> {
    static ONCE: Once = Once::new();
    static MACHINE: Mutex<()> = Mutex::new(());
    let guard = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    ONCE.call_once(|| {
        need_the_sandbox();
        add_service_user(PORTAL);
        install_application(
            "storm",
            &format!(
                "service_user = \"{PORTAL}\"\ntrust = \"application\"\n[kinds.batch]\ncommands = [\"*\"]\n\
                 output = \"64K\"\n"
            ),
        );
        for (account, os_user) in PEOPLE {
            ok(&deputyctl(PORTAL, &["account", "add", "storm", account]));
            ok(&deputyctl("root", &["consent", "grant", "storm", account, os_user]));
            ok(&deputyctl(PORTAL, &["link", "request", "storm", account, os_user]));
        }
        let settings = fs::read_to_string("/etc/deputy/deputy.toml").unwrap();
        let settings = format!(
            "{settings}\n[executor.local.capacity]\njobs = {CAPACITY}\ngpus = [\"/dev/zero\", \"/dev/full\"]\n\
             [retention]\njobs = 0\n"
        );
        fs::write("/etc/deputy/deputy.toml", settings).unwrap();
    });
    guard
}

/// How a job ends, if it runs to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Exits(i64),
    IsKilled(i64),
}

/// What the caller of `Jobs.Run` knows.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    Accepted(String),
    Failed(Failed),
}

/// A job as it was asked for.
struct Submitted {
    account: &'static str,
    end: End,
    answer: Answer,
    /// What was told on the descriptor that came with the call.
    told: Option<String>,
    /// What `Job.Get` said last.
    got: Option<Dictionary>,
}

fn job_name(number: usize) -> String {
    format!("storm-{number}")
}

/// A job that says that it ran, leaves a process for a while, and ends in a way of its own.
fn any_job(dice: &mut Dice, number: usize) -> (Vec<Vec<u8>>, End) {
    let name = job_name(number);
    let (last, end) = if dice.below(3) == 0 {
        let (signal, number) = SIGNALS[dice.below(SIGNALS.len())];
        (format!("kill -{signal} $$"), End::IsKilled(number))
    } else {
        let code = dice.below(256);
        (format!("exit {code}"), End::Exits(i64::try_from(code).expect("small")))
    };
    let orphan = match dice.below(4) {
        0 => format!("(setsid sh -c 'sleep 0.{}; :' {name} &)", dice.below(5)),
        _ => ":".to_owned(),
    };
    let pause = dice.below(300);
    let script = format!("echo {number} >> ~/storm-ran; echo {name}; {orphan}; sleep 0.{pause:03}; {last}");
    (["/bin/sh", "-c", &script, &name].map(|word| word.as_bytes().to_vec()).into(), end)
}

/// Options of a job, and the end of a pipe on which it is told.
fn any_options(dice: &mut Dice, number: usize) -> (Options, Option<OwnedFd>) {
    let mut options = Options::from([("name", Variant::from(job_name(number)))]);
    let mut told = None;
    match dice.below(8) {
        0 => drop(options.insert("stdout", Variant::from("capture".to_owned()))),
        1 => {
            let null = fs::File::options().read(true).write(true).open("/dev/null").expect("/dev/null");
            options.insert("stdout", Variant::Fd(Fd::from(OwnedFd::from(null))));
        }
        2 => drop(options.insert("gpus", Variant::from(1_u32))),
        3 => drop(options.insert("stdout", Variant::from(b"storm-out".to_vec()))),
        _ => {}
    }
    if dice.below(2) == 0 {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        options.insert("watch", Variant::Fd(Fd::from(OwnedFd::from(writer))));
        told = Some(reader.into());
    }
    (options, told)
}

/// Asks again while there is no answer, because the daemon was killed.
async fn patiently<R>(ask: impl AsyncFn() -> Result<R, Failed>) -> R {
    for _ in 0..3000 {
        match ask().await {
            Ok(answer) => return answer,
            Err(Failed::Unknown(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(Failed::Refused(code)) if code == "Busy" => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(refused) => panic!("{refused:?}"),
        }
    }
    panic!("the daemon does not answer");
}

fn is_over(record: &Dictionary) -> bool {
    ["done", "lost", "abandoned"].contains(&text(record, "state").expect("a state").as_str())
}

async fn until_it_is_over(bus: &Client, job: &str) -> Dictionary {
    let mut last = None;
    for _ in 0..6000 {
        let now = patiently(async || bus.call_at::<_, Dictionary>(job, "Job.Get", &()).await).await;
        if is_over(&now) {
            if text(&now, "state").as_deref() == Some("lost") {
                let name = text(&now, "name").expect("a name");
                assert_eq!(processes_of(&name), Vec::<String>::new(), "{name} was told to be lost");
            }
            return now;
        }
        last = Some(now);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{job} does not come to an end: {last:?}");
}

/// The processes that have this word in their command line.
fn processes_of(name: &str) -> Vec<String> {
    let lines = processes().into_iter().map(command_line);
    lines.filter(|line| line.split_ascii_whitespace().any(|word| word == name)).collect()
}

/// Submits jobs, and waits so that only so many are under way.
async fn submit(bus: Client, numbers: Vec<usize>, mut dice: Dice) -> Vec<(usize, Submitted)> {
    let mut all: Vec<(usize, Submitted)> = Vec::new();
    let mut pipes: HashMap<usize, OwnedFd> = HashMap::new();
    let mut waited = 0;
    for number in numbers {
        let (account, _) = PEOPLE[dice.below(PEOPLE.len())];
        let (argv, end) = any_job(&mut dice, number);
        let (options, told) = any_options(&mut dice, number);
        let called: Result<OwnedObjectPath, Failed> = bus.call("Jobs.Run", &(account, argv, options)).await;
        let answer = match called {
            Ok(path) => Answer::Accepted(path.to_string()),
            Err(failed) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Answer::Failed(failed)
            }
        };
        pipes.extend(told.map(|told| (number, told)));
        all.push((number, Submitted { account, end, answer, told: None, got: None }));
        while all.len() - waited >= WINDOW {
            settle(&bus, &mut all[waited], &mut pipes).await;
            waited += 1;
        }
    }
    for one in &mut all[waited..] {
        settle(&bus, one, &mut pipes).await;
    }
    all
}

async fn settle(
    bus: &Client,
    (number, submitted): &mut (usize, Submitted),
    pipes: &mut HashMap<usize, OwnedFd>,
) {
    if let Answer::Accepted(job) = &submitted.answer {
        submitted.got = Some(until_it_is_over(bus, job).await);
    }
    // Who is told is told until the end, or until the daemon died.
    submitted.told = pipes.remove(number).map(|pipe| {
        let mut told = String::new();
        fs::File::from(pipe).read_to_string(&mut told).expect("lines");
        told
    });
}

/// All jobs of the application, by name; a name has one.
async fn listed(bus: &Client) -> BTreeMap<String, Dictionary> {
    let mut all = BTreeMap::new();
    let mut cursor = String::new();
    loop {
        let (jobs, next): (Vec<Dictionary>, String) = patiently(async || {
            let mut options = Options::from([("limit", Variant::from(500_u32))]);
            if !cursor.is_empty() {
                options.insert("cursor", Variant::from(cursor.clone()));
            }
            bus.call("Jobs.List", &(options,)).await
        })
        .await;
        for job in jobs {
            let Some(name) = text(&job, "name") else { continue };
            let twice = all.insert(name, job);
            assert!(twice.is_none(), "two jobs of one name: {twice:?}");
        }
        if next.is_empty() {
            return all;
        }
        cursor = next;
    }
}

fn whole(record: &Dictionary, name: &str) -> Option<i64> {
    match &**record.get(name)? {
        Variant::I32(number) => Some(i64::from(*number)),
        Variant::U32(number) => Some(i64::from(*number)),
        other => panic!("{name}: {other:?}"),
    }
}

fn end_of(record: &Dictionary) -> Option<End> {
    let exits = whole(record, "exit_code").map(End::Exits);
    exits.or_else(|| whole(record, "signal").map(End::IsKilled))
}

/// The ends in the ledger, by job.
fn ends_in_the_ledger() -> HashMap<String, Vec<Value>> {
    let mut ends: HashMap<String, Vec<Value>> = HashMap::new();
    let export = deputyctl("root", &["store", "export"]);
    assert_eq!(export.status, 0, "{}", export.stderr);
    for line in export.stdout.lines() {
        let line: Value = serde_json::from_str(line).expect("a line of JSON");
        for kind in ["job-ended", "job-lost", "job-abandoned"] {
            if let Some(change) = line.get("change").and_then(|change| change.get(kind)) {
                let id = change["id"].as_str().expect("an id").to_owned();
                ends.entry(id).or_default().push(change.clone());
            }
        }
    }
    ends
}

/// How often each job ran.
fn runs() -> BTreeMap<(&'static str, usize), usize> {
    let mut runs = BTreeMap::new();
    for (account, os_user) in PEOPLE {
        let text = fs::read_to_string(format!("/home/{os_user}/storm-ran")).unwrap_or_default();
        for line in text.lines() {
            *runs.entry((account, line.parse().expect("a number"))).or_default() += 1;
        }
    }
    runs
}

/// What jobs can leave behind.
#[derive(Debug, Default, PartialEq, Eq)]
struct Left {
    processes: Vec<String>,
    shepherds: Vec<i32>,
    folders: Vec<String>,
    control_sockets: Vec<String>,
    cgroups: Vec<String>,
    mounts: Vec<String>,
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn shepherds() -> Vec<i32> {
    let launcher = service_pid("deputy-launcher");
    let is_launcher = |pid: &i32| {
        fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.ends_with("deputy-launcher"))
    };
    processes().into_iter().filter(|pid| *pid != launcher && is_launcher(pid)).collect()
}

fn left(tombstones_stay: bool) -> Left {
    let users = PEOPLE.map(|(_, os_user)| os_user).join(",");
    let cgroups = names_in(&jobs_cgroup()).into_iter().filter(|name| jobs_cgroup().join(name).is_dir());
    // The tombstone of a job that was given up goes half a minute later.
    let jobs = Path::new("/var/lib/deputy/jobs");
    let stays = |name: &String| tombstones_stay && jobs.join(name).join("abandoned").exists();
    let folders = names_in(jobs).into_iter().filter(|name| !stays(name));
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("the mounts");
    Left {
        processes: as_user("root", &["pgrep", "-u", &users, "-a"])
            .stdout
            .lines()
            .map(str::to_owned)
            .collect(),
        shepherds: shepherds(),
        folders: folders.collect(),
        control_sockets: names_in(Path::new("/run/deputy/jobs")),
        cgroups: cgroups.collect(),
        mounts: mounts.lines().filter(|line| line.contains("deputy/jobs")).map(str::to_owned).collect(),
    }
}

fn wait_until_nothing_is_left(tombstones_stay: bool) {
    // What retention keeps goes with the next job that is captured.
    on_bus(PORTAL, async |bus| {
        let argv = vec![b"/bin/true".to_vec()];
        let options = Options::from([("stdout", Variant::from("capture".to_owned()))]);
        let last: OwnedObjectPath = bus.call("Jobs.Run", &("ann", argv, options)).await.expect("a job");
        until_it_is_over(&bus, &last).await;
    });
    let end = std::time::Instant::now() + Duration::from_secs(60);
    while left(tombstones_stay) != Left::default() {
        assert!(std::time::Instant::now() < end, "left: {:?}", left(tombstones_stay));
        std::thread::sleep(Duration::from_millis(100));
    }
    on_bus(PORTAL, async |bus| {
        let queue: Dictionary = patiently(async || bus.call("Manager.Queue", &(Options::new(),)).await).await;
        assert_eq!(whole(&queue, "free_gpus"), Some(2), "{queue:?}");
        let shown = format!("{queue:?}");
        assert!(!shown.contains("storm-"), "{shown}");
    });
}

/// Kills what is long-lived about every second; answers how often which.
fn kill_daemons(mut dice: Dice, over: &AtomicBool) -> BTreeMap<&'static str, usize> {
    let mut kills = BTreeMap::new();
    while !over.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(200 + dice.below(1300) as u64));
        let who: &[&str] = match dice.below(5) {
            0 | 1 => &["deputyd"],
            2 | 3 => &["deputy-launcher"],
            _ => &["deputy-launcher", "deputyd"],
        };
        for service in who {
            let pid = service_pid(service);
            signal(pid, "KILL");
            *kills.entry(if *service == "deputyd" { "deputyd" } else { "launcher" }).or_default() += 1;
            wait_until("it is started again", || service_pid(service) != pid);
        }
    }
    kills
}

/// The job of a shepherd, by the socket at which it listens.
fn job_of(shepherd: i32) -> Option<String> {
    let sockets = fs::read_to_string(format!("/proc/{shepherd}/net/unix")).ok()?;
    let entries = fs::read_dir(format!("/proc/{shepherd}/fd")).ok()?.flatten();
    entries.filter_map(|entry| fs::read_link(entry.path()).ok()).find_map(|target| {
        let inode = target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned();
        let line = sockets.lines().find(|line| line.split_ascii_whitespace().nth(6) == Some(&inode))?;
        let path = line.split_ascii_whitespace().nth(7)?;
        path.strip_prefix("/run/deputy/jobs/").map(str::to_owned)
    })
}

/// Kills shepherds; answers whose.
fn kill_shepherds(mut dice: Dice, over: &AtomicBool) -> BTreeSet<String> {
    let mut killed = BTreeSet::new();
    while !over.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(50 + dice.below(150) as u64));
        let alive = shepherds();
        if alive.is_empty() {
            continue;
        }
        let pid = alive[dice.below(alive.len())];
        // It may have gone already. What is stopped does not change while it is looked at.
        as_user("root", &["kill", "-STOP", &pid.to_string()]);
        let parent = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let parent = parent.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok());
        // A child of a shepherd's that is on its way to the job's program is not one.
        let of_shepherd = parent.and_then(job_of);
        let Some(job) = job_of(pid).filter(|_| of_shepherd.is_none()) else {
            as_user("root", &["kill", "-CONT", &pid.to_string()]);
            continue;
        };
        killed.insert(job);
        as_user("root", &["kill", "-KILL", &pid.to_string()]);
    }
    killed
}

/// Runs so many jobs while something is killed.
fn storm<K: Send>(
    numbers: std::ops::Range<usize>,
    dice: &mut Dice,
    kill: impl FnOnce(&AtomicBool) -> K + Send,
) -> (Vec<(usize, Submitted)>, K) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| kill(&over));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let numbers: Vec<usize> =
                    numbers.clone().filter(|number| number % CLIENTS == client).collect();
                let dice = Dice((dice.below(usize::MAX) as u64) | 1);
                scope.spawn(move || on_bus(PORTAL, async |bus| submit(bus, numbers, dice).await))
            })
            .collect();
        let done: Vec<_> = clients.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        // Before anything can fail: the killer has to end too.
        over.store(true, Ordering::Relaxed);
        let killed = thread.join().expect("the killer");
        let all = done.into_iter().map(|done| done.unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        (all.flatten().collect(), killed)
    })
}

/// What became of the jobs of a storm.
#[derive(Debug, Default)]
struct Tally {
    done: usize,
    lost: usize,
    abandoned: usize,
    not_recorded: usize,
    unanswered_and_done: usize,
}

/// Compares what everybody says about each job.
fn compare(all: &[(usize, Submitted)], killed: &BTreeSet<String>) -> Tally {
    let listed = on_bus(PORTAL, async |bus| {
        // A call that was not answered may have been a job, too.
        for job in listed(&bus).await.values().filter(|job| !is_over(job)) {
            until_it_is_over(&bus, &format!("/org/deputy/Deputy1/job/{}", text(job, "id").expect("an id")))
                .await;
        }
        listed(&bus).await
    });
    // The end is told before it is in the ledger's next group.
    let mut ledger = ends_in_the_ledger();
    for _ in 0..100 {
        if listed.values().all(|job| ledger.contains_key(&text(job, "id").expect("an id"))) {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
        ledger = ends_in_the_ledger();
    }
    let runs = runs();
    let mut tally = Tally::default();
    for (number, submitted) in all {
        let name = job_name(*number);
        let ran = runs.get(&(submitted.account, *number)).copied().unwrap_or_default();
        let Some(job) = listed.get(&name) else {
            assert!(matches!(submitted.answer, Answer::Failed(_)), "{name} was accepted, and is not there");
            assert_eq!(ran, 0, "{name} is not there, and ran");
            tally.not_recorded += 1;
            continue;
        };
        let shown: Vec<_> = job.iter().filter(|(key, _)| *key != "argv").collect();
        let what = format!("{name}: {:?}, {shown:?}", submitted.answer);
        let id = text(job, "id").expect("an id");
        let ends = ledger.get(&id).unwrap_or_else(|| panic!("no end in the ledger: {what}"));
        assert_eq!(ends.len(), 1, "{what}: {ends:?}");
        match text(job, "state").expect("a state").as_str() {
            "done" => {
                assert_eq!((end_of(job), ran), (Some(submitted.end), 1), "{what}");
                let recorded = &ends[0]["end"];
                let recorded = match (recorded.get("exited"), recorded.get("signaled")) {
                    (Some(exited), _) => exited["code"].as_i64().map(End::Exits),
                    (_, Some(signaled)) => signaled["signal"].as_i64().map(End::IsKilled),
                    _ => None,
                };
                assert_eq!(recorded, Some(submitted.end), "{what}: {ends:?}");
                tally.done += 1;
                tally.unanswered_and_done += usize::from(matches!(submitted.answer, Answer::Failed(_)));
                let refused = matches!(&submitted.answer, Answer::Failed(Failed::Refused(_)));
                assert!(!refused, "it was refused, and ran: {what}");
            }
            "lost" => {
                assert!(killed.contains(&id), "{what}");
                assert_eq!(text(job, "cause").as_deref(), Some(SHEPHERD_DIED), "{what}");
                assert!(ran <= 1, "{what}");
                tally.lost += 1;
            }
            "abandoned" => {
                assert_eq!(ran, 0, "{what}");
                assert!(text(job, "cause").is_some_and(|cause| !cause.is_empty()), "{what}");
                tally.abandoned += 1;
            }
            other => panic!("{other}: {what}"),
        }
        if let Some(got) = &submitted.got {
            for field in ["state", "cause"] {
                assert_eq!(text(got, field), text(job, field), "{what}");
            }
            assert_eq!(end_of(got), end_of(job), "{what}");
        }
        compare_told(submitted.told.as_deref().unwrap_or_default(), job, &what);
    }
    assert_eq!(runs.values().filter(|count| **count != 1).count(), 0, "{runs:?}");
    tally
}

/// The lines of a watcher end with the job's end, or with the daemon's.
fn compare_told(told: &str, job: &Dictionary, what: &str) {
    let lines: Vec<Value> =
        told.lines().map(|line| serde_json::from_str(line).expect("whole lines")).collect();
    let over =
        |line: &Value| ["done", "lost", "abandoned"].contains(&line["state"].as_str().unwrap_or_default());
    let Some(last) = lines.last().filter(|line| over(line)) else {
        assert_eq!(lines.iter().filter(|line| over(line)).count(), 0, "{told}");
        return;
    };
    assert_eq!(lines.iter().filter(|line| over(line)).count(), 1, "{told}");
    assert_eq!(last["state"].as_str(), text(job, "state").as_deref(), "{what}: {told}");
    for field in ["exit_code", "signal"] {
        assert_eq!(last.get(field).and_then(Value::as_i64), whole(job, field), "{what}: {told}");
    }
}

fn forget_runs() {
    for (_, os_user) in PEOPLE {
        let _ = fs::remove_file(format!("/home/{os_user}/storm-ran"));
    }
}

fn size(short: usize) -> usize {
    let asked = std::env::var("DEPUTY_STORM").ok().and_then(|number| number.parse().ok());
    asked.unwrap_or(if std::env::var_os("DEPUTY_SOAK").is_some() { 10_000 } else { short })
}

#[test]
fn each_job_runs_once_and_ends_once_while_the_daemons_are_killed() {
    let _machine = machine();
    forget_runs();
    let mut dice = Dice::thrown(1);
    let chance = Dice(dice.0 ^ 0x5555);
    let (all, kills) = storm(0..size(400), &mut dice, |over| kill_daemons(chance, over));
    let tally = compare(&all, &BTreeSet::new());
    println!("{} jobs, {kills:?}, {tally:?}", all.len());
    wait_until_nothing_is_left(true);
    assert_eq!(kills.len(), 2, "both have to be killed: {kills:?}");
    assert!(tally.done > all.len() / 2, "{tally:?}");
}

#[test]
fn jobs_whose_shepherds_are_killed_are_lost_with_the_cause_and_nothing_of_them_runs_on() {
    let _machine = machine();
    forget_runs();
    let mut dice = Dice::thrown(2);
    let chance = Dice(dice.0 ^ 0x5555);
    let daemons = Dice(dice.0 ^ 0xaaaa);
    let first = 1_000_000;
    let (all, (killed, kills)) = storm(first..first + size(150), &mut dice, |over| {
        std::thread::scope(|scope| {
            let daemons = scope.spawn(|| kill_daemons(daemons, over));
            (kill_shepherds(chance, over), daemons.join().expect("the killer of daemons"))
        })
    });
    let tally = compare(&all, &killed);
    println!("{} jobs, {} shepherds and {kills:?} killed, {tally:?}", all.len(), killed.len());
    wait_until_nothing_is_left(false);
    assert!(tally.lost > 0 && tally.done > 0, "{tally:?}");
}
