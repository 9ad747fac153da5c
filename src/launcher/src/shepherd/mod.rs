//! The shepherd: one job, from the decision to the exit record.
//!
//! Read [`run`] from top to bottom: it is the order of a launch. The folder is made before consent is read, so that
//! whoever revokes a consent and then looks at the folders sees every job that could still start. The same process
//! opens the PAM session, waits for the whole tree, writes the record and closes the session.

mod bounds;
mod capture;
mod confine;
mod decide;
mod ending;
pub mod environment;
mod explain;
mod folder;
mod gpus;
mod script;
mod session;
mod slurm;
mod stdio;
mod streams;
mod tree;
mod variables;
mod watch;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use deputy_core::denial::{Code, Denial};
use deputy_core::ids::{JobId, OsGid};
use deputy_core::job::EndCause;
use deputy_core::limits::JobBounds;
use deputy_core::message::{JobState, LauncherReply, RunRequest};
use deputy_core::project::MAX_UMASK;
use deputy_core::settings::Settings;
use deputy_core::slurm::{Interactive, SlurmRequest};
use deputy_sys::cgroup::JobCgroups;
use deputy_sys::launch::Launch;
use deputy_sys::{Credentials, launch, process};
use deputy_wire::Peer;

use self::bounds::OwnCgroup;
use self::decide::Decision;
use self::folder::JobFolder;
use self::script::Script;
use self::session::JobSession;
use self::slurm::AtSlurm;
use self::stdio::Brought;
use self::streams::Owner;
use self::tree::Tree;
use self::watch::{Adoption, EndRules, Ended, Watch};
use crate::request::{refuse, reply, slot};

pub use self::decide::Purpose;
pub use self::ending::end_all;
pub use self::explain::explain;
pub use self::folder::{abandon, captured, jobs_after};
pub use self::gpus::count_gpus;
pub use self::slurm::{ask as ask_slurm, command as command_at_slurm, resources, submit};

/// The whole life of a shepherd: of a job that runs here, or of one at Slurm that somebody speaks with.
pub fn run(
    settings: &Settings,
    request: &RunRequest,
    slurm: Option<&SlurmRequest>,
    descriptors: Vec<OwnedFd>,
    connection: &OwnedFd,
    peer: Peer,
) {
    let slot = match slot("jobs", settings.launcher.max_jobs) {
        Ok(slot) => slot,
        Err(denial) => return refuse(connection, peer, denial),
    };
    let terminal = slurm.is_some_and(|asked| asked.interactive == Some(Interactive::Terminal));
    let brought = match stdio::take(request, terminal, descriptors) {
        Ok(brought) => brought,
        Err(denial) => return refuse(connection, peer, denial),
    };
    // The commit point: from here on this id has been used.
    let folder = match JobFolder::create(&request.job) {
        Ok(folder) => folder,
        Err(denial) => return refuse(connection, peer, denial),
    };
    match shepherd(settings, request, slurm, brought, &folder, connection, peer) {
        Ok(()) => {}
        Err(denial) => {
            folder.record_denial(&denial);
            refuse(connection, peer, denial);
        }
    }
    drop(slot);
}

fn shepherd(
    settings: &Settings,
    request: &RunRequest,
    slurm: Option<&SlurmRequest>,
    brought: Brought,
    folder: &JobFolder,
    connection: &OwnedFd,
    peer: Peer,
) -> Result<(), Denial> {
    // Before consent is read: whoever takes it back and then looks for its jobs finds this one, or is seen by it.
    folder.record_identity(request)?;
    let by_uid = peer.uid;
    let purpose = slurm.map_or(Purpose::Run { by_uid }, |slurm| Purpose::Submit { by_uid, slurm });
    let decision = decide::decide(settings, request, &brought.variables, purpose)?;
    let session = session::open(&decision, &decision.target.entry.name, &request.os_account)?;
    let outcome = run_in_session(settings, request, brought, folder, connection, &decision, &session, peer);
    session.close();
    outcome
}

