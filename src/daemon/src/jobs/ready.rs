//! Whether a job could be asked of the launcher: what `Jobs.Run` and `Manager.Explain` both decide by.
//!
//! The launcher's child decides by the same rules from the same file. Here they only save the ledger and the launcher
//! what is refused anyway, and say as which OS account it would run.

use deputy_core::job::OsIdentity;
use deputy_core::kind::Kind;
use deputy_core::pattern::CommandRule;
use deputy_core::policy::{check_command, check_environment, check_kind};
use deputy_core::project::{ProjectAccess, ProjectKey};
use deputy_core::slurm::choice::choose;
use deputy_core::slurm::policy::check_executor;
use deputy_core::slurm::{Chosen, ClusterName, Executor, ExecutorChoice};
use deputy_core::{AccountName, Code, Denial, KindName, Permission};

use super::{dependencies, executor};
use crate::acting;
use crate::daemon::Daemon;
use crate::directory::Registered;
use crate::links;
use crate::store::{Job, JobSpec, Link, Project, ProjectDefaults};

/// A job that is wanted.
pub struct Wanted<'a> {
    /// The account that asks.
    pub account: &'a AccountName,
    /// The project that it belongs to.
    pub project: Option<&'a ProjectKey>,
    /// Its label.
    pub kind: &'a KindName,
    /// The program and its arguments.
    pub argv: &'a [Vec<u8>],
    /// Variables, each `NAME=VALUE`.
    pub environment: &'a [Vec<u8>],
    /// What else is asked for.
    pub spec: &'a JobSpec,
    /// Where it is to run; absent: where its kind says.
    pub executor: Option<ExecutorChoice>,
}

/// A job that the launcher can be asked for.
#[derive(Debug, Clone)]
pub struct Ready {
    /// As which OS account.
    pub os: OsIdentity,
    /// What it begins with.
    pub defaults: ProjectDefaults,
    /// The link, where that is what names the OS account.
    pub link: Option<Link>,
    /// Whether it is a service.
    pub service: bool,
    /// Where it runs.
    pub executor: Executor,
    /// At which cluster, if it runs at Slurm or can.
    pub cluster: Option<ClusterName>,
    /// Why it runs there, where nobody said. [`Chosen::Room`] is what holds if there is room: whoever starts it looks.
    pub chosen: Option<Chosen>,
}

impl Ready {
    /// Whether it runs here only if it can start at once.
    pub fn needs_room(&self) -> bool {
        self.chosen == Some(Chosen::Room)
    }

    /// There is no room for it here now: so it goes to Slurm.
    pub fn without_room(&mut self) {
        self.chosen = self.chosen.map(Chosen::without_room);
        self.executor = self.chosen.map_or(self.executor, Chosen::executor);
    }
}

/// Where a job runs, and if at Slurm, at which cluster.
struct Placed {
    executor: Executor,
    cluster: Option<ClusterName>,
    chosen: Option<Chosen>,
}

/// Decides where a job runs, and whether it may. What a cluster or this machine has free is not looked at.
fn place(
    daemon: &Daemon,
    registered: &Registered,
    wanted: &Wanted<'_>,
    kind: &Kind,
    rule: &str,
) -> Result<Placed, Denial> {
    let spec = wanted.spec;
    let at_slurm = || -> Result<ClusterName, Denial> {
        let cluster = executor::check(daemon, kind, rule, spec)?;
        let waits_for = &spec.slurm.dependencies;
        dependencies::left(&daemon.tracker, &registered.name, wanted.account, &cluster, waits_for)?;
        Ok(cluster)
    };
    let names_slurm = spec.slurm.names_slurm();
    let (executor, chosen) = match check_executor(kind, wanted.executor, rule)? {
        ExecutorChoice::Local => (Executor::Local, None),
        ExecutorChoice::Slurm => (Executor::Slurm, None),
        ExecutorChoice::Auto => {
            let may = at_slurm();
            let chosen = choose(names_slurm, may.is_ok());
            if let (Chosen::Room, Ok(cluster)) = (chosen, may) {
                return Ok(Placed {
                    executor: chosen.executor(),
                    cluster: Some(cluster),
                    chosen: Some(chosen),
                });
            }
            (chosen.executor(), Some(chosen))
        }
    };
    if executor == Executor::Slurm {
        return Ok(Placed { executor, cluster: Some(at_slurm()?), chosen });
    }
    if names_slurm {
        return Err(Denial::invalid(
            "cluster, partition, slurm_account, qos, nodes, tasks, constraint, dependency, hold, requeue, interactive and arrays \
             are for Slurm, and this one runs here",
        ));
    }
    Ok(Placed { executor, cluster: None, chosen })
}

