//! Which applications there are, and whose uid speaks for each.
//!
//! The files are root's; their order counts at once, without a restart. So each use compares a cheap signature of
//! the folder and its files, and reads them again only when it differs. The passwd entries behind the service users'
//! names are looked up again after a short while, because they change without any of our files changing.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use deputy_core::application::{Application, Service};
use deputy_core::settings::Settings;
use deputy_core::slurm::ClusterName;
use deputy_core::slurm::policy::unknown_cluster;
use deputy_core::{ApplicationName, Code, Denial, Finding, OsUserName};
use deputy_etc::Directory as Etc;
use rustix::fs::stat;

/// How long a passwd entry is believed without another look.
const PASSWD_LIFETIME: Duration = Duration::from_secs(10);

/// How long it is believed at most, while the other look is under way.
const PASSWD_LIMIT: Duration = Duration::from_secs(60);

/// An application whose file is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// Its name.
    pub name: ApplicationName,
    /// Its file.
    pub policy: Application,
    /// Who speaks for it; `None` while the service user is not known, or speaks for another one too.
    pub service_uid: Option<u32>,
}

/// Where the files come from; a double stands in for it in tests.
pub trait Source: Send + Sync {
    /// Something that changes when a file changes.
    fn signature(&self) -> Vec<Stamp>;
    /// The machine's settings.
    fn settings(&self) -> Result<Settings, Denial>;
    /// The names of all applications, valid or not.
    fn names(&self) -> Vec<ApplicationName>;
    /// One application.
    fn application(&self, name: &ApplicationName) -> Result<Application, Denial>;
    /// The uid of a passwd name.
    fn uid_of(&self, user: &OsUserName) -> Option<u32>;
}

/// What tells one state of a file from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    path: PathBuf,
    numbers: Option<[i64; 6]>,
}

impl Stamp {
    fn of(path: PathBuf) -> Self {
        // The conversions only have to be the same each time.
        #[allow(clippy::cast_possible_wrap, reason = "compared for equality, never computed with")]
        let numbers = stat(&path).ok().map(|s| {
            [
                s.st_ino as i64,
                s.st_mtime,
                s.st_mtime_nsec as i64,
                s.st_ctime,
                s.st_ctime_nsec as i64,
                s.st_size,
            ]
        });
        Self { path, numbers }
    }
}

/// `/etc/deputy` and the passwd database.
#[derive(Debug)]
pub struct EtcSource {
    etc: Etc,
    path: PathBuf,
}

impl EtcSource {
    /// The folder at this path.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self { etc: Etc::new(&path), path }
    }
}

impl Source for EtcSource {
    fn signature(&self) -> Vec<Stamp> {
        let folder = self.path.join("applications.d");
        let mut stamps = vec![Stamp::of(self.path.join("deputy.toml"))];
        // The folders' own owners and modes matter too: any change of them moves their ctime.
        stamps.push(Stamp::of(self.path.clone()));
        stamps.push(Stamp::of(folder));
        stamps.extend(self.etc.names().iter().map(|name| Stamp::of(self.etc.application_path(name))));
        stamps
    }

    fn settings(&self) -> Result<Settings, Denial> {
        self.etc.settings()
    }

    fn names(&self) -> Vec<ApplicationName> {
        self.etc.names()
    }

    fn application(&self, name: &ApplicationName) -> Result<Application, Denial> {
        self.etc.application(name)
    }

    fn uid_of(&self, user: &OsUserName) -> Option<u32> {
        nix::unistd::User::from_name(user.as_str()).ok().flatten().map(|user| user.uid.as_raw())
    }
}

/// The applications at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The machine's settings.
    pub settings: Settings,
    /// What is wrong with `deputy.toml`, if anything: the defaults hold in here, and the launcher refuses.
    pub settings_denial: Option<Denial>,
    applications: HashMap<ApplicationName, Result<Arc<Registered>, Denial>>,
    by_uid: HashMap<u32, ApplicationName>,
    findings: Vec<(Option<ApplicationName>, Finding)>,
}

