//! Consent.

use clap::{Args, Subcommand};
use deputy_core::ids::LinkCode;
use deputy_core::names::{AccountName, ApplicationName, OsUserName};

use super::LinkTarget;
use crate::time::Expiry;

/// What to do with consents.
#[derive(Debug, Subcommand)]
pub enum ConsentCommand {
    /// Consent to a link as root (for an OS account's owner who cannot)
    #[command(
        after_help = "Examples:\n  sudo deputyctl consent grant portal alice ann\n  sudo deputyctl consent grant portal \
                      alice ann --expires 90d"
    )]
    Grant(GrantOptions),
    /// Consent to a link onto your own OS account, with the code that the application was given
    #[command(after_help = "Example:\n  deputyctl consent give abcde23456")]
    Give(GiveOptions),
    /// Take a consent onto your own OS account back: nothing new starts. Root takes back anybody's
    #[command(
        after_help = "Examples:\n  deputyctl consent revoke portal alice\n  deputyctl consent revoke portal alice \
                      --end-jobs"
    )]
    Revoke(RevokeOptions),
    /// Let a consent onto your own OS account hold as long as one given now
    #[command(after_help = "Example:\n  deputyctl consent renew portal alice")]
    Renew {
        /// The application
        #[arg(value_name = "APP")]
        application: ApplicationName,
        /// The account
        #[arg(value_name = "NAME")]
        account: AccountName,
    },
    /// List the consents onto your own OS account; root lists all
    #[command(after_help = "Example:\n  deputyctl consent list --json")]
    List {
        /// Only those of this application
        #[arg(value_name = "APP")]
        application: Option<ApplicationName>,
    },
}

/// Consent by root.
#[derive(Debug, Args)]
pub struct GrantOptions {
    /// To which link
    #[command(flatten)]
    pub target: LinkTarget,
    /// Until when: a time (2031-01-31, 2031-01-31T12:00:00Z) or a span from now (90d, 12h, '1 year')
    #[arg(long, value_name = "WHEN")]
    pub expires: Option<Expiry>,
}

/// Consent by the owner.
#[derive(Debug, Args)]
pub struct GiveOptions {
    /// The code that 'deputyctl link request' printed
    #[arg(value_name = "CODE", value_parser = parse_code)]
    pub code: LinkCode,
}

/// The end of a consent.
#[derive(Debug, Args)]
pub struct RevokeOptions {
    /// The application
    #[arg(value_name = "APP")]
    pub application: ApplicationName,
    /// The account
    #[arg(value_name = "NAME")]
    pub account: AccountName,
    /// Only the consent onto this OS account (root only)
    #[arg(long, value_name = "OS_USER")]
    pub os_user: Option<OsUserName>,
    /// End what runs under it too
    #[arg(long)]
    pub end_jobs: bool,
}

/// A code as people copy it: in capitals, in groups.
fn parse_code(text: &str) -> Result<LinkCode, String> {
    let plain: String =
        text.chars().filter(|c| !matches!(c, '-' | ' ')).map(|c| c.to_ascii_lowercase()).collect();
    plain.parse().map_err(|error: deputy_core::ids::TokenError| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_may_be_typed_in_capitals_and_groups() {
        for text in ["abcde23456", "ABCDE-23456", "abcde 23456"] {
            assert_eq!(parse_code(text).unwrap().as_str(), "abcde23456");
        }
        for text in ["", "abcde2345", "abcde23458", "../../../.."] {
            assert!(parse_code(text).is_err(), "{text}");
        }
    }
}
