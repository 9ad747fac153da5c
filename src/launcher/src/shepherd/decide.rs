//! May this job run? Decided from root-owned files, consent and the name service alone, in this process, now.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use deputy_core::application::DEFAULT_KIND;
use deputy_core::denial::{Code, Denial};
use deputy_core::ids::OsGid;
use deputy_core::kind::{Kind, Leftovers};
use deputy_core::limits::{DEFAULT_GRACE_SECONDS, JobBounds};
use deputy_core::message::RunRequest;
use deputy_core::names::KindName;
use deputy_core::pattern::CommandRule;
use deputy_core::policy;
use deputy_core::settings::{Ends, Settings};
use deputy_core::size::ByteSize;
use deputy_core::slurm::policy::{check_bounds, check_executor};
use deputy_core::slurm::{ExecutorChoice, SlurmRequest};
use deputy_etc::root_owned;
use deputy_sys::confine::Confinement;

use super::confine;
use super::environment::SEARCH_PATH;
use super::gpus::Gpus;
use super::variables::Variables;
use super::watch::EndRules;
use crate::rules::{Rules, Target};
use crate::{consents, pam, pool};

/// Why something is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose<'a> {
    /// To run the job: a consent that root's rule gives is written down first.
    Run {
        /// The uid that asked.
        by_uid: u32,
    },
    /// The same, at Slurm.
    Submit {
        /// The uid that asked.
        by_uid: u32,
        /// What is asked of Slurm.
        slurm: &'a SlurmRequest,
    },
    /// To say what would be decided. Nothing is written.
    Explain {
        /// What would be asked of Slurm; none is a job on this machine.
        slurm: Option<&'a SlurmRequest>,
    },
}

/// A job that may run, and how.
pub struct Decision {
    /// The uid that speaks for the application.
    pub service_uid: u32,
    /// The OS account with its groups.
    pub target: Target,
    /// The group of its project, beside the OS account's own.
    pub project_group: Option<OsGid>,
    /// The job's primary group: the OS account's own, or another of its groups that was asked for.
    pub gid: OsGid,
    /// The PAM service.
    pub pam_service: String,
    /// The application, as PAM hears of it.
    pub application: String,
    /// The command rule that allowed it.
    pub rule: String,
    /// Absolute paths to try.
    pub programs: Vec<CString>,
    /// The argument vector.
    pub argv: Vec<CString>,
    /// Working directories to try.
    pub directories: Vec<CString>,
    /// What the job reaches of the machine; none is whatever its user reaches.
    pub confinement: Option<Confinement>,
    /// Whether setuid programs have no effect.
    pub no_new_privileges: bool,
    /// How much of each captured stream is kept.
    pub output_bound: ByteSize,
    /// What bounds it: what policy says, lowered by the request.
    pub bounds: JobBounds,
    /// What happens to what is left when its first process has ended.
    pub leftovers: Leftovers,
    /// The GPUs that it was leased.
    pub gpus: Gpus,
    /// What is asked of Slurm, with all that policy fills in, if it is to run there.
    pub slurm: Option<SlurmRequest>,
}

impl Decision {
    /// Looks again at what its owner or root may have taken back since: PAM may have taken its time. For the last moment
    /// before anything starts.
    pub fn still_holds(&self, request: &RunRequest) -> Result<(), Denial> {
        let RunRequest { application, account, os_account, login, .. } = request;
        consents::still_valid(application, account, os_account, self.service_uid, *login)?;
        match self.project_group {
            Some(gid) => pool::still_has(application, gid, account, os_account),
            None => Ok(()),
        }
    }

    /// When and how it is ended.
    pub fn end_rules(&self) -> EndRules {
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        EndRules {
            time_limit: self.bounds.time_limit_seconds.map(seconds),
            grace: seconds(self.bounds.grace_seconds.unwrap_or(DEFAULT_GRACE_SECONDS)),
            leftovers: self.leftovers,
        }
    }
}