impl Snapshot {
    /// The application that a uid speaks for.
    pub fn of_uid(&self, uid: u32) -> Option<Arc<Registered>> {
        self.by_uid.get(&uid).and_then(|name| self.applications.get(name)?.clone().ok())
    }

    /// An application by name; why it cannot be used, if its file is wrong; `None` if there is no file.
    pub fn get(&self, name: &ApplicationName) -> Option<Result<Arc<Registered>, Denial>> {
        self.applications.get(name).cloned()
    }

    /// The names of all, valid or not, in order.
    pub fn names(&self) -> Vec<ApplicationName> {
        let mut names: Vec<_> = self.applications.keys().cloned().collect();
        names.sort();
        names
    }

    /// What is wrong with one application, or with all and with the machine's settings.
    pub fn findings(&self, of: Option<&ApplicationName>) -> Vec<Finding> {
        let concerns = |name: &Option<ApplicationName>| of.is_none() || name.as_ref() == of;
        self.findings.iter().filter(|(name, _)| concerns(name)).map(|(_, finding)| finding.clone()).collect()
    }

    fn load(source: &dyn Source) -> Self {
        let mut snapshot = Self::default();
        match source.settings() {
            Ok(settings) => snapshot.settings = settings,
            Err(denial) => {
                snapshot.findings.push((None, denial.clone().into()));
                snapshot.settings_denial = Some(denial);
            }
        }
        let mut speakers: HashMap<u32, Vec<ApplicationName>> = HashMap::new();
        for name in source.names() {
            let registered = source.application(&name).map(|policy| {
                let service_uid = service_uid(source, &policy.service);
                Registered { name: name.clone(), policy, service_uid }
            });
            let unknown: Vec<Denial> =
                registered.iter().flat_map(|one| unknown_clusters(&snapshot.settings, one)).collect();
            for denial in unknown {
                snapshot.find(&name, denial.into());
            }
            match &registered {
                Err(denial) => snapshot.find(&name, denial.clone().into()),
                Ok(Registered { service_uid: Some(uid), .. }) => {
                    speakers.entry(*uid).or_default().push(name.clone());
                }
                Ok(_) => snapshot.find(
                    &name,
                    Finding::from(
                        Denial::new(
                            Code::ApplicationInvalid,
                            format!("applications.d/{name}.toml: service_user"),
                            "the service user is not known to this machine, or is root",
                        )
                        .remedy("create the system user, or correct service_user"),
                    ),
                ),
            }
            snapshot.applications.insert(name, registered.map(Arc::new));
        }
        for (uid, names) in speakers {
            snapshot.claim(uid, names);
        }
        snapshot
    }

    fn find(&mut self, name: &ApplicationName, finding: Finding) {
        tracing::warn!(application = %name, code = %finding.code, message = %finding.message, "finding");
        self.findings.push((Some(name.clone()), finding));
    }

    /// A uid speaks for one application. Where two claim it, each would act with the other's accounts: refused both.
    fn claim(&mut self, uid: u32, mut names: Vec<ApplicationName>) {
        if let [name] = names.as_slice() {
            self.by_uid.insert(uid, name.clone());
            return;
        }
        names.sort();
        let all = names.iter().map(ApplicationName::as_str).collect::<Vec<_>>().join(", ");
        for name in names {
            let denial = Denial::new(
                Code::ApplicationInvalid,
                format!("applications.d/{name}.toml: service_user"),
                format!("uid {uid} is the service user of more than one application: {all}"),
            )
            .remedy("give each application a service user of its own");
            self.find(&name, denial.clone().into());
            self.applications.insert(name, Err(denial));
        }
    }
}

