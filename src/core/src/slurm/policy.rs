//! What root's policy lets jobs of a kind ask of Slurm: `[kinds.NAME.slurm]`. Nothing named is nothing allowed.

use serde::Deserialize;

use super::{ClusterName, ExecutorChoice, Feature, Partition, Qos, SlurmAccount, SlurmRequest};
use crate::denial::{Code, Denial};
use crate::ids::JobId;
use crate::kind::Kind;
use crate::limits::JobBounds;
use crate::settings::Ends;

/// Which accounts of Slurm's may be named.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "WrittenAccounts")]
pub enum Accounts {
    /// Whatever Slurm itself grants the OS account, by its associations.
    Associations,
    /// One of these; the first where a job names none.
    Listed(Vec<SlurmAccount>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum WrittenAccounts {
    Word(String),
    List(Vec<SlurmAccount>),
}

impl TryFrom<WrittenAccounts> for Accounts {
    type Error = &'static str;
    fn try_from(written: WrittenAccounts) -> Result<Self, Self::Error> {
        match written {
            WrittenAccounts::Word(word) if word == "associations" => Ok(Accounts::Associations),
            WrittenAccounts::Word(_) => Err("accounts is a list of names, or \"associations\""),
            WrittenAccounts::List(list) => Ok(Accounts::Listed(list)),
        }
    }
}

impl Default for Accounts {
    fn default() -> Self {
        Accounts::Listed(Vec::new())
    }
}

/// What jobs of a kind may ask of Slurm. CPUs, memory and time are bounded by the kind's ordinary limits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SlurmPolicy {
    /// The clusters; the first where a job names none. Absent: the default one alone.
    pub clusters: Vec<ClusterName>,
    /// The partitions; the first where a job names none.
    pub partitions: Vec<Partition>,
    /// The accounts.
    pub accounts: Accounts,
    /// The qualities of service; the first where a job names none. Without any, it is Slurm's to say.
    pub qos: Vec<Qos>,
    /// The most nodes; absent: one.
    pub nodes: Option<u32>,
    /// The most tasks; absent: one.
    pub tasks: Option<u32>,
    /// The most GPUs on each node.
    pub gpus: u16,
    /// The features of nodes that may be asked for.
    pub constraints: Vec<Feature>,
    /// The most jobs of an array; absent: no arrays.
    pub array: u32,
    /// Whether somebody may speak with a job while it runs.
    pub interactive: bool,
    /// Whether a job may be run again.
    pub requeue: bool,
}

impl SlurmPolicy {
    /// Why it can allow nothing, if that is so.
    pub(crate) fn meaningless(&self) -> Option<&'static str> {
        if self.partitions.is_empty() {
            return Some("kinds.NAME.slurm needs partitions: nothing named is nothing allowed");
        }
        if self.accounts == Accounts::default() {
            return Some("kinds.NAME.slurm needs accounts: a list of names, or \"associations\"");
        }
        if self.nodes == Some(0) || self.tasks == Some(0) {
            return Some("kinds.NAME.slurm: nodes and tasks are at least 1, or absent");
        }
        None
    }

    /// The cluster of a job, or the refusal. `rule` is the key of the kind.
    pub fn cluster(&self, asked: Option<&ClusterName>, rule: &str) -> Result<ClusterName, Denial> {
        let default = [ClusterName::default()];
        let allowed = if self.clusters.is_empty() { &default[..] } else { &self.clusters };
        let asked = listed("cluster", allowed, asked, &format!("{rule}.slurm.clusters"))?;
        Ok(asked.unwrap_or_else(|| allowed[0].clone()))
    }

