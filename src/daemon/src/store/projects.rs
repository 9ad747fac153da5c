//! Projects: their record, what changes them, and the rules of that.
//!
//! A project pins an OS identity for its owner and for each member, when they come to it. A relink moves none of them.

use std::collections::BTreeMap;

use deputy_core::job::OsIdentity;
use deputy_core::project::{ProjectAccess, ProjectKey};
use deputy_core::project_group::GroupMember;
use deputy_core::{AccountName, ApplicationName, OsGid, OsGroupName};
use serde::{Deserialize, Serialize};

use super::Store;
use super::argument::Argument;
use super::clock::Timestamp;
use super::error::StoreError;
use super::page::{Page, PageRequest};
use super::view::{Draft, keys};

/// The most members of a project.
pub const MAX_MEMBERS: usize = 1000;

/// What changed of a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum ProjectEvent {
    /// It was created.
    Created {
        /// The owner's OS account, pinned.
        os: OsIdentity,
        /// Whether every account of the application sees it.
        public: bool,
        /// What its jobs begin with.
        defaults: ProjectDefaults,
    },
    /// An account became a member, or has another access now.
    Shared {
        /// The account.
        account: AccountName,
        /// What it may do.
        access: ProjectAccess,
        /// Its own OS account, pinned; what a member had pinned before stays.
        os: Option<OsIdentity>,
    },
    /// An account is no member any more.
    Unshared {
        /// The account.
        account: AccountName,
    },
    /// It was made public, or private.
    Published {
        /// Whether every account of the application sees it.
        public: bool,
    },
    /// Its defaults changed.
    Edited {
        /// What its jobs begin with.
        defaults: ProjectDefaults,
    },
    /// It has an OS group of its own.
    Grouped {
        /// The group, which it keeps.
        group: ProjectGroup,
    },
    /// It has a folder that its members share.
    FolderMade {
        /// Where.
        path: Argument,
    },
    /// Another account owns it.
    HandedOver {
        /// The account.
        to: AccountName,
        /// Its own OS account, pinned.
        os: OsIdentity,
    },
    /// It is gone. Jobs keep its name.
    Deleted {},
}

/// What the jobs of a project begin with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProjectDefaults {
    /// Permission bits that are taken away, beside those that the login takes.
    pub umask: Option<u32>,
    /// The group of new files: one of the OS account's own.
    pub os_group: Option<OsGroupName>,
}

/// The OS group of a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProjectGroup {
    /// Its gid.
    pub gid: OsGid,
    /// Its name.
    pub name: OsGroupName,
}

/// A member of a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProjectMember {
    /// What he may do.
    pub access: ProjectAccess,
    /// His own OS account, pinned; none for one who had no link: he sees the records and runs nothing.
    pub os: Option<OsIdentity>,
    /// Since when.
    pub since: Timestamp,
}

/// A project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Project {
    /// The application.
    pub application: ApplicationName,
    /// Owner and name.
    pub key: ProjectKey,
    /// The owner's OS account, pinned.
    pub os: OsIdentity,
    /// Whether every account of the application sees it.
    pub public: bool,
    /// What its jobs begin with.
    pub defaults: ProjectDefaults,
    /// The members, without the owner.
    pub members: BTreeMap<AccountName, ProjectMember>,
    /// Its OS group, if it was given one.
    #[serde(default)]
    pub group: Option<ProjectGroup>,
    /// The folder that its members share, if one was made.
    #[serde(default)]
    pub folder: Option<Argument>,
    /// How many of its jobs have not ended.
    pub open_jobs: u64,
    /// When it was created.
    pub created: Timestamp,
    /// When it last changed.
    pub changed: Timestamp,
}

impl Project {
    /// What an account may do here by itself; none if it sees nothing. The owner may do more than write.
    pub fn access(&self, account: &AccountName) -> Option<ProjectAccess> {
        if *account == self.key.owner {
            return Some(ProjectAccess::Write);
        }
        let member = self.members.get(account).map(|member| member.access);
        member.or(self.public.then_some(ProjectAccess::Read))
    }

