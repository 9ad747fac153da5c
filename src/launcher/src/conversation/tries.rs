//! How often somebody tried, counted before PAM runs.
//!
//! Counts are for one target of one application and for one application as a whole. Neither touches other
//! applications, other accounts' targets, or logins elsewhere: nobody is locked out of more than trying this password
//! through this application, for a while.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use deputy_core::denial::{Code, Denial};
use deputy_core::message::ConverseRequest;
use deputy_core::names::ApplicationName;
use serde::{Deserialize, Serialize};

use crate::consents::now;
use crate::paths::TRIES;

/// For how long a try counts.
const WINDOW_SECONDS: u64 = 600;

/// How many tries one target has in that time; a success forgives them.
const PER_TARGET: u32 = 10;

/// How many tries one application has, over all its targets.
const PER_CALLER: u32 = 3_000;

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tries {
    since: u64,
    count: u32,
}

/// Counts a try, and refuses it if there have been too many.
pub fn count(
    application: &ApplicationName,
    request: &ConverseRequest,
    service_uid: u32,
) -> Result<(), Denial> {
    count_one(&format!("caller-{service_uid}"), PER_CALLER)?;
    count_one(&target_name(application, request), PER_TARGET)
}

/// Forgets the tries for a target: whoever it was has proven it.
pub fn forgive(application: &ApplicationName, request: &ConverseRequest) {
    let _ = std::fs::remove_file(Path::new(TRIES).join(target_name(application, request)));
}

/// Names may hold any letters, so the file has the name of their bytes in hexadecimal, cut to what a file name holds.
fn target_name(application: &ApplicationName, request: &ConverseRequest) -> String {
    let key = format!("{application}:{}", request.os_user);
    let mut name = String::from("target-");
    for byte in key.bytes().take(120) {
        // Writing to a String cannot fail.
        let _ = write!(name, "{byte:02x}");
    }
    name
}

fn count_one(name: &str, limit: u32) -> Result<(), Denial> {
    let failed = |error: std::io::Error| Denial::internal(format!("{TRIES}/{name}: {error}"));
    let mut file = open(name).map_err(failed)?;
    file.lock().map_err(failed)?;
    let mut text = String::new();
    (&mut file).take(256).read_to_string(&mut text).map_err(failed)?;
    // An empty file is a new one; one that does not parse counts as new too, it is root's own.
    let mut tries: Tries = toml::from_str(&text).unwrap_or_default();
    let time = now();
    if time.saturating_sub(tries.since) >= WINDOW_SECONDS {
        tries = Tries { since: time, count: 0 };
    }
    if tries.count >= limit {
        let wait = (tries.since + WINDOW_SECONDS).saturating_sub(time);
        return Err(Denial::new(Code::TooManyTries, "tries", "too many tries for now")
            .remedy(format!("wait {wait} seconds; logins elsewhere are not affected")));
    }
    tries.count += 1;
    let text = toml::to_string(&tries).map_err(|error| Denial::internal(error.to_string()))?;
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| file.write_all(text.as_bytes()))
        .map_err(failed)
}

fn open(name: &str) -> std::io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(Path::new(TRIES).join(name))
}
