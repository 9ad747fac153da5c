//! What a cluster has, and what Slurm grants one person there: `sinfo` by the operator or that person, `sacctmgr` by him
//! alone, and only where there is accounting.

use deputy_core::denial::{Code, Denial};
use deputy_core::message::ClusterRequest;
use deputy_core::settings::{Ends, Settings};
use deputy_core::slurm::resources::{self, Cluster};

use super::no_answer;
use super::program::{Account, run};
use crate::consents;
use crate::rules::Rules;

/// Answers. Whoever is asked about has to have a consent that holds, as for a job: a program starts as him.
pub fn resources(settings: &Settings, request: &ClusterRequest) -> Result<Cluster, Denial> {
    let slurm = super::settings(settings, &request.cluster)?;
    let person = match &request.of {
        None => None,
        Some(of) => {
            let rules = Rules::under(settings.clone(), &of.application)?;
            consents::would_be_valid(&rules, &of.account, &of.os_account)?;
            rules.pinned_target(&of.os_account)?;
            Some((Account::of(&of.os_account)?, &of.os_account.name))
        }
    };
    let operator = slurm.operator.as_ref().map(Account::operator).transpose()?;
    let asks = operator.as_ref().or(person.as_ref().map(|(account, _)| account)).ok_or_else(|| {
        Denial::new(
            Code::SlurmUnavailable,
            "deputy.toml: executor.slurm.operator",
            "there is no operator that asks Slurm what the cluster has",
        )
        .remedy("name an account, or have root name an operator")
    })?;
    let nodes = run(slurm, asks, &resources::sinfo(), None)?.good("sinfo")?;
    let associations = match &person {
        Some((account, name)) if slurm.ends == Ends::Accounting => {
            let configuration = run(slurm, account, &resources::configuration(), None)?.good("scontrol")?;
            let own = resources::own_name(&configuration).ok_or_else(|| {
                no_answer("scontrol: the configuration does not say what the cluster is called")
            })?;
            run(slurm, account, &resources::sacctmgr(name.as_str(), &own), None)?.good("sacctmgr")?
        }
        _ => String::new(),
    };
    let (cluster, strange) = resources::cluster(&nodes, &associations);
    if strange > 0 {
        tracing::warn!(event = "slurm_strange", program = "sinfo and sacctmgr", lines = strange);
    }
    Ok(cluster)
}