    /// The OS account as which an account runs jobs here: the one that was pinned for it.
    pub fn identity(&self, account: &AccountName) -> Option<&OsIdentity> {
        if *account == self.key.owner {
            return Some(&self.os);
        }
        self.members.get(account).and_then(|member| member.os.as_ref())
    }

    /// Those who work in it, each as the OS account that was pinned: the owner, and members who may write and have one.
    pub fn workers(&self) -> Vec<GroupMember> {
        let member = |account: &AccountName, os: &OsIdentity| GroupMember {
            account: account.clone(),
            os_account: os.clone(),
        };
        let mut workers = vec![member(&self.key.owner, &self.os)];
        workers.extend(self.members.iter().filter_map(|(account, one)| {
            let os = one.os.as_ref().filter(|_| one.access == ProjectAccess::Write)?;
            Some(member(account, os))
        }));
        workers
    }

    /// The gid of its group, for an account that works in it.
    pub fn gid_for(&self, account: &AccountName) -> Option<OsGid> {
        let works = self.access(account) == Some(ProjectAccess::Write) && self.identity(account).is_some();
        self.group.as_ref().filter(|_| works).map(|group| group.gid)
    }
}

/// Checks what happens to a project against the draft, and writes its rows there.
pub(crate) fn apply(
    application: &ApplicationName,
    key: &ProjectKey,
    event: &ProjectEvent,
    at: Timestamp,
    draft: &mut Draft<'_>,
) -> Result<(), StoreError> {
    if let ProjectEvent::Created { os, public, defaults } = event {
        need_account(draft, application, &key.owner)?;
        if draft.has(&keys::project(application, key))? {
            return Err(conflict(key, "it exists already"));
        }
        let project = Project {
            application: application.clone(),
            key: key.clone(),
            os: os.clone(),
            public: *public,
            defaults: defaults.clone(),
            members: BTreeMap::new(),
            group: None,
            folder: None,
            open_jobs: 0,
            created: at,
            changed: at,
        };
        put(draft, &project);
        return Ok(());
    }
    let mut project = need(draft, application, key)?;
    let before = project.clone();
    project.changed = at;
    match event {
        ProjectEvent::Created { .. } => {}
        ProjectEvent::Shared { account, access, os } => {
            need_account(draft, application, account)?;
            if *account == key.owner {
                return Err(conflict(key, "its owner needs no share of it"));
            }
            let old = project.members.get(account);
            if old.is_none() && project.members.len() >= MAX_MEMBERS {
                return Err(conflict(key, "it has as many members as a project can have"));
            }
            let (since, pinned) = old.map_or((at, None), |old| (old.since, old.os.clone()));
            let member = ProjectMember { access: *access, os: pinned.or_else(|| os.clone()), since };
            project.members.insert(account.clone(), member);
        }
        ProjectEvent::Unshared { account } => {
            project.members.remove(account).ok_or_else(|| StoreError::NotFound {
                what: "member",
                key: format!("{application}/{key}/{account}"),
            })?;
        }
        ProjectEvent::Published { public } => project.public = *public,
        ProjectEvent::Edited { defaults } => project.defaults = defaults.clone(),
        ProjectEvent::Grouped { group } => {
            if project.group.is_some() {
                return Err(conflict(key, "it has a group already"));
            }
            project.group = Some(group.clone());
        }
        ProjectEvent::FolderMade { path } => {
            if project.folder.is_some() {
                return Err(conflict(key, "it has a folder already"));
            }
            project.folder = Some(path.clone());
        }
        ProjectEvent::HandedOver { to, os } => {
            need_account(draft, application, to)?;
            let key = ProjectKey { owner: to.clone(), name: key.name.clone() };
            if draft.has(&keys::project(application, &key))? {
                return Err(conflict(&key, "the other account has a project of this name"));
            }
            if project.open_jobs > 0 {
                return Err(conflict(&project.key, "it has jobs that have not ended"));
            }
            project.members.remove(to);
            project.os = os.clone();
            project.key = key;
        }
        ProjectEvent::Deleted {} => {
            if project.open_jobs > 0 {
                return Err(conflict(key, "it has jobs that have not ended"));
            }
            remove(draft, &before);
            return Ok(());
        }
    }
    remove(draft, &before);
    put(draft, &project);
    Ok(())
}

