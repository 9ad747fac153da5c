//! Prints, as one JSON object, what the kernel says about this process: what it was given at its start, and by whom.
//!
//! `deputy-probe STATUS`, where STATUS is the text of `/proc/self/status` of a program that ran in this place just
//! before. Rust's runtime changes signal dispositions ahead of `main`, so those have to come from a program that has
//! no such runtime: `sh -c 'exec deputy-probe "$(cat /proc/self/status)"'`.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;

use rustix::process::Signal;
use serde_json::{Map, Value, json};

/// What is said where the kernel has no such thing.
const UNSUPPORTED: &str = "unsupported";

fn main() {
    // First of all, while there are no descriptors but those that were inherited.
    let descriptors = descriptors();
    let Some(before) = std::env::args().nth(1) else {
        eprintln!("usage: sh -c 'exec deputy-probe \"$(cat /proc/self/status)\"'");
        std::process::exit(2);
    };
    let own = text("/proc/self/status");
    let report = json!({
        "uid": ids(&own, "Uid"),
        "gid": ids(&own, "Gid"),
        "groups": groups(&own),
        "capabilities": capabilities(&own),
        "securebits": rustix::thread::capabilities_secure_bits()
            .map_or_else(|_| UNSUPPORTED.to_owned(), |bits| format!("{:#x}", bits.bits())),
        "limits": limits(),
        "umask": field(&own, "Umask"),
        "environment": environment(),
        "descriptors": descriptors,
        "signals": signals(&before),
        "loginuid": text_of("/proc/self/loginuid"),
        "sessionid": audit_session(),
        "keyring": keyring(),
        "session": session(),
        "no_new_privs": field(&own, "NoNewPrivs"),
        "seccomp": field(&own, "Seccomp"),
        "oom_score_adj": text_of("/proc/self/oom_score_adj"),
        "nice": stat(19),
        "scheduling": { "priority": stat(40), "policy": stat(41) },
        "cpus": field(&own, "Cpus_allowed_list"),
        "memory_nodes": field(&own, "Mems_allowed_list"),
        "cgroup": cgroups(),
        "directory": link("/proc/self/cwd"),
        "root": link("/proc/self/root"),
        "namespaces": namespaces(),
        "dumpable": rustix::process::dumpable_behavior()
            .map_or_else(|_| UNSUPPORTED.to_owned(), |behavior| format!("{behavior:?}")),
        "parent_death_signal": rustix::process::parent_process_death_signal()
            .map_or_else(|_| UNSUPPORTED.to_owned(), |signal| signal.map_or(0, Signal::as_raw).to_string()),
        "personality": text_of("/proc/self/personality"),
    });
    println!("{report}");
}

/// The whole of a small file, or nothing.
fn text(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The contents of a file of one value.
fn text_of(path: &str) -> String {
    fs::read_to_string(path).map_or_else(|_| UNSUPPORTED.to_owned(), |text| text.trim_end().to_owned())
}

fn link(path: &str) -> String {
    fs::read_link(path).map_or_else(|error| error.to_string(), |target| target.to_string_lossy().into_owned())
}

/// One line of `/proc/PID/status`.
fn field(status: &str, name: &str) -> String {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map_or_else(|| UNSUPPORTED.to_owned(), |value| value.trim().to_owned())
}

/// Real, effective, saved and file system id.
fn ids(status: &str, name: &str) -> Value {
    let numbers = field(status, name);
    let names = ["real", "effective", "saved", "filesystem"];
    names
        .iter()
        .zip(numbers.split_ascii_whitespace())
        .map(|(name, id)| ((*name).to_owned(), json!(id)))
        .collect()
}

fn groups(status: &str) -> Vec<u32> {
    let mut groups: Vec<u32> =
        field(status, "Groups").split_ascii_whitespace().filter_map(|gid| gid.parse().ok()).collect();
    groups.sort_unstable();
    groups
}

fn capabilities(status: &str) -> Value {
    let sets = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];
    sets.iter().map(|set| ((*set).to_owned(), json!(field(status, set)))).collect()
}

