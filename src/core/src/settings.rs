//! The machine's settings, `/etc/deputy/deputy.toml`. The file may be absent: the defaults work.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use thiserror::Error;

use crate::names::OsUserName;
use crate::pool::PoolSettings;
use crate::queue::Capacity;
use crate::quota_settings::QuotaSettings;
use crate::size::ByteSize;
use crate::slurm::ClusterName;
use crate::toml_error;

/// The text of `deputy.toml` is not one: where, what, and the key that was probably meant.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct SettingsError(String);

/// The groups whose members are never a target unless `deputy.toml` says otherwise: membership amounts to root's
/// power, or to reading what only root should.
pub const PRIVILEGED_GROUPS: [&str; 11] =
    ["root", "shadow", "disk", "sudo", "wheel", "adm", "docker", "lxd", "libvirt", "kvm", "incus-admin"];

/// The settings of one machine.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
pub struct Settings {
    /// Which OS accounts can be a target on this machine at all.
    pub os_accounts: OsAccountSettings,
    /// How many of the launcher's children may live at once.
    pub launcher: LauncherSettings,
    /// Where jobs run.
    pub executor: ExecutorSettings,
    /// How much captured output is kept.
    pub output: OutputSettings,
    /// For how long jobs that have ended are kept.
    pub retention: RetentionSettings,
    /// How long sessions live.
    pub sessions: SessionSettings,
    /// How long a link that was asked for waits for its owner.
    pub links: LinkSettings,
    /// When to warn about quotas, and who tells them.
    pub quota: QuotaSettings,
    /// OS accounts for accounts that have none; absent: there is no pool.
    pub pool: Option<PoolSettings>,
}

/// Which OS accounts can be a target on this machine at all.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OsAccountSettings {
    /// The lowest uid; an application's file can only raise it.
    pub min_uid: u32,
    /// The highest uid; an application's file can only lower it.
    pub max_uid: u32,
    /// Members of these groups are refused.
    pub privileged_groups: Vec<String>,
}

impl Default for OsAccountSettings {
    fn default() -> Self {
        Self {
            min_uid: 1000,
            max_uid: u32::MAX - 1,
            privileged_groups: PRIVILEGED_GROUPS.map(String::from).to_vec(),
        }
    }
}

/// How many of the launcher's children may live at once, by sort.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LauncherSettings {
    /// Conversations: each may hold 16 MiB while it hashes. One application has half of them at most.
    pub max_conversations: u16,
    /// Jobs.
    pub max_jobs: u16,
    /// File agents. One application has half of them at most, one OS account sixteen.
    pub max_agents: u16,
    /// Everything else: checks, consents, attaching.
    pub max_requests: u16,
}

impl Default for LauncherSettings {
    fn default() -> Self {
        Self { max_conversations: 48, max_jobs: 4096, max_agents: 256, max_requests: 64 }
    }
}

/// Where jobs run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExecutorSettings {
    /// On this machine.
    pub local: LocalExecutorSettings,
    /// By Slurm; absent: this machine submits nothing to a cluster.
    pub slurm: Option<SlurmClusters>,
}

/// Which of Slurm's records tells how a job ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ends {
    /// Its accounting (`slurmdbd`), and the queue for what that has not in full.
    #[default]
    Accounting,
    /// The queue alone, which keeps ended jobs for a while: the cluster has no accounting, and none is asked.
    Queue,
}

/// Jobs at one cluster of Slurm's.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SlurmSettings {
    /// The folder of Slurm's programs.
    pub programs: PathBuf,
    /// The cluster's configuration; absent: the one that the programs find by themselves.
    pub conf: Option<PathBuf>,
    /// The OS account that asks where all jobs stand; absent: each OS account asks for its own.
    pub operator: Option<OsUserName>,
    /// Where it is told how a job ended.
    pub ends: Ends,
    /// Seconds between two questions.
    pub period_seconds: u64,
    /// Seconds for which neither the queue nor the accounting, if there is one, has a job before it counts as lost.
    pub lost_after_seconds: u64,
}

impl Default for SlurmSettings {
    fn default() -> Self {
        Self {
            programs: PathBuf::from("/usr/bin"),
            conf: None,
            operator: None,
            ends: Ends::default(),
            period_seconds: 10,
            lost_after_seconds: 600,
        }
    }
}

/// All clusters: that of the table `[executor.slurm]` itself, and the further ones that it names.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "WrittenClusters")]
pub struct SlurmClusters(BTreeMap<ClusterName, SlurmSettings>);

impl SlurmClusters {
    /// One of them.
    pub fn cluster(&self, name: &ClusterName) -> Option<&SlurmSettings> {
        self.0.get(name)
    }

    /// All of them, by name.
    pub fn all(&self) -> impl Iterator<Item = (&ClusterName, &SlurmSettings)> {
        self.0.iter()
    }
}

/// The table as it is written: the keys of a cluster, and tables of others, which take nothing over from it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WrittenClusters {
    programs: PathBuf,
    conf: Option<PathBuf>,
    operator: Option<OsUserName>,
    ends: Ends,
    period_seconds: u64,
    lost_after_seconds: u64,
    clusters: BTreeMap<ClusterName, SlurmSettings>,
}

impl Default for WrittenClusters {
    fn default() -> Self {
        let SlurmSettings { programs, conf, operator, ends, period_seconds, lost_after_seconds } =
            SlurmSettings::default();
        Self { programs, conf, operator, ends, period_seconds, lost_after_seconds, clusters: BTreeMap::new() }
    }
}

