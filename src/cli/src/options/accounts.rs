//! Accounts, groups and roles.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use deputy_core::account::Status;
use deputy_core::names::{AccountName, ApplicationName, GroupName};
use deputy_core::size::ByteSize;

use crate::bus::CallOptions;

/// On whose behalf an application calls.
#[derive(Debug, Args)]
pub struct ByOption {
    /// Who acts: the path of a live session, or an account where the application's word is enough
    #[arg(long, value_name = "WHO")]
    pub by: Option<String>,
}

impl ByOption {
    /// The options of a call that has no others yet.
    pub fn options(&self) -> CallOptions<'_> {
        self.by.iter().map(|by| ("by", by.as_str().into())).collect()
    }
}

/// One account.
#[derive(Debug, Args)]
pub struct AccountTarget {
    /// The application
    #[arg(value_name = "APP")]
    pub application: ApplicationName,
    /// The account
    #[arg(value_name = "NAME")]
    pub account: AccountName,
    /// Who acts
    #[command(flatten)]
    pub by: ByOption,
}

/// What is known of a person.
#[derive(Debug, Args)]
pub struct PersonOptions {
    /// The person's address
    #[arg(long)]
    pub email: Option<String>,
    /// The person's first name
    #[arg(long)]
    pub first_name: Option<String>,
    /// The person's last name
    #[arg(long)]
    pub last_name: Option<String>,
}

/// The first account of an application.
#[derive(Debug, Args)]
#[command(after_help = SETUP_HELP)]
pub struct SetupOptions {
    /// The application
    #[arg(value_name = "APP")]
    pub application: ApplicationName,
    /// The account
    #[arg(value_name = "NAME")]
    pub account: AccountName,
    /// Whose
    #[command(flatten)]
    pub person: PersonOptions,
    /// Type its password instead of having a temporary one made
    #[arg(long)]
    pub password: bool,
    /// Read its password from this descriptor
    #[arg(long, value_name = "N")]
    pub answers_fd: Option<u32>,
}

const SETUP_HELP: &str = "\
Only root, or an administrator by polkit, can do this, and only while the application has no account. There is never a
default password: the temporary one is shown once, and has to be replaced at the first login.

Example:
  deputyctl setup portal ada --email ada@example.org";