/// Clusters that kinds name and `deputy.toml` does not. Their jobs are refused, and nothing else is.
fn unknown_clusters(settings: &Settings, of: &Registered) -> Vec<Denial> {
    let known = |cluster: &ClusterName| {
        settings.executor.slurm.as_ref().is_some_and(|slurm| slurm.cluster(cluster).is_some())
    };
    let mut unknown = Vec::new();
    for (name, kind) in &of.policy.kinds {
        let named = kind.slurm.iter().flat_map(|slurm| &slurm.clusters);
        unknown.extend(named.filter(|cluster| !known(cluster)).map(|cluster| {
            let key = format!("kinds.{name}.slurm.clusters");
            let denial = unknown_cluster(cluster);
            Denial {
                rule: format!("applications.d/{}.toml: {key}", of.name),
                message: format!("{key}: {}", denial.message),
                ..denial
            }
        }));
    }
    unknown
}

fn service_uid(source: &dyn Source, service: &Service) -> Option<u32> {
    match service {
        Service::User(user) => source.uid_of(user).filter(|&uid| uid != 0),
        Service::Uid(uid) => Some(*uid),
    }
}

/// The applications, as fresh as the files.
pub struct Directory(Arc<Inner>);

struct Inner {
    source: Box<dyn Source>,
    current: Mutex<Option<Loaded>>,
    /// One look at a time: a name service that hangs must not take a thread for each call.
    loading: Mutex<()>,
}

struct Loaded {
    signature: Vec<Stamp>,
    at: Instant,
    snapshot: Arc<Snapshot>,
}

impl Directory {
    /// Over a source.
    pub fn new(source: impl Source + 'static) -> Self {
        Self(Arc::new(Inner { source: Box::new(source), current: Mutex::new(None), loading: Mutex::new(()) }))
    }

    /// The applications now. Ordinarily this costs a few `stat` calls. Where files changed it waits for them to be
    /// read; where only the passwd entries are due, they are looked at beside the call.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        let signature = self.0.source.signature();
        match self.0.known(&signature) {
            Some((snapshot, age)) if age < PASSWD_LIFETIME => snapshot,
            Some((snapshot, age)) if age < PASSWD_LIMIT => {
                let inner = Arc::clone(&self.0);
                tokio::task::spawn_blocking(move || {
                    if let Ok(_turn) = inner.loading.try_lock() {
                        inner.load();
                    }
                });
                snapshot
            }
            _ => tokio::task::block_in_place(|| {
                let _turn = self.0.loading.lock().unwrap_or_else(PoisonError::into_inner);
                // Somebody may have had the turn before with the same wish.
                match self.0.known(&signature) {
                    Some((snapshot, age)) if age < PASSWD_LIFETIME => snapshot,
                    _ => self.0.load(),
                }
            }),
        }
    }
}

impl Inner {
    /// What is known for these files, and for how long already.
    fn known(&self, signature: &[Stamp]) -> Option<(Arc<Snapshot>, Duration)> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = current.as_ref().filter(|loaded| loaded.signature == signature)?;
        Some((Arc::clone(&loaded.snapshot), loaded.at.elapsed()))
    }

    fn load(&self) -> Arc<Snapshot> {
        // The signature comes first: what changes while the files are read is seen at the next use.
        let (signature, at) = (self.source.signature(), Instant::now());
        let snapshot = Arc::new(Snapshot::load(&*self.source));
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        *current = Some(Loaded { signature, at, snapshot: Arc::clone(&snapshot) });
        snapshot
    }
}

/// Doubles for tests.
#[cfg(test)]
pub mod double {
    use super::*;
    use std::collections::BTreeMap;

    /// Applications from texts.
    #[derive(Default)]
    pub struct Texts {
        /// Name and text of each file.
        pub files: Arc<Mutex<BTreeMap<String, String>>>,
    }

    impl Texts {
        /// With these files.
        pub fn new(files: &[(&str, &str)]) -> Self {
            let files = files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
            Self { files: Arc::new(Mutex::new(files)) }
        }
    }

