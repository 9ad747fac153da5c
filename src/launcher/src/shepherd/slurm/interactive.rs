//! A job at Slurm that somebody speaks with: `srun` is what its shepherd starts, as the user.
//!
//! So its streams, commands, end and survival are those of any job of this machine. What is Slurm's is seen to here: that is
//! on disk before `srun` starts, and the job is over when Slurm has nothing more of it, whatever became of `srun`.

use std::ffi::CString;
use std::mem;
use std::os::unix::ffi::OsStringExt as _;
use std::thread::sleep;
use std::time::{Duration, Instant};

use deputy_core::denial::Denial;
use deputy_core::ids::JobId;
use deputy_core::job::{JobEnd, OsIdentity};
use deputy_core::message::RunRequest;
use deputy_core::project::MAX_UMASK;
use deputy_core::settings::{Settings, SlurmSettings};
use deputy_core::slurm::interactive::{Program, SLURM_FAILED, srun};
use deputy_core::slurm::{ClusterName, Ended, Interactive, SlurmCommand, SlurmRequest, SlurmState, command};
use rustix::net::{SocketFlags, accept_with};

use super::ask::{self, Asked};
use super::program::{self, Account, run};
use super::record;
use super::submit::{SETTLED, bounds, find, unknown};
use crate::shepherd::decide::Decision;
use crate::shepherd::folder::{self, JobFolder};
use crate::shepherd::session::JobSession;
use crate::shepherd::variables::Variables;
use crate::shepherd::watch;

/// The first and the longest pause between two looks at what Slurm has of a job that has ended here.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// For how long the accounting is waited for, which has a job's end a moment after the queue. Somebody waits.
const ACCOUNTED: Duration = Duration::from_secs(1);

/// How long Slurm may take to end what `srun` has given back, before it is told to.
const GIVEN_BACK: Duration = Duration::from_secs(5);

/// What takes longer is no refusal, but a controller that does not answer: its own time for that is ten seconds.
const ANSWERED: Duration = Duration::from_secs(5);

/// After this a Slurm that does not answer is left to itself. It ends the job at its own time limit.
const GIVEN_UP: Duration = Duration::from_secs(3600);

/// An interactive job of this shepherd's.
pub struct AtSlurm<'a> {
    slurm: &'a SlurmSettings,
    cluster: ClusterName,
    account: Account,
    owner: OsIdentity,
    interactive: Interactive,
    program: CString,
    argv: Vec<CString>,
    environment: Vec<CString>,
}

impl<'a> AtSlurm<'a> {
    /// Makes ready what is executed. `asked` is what policy has checked and filled in.
    pub fn prepare(
        settings: &'a Settings,
        request: &RunRequest,
        variables: &Variables,
        decision: &Decision,
        asked: &SlurmRequest,
        session: &JobSession,
    ) -> Result<Self, Denial> {
        let cluster = asked.cluster.clone().unwrap_or_default();
        let slurm = super::settings(settings, &cluster)?;
        let interactive =
            asked.interactive.ok_or_else(|| Denial::invalid("a job that nobody speaks with is submitted"))?;
        if request.script {
            return Err(Denial::invalid(
                "an interactive job at Slurm names its program: none comes by descriptor",
            ));
        }
        let account = Account::of_job(request, decision, session);
        let made = Program {
            argv: &request.argv,
            directory: request.directory.as_deref(),
            umask: session.umask | (request.umask.unwrap_or(0) & MAX_UMASK),
        };
        let argv = srun(&request.job, asked, &bounds(request, decision), &made).ok_or_else(|| {
            Denial::invalid(
                "an interactive job at Slurm has a program that does not begin with -, and an absolute directory",
            )
        })?;
        let nul = |_| Denial::invalid("a NUL byte where none can be");
        let argv = argv.into_iter().map(|word| CString::new(word).map_err(nul)).collect::<Result<_, _>>()?;
        let failed = format!("SLURM_EXIT_ERROR={SLURM_FAILED}");
        let of_request = request.environment.iter().map(Vec::as_slice).chain(variables.iter());
        let environment = program::environment_of_job(slurm, &account, of_request.chain([failed.as_bytes()]));
        let program = CString::new(program::path(slurm, "srun")?.into_os_string().into_vec()).map_err(nul)?;
        Ok(Self {
            slurm,
            cluster,
            account,
            owner: request.os_account.clone(),
            interactive,
            program,
            argv,
            environment,
        })
    }

    /// Gives out what is executed here: paths to try, the argument vector, the environment (which is the program's as well),
    /// and working directories to try. Nothing of it, and so no secret, stays.
    pub fn executed(&mut self) -> (Vec<CString>, Vec<CString>, Vec<CString>, Vec<CString>) {
        let (argv, environment) = (mem::take(&mut self.argv), mem::take(&mut self.environment));
        (vec![mem::take(&mut self.program)], argv, environment, vec![c"/".to_owned()])
    }

    /// The cluster where it is.
    pub fn cluster(&self) -> &ClusterName {
        &self.cluster
    }