/// What to do with accounts.
#[derive(Debug, Subcommand)]
pub enum AccountCommand {
    /// Add an account to an application
    #[command(after_help = "Example:\n  deputyctl account add portal alice --email alice@example.org")]
    Add {
        /// Which
        #[command(flatten)]
        target: AccountTarget,
        /// Whose
        #[command(flatten)]
        person: PersonOptions,
        /// What the account may do in its application
        #[arg(long)]
        role: Option<String>,
        /// The group that it is in from the beginning
        #[arg(long)]
        group: Option<GroupName>,
    },
    /// Give an account a password, typed on this terminal without being shown; its sessions end
    #[command(
        after_help = "Examples:\n  deputyctl account password portal alice\n  deputyctl account password portal alice \
                      --temporary --answers-fd 3 3< password"
    )]
    Password {
        /// Which
        #[command(flatten)]
        target: AccountTarget,
        /// It has to be replaced at the next login
        #[arg(long)]
        temporary: bool,
        /// Read the password from this descriptor instead of from the terminal
        #[arg(long, value_name = "N")]
        answers_fd: Option<u32>,
    },
    /// Give an account a temporary password, and show it once; its sessions end
    #[command(after_help = "Example:\n  deputyctl account reset portal alice --yes")]
    Reset(AccountTarget),
    /// Ask for an account, which then waits to be approved
    #[command(after_help = "Example:\n  deputyctl account register portal alice --group lab1")]
    Register {
        /// Which
        #[command(flatten)]
        target: AccountTarget,
        /// Whose
        #[command(flatten)]
        person: PersonOptions,
        /// The group that it will be in
        #[arg(long)]
        group: Option<GroupName>,
    },
    /// Approve an account that registered
    #[command(after_help = "Example:\n  deputyctl account approve portal alice")]
    Approve(AccountTarget),
    /// Reject an account that registered
    #[command(after_help = "Example:\n  deputyctl account reject portal alice --reason 'unknown to the lab'")]
    Reject {
        /// Which
        #[command(flatten)]
        target: AccountTarget,
        /// Why
        #[arg(long)]
        reason: String,
    },
    /// Change what is known of an account's person; an empty text removes
    #[command(after_help = "Example:\n  deputyctl account edit portal alice --email alice@example.org")]
    Edit {
        /// Which
        #[command(flatten)]
        target: AccountTarget,
        /// What
        #[command(flatten)]
        person: PersonOptions,
    },
    /// Set what an account's jobs may have at once, below what root's file gives; what is not named has no limit
    #[command(
        after_help = "Examples:\n  deputyctl account limit portal alice --jobs 4 --cpus 8\n  deputyctl account limit \
                      portal alice --none"
    )]
    Limit {
        /// Which
        #[command(flatten)]
        target: AccountTarget,
        /// What
        #[command(flatten)]
        limits: AccountLimits,
    },
    /// Put an account out of use: its sessions end, what is its own stays
    #[command(
        after_help = "Example:\n  deputyctl account deactivate portal alice --reason left --cancel-jobs"
    )]
    Deactivate {
        /// Which
        #[command(flatten)]
        target: AccountTarget,
        /// Why
        #[arg(long)]
        reason: Option<String>,
        /// End its running jobs too
        #[arg(long)]
        cancel_jobs: bool,
    },
    /// Put an account into use again
    #[command(after_help = "Example:\n  deputyctl account reactivate portal alice")]
    Reactivate(AccountTarget),
    /// Delete an account of which nothing remains; this cannot be undone
    #[command(after_help = "Example:\n  deputyctl account delete portal alice --yes")]
    Delete(AccountTarget),
    /// List what keeps an account from being deleted; exit status 1 if anything does
    #[command(after_help = "Example:\n  deputyctl account remains portal alice")]
    Remains(AccountTarget),
    /// Add the accounts of a file with comma separated values
    #[command(after_help = IMPORT_HELP)]
    Import {
        /// The application
        #[arg(value_name = "APP")]
        application: ApplicationName,
        /// The file; - is standard input
        #[arg(value_name = "FILE.csv")]
        file: PathBuf,
        /// Only say what would happen
        #[arg(long)]
        dry_run: bool,
        /// Who acts
        #[command(flatten)]
        by: ByOption,
    },
    /// List the accounts of an application
    #[command(
        after_help = "Examples:\n  deputyctl account list portal --status pending\n  deputyctl account list \
                            portal --unused-days 180 --sort last-login"
    )]
    List(Box<ListAccountsOptions>),
    /// Show one account
    #[command(after_help = "Example:\n  deputyctl account show portal alice")]
    Show(AccountTarget),
    /// Act for another account for a short time, where the application's file allows it; print the session's path
    #[command(
        after_help = "Example:\n  deputyctl account act-for portal alice --by helper --reason 'ticket 12'"
    )]
    ActFor {
        /// Which
        #[command(flatten)]
        target: AccountTarget,
        /// Why
        #[arg(long)]
        reason: String,
    },
}

const IMPORT_HELP: &str = "\
The first line names the columns: account, and any of email, first_name, last_name, role, group.
Lines are added one by one; one that cannot be is told, and the others are added all the same. An account that is there
already is left as it is, so that a file can be imported again. The exit status is 1 if a line could not be added.

Example:
  deputyctl account import portal people.csv --dry-run";

/// What an account's jobs may have at once.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct AccountLimits {
    /// Jobs that run
    #[arg(long, value_name = "N")]
    pub jobs: Option<u32>,
    /// CPUs, such as 8 or 0.5
    #[arg(long, value_name = "N")]
    pub cpus: Option<f64>,
    /// Memory, such as 16G
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<ByteSize>,
    /// GPUs
    #[arg(long, value_name = "N")]
    pub gpus: Option<u32>,
    /// No limits of its own
    #[arg(long, conflicts_with_all = ["jobs", "cpus", "memory", "gpus"])]
    pub none: bool,
}