/// Decides about a job, as far as it can be decided here.
pub async fn ready(daemon: &Daemon, registered: &Registered, wanted: &Wanted<'_>) -> Result<Ready, Denial> {
    let account = acting::active(daemon, registered, wanted.account)?;
    acting::permitted(daemon, registered, &account, Permission::RunJobs)?;
    let kind = check_kind(&registered.name, &registered.policy, Some(wanted.kind))?;
    check_command(&registered.name, wanted.kind.as_str(), kind, wanted.argv)?;
    check_environment(&registered.name, &registered.policy, wanted.environment)?;
    let rule = format!("applications.d/{}.toml: kinds.{}", registered.name, wanted.kind);
    let Placed { executor, cluster, chosen } = place(daemon, registered, wanted, kind, &rule)?;
    check_spec(registered, wanted.kind, kind, wanted.spec)?;
    let service = kind.service;
    let Some(key) = wanted.project else {
        let link = links::usable(daemon, registered, wanted.account).await?;
        let (os, defaults) = (link.os.clone(), ProjectDefaults::default());
        return Ok(Ready { os, defaults, link: Some(link), service, executor, cluster, chosen });
    };
    let project = daemon.store.project(&registered.name, key)?;
    let project = project.ok_or_else(Denial::not_found)?;
    let os = in_project(&project, wanted.account)?;
    // What the launcher says about the identity is about the link only if that names the same.
    let link = daemon.store.link(&registered.name, wanted.account)?.filter(|link| link.os == os);
    Ok(Ready { os, defaults: project.defaults, link, service, executor, cluster, chosen })
}

/// Decides once more about a job that is in the ledger: as whom it ran then is the caller's to compare.
pub async fn again(daemon: &Daemon, registered: &Registered, job: &Job) -> Result<Ready, Denial> {
    let argv: Vec<_> = job.argv.iter().map(|argument| argument.0.clone()).collect();
    let environment: Vec<_> = job.spec.environment.iter().map(|variable| variable.0.clone()).collect();
    let wanted = Wanted {
        account: &job.account,
        project: job.project.as_ref(),
        kind: &job.kind,
        argv: &argv,
        environment: &environment,
        spec: &job.spec,
        executor: Some(job.spec.executor.into()),
    };
    ready(daemon, registered, &wanted).await
}

/// What the kind says about everything but the command.
fn check_spec(registered: &Registered, name: &KindName, kind: &Kind, spec: &JobSpec) -> Result<(), Denial> {
    let rule = format!("applications.d/{}.toml: kinds.{name}", registered.name);
    kind.bounds(registered.policy.limits).lowered_by(spec.bounds, &rule)?;
    if spec.script && !kind.commands.iter().any(CommandRule::allows_any_program) {
        return Err(Denial::new(
            Code::CommandNotAllowed,
            format!("{rule}.commands"),
            "a script may come by descriptor only where the kind allows any program",
        )
        .remedy("name a program that a rule of the kind allows, or have the kind allow \"*\""));
    }
    if kind.service && (spec.needs_descriptors() || spec.bounds.time_limit_seconds.is_some()) {
        return Err(Denial::new(
            Code::InvalidArgument,
            format!("{rule}.service"),
            "a service is started again without whoever asked for it: nothing of it comes by descriptor, and it has \
             no time limit",
        )
        .remedy("name files for its input and output, or have its output captured"));
    }
    Ok(())
}

/// As which OS account an account acts in a project: as the one that was pinned for it there, whatever its link
/// is now. Who does not see the project is told that it is not there.
pub fn in_project(project: &Project, account: &AccountName) -> Result<OsIdentity, Denial> {
    match project.access(account) {
        None => Err(Denial::not_found()),
        Some(ProjectAccess::Read) => Err(Denial::new(
            Code::PermissionMissing,
            "project members",
            "the account may look at this project, but run no jobs in it",
        )
        .remedy("its owner shares it: deputyctl project share APP OWNER/NAME ACCOUNT write")),
        Some(ProjectAccess::Write) => project.identity(account).cloned().ok_or_else(links::not_linked),
    }
}
