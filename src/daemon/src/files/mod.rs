//! `.Files`: files, as the OS account of an account.
//!
//! The daemon touches none of them. It decides who asks, has an agent of the OS account do the call, and passes on what
//! comes back, after it has looked whether that is what was asked for.

mod agents;
mod calls;
mod channel;
mod many;
pub mod quota;
pub mod record;
mod shown;

pub use agents::{FileAgents, Whose, lost};
pub use calls::{
    commit, copy_tree, disk_usage, get_acl, link, list, list_stream, make_directory, open, quotas, read_link,
    remove, remove_tree, rename, set_acl, set_group, set_mode, set_times, stat, symlink,
};
pub use channel::channel;
pub use many::open_many;

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use deputy_core::message::{DEFAULT_UMASK, FileReply, FileRequest, OpenHow};
use deputy_core::project::ProjectKey;
use deputy_core::{AccountName, Code, Denial, Permission, space};
use nix::errno::Errno;
use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat};

use self::agents::Answer;
use crate::authority::{About, Call, Grant};
use crate::bus::options::Options;
use crate::daemon::Daemon;
use crate::directory::Registered;
use crate::jobs::ready::in_project;
use crate::jobs::run::whose;
use crate::store::Project;
use crate::{acting, links, projects};

/// How long a call may take unless its options say otherwise, and at most.
const DEADLINE: u32 = 20;
const LONGEST: u32 = 600;

fn deadline() -> Duration {
    Duration::from_secs(DEADLINE.into())
}

/// What every call's options may say.
#[derive(Clone)]
struct Asked {
    application: Option<deputy_core::ApplicationName>,
    project: Option<ProjectKey>,
    deadline: Duration,
}

impl Asked {
    /// Takes them, which have to be all that is left.
    fn take(mut options: Options) -> Result<Self, Denial> {
        let seconds = options.number("deadline_seconds")?.unwrap_or(DEADLINE);
        if !(1..=LONGEST).contains(&seconds) {
            return Err(Denial::invalid(format!("the option deadline_seconds is 1 to {LONGEST}")));
        }
        let asked = Self {
            application: options.application()?,
            project: options.name("project")?,
            deadline: Duration::from_secs(seconds.into()),
        };
        options.finish()?;
        Ok(asked)
    }
}

/// A call that may be done.
pub(crate) struct Ready {
    /// By whom.
    pub(crate) grant: Grant,
    /// As whom.
    pub(crate) whose: Whose,
    deadline: Duration,
}

/// Decides about a call about the files of a project, in which the subject takes part.
pub(crate) async fn ready_in(
    call: &Call,
    subject: &str,
    project: ProjectKey,
    options: Options,
) -> Result<Ready, Denial> {
    let mut asked = Asked::take(options)?;
    asked.project = Some(project);
    ready(call, subject, asked).await
}

/// Decides about a call, as far as it can be decided here: the agent's own decision is made by the launcher's child.
async fn ready(call: &Call, subject: &str, asked: Asked) -> Result<Ready, Denial> {
    let Asked { application, project, deadline } = asked;
    let mut grant = call.authorize(About::application(application)).await?;
    let registered = Arc::clone(grant.application()?);
    let (account, session) = whose(call, &registered, subject)?;
    let mut about = About::application(Some(registered.name.clone())).account(&account);
    about.acting = acting::of_session(&call.daemon, &registered, session.as_ref())?;
    call.note(&about);
    let mut found = identity(&call.daemon, &registered, &account, project.as_ref()).await?;
    call.ask_too(&mut grant, about.os_user(Some(&found.os.name))).await?;
    if call.method.asks.is_some_and(|(question, _)| registered.policy.ask_polkit.contains(&question)) {
        // The dialog may have taken minutes.
        whose(call, &registered, subject)?;
        found = identity(&call.daemon, &registered, &account, project.as_ref()).await?;
    }
    // What polkit has to be asked has been.
    grant.actor()?;
    call.note(&About {
        os_user: Some(found.os.name.clone()),
        ..About::application(Some(registered.name.clone())).account(&account)
    });
    call.daemon.alerts.note(&found);
    Ok(Ready { grant, whose: found, deadline })
}

/// As whom an account touches files: what each call and `Manager.Explain` decide by.
pub async fn identity(
    daemon: &Daemon,
    registered: &Registered,
    account: &AccountName,
    project: Option<&ProjectKey>,
) -> Result<Whose, Denial> {
    let active = acting::active(daemon, registered, account)?;
    acting::permitted(daemon, registered, &active, Permission::UseFiles)?;
    let of = |os| Whose {
        application: registered.name.clone(),
        account: account.clone(),
        os,
        umask: None,
        project_group: None,
    };
    let Some(key) = project else {
        return Ok(of(links::usable(daemon, registered, account).await?.os));
    };
    let project = daemon.store.project(&registered.name, key)?.ok_or_else(Denial::not_found)?;
    let umask = umask_in(&project);
    let project_group = projects::gid_for(daemon, registered, &project, account);
    Ok(Whose { umask, project_group, ..of(in_project(&project, account)?) })
}

/// The umask of an agent for a project.
pub(crate) fn umask_in(project: &Project) -> Option<u32> {
    project.defaults.umask.map(|umask| umask | DEFAULT_UMASK)
}

/// Has the agent do a call that is answered at once. The answer is no refusal.
async fn ask(call: &Call, ready: &Ready, request: &FileRequest) -> Result<Answer, Denial> {
    let daemon = &call.daemon;
    let answer = daemon.files.call(&daemon.launcher, &ready.whose, request, ready.deadline).await?;
    let brings = matches!(answer.reply, FileReply::Opened { .. } | FileReply::OpenedMany(_));
    if !brings && !answer.descriptors.is_empty() {
        return Err(agents::lost());
    }
    match answer.reply {
        FileReply::Denied(denial) => {
            note_loss(call, ready, &denial).await;
            Err(denial)
        }
        FileReply::Failed { errno } => Err(with_quota(call, ready, errno).await),
        _ => Ok(answer),
    }
}

