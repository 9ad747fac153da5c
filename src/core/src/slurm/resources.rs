//! What a cluster has: nodes with what is free of each, and what Slurm grants one person there.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ClusterName;

/// The most nodes, and the most associations, that one answer has: it fits into one packet. Sums are of all nodes.
pub const MAX_LISTED: usize = 200;

/// A node, or a whole partition, by Slurm's word.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// How many nodes.
    pub nodes: u32,
    /// CPUs.
    pub cpus: u32,
    /// Those that a job could have now.
    pub cpus_free: u32,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// That which no job has.
    pub memory_mib_free: u64,
    /// GPUs.
    pub gpus: u32,
    /// Those that no job has.
    pub gpus_free: u32,
}

impl Capacity {
    fn add(&mut self, other: &Self) {
        self.nodes = self.nodes.saturating_add(other.nodes);
        self.cpus = self.cpus.saturating_add(other.cpus);
        self.cpus_free = self.cpus_free.saturating_add(other.cpus_free);
        self.memory_mib = self.memory_mib.saturating_add(other.memory_mib);
        self.memory_mib_free = self.memory_mib_free.saturating_add(other.memory_mib_free);
        self.gpus = self.gpus.saturating_add(other.gpus);
        self.gpus_free = self.gpus_free.saturating_add(other.gpus_free);
    }
}

/// A node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Slurm's word.
    pub state: String,
    /// The partitions that it is in.
    pub partitions: Vec<String>,
    /// What it has. Of one that takes no jobs nothing is free.
    pub has: Capacity,
}

/// What Slurm grants a person in one account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Association {
    /// The account.
    pub account: String,
    /// The partition; empty is all.
    pub partition: String,
    /// The qualities of service, with commas between.
    pub qos: String,
    /// Limits that are set, by Slurm's names, in Slurm's words.
    pub limits: BTreeMap<String, String>,
}

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// At most [`MAX_LISTED`] nodes.
    pub nodes: Vec<Node>,
    /// The sums by partition.
    pub partitions: BTreeMap<String, Capacity>,
    /// What the person who was asked about has; none where nobody was.
    pub associations: Vec<Association>,
}

/// The limits of an association that are told, by Slurm's names.
const LIMITS: [&str; 8] =
    ["GrpJobs", "GrpTRES", "GrpSubmit", "GrpWall", "MaxJobs", "MaxSubmit", "MaxTRES", "MaxWall"];

/// `sinfo`: one line for each node and partition.
pub fn sinfo() -> Vec<String> {
    let format =
        "--Format=NodeList:|,Partition:|,StateCompact:|,CPUsState:|,AllocMem:|,Memory:|,Gres:|,GresUsed:|";
    ["sinfo", "--noheader", "--all", "--Node", format].map(str::to_owned).to_vec()
}

/// `scontrol` for the cluster's configuration: its own name, which Slurm's accounting knows it by, and what else is in it.
pub fn configuration() -> Vec<String> {
    ["scontrol", "show", "config"].map(str::to_owned).to_vec()
}

/// The cluster's own name, out of its configuration.
pub fn own_name(configuration: &str) -> Option<ClusterName> {
    configured(configuration, "ClusterName")?.parse().ok()
}

/// For how long the queue keeps a job that has ended, at the least (`MinJobAge`); 0 is for ever.
pub fn kept(configuration: &str) -> Option<Duration> {
    let seconds = configured(configuration, "MinJobAge")?.strip_suffix(" sec")?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn configured<'a>(configuration: &'a str, key: &str) -> Option<&'a str> {
    let value = configuration.lines().find_map(|line| line.strip_prefix(key))?;
    Some(value.trim_start().strip_prefix('=')?.trim())
}