/// `/proc/self/limits`: a name of several words, then soft limit, hard limit and perhaps a unit.
fn limits() -> Map<String, Value> {
    const NAME_WIDTH: usize = 26;
    text("/proc/self/limits")
        .lines()
        .skip(1)
        .filter_map(|line| {
            let (name, values) = line.split_at_checked(NAME_WIDTH)?;
            let mut values = values.split_ascii_whitespace();
            let (soft, hard) = (values.next()?, values.next()?);
            Some((name.trim().to_owned(), json!(format!("{soft} {hard}"))))
        })
        .collect()
}

/// As it was at the start, with variables that are there twice.
fn environment() -> Map<String, Value> {
    let mut variables: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for variable in fs::read("/proc/self/environ").unwrap_or_default().split(|&byte| byte == 0) {
        let variable = String::from_utf8_lossy(variable);
        if variable.is_empty() {
            continue;
        }
        let (name, value) = variable.split_once('=').unwrap_or((&variable, "(no value)"));
        variables.entry(name.to_owned()).or_default().push(value.to_owned());
    }
    variables.into_iter().map(|(name, values)| (name, json!(values.join(" and then ")))).collect()
}

/// Every descriptor and what it is. Numbers of pipes and sockets differ at each start and are left out.
fn descriptors() -> Map<String, Value> {
    let own = format!("/proc/{}/fd", std::process::id());
    let listed = || -> io::Result<Map<String, Value>> {
        let mut found = Map::new();
        for entry in fs::read_dir("/proc/self/fd")? {
            let entry = entry?;
            let target = link(&entry.path().to_string_lossy());
            // The one that lists.
            if target != own {
                let kind = target.split_once(":[").map_or(target.as_str(), |(kind, _)| kind);
                found.insert(entry.file_name().to_string_lossy().into_owned(), json!(kind));
            }
        }
        Ok(found)
    };
    listed().unwrap_or_default()
}

fn signals(status: &str) -> Value {
    ["SigBlk", "SigIgn", "SigCgt", "ShdPnd"]
        .iter()
        .map(|name| ((*name).to_owned(), json!(field(status, name))))
        .collect()
}

/// Whether the audit system has a session for this process; its number is another each time.
fn audit_session() -> String {
    match text_of("/proc/self/sessionid").as_str() {
        UNSUPPORTED => UNSUPPORTED.to_owned(),
        "4294967295" => "none".to_owned(),
        _ => "one".to_owned(),
    }
}

/// The cgroup in each hierarchy, by the hierarchy's controllers; version 2 has the empty name.
fn cgroups() -> Map<String, Value> {
    text("/proc/self/cgroup")
        .lines()
        .filter_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            Some((controllers.to_owned(), json!(path)))
        })
        .collect()
}

/// The kinds of keys that this process can see: owner, type and description, without serial numbers, ages and
/// contents, which depend on what else runs as the same user just now.
fn keyring() -> Value {
    let Ok(keys) = fs::read_to_string("/proc/keys") else { return json!(UNSUPPORTED) };
    let found: BTreeSet<String> = keys
        .lines()
        .map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let owner = fields.get(5).copied().unwrap_or_default();
            let description = fields.get(7..).unwrap_or_default().join(" ");
            let name = description.rsplit_once(':').map_or(description.as_str(), |(name, _)| name);
            format!("uid {owner}: {name}")
        })
        .collect();
    json!(found)
}

/// A field of `/proc/self/stat`, counted from 1 as in proc(5).
fn stat(number: usize) -> String {
    let stat = text("/proc/self/stat");
    // The second field is the program's name in brackets and may have spaces.
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    rest.split_ascii_whitespace().nth(number - 3).unwrap_or(UNSUPPORTED).to_owned()
}

fn session() -> Value {
    let own = std::process::id().to_string();
    json!({
        "leads_its_process_group": stat(5) == own,
        "leads_its_session": stat(6) == own,
        "controlling_terminal": stat(7),
    })
}

fn namespaces() -> Map<String, Value> {
    let mut found = Map::new();
    for entry in fs::read_dir("/proc/self/ns").into_iter().flatten().flatten() {
        let target = link(&entry.path().to_string_lossy());
        found.insert(entry.file_name().to_string_lossy().into_owned(), json!(target));
    }
    found
}
