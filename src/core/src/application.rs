//! One application's policy file, `/etc/deputy/applications.d/NAME.toml`.
//!
//! Nothing named is nothing allowed: an application without a kind runs no job, without a root it touches no file.

use std::collections::BTreeMap;

use serde::Deserialize;
use thiserror::Error;

use crate::kind::{Kind, check_kinds};
use crate::limits::ResourceLimits;
use crate::names::{AccountName, KindName, OsGroupName, OsUserName, RoleName};
use crate::pattern::{CommandRule, EnvironmentRule, PatternError};
use crate::pool::PoolPolicy;
use crate::queue::QueuePolicy;
use crate::role::{OwnRole, Roles};
use crate::slurm::ExecutorChoice;
use crate::toml_error;

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
    /// A password of the account's own, kept by Deputy.
    Password,
}

/// For whom the application is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// For many people: each has an account, and proves to be its user.
    #[default]
    Login,
    /// For the one person whose OS account `service_user` is: no login, and no other OS account is ever a target.
    SingleUser,
}

/// How long the application's sessions live; what is absent is the machine's setting.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SessionPolicy {
    /// Seconds without use after which a session ends.
    pub idle_seconds: Option<u64>,
    /// Seconds from the authentication to the end, whatever happens.
    pub lifetime_seconds: Option<u64>,
}

/// What holds for the passwords that Deputy keeps.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PasswordPolicy {
    /// The least strength, 0 to 4: 3 withstands somebody who has the hash for some time, 4 for long.
    pub minimum_score: u8,
    /// Days after which a password has to be changed; absent: never.
    pub expire_days: Option<u32>,
    /// How many passwords before the new one cannot be used again.
    pub history: u8,
}

impl Default for PasswordPolicy {
    fn default() -> Self {
        Self { minimum_score: 3, expire_days: None, history: 5 }
    }
}

/// The most passwords that are remembered: each costs a computation when a new one is compared with it.
const MAX_HISTORY: u8 = 24;

impl PasswordPolicy {
    fn check(&self) -> Result<(), ApplicationError> {
        if self.minimum_score > 4 {
            return Err(ApplicationError::Meaning("passwords.minimum_score is 0 to 4"));
        }
        if self.expire_days == Some(0) {
            return Err(ApplicationError::Meaning("passwords.expire_days is at least 1, or absent"));
        }
        if self.history > MAX_HISTORY {
            return Err(ApplicationError::Meaning("passwords.history is at most 24"));
        }
        Ok(())
    }
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

/// What root says about links of the application's accounts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LinkPolicy {
    /// Consent by rule: the OS account's name, with `{account}` where the account's name goes. Absent: no rule.
    pub rule: Option<String>,
    /// A mail domain that is cut off the account's name first; an account without it does not match the rule.
    pub strip_domain: Option<String>,
    /// The rule gives only OS accounts that are members of one of these groups; absent: any.
    pub groups: Option<Vec<OsGroupName>>,
    /// For how long the consent of an owner holds; absent: until it is taken back.
    pub consent_seconds: Option<u64>,
    /// Whether several accounts of the application may be linked to one OS account.
    pub shared: bool,
}

impl LinkPolicy {
    /// The OS account that the rule gives to `account`, if any.
    pub fn os_user(&self, account: &AccountName) -> Option<OsUserName> {
        let rule = self.rule.as_ref()?;
        let name = match &self.strip_domain {
            Some(domain) => account.as_str().strip_suffix(domain.as_str())?.strip_suffix('@')?,
            None => account.as_str(),
        };
        OsUserName::new(rule.replace("{account}", name)).ok()
    }

    /// Until when a consent that an owner gives now holds, if the asking side wished `asked`: the earlier of the two.
    pub fn consent_until(&self, now: u64, asked: Option<u64>) -> Option<u64> {
        let own = self.consent_seconds.map(|seconds| now.saturating_add(seconds));
        own.into_iter().chain(asked).min()
    }

