//! Submitting a job, exactly once.
//!
//! The job's folder is made first, and with it the id is used up. Before `sbatch` starts, that is on disk; after it, the
//! number that Slurm gave. Where the answer is lost, Slurm is asked by the job's name, which nobody else's job has, and
//! nothing is submitted a second time.

use std::os::fd::OwnedFd;
use std::thread::sleep;
use std::time::{Duration, Instant};

use deputy_core::denial::{Code, Denial};
use deputy_core::ids::JobId;
use deputy_core::job::JobEnd;
use deputy_core::limits::JobBounds;
use deputy_core::message::{JobState, LauncherReply, RunRequest, SubmitRequest};
use deputy_core::project::MAX_UMASK;
use deputy_core::settings::{Ends, Settings, SlurmSettings};
use deputy_core::slurm::script::{self, Script};
use deputy_core::slurm::{ClusterName, SlurmJobId, SlurmRequest, When, answer, command, resources};
use deputy_wire::Peer;
use rustix::fs::{SeekFrom, seek};
use rustix::net::{SocketFlags, accept_with};
use zeroize::Zeroizing;

use super::program::{Account, run};
use super::record::RunsAgain;
use super::{dependencies, no_answer, program, record};
use crate::request::{refuse, reply, slot};
use crate::shepherd::decide::{self, Decision, Purpose};
use crate::shepherd::folder::{self, JobFolder};
use crate::shepherd::script::Script as SealedScript;
use crate::shepherd::session::{self, JobSession};
use crate::shepherd::stdio::{self, Brought};

/// How long Slurm is asked what became of a submission, before it is for whoever attaches to ask.
const ASKED_FOR: Duration = Duration::from_secs(60);

/// Between two such questions.
const PAUSE: Duration = Duration::from_secs(2);

/// How old a submission is when a job that Slurm does not know was never taken: `sbatch` ends with its parent, and
/// Slurm's own time for a message is ten seconds where its configuration has no other.
pub(super) const SETTLED: Duration = Duration::from_secs(60);

/// What is beside a request.
struct Beside {
    /// Its script and its secret variables.
    brought: Brought,
    /// For what jobs of Slurm's it waits.
    after: Vec<(When, SlurmJobId)>,
    /// Who asks.
    peer: Peer,
}

/// The whole life of a child that submits.
pub fn submit(
    settings: &Settings,
    request: &SubmitRequest,
    descriptors: Vec<OwnedFd>,
    connection: &OwnedFd,
    peer: Peer,
) {
    let slot = match slot("jobs", settings.launcher.max_jobs) {
        Ok(slot) => slot,
        Err(denial) => return refuse(connection, peer, denial),
    };
    let after = match dependencies::numbers(request) {
        Ok(after) => after,
        Err(denial) => return refuse(connection, peer, denial),
    };
    let brought = match stdio::take(&request.run, false, descriptors) {
        Ok(brought) => brought,
        Err(denial) => return refuse(connection, peer, denial),
    };
    // The commit point, as for any job: from here on this id has been used.
    let folder = match JobFolder::create(&request.run.job) {
        Ok(folder) => folder,
        Err(denial) => return refuse(connection, peer, denial),
    };
    match submitted(settings, request, &Beside { brought, after, peer }, &folder, connection) {
        // It was answered; or nobody knows yet, which is no refusal: whoever attaches asks again.
        Ok(_) => {}
        Err(denial) => {
            folder.record_denial(&denial);
            refuse(connection, peer, denial);
        }
    }
    drop(slot);
}

/// It is not known yet what Slurm made of a request.
pub(super) fn unknown() -> Denial {
    Denial::new(Code::Busy, "Slurm", "whether Slurm took the job is not known yet").remedy("ask again")
}

fn submitted(
    settings: &Settings,
    request: &SubmitRequest,
    beside: &Beside,
    folder: &JobFolder,
    connection: &OwnedFd,
) -> Result<Option<SlurmJobId>, Denial> {
    let SubmitRequest { run, slurm } = request;
    // Before consent is read, as for any job.
    folder.record_identity(run)?;
    let purpose = Purpose::Submit { by_uid: beside.peer.uid, slurm };
    let decision = decide::decide(settings, run, &beside.brought.variables, purpose)?;
    let cluster = decision.slurm.as_ref().and_then(|asked| asked.cluster.clone()).unwrap_or_default();
    let slurm_settings = super::settings(settings, &cluster)?;
    let session = session::open(&decision, &decision.target.entry.name, &run.os_account)?;
    let outcome = in_session(slurm_settings, run, beside, folder, &decision, &session);
    if let Ok(Some(slurm)) = outcome {
        // It is on disk, and nobody waits for the session's end.
        reply(connection, &LauncherReply::Submitted { slurm });
    }
    session.close();
    outcome
}