#[expect(
    clippy::too_many_arguments,
    reason = "one call, of the function above; a struct would only rename them"
)]
fn run_in_session(
    settings: &Settings,
    request: &RunRequest,
    brought: Brought,
    folder: &JobFolder,
    connection: &OwnedFd,
    decision: &Decision,
    session: &JobSession,
    peer: Peer,
) -> Result<(), Denial> {
    let internal = |what: &'static str| move |error: io::Error| Denial::internal(format!("{what}: {error}"));
    let mut at_slurm = match &decision.slurm {
        Some(asked) => {
            Some(AtSlurm::prepare(settings, request, &brought.variables, decision, asked, session)?)
        }
        None => None,
    };
    let cgroup = OwnCgroup::create(settings, &request.job).map_err(internal("the job's cgroup"))?;
    let in_cgroup =
        cgroup.as_ref().map(|cgroup| cgroup.folder()).transpose().map_err(internal("the job's cgroup"))?;
    // The ceilings of one at Slurm are held there.
    let bounds = if at_slurm.is_some() { JobBounds::default() } else { decision.bounds };
    let held =
        bounds::hold(&bounds.limits, cgroup.as_deref()).map_err(internal("the ceilings of the job"))?;
    decision.gpus.deny_the_others(in_cgroup.as_ref().map(AsFd::as_fd));
    process::become_subreaper().map_err(internal("becoming a subreaper"))?;
    let signals = process::signals().map_err(internal("signals"))?;

    let Brought { input, output, error, script, variables } = brought;
    let owner = Owner { uid: request.os_account.uid, gid: decision.gid, bound: decision.output_bound };
    let (streams, pumps) = streams::prepare(&request.streams, [input, output, error], folder, owner)?;
    let script_bytes = script.as_ref().map(Script::size);
    let of_gpus = decision.gpus.variables();
    let slices = |variables| <[Vec<u8>]>::iter(variables).map(Vec::as_slice);
    let own = || {
        let environment = slices(&request.environment).chain(variables.iter()).chain(slices(&of_gpus));
        let environment = environment::build(&decision.target.entry, &session.environment, environment);
        (decision.programs.clone(), decision.argv.clone(), environment, decision.directories.clone())
    };
    let (programs, argv, environment, directories) = at_slurm.as_mut().map_or_else(own, AtSlurm::executed);
    let job = Launch {
        programs,
        script: script.map(Script::into_descriptor),
        argv,
        environment,
        credentials: Credentials {
            uid: request.os_account.uid,
            gid: decision.gid,
            groups: groups(decision, session),
        },
        directories,
        streams,
        terminal: at_slurm.as_ref().is_some_and(AtSlurm::has_terminal),
        cgroup: in_cgroup,
        confinement: decision.confinement.clone(),
        no_new_privileges: decision.no_new_privileges,
        // A project can make it stricter, never looser.
        umask: session.umask | (request.umask.unwrap_or(0) & MAX_UMASK),
        limits: session.limits.clone(),
        ceilings: held.ceilings,
        nice: bounds.nice.unwrap_or(0),
    };
    if let Some(at_slurm) = &at_slurm {
        slurm::begin_interactive(&request.job, at_slurm.cluster())?;
    }
    decision.still_holds(request)?;
    let from = Instant::now();
    let started = launch::launch(&job).map_err(internal("the job's fork"))?;
    let tree = Tree::new(started.pid, cgroup, from);
    // The job has its copies; ours would keep its pipes open.
    drop(job);
    log_launch(request, decision, script_bytes, peer, started.pid);
    // While the job gets to its program there is nothing else to do.
    folder.prepare_end();

    let rules = EndRules {
        // Slurm counts from when its job begins.
        time_limit: decision.end_rules().time_limit.filter(|_| at_slurm.is_none()),
        ..decision.end_rules()
    };
    let mut watch = Watch::new(folder, connection.as_fd(), signals, tree, started.report, rules, pumps)?;
    let ended = watch.until_the_tree_has_ended();
    let told = at_slurm.and_then(|at_slurm| at_slurm.leave_nothing(&request.job, &ended, folder));
    let Ended { end, cause, usage, captured } = ended?;
    let mut record = folder::record(&request.job, end, usage, captured);
    record.cause = cause;
    record.enforcement = held.enforcement;
    if let Some(told) = told {
        record.cause = record.cause.or(told.cause);
        record.usage = told.usage;
    }
    folder.record_end(&record)?;
    tracing::info!(
        event = "job_ended",
        job = %request.job,
        application = %request.application,
        account = %request.account,
        end = ?record.end,
        cause = record.cause.map(EndCause::as_str),
    );
    watch.tell(&JobState::Ended(record));
    watch.close();
    Ok(())
}

