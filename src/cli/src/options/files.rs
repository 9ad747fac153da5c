//! Files, as the OS account of an account.

use std::ffi::OsString;

use clap::{Args, Subcommand, ValueEnum};
use deputy_core::names::{AccountName, ApplicationName};

/// Whose files.
#[derive(Debug, Clone, Args)]
pub struct FileSubject {
    /// The application; its service user need not name it
    #[arg(long, value_name = "APP")]
    pub app: Option<ApplicationName>,
    /// The account, or the path of its session
    #[arg(long, value_name = "ACCOUNT", required = true)]
    pub account: Option<String>,
    /// As the OS account that was pinned in this project, OWNER/NAME
    #[arg(long, value_name = "PROJECT")]
    pub project: Option<String>,
    /// Seconds that one call may take (20 if not given)
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=600))]
    pub deadline: Option<u32>,
}

/// What to do with files. Paths are absolute, and names can have any bytes.
#[derive(Debug, Subcommand)]
pub enum FileCommand {
    /// List a folder
    #[command(after_help = "Example:\n  deputyctl file ls --account ada /data/lab1")]
    Ls {
        /// Whose
        #[command(flatten)]
        subject: FileSubject,
        /// The folder
        path: OsString,
    },
    /// Write a file to standard output
    #[command(after_help = "Example:\n  deputyctl file cat --account ada /data/lab1/notes.txt")]
    Cat {
        /// Whose
        #[command(flatten)]
        subject: FileSubject,
        /// The file
        path: OsString,
    },
    /// Copy a file to here; a local file that is there is replaced when all has come
    #[command(after_help = "Example:\n  deputyctl file get --account ada /data/lab1/map.mrc map.mrc")]
    Get {
        /// Whose
        #[command(flatten)]
        subject: FileSubject,
        /// The file
        path: OsString,
        /// The local file
        local: OsString,
    },
    /// Copy a local file, or with - standard input, to there: it is there in whole or not at all
    #[command(after_help = "Example:\n  deputyctl file put --account ada map.mrc /data/lab1/map.mrc")]
    Put {
        /// Whose
        #[command(flatten)]
        subject: FileSubject,
        /// The local file, or -
        local: OsString,
        /// The file
        path: OsString,
        /// Its permission bits, octal, before the umask
        #[arg(long)]
        mode: Option<String>,
        /// Refuse if it is there
        #[arg(long)]
        no_replace: bool,
    },
    /// Make a folder
    #[command(after_help = "Example:\n  deputyctl file mkdir --parents --account ada /data/lab1/run5/maps")]
    Mkdir {
        /// Whose
        #[command(flatten)]
        subject: FileSubject,
        /// The folder
        path: OsString,
        /// Those above it too; one that is there is well
        #[arg(long, short)]
        parents: bool,
        /// Its permission bits, octal, before the umask
        #[arg(long)]
        mode: Option<String>,
    },
    /// Remove a file, a link or an empty folder
    #[command(after_help = "Example:\n  deputyctl file rm --recursive --account ada /data/lab1/run5")]
    Rm {
        /// Whose
        #[command(flatten)]
        subject: FileSubject,
        /// What
        path: OsString,
        /// A folder with everything in it
        #[arg(long, short)]
        recursive: bool,
        /// That it is not there is well
        #[arg(long, short)]
        force: bool,
    },
    /// Rename
    #[command(after_help = "Example:\n  deputyctl file mv --account ada /data/lab1/a /data/lab1/b")]
    Mv {
        /// Whose
        #[command(flatten)]
        subject: FileSubject,
        /// What
        from: OsString,
        /// Its new name
        to: OsString,
        /// Refuse if there is something of that name
        #[arg(long, conflicts_with = "exchange")]
        no_replace: bool,
        /// Let the two change their names
        #[arg(long)]
        exchange: bool,
    },
    /// Copy a file, or a folder with everything in it
    #[command(after_help = "Example:\n  deputyctl file cp --account ada /data/lab1/run5 /data/lab1/run6")]
    Cp {
        /// Whose
        #[command(flatten)]
        subject: FileSubject,
        /// What
        from: OsString,
        /// The copy
        to: OsString,
        /// Go on with a copy that was broken off
        #[arg(long)]
        resume: bool,
    },
    /// Change permission bits
    #[command(after_help = "Example:\n  deputyctl file chmod --account ada 2770 /data/lab1/run5")]
    Chmod {
        /// Whose
        #[command(flatten)]
        subject: FileSubject,
        /// The bits, octal
        mode: String,
        /// Of what
        path: OsString,
    },
    /// Show an access control list, or change it
    #[command(
        after_help = "Example:\n  deputyctl file acl --account ada /data/lab1/run5 --set u::rwx,u:1002:r-x,g::r-x,m::r-x,o::---"
    )]
    Acl {
        /// Whose
        #[command(flatten)]
        subject: FileSubject,
        /// Of what
        path: OsString,
        /// The one that new entries of a folder get
        #[arg(long)]
        default: bool,
        /// The new list, with numbers for names; an empty one takes it away
        #[arg(long, value_name = "ACL")]
        set: Option<String>,
    },
    /// How much a folder takes of the disk
    #[command(after_help = "Example:\n  deputyctl file du --account ada /data/lab1/run5")]
    Du {
        /// Whose
        #[command(flatten)]
        subject: FileSubject,
        /// The folder
        path: OsString,
    },
    /// Space and quotas of the roots
    #[command(after_help = "Example:\n  deputyctl file df --account ada")]
    Df {
        /// Whose
        #[command(flatten)]
        subject: FileSubject,
    },
    /// What a name stands for
    #[command(after_help = "Example:\n  deputyctl file stat --account ada /data/lab1/run5")]
    Stat {
        /// Whose
        #[command(flatten)]
        subject: FileSubject,
        /// Which
        path: OsString,
        /// Follow a symbolic link at the end
        #[arg(long, short = 'L')]
        follow: bool,
    },
}

/// Quotas of the roots.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  deputyctl quota --account ada\n  deputyctl quota --account ada --format ood > quota.json"
)]
pub struct QuotaOptions {
    /// Whose
    #[command(flatten)]
    pub subject: FileSubject,
    /// How it is printed
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = QuotaFormat::Table)]
    pub format: QuotaFormat,
}

/// How quotas are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum QuotaFormat {
    /// For people, or with --json as records
    #[default]
    Table,
    /// For a dashboard
    #[value(help = "Version 1 of the JSON that Open OnDemand's dashboard reads")]
    Ood,
}

/// Quotas that are nearly used up.
#[derive(Debug, Subcommand)]
pub enum AlertCommand {
    /// List them
    #[command(after_help = "Example:\n  deputyctl alert list portal --account ada")]
    List {
        /// The application
        application: ApplicationName,
        /// Of this account only
        #[arg(long, value_name = "ACCOUNT")]
        account: Option<AccountName>,
    },
}
