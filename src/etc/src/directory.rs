//! The folder `/etc/deputy`.

use std::path::{Path, PathBuf};

use deputy_core::application::{Application, ApplicationError, Service, named_services};
use deputy_core::denial::{Code, Denial};
use deputy_core::names::{ApplicationName, OsUserName};
use deputy_core::policy::{DAEMON_USER, ServiceIdentities};
use deputy_core::settings::Settings;

use crate::root_owned::{RootOwnedError, read_text};

/// The most bytes of a configuration file.
pub const MAX_FILE: u64 = 256 * 1024;

/// The folder that holds `deputy.toml` and `applications.d`. Nothing is kept between calls.
#[derive(Debug, Clone)]
pub struct Directory(PathBuf);

impl Directory {
    /// The folder at this path.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The machine's settings; the defaults if there is no file.
    pub fn settings(&self) -> Result<Settings, Denial> {
        let path = self.0.join("deputy.toml");
        let refuse = |message: String, remedy: String| {
            Denial::new(Code::SettingsInvalid, path.display().to_string(), message).remedy(remedy)
        };
        match read_text(&path, MAX_FILE) {
            Ok(text) => Settings::parse(&text)
                .map_err(|error| refuse(of_file(&path, &error), format!("correct {}", path.display()))),
            Err(error) if error.is_absent() => Ok(Settings::default()),
            Err(error) => Err(refuse(error.to_string(), error.remedy())),
        }
    }

    /// The path of an application's file.
    pub fn application_path(&self, name: &ApplicationName) -> PathBuf {
        self.applications().join(format!("{name}.toml"))
    }

    /// One application.
    pub fn application(&self, name: &ApplicationName) -> Result<Application, Denial> {
        let path = self.application_path(name);
        let text = read_text(&path, MAX_FILE).map_err(|error| refused(&path, &error))?;
        Application::parse(&text).map_err(|error| invalid(&path, &error))
    }

    /// The names of all applications, valid or not, in order. A file whose name is no application's name is left
    /// out.
    pub fn names(&self) -> Vec<ApplicationName> {
        let Ok(entries) = std::fs::read_dir(self.applications()) else { return Vec::new() };
        let mut names: Vec<_> = entries
            .filter_map(|entry| {
                let file = entry.ok()?.file_name().into_string().ok()?;
                ApplicationName::new(file.strip_suffix(".toml")?).ok()
            })
            .collect();
        names.sort();
        names
    }

    /// Who is never a target: Deputy's own user, and the service users of all applications, those whose file is
    /// invalid included; but without what the file of `but` says, for the one application that may act as its own.
    /// `read` is an application that was read already. `look_up` gives the uid and gid of a passwd name. A file that
    /// cannot even be read makes this an error, because somebody it protects would be left out.
    pub fn services(
        &self,
        but: Option<&ApplicationName>,
        read: Option<(&ApplicationName, &Application)>,
        look_up: impl Fn(&OsUserName) -> Option<(u32, u32)>,
        look_up_uid: impl Fn(u32) -> Option<(u32, u32)>,
    ) -> Result<ServiceIdentities, Denial> {
        let mut identities = ServiceIdentities::default();
        let mut add = |found: Option<(u32, u32)>| {
            if let Some((uid, gid)) = found {
                if !identities.uids.contains(&uid) {
                    identities.uids.push(uid);
                }
                if !identities.gids.contains(&gid) {
                    identities.gids.push(gid);
                }
            }
        };
        add(OsUserName::new(DAEMON_USER).ok().as_ref().and_then(&look_up));
        for name in self.names() {
            if but == Some(&name) {
                continue;
            }
            let named = match read.filter(|(read, _)| **read == name) {
                Some((_, application)) => vec![application.service.clone()],
                None => self.named_services(&name)?,
            };
            for service in named {
                match service {
                    Service::User(user) => add(look_up(&user)),
                    Service::Uid(uid) => add(look_up_uid(uid).or(Some((uid, uid)))),
                }
            }
        }
        Ok(identities)
    }

    /// The file as it is read elsewhere says who speaks for the application, however it is written; what can be made out
    /// of a broken one counts beside it.
    fn named_services(&self, name: &ApplicationName) -> Result<Vec<Service>, Denial> {
        let path = self.application_path(name);
        let text = read_text(&path, MAX_FILE).map_err(|error| refused(&path, &error))?;
        let read = Application::parse(&text).map(|application| application.service);
        Ok(named_services(&text).into_iter().chain(read.ok()).collect())
    }

    fn applications(&self) -> PathBuf {
        self.0.join("applications.d")
    }
}

