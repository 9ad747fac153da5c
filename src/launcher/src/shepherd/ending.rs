//! Ending what runs under a consent that has been taken back.
//!
//! The consent is gone before the folders are looked at, and a shepherd makes its folder before it reads consent and
//! reads it again before it forks: a job is either seen here, or refused there.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use deputy_core::denial::Code;
use deputy_core::ids::{JobId, OsUid};
use deputy_core::message::JobCommand;
use deputy_core::message::job::encode_command;
use deputy_core::names::{AccountName, ApplicationName};
use deputy_core::slurm::{ClusterName, SlurmCommand};

use super::watch::{Adoption, adopt, has_shepherd};
use super::{folder, slurm};
use crate::paths::JOBS;
use crate::rules;

/// For how long shepherds that are busy with PAM are asked again; whoever waits for the answer waits longer.
const PATIENCE: Duration = Duration::from_secs(12);

/// What came of one look at a job's folder.
enum Told {
    /// Its shepherd will end it.
    Ending,
    /// It is not of this consent, or it is over.
    NotMeant,
    /// It cannot be told yet.
    Later,
}

/// Ends every job that runs for this account as this OS account: how many were told, and how many could not be.
pub fn end_all(application: &ApplicationName, account: &AccountName, uid: OsUid) -> (u32, u32) {
    let end = Instant::now() + PATIENCE;
    let mut open: Vec<JobId> = fs::read_dir(JOBS).into_iter().flatten().flatten().filter_map(job).collect();
    let mut ending = 0;
    // Those at Slurm come last: it may take long to answer.
    open.sort_by_key(slurm::is_submitted);
    loop {
        // A cluster that did not answer is not asked again in this round: jobs at others would wait for it.
        let mut silent = BTreeSet::new();
        open.retain(|job| match tell(job, application, account, uid, &mut silent) {
            Told::Ending => {
                ending += 1;
                tracing::info!(event = "job_ends_with_its_consent", job = %job, account = %account);
                false
            }
            Told::NotMeant => false,
            Told::Later => true,
        });
        if open.is_empty() || Instant::now() >= end {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    for job in &open {
        tracing::error!(event = "job_not_ended", job = %job, account = %account);
    }
    (ending, u32::try_from(open.len()).unwrap_or(u32::MAX))
}

fn job(entry: fs::DirEntry) -> Option<JobId> {
    entry.file_name().to_str()?.parse().ok()
}

fn tell(
    job: &JobId,
    application: &ApplicationName,
    account: &AccountName,
    uid: OsUid,
    silent: &mut BTreeSet<ClusterName>,
) -> Told {
    match folder::identity(job) {
        Some(identity) => {
            let meant = identity.application == *application
                && identity.account == *account
                && identity.os_account.uid == uid;
            if !meant || folder::outcome(job).is_some() {
                return Told::NotMeant;
            }
        }
        // It is being decided about, or it was refused.
        None if folder::outcome(job).is_some() || !has_shepherd(job) => return Told::NotMeant,
        None => return Told::Later,
    }
    // A submission that is on its way has a child, and is asked about again.
    if slurm::is_submitted(job) && !has_shepherd(job) {
        let Ok(cluster) = slurm::cluster(job) else { return Told::Later };
        if silent.contains(&cluster) {
            return Told::Later;
        }
        let ended = rules::settings().and_then(|settings| slurm::command(&settings, job, SlurmCommand::End));
        return match ended {
            Ok(()) => Told::Ending,
            Err(denial) => {
                if denial.code == Code::SlurmUnavailable {
                    silent.insert(cluster);
                }
                Told::Later
            }
        };
    }
    let told = end(job);
    if matches!(told, Told::NotMeant)
        && let Ok(settings) = rules::settings()
        && let Some(Err(_)) = slurm::end_what_is_left(&settings, job)
    {
        return Told::Later;
    }
    told
}

fn end(job: &JobId) -> Told {
    let Ok((ours, theirs)) = deputy_wire::pair() else { return Told::Later };
    let version = match adopt(job, &theirs) {
        Adoption::Adopted(version) => version,
        Adoption::NoShepherd => return Told::NotMeant,
        // What cannot be told is counted, and whoever takes the consent back hears of it.
        Adoption::Failed | Adoption::Foreign(_) => return Told::Later,
    };
    match encode_command(JobCommand::EndForConsent, version)
        .map(|packet| deputy_wire::send(&ours, &packet, &[]))
    {
        Ok(Ok(())) => Told::Ending,
        _ => Told::Later,
    }
}
