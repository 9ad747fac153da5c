//! `Manager.Resources`: what there is for jobs, on this machine and at each cluster, in one form.
//!
//! What others use of this machine is told to administrators alone, as by `Manager.Queue`. A cluster tells what is free to
//! everybody who may ask Slurm.

use std::time::{Duration, Instant};

use deputy_core::message::{ClusterPerson, ClusterRequest, LauncherReply, LauncherRequest};
use deputy_core::schedule::{Most, Resource};
use deputy_core::settings::Ends;
use deputy_core::slurm::ClusterName;
use deputy_core::slurm::resources::{Association, Capacity, Cluster, Node};
use deputy_core::{AccountName, Denial};
use futures_util::future::join_all;

use crate::authority::{About, Call, Granted, Ground};
use crate::bus::options::Options;
use crate::bus::record::{Record, list};
use crate::daemon::Daemon;
use crate::launcher::LauncherError;
use crate::links;

/// How long the launcher's child may take over Slurm's programs.
const ANSWER: Duration = Duration::from_secs(60);

/// `Manager.Resources`.
pub async fn resources(call: Call, (mut options,): (Options,)) -> Result<Granted<(Record,)>, Denial> {
    let application = options.application()?;
    let account: Option<AccountName> = options.name("account")?;
    options.finish()?;
    let about = About { account: account.clone(), ..About::application(application) };
    let grant = call.authorize_any(about).await?;
    let daemon = &call.daemon;
    daemon.explanations.take(call.caller.uid, Instant::now())?;
    let of = match &account {
        None => None,
        Some(account) => {
            let registered = grant.application()?;
            let link = links::usable(daemon, registered, account).await?;
            let application = registered.name.clone();
            Some(ClusterPerson { application, account: account.clone(), os_account: link.os })
        }
    };
    let everything = grant.ground == Ground::Administrator;
    let mut hosts = vec![this_machine(daemon, everything)];
    let mut shown = Record::new();
    let snapshot = daemon.directory.snapshot();
    if let Some(slurm) = &snapshot.settings.executor.slurm {
        let (mut partitions, mut associations, mut silent) = (Vec::new(), Vec::new(), Vec::new());
        let without = slurm.all().filter(|(_, settings)| settings.ends == Ends::Queue);
        let without: Vec<String> = without.map(|(name, _)| name.to_string()).collect();
        if of.is_some() && !without.is_empty() {
            shown = shown.with("without_accounting", without);
        }
        let asked = slurm.all().map(|(name, _)| {
            let of = of.clone();
            async move { (cluster(daemon, name, of).await, name) }
        });
        for (answer, name) in join_all(asked).await {
            match answer {
                Ok(has) => {
                    hosts.extend(has.nodes.iter().map(|one| node(name, one)));
                    partitions.extend(has.partitions.iter().map(|(partition, has)| {
                        let record = Record::new().text("cluster", name).text("partition", partition);
                        capacity(record.with("nodes", has.nodes), has)
                    }));
                    associations.extend(has.associations.iter().map(|one| association(name, one)));
                }
                // This machine and the others can be told of nevertheless.
                Err(denial) => silent.push(format!("{name}: {}: {}", denial.code, denial.message)),
            }
        }
        shown = shown.with("partitions", list(partitions)).with("associations", list(associations));
        if !silent.is_empty() {
            shown = shown.with("unavailable", silent.join("; "));
        }
    }
    Ok(grant.answer((shown.with("hosts", list(hosts)),)))
}

async fn cluster(
    daemon: &Daemon,
    cluster: &ClusterName,
    of: Option<ClusterPerson>,
) -> Result<Cluster, Denial> {
    let request = LauncherRequest::Cluster(ClusterRequest { cluster: cluster.clone(), of });
    match daemon.launcher.ask(&request, &[], ANSWER).await? {
        LauncherReply::Cluster(cluster) => Ok(cluster),
        _ => Err(LauncherError::Foreign.into()),
    }
}

fn this_machine(daemon: &Daemon, everything: bool) -> Record {
    let (has, free, gpus_free) = daemon.tracker.queue().machine(&daemon.directory.snapshot());
    let free = if everything { free } else { Most::default() };
    let cpus = |most: Most| most.of(Resource::Cpus).map(cpus);
    Record::new()
        .with("executor", "local")
        .with("name", "this machine")
        .maybe("cpus", cpus(has))
        .maybe("cpus_free", cpus(free))
        .maybe("memory", has.of(Resource::Memory))
        .maybe("memory_free", free.of(Resource::Memory))
        .maybe("gpus", has.of(Resource::Gpus))
        .with("gpus_free", gpus_free)
}

fn node(cluster: &ClusterName, node: &Node) -> Record {
    let record = Record::new()
        .with("executor", "slurm")
        .text("cluster", cluster)
        .text("name", &node.name)
        .text("state", &node.state)
        .with("partitions", node.partitions.clone());
    capacity(record, &node.has)
}

fn capacity(record: Record, has: &Capacity) -> Record {
    record
        .with("cpus", f64::from(has.cpus))
        .with("cpus_free", f64::from(has.cpus_free))
        .with("memory", has.memory_mib.saturating_mul(1 << 20))
        .with("memory_free", has.memory_mib_free.saturating_mul(1 << 20))
        .with("gpus", u64::from(has.gpus))
        .with("gpus_free", u64::from(has.gpus_free))
}

fn association(cluster: &ClusterName, of: &Association) -> Record {
    let limits: Vec<String> = of.limits.iter().map(|(name, value)| format!("{name}={value}")).collect();
    Record::new()
        .text("cluster", cluster)
        .text("account", &of.account)
        .text("partition", &of.partition)
        .text("qos", &of.qos)
        .with("limits", limits)
}

fn cpus(milli: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let milli = milli as f64;
    milli / 1000.0
}
