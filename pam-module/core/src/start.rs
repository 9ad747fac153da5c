//! What every call begins with.

use deputy_core::AccountName;
use deputy_core::account::Status;
use deputy_core::application::{AuthenticationMethod, PamUse};
use deputy_core::message::query::{Query, QueryReply, Question, Standing};
use deputy_core::{Code, Denial};

use crate::options::Options;
use crate::pam::{Known, Level, Pam, Refusal, World};

/// The account that a name stands for which can be no account's: it costs the daemon the same, and is never let in.
const STAND_IN: &str = "no-account-has-this-name";

/// The most bytes of a service's or host's name that are passed on.
const MAX_TEXT: usize = 256;

/// One call: the options, the service, and who it is about.
pub struct Start<'a, P: Pam, W: World> {
    /// PAM.
    pub pam: &'a mut P,
    /// The machine.
    pub world: &'a W,
    /// The options.
    pub options: &'a Options,
    /// For what the application's file lists the service.
    pub usage: PamUse,
    /// It is for a login, and the application's accounts have no passwords of their own: the operating system
    /// authenticates them.
    pub by_conversation: bool,
    /// The account.
    pub account: AccountName,
    /// The name cannot be an account's, or `PAM_USER` is not who an earlier call on this handle let in.
    pub is_impossible: bool,
    /// `PAM_USER`.
    pub user: String,
    /// What an earlier call on this handle found.
    pub known: Option<Known>,
    service: String,
    origin: String,
}

impl<'a, P: Pam, W: World> Start<'a, P, W> {
    /// Reads what has to be known whoever it is about: none of these refusals depends on the person.
    pub fn new(pam: &'a mut P, world: &'a W, options: &'a Options) -> Result<Self, Refusal> {
        let name = &options.application;
        let Some(service) = pam.service().filter(|service| service.len() <= MAX_TEXT) else {
            pam.log(Level::Error, "the program names no service");
            return Err(Refusal::Service);
        };
        let application = world.application(name).map_err(|denial| {
            pam.log(Level::Error, &format!("application {name}: {}", denial.message));
            Refusal::Service
        })?;
        let Some(usage) = application.pam.use_of(&service) else {
            pam.log(Level::Error, &format!("applications.d/{name}.toml does not list this service in [pam]"));
            return Err(Refusal::Service);
        };
        if usage == PamUse::AccountOnly && options.map_user {
            pam.log(Level::Error, "map_user: this service is listed as one without OS accounts");
            return Err(Refusal::Service);
        }
        let methods = &application.authentication;
        let by_conversation = usage == PamUse::Login
            && methods.contains(&AuthenticationMethod::Os)
            && !methods.contains(&AuthenticationMethod::Password);
        let bytes = pam.user()?;
        let known = pam.known(name);
        let user = String::from_utf8(bytes).unwrap_or_default();
        let (account, is_impossible) = identify(&user, known.as_ref())?;
        let origin = pam.origin().filter(|origin| origin.len() <= MAX_TEXT).unwrap_or_default();
        Ok(Self {
            pam,
            world,
            options,
            usage,
            by_conversation,
            account,
            is_impossible,
            user,
            known,
            service,
            origin,
        })
    }

    /// A program may authenticate one person after the other on one handle: what is known of another is nothing.
    pub fn forget_somebody_else(&mut self) -> Result<(), Refusal> {
        if self.known.as_ref().is_some_and(|known| known.user != self.user) {
            self.known = None;
            (self.account, self.is_impossible) = identify(&self.user, None)?;
        }
        Ok(())
    }

    /// Asks the daemon about the account.
    pub fn query(&self, question: Question<'_>) -> Result<QueryReply, Refusal> {
        let query = Query {
            application: self.options.application.as_str(),
            account: self.account.as_str(),
            service: &self.service,
            origin: &self.origin,
            question,
        };
        self.world.ask(&query).map_err(|why| {
            self.pam.log(Level::Error, &format!("deputyd: {why}"));
            Refusal::Unavailable
        })
    }