fn in_session(
    slurm: &SlurmSettings,
    request: &RunRequest,
    beside: &Beside,
    folder: &JobFolder,
    decision: &Decision,
    session: &JobSession,
) -> Result<Option<SlurmJobId>, Denial> {
    let asked = decision.slurm.as_ref().ok_or_else(|| Denial::internal("no decision about Slurm"))?;
    if asked.interactive.is_some() {
        return Err(Denial::invalid("an interactive job is not submitted: it has a shepherd"));
    }
    let umask = session.umask | (request.umask.unwrap_or(0) & MAX_UMASK);
    let script = script(request, &beside.brought, asked, umask)?;
    let account = Account::of_job(request, decision, session);
    let argv = command::sbatch(&request.job, asked, &bounds(request, decision), &beside.after);
    decision.still_holds(request)?;
    // What is not there submits nothing: that need not be asked of Slurm afterwards.
    program::path(slurm, "sbatch")?;
    if asked.requeue {
        let RunRequest { kind, project_group, login, .. } = request;
        let again = RunsAgain { kind: kind.clone(), project_group: *project_group, login: *login };
        record::may_run_again(&request.job, &again)?;
    }
    let submission = record::begin(&request.job, &asked.cluster.clone().unwrap_or_default())?;
    let said = run(slurm, &account, &argv, Some(script));
    let number = match said {
        Ok(said) if said.end == (JobEnd::Exited { code: 0 }) => {
            let number = answer::submitted(&said.output);
            if let (Some(number), Some(there)) = (number, answer::other_cluster(&said.output)) {
                stays(slurm, &account, number, &there)?;
            }
            number
        }
        Ok(said) => match answer::refusal(&said.error) {
            Some(words) => return Err(refused(words)),
            None => None,
        },
        // It never ran, so nothing was submitted.
        Err(denial) if denial.code == Code::LaunchFailed => return Err(denial),
        Err(_) => None,
    };
    let number = match number {
        Some(number) => Some(number),
        None => find_patiently(slurm, &account, &request.job, folder)?,
    };
    if let Some(number) = number {
        submission.submitted(number)?;
        log(request, decision, asked, number, beside.peer);
    }
    Ok(number)
}

/// Whether a job that went where the person's own defaults say is at the cluster to which it was to go. One that is not is
/// cancelled there: policy decides about clusters.
fn stays(
    slurm: &SlurmSettings,
    account: &Account,
    job: SlurmJobId,
    there: &ClusterName,
) -> Result<(), Denial> {
    let said = run(slurm, account, &resources::configuration(), None).and_then(|said| said.good("scontrol"));
    if said.ok().as_deref().and_then(resources::own_name).as_ref() == Some(there) {
        return Ok(());
    }
    let argv = command::cancel_elsewhere(job, there);
    let cancelled = run(slurm, account, &argv, None).and_then(|said| said.good("scancel"));
    tracing::warn!(event = "slurm_elsewhere", slurm = job.0, there = %there, cancelled = cancelled.is_ok());
    Err(Denial::new(
        Code::SlurmRefused,
        "~/.slurm/defaults",
        format!(
            "the person's own defaults for sbatch sent the job to the cluster {there}, where it was cancelled"
        ),
    )
    .remedy("have the person take the line clusters out of ~/.slurm/defaults"))
}

/// CPUs are what was asked for: what policy allows beyond is not wanted. Memory and time are Slurm's to bound.
pub(super) fn bounds(request: &RunRequest, decision: &Decision) -> JobBounds {
    let mut bounds = decision.bounds;
    bounds.limits.cpus = request.bounds.limits.cpus;
    bounds
}

fn refused(words: String) -> Denial {
    Denial::new(Code::SlurmRefused, "Slurm", words)
        .remedy("ask for what Slurm grants this OS account: sacctmgr show associations user=NAME, sinfo")
}

/// The batch script, sealed, to be read from its beginning.
fn script(
    request: &RunRequest,
    brought: &Brought,
    asked: &SlurmRequest,
    umask: u32,
) -> Result<OwnedFd, Denial> {
    let program = brought.script.as_ref().map(SealedScript::contents).transpose()?;
    let secret = brought.variables.iter().map(<[u8]>::to_vec);
    let environment = Zeroizing::new(request.environment.iter().cloned().chain(secret).collect::<Vec<_>>());
    let script = Script {
        argv: &request.argv,
        environment: &environment,
        directory: request.directory.as_deref(),
        umask,
        streams: &request.streams,
        array: asked.array.as_ref(),
        program: program.as_deref(),
    };
    let text = script::script(&script).map(Zeroizing::new).ok_or_else(|| {
        Denial::invalid(
            "a job at Slurm has files for its streams, variables with names of a shell's, and a program that does not \
             begin with -",
        )
    })?;
    let sealed = SealedScript::seal(&text)?.into_descriptor();
    seek(&sealed, SeekFrom::Start(0)).map_err(|error| Denial::internal(format!("the script: {error}")))?;
    Ok(sealed)
}

