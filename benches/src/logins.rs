//! What a login through PAM costs by `pam_deputy.so`, beside `pam_unix` with a hash that costs as much.
//!
//! Deputy's hashes are Argon2id, those of passwd's passwords yescrypt. Of yescrypt's costs the one is taken whose time is
//! nearest to Argon2id's here. What is left of a login without its hash is what the way there costs.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use deputyd::passwords::hasher::Hasher;
use deputyd::passwords::secret::Secret;
use serde::Serialize;

use crate::contender::USER;
use crate::statistics::{quantile, ratio};

/// The module that is measured; `benches/run.sh` says where it is.
const MODULE: &str = "DEPUTY_BENCH_PAM";
/// Where it lies in the sandbox.
const PLACE: &str = "/srv/bench-pam/pam_deputy.so";
/// The application.
const APPLICATION: &str = "bench";
const PASSWORD: &str = "violet harbour seven kites";
/// Yescrypt's costs.
const COSTS: std::ops::RangeInclusive<u32> = 1..=8;

/// Medians, in nanoseconds.
#[derive(Debug, Serialize)]
pub struct Report {
    /// How often each was measured.
    pub rounds: usize,
    /// One comparison with a hash of Deputy's.
    pub argon2id_ns: u64,
    /// The cost of yescrypt that is nearest to it.
    pub yescrypt_cost: u32,
    /// One comparison with a hash of that cost.
    pub yescrypt_ns: u64,
    /// A login by `pam_deputy.so`, as an OS account, consent and all.
    pub deputy_ns: u64,
    /// A login by `pam_unix`.
    pub unix_ns: u64,
}

/// Measures. Needs root in the sandbox, with both daemons and the person of the other measurements.
pub fn measure(rounds: usize) -> Result<Report> {
    prepare()?;
    let argon2id_ns = argon2id(rounds)?;
    let mut nearest = (u64::MAX, 0, 0, String::new());
    for cost in COSTS {
        let text = reference(&["hash", "20", &format!("$y$ {cost}"), PASSWORD])?;
        let (time, hash) = text.split_once('\n').context("a time and a hash")?;
        let time: u64 = time.parse()?;
        if time.abs_diff(argon2id_ns) < nearest.0 {
            nearest = (time.abs_diff(argon2id_ns), cost, time, hash.trim().to_owned());
        }
    }
    let (_, yescrypt_cost, yescrypt_ns, hash) = nearest;
    run("usermod", &["-p", &hash, USER], "")?;
    let text = reference(&["logins", &rounds.to_string(), USER, PASSWORD, "bench-deputy", "bench-unix"])?;
    let times: Vec<u64> = text.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let &[deputy_ns, unix_ns] = &times[..] else { anyhow::bail!("'{text}' instead of two numbers") };
    Ok(Report { rounds, argon2id_ns, yescrypt_cost, yescrypt_ns, deputy_ns, unix_ns })
}

/// The report as a table.
pub fn table(report: &Report) -> String {
    let mut text = format!(
        "One login by PAM (start, authenticate, account, end), medians of {} in milliseconds. yescrypt's cost is {}, \
         the nearest to Argon2id here.\n\n",
        report.rounds, report.yescrypt_cost
    );
    let ms = |nanoseconds: u64| format!("{:.2}", ratio(nanoseconds, 1_000_000));
    let _ = writeln!(text, "{:30} {:>10} {:>10} {:>10}", "", "login", "its hash", "the rest");
    for (name, login, hash) in [
        ("pam_deputy, Argon2id", report.deputy_ns, report.argon2id_ns),
        ("pam_unix, yescrypt", report.unix_ns, report.yescrypt_ns),
    ] {
        let _ = writeln!(
            text,
            "{name:30} {:>10} {:>10} {:>10}",
            ms(login),
            ms(hash),
            ms(login.saturating_sub(hash))
        );
    }
    let _ =
        writeln!(text, "\nA login is {:.2} times one by pam_unix.", ratio(report.deputy_ns, report.unix_ns));
    text
}

/// The module, two services, and an account that is linked to the person.
fn prepare() -> Result<()> {
    let module = std::env::var_os(MODULE).with_context(|| format!("{MODULE}: benches/run.sh sets it"))?;
    fs::create_dir_all("/srv/bench-pam")?;
    fs::copy(&module, PLACE).with_context(|| module.display().to_string())?;
    for (service, module) in
        [("bench-deputy", format!("{PLACE} application={APPLICATION}")), ("bench-unix", "pam_unix.so".into())]
    {
        let lines = format!("auth required {module}\naccount required {module}\n");
        fs::write(format!("/etc/pam.d/{service}"), lines)?;
    }
    let root = |arguments: &[&str], input: &str| run("deputyctl", arguments, input);
    root(&["account", "add", APPLICATION, USER], "")?;
    root(&["account", "password", APPLICATION, USER, "--answers-fd", "0"], &format!("{PASSWORD}\n"))?;
    root(&["consent", "grant", APPLICATION, USER, USER], "")?;
    root(&["link", "request", APPLICATION, USER, USER], "")
}

/// One comparison with a hash, as the daemon makes it.
fn argon2id(rounds: usize) -> Result<u64> {
    let secret = || Secret::new(PASSWORD.as_bytes().to_vec().into());
    let denied = |denial: deputy_core::Denial| anyhow::anyhow!(denial.message);
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(async {
        let hasher = Hasher::new().map_err(denied)?;
        let hash: Arc<str> = hasher.hash(secret()).await.map_err(denied)?.into();
        let mut samples = Vec::with_capacity(rounds);
        for _ in 0..rounds {
            let begun = Instant::now();
            ensure!(
                hasher.matches(secret(), Arc::clone(&hash)).await.map_err(denied)?,
                "the hash is another's"
            );
            samples.push(u64::try_from(begun.elapsed().as_nanos())?);
        }
        Ok(quantile(&mut samples, 50))
    })
}

fn reference(arguments: &[&str]) -> Result<String> {
    let output = Command::new("deputy-bench-login").args(arguments).output().context("deputy-bench-login")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

fn run(program: &str, arguments: &[&str], input: &str) -> Result<()> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| program.to_owned())?;
    child.stdin.take().context("a pipe")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