    /// What is asked for with everything filled in that policy fills in, or the refusal. `rule` is the key of the kind.
    pub fn check(&self, asked: &SlurmRequest, rule: &str) -> Result<SlurmRequest, Denial> {
        let cluster = Some(self.cluster(asked.cluster.as_ref(), rule)?);
        let partition = listed(
            "partition",
            &self.partitions,
            asked.partition.as_ref(),
            &format!("{rule}.slurm.partitions"),
        )?
        .or_else(|| self.partitions.first().cloned());
        let account = match &self.accounts {
            Accounts::Associations => asked.account.clone(),
            Accounts::Listed(accounts) => {
                listed("account", accounts, asked.account.as_ref(), &format!("{rule}.slurm.accounts"))?
                    .or_else(|| accounts.first().cloned())
            }
        };
        let qos = listed("QOS", &self.qos, asked.qos.as_ref(), &format!("{rule}.slurm.qos"))?
            .or_else(|| self.qos.first().cloned());
        let at_most = |what: &str, asked: u32, most: u32| {
            if asked > most {
                return Err(Denial::new(
                    Code::LimitNotAllowed,
                    format!("{rule}.slurm.{what}"),
                    format!("{what} {asked} is more than the {most} that policy allows"),
                )
                .remedy("ask for less, or have the administrator raise the limit"));
            }
            Ok(asked)
        };
        let nodes = at_most("nodes", asked.nodes.unwrap_or(1), self.nodes.unwrap_or(1))?;
        let tasks = at_most("tasks", asked.tasks.unwrap_or(1), self.tasks.unwrap_or(1))?;
        at_most("gpus", asked.gpus.into(), self.gpus.into())?;
        if nodes == 0 || tasks == 0 {
            return Err(Denial::invalid("nodes and tasks are at least 1"));
        }
        for feature in &asked.features {
            listed("feature", &self.constraints, Some(feature), &format!("{rule}.slurm.constraints"))?;
        }
        at_most("array", asked.array.as_ref().map_or(0, |part| part.count), self.array)?;
        if asked.interactive.is_some() {
            self.check_interactive(asked, rule)?;
        }
        if asked.requeue {
            self.check_requeue(rule)?;
        }
        let (nodes, tasks) = (Some(nodes), Some(tasks));
        Ok(SlurmRequest { cluster, partition, account, qos, nodes, tasks, ..asked.clone() })
    }

    /// Refuses an account that nobody could check: where policy leaves that to Slurm, and the cluster has no accounting.
    pub fn check_account(&self, asked: &SlurmRequest, ends: Ends, rule: &str) -> Result<(), Denial> {
        let nobodys = self.accounts == Accounts::Associations && ends == Ends::Queue;
        match &asked.account {
            Some(account) if nobodys => Err(Denial::new(
                Code::ExecutorNotAllowed,
                format!("{rule}.slurm.accounts"),
                format!("the cluster has no accounting: nobody says whether this person may use the account {account}"),
            )
            .remedy("name no account, or have the administrator list those that may be named")),
            _ => Ok(()),
        }
    }

    fn check_interactive(&self, asked: &SlurmRequest, rule: &str) -> Result<(), Denial> {
        if !self.interactive {
            return Err(Denial::new(
                Code::ExecutorNotAllowed,
                format!("{rule}.slurm.interactive"),
                "jobs of this kind are not interactive at Slurm",
            )
            .remedy("name files for its input and output, or have the administrator allow it"));
        }
        if asked.hold || asked.requeue || !asked.dependencies.is_empty() || asked.array.is_some() {
            return Err(Denial::invalid(
                "hold, requeue, dependency and indices are not for an interactive job: somebody waits for it",
            ));
        }
        Ok(())
    }

    /// Whether jobs of the kind may be run again. `rule` is the key of the kind.
    pub fn check_requeue(&self, rule: &str) -> Result<(), Denial> {
        if self.requeue {
            return Ok(());
        }
        Err(Denial::new(
            Code::ExecutorNotAllowed,
            format!("{rule}.slurm.requeue"),
            "jobs of this kind are not run again",
        )
        .remedy("ask for a job that runs once, or have the administrator allow it"))
    }
}

fn listed<T: Clone + PartialEq + std::fmt::Display>(
    what: &str,
    list: &[T],
    asked: Option<&T>,
    rule: &str,
) -> Result<Option<T>, Denial> {
    match asked {
        Some(asked) if !list.contains(asked) => Err(Denial::new(
            Code::ExecutorNotAllowed,
            rule,
            format!("the {what} {asked} is not one that policy lists"),
        )
        .remedy("name one of the list, or have the administrator add it")),
        asked => Ok(asked.cloned()),
    }
}

/// There is no cluster of this name in `deputy.toml`.
pub fn unknown_cluster(cluster: &ClusterName) -> Denial {
    Denial::new(
        Code::SlurmUnavailable,
        format!("deputy.toml: executor.slurm.clusters.{cluster}"),
        format!("this machine is not set up to submit jobs to a cluster {cluster}"),
    )
    .remedy("have root add its table to deputy.toml, or correct the name in the application's file")
}

/// The job is not one that may run again.
pub fn runs_once() -> Denial {
    Denial::new(Code::Conflict, "job", "the job was not submitted as one that may run again")
        .remedy("submit another one; with the option requeue it can be")
}

/// A job would wait for one of another cluster.
pub fn other_cluster(job: &JobId, cluster: &ClusterName) -> Denial {
    Denial::new(
        Code::InvalidArgument,
        "dependency",
        format!("the job {job} is at the cluster {cluster}: a job waits for jobs at its own cluster alone"),
    )
    .remedy("submit it to that cluster, or have the application wait")
}

