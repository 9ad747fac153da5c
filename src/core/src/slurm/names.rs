//! Names that Slurm gives to what it has. Each becomes the value of one option, `--partition=NAME`, and can be nothing
//! else: letters, digits and `_ - . +`, and no `-` in front.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The most bytes of such a name.
const MAX: usize = 64;

/// A text is not a name of Slurm's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a name of Slurm's has 1 to {MAX} letters, digits and _ - . +, and begins with a letter or digit")]
pub struct SlurmNameError;

fn check(text: &str) -> Result<(), SlurmNameError> {
    let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.+".contains(&byte));
    if begins && plain && text.len() <= MAX { Ok(()) } else { Err(SlurmNameError) }
}

macro_rules! slurm_name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = SlurmNameError;
            fn from_str(text: &str) -> Result<Self, SlurmNameError> {
                check(text).map(|()| Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $type {
            type Error = SlurmNameError;
            fn try_from(text: String) -> Result<Self, SlurmNameError> {
                check(&text).map(|()| Self(text))
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

slurm_name!(
    /// A partition.
    Partition
);
slurm_name!(
    /// An account of Slurm's accounting: who pays. It has nothing to do with an application's accounts.
    SlurmAccount
);
slurm_name!(
    /// A quality of service.
    Qos
);
slurm_name!(
    /// What the cluster's administrator says that a node has.
    Feature
);

slurm_name!(
    /// A cluster, as `deputy.toml` names it: `[executor.slurm.clusters.NAME]`. It need not be what Slurm calls it.
    ClusterName
);

/// What the table `[executor.slurm]` itself is called.
const DEFAULT_CLUSTER: &str = "default";

impl Default for ClusterName {
    fn default() -> Self {
        Self(DEFAULT_CLUSTER.to_owned())
    }
}

impl ClusterName {
    /// Whether it is the cluster of the table `[executor.slurm]` itself.
    pub fn is_default(&self) -> bool {
        self.0 == DEFAULT_CLUSTER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_a_name_is_one() {
        for good in ["batch", "gpu-a100_80.g+", "1", "A"] {
            assert!(good.parse::<Partition>().is_ok(), "{good}");
        }
        let long = "a".repeat(MAX + 1);
        for bad in [
            "",
            "-p",
            "--wrap=id",
            "a b",
            "a,b",
            "a\n#SBATCH -p x",
            "a\0",
            "a\"",
            "a'",
            "$x",
            "a;b",
            "a=b",
            "a/b",
            "a%j",
            ".a",
            "+a",
            "_a",
            "ä",
            "a\r",
            "a\\",
            &long,
        ] {
            assert_eq!(bad.parse::<Partition>(), Err(SlurmNameError), "{bad:?}");
            assert!(SlurmAccount::try_from(bad.to_owned()).is_err(), "{bad:?}");
            assert!(bad.parse::<Qos>().is_err(), "{bad:?}");
            assert!(bad.parse::<ClusterName>().is_err(), "{bad:?}");
        }
        assert!(ClusterName::default().is_default() && !"gpu".parse::<ClusterName>().unwrap().is_default());
    }
}