/// What PAM left, and the group of the job's project: where the name service names that, it is there already.
fn groups(decision: &Decision, session: &JobSession) -> Vec<u32> {
    let mut groups = session.groups.clone();
    let of_project = decision.project_group.map(OsGid::raw);
    groups.extend(of_project.filter(|gid| !session.groups.contains(gid)));
    groups
}

fn log_launch(request: &RunRequest, decision: &Decision, script_bytes: Option<usize>, peer: Peer, pid: i32) {
    let command: Vec<_> = request.argv.iter().map(|argument| String::from_utf8_lossy(argument)).collect();
    tracing::info!(
        event = "job_started",
        job = %request.job,
        application = %request.application,
        account = %request.account,
        os_user = %request.os_account.name,
        uid = request.os_account.uid.raw(),
        rule = %decision.rule,
        project_group = decision.project_group.map(OsGid::raw),
        command = %command.join(" "),
        script_bytes,
        pid,
        peer_uid = peer.uid,
        peer_pid = peer.pid,
    );
}

/// Lets a connection hear of a job as if it had started it: hands it to the shepherd, or answers from the record.
pub fn attach(settings: &Settings, job: &JobId, connection: &OwnedFd) {
    if !folder::exists(job) {
        let denial = Denial::new(Code::NotFound, "jobs", "the launcher has never had this job");
        return reply(connection, &LauncherReply::Denied(denial));
    }
    match watch::adopt(job, connection) {
        Adoption::Adopted(_) => return,
        Adoption::Foreign(theirs) => {
            tracing::error!(event = "foreign_shepherd", job = %job, oldest = theirs.oldest, newest = theirs.newest);
            return reply(connection, &LauncherReply::Denied(theirs.denial()));
        }
        Adoption::Failed => {
            let denial =
                Denial::new(Code::Busy, "jobs", "the job's shepherd does not answer now").remedy("ask again");
            return reply(connection, &LauncherReply::Denied(denial));
        }
        Adoption::NoShepherd => {}
    }
    // Nobody listens any more. The record, if there is one, has been written before that.
    if let Some(answer) = folder::outcome(job) {
        return reply(connection, &answer);
    }
    if let Some(answer) = slurm::attach(settings, job) {
        return reply(connection, &answer);
    }
    end_what_is_left(&JobCgroups::look_up(&settings.executor.local.cgroup), job);
    // Of one that was spoken with nothing runs on at Slurm either, before it is said to be lost.
    if let Some(Err(denial)) = slurm::end_what_is_left(settings, job) {
        return reply(connection, &LauncherReply::Denied(denial));
    }
    tracing::error!(event = "job_lost", job = %job);
    reply(connection, &LauncherReply::Job(JobState::Lost));
}

/// Ends what is left of a job whose shepherd has gone: nothing of a job may run on without one. Without a cgroup nobody
/// knows what belonged to it; its first process has ended with its shepherd.
fn end_what_is_left(cgroups: &JobCgroups, job: &JobId) {
    let Some(cgroup) = cgroups.find(job) else { return };
    match cgroup.end() {
        // Somebody else has just done it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::error!(event = "job_not_ended", job = %job, error = %error),
        Ok(()) => tracing::warn!(event = "job_without_shepherd_ended", job = %job),
    }
}

/// Ends what is left of all jobs whose shepherds have gone. A shepherd listens before it makes the cgroup, and until it
/// has removed it. Jobs of another Deputy, which shares the hierarchy, have no folder here.
pub fn end_all_that_is_left(settings: &Settings) {
    let cgroups = JobCgroups::look_up(&settings.executor.local.cgroup);
    for job in cgroups.jobs() {
        if folder::exists(&job) && !watch::has_shepherd(&job) {
            end_what_is_left(&cgroups, &job);
        }
    }
}

/// Removes what is left of those jobs that are over.
pub fn forget(settings: &Settings, jobs: &[JobId]) -> Result<(), Denial> {
    let cgroups = JobCgroups::look_up(&settings.executor.local.cgroup);
    for job in jobs.iter().filter(|job| folder::is_over(job)) {
        end_what_is_left(&cgroups, job);
        folder::remove(job)?;
    }
    Ok(())
}
