//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Parser;

/// Runs a command as root inside a private machine with a whole Deputy in it.
#[derive(Debug, Parser)]
#[command(
    name = "deputy-sandbox",
    version,
    max_term_width = 100,
    after_help = "Inside, /etc, /home, /run, /tmp, /srv, /data and /var are private; the rest is the machine's own, \
/usr read-only. useradd, groupadd, chpasswd and setfacl work and change nothing outside. The built programs are in \
/usr/local/bin. Each service's output is /var/log/deputy-sandbox/NAME.log, its process id \
/run/deputy-sandbox/NAME.pid; a service that dies is started again at once, unless the file \
/run/deputy-sandbox/NAME.hold exists.\n\n\
The exit status is the command's; 128+N if signal N ended it; 125 if the sandbox itself failed; 126 or 127 if the \
command cannot be executed or is not there.\n\n\
Example:\n  deputy-sandbox --user alice:secret:lab1 --user service/portal --application demo.toml -- \\\n      \
runuser -u portal -- deputyctl status"
)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub struct Options {
    /// A person: uid from 1001 upward in order, home made 0700, groups made when missing. An empty password is a
    /// locked one. `service/NAME` makes a system account without home or shell instead, for an application
    #[arg(long = "user", value_name = "NAME:PASSWORD[:GROUP,...]")]
    pub users: Vec<User>,

    /// An application file, copied into /etc/deputy/applications.d as root's, 0644
    #[arg(long = "application", value_name = "FILE")]
    pub applications: Vec<PathBuf>,

    // As help and not as a comment: clippy wants backticks around the word, and help would show them.
    #[allow(missing_docs)]
    #[arg(
        long,
        value_name = "FILE",
        help = "Used as /etc/deputy/deputy.toml instead of a written one; {sandbox_cgroup} in it is replaced by the \
directory in which jobs' cgroups can be made"
    )]
    pub config: Option<PathBuf>,

    /// A real directory for /var/lib/deputy, so that fsync is real; kept afterwards. Default: memory
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,

    /// A real directory for the services' logs; kept afterwards. Default: memory
    #[arg(long, value_name = "DIR")]
    pub log_dir: Option<PathBuf>,

    /// Where the built programs are. Default: the directory of this program
    #[arg(long, value_name = "DIR")]
    pub bin_dir: Option<PathBuf>,

    /// A path below a private directory that shall stay visible and writable inside; the current directory's
    /// project always does
    #[arg(long = "keep", value_name = "PATH")]
    pub keep: Vec<PathBuf>,

    /// Only the bus and polkit; neither deputy-launcher nor deputyd
    #[arg(long)]
    pub no_daemons: bool,

    /// A Slurm of one node with accounting, at ports of its own. Who has a group is known to it, in an account of that
    /// name
    #[arg(long)]
    pub slurm: bool,

    /// A second cluster beside it, with its own controller and node and the same accounting: its configuration is
    /// /etc/slurm-second/slurm.conf
    #[arg(long, requires = "slurm")]
    pub second_cluster: bool,

    /// The same Slurm without accounting: neither database nor slurmdbd, and job completion in a file that every account
    /// can read, /var/log/slurm/jobs.log
    #[arg(long, conflicts_with_all = ["slurm", "second_cluster"])]
    pub slurm_without_accounting: bool,

    /// Say on stderr how long each step of the start took
    #[arg(long)]
    pub timing: bool,

    /// What to run. Default: a shell
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// One `--user`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The account's name.
    pub name: String,
    /// Its password; empty means locked.
    pub password: String,
    /// Supplementary groups.
    pub groups: Vec<String>,
    /// A system account for an application, not a person.
    pub service: bool,
}

impl FromStr for User {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (service, rest) = match text.strip_prefix("service/") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let mut fields = rest.split(':');
        let name = fields.next().unwrap_or_default().to_owned();
        let password = match fields.next() {
            Some(password) => password.to_owned(),
            None if service => String::new(),
            None => return Err("expected NAME:PASSWORD[:GROUP,...]; 'NAME:' locks the password".into()),
        };
        let groups: Vec<String> = fields
            .next()
            .unwrap_or_default()
            .split(',')
            .filter(|g| !g.is_empty())
            .map(str::to_owned)
            .collect();
        if fields.next().is_some() {
            return Err("more than three fields: neither a password nor a group may contain a colon".into());
        }
        if password.contains('\n') {
            return Err("a password may not contain a newline".into());
        }
        for word in std::iter::once(&name).chain(&groups) {
            check_name(word)?;
        }
        Ok(Self { name, password, groups, service })
    }
}

/// The portable set of characters for account and group names.
fn check_name(name: &str) -> Result<(), String> {
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b == b'_');
    let rest = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-.@".contains(&b));
    if first && rest && name.len() <= 32 {
        Ok(())
    } else {
        Err(format!("'{name}' is no name for an account or group: a-z, 0-9, _, -, ., @; first a letter or _"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_parsed() {
        let user: User = "alice:se cret,1:lab1,lab2".parse().unwrap();
        assert_eq!((user.name.as_str(), user.password.as_str(), user.service), ("alice", "se cret,1", false));
        assert_eq!(user.groups, ["lab1", "lab2"]);
        assert_eq!("bob:".parse::<User>().unwrap().password, "");
        assert!("service/portal".parse::<User>().unwrap().service);
        assert!("service/portal:".parse::<User>().unwrap().service);
        for wrong in ["alice", "alice:a:b:c", ":x", "Al:x", "a/b:x", "-a:x", "alice:x:Lab 1"] {
            assert!(wrong.parse::<User>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Options::command().debug_assert();
    }
}