    fn check(&self) -> Result<(), ApplicationError> {
        match &self.rule {
            Some(rule) if !rule.contains("{account}") => Err(ApplicationError::Meaning(
                "link.rule needs {account}: without it every account would be the same OS account",
            )),
            None if self.strip_domain.is_some() || self.groups.is_some() => Err(ApplicationError::Meaning(
                "link.strip_domain and link.groups say when link.rule matches; there is no link.rule",
            )),
            _ if self.consent_seconds == Some(0) => {
                Err(ApplicationError::Meaning("link.consent_seconds is at least 1, or absent"))
            }
            _ => Ok(()),
        }
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
    /// Whether folders of projects, which their members share, may be made below.
    #[serde(default)]
    pub shared: bool,
}

/// The PAM services of the application.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PamServices {
    /// For conversations.
    pub login: String,
    /// For jobs.
    pub job: String,
    /// The services of other programs in which `pam_deputy.so` may let an account in as the OS account that it is
    /// linked to.
    pub logins: Vec<String>,
    /// The services of other programs that only ask whether somebody is an account, and open no login.
    pub accounts_only: Vec<String>,
}

impl Default for PamServices {
    fn default() -> Self {
        Self {
            login: "deputy-login".into(),
            job: "deputy-job".into(),
            logins: Vec::new(),
            accounts_only: Vec::new(),
        }
    }
}

/// What a service of another program may do with the accounts of an application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PamUse {
    /// Let them in as OS accounts.
    Login,
    /// Know who they are.
    AccountOnly,
}

/// Services that always give a login: listed as asking for accounts only, they would let in whoever is called like an
/// OS account. The list is there to find mistakes; it need not be complete.
const LOGIN_SERVICES: [&str; 20] = [
    "cockpit",
    "cron",
    "gdm-password",
    "kdm",
    "lightdm",
    "login",
    "polkit-1",
    "remote",
    "rsh",
    "rstudio",
    "runuser",
    "runuser-l",
    "sddm",
    "sshd",
    "su",
    "su-l",
    "sudo",
    "sudo-i",
    "systemd-user",
    "xrdp-sesman",
];

impl PamServices {
    /// For what the application's file lists a service of another program; `None` if it does not.
    pub fn use_of(&self, service: &str) -> Option<PamUse> {
        let lists = |list: &[String]| list.iter().any(|one| one == service);
        match (lists(&self.logins), lists(&self.accounts_only)) {
            (true, false) => Some(PamUse::Login),
            (false, true) => Some(PamUse::AccountOnly),
            // Both: the file is refused; nobody gets here.
            _ => None,
        }
    }

    fn check(&self) -> Result<(), ApplicationError> {
        let own = [&self.login, &self.job];
        for service in own.into_iter().chain(&self.logins).chain(&self.accounts_only) {
            if service.is_empty() || !service.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
            {
                return Err(ApplicationError::Meaning(
                    "a PAM service is named with letters, digits, - and _",
                ));
            }
        }
        if self.logins.iter().any(|service| self.accounts_only.contains(service)) {
            return Err(ApplicationError::Meaning(
                "a PAM service is in pam.logins or in pam.accounts_only, not in both",
            ));
        }
        if self.accounts_only.iter().any(|service| LOGIN_SERVICES.contains(&service.as_str())) {
            return Err(ApplicationError::Meaning(
                "pam.accounts_only has a service that gives a login as an OS account: that is for pam.logins",
            ));
        }
        Ok(())
    }
}

