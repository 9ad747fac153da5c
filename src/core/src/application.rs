//! One application's policy file, `/etc/deputy/applications.d/NAME.toml`.
//!
//! Nothing named is nothing allowed: an application without a kind runs no job, without a root it touches no file.

use std::collections::BTreeMap;

use serde::Deserialize;
use thiserror::Error;

use crate::names::{AccountName, KindName, OsGroupName, OsUserName};
use crate::pattern::{CommandRule, EnvironmentRule, PatternError};

/// The kind of a job that names none.
pub const DEFAULT_KIND: &str = "batch";

/// An application's file is not one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ApplicationError {
    /// The TOML is not well-formed, or has a key, type or value that is not of the schema.
    #[error("{message}")]
    Toml {
        /// What `toml` says, with line and column.
        message: String,
    },
    /// The keys are each well-formed but do not make an application.
    #[error("{0}")]
    Meaning(&'static str),
}

/// Who speaks for the application on the bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Service {
    /// A passwd name, looked up at each use.
    User(OsUserName),
    /// A uid, for applications in containers with user namespaces.
    Uid(u32),
}

/// Whether the application's word is enough for which of its accounts asks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trust {
    /// A job or file needs a live session of the account.
    #[default]
    Session,
    /// The application vouches for its users.
    Application,
}

/// How an account can prove who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthenticationMethod {
    /// PAM, as the linked OS account.
    Os,
}

/// Decisions about which polkit is asked too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PolkitQuestion {
    /// Each job.
    Run,
    /// Each file.
    Files,
    /// Each link.
    Link,
}

/// Which OS accounts the application may act as.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OsAccounts {
    /// The lowest uid; below the machine's own minimum it has no effect.
    pub min_uid: u32,
    /// The highest uid.
    pub max_uid: u32,
    /// Only members of one of these groups; absent: of any.
    pub allow_groups: Option<Vec<OsGroupName>>,
    /// Never these.
    pub deny_users: Vec<OsUserName>,
}

impl Default for OsAccounts {
    fn default() -> Self {
        Self { min_uid: 1000, max_uid: u32::MAX - 1, allow_groups: None, deny_users: Vec::new() }
    }
}

/// Consent by a rule of root's: where the account's name gives the OS account's name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkRule {
    /// The OS account's name, with `{account}` where the account's name goes.
    pub rule: String,
    /// A mail domain that is cut off the account's name first; an account without it does not match.
    pub strip_domain: Option<String>,
}

impl LinkRule {
    /// The OS account that the rule gives to `account`, if any.
    pub fn os_user(&self, account: &AccountName) -> Option<OsUserName> {
        let name = match &self.strip_domain {
            Some(domain) => account.as_str().strip_suffix(domain.as_str())?.strip_suffix('@')?,
            None => account.as_str(),
        };
        OsUserName::new(self.rule.replace("{account}", name)).ok()
    }
}

/// What may be done below a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Look.
    ReadOnly,
    /// Look and change.
    ReadWrite,
}

/// A folder below which the application may touch files, as the user.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Root {
    /// An absolute path, with `{os_user}`, `{os_group}` or `{account}` as whole components.
    pub path: String,
    /// What may be done there.
    pub access: Access,
}

/// One kind of job.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kind {
    /// What may run; at least one rule has to match.
    pub commands: Vec<CommandRule>,
    /// Whether setuid programs are without effect in the job.
    #[serde(default = "yes")]
    pub no_new_privileges: bool,
}

fn yes() -> bool {
    true
}

/// The PAM services of the application.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PamServices {
    /// For conversations.
    pub login: String,
    /// For jobs.
    pub job: String,
}

impl Default for PamServices {
    fn default() -> Self {
        Self { login: "deputy-login".into(), job: "deputy-job".into() }
    }
}

/// One application, as root wrote it down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Application {
    /// Who speaks for it.
    pub service: Service,
    /// Whose word is enough.
    pub trust: Trust,
    /// How its accounts prove who they are.
    pub authentication: Vec<AuthenticationMethod>,
    /// About what polkit is asked too.
    pub ask_polkit: Vec<PolkitQuestion>,
    /// Which OS accounts it may act as.
    pub os_accounts: OsAccounts,
    /// Consent by rule.
    pub link: Option<LinkRule>,
    /// Where it may touch files.
    pub roots: Vec<Root>,
    /// What it may run.
    pub kinds: BTreeMap<KindName, Kind>,
    /// Which variables a request may set.
    pub environment: Vec<EnvironmentRule>,
    /// Its PAM services.
    pub pam: PamServices,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    service_user: Option<OsUserName>,
    service_uid: Option<u32>,
    #[serde(default)]
    trust: Trust,
    #[serde(default)]
    authentication: Vec<AuthenticationMethod>,
    #[serde(default)]
    ask_polkit: Vec<PolkitQuestion>,
    #[serde(default)]
    os_accounts: OsAccounts,
    link: Option<LinkRule>,
    #[serde(default)]
    roots: Vec<Root>,
    #[serde(default)]
    kinds: BTreeMap<KindName, Kind>,
    #[serde(default)]
    environment: Vec<EnvironmentRule>,
    #[serde(default)]
    pam: PamServices,
}

