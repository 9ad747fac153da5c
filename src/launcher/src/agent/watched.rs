//! What an agent was started under: the consent and the files of root's, by descriptors that need no right on a path.
//!
//! `fstat(2)` of an `O_PATH` descriptor tells whether the file has lost its name or was changed, whoever asks. The two
//! folders are looked at too: a file that is added there may make a service user of somebody, or settings of none.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use deputy_core::consent::Consent;
use deputy_core::denial::{Code, Denial};
use deputy_core::ids::OsGid;
use deputy_core::names::ApplicationName;
use deputy_etc::{Directory, ETC_DEPUTY};
use rustix::fs::{Mode, OFlags, Stat, fstat, open};
use rustix::io::Errno;

use crate::paths::CONSENT;
use crate::{consents, pool};

/// Something that must stay as it was.
struct Held {
    descriptor: OwnedFd,
    was: Seen,
}

/// What is compared.
#[derive(PartialEq, Eq)]
struct Seen {
    named: bool,
    size: i64,
    changed: (i64, i64),
}

impl Seen {
    fn of(stat: &Stat) -> Self {
        let nanoseconds = i64::try_from(stat.st_ctime_nsec).unwrap_or_default();
        Self { named: stat.st_nlink > 0, size: stat.st_size, changed: (stat.st_ctime, nanoseconds) }
    }
}

impl Held {
    fn new(path: &Path) -> Result<Option<Self>, Denial> {
        let opened = match open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            opened => opened.and_then(|descriptor| Ok((Seen::of(&fstat(&descriptor)?), descriptor))),
        };
        let (was, descriptor) =
            opened.map_err(|error| Denial::internal(format!("{}: {error}", path.display())))?;
        Ok(Some(Self { descriptor, was }))
    }

    fn is_as_it_was(&self) -> io::Result<bool> {
        let now = Seen::of(&fstat(&self.descriptor)?);
        Ok(now.named && now == self.was)
    }
}

/// All of it.
pub struct Watched {
    /// The folders of root's files.
    folders: Vec<Held>,
    /// The files that this agent goes by; the record of its project's group is one of them.
    files: Vec<Held>,
    consent: Option<Held>,
    /// Until when the consent holds, seconds since 1970.
    expires: Option<u64>,
}

impl Watched {
    /// The policy, before it is read: what changes afterwards is seen.
    pub fn policy(application: &ApplicationName) -> Result<Self, Denial> {
        let etc = Path::new(ETC_DEPUTY);
        let file = Directory::new(etc).application_path(application);
        let folder = file.parent().unwrap_or(etc).to_owned();
        let held = |paths: [&Path; 2]| -> Result<Vec<Held>, Denial> {
            paths.into_iter().filter_map(|path| Held::new(path).transpose()).collect()
        };
        Ok(Self {
            folders: held([etc, &folder])?,
            files: held([&etc.join("deputy.toml"), &file])?,
            consent: None,
            expires: None,
        })
    }

    /// And the consent, which is looked at once more afterwards.
    pub fn add_consent(&mut self, consent: &Consent) -> Result<(), Denial> {
        let path = Path::new(CONSENT).join(consent.own_file_name());
        self.consent = Some(Held::new(&path)?.ok_or_else(Consent::missing)?);
        self.expires = consent.expires;
        Ok(())
    }

    /// And the record of the project's group, before it is read.
    pub fn add_group(&mut self, gid: OsGid) -> Result<(), Denial> {
        let held = Held::new(&pool::group_record(gid))?;
        self.files.push(held.ok_or_else(Denial::not_found)?);
        Ok(())
    }

    /// The descriptors.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.folders.iter().chain(&self.files).chain(&self.consent).map(|held| held.descriptor.as_fd())
    }

    /// Whether all of it is as it was: asked before each call.
    pub fn check(&self) -> Result<(), Denial> {
        self.check_own()?;
        if self.folders.iter().all(same) { Ok(()) } else { Err(changed()) }
    }

    /// Whether the consent and the agent's own files are as they were: asked during a long call, which another
    /// application's installation does not break off.
    pub fn check_own(&self) -> Result<(), Denial> {
        if !self.consent.as_ref().is_some_and(same) {
            return Err(Consent::missing());
        }
        if self.expires.is_some_and(|expires| consents::now() >= expires) {
            return Err(Denial::new(Code::ConsentExpired, "consent", "the consent has expired")
                .remedy("its owner renews it: deputyctl consent renew APP ACCOUNT"));
        }
        if self.files.iter().all(same) { Ok(()) } else { Err(changed()) }
    }
}

fn same(held: &Held) -> bool {
    held.is_as_it_was().unwrap_or(false)
}

fn changed() -> Denial {
    Denial::new(Code::ApplicationInvalid, ETC_DEPUTY, "the policy, or who is in the project's group, changed")
        .remedy("try again: it is read anew")
}