/// `sacctmgr` for one person at one cluster, since several may share the accounting. The person's name is one of the
/// passwd database's, the cluster's its own.
pub fn sacctmgr(user: &str, cluster: &ClusterName) -> Vec<String> {
    let format = format!("format=Account,Partition,QOS,{}", LIMITS.join(","));
    [
        "sacctmgr",
        "--noheader",
        "--parsable2",
        "--readonly",
        "show",
        "associations",
        &format!("user={user}"),
        &format!("cluster={cluster}"),
        &format,
    ]
    .map(str::to_owned)
    .to_vec()
}

/// The cluster by the answers of both. Lines of another form are left out, and counted.
pub fn cluster(nodes: &str, associations: &str) -> (Cluster, usize) {
    let (mut by_name, mut strange): (BTreeMap<String, Node>, usize) = (BTreeMap::new(), 0);
    let mut cluster = Cluster::default();
    for line in nodes.lines() {
        let Some((partition, node)) = node(line) else {
            strange += 1;
            continue;
        };
        cluster.partitions.entry(partition.clone()).or_default().add(&node.has);
        by_name.entry(node.name.clone()).or_insert(node).partitions.push(partition);
    }
    cluster.nodes = by_name.into_values().take(MAX_LISTED).collect();
    for line in associations.lines() {
        let fields: Vec<&str> = line.split('|').collect();
        match fields[..] {
            [account, partition, qos, ref limits @ ..] if limits.len() == LIMITS.len() => {
                let set = LIMITS.iter().zip(limits).filter(|(_, value)| !value.is_empty());
                cluster.associations.push(Association {
                    account: shown(account),
                    partition: shown(partition),
                    qos: shown(qos),
                    limits: set.map(|(name, value)| ((*name).to_owned(), shown(value))).collect(),
                });
            }
            _ => strange += 1,
        }
    }
    cluster.associations.truncate(MAX_LISTED);
    (cluster, strange)
}

fn shown(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(100).collect()
}

fn node(line: &str) -> Option<(String, Node)> {
    let fields: Vec<&str> = line.strip_suffix('|')?.split('|').collect();
    let [name, partition, state, cpus, allocated, memory, gres, used] = fields[..] else { return None };
    let cpus: Vec<u32> = cpus.split('/').map(str::parse).collect::<Result<_, _>>().ok()?;
    let [_, idle, _, all] = cpus[..] else { return None };
    let (memory, allocated): (u64, u64) = (memory.parse().ok()?, allocated.parse().ok()?);
    // The sign behind the default partition, and those behind states.
    let partition = partition.trim_end_matches('*');
    let word: String = state.chars().take_while(char::is_ascii_alphanumeric).collect();
    if name.is_empty() || partition.is_empty() || word.is_empty() {
        return None;
    }
    let takes_jobs = matches!(word.as_str(), "idle" | "mix" | "alloc" | "comp") && !state.ends_with('*');
    let free = |free: u64| if takes_jobs { free } else { 0 };
    let gpus = gpus(gres);
    let has = Capacity {
        nodes: 1,
        cpus: all,
        cpus_free: u32::try_from(free(idle.into())).unwrap_or(0),
        memory_mib: memory,
        memory_mib_free: free(memory.saturating_sub(allocated)),
        gpus,
        gpus_free: u32::try_from(free(gpus.saturating_sub(self::gpus(used)).into())).unwrap_or(0),
    };
    Some((shown(partition), Node { name: shown(name), state: shown(state), partitions: Vec::new(), has }))
}