/// One application, as root wrote it down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Application {
    /// Who speaks for it.
    pub service: Service,
    /// For whom it is.
    pub mode: Mode,
    /// Whose word is enough.
    pub trust: Trust,
    /// How its accounts prove who they are.
    pub authentication: Vec<AuthenticationMethod>,
    /// How long its sessions live.
    pub sessions: SessionPolicy,
    /// What holds for passwords.
    pub passwords: PasswordPolicy,
    /// About what polkit is asked too.
    pub ask_polkit: Vec<PolkitQuestion>,
    /// Which OS accounts it may act as.
    pub os_accounts: OsAccounts,
    /// What holds for links.
    pub link: LinkPolicy,
    /// Where it may touch files.
    pub roots: Vec<Root>,
    /// What it may run.
    pub kinds: BTreeMap<KindName, Kind>,
    /// Ceilings of each job, for kinds that set none of their own.
    pub limits: ResourceLimits,
    /// How much of the machine its jobs may have at once.
    pub queue: QueuePolicy,
    /// What its accounts may do.
    pub roles: Roles,
    /// Which variables a request may set.
    pub environment: Vec<EnvironmentRule>,
    /// Its PAM services.
    pub pam: PamServices,
    /// Whether its accounts are leased OS accounts.
    pub pool: PoolPolicy,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    service_user: Option<OsUserName>,
    service_uid: Option<u32>,
    #[serde(default)]
    mode: Mode,
    trust: Option<Trust>,
    #[serde(default)]
    authentication: Vec<AuthenticationMethod>,
    #[serde(default)]
    sessions: SessionPolicy,
    #[serde(default)]
    passwords: PasswordPolicy,
    #[serde(default)]
    ask_polkit: Vec<PolkitQuestion>,
    #[serde(default)]
    os_accounts: OsAccounts,
    #[serde(default)]
    link: LinkPolicy,
    #[serde(default)]
    roots: Vec<Root>,
    #[serde(default)]
    kinds: BTreeMap<KindName, Kind>,
    executor: Option<ExecutorChoice>,
    #[serde(default)]
    limits: ResourceLimits,
    #[serde(default)]
    queue: QueuePolicy,
    #[serde(default)]
    roles: BTreeMap<RoleName, OwnRole>,
    #[serde(default)]
    act_for: bool,
    act_for_seconds: Option<u64>,
    #[serde(default)]
    environment: Vec<EnvironmentRule>,
    #[serde(default)]
    pam: PamServices,
    #[serde(default)]
    pool: PoolPolicy,
}

impl Application {
    /// Whose word is enough for a job of this kind.
    pub fn trust_for(&self, kind: &Kind) -> Trust {
        kind.trust.unwrap_or(self.trust)
    }

    /// Reads the text of an application's file and checks that it makes an application.
    pub fn parse(text: &str) -> Result<Self, ApplicationError> {
        let mut file: File = toml::from_str(text)
            .map_err(|error| ApplicationError::Toml { message: toml_error::explain(text, &error) })?;
        if file.mode == Mode::SingleUser {
            check_single_user(&file)?;
        }
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
        file.link.check()?;
        file.passwords.check()?;
        if file.sessions.idle_seconds == Some(0) || file.sessions.lifetime_seconds == Some(0) {
            return Err(ApplicationError::Meaning("a session lives for a second at least"));
        }
        for kind in file.kinds.values_mut() {
            kind.executor = kind.executor.or(file.executor);
        }
        check_kinds(&file.kinds)?;
        file.queue.check()?;
        for root in &file.roots {
            check_root(root)?;
        }
        file.pam.check()?;
        Ok(Self {
            service,
            mode: file.mode,
            // Whoever has the one person's uid is that person.
            trust: if file.mode == Mode::SingleUser {
                Trust::Application
            } else {
                file.trust.unwrap_or_default()
            },
            authentication: file.authentication,
            sessions: file.sessions,
            passwords: file.passwords,
            ask_polkit: file.ask_polkit,
            os_accounts: file.os_accounts,
            link: file.link,
            roots: file.roots,
            kinds: file.kinds,
            limits: file.limits,
            queue: file.queue,
            roles: Roles::new(file.roles, file.act_for, file.act_for_seconds)?,
            environment: file.environment,
            pam: file.pam,
            pool: file.pool,
        })
    }
}

