//! Words about a job to Slurm, as its OS account: end it, signal it, hold it, release it, run it again. Only by the number in
//! the job's own folder, at the cluster that it names.

use deputy_core::denial::{Code, Denial};
use deputy_core::ids::JobId;
use deputy_core::job::JobEnd;
use deputy_core::settings::Settings;
use deputy_core::slurm::{SlurmCommand, answer, command};
use deputy_sys::process;

use super::program::{Account, run, shown};
use super::{no_answer, record, requeue};
use crate::shepherd::folder;

/// Says a word about a job. That Slurm took it is not that it is done: the job's state tells that.
pub fn command(settings: &Settings, job: &JobId, wanted: SlurmCommand) -> Result<(), Denial> {
    if matches!(wanted, SlurmCommand::Signal(signal) if !process::is_signal(signal)) {
        return Err(Denial::invalid("there is no signal of this number"));
    }
    let number = record::number(job)?.ok_or_else(Denial::not_found)?;
    let cluster = record::cluster(job)?;
    let slurm = super::settings(settings, &cluster)?;
    let identity = folder::identity(job).ok_or_else(Denial::not_found)?;
    let again = match wanted {
        SlurmCommand::Requeue => Some(requeue::allowed(settings, job, &identity)?),
        _ => None,
    };
    let account = Account::of(&identity.os_account)?;
    let argv = command::about(number, wanted);
    let said = run(slurm, &account, &argv, None);
    if let Some(again) = again
        && let Err(denial) = again.still_holds(&identity)
    {
        // Whoever took the consent back ended what ran, and that may have been before this. Slurm may have taken it whatever it
        // answered.
        let ended = run(slurm, &account, &command::about(number, SlurmCommand::End), None)
            .and_then(|said| said.good("scancel"));
        tracing::warn!(event = "requeue_taken_back", job = %job, slurm = number.0, ended = ended.is_ok());
        return Err(denial);
    }
    let said = said?;
    if said.end != (JobEnd::Exited { code: 0 }) {
        return Err(match answer::refusal(&said.error) {
            Some(words) => Denial::new(Code::SlurmRefused, "Slurm", words)
                .remedy("look at the job's state: it may have ended just now"),
            None => no_answer(format!("{}: {}", argv[0], shown(&said.error))),
        });
    }
    tracing::info!(
        event = "job_commanded_at_slurm",
        command = ?wanted,
        job = %job,
        slurm = number.0,
        cluster = %cluster,
        application = %identity.application,
        account = %identity.account,
        uid = identity.os_account.uid.raw(),
    );
    Ok(())
}