/// How many GPUs there are in `gpu:2`, `gpu:a100:4(S:0-1),shard:8` or `gpu:a100:1(IDX:0)`. Commas within brackets are no
/// borders.
fn gpus(gres: &str) -> u32 {
    let mut depth = 0_u32;
    let parts = gres.split(|character| {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        character == ',' && depth == 0
    });
    let counts = parts.filter_map(|part| {
        let whole = part.split('(').next().unwrap_or_default();
        let mut words = whole.split(':');
        (words.next() == Some("gpu"))
            .then(|| words.next_back().and_then(|count| count.parse::<u32>().ok()))?
    });
    counts.fold(0, u32::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clusters_own_name_is_read_or_there_is_none() {
        let told =
            "Configuration data as of x\nClusterName             = sandbox\nCommunicationParameters = x\n";
        assert_eq!(own_name(told).map(String::from), Some("sandbox".to_owned()));
        for strange in ["", "ClusterName", "ClusterName = ", "ClusterName = a b", "XClusterName = a"] {
            assert_eq!(own_name(strange), None, "{strange:?}");
        }
        let kept = |value: &str| super::kept(&format!("{told}MinJobAge               = {value}\n"));
        assert_eq!((kept("300 sec"), kept("0 sec")), (Some(Duration::from_secs(300)), Some(Duration::ZERO)));
        for strange in ["", "300", "sec", "-1 sec", "5 min", "(null)"] {
            assert_eq!(kept(strange), None, "{strange:?}");
        }
        assert!(sacctmgr("ann", &"sandbox".parse().unwrap()).contains(&"cluster=sandbox".to_owned()));
    }

    #[test]
    fn gpus_are_counted_as_slurm_writes_them() {
        for (gres, count) in [
            ("", 0),
            ("(null)", 0),
            ("gpu:2", 2),
            ("gpu:a100:4(S:0-1)", 4),
            ("gpu:a100:3(IDX:0-1,3),gpu:h100:1(IDX:4)", 4),
            ("shard:8", 0),
            ("gpu", 0),
            ("gpu:x", 0),
        ] {
            assert_eq!(gpus(gres), count, "{gres}");
        }
    }

    #[test]
    fn a_node_is_one_in_all_its_partitions_and_one_that_takes_no_jobs_has_nothing_free() {
        let text = "n1|batch*|mix|4/12/0/16|1024|8192|gpu:2|gpu:1(IDX:0)|\n\
                    n1|short|mix|4/12/0/16|1024|8192|gpu:2|gpu:1(IDX:0)|\n\
                    n2|batch*|drain|0/0/8/8|0|4096|(null)|gpu:0|\n\
                    n3|batch*|idle*|0/8/0/8|0|4096|(null)|gpu:0|\n\
                    what is this\n|batch|idle|0/1/0/1|0|1|||\nn4|batch|idle|0/1|0|1|||\n";
        let associations = "lab1||normal,high|||||5|||1-00:00:00\nshort|line\n";
        let (cluster, strange) = cluster(text, associations);
        assert_eq!(strange, 4);
        assert_eq!(cluster.nodes.len(), 3);
        assert_eq!(cluster.nodes[0].partitions, ["batch", "short"]);
        let (batch, short) = (&cluster.partitions["batch"], &cluster.partitions["short"]);
        assert_eq!(
            (batch.nodes, batch.cpus, batch.cpus_free, batch.gpus, batch.gpus_free),
            (3, 32, 12, 2, 1)
        );
        assert_eq!((batch.memory_mib, batch.memory_mib_free), (16_384, 7168));
        assert_eq!((short.nodes, short.cpus), (1, 16));
        let one = &cluster.associations[0];
        assert_eq!((one.account.as_str(), one.qos.as_str()), ("lab1", "normal,high"));
        let limits: Vec<_> = one.limits.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(limits, [("MaxJobs", "5"), ("MaxWall", "1-00:00:00")]);
    }

    #[test]
    fn an_answer_about_many_nodes_fits_into_a_packet() {
        let lines: Vec<String> = (0..2000)
            .map(|at| {
                format!(
                    "node-with-a-long-name-{at:06}|batch*|mix|4/12/0/16|1024|819200|gpu:2|gpu:1(IDX:0)|\n"
                )
            })
            .collect();
        let (cluster, strange) = cluster(&lines.concat(), "");
        assert_eq!((strange, cluster.nodes.len(), cluster.partitions["batch"].nodes), (0, MAX_LISTED, 2000));
        assert!(crate::message::encode(&cluster).unwrap().len() < 60_000);
    }
}