    /// Where the account stands by the daemon's word; nothing if it knows no such account.
    pub fn standing(&self) -> Result<Option<Standing>, Refusal> {
        match self.query(Question::Standing)? {
            QueryReply::Standing(standing) => Ok(Some(standing)),
            QueryReply::Denied(denial) if denial.code == Code::NotFound => Ok(None),
            QueryReply::Denied(denial) => Err(self.not_served(&denial)),
            _ => Err(self.nonsense()),
        }
    }

    /// Whether this account may be let in here, whatever its password: the OS account's name for a login.
    pub fn may_enter(&self, standing: Option<&Standing>) -> Result<Option<String>, String> {
        let name = &self.options.application;
        if self.is_impossible {
            return Err("the name can be no account's, or PAM_USER was changed".into());
        }
        let standing = standing.ok_or("there is no such account")?;
        if standing.status != Status::Active {
            return Err(format!("the account is {}", standing.status));
        }
        let roles = &self.options.roles;
        if !roles.is_empty() && roles.iter().all(|role| role.as_str() != standing.role) {
            return Err(format!("the account has the role {:?}", standing.role));
        }
        match self.usage {
            PamUse::AccountOnly => {
                let checked = self.world.is_no_system_account(name, &self.account);
                checked.map(|()| None).map_err(|denial| denial.message)
            }
            PamUse::Login => {
                let identity = standing.link.as_ref().ok_or("the account has no active link")?;
                let os_user = identity.name.as_str();
                // After map_user PAM_USER is the OS account; without it, it has to be from the beginning.
                let is_mapped_now = self.options.map_user && self.known.is_none();
                if !is_mapped_now && self.user != os_user {
                    return Err(format!("the account is linked to {os_user:?}"));
                }
                // A program that does not look at PAM_USER again would give a login to who was named first.
                if is_mapped_now && self.user != os_user {
                    let is_somebody =
                        self.world.is_os_account(&self.user).map_err(|denial| denial.message)?;
                    if is_somebody {
                        return Err(format!("an OS account is called so, and the link is to {os_user:?}"));
                    }
                }
                let checked = self.world.may_log_in(name, &self.account, identity);
                checked.map(|()| Some(os_user.to_owned())).map_err(|denial| denial.message)
            }
        }
    }

    /// Lets it in: `PAM_USER` becomes the OS account where that was asked for, and later calls know who it is.
    pub fn enter(
        &mut self,
        os_user: Option<String>,
        ticket: zeroize::Zeroizing<String>,
    ) -> Result<(), Refusal> {
        let user = match os_user {
            Some(os_user) if self.options.map_user => {
                if os_user != self.user {
                    self.pam.set_user(&os_user)?;
                }
                os_user
            }
            _ => self.user.clone(),
        };
        let known = Known { account: self.account.clone(), user: user.clone(), ticket };
        self.pam.remember(&self.options.application, known.clone())?;
        self.user = user;
        self.known = Some(known);
        Ok(())
    }

    /// A line about a refusal.
    pub fn refused(&self, why: &str) {
        // Names of accounts have no control characters; other text is escaped where it is made.
        let line =
            format!("refused: application {}, account {}: {why}", self.options.application, self.account);
        self.pam.log(Level::Notice, &line);
    }

    /// A line for who looks for a fault.
    pub fn debug(&self, text: &str) {
        if self.options.debug {
            self.pam.log(Level::Debug, text);
        }
    }

    /// The daemon answers, and not this: a fault of the set-up, not of the person.
    pub fn not_served(&self, denial: &Denial) -> Refusal {
        self.pam.log(Level::Error, &format!("deputyd: {}: {:?}", denial.code, denial.message));
        Refusal::Unavailable
    }

    /// The daemon's answer is to another question.
    pub fn nonsense(&self) -> Refusal {
        self.pam.log(Level::Error, "deputyd answers something else than was asked");
        Refusal::Unavailable
    }
}

/// The account that `PAM_USER` stands for, and whether it can be nobody.
fn identify(user: &str, known: Option<&Known>) -> Result<(AccountName, bool), Refusal> {
    match (known, AccountName::new(user)) {
        (Some(known), _) => Ok((known.account.clone(), known.user != user)),
        (None, Ok(account)) => Ok((account, false)),
        (None, Err(_)) => Ok((AccountName::new(STAND_IN).map_err(|_| Refusal::System)?, true)),
    }
}
