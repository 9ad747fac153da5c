//! Ending a job at Slurm, or signalling it, as its OS account: only by the number in the job's own folder.

use deputy_core::denial::{Code, Denial};
use deputy_core::ids::JobId;
use deputy_core::job::JobEnd;
use deputy_core::settings::Settings;
use deputy_core::slurm::{answer, command};
use deputy_sys::process;

use super::program::{Account, run, shown};
use super::{no_answer, record};
use crate::shepherd::folder;

/// Has Slurm end a job, or send it a signal. That it took the word is not that the job has ended: its state tells that.
pub fn end(settings: &Settings, job: &JobId, signal: Option<i32>) -> Result<(), Denial> {
    let slurm = super::settings(settings)?;
    if signal.is_some_and(|signal| !process::is_signal(signal)) {
        return Err(Denial::invalid("there is no signal of this number"));
    }
    let number = record::number(job)?.ok_or_else(Denial::not_found)?;
    let identity = folder::identity(job).ok_or_else(Denial::not_found)?;
    let account = Account::of(&identity.os_account)?;
    let said = run(slurm, &account, &command::scancel(number, signal), None)?;
    if said.end != (JobEnd::Exited { code: 0 }) {
        return Err(match answer::refusal(&said.error) {
            Some(words) => Denial::new(Code::SlurmRefused, "Slurm", words)
                .remedy("look at the job's state: it may have ended just now"),
            None => no_answer(format!("scancel: {}", shown(&said.error))),
        });
    }
    tracing::info!(
        event = "job_ended_at_slurm",
        job = %job,
        slurm = number.0,
        signal,
        application = %identity.application,
        account = %identity.account,
        uid = identity.os_account.uid.raw(),
    );
    Ok(())
}