impl Application {
    /// Reads the text of an application's file and checks that it makes an application.
    pub fn parse(text: &str) -> Result<Self, ApplicationError> {
        let file: File =
            toml::from_str(text).map_err(|error| ApplicationError::Toml { message: error.to_string() })?;
        let service = match (file.service_user, file.service_uid) {
            (Some(name), None) => Service::User(name),
            (None, Some(0)) => return Err(ApplicationError::Meaning("service_uid cannot be 0, root's")),
            (None, Some(uid)) => Service::Uid(uid),
            _ => {
                return Err(ApplicationError::Meaning(
                    "exactly one of service_user and service_uid is needed",
                ));
            }
        };
        if let Some(rule) = &file.link
            && !rule.rule.contains("{account}")
        {
            return Err(ApplicationError::Meaning(
                "link.rule needs {account}: without it every account would be the same OS account",
            ));
        }
        for root in &file.roots {
            check_root(&root.path)?;
        }
        for service in [&file.pam.login, &file.pam.job] {
            if service.is_empty() || !service.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
            {
                return Err(ApplicationError::Meaning(
                    "a PAM service is named with letters, digits, - and _",
                ));
            }
        }
        Ok(Self {
            service,
            trust: file.trust,
            authentication: file.authentication,
            ask_polkit: file.ask_polkit,
            os_accounts: file.os_accounts,
            link: file.link,
            roots: file.roots,
            kinds: file.kinds,
            environment: file.environment,
            pam: file.pam,
        })
    }
}

fn check_root(path: &str) -> Result<(), ApplicationError> {
    let Some(relative) = path.strip_prefix('/') else {
        return Err(ApplicationError::Meaning("a root's path is absolute"));
    };
    for component in relative.split('/') {
        let known = matches!(component, "{os_user}" | "{os_group}" | "{account}");
        if matches!(component, "" | "." | "..") || (!known && component.contains(['{', '}', '*'])) {
            return Err(ApplicationError::Meaning(
                "a root's components are plain names or {os_user}, {os_group}, {account}; no . or .. among them",
            ));
        }
    }
    Ok(())
}

/// The service user or uid that a file names, found even where the file is otherwise broken: whoever speaks for an
/// application must stay no target of the others while its own file fails closed.
pub fn named_services(text: &str) -> Vec<Service> {
    let mut services = Vec::new();
    for line in text.lines() {
        let Some((key, value)) = line.split_once('=') else { continue };
        let value = value.split('#').next().unwrap_or_default().trim().trim_matches(['"', '\'']);
        match key.trim() {
            "service_user" => services.extend(OsUserName::new(value).ok().map(Service::User)),
            "service_uid" => services.extend(value.parse().ok().map(Service::Uid)),
            _ => {}
        }
    }
    services
}

impl TryFrom<String> for CommandRule {
    type Error = PatternError;
    fn try_from(text: String) -> Result<Self, PatternError> {
        CommandRule::parse(&text)
    }
}

impl TryFrom<String> for EnvironmentRule {
    type Error = PatternError;
    fn try_from(text: String) -> Result<Self, PatternError> {
        EnvironmentRule::parse(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = r#"
        service_user = "portal"            # the only uid that speaks for it
        trust = "application"
        authentication = ["os"]
        [os_accounts]
        min_uid = 1000
        allow_groups = ["lab1", "lab2"]
        deny_users = ["backup"]
        [link]
        rule = "{account}"
        [[roots]]
        path = "/data/{os_group}"
        access = "read-write"
        [kinds.batch]
        commands = ["*"]
    "#;

    #[test]
    fn the_example_of_the_documentation_is_an_application() {
        let application = Application::parse(LEAST).unwrap();
        assert_eq!(application.service, Service::User(OsUserName::new("portal").unwrap()));
        assert_eq!(application.trust, Trust::Application);
        assert!(application.kinds.contains_key(&KindName::new("batch").unwrap()));
    }

    #[test]
    fn what_is_not_an_application_is_refused_with_the_reason() {
        let refused = [
            ("", "exactly one of"),
            ("service_uid = 0", "root's"),
            ("service_user = \"a\"\nservice_uid = 5", "exactly one of"),
            ("service_user = \"a\"\nserviceuser = 1", "line 2"),
            ("service_user = \"a\"\n[link]\nrule = \"alice\"", "{account}"),
            ("service_user = \"a\"\n[[roots]]\npath = \"data\"\naccess = \"read-only\"", "absolute"),
            (
                "service_user = \"a\"\n[[roots]]\npath = \"/data/../etc\"\naccess = \"read-only\"",
                "no . or ..",
            ),
            ("service_user = \"a\"\n[kinds.batch]\ncommands = [\"bin/x\"]", "absolute"),
            ("service_user = \"a\"\n[pam]\njob = \"../x\"", "PAM service"),
            ("service_user = \"a\"\n[kinds.batch]\ncommands = [\"*\"]\nconfine = true", "confine"),
        ];
        for (text, why) in refused {
            let error = Application::parse(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_link_rule_cuts_the_domain_or_does_not_match() {
        let rule = LinkRule { rule: "u-{account}".into(), strip_domain: Some("lab.example".into()) };
        let of = |name: &str| rule.os_user(&AccountName::new(name).unwrap()).map(String::from);
        assert_eq!(of("ann@lab.example"), Some("u-ann".into()));
        assert_eq!(of("ann@other.example"), None);
        assert_eq!(of("ann"), None);
        let plain = LinkRule { rule: "{account}".into(), strip_domain: None };
        assert_eq!(plain.os_user(&AccountName::new("ann").unwrap()).map(String::from), Some("ann".into()));
    }

    #[test]
    fn services_are_found_in_broken_files_too() {
        let text = "service_user = \"portal\" # ours\nbroken [[[\n  service_uid=1234\n";
        let found = named_services(text);
        assert_eq!(found, [Service::User(OsUserName::new("portal").unwrap()), Service::Uid(1234)]);
    }
}
