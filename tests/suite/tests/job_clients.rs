//! What clients do to jobs over the bus: descriptors that are no streams, streams that nobody reads, clients that vanish.
//! Refusals first.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use deputy_suite::client::{Client, Dictionary, Failed, Options, on_bus, text};
use deputy_suite::machine::{add_service_user, install_application, run, running, wait_until};
use deputy_suite::people::{command_as, ok};
use deputy_suite::{as_user, deputyctl, need_the_sandbox};
use zbus::{Fd, OwnedObjectPath, Variant};

const PORTAL: &str = "clientsportal";

/// Held by each test: they count the jobs of one application.
fn machine() -> MutexGuard<'static, ()> {
    static ONCE: Once = Once::new();
    static MACHINE: Mutex<()> = Mutex::new(());
    let guard = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    ONCE.call_once(|| {
        need_the_sandbox();
        add_service_user(PORTAL);
        install_application(
            "clients",
            &format!(
                "service_user = \"{PORTAL}\"\ntrust = \"application\"\n[kinds.batch]\ncommands = [\"*\"]\n"
            ),
        );
        ok(&deputyctl(PORTAL, &["account", "add", "clients", "ann"]));
        ok(&deputyctl("root", &["consent", "grant", "clients", "ann", "alice"]));
        ok(&deputyctl(PORTAL, &["link", "request", "clients", "ann", "alice"]));
    });
    guard
}

async fn submit(bus: &Client, script: &str, options: Options) -> Result<String, Failed> {
    let argv: Vec<Vec<u8>> = ["/bin/sh", "-c", script].map(|word| word.as_bytes().to_vec()).into();
    let path: OwnedObjectPath = bus.call("Jobs.Run", &("ann", argv, options)).await?;
    Ok(path.to_string())
}

fn with(key: &'static str, descriptor: impl Into<OwnedFd>) -> Options {
    Options::from([(key, Variant::Fd(Fd::from(descriptor.into())))])
}