impl TryFrom<WrittenClusters> for SlurmClusters {
    type Error = String;
    fn try_from(written: WrittenClusters) -> Result<Self, String> {
        let WrittenClusters {
            programs,
            conf,
            operator,
            ends,
            period_seconds,
            lost_after_seconds,
            mut clusters,
        } = written;
        for (name, cluster) in &clusters {
            let key = format!("executor.slurm.clusters.{name}");
            if name.is_default() {
                return Err(format!(
                    "{key} is the table [executor.slurm] itself: give this one another name"
                ));
            }
            if cluster.conf.as_ref().is_none_or(|conf| !conf.is_absolute()) {
                return Err(format!(
                    "{key} needs conf, an absolute path: without it, it would be the default one"
                ));
            }
        }
        let own = SlurmSettings { programs, conf, operator, ends, period_seconds, lost_after_seconds };
        clusters.insert(ClusterName::default(), own);
        Ok(Self(clusters))
    }
}

/// Jobs on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LocalExecutorSettings {
    /// The cgroup v2 folder below which each job has its own; jobs run without one where it does not exist.
    pub cgroup: PathBuf,
    /// How much of the machine jobs may have at once.
    pub capacity: Capacity,
    /// Seconds after which used CPU time counts half when accounts share the machine.
    pub fair_share_half_life_seconds: u64,
}

impl Default for LocalExecutorSettings {
    fn default() -> Self {
        Self {
            cgroup: PathBuf::from("/sys/fs/cgroup/deputy.slice/deputy-jobs.service"),
            capacity: Capacity::default(),
            fair_share_half_life_seconds: 3600,
        }
    }
}

/// How much captured output is kept.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutputSettings {
    /// Of each stream of a job, where its kind says nothing else: its beginning and its latest, half each.
    pub stream: ByteSize,
    /// Of all jobs of one OS account.
    pub os_account: ByteSize,
    /// Of all jobs.
    pub machine: ByteSize,
}

impl Default for OutputSettings {
    fn default() -> Self {
        Self { stream: ByteSize(16 << 20), os_account: ByteSize(1 << 30), machine: ByteSize(8 << 30) }
    }
}

/// For how long jobs that have ended are kept with their output. Afterwards they are in the history only.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetentionSettings {
    /// Seconds from the end.
    pub seconds: u64,
    /// At most so many of one application; the oldest go first.
    pub jobs: u32,
}

impl Default for RetentionSettings {
    fn default() -> Self {
        Self { seconds: 7 * 24 * 3600, jobs: 100_000 }
    }
}

/// How long sessions live.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SessionSettings {
    /// Seconds from the authentication to the end, whatever happens.
    pub lifetime_seconds: u64,
    /// Seconds without use after which a session ends.
    pub idle_seconds: u64,
}

impl Default for SessionSettings {
    fn default() -> Self {
        Self { lifetime_seconds: 12 * 3600, idle_seconds: 2 * 3600 }
    }
}

/// How long a link that was asked for waits for its owner.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LinkSettings {
    /// Seconds for which a link code is good.
    pub code_lifetime_seconds: u64,
}

impl Default for LinkSettings {
    fn default() -> Self {
        Self { code_lifetime_seconds: 24 * 3600 }
    }
}

impl Settings {
    /// Reads the text of `deputy.toml`. The error names line, column and key.
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        let settings: Self =
            toml::from_str(text).map_err(|error| SettingsError(toml_error::explain(text, &error)))?;
        if let Some(pool) = &settings.pool {
            pool.check().map_err(|why| SettingsError(why.to_owned()))?;
        }
        settings.quota.check().map_err(SettingsError)?;
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_an_error_that_names_its_line() {
        let error = Settings::parse("[os_accounts]\nmin_uidd = 5\n").unwrap_err().to_string();
        assert!(error.contains("line 2"), "{error}");
        assert!(error.contains("min_uid"), "{error}");
    }

    #[test]
    fn a_further_cluster_has_a_name_and_a_configuration_of_its_own() {
        for (table, why) in [
            ("[executor.slurm.clusters.gpu]\n", "needs conf"),
            ("[executor.slurm.clusters.gpu]\nconf = \"gpu.conf\"", "absolute"),
            ("[executor.slurm.clusters.default]\nconf = \"/c\"", "another name"),
            ("[executor.slurm.clusters.\"a b\"]\nconf = \"/c\"", "letters"),
            (
                "[executor.slurm.clusters.gpu]\nconf = \"/c\"\n[executor.slurm.clusters.gpu.clusters.x]\nconf = \"/d\"",
                "clusters",
            ),
            ("[executor.slurm.clusters.gpu]\nconf = \"/c\"\noperater = \"x\"", "operator"),
            ("[executor.slurm]\nends = \"guessed\"", "accounting"),
        ] {
            let error = Settings::parse(table).unwrap_err().to_string();
            assert!(error.contains(why), "{table}: {error}");
        }
        let text = "[executor.slurm]\noperator = \"slurm\"\nends = \"queue\"\n[executor.slurm.clusters.gpu]\nconf = \"/c\"";
        let slurm = Settings::parse(text).unwrap().executor.slurm.unwrap();
        let names: Vec<&str> = slurm.all().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["default", "gpu"]);
        let gpu = slurm.cluster(&"gpu".parse().unwrap()).unwrap();
        assert_eq!((&gpu.operator, gpu.period_seconds, gpu.ends), (&None, 10, Ends::Accounting));
        let own = slurm.cluster(&ClusterName::default()).unwrap();
        assert_eq!((own.operator.is_some(), own.ends), (true, Ends::Queue));
        assert!(slurm.cluster(&"other".parse().unwrap()).is_none());
    }

    #[test]
    fn nothing_written_is_the_default() {
        assert_eq!(Settings::parse("").unwrap(), Settings::default());
    }
}
