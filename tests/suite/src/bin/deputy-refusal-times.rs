//! How long refused logins take, by reason: an account that is not there, a wrong password, an account that was put out
//! of use, and one without a password. What they take must not tell which it was.
//!
//! Runs as root inside the sandbox, as `tests/suite/run.sh` makes one:
//!
//! ```text
//! cargo build -p deputy-suite --bin deputy-refusal-times
//! tests/suite/run.sh target/debug/deputy-refusal-times [TRIES]
//! ```
//!
//! With `DEPUTY_BENCH_PAM`, the path of `pam_deputy.so`, the logins are those of a program that uses PAM; else they are
//! calls on the bus.
//!
//! Prints the quartiles of each reason in milliseconds, and between each two the largest distance of their distributions
//! (0: the same, 1: apart), beside that of two halves of the same reason, and what chance alone exceeds once in twenty
//! times.
#![forbid(unsafe_code)]

use std::fs;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::time::{Duration, Instant};

use deputy_suite::client::{Client, on_bus, options};
use deputy_suite::machine::{install_application, run, wait_until};
use deputy_suite::pam::{MODULE, service};
use deputy_suite::people::answering;
use deputy_suite::{deputyctl, need_the_sandbox};
use futures_util::stream::{self, StreamExt as _};

/// The reasons, by the account that is tried.
const REASONS: [(&str, &str); 4] =
    [("unknown", "nobody"), ("wrong", "present"), ("deactivated", "gone"), ("no password", "bare")];

const TRIES: usize = 200;

/// How many tries are under way at once.
const AT_ONCE: usize = 16;

const PASSWORD: &str = "violet harbour seven kites";

fn main() {
    need_the_sandbox();
    let tries = std::env::args().nth(1).map_or(TRIES, |text| text.parse().expect("a number of tries"));
    prepare();
    let by_pam = std::env::var_os("DEPUTY_BENCH_PAM").is_some_and(|module| {
        fs::create_dir_all("/srv/pam").expect("a folder");
        fs::copy(module, MODULE).expect("the module");
        service("times", "application=keeper");
        true
    });
    let mut times: Vec<Vec<Duration>> = on_bus("keeper", async |client| {
        // One reason after the other and around again, so that whatever changes meanwhile changes for all.
        let jobs = (0..tries * REASONS.len()).map(|number| {
            let client = client.clone();
            async move {
                let reason = number % REASONS.len();
                let account = REASONS[reason].1;
                let took = if by_pam {
                    attempt_by_pam(account, number).await
                } else {
                    attempt(&client, account, number).await
                };
                (reason, took)
            }
        });
        let measured: Vec<(usize, Duration)> = stream::iter(jobs).buffer_unordered(AT_ONCE).collect().await;
        let of = |reason| measured.iter().filter(move |(of, _)| *of == reason).map(|(_, time)| *time);
        (0..REASONS.len()).map(|reason| of(reason).collect::<Vec<_>>()).collect::<Vec<_>>()
    });
    // In the order in which they were made, every other one is a half.
    let halves = times.iter().map(|times| {
        let half = |first| sorted(times.iter().skip(first).step_by(2).copied());
        compare(&half(0), &half(1)).0
    });
    let halves = halves.fold(0.0, f64::max);
    println!("{:<12} {:>8} {:>8} {:>8} {:>8} {:>8}  ms", "reason", "least", "25 %", "median", "75 %", "most");
    for ((reason, _), times) in REASONS.iter().zip(&mut times) {
        times.sort_unstable();
        let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e3;
        let [least, low, median, high, most] = [0, 25, 50, 75, 100].map(at);
        println!("{reason:<12} {least:>8.1} {low:>8.1} {median:>8.1} {high:>8.1} {most:>8.1}");
    }
    println!();
    let (mut apart, mut pairs, mut largest) = (Vec::new(), 0, 0.0_f64);
    for (first, (name, _)) in REASONS.iter().enumerate() {
        for (second, (other, _)) in REASONS.iter().enumerate().skip(first + 1) {
            let (distance, chance) = compare(&times[first], &times[second]);
            let common = overlap(&times[first], &times[second]);
            println!(
                "{name} and {other}: {common} % of the tries in the range of both, distance {distance:.3}, by chance up \
                 to {chance:.3}"
            );
            pairs += 1;
            largest = largest.max(distance);
            if distance > chance {
                apart.push(format!("{name} and {other}"));
            }
        }
    }
    println!("two halves of the same reason: distance up to {halves:.3}");
    println!();
    if apart.is_empty() {
        println!(
            "The distributions overlap: none of the {pairs} pairs is further apart ({largest:.3}) than chance makes it."
        );
    } else {
        println!(
            "NOT the same by this measure, which chance exceeds once in twenty times: {}.",
            apart.join("; ")
        );
    }
}