/// Decides, and does a call that is answered at once.
async fn perform(
    call: &Call,
    subject: &str,
    options: Options,
    request: FileRequest,
) -> Result<(Ready, Answer), Denial> {
    let asked = Asked::take(options)?;
    let project = asked.project.clone();
    let ready = ready(call, subject, asked).await?;
    let answered = ask(call, &ready, &request).await;
    if let (Err(denial), Some(key)) = (&answered, &project)
        && denial.code == Code::OsAccountNotInGroup
    {
        projects::bring_into_step(&call.daemon, &ready.whose.application, key);
    }
    let answer = answered?;
    call.daemon.file_log.done(call, &ready.whose, record::change(&request));
    Ok((ready, answer))
}

/// What the launcher's child says about a link is remembered by the next call that needs it.
async fn note_loss(call: &Call, ready: &Ready, denial: &Denial) {
    if let Ok(Some(link)) = call.daemon.store.link(&ready.whose.application, &ready.whose.account)
        && link.os == ready.whose.os
    {
        links::learn(&call.daemon, &link, denial).await;
    }
}

/// The kernel's refusal; where there is no room, with how much there is.
async fn with_quota(call: &Call, ready: &Ready, errno: i32) -> Denial {
    let full = [Errno::EDQUOT, Errno::ENOSPC].map(|errno| errno as i32).contains(&errno);
    if !full {
        return refused(errno, "");
    }
    let told = quota::places(&call.daemon, &ready.whose, b"", ready.deadline).await.unwrap_or_default();
    let places: Vec<_> = told.into_iter().map(|(place, _)| place).collect();
    refused(errno, &space::words(&places))
}

/// The kernel's refusal, which begins with the name of its error.
pub fn refused(errno: i32, more: &str) -> Denial {
    let error = Errno::from_raw(errno);
    let name = if error == Errno::UnknownErrno { format!("errno {errno}") } else { format!("{error:?}") };
    Denial::new(Code::FileError, "kernel", format!("{name}: {}{more}", error.desc())).remedy(
        "the kernel decided for the OS account, as in a login of it: look at modes, ACLs and the way there",
    )
}

/// Looks whether a descriptor is what was asked for: a regular file, open in that way and in no other.
fn check(mut descriptors: Vec<OwnedFd>, how: OpenHow) -> Result<OwnedFd, Denial> {
    let wrong = |what: &str| {
        tracing::error!(what, "a file agent answered with a wrong descriptor");
        agents::lost()
    };
    let (Some(file), true) = (descriptors.pop(), descriptors.is_empty()) else {
        return Err(wrong("not one descriptor"));
    };
    let sort = fstat(&file).map(|found| FileType::from_raw_mode(found.st_mode));
    if sort != Ok(FileType::RegularFile) {
        return Err(wrong("no regular file"));
    }
    let flags = fcntl_getfl(file.as_fd()).map_err(|_| wrong("no flags"))?;
    let access = match (how.read, how.write) {
        (true, false) => OFlags::RDONLY,
        (false, _) => OFlags::WRONLY,
        (true, true) => OFlags::RDWR,
    };
    let same = flags.intersection(OFlags::RWMODE) == access
        && flags.contains(OFlags::APPEND) == how.append
        && !flags.intersects(OFlags::PATH | OFlags::NONBLOCK);
    if same { Ok(file) } else { Err(wrong("other flags")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{File, OpenOptions};

    #[test]
    fn a_descriptor_is_passed_on_only_if_it_is_what_was_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "x").unwrap();
        let read = || OwnedFd::from(File::open(&path).unwrap());
        let open = |options: &mut OpenOptions| OwnedFd::from(options.open(&path).unwrap());
        let both = || open(OpenOptions::new().read(true).write(true));
        let append = || open(OpenOptions::new().append(true));
        let only_path = || rustix::fs::open(&path, OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
        let how = |read, write, append| OpenHow { read, write, append, ..OpenHow::default() };
        assert!(check(vec![read()], how(true, false, false)).is_ok());
        assert!(check(vec![both()], how(true, true, false)).is_ok());
        assert!(check(vec![append()], how(false, true, true)).is_ok());
        let (pipe, _writer) = std::io::pipe().unwrap();
        for (descriptors, how) in [
            (vec![], how(true, false, false)),
            (vec![read(), read()], how(true, false, false)),
            (vec![both()], how(true, false, false)),
            (vec![read()], how(true, true, false)),
            (vec![read()], how(false, true, false)),
            (vec![both()], how(true, true, true)),
            (vec![append()], how(false, true, false)),
            (vec![only_path()], how(true, false, false)),
            (vec![File::open(folder.path()).unwrap().into()], how(true, false, false)),
            (vec![File::open("/dev/null").unwrap().into()], how(true, false, false)),
            (vec![pipe.into()], how(true, false, false)),
        ] {
            let denial = check(descriptors, how).unwrap_err();
            assert_eq!(denial.code, Code::FileAgentLost, "{how:?}");
        }
    }

    #[test]
    fn a_refusal_of_the_kernels_begins_with_its_name() {
        assert!(refused(13, "").message.starts_with("EACCES: "));
        assert!(refused(122, " more").message.starts_with("EDQUOT: "));
        assert!(refused(9999, "").message.starts_with("errno 9999: "));
    }
}