fn log(request: &RunRequest, decision: &Decision, asked: &SlurmRequest, number: SlurmJobId, peer: Peer) {
    let command: Vec<_> = request.argv.iter().map(|argument| String::from_utf8_lossy(argument)).collect();
    tracing::info!(
        event = "job_submitted",
        job = %request.job,
        slurm = number.0,
        cluster = asked.cluster.as_ref().map(tracing::field::display),
        application = %request.application,
        account = %request.account,
        os_user = %request.os_account.name,
        uid = request.os_account.uid.raw(),
        rule = %decision.rule,
        partition = asked.partition.as_ref().map(tracing::field::display),
        command = %command.join(" "),
        peer_uid = peer.uid,
        peer_pid = peer.pid,
    );
}

/// Asks Slurm for a job of this name until it answers. None where it does not for too long.
fn find_patiently(
    slurm: &SlurmSettings,
    account: &Account,
    job: &JobId,
    folder: &JobFolder,
) -> Result<Option<SlurmJobId>, Denial> {
    let end = Instant::now() + ASKED_FOR;
    let mut absent = 0;
    while Instant::now() < end {
        match find(slurm, account, job) {
            Ok(Some(number)) => return Ok(Some(number)),
            // Once may have been too early: a controller that was away has much to do when it is back.
            Ok(None) if absent > 1 => match would_still_be_there(slurm, account, record::begun(job)) {
                Ok(true) => {
                    return Err(no_answer("Slurm's controller did not answer, and does not have the job"));
                }
                Ok(false) => return Ok(None),
                Err(error) => tracing::warn!(event = "slurm_silent", job = %job, message = %error.message),
            },
            Ok(None) => absent += 1,
            Err(error) => tracing::warn!(event = "slurm_silent", job = %job, message = %error.message),
        }
        // Whoever attaches meanwhile asks again; the socket has room for a few.
        while accept_with(&folder.listener, SocketFlags::CLOEXEC).is_ok() {}
        sleep(PAUSE);
    }
    Ok(None)
}

/// Whether a job would be found that Slurm had taken when it was asked to, so long ago, whatever became of it since. The
/// accounting forgets none; a queue keeps what has ended for `MinJobAge`.
fn would_still_be_there(
    slurm: &SlurmSettings,
    account: &Account,
    age: Option<Duration>,
) -> Result<bool, Denial> {
    if slurm.ends == Ends::Accounting {
        return Ok(true);
    }
    let configuration = run(slurm, account, &resources::configuration(), None)?.good("scontrol")?;
    let kept = resources::kept(&configuration);
    Ok(age.zip(kept).is_some_and(|(age, kept)| kept.is_zero() || age < kept))
}

/// One question. An error is no absence.
pub(super) fn find(
    slurm: &SlurmSettings,
    account: &Account,
    job: &JobId,
) -> Result<Option<SlurmJobId>, Denial> {
    let queue = command::find_in_queue(job, account.credentials.uid);
    let accounting = (slurm.ends == Ends::Accounting).then(|| command::find_in_accounting(job));
    for argv in [queue].into_iter().chain(accounting) {
        let output = run(slurm, account, &argv, None)?.good(&argv[0])?;
        let found = answer::found(&output).map_err(|error| no_answer(error.to_string()))?;
        if let Some(number) = found.first() {
            return Ok(Some(*number));
        }
    }
    Ok(None)
}

/// What became of a job that was to be submitted and has no child any more; none if it was not to be.
pub fn attach(settings: &Settings, job: &JobId) -> Option<LauncherReply> {
    let age = record::begun(job)?;
    Some(match known(settings, job, age) {
        Ok(answer) => answer,
        Err(denial) => LauncherReply::Denied(denial),
    })
}

fn known(settings: &Settings, job: &JobId, age: Duration) -> Result<LauncherReply, Denial> {
    if let Some(slurm) = record::number(job)? {
        return Ok(LauncherReply::Submitted { slurm });
    }
    let identity =
        folder::identity(job).ok_or_else(|| Denial::internal("the job's identity is unreadable"))?;
    let account = Account::of(&identity.os_account)?;
    let cluster = record::cluster(job)?;
    if let Some(slurm) = find(super::settings(settings, &cluster)?, &account, job)? {
        record::found(job, slurm)?;
        tracing::info!(event = "job_found", job = %job, slurm = slurm.0);
        return Ok(LauncherReply::Submitted { slurm });
    }
    if age < SETTLED {
        return Err(unknown());
    }
    tracing::error!(event = "job_lost", job = %job);
    Ok(LauncherReply::Job(JobState::Lost))
}
