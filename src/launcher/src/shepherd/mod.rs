//! The shepherd: one job, from the decision to the exit record.
//!
//! Read [`run`] from top to bottom: it is the order of a launch. The folder is made before consent is read, so that
//! whoever revokes a consent and then looks at the folders sees every job that could still start. The same process
//! opens the PAM session, waits for the whole tree, writes the record and closes the session.

mod decide;
mod ending;
mod environment;
mod explain;
mod folder;
mod session;
mod stdio;
mod watch;

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use deputy_core::denial::{Code, Denial};
use deputy_core::ids::JobId;
use deputy_core::message::{JobState, LauncherReply, RunRequest};
use deputy_core::project::MAX_UMASK;
use deputy_core::settings::Settings;
use deputy_sys::cgroup::JobCgroup;
use deputy_sys::launch::{Launch, above_stdio};
use deputy_sys::{Credentials, launch, process};
use deputy_wire::Peer;

use self::decide::{Decision, Purpose};
use self::folder::JobFolder;
use self::session::JobSession;
use self::watch::{Adoption, Ended, Watch};
use crate::consents;
use crate::request::{refuse, reply, slot};

pub use self::ending::end_all;
pub use self::explain::explain;
pub use self::folder::{abandon, is_over};

/// The whole life of a shepherd.
pub fn run(
    settings: &Settings,
    request: RunRequest,
    descriptors: Vec<OwnedFd>,
    connection: OwnedFd,
    peer: Peer,
) {
    let slot = match slot("jobs", settings.launcher.max_jobs) {
        Ok(slot) => slot,
        Err(denial) => return refuse(&connection, peer, denial),
    };
    let stdio = match stdio::check(descriptors) {
        Ok(stdio) => stdio,
        Err(denial) => return refuse(&connection, peer, denial),
    };
    // The commit point: from here on this id has been used.
    let folder = match JobFolder::create(&request.job) {
        Ok(folder) => folder,
        Err(denial) => return refuse(&connection, peer, denial),
    };
    match shepherd(settings, &request, stdio, &folder, &connection, peer) {
        Ok(()) => {}
        Err(denial) => {
            folder.record_denial(&denial);
            refuse(&connection, peer, denial);
        }
    }
    drop(slot);
}

fn shepherd(
    settings: &Settings,
    request: &RunRequest,
    stdio: [OwnedFd; 3],
    folder: &JobFolder,
    connection: &OwnedFd,
    peer: Peer,
) -> Result<(), Denial> {
    // Before consent is read: whoever takes it back and then looks for its jobs finds this one, or is seen by it.
    folder.record_identity(request)?;
    let decision = decide::decide(settings, request, Purpose::Run { by_uid: peer.uid })?;
    let session = session::open(&decision, &decision.target.entry.name, &request.os_account)?;
    let outcome = run_in_session(settings, request, stdio, folder, connection, &decision, &session, peer);
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
    stdio: [OwnedFd; 3],
    folder: &JobFolder,
    connection: &OwnedFd,
    decision: &Decision,
    session: &JobSession,
    peer: Peer,
) -> Result<(), Denial> {
    let internal = |what: &'static str| move |error: io::Error| Denial::internal(format!("{what}: {error}"));
    let cgroup = JobCgroup::create(&settings.executor.local.cgroup, &request.job)
        .map_err(internal("the job's cgroup"))?;
    let in_cgroup =
        cgroup.as_ref().map(JobCgroup::folder).transpose().map_err(internal("the job's cgroup"))?;
    process::become_subreaper().map_err(internal("becoming a subreaper"))?;
    let signals = process::signals().map_err(internal("signals"))?;

    let job = Launch {
        programs: decision.programs.clone(),
        argv: decision.argv.clone(),
        environment: environment::build(&decision.target.entry, &session.environment, &request.environment),
        credentials: Credentials {
            uid: request.os_account.uid,
            gid: decision.gid,
            groups: session.groups.clone(),
        },
        directories: decision.directories.clone(),
        stdio: above_stdio(stdio).map_err(internal("the job's descriptors"))?,
        cgroup: in_cgroup,
        no_new_privileges: decision.no_new_privileges,
        // A project can make it stricter, never looser.
        umask: session.umask | (request.umask.unwrap_or(0) & MAX_UMASK),
        limits: session.limits.clone(),
    };
    // PAM may have taken its time: what the owner took back meanwhile starts nothing.
    consents::still_valid(&request.application, &request.account, &request.os_account, decision.service_uid)?;
    let started = launch::launch(&job).map_err(internal("the job's fork"))?;
    // The job has its copies; ours would keep its pipes open.
    drop(job);
    log_launch(request, decision, peer, started.pid);
    // While the job gets to its program there is nothing else to do.
    folder.prepare_end();

    let mut watch = Watch::new(folder, connection.as_fd(), signals, cgroup, started)?;
    let Ended { end, usage } = watch.until_the_tree_has_ended()?;
    let record = folder::record(&request.job, end, usage);
    folder.record_end(&record)?;
    tracing::info!(
        event = "job_ended",
        job = %request.job,
        application = %request.application,
        account = %request.account,
        end = ?record.end,
    );
    watch.tell(&JobState::Ended(record));
    watch.close();
    Ok(())
}

fn log_launch(request: &RunRequest, decision: &Decision, peer: Peer, pid: i32) {
    let command: Vec<_> = request.argv.iter().map(|argument| String::from_utf8_lossy(argument)).collect();
    tracing::info!(
        event = "job_started",
        job = %request.job,
        application = %request.application,
        account = %request.account,
        os_user = %request.os_account.name,
        uid = request.os_account.uid.raw(),
        rule = %decision.rule,
        command = %command.join(" "),
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
        Adoption::Adopted => return,
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
    end_what_is_left(settings, job);
    tracing::error!(event = "job_lost", job = %job);
    reply(connection, &LauncherReply::Job(JobState::Lost));
}

/// Ends what is left of a job whose shepherd has gone: nothing of a job may run on without one.
pub fn end_what_is_left(settings: &Settings, job: &JobId) {
    if let Some(cgroup) = JobCgroup::find(&settings.executor.local.cgroup, job) {
        let _ = cgroup.kill();
        let _ = cgroup.remove();
    }
}