/// How many of a hundred tries of both lie where both samples have some.
fn overlap(one: &[Duration], other: &[Duration]) -> usize {
    let (Some(low), Some(high)) = (one.first().max(other.first()), one.last().min(other.last())) else {
        return 0;
    };
    let inside = one.iter().chain(other).filter(|time| *time >= low && *time <= high).count();
    inside * 100 / (one.len() + other.len())
}

fn sorted(times: impl Iterator<Item = Duration>) -> Vec<Duration> {
    let mut times: Vec<Duration> = times.collect();
    times.sort_unstable();
    times
}

fn prepare() {
    run("useradd", &["--system", "--user-group", "--shell", "/usr/sbin/nologin", "keeper"]);
    let text =
        "service_user = \"keeper\"\nauthentication = [\"password\"]\n[pam]\naccounts_only = [\"times\"]\n";
    install_application("keeper", text);
    wait_until("the application is known", || {
        deputyctl("keeper", &["account", "list", "keeper"]).status == 0
    });
    let root = |arguments: &[&str]| {
        let output = deputyctl("root", arguments);
        assert_eq!(output.status, 0, "{arguments:?}: {}", output.stderr);
    };
    for name in ["present", "gone", "bare"] {
        root(&["account", "add", "keeper", name]);
    }
    for name in ["present", "gone"] {
        on_bus("root", async |client| {
            let body = (name, pipe(PASSWORD), options(&[("application", "keeper")]));
            client.call::<_, ()>("Accounts.SetPassword", &body).await.expect("the password is set");
        });
    }
    root(&["account", "deactivate", "keeper", "gone"]);
}

/// One refused login; the right password for all but the one whose password is there.
async fn attempt(client: &Client, account: &str, number: usize) -> Duration {
    let password = if account == "present" { "another harbour seven kites" } else { PASSWORD };
    // From an origin of its own: no try waits for an earlier one.
    let origin = format!("try {number}");
    let body = (account, pipe(password), options(&[("origin", &origin)]));
    let begun = Instant::now();
    let refused = client.call::<_, (zbus::OwnedObjectPath,)>("Authentication.Password", &body).await;
    let took = begun.elapsed();
    assert_eq!(refused.expect_err("a refusal").code(), "AuthenticationFailed", "{account}");
    took
}

/// The same, through a program that knows PAM.
async fn attempt_by_pam(account: &'static str, number: usize) -> Duration {
    let password = if account == "present" { "another harbour seven kites" } else { PASSWORD };
    let origin = format!("rhost=try-{number}");
    let login = move || {
        // Its thread is the application's, which may ask about its own accounts.
        let mut command = Command::new("pamtester");
        command.args(["-I", &origin, "times", account, "authenticate"]);
        let begun = Instant::now();
        let output = answering(command, &[password]);
        (begun.elapsed(), output)
    };
    let (took, output) = tokio::task::spawn_blocking(login).await.expect("it ran");
    assert!(output.stderr.ends_with("pamtester: Authentication failure\n"), "{account}: {output:?}");
    took
}

fn pipe(password: &str) -> zbus::OwnedFd {
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    writer.write_all(password.as_bytes()).expect("the password");
    OwnedFd::from(reader).into()
}

/// The largest distance between the distributions of two sorted samples (Kolmogorov and Smirnov), and the one that
/// two samples of the same distribution exceed once in twenty times.
fn compare(one: &[Duration], other: &[Duration]) -> (f64, f64) {
    let below = |times: &[Duration], bound: Duration| {
        ratio(times.partition_point(|time| *time <= bound), times.len())
    };
    let distance = one
        .iter()
        .chain(other)
        .map(|&bound| (below(one, bound) - below(other, bound)).abs())
        .fold(0.0, f64::max);
    let (one, other) = (one.len(), other.len());
    (distance, 1.358 * (ratio(one + other, one * other)).sqrt())
}

#[allow(clippy::cast_precision_loss, reason = "numbers of tries are small")]
fn ratio(part: usize, whole: usize) -> f64 {
    part as f64 / whole as f64
}