/// What makes no sense where there is one person and no login.
fn check_single_user(file: &File) -> Result<(), ApplicationError> {
    if file.service_user.is_none() {
        return Err(ApplicationError::Meaning(
            "mode = \"single-user\" needs service_user, the person's name",
        ));
    }
    if file.trust.is_some() || file.kinds.values().any(|kind| kind.trust.is_some()) {
        return Err(ApplicationError::Meaning(
            "trust has no meaning with mode = \"single-user\": there is no login",
        ));
    }
    if file.authentication.contains(&AuthenticationMethod::Password) {
        return Err(ApplicationError::Meaning(
            "authentication by \"password\" has no meaning with mode = \"single-user\": there is no login",
        ));
    }
    if file.pool.lease || file.pool.project_groups {
        return Err(ApplicationError::Meaning(
            "pool.lease and pool.project_groups have no meaning with mode = \"single-user\": there is one person",
        ));
    }
    if file.link.rule.is_some() || file.link.shared {
        return Err(ApplicationError::Meaning(
            "link.rule and link.shared have no meaning with mode = \"single-user\": one account, one consent",
        ));
    }
    Ok(())
}

fn check_root(root: &Root) -> Result<(), ApplicationError> {
    if root.shared && root.access != Access::ReadWrite {
        return Err(ApplicationError::Meaning(
            "a root with shared = true has access = \"read-write\": folders are made there",
        ));
    }
    let Some(relative) = root.path.strip_prefix('/') else {
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
            ("service_user = \"a\"\n[link]\nstrip_domain = \"x\"", "no link.rule"),
            ("service_user = \"a\"\n[link]\nconsent_seconds = 0", "at least 1"),
            ("service_user = \"a\"\n[[roots]]\npath = \"data\"\naccess = \"read-only\"", "absolute"),
            (
                "service_user = \"a\"\n[[roots]]\npath = \"/data/../etc\"\naccess = \"read-only\"",
                "no . or ..",
            ),
            ("service_user = \"a\"\n[kinds.batch]\ncommands = [\"bin/x\"]", "absolute"),
            ("service_user = \"a\"\n[kinds.batch]\ncommands = [\"*\"]\ntrust = \"me\"", "session"),
            ("service_user = \"a\"\n[passwords]\nminimum_score = 5", "0 to 4"),
            ("service_user = \"a\"\n[passwords]\nexpire_days = 0", "at least 1"),
            ("service_user = \"a\"\n[passwords]\nhistory = 25", "at most 24"),
            ("service_user = \"a\"\n[sessions]\nidle_seconds = 0", "a second"),
            ("service_user = \"a\"\nauthentication = [\"pin\"]", "password"),
            ("service_user = \"a\"\nmode = \"kiosk\"", "single-user"),
            ("service_uid = 5\nmode = \"single-user\"", "service_user"),
            ("service_user = \"a\"\nmode = \"single-user\"\ntrust = \"session\"", "no login"),
            ("service_user = \"a\"\nmode = \"single-user\"\nauthentication = [\"password\"]", "no login"),
            ("service_user = \"a\"\nmode = \"single-user\"\n[link]\nrule = \"{account}\"", "one account"),
            ("service_user = \"a\"\n[roles.superuser]\npermissions = []", "another name"),
            ("service_user = \"a\"\n[roles.x]\npermissions = [\"root\"]", "no permission called"),
            ("service_user = \"a\"\n[roles.x]\npermissions = [\"act_for\"]", "act_for = true"),
            ("service_user = \"a\"\n[pam]\njob = \"../x\"", "PAM service"),
            ("service_user = \"a\"\n[kinds.batch]\ncommands = [\"*\"]\nhome = \"none\"", "confine"),
            ("service_user = \"a\"\n[kinds.batch]\ncommands = [\"*\"]\nrestart = \"always\"", "service"),
            (
                "service_user = \"a\"\n[kinds.b]\ncommands = [\"*\"]\nconfine = true\nno_new_privileges = false",
                "setuid",
            ),
            ("service_user = \"a\"\n[limits]\nmemory = \"lots\"", "512M"),
            ("service_user = \"a\"\n[queue.weights]\nann = 0.0", "above 0"),
        ];
        for (text, why) in refused {
            let error = Application::parse(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_kind_may_trust_otherwise_than_its_application() {
        let text = "service_user = \"a\"\n[kinds.batch]\ncommands = [\"*\"]\n\
                    [kinds.flow]\ncommands = [\"*\"]\ntrust = \"application\"";
        let application = Application::parse(text).unwrap();
        let of = |kind: &str| application.trust_for(&application.kinds[&KindName::new(kind).unwrap()]);
        assert_eq!(of("batch"), Trust::Session);
        assert_eq!(of("flow"), Trust::Application);
    }

    #[test]
    fn one_person_needs_no_login() {
        let application = Application::parse("service_user = \"ann\"\nmode = \"single-user\"").unwrap();
        assert_eq!(application.mode, Mode::SingleUser);
        assert_eq!(application.trust, Trust::Application);
    }

    #[test]
    fn a_link_rule_cuts_the_domain_or_does_not_match() {
        let rule = LinkPolicy {
            rule: Some("u-{account}".into()),
            strip_domain: Some("lab.example".into()),
            ..LinkPolicy::default()
        };
        let of = |name: &str| rule.os_user(&AccountName::new(name).unwrap()).map(String::from);
        assert_eq!(of("ann@lab.example"), Some("u-ann".into()));
        assert_eq!(of("ann@other.example"), None);
        assert_eq!(of("ann"), None);
        let plain = LinkPolicy { rule: Some("{account}".into()), ..LinkPolicy::default() };
        let none = LinkPolicy::default();
        assert_eq!(none.os_user(&AccountName::new("ann").unwrap()), None);
        assert_eq!(plain.os_user(&AccountName::new("ann").unwrap()).map(String::from), Some("ann".into()));
    }

    #[test]
    fn an_owners_consent_lasts_as_long_as_the_shorter_of_both_sides_wishes() {
        let mut link = LinkPolicy::default();
        assert_eq!(link.consent_until(100, None), None);
        assert_eq!(link.consent_until(100, Some(150)), Some(150));
        link.consent_seconds = Some(20);
        assert_eq!(link.consent_until(100, None), Some(120));
        assert_eq!(link.consent_until(100, Some(110)), Some(110));
        assert_eq!(link.consent_until(100, Some(500)), Some(120));
        link.consent_seconds = Some(u64::MAX);
        assert_eq!(link.consent_until(100, None), Some(u64::MAX));
    }

    #[test]
    fn services_are_found_in_broken_files_too() {
        let text = "service_user = \"portal\" # ours\nbroken [[[\n  service_uid=1234\n";
        let found = named_services(text);
        assert_eq!(found, [Service::User(OsUserName::new("portal").unwrap()), Service::Uid(1234)]);
    }

    #[test]
    fn a_service_of_another_program_is_for_one_thing() {
        let of = |pam: &str| Application::parse(&format!("service_user = \"portal\"\n[pam]\n{pam}"));
        let pam = of("logins = [\"sshd\", \"rstudio\"]\naccounts_only = [\"nginx\"]").unwrap().pam;
        assert_eq!(pam.use_of("sshd"), Some(PamUse::Login));
        assert_eq!(pam.use_of("nginx"), Some(PamUse::AccountOnly));
        for unlisted in ["", "su", "deputy-login", "deputy-job", "SSHD", "sshd "] {
            assert_eq!(pam.use_of(unlisted), None, "{unlisted:?}");
        }
        for wrong in [
            "logins = [\"web\"]\naccounts_only = [\"web\"]",
            "logins = [\"\"]",
            "logins = [\"../x\"]",
            "accounts_only = [\"a b\"]",
            "accounts_only = [\"su\"]",
            "accounts_only = [\"sshd\"]",
        ] {
            assert!(matches!(of(wrong), Err(ApplicationError::Meaning(_))), "{wrong}");
        }
    }
}