/// A job of a project was queued: only as the OS account that the project pinned for whoever asks.
pub(crate) fn job_queued(
    draft: &mut Draft<'_>,
    application: &ApplicationName,
    key: &ProjectKey,
    account: &AccountName,
    os: &OsIdentity,
) -> Result<(), StoreError> {
    let mut project = need(draft, application, key)?;
    if project.access(account) != Some(ProjectAccess::Write) || project.identity(account) != Some(os) {
        return Err(conflict(key, "the account has no part in it, or another OS account there"));
    }
    project.open_jobs += 1;
    draft.put(keys::project(application, key), &project);
    Ok(())
}

/// A job of a project ended. The project cannot have gone before.
pub(crate) fn job_ended(
    draft: &mut Draft<'_>,
    application: &ApplicationName,
    key: &ProjectKey,
) -> Result<(), StoreError> {
    let mut project = need(draft, application, key)?;
    project.open_jobs = project.open_jobs.saturating_sub(1);
    draft.put(keys::project(application, key), &project);
    Ok(())
}

/// Those who have a part in a project: it is listed under each of them.
fn people(project: &Project) -> impl Iterator<Item = &AccountName> {
    std::iter::once(&project.key.owner).chain(project.members.keys())
}

fn put(draft: &mut Draft<'_>, project: &Project) {
    draft.put(keys::project(&project.application, &project.key), project);
    for account in people(project) {
        draft.put_entry(
            keys::project_of(&project.application, account, &project.key),
            &project.key.to_string(),
        );
    }
    if project.public {
        draft.put_entry(keys::public_project(&project.application, &project.key), "");
    }
}

fn remove(draft: &mut Draft<'_>, project: &Project) {
    draft.remove(keys::project(&project.application, &project.key));
    for account in people(project) {
        draft.remove(keys::project_of(&project.application, account, &project.key));
    }
    draft.remove(keys::public_project(&project.application, &project.key));
}

fn need(draft: &Draft<'_>, application: &ApplicationName, key: &ProjectKey) -> Result<Project, StoreError> {
    draft
        .record(&keys::project(application, key))?
        .ok_or_else(|| StoreError::NotFound { what: "project", key: format!("{application}/{key}") })
}

fn need_account(
    draft: &Draft<'_>,
    application: &ApplicationName,
    account: &AccountName,
) -> Result<(), StoreError> {
    if draft.has(&keys::account(application, account))? {
        return Ok(());
    }
    Err(StoreError::NotFound { what: "account", key: format!("{application}/{account}") })
}

fn conflict(key: &ProjectKey, why: &'static str) -> StoreError {
    StoreError::Conflict { what: "project", key: key.to_string(), why }
}

/// Which projects of an application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProjectScope {
    /// All of them.
    All,
    /// Those that an account owns or is a member of.
    Of(AccountName),
    /// Those that every account sees.
    Public,
}

impl Store {
    /// A project.
    pub fn project(
        &self,
        application: &ApplicationName,
        key: &ProjectKey,
    ) -> Result<Option<Project>, StoreError> {
        self.inner.view.record(&keys::project(application, key))
    }

    /// Projects of an application, by owner and name.
    pub fn projects(
        &self,
        application: &ApplicationName,
        scope: &ProjectScope,
        page: &PageRequest,
    ) -> Result<Page<Project>, StoreError> {
        let prefix = match scope {
            ProjectScope::All => {
                let prefix = keys::projects(application);
                return self.page(&prefix, false, page, |_, row| self.decoded(row).map(Some));
            }
            ProjectScope::Of(account) => keys::projects_of(application, account),
            ProjectScope::Public => keys::public_projects(application),
        };
        self.page_of_entries(&prefix, false, page, |work, key, _| {
            // The rest of the key is the project's own.
            let project_key = [keys::projects(application).as_slice(), &key[prefix.len()..]].concat();
            self.looked_up(work, &project_key)
        })
    }
}