async fn until_it_is_over(bus: &Client, job: &str) -> Dictionary {
    for _ in 0..3000 {
        let now: Dictionary = bus.call_at(job, "Job.Get", &()).await.expect("the job");
        if ["done", "lost", "abandoned"].contains(&text(&now, "state").expect("a state").as_str()) {
            return now;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{job} does not come to an end");
}

fn path_of(job: &Dictionary) -> String {
    format!("/org/deputy/Deputy1/job/{}", text(job, "id").expect("an id"))
}

/// The jobs of the application that have a name, with it.
async fn named(bus: &Client) -> BTreeMap<String, String> {
    let options = Options::from([("limit", Variant::from(1000_u32))]);
    let (jobs, next): (Vec<Dictionary>, String) = bus.call("Jobs.List", &(options,)).await.expect("a list");
    assert_eq!(next, "");
    jobs.iter().filter_map(|job| Some((text(job, "name")?, path_of(job)))).collect()
}

/// `open(2)` with a flag that the standard library has no name for.
fn opened(path: &str, flags: i32) -> File {
    OpenOptions::new().read(true).write(flags == 0).custom_flags(flags).open(path).expect(path)
}

const O_PATH: i32 = 0o10_000_000;
const O_DIRECTORY: i32 = 0o200_000;

#[test]
fn what_is_no_stream_is_refused_over_the_bus_and_nothing_is_recorded() {
    let _machine = machine();
    on_bus(PORTAL, async |bus| {
        for key in ["stdin", "stdout", "stderr", "script", "environment_fd", "watch"] {
            let wrong: [(&str, File); 4] = [
                ("a folder", opened("/", O_DIRECTORY)),
                ("O_PATH", opened("/etc/passwd", O_PATH)),
                ("a terminal", opened("/dev/ptmx", 0)),
                (
                    "the wrong way",
                    match key {
                        "stdout" | "stderr" | "watch" => File::open("/etc/passwd").unwrap(),
                        _ => OpenOptions::new().write(true).open("/dev/null").unwrap(),
                    },
                ),
            ];
            for (what, file) in wrong {
                let mut options = with(key, file);
                options.insert("name", Variant::from("refused".to_owned()));
                let refused = submit(&bus, "true", options).await.expect_err("it is refused");
                assert_eq!(refused.code(), "InvalidArgument", "{what} for {key}");
            }
        }
        assert!(!named(&bus).await.contains_key("refused"));
    });
}

#[test]
fn a_folder_that_cannot_be_entered_is_told_with_its_step() {
    let _machine = machine();
    for (folder, why) in
        [("/root", "Permission denied"), ("/nonexistent", "No such file"), ("/etc/passwd", "Not a directory")]
    {
        let line = ["run", "--app", "clients", "--account", "ann", "--cwd", folder, "--", "true"];
        let output = deputyctl(PORTAL, &line);
        assert_eq!(output.status, 126, "{output:?}");
        assert!(output.stderr.contains("chdir") && output.stderr.contains(why), "{output:?}");
    }
}

#[test]
fn output_that_nobody_reads_holds_up_its_own_job_alone() {
    let _machine = machine();
    let fifo = "/tmp/clients-fifo";
    run("mkfifo", &["-m", "666", fifo]);
    on_bus(PORTAL, async |bus| {
        let (reader, writer) = std::io::pipe().unwrap();
        // Whoever opens both ways has a FIFO that never breaks, and nobody reads it.
        let both_ways = OpenOptions::new().read(true).write(true).open(fifo).unwrap();
        let mut held = Vec::new();
        for output in [OwnedFd::from(writer), OwnedFd::from(both_ways)] {
            held.push(submit(&bus, "exec yes clients-held", with("stdout", output)).await.expect("a job"));
        }
        // Input that never comes.
        let (input, _writer) = std::io::pipe().unwrap();
        held.push(submit(&bus, "exec cat", with("stdin", input)).await.expect("a job"));
        let other = submit(&bus, "exit 4", Options::new()).await.expect("a job");
        let ended = until_it_is_over(&bus, &other).await;
        assert_eq!(&*ended["exit_code"], &Variant::I32(4));
        for job in &held {
            let now: Dictionary = bus.call_at(job, "Job.Get", &()).await.expect("the job");
            assert_eq!(text(&now, "state").as_deref(), Some("running"));
            let cancelled: Result<(), Failed> = bus.call_at(job, "Job.Cancel", &(Options::new(),)).await;
            cancelled.expect("it is cancelled");
            let ended = until_it_is_over(&bus, job).await;
            assert_eq!(text(&ended, "cause").as_deref(), Some("cancelled"), "{ended:?}");
        }
        drop(reader);
    });
    assert_eq!(running("yes clients-held"), [0; 0]);
}

#[test]
fn a_client_without_standard_streams_runs_a_job_all_the_same() {
    let _machine = machine();
    let run = "deputyctl run --app clients --account ann --";
    for (number, closed) in ["<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"].into_iter().enumerate() {
        let file = format!("/home/alice/closed-{number}");
        // What the job's own descriptors are is not the client's: they are there, whatever the client lacks.
        let job = format!("'ls /proc/self/fd > {file}; exit 5'");
        let output = as_user(PORTAL, &["bash", "-c", &format!("{run} sh -c {job} {closed}")]);
        assert_eq!(output.status, 5, "{closed}: {output:?}");
        let descriptors = fs::read_to_string(&file).unwrap();
        assert!(descriptors.starts_with("0\n1\n2\n"), "{closed}: {descriptors}");
    }
}

#[test]
fn a_client_that_is_killed_at_any_moment_leaves_no_job_or_a_whole_one() {
    let _machine = machine();
    let clients = 60;
    for number in 0..clients {
        let name = format!("vanish-{number}");
        let script = format!("echo {number} >> ~/vanished; exit 6");
        let line = [
            "deputyctl",
            "run",
            "--app",
            "clients",
            "--account",
            "ann",
            "--name",
            &name,
            "--",
            "sh",
            "-c",
            &script,
        ];
        let mut client = command_as(PORTAL, &line).spawn().unwrap();
        // From before it has connected until after the end.
        std::thread::sleep(Duration::from_millis(number * 3 / 2));
        // The client is a child of runuser's.
        as_user("root", &["pkill", "-KILL", "-u", PORTAL]);
        client.wait().unwrap();
    }
    let recorded = on_bus(PORTAL, async |bus| {
        let jobs = named(&bus).await;
        let jobs: Vec<_> = jobs.into_iter().filter(|(name, _)| name.starts_with("vanish-")).collect();
        for (name, job) in &jobs {
            let ended = until_it_is_over(&bus, job).await;
            assert_eq!(text(&ended, "state").as_deref(), Some("done"), "{name}: {ended:?}");
            assert_eq!(&*ended["exit_code"], &Variant::I32(6), "{name}");
        }
        jobs
    });
    let mut ran: Vec<String> = fs::read_to_string("/home/alice/vanished")
        .unwrap()
        .lines()
        .map(|line| format!("vanish-{line}"))
        .collect();
    ran.sort();
    let names: Vec<String> = recorded.into_iter().map(|(name, _)| name).collect();
    assert_eq!(ran, names, "each recorded job ran once, and no other");
    let clients = usize::try_from(clients).expect("few");
    assert!(!names.is_empty() && names.len() < clients, "{} of {clients} were recorded", names.len());
    wait_until("nothing of them is left", || as_user("root", &["pgrep", "-u", "alice"]).status != 0);
}