/// Decides about a request.
pub fn decide(
    settings: &Settings,
    request: &RunRequest,
    variables: &Variables,
    purpose: Purpose<'_>,
) -> Result<Decision, Denial> {
    let rules = Rules::under(settings.clone(), &request.application)?;
    let kind_name = request.kind.as_ref().map_or(DEFAULT_KIND, KindName::as_str);
    let kind = policy::check_kind(&rules.name, &rules.application, request.kind.as_ref())?;
    let (rule, programs) = if request.script {
        if request.argv.first().is_none_or(Vec::is_empty) {
            return Err(Denial::invalid("a script needs a name to be called by"));
        }
        (policy::check_script(&rules.name, kind_name, kind)?, Vec::new())
    } else {
        let rule = policy::check_command(&rules.name, kind_name, kind, &request.argv)?;
        check_paths(rule, &request.argv)?;
        (rule, programs(&request.argv[0])?)
    };
    policy::check_environment(&rules.name, &rules.application, &request.environment)?;
    variables.check(&rules.name, &rules.application)?;
    let bounds = bounds(&rules, kind_name, kind, request)?;
    let slurm = at_slurm(&rules, kind_name, kind, request, purpose)?;

    match purpose {
        Purpose::Run { by_uid } | Purpose::Submit { by_uid, .. } => {
            let consent = consents::valid(&rules, &request.account, &request.os_account, by_uid)?;
            request.login.map_or(Ok(()), |login| consent.check_login(login))?;
        }
        Purpose::Explain { .. } => consents::would_be_valid(&rules, &request.account, &request.os_account)?,
    }
    let target = rules.pinned_target(&request.os_account)?;
    let gid = group(&rules, &target, request)?;
    let of_project = |gid| pool::group_of_member(&rules, gid, &request.account, &request.os_account);
    let project_group = request.project_group.map(of_project).transpose()?;
    let gpus = Gpus::leased(&rules.settings.executor.local.capacity, &request.gpus)?;
    let confinement = confine::confinement(&rules, kind, &target, request, gpus.devices_of_job())?;
    pam::check_service(&rules.application.pam.job)?;

    Ok(Decision {
        service_uid: rules.service_uid,
        project_group,
        gid,
        programs,
        argv: request.argv.iter().map(|argument| c_string(argument)).collect::<Result<_, _>>()?,
        directories: directories(request.directory.as_deref(), &target.entry.home)?,
        confinement,
        no_new_privileges: kind.no_new_privileges,
        output_bound: kind.output.unwrap_or(settings.output.stream),
        bounds,
        leftovers: kind.leftovers,
        gpus,
        slurm,
        pam_service: rules.application.pam.job.clone(),
        application: rules.name.to_string(),
        rule: rule.as_str().to_owned(),
        target,
    })
}

/// Whether the kind's jobs run where this one is to, and what policy fills in for Slurm.
fn at_slurm(
    rules: &Rules,
    kind_name: &str,
    kind: &Kind,
    request: &RunRequest,
    purpose: Purpose<'_>,
) -> Result<Option<SlurmRequest>, Denial> {
    let rule = format!("applications.d/{}.toml: kinds.{kind_name}", rules.name);
    let (executor, asked) = match purpose {
        Purpose::Run { .. } | Purpose::Explain { slurm: None } => (ExecutorChoice::Local, None),
        Purpose::Submit { slurm, .. } | Purpose::Explain { slurm: Some(slurm) } => {
            (ExecutorChoice::Slurm, Some(slurm))
        }
    };
    check_executor(kind, Some(executor), &rule)?;
    let Some(asked) = asked else { return Ok(None) };
    check_bounds(&request.bounds)?;
    if !request.gpus.is_empty() {
        return Err(Denial::invalid("no GPU of this machine's is a job's at Slurm"));
    }
    // The daemon has chosen the cluster, where there is a choice.
    let asked = SlurmRequest { cluster: Some(asked.cluster.clone().unwrap_or_default()), ..asked.clone() };
    let Some(policy) = &kind.slurm else { return Ok(None) };
    let asked = policy.check(&asked, &rule)?;
    let slurm = asked.cluster.as_ref().and_then(|name| rules.settings.executor.slurm.as_ref()?.cluster(name));
    policy.check_account(&asked, slurm.map_or_else(Ends::default, |slurm| slurm.ends), &rule)?;
    Ok(Some(asked))
}

