//! Trees that go to another OS account.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use deputy_core::RebindId;
use deputy_core::names::OsUserName;
use deputy_core::rebind::{NamedGroup, NamedUser};

/// What to do with trees.
#[derive(Debug, Subcommand)]
pub enum RebindCommand {
    /// Look through a tree and say what would be changed; nothing is
    #[command(
        after_help = "Examples:\n  sudo deputyctl rebind plan /data/ada --from ada --to ann\n  sudo deputyctl rebind plan \
                      /srv/portal/projects/7 --from portal,ada,1234 --to ann --group portal=lab1"
    )]
    Plan(RebindPlanOptions),
    /// Do what a plan says, or go on with it after an interruption
    #[command(after_help = "Example:\n  sudo deputyctl rebind apply abcd2345")]
    Apply(CarryOptions),
    /// Put everything back as it was, or go on with that
    #[command(after_help = "Example:\n  sudo deputyctl rebind undo abcd2345")]
    Undo(CarryOptions),
    /// List the plans, and how far each has come
    #[command(after_help = "Example:\n  sudo deputyctl rebind list")]
    List,
    /// Show a plan, and everything that was to be said about the tree
    #[command(after_help = "Example:\n  sudo deputyctl rebind show abcd2345 --json")]
    Show {
        /// Which plan
        #[arg(value_name = "ID")]
        id: RebindId,
    },
    /// Remove a plan with its records; what was applied can then not be undone
    #[command(after_help = "Example:\n  sudo deputyctl rebind forget abcd2345")]
    Forget {
        /// Which plan
        #[arg(value_name = "ID")]
        id: RebindId,
    },
}

/// A tree, and what is to become of it.
#[derive(Debug, Args)]
pub struct RebindPlanOptions {
    /// The tree's absolute path
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// Whose files are moved: names, or uids of accounts that are gone; with commas between. All others' files stay
    #[arg(long, required = true, value_delimiter = ',', value_name = "USER")]
    pub from: Vec<NamedUser>,
    /// The OS account that gets them
    #[arg(long, value_name = "USER")]
    pub to: OsUserName,
    /// A group of files that becomes another, beside the primary groups; may be given more than once
    #[arg(long, value_parser = group_change, value_name = "OLD=NEW")]
    pub group: Vec<(NamedGroup, NamedGroup)>,
    /// Leave files that have names outside of the tree as they are, instead of making no plan
    #[arg(long)]
    pub leave_linked: bool,
}

/// A plan that is carried out.
#[derive(Debug, Args)]
pub struct CarryOptions {
    /// Which plan
    #[arg(value_name = "ID")]
    pub id: RebindId,
    /// Also while processes of the accounts run
    #[arg(long)]
    pub while_running: bool,
}

fn group_change(text: &str) -> Result<(NamedGroup, NamedGroup), String> {
    let (old, new) = text.split_once('=').ok_or("it is written OLD=NEW")?;
    Ok((old.parse()?, new.parse()?))
}
