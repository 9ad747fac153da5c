//! What a question to the name service costs by `libnss_deputy.so.2`, beside other services with the same accounts.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

/// Where everything lies; private to the sandbox.
const FOLDER: &str = "/srv/bench-nss";
/// The module that is measured; `benches/run.sh` says where it is.
const MODULE: &str = "DEPUTY_BENCH_NSS";
/// Numbers of accounts.
const SIZES: [u32; 2] = [1_000, 1_000_000];
/// The first uid; the range has room for those that are asked for and not there.
const FIRST: u32 = 3_000_000;
/// Ten folders' files each would be millions of them: only the small number for `nss-systemd`.
const SYSTEMD_AT_MOST: u32 = 1_000;

/// Medians of one service with so many accounts, in nanoseconds.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Who answers.
    pub service: &'static str,
    /// How many accounts it has.
    pub accounts: u32,
    /// By name, of one that is there.
    pub hit_name_ns: u64,
    /// By uid, of one that is there.
    pub hit_uid_ns: u64,
    /// By name, of one that is not.
    pub miss_name_ns: u64,
    /// By uid, of one that is not.
    pub miss_uid_ns: u64,
    /// The system calls of a hit by this service's module, with nothing computed in between.
    pub calls_ns: Option<u64>,
}

/// Measures every service with every number of accounts. Needs root in the sandbox.
pub fn rows() -> Result<Vec<Row>> {
    install()?;
    let mut rows = Vec::new();
    for accounts in SIZES {
        write_accounts(accounts)?;
        // Each has mounts of its own for its data. /etc/passwd is the sandbox's own where it is not the data.
        let last = FIRST + 2 * accounts;
        // /etc/passwd is young where the sandbox is; the map notes only one that has been as it is for a while.
        let map = format!("sleep 3; deputy-nss-map {FIRST}-{last} {FIRST}-{last} {FOLDER}/passwd /dev/null;");
        let changed = format!("{map} cp /etc/passwd /mnt/passwd; mount --bind /mnt/passwd /etc/passwd;");
        let files = format!("mount --bind {FOLDER}/passwd /etc/passwd;");
        let extra = format!("mkdir -p /var/lib/extrausers; cp {FOLDER}/passwd /var/lib/extrausers/passwd;");
        rows.push(measure("deputy", "deputy", accounts, &map)?);
        rows.push(measure("deputy, passwd changed since", "deputy", accounts, &changed)?);
        rows.push(measure("files", "files", accounts, &files)?);
        if there("libnss_extrausers.so.2") {
            rows.push(measure("extrausers", "extrausers", accounts, &extra)?);
        }
        if there("libnss_systemd.so.2") && accounts <= SYSTEMD_AT_MOST {
            rows.push(measure("systemd, drop-ins", "systemd", accounts, &drop_ins())?);
        }
    }
    Ok(rows)
}

/// The rows as a table; ratios are to `files` with as many accounts.
pub fn table(rows: &[Row]) -> String {
    let mut text = String::from("One question to the name service, medians in microseconds.\n\n");
    let line = |text: &mut String, columns: [&str; 7]| {
        let [service, accounts, a, b, c, d, ratio] = columns;
        let _ = writeln!(text, "{service:30} {accounts:>8} {a:>10} {b:>10} {c:>10} {d:>10} {ratio:>10}");
    };
    line(&mut text, ["", "accounts", "hit name", "hit uid", "miss name", "miss uid", "/ files"]);
    for row in rows {
        let files = rows.iter().find(|other| other.service == "files" && other.accounts == row.accounts);
        let to_files =
            files.map_or(0.0, |files| crate::statistics::ratio(row.hit_name_ns, files.hit_name_ns));
        let us = |nanoseconds| format!("{:.2}", crate::statistics::ratio(nanoseconds, 1000));
        let numbers = [row.hit_name_ns, row.hit_uid_ns, row.miss_name_ns, row.miss_uid_ns].map(us);
        let [a, b, c, d] = numbers.each_ref().map(String::as_str);
        line(&mut text, [row.service, &row.accounts.to_string(), a, b, c, d, &format!("{to_files:.5}")]);
    }
    for (row, calls) in rows.iter().filter_map(|row| row.calls_ns.map(|calls| (row, calls))) {
        let (us, ratio) = (
            crate::statistics::ratio(calls, 1000),
            crate::statistics::ratio(row.hit_name_ns.max(row.hit_uid_ns), calls),
        );
        let _ = writeln!(
            text,
            "{}, {}: the system calls of a hit alone take {us:.2}; the slower hit is {ratio:.2} times that.",
            row.service, row.accounts
        );
    }
    text
}

/// Puts the module where glibc finds it.
fn install() -> Result<()> {
    let module = std::env::var_os(MODULE).with_context(|| format!("{MODULE}: benches/run.sh sets it"))?;
    fs::create_dir_all(format!("{FOLDER}/lib"))?;
    fs::copy(&module, format!("{FOLDER}/lib/libnss_deputy.so.2"))
        .with_context(|| module.display().to_string())?;
    fs::write("/etc/ld.so.conf.d/deputy-bench.conf", format!("{FOLDER}/lib\n"))?;
    shell("ldconfig").map(drop)
}

fn there(library: &str) -> bool {
    ["/usr/lib", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"]
        .iter()
        .any(|folder| Path::new(folder).join(library).exists())
}

fn write_accounts(count: u32) -> Result<()> {
    let mut file = BufWriter::new(fs::File::create(format!("{FOLDER}/passwd"))?);
    for n in 0..count {
        let id = FIRST + n;
        writeln!(file, "bench{n:07}:*:{id}:{id}:Person {n}:/home/bench/{n}:/bin/bash")?;
    }
    Ok(file.flush()?)
}

/// A record and a link for each account, as userdb wants them (`nss-systemd(8)`).
fn drop_ins() -> String {
    format!(
        r#"mkdir -p /run/userdb; while IFS=: read -r name x uid gid rest; do
             printf '{{"userName":"%s","uid":%s,"gid":%s,"homeDirectory":"/home/x","shell":"/bin/sh"}}' \
                 $name $uid $gid > /run/userdb/$name.user
             ln -s $name.user /run/userdb/$uid.user
         done < {FOLDER}/passwd;"#
    )
}

/// Asks in a mount namespace where only this service answers for accounts.
fn measure(service: &'static str, switch: &str, accounts: u32, prepare: &str) -> Result<Row> {
    let calls = if service == "deputy" { "deputy-bench-nss calls" } else { "" };
    let script = format!(
        "mount -t tmpfs none /mnt; mount -t tmpfs none /var/lib/deputy/nss; {prepare}
         printf 'passwd: {switch}\\n' > /mnt/switch; mount --bind /mnt/switch /etc/nsswitch.conf
         deputy-bench-nss bench {accounts} {FIRST}
         {calls}"
    );
    let text = shell(&format!(
        "exec unshare --mount --propagation private bash -euc '{}'",
        script.replace('\'', r"'\''")
    ))
    .with_context(|| service.to_owned())?;
    let numbers: Vec<u64> = text.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let &[hit_name_ns, hit_uid_ns, miss_name_ns, miss_uid_ns, ref calls @ ..] = &numbers[..] else {
        anyhow::bail!("{service}: '{text}' instead of four numbers or five");
    };
    let calls_ns = calls.first().copied();
    Ok(Row { service, accounts, hit_name_ns, hit_uid_ns, miss_name_ns, miss_uid_ns, calls_ns })
}

fn shell(script: &str) -> Result<String> {
    let output = Command::new("bash").args(["-euc", script]).output()?;
    ensure!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}
