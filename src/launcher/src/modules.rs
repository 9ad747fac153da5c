//! PAM's modules, mapped ahead of their use.
//!
//! libpam loads a job's modules anew in each shepherd, and with them those of the service `other`, which it reads
//! beside every service. Mapping and relocating them is a good part of what a launch costs, so the launcher keeps
//! their shared objects mapped, and its children inherit them. It makes no PAM handle and calls no module: all that
//! happens here is what the loader does. A stack that is not understood here costs time, and nothing else.

use std::collections::BTreeSet;
use std::ffi::{CString, OsStr};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use deputy_etc::{MAX_FILE, root_owned};
use deputy_sys::modules::{Mapped, map_all};

/// Where the services' files are.
const PAM_D: &str = "/etc/pam.d";

/// The services whose modules a job needs: its own, and the one that libpam always reads as well.
const SERVICES: [&str; 2] = ["deputy-job", "other"];

/// Where libpam looks for modules, besides the place of Debian's architecture.
const FOLDERS: [&str; 3] = ["/usr/lib64/security", "/lib64/security", "/lib/security"];

/// What tells whether a folder is as it was; a file that is replaced has its folder changed.
type Stamp = Option<(u64, i64, i64)>;

/// The modules of a job's stack, mapped.
#[derive(Default)]
pub struct Modules {
    mapped: Vec<Mapped>,
    seen: Option<[Stamp; 2]>,
}

impl Modules {
    /// Maps them, and maps them anew when the stacks or the modules were changed. A launcher that has been running
    /// for weeks then loads what an update brought, as every new process would.
    pub fn keep_mapped(&mut self) {
        let folder = folder();
        let now = [stamp(Path::new(PAM_D)), stamp(&folder)];
        if self.seen == Some(now) {
            return;
        }
        self.seen = Some(now);
        self.mapped.clear();
        let names = of_services(&SERVICES, |service| {
            root_owned::read_text(&Path::new(PAM_D).join(service), MAX_FILE).ok()
        });
        let paths: Vec<CString> = names
            .iter()
            .filter_map(|name| CString::new(folder.join(name).into_os_string().into_encoded_bytes()).ok())
            .collect();
        match map_all(&paths.iter().map(CString::as_c_str).collect::<Vec<_>>()) {
            Ok(mapped) => {
                tracing::info!(event = "pam_modules_mapped", count = mapped.len());
                self.mapped = mapped;
            }
            // Then each shepherd loads them by itself, as it would without this.
            Err(error) => tracing::warn!(event = "pam_modules_not_mapped", error = %error),
        }
    }
}

fn stamp(folder: &Path) -> Stamp {
    fs::metadata(folder).ok().map(|found| (found.ino(), found.mtime(), found.mtime_nsec()))
}

/// The folder that libpam has its modules in.
fn folder() -> PathBuf {
    let of_debian = PathBuf::from(format!("/lib/{}-linux-gnu/security", std::env::consts::ARCH));
    let mut folders = [of_debian.clone()].into_iter().chain(FOLDERS.map(PathBuf::from));
    folders.find(|folder| folder.is_dir()).unwrap_or(of_debian)
}

/// The file names of the modules that services name, and those that they include, as `read` gives their files.
fn of_services(services: &[&str], read: impl Fn(&str) -> Option<String>) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut seen: BTreeSet<String> = services.iter().map(|&service| service.to_owned()).collect();
    let mut waiting: Vec<String> = seen.iter().cloned().collect();
    while let Some(text) = waiting.pop().map(|service| read(&service).unwrap_or_default()) {
        for line in text.replace("\\\n", " ").lines() {
            let words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
            let words: Vec<&str> = words.collect();
            let included = match words[..] {
                ["@include", service] | [_, "include" | "substack", service, ..] => Some(service),
                _ => None,
            };
            if let Some(service) =
                included.filter(|service| is_plain(service) && seen.insert((*service).to_owned()))
            {
                waiting.push(service.to_owned());
            }
            // The module is the first word of its kind: what follows are its arguments.
            names.extend(words.into_iter().find(|word| is_module(word)).map(str::to_owned));
        }
    }
    names
}

fn is_module(word: &str) -> bool {
    word.starts_with("pam_") && Path::new(word).extension() == Some(OsStr::new("so")) && is_plain(word)
}

fn is_plain(word: &str) -> bool {
    !word.starts_with('.') && !word.contains('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modules(services: &[(&str, &str)]) -> Vec<String> {
        let read = |wanted: &str| {
            services.iter().find(|(name, _)| *name == wanted).map(|(_, text)| (*text).to_owned())
        };
        of_services(&["deputy-job", "other"], read).into_iter().collect()
    }

    #[test]
    fn what_is_no_module_of_pams_folder_is_left_out() {
        let text = "# auth required pam_comment.so\nauth required /tmp/pam_own.so\nauth required ../pam_up.so\n\
                    session optional pam_exec.so pam_argument.so /usr/lib/x.so\n@include ../../tmp/x\nauth\n\n\0\n";
        assert_eq!(
            modules(&[("deputy-job", text), ("../../tmp/x", "auth required pam_x.so")]),
            ["pam_exec.so"]
        );
        assert_eq!(modules(&[]), [""; 0]);
    }

    #[test]
    fn included_services_are_followed_once() {
        let found = modules(&[
            ("deputy-job", "@include common\n-session [success=1 default=ignore] \\\n pam_a.so x=y\n"),
            ("common", "auth include more\nauth substack deputy-job\naccount required pam_b.so"),
            ("more", "auth required pam_c.so\n@include common"),
            ("other", "@include common"),
        ]);
        assert_eq!(found, ["pam_a.so", "pam_b.so", "pam_c.so"]);
    }
}