    /// Whether its streams are a terminal.
    pub fn has_terminal(&self) -> bool {
        self.interactive == Interactive::Terminal
    }

    /// Waits, when nothing is left of `srun`, until Slurm has nothing of the job, and has it end what it still has. What Slurm
    /// says of its end, if it does.
    ///
    /// What Slurm does not know after an `srun` that left by itself it never had; unless that had waited in vain for its answer.
    pub fn leave_nothing(
        &self,
        job: &JobId,
        ended: &Result<watch::Ended, Denial>,
        folder: &JobFolder,
    ) -> Option<Ended> {
        let age = || record::interactive(job).unwrap_or_default();
        let exited = match ended.as_ref().map(|ended| &ended.end) {
            Ok(JobEnd::Exited { code: SLURM_FAILED }) => age() < ANSWERED,
            Ok(JobEnd::Exited { .. } | JobEnd::LaunchFailed { .. }) => true,
            Ok(JobEnd::Signaled { .. }) | Err(_) => false,
        };
        let begun = Instant::now();
        let mut pause = PAUSES.0;
        loop {
            let unwanted = !exited || begun.elapsed() >= GIVEN_BACK;
            match look(self.slurm, &self.cluster, &self.account, &self.owner, job, unwanted) {
                Ok(Left::Nothing(told)) => return told,
                Ok(Left::Unknown) if exited || age() >= SETTLED => {
                    let ran = |end: &JobEnd| matches!(end, JobEnd::Exited { code } if *code != SLURM_FAILED);
                    if ended.as_ref().is_ok_and(|ended| ran(&ended.end)) {
                        // The program ran, and not at this cluster: the person's own defaults can name another one.
                        tracing::warn!(event = "slurm_elsewhere", job = %job, cluster = %self.cluster);
                    }
                    return None;
                }
                Ok(Left::Unsettled) if begun.elapsed() >= ACCOUNTED => return None,
                Ok(_) => {}
                Err(error) => tracing::warn!(event = "slurm_silent", job = %job, message = %error.message),
            }
            if begun.elapsed() >= GIVEN_UP {
                tracing::error!(event = "job_left_at_slurm", job = %job);
                return None;
            }
            // Whoever attaches meanwhile asks again; the socket has room for a few.
            while accept_with(&folder.listener, SocketFlags::CLOEXEC).is_ok() {}
            sleep(pause);
            pause = (pause * 2).min(PAUSES.1);
        }
    }
}

/// What Slurm has of a job.
enum Left {
    /// It runs or waits.
    Open,
    /// It has ended, and the accounting will tell how.
    Unsettled,
    /// It has ended; how, where that is told.
    Nothing(Option<Ended>),
    /// Slurm does not know it.
    Unknown,
}

/// One look by the job's name, which ends what waits or runs where that is `unwanted`.
fn look(
    slurm: &SlurmSettings,
    cluster: &ClusterName,
    account: &Account,
    owner: &OsIdentity,
    job: &JobId,
    unwanted: bool,
) -> Result<Left, Denial> {
    let Some(number) = find(slurm, account, job)? else { return Ok(Left::Unknown) };
    let asked = Asked { job: job.clone(), owner: owner.clone(), number, cluster: cluster.clone() };
    let state = ask::states(slurm, account, vec![asked])?.pop().map(|(_, standing)| standing.state);
    Ok(match state {
        None | Some(SlurmState::Waiting { .. } | SlurmState::Running { .. } | SlurmState::Completing) => {
            if unwanted {
                // What it says against that is that the job is ending: the next look tells.
                run(slurm, account, &command::about(number, SlurmCommand::End), None)?;
                tracing::info!(event = "job_commanded_at_slurm", command = "End", job = %job, slurm = number.0);
            }
            Left::Open
        }
        Some(SlurmState::Unsettled) => Left::Unsettled,
        Some(SlurmState::Ended(ended)) => Left::Nothing(Some(ended)),
        Some(SlurmState::NeverRan { .. } | SlurmState::Failed { .. } | SlurmState::Gone) => {
            Left::Nothing(None)
        }
    })
}

/// Has Slurm end what it still has of an interactive job whose shepherd is gone. None if the job is not one; an error where
/// that is not done yet.
pub fn end_what_is_left(settings: &Settings, job: &JobId) -> Option<Result<(), Denial>> {
    let age = record::interactive(job)?;
    Some(ended(settings, job, age))
}

fn ended(settings: &Settings, job: &JobId, age: Duration) -> Result<(), Denial> {
    let identity =
        folder::identity(job).ok_or_else(|| Denial::internal("the job's identity is unreadable"))?;
    let account = Account::of(&identity.os_account)?;
    let cluster = record::cluster(job)?;
    let slurm = super::settings(settings, &cluster)?;
    match look(slurm, &cluster, &account, &identity.os_account, job, true)? {
        Left::Nothing(_) | Left::Unsettled => Ok(()),
        // What srun said last may still be on its way.
        Left::Unknown if age >= SETTLED => Ok(()),
        Left::Unknown | Left::Open => Err(unknown()),
    }
}