/// Where a job of a kind runs, if it may be asked for there: a kind of Slurm's runs nowhere else, and any other runs here,
/// and at Slurm if it has a table for it. `auto` needs both.
pub fn check_executor(
    kind: &Kind,
    asked: Option<ExecutorChoice>,
    rule: &str,
) -> Result<ExecutorChoice, Denial> {
    let executor = asked.unwrap_or(kind.executor());
    let (here, slurm) = (kind.executor() != ExecutorChoice::Slurm, kind.slurm.is_some());
    let allowed = match executor {
        ExecutorChoice::Local => here,
        ExecutorChoice::Slurm => slurm,
        ExecutorChoice::Auto => here && slurm,
    };
    if allowed {
        return Ok(executor);
    }
    Err(Denial::new(
        Code::ExecutorNotAllowed,
        format!("{rule}.executor"),
        format!("jobs of this kind do not run by the executor {}", executor.as_str()),
    )
    .remedy("leave the executor to the kind, or ask for a kind that has it"))
}

/// Whether a request asks for what only the shepherd of a job on this machine could do, and nobody does at Slurm.
pub fn check_bounds(bounds: &JobBounds) -> Result<(), Denial> {
    let JobBounds { limits, nice, .. } = bounds;
    let here_only = limits.pids.is_some() || limits.files.is_some() || limits.core.is_some();
    if here_only || nice.is_some_and(|nice| nice > 0) {
        return Err(Denial::invalid(
            "pids, files, core and nice are for jobs on this machine: Slurm has no such limits",
        ));
    }
    if limits.cpus.is_some_and(|cpus| cpus.0 % 1000 != 0) {
        return Err(Denial::invalid("Slurm gives whole CPUs: ask for 1, 2, and so on"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::application::Application;
    use crate::size::{ByteSize, MilliCpus};
    use crate::slurm::array::{ArrayPart, Indices};
    use crate::slurm::{Dependency, Interactive, When};

    const FILE: &str = r#"
        service_user = "portal"
        [kinds.batch]
        commands = ["*"]
        [kinds.both]
        commands = ["*"]
        [kinds.both.slurm]
        partitions = ["batch", "short"]
        accounts = ["lab1", "lab2"]
        qos = ["normal"]
        tasks = 4
        constraints = ["a100"]
        array = 3
        interactive = true
        requeue = true
        [kinds.cluster]
        commands = ["*"]
        executor = "slurm"
        [kinds.cluster.slurm]
        partitions = ["batch"]
        accounts = "associations"
        clusters = ["gpu", "default"]
        [kinds.either]
        commands = ["*"]
        executor = "auto"
        [kinds.either.slurm]
        partitions = ["batch"]
        accounts = "associations"
    "#;

    fn kind(name: &str) -> Kind {
        Application::parse(FILE).unwrap().kinds[&name.parse().unwrap()].clone()
    }

    fn features(names: &[&str]) -> Vec<Feature> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn array(indices: &str) -> Option<ArrayPart> {
        let first = JobId::from_random([1; JobId::BYTES]);
        indices.parse::<Indices>().unwrap().parts(&first).pop()
    }

    fn refused(kind: &Kind, asked: &SlurmRequest) -> (Code, String) {
        let denial = kind.slurm.as_ref().unwrap().check(asked, "kinds.x").unwrap_err();
        (denial.code, denial.rule)
    }

    #[test]
    fn an_account_that_nobody_could_check_is_not_named() {
        let asked = |account: &str| SlurmRequest { account: account.parse().ok(), ..SlurmRequest::default() };
        let check = |name: &str, account: &str, ends| {
            let kind = kind(name);
            let answer = kind.slurm.as_ref().unwrap().check_account(&asked(account), ends, "kinds.x");
            answer.map_err(|denial| (denial.code, denial.rule))
        };
        let refused = Err((Code::ExecutorNotAllowed, "kinds.x.slurm.accounts".to_owned()));
        assert_eq!(check("cluster", "lab1", Ends::Queue), refused);
        // Without a name, with a list of policy's, and with an accounting that says it.
        assert_eq!(check("cluster", "", Ends::Queue), Ok(()));
        assert_eq!(check("both", "lab1", Ends::Queue), Ok(()));
        assert_eq!(check("cluster", "lab1", Ends::Accounting), Ok(()));
    }

    #[test]
    fn what_is_not_listed_is_refused_by_the_key_that_would_list_it() {
        let (both, cluster) = (kind("both"), kind("cluster"));
        let none = SlurmRequest::default;
        let not = Code::ExecutorNotAllowed;
        for (asked, code, key) in [
            (SlurmRequest { cluster: "gpu".parse().ok(), ..none() }, not, "clusters"),
            (SlurmRequest { partition: "long".parse().ok(), ..none() }, not, "partitions"),
            (SlurmRequest { account: "lab3".parse().ok(), ..none() }, not, "accounts"),
            (SlurmRequest { qos: "high".parse().ok(), ..none() }, not, "qos"),
            (SlurmRequest { nodes: Some(2), ..none() }, Code::LimitNotAllowed, "nodes"),
            (SlurmRequest { tasks: Some(5), ..none() }, Code::LimitNotAllowed, "tasks"),
            (SlurmRequest { gpus: 1, ..none() }, Code::LimitNotAllowed, "gpus"),
            (SlurmRequest { features: features(&["a100", "h100"]), ..none() }, not, "constraints"),
            (SlurmRequest { array: array("0-3"), ..none() }, Code::LimitNotAllowed, "array"),
        ] {
            assert_eq!(refused(&both, &asked), (code, format!("kinds.x.slurm.{key}")), "{asked:?}");
        }
        assert_eq!(refused(&cluster, &SlurmRequest { array: array("0"), ..none() }).0, Code::LimitNotAllowed);
        assert_eq!(refused(&cluster, &SlurmRequest { features: features(&["a100"]), ..none() }).0, not);
        let again = SlurmRequest { requeue: true, ..none() };
        assert_eq!(refused(&cluster, &again), (not, "kinds.x.slurm.requeue".to_owned()));
        assert!(both.slurm.as_ref().unwrap().check(&again, "x").unwrap().requeue);
        assert_eq!(refused(&cluster, &SlurmRequest { qos: "normal".parse().ok(), ..none() }).0, not);
        assert!(both.slurm.unwrap().check(&SlurmRequest { nodes: Some(0), ..none() }, "x").is_err());
    }

    #[test]
    fn nobody_speaks_with_a_job_where_policy_does_not_say_so_and_none_that_is_spoken_with_waits() {
        let asked = SlurmRequest { interactive: Some(Interactive::Terminal), ..SlurmRequest::default() };
        assert_eq!(
            refused(&kind("cluster"), &asked),
            (Code::ExecutorNotAllowed, "kinds.x.slurm.interactive".to_owned())
        );
        let both = kind("both");
        let filled = both.slurm.as_ref().unwrap().check(&asked, "x").unwrap();
        assert_eq!(filled.interactive, asked.interactive);
        let after = Dependency { when: When::AfterOk, job: JobId::from_random([1; JobId::BYTES]) };
        for waits in [
            SlurmRequest { hold: true, ..asked.clone() },
            SlurmRequest { requeue: true, ..asked.clone() },
            SlurmRequest { array: array("0-2"), ..asked.clone() },
            SlurmRequest { dependencies: vec![after], ..asked.clone() },
        ] {
            assert_eq!(refused(&both, &waits).0, Code::InvalidArgument, "{waits:?}");
        }
    }

    #[test]
    fn what_is_not_asked_for_is_the_first_that_is_listed() {
        let none = SlurmRequest::default;
        let filled = kind("both").slurm.unwrap().check(&SlurmRequest::default(), "x").unwrap();
        let words = (filled.partition.unwrap(), filled.account.unwrap(), filled.qos);
        assert_eq!((words.0.as_str(), words.1.as_str()), ("batch", "lab1"));
        assert_eq!(words.2.unwrap().as_str(), "normal");
        assert_eq!((filled.nodes, filled.tasks, filled.gpus), (Some(1), Some(1), 0));
        assert_eq!(filled.cluster, Some(ClusterName::default()));
        let cluster = kind("cluster").slurm.unwrap();
        let at = |asked: &str| cluster.cluster(asked.parse().ok().as_ref(), "x").map(String::from);
        assert_eq!((at(""), at("default")), (Ok("gpu".into()), Ok("default".into())));
        assert_eq!(at("other").unwrap_err().code, Code::ExecutorNotAllowed);
        assert_eq!(cluster.check(&SlurmRequest::default(), "x").unwrap().account, None);
        let whole = SlurmRequest { features: features(&["a100"]), array: array("0-2"), hold: true, ..none() };
        let filled = kind("both").slurm.unwrap().check(&whole, "x").unwrap();
        assert_eq!((filled.features, filled.array, filled.hold), (whole.features, whole.array, true));
        let own = SlurmRequest { account: "any".parse().ok(), ..SlurmRequest::default() };
        assert_eq!(cluster.check(&own, "x").unwrap().account, own.account);
    }

    #[test]
    fn a_kind_runs_where_its_file_says() {
        let of = |name, asked| check_executor(&kind(name), asked, "x").map_err(|denial| denial.code);
        let (local, slurm, auto) = (ExecutorChoice::Local, ExecutorChoice::Slurm, ExecutorChoice::Auto);
        let not = Err(Code::ExecutorNotAllowed);
        for (name, by_itself, [here, there, either]) in [
            ("batch", local, [Ok(local), not, not]),
            ("both", local, [Ok(local), Ok(slurm), Ok(auto)]),
            ("cluster", slurm, [not, Ok(slurm), not]),
            ("either", auto, [Ok(local), Ok(slurm), Ok(auto)]),
        ] {
            assert_eq!(of(name, None), Ok(by_itself), "{name}");
            assert_eq!(of(name, Some(local)), here, "{name}");
            assert_eq!(of(name, Some(slurm)), there, "{name}");
            assert_eq!(of(name, Some(auto)), either, "{name}");
        }
    }

    #[test]
    fn an_applications_executor_is_that_of_kinds_that_name_none() {
        let of = |text: &str| {
            let table = "[kinds.a.slurm]\npartitions = [\"a\"]\naccounts = \"associations\"";
            let text = format!("service_user = \"p\"\n{text}\n{table}");
            Application::parse(&text).map(|application| application.kinds[&"a".parse().unwrap()].executor())
        };
        let kind = "[kinds.a]\ncommands = [\"*\"]";
        assert_eq!(of(&format!("executor = \"auto\"\n{kind}")), Ok(ExecutorChoice::Auto));
        assert_eq!(
            of(&format!("executor = \"auto\"\n{kind}\nexecutor = \"local\"")),
            Ok(ExecutorChoice::Local)
        );
        assert_eq!(of(kind), Ok(ExecutorChoice::Local));
        // It fails closed: a kind without a table has to say that it runs here.
        for executor in ["slurm", "auto"] {
            let error = of(&format!("executor = \"{executor}\"\n[kinds.b]\ncommands = [\"*\"]\n{kind}"));
            assert!(error.unwrap_err().to_string().contains("kinds.NAME.slurm"));
        }
        assert!(of(&format!("executor = \"cloud\"\n{kind}")).is_err());
    }

    #[test]
    fn limits_that_slurm_does_not_have_are_refused_and_not_forgotten() {
        let mut bounds = JobBounds::default();
        bounds.limits.cpus = Some(MilliCpus(2000));
        assert_eq!(check_bounds(&bounds), Ok(()));
        bounds.limits.cpus = Some(MilliCpus(1500));
        assert!(check_bounds(&bounds).is_err());
        let with: [fn(&mut JobBounds); 4] = [
            |bounds| bounds.limits.pids = Some(5),
            |bounds| bounds.limits.files = Some(5),
            |bounds| bounds.limits.core = Some(ByteSize(5)),
            |bounds| bounds.nice = Some(5),
        ];
        for limit in with {
            let mut bounds = JobBounds::default();
            limit(&mut bounds);
            assert!(check_bounds(&bounds).is_err(), "{bounds:?}");
        }
    }

    #[test]
    fn a_table_that_allows_nothing_is_a_mistake() {
        for (table, why) in [
            ("accounts = \"associations\"", "partitions"),
            ("partitions = [\"a\"]", "accounts"),
            ("partitions = [\"a\"]\naccounts = []", "accounts"),
            ("partitions = [\"a\"]\naccounts = \"all\"", "associations"),
            ("partitions = [\"-a\"]\naccounts = \"associations\"", "letters"),
            ("partitions = [\"a\"]\naccounts = \"associations\"\nnodes = 0", "at least 1"),
            ("partitions = [\"a\"]\naccounts = \"associations\"\nspeed = 1", "speed"),
        ] {
            let text =
                format!("service_user = \"p\"\n[kinds.a]\ncommands = [\"*\"]\n[kinds.a.slurm]\n{table}");
            let error = Application::parse(&text).unwrap_err().to_string();
            assert!(error.contains(why), "{table}: {error}");
        }
        let error =
            Application::parse("service_user = \"p\"\n[kinds.a]\ncommands = [\"*\"]\nexecutor = \"slurm\"");
        assert!(error.unwrap_err().to_string().contains("kinds.NAME.slurm"));
    }
}