fn refused(path: &Path, error: &RootOwnedError) -> Denial {
    Denial::new(Code::ApplicationInvalid, path.display().to_string(), error.to_string())
        .remedy(error.remedy())
}

/// A check shows the message without the rule, and it is a person who has to find the place.
fn of_file(path: &Path, error: &dyn std::fmt::Display) -> String {
    format!("{}: {error}", path.display())
}

fn invalid(path: &Path, error: &ApplicationError) -> Denial {
    Denial::new(Code::ApplicationInvalid, path.display().to_string(), of_file(path, error))
        .remedy(format!("correct {}; deputyctl application check tells when it is right", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    fn directory() -> (tempfile::TempDir, Directory) {
        let folder = tempfile::Builder::new().prefix("deputy-etc").tempdir_in("/var/lib").unwrap();
        fs::create_dir(folder.path().join("applications.d")).unwrap();
        let directory = Directory::new(folder.path());
        (folder, directory)
    }

    fn name(text: &str) -> ApplicationName {
        ApplicationName::new(text).unwrap()
    }

    #[test]
    fn an_application_that_is_absent_broken_or_not_roots_is_refused() {
        let (folder, directory) = directory();
        let path = folder.path().join("applications.d/demo.toml");
        assert_eq!(directory.application(&name("demo")).unwrap_err().code, Code::ApplicationInvalid);
        fs::write(&path, "service_user = \"portal\"\nkind = 1\n").unwrap();
        let denial = directory.application(&name("demo")).unwrap_err();
        assert!(denial.message.contains("line 2"), "{}", denial.message);
        fs::write(&path, "service_user = \"portal\"\n").unwrap();
        assert!(directory.application(&name("demo")).is_ok());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        let denial = directory.application(&name("demo")).unwrap_err();
        assert!(denial.remedy.contains("chmod go-w"), "{}", denial.remedy);
    }

    #[test]
    fn settings_may_be_absent_but_not_wrong() {
        let (folder, directory) = directory();
        assert_eq!(directory.settings().unwrap(), Settings::default());
        fs::write(folder.path().join("deputy.toml"), "x = 1").unwrap();
        assert_eq!(directory.settings().unwrap_err().code, Code::SettingsInvalid);
    }

    #[test]
    fn service_users_stay_protected_when_their_file_is_broken() {
        let (folder, directory) = directory();
        fs::write(folder.path().join("applications.d/a.toml"), "service_user = \"portal\"\nbroken [[")
            .unwrap();
        fs::write(folder.path().join("applications.d/b.toml"), "service_uid = 4242\n").unwrap();
        fs::write(folder.path().join("applications.d/.hidden.toml"), "").unwrap();
        assert_eq!(directory.names(), [name("a"), name("b")]);
        let look_up = |user: &OsUserName| match user.as_str() {
            "deputy" => Some((990, 991)),
            "portal" => Some((1500, 1501)),
            _ => None,
        };
        let services = directory.services(None, None, look_up, |_| None).unwrap();
        assert_eq!(services.uids, [990, 1500, 4242]);
        assert_eq!(services.gids, [991, 1501, 4242]);
        // What is left out is what this file says, not whom it names: another file may name the same.
        let services = directory.services(Some(&name("a")), None, look_up, |_| None).unwrap();
        assert_eq!(services.uids, [990, 4242]);
        fs::write(folder.path().join("applications.d/c.toml"), "service_user = \"portal\"\n").unwrap();
        let services = directory.services(Some(&name("a")), None, look_up, |_| None).unwrap();
        assert_eq!(services.uids, [990, 4242, 1500]);
        // What was read is not read again.
        let c = Application::parse("service_uid = 5151\n").unwrap();
        let read = directory.services(None, Some((&name("c"), &c)), look_up, |_| None).unwrap();
        assert_eq!(read.uids, [990, 1500, 4242, 5151]);
        fs::remove_file(folder.path().join("applications.d/c.toml")).unwrap();
        // A key and a name that only a reader of TOML recognises.
        fs::write(folder.path().join("applications.d/b.toml"), "\"service_user\" = \"port\\u0061l\"\n")
            .unwrap();
        fs::remove_file(folder.path().join("applications.d/a.toml")).unwrap();
        assert_eq!(directory.services(None, None, look_up, |_| None).unwrap().uids, [990, 1500]);
        let unreadable = folder.path().join("applications.d/c.toml");
        fs::write(&unreadable, "x").unwrap();
        fs::set_permissions(&unreadable, fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(
            directory.services(None, None, look_up, |_| None).unwrap_err().code,
            Code::ApplicationInvalid
        );
    }
}