    impl Source for Texts {
        fn signature(&self) -> Vec<Stamp> {
            let files = self.files.lock().unwrap();
            files
                .iter()
                .map(|(name, text)| Stamp { path: format!("{name}\0{text}").into(), numbers: None })
                .collect()
        }
        fn settings(&self) -> Result<Settings, Denial> {
            Ok(Settings::default())
        }
        fn names(&self) -> Vec<ApplicationName> {
            self.files.lock().unwrap().keys().map(|name| name.parse().unwrap()).collect()
        }
        fn application(&self, name: &ApplicationName) -> Result<Application, Denial> {
            let files = self.files.lock().unwrap();
            Application::parse(&files[name.as_str()])
                .map_err(|error| Denial::new(Code::ApplicationInvalid, name.as_str(), error.to_string()))
        }
        fn uid_of(&self, user: &OsUserName) -> Option<u32> {
            user.as_str().strip_prefix("uid").and_then(|number| number.parse().ok())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::double::Texts;
    use super::*;

    fn name(text: &str) -> ApplicationName {
        text.parse().unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_uid_that_two_applications_claim_speaks_for_neither() {
        let directory = Directory::new(Texts::new(&[
            ("a", "service_uid = 900"),
            ("b", "service_user = \"uid900\""),
            ("c", "service_uid = 901"),
        ]));
        let snapshot = directory.snapshot();
        assert!(snapshot.of_uid(900).is_none());
        for both in ["a", "b"] {
            assert_eq!(snapshot.get(&name(both)).unwrap().unwrap_err().code, Code::ApplicationInvalid);
            assert_eq!(snapshot.findings(Some(&name(both))).len(), 1);
        }
        assert_eq!(snapshot.of_uid(901).unwrap().name, name("c"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_cluster_that_the_settings_do_not_have_is_found() {
        let kind = |clusters: &str| {
            format!(
                "service_user = \"uid900\"\n[kinds.a]\ncommands = [\"*\"]\n[kinds.a.slurm]\npartitions = [\"p\"]\n\
                 accounts = \"associations\"\n{clusters}"
            )
        };
        let found = |clusters: &str| {
            let directory = Directory::new(Texts::new(&[("a", &kind(clusters))]));
            let snapshot = directory.snapshot();
            assert!(snapshot.of_uid(900).is_some());
            snapshot.findings(Some(&name("a"))).len()
        };
        assert_eq!(found(""), 0);
        assert_eq!(found("clusters = [\"gpu\", \"default\"]"), 2);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_invalid_or_unknown_service_fails_closed_and_recovers_without_a_restart() {
        let texts = Texts::new(&[
            ("broken", "service_user = \"uid900\"\nx = 1"),
            ("nobody", "service_user = \"missing\""),
            ("rooted", "service_user = \"uid0\""),
        ]);
        let files = Arc::clone(&texts.files);
        let directory = Directory::new(texts);
        let snapshot = directory.snapshot();
        assert!(snapshot.of_uid(900).is_none());
        assert!(snapshot.of_uid(0).is_none());
        assert!(snapshot.get(&name("absent")).is_none());
        assert_eq!(snapshot.findings(None).len(), 3);
        files.lock().unwrap().insert("broken".into(), "service_user = \"uid900\"".into());
        assert_eq!(directory.snapshot().of_uid(900).unwrap().name, name("broken"));
    }

    #[test]
    fn the_signature_sees_an_edit_in_place_and_a_new_file() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("applications.d")).unwrap();
        let source = EtcSource::new(folder.path());
        let empty = source.signature();
        assert_eq!(empty, source.signature());
        let file = folder.path().join("applications.d/demo.toml");
        std::fs::write(&file, "a").unwrap();
        let first = source.signature();
        assert_ne!(empty, first);
        std::fs::write(&file, "bb").unwrap();
        assert_ne!(first, source.signature());
    }
}