/// What policy says, lowered by what the request asks for. Nothing can run under a ceiling of nothing.
fn bounds(rules: &Rules, kind_name: &str, kind: &Kind, request: &RunRequest) -> Result<JobBounds, Denial> {
    let rule = format!("applications.d/{}.toml: kinds.{kind_name}", rules.name);
    let bounds = kind.bounds(rules.application.limits).lowered_by(request.bounds, &rule)?;
    let limits = &bounds.limits;
    let nothing = limits.memory.is_some_and(|memory| memory.0 == 0)
        || limits.cpus.is_some_and(|cpus| cpus.0 == 0)
        || limits.pids == Some(0)
        || limits.files == Some(0)
        || bounds.time_limit_seconds == Some(0);
    if nothing {
        return Err(Denial::invalid("a ceiling of nothing: memory, cpus, pids, files and time are above 0"));
    }
    Ok(bounds)
}

/// A job's files can belong to another of its own groups, if the application may act for that group at all. It gains
/// nothing by it: `newgrp` would do the same.
fn group(rules: &Rules, target: &Target, request: &RunRequest) -> Result<OsGid, Denial> {
    let Some(wanted) = &request.os_group else { return Ok(request.os_account.gid) };
    let allowed = rules.application.os_accounts.allow_groups.as_ref();
    let found = target.groups.iter().find(|group| group.name == wanted.as_str());
    found
        .filter(|_| allowed.is_none_or(|allowed| allowed.contains(wanted)))
        .and_then(|group| OsGid::new(group.gid))
        .ok_or_else(|| {
            Denial::new(
                Code::OsAccountNotInGroup,
                format!("applications.d/{}.toml: os_accounts.allow_groups", rules.name),
                format!(
                    "{} is not a member of {wanted}, or the application may not act for it",
                    target.entry.name
                ),
            )
            .remedy("name one of the OS account's own groups: id -Gn NAME")
        })
}

/// What a rule names by path has to be root's, or the rule would allow whatever somebody puts there.
fn check_paths(rule: &CommandRule, argv: &[Vec<u8>]) -> Result<(), Denial> {
    for path in rule.paths(argv) {
        let path = Path::new(std::ffi::OsStr::from_bytes(path));
        match root_owned::open_file(path) {
            // What is not there cannot run; the job then ends with "not found", as it would in a shell.
            Ok(_) => {}
            Err(error) if error.is_absent() => {}
            Err(error) => {
                return Err(Denial::new(Code::CommandNotAllowed, rule.as_str(), error.to_string())
                    .remedy(error.remedy()));
            }
        }
    }
    Ok(())
}

fn c_string(bytes: &[u8]) -> Result<CString, Denial> {
    CString::new(bytes).map_err(|_| Denial::invalid("a NUL byte where none can be"))
}

/// A plain name is looked for in the search path by the child, after the drop, so that the kernel decides as the
/// user.
fn programs(program: &[u8]) -> Result<Vec<CString>, Denial> {
    if program.starts_with(b"/") {
        return Ok(vec![c_string(program)?]);
    }
    SEARCH_PATH.split(':').map(|folder| c_string(&[folder.as_bytes(), b"/", program].concat())).collect()
}

/// A job starts where it was asked to, or nowhere; without a wish it starts in the home directory, or in `/` where
/// that cannot be entered, as login(1) does it.
fn directories(wanted: Option<&[u8]>, home: &[u8]) -> Result<Vec<CString>, Denial> {
    match wanted {
        Some(path) if path.starts_with(b"/") => Ok(vec![c_string(path)?]),
        Some(_) => Err(Denial::invalid("a working directory is an absolute path")),
        None => Ok(vec![c_string(home)?, c"/".to_owned()]),
    }
}