/// Which accounts to list.
#[derive(Debug, Args)]
pub struct ListAccountsOptions {
    /// The application
    #[arg(value_name = "APP")]
    pub application: ApplicationName,
    /// Only those that are pending, active, rejected or deactivated
    #[arg(long)]
    pub status: Option<Status>,
    /// Only those with this role
    #[arg(long)]
    pub role: Option<String>,
    /// Only those in this group
    #[arg(long)]
    pub group: Option<GroupName>,
    /// Only those with this text in the names or the address
    #[arg(long)]
    pub text: Option<String>,
    /// Only those that were neither created nor used for so many days
    #[arg(long, value_name = "N")]
    pub unused_days: Option<u32>,
    /// In this order
    #[arg(long)]
    pub sort: Option<Sort>,
    /// In the order backwards
    #[arg(long)]
    pub desc: bool,
    /// Who acts
    #[command(flatten)]
    pub by: ByOption,
}

/// Orders of accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Sort {
    /// By name
    Name,
    /// By when they were created
    Created,
    /// By when they were last used
    LastLogin,
}

impl Sort {
    /// The order as the interface names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Sort::Name => "name",
            Sort::Created => "created",
            Sort::LastLogin => "last_login",
        }
    }
}

/// One group.
#[derive(Debug, Args)]
pub struct GroupTarget {
    /// The application
    #[arg(value_name = "APP")]
    pub application: ApplicationName,
    /// The group
    #[arg(value_name = "GROUP")]
    pub group: GroupName,
    /// Who acts
    #[command(flatten)]
    pub by: ByOption,
}

/// What to do with groups.
#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// Make a group
    #[command(
        after_help = "Example:\n  deputyctl group create portal lab1 --description 'Laboratory of Ada'"
    )]
    Create {
        /// Which
        #[command(flatten)]
        target: GroupTarget,
        /// What it is for
        #[arg(long)]
        description: Option<String>,
    },
    /// Remove a group without members; this cannot be undone
    #[command(after_help = "Example:\n  deputyctl group delete portal lab1 --yes")]
    Delete(GroupTarget),
    /// List the groups of an application
    #[command(after_help = "Example:\n  deputyctl group list portal")]
    List {
        /// The application
        #[arg(value_name = "APP")]
        application: ApplicationName,
        /// Who acts
        #[command(flatten)]
        by: ByOption,
    },
    /// List who is in a group
    #[command(after_help = "Example:\n  deputyctl group members portal lab1")]
    Members(GroupTarget),
    /// Take an account into a group
    #[command(after_help = "Example:\n  deputyctl group add portal lab1 ada --role administrator")]
    Add {
        /// Which
        #[command(flatten)]
        target: GroupTarget,
        /// The account
        #[arg(value_name = "NAME")]
        account: AccountName,
        /// What it may do with those who are in the group
        #[arg(long)]
        role: Option<String>,
    },
    /// Take an account out of a group
    #[command(after_help = "Example:\n  deputyctl group remove portal lab1 ada")]
    Remove {
        /// Which
        #[command(flatten)]
        target: GroupTarget,
        /// The account
        #[arg(value_name = "NAME")]
        account: AccountName,
    },
}

/// What to do with roles.
#[derive(Debug, Subcommand)]
pub enum RoleCommand {
    /// List the roles of an application, and what each allows
    #[command(after_help = "Example:\n  deputyctl role list portal")]
    List {
        /// The application
        #[arg(value_name = "APP")]
        application: ApplicationName,
    },
    /// Give an account another role, in the application or in one group of it
    #[command(
        after_help = "Examples:\n  deputyctl role set portal alice administrator\n  deputyctl role set portal \
                            alice administrator --group lab1"
    )]
    Set {
        /// Whom
        #[command(flatten)]
        target: AccountTarget,
        /// The role
        role: String,
        /// In this group only
        #[arg(long)]
        group: Option<GroupName>,
    },
    /// Take an account's role in a group
    #[command(after_help = "Example:\n  deputyctl role take portal alice --group lab1")]
    Take {
        /// From whom
        #[command(flatten)]
        target: AccountTarget,
        /// In this group
        #[arg(long)]
        group: GroupName,
    },
}
