//! Who may do what: every call passes here before anything is looked at or changed for it.
//!
//! The row of the table says which grounds there are. A [`Grant`] is the answer as a value: only this module makes
//! one, the operation consumes it, and a handler cannot answer without one.

use std::sync::{Arc, Mutex, PoisonError};

use deputy_core::{AccountName, ApplicationName, Code, Denial, GroupName, KindName, OsUserName, Permission};
use zbus::Message;
use zbus::message::Flags;

use crate::acting::{self, Power};
use crate::bus::caller::Caller;
use crate::bus::table::{Authority, Method};
use crate::daemon::Daemon;
use crate::directory::{Registered, Snapshot};
use crate::polkit::{Action, Answer, Details};
use crate::store::{Acting, Actor};

/// The most characters of a command that polkit's dialogs and rules are shown.
const MAX_COMMAND: usize = 1024;

/// What a call is about, in the caller's words: for polkit's rules and for the record of a refusal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// The application.
    pub application: Option<ApplicationName>,
    /// Its account.
    pub account: Option<AccountName>,
    /// A group of its accounts.
    pub group: Option<GroupName>,
    /// The OS account.
    pub os_user: Option<OsUserName>,
    /// The kind of job.
    pub kind: Option<KindName>,
    /// The program and its arguments.
    pub argv: Vec<Vec<u8>>,
    /// Who acts through the application, as the option `by` names him: a session's path, or an account.
    pub by: Option<String>,
    /// The account that this turned out to be.
    pub acting: Option<Acting>,
}

impl About {
    /// About an application.
    pub fn application(application: Option<ApplicationName>) -> Self {
        Self { application, ..Self::default() }
    }

    /// And one of its accounts.
    #[must_use]
    pub fn account(mut self, account: &AccountName) -> Self {
        self.account = Some(account.clone());
        self
    }

    /// And one of its groups.
    #[must_use]
    pub fn group(mut self, group: Option<&GroupName>) -> Self {
        self.group = group.cloned();
        self
    }

    /// On behalf of whom the application calls.
    #[must_use]
    pub fn by(mut self, by: Option<String>) -> Self {
        self.by = by;
        self
    }

    /// And an OS account.
    #[must_use]
    pub fn os_user(mut self, os_user: Option<&OsUserName>) -> Self {
        self.os_user = os_user.cloned();
        self
    }

    fn details(&self) -> Details {
        let command = (!self.argv.is_empty()).then(|| {
            let words: Vec<_> = self
                .argv
                .iter()
                .map(|word| String::from_utf8_lossy(word).escape_debug().to_string())
                .collect();
            words.join(" ").chars().take(MAX_COMMAND).collect()
        });
        Details {
            application: self.application.as_ref().map(ToString::to_string),
            account: self.account.as_ref().map(ToString::to_string),
            os_user: self.os_user.as_ref().map(ToString::to_string),
            kind: self.kind.as_ref().map(ToString::to_string),
            command,
        }
    }
}

/// One call of a method.
#[derive(Clone)]
pub struct Call {
    /// What answers it.
    pub daemon: Arc<Daemon>,
    /// Its row of the table.
    pub method: &'static Method,
    /// Who calls.
    pub caller: Caller,
    /// The message.
    pub message: Message,
    /// The id at the end of the object's path, for a job or session.
    pub id: Option<String>,
    /// What is known of it so far, for the record if it is refused.
    pub about: Arc<Mutex<About>>,
}

/// On what ground a call is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ground {
    /// Everybody may.
    Public,
    /// The caller is the application's service user.
    Application,
    /// The caller owns the OS account that it is about.
    Owner,
    /// The caller administers the machine.
    Administrator,
}

/// That a call is allowed.
#[derive(Debug)]
pub struct Grant {
    /// On what ground.
    pub ground: Ground,
    /// The applications when it was decided.
    pub snapshot: Arc<Snapshot>,
    application: Option<Arc<Registered>>,
    actor: Actor,
    /// What the acting account has power over, where one acts.
    power: Option<Power>,
    /// What polkit has still to be asked.
    pending: Option<Action>,
}

/// The result of an operation that was allowed.
#[derive(Debug)]
pub struct Granted<T>(T);

impl<T> Granted<T> {
    /// The result.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl Grant {
    /// The application that it is about.
    pub fn application(&self) -> Result<&Arc<Registered>, Denial> {
        self.application.as_ref().ok_or_else(name_the_application)
    }

    /// The application that it is about, where there is one.
    pub fn maybe_application(&self) -> Option<&Arc<Registered>> {
        self.application.as_ref()
    }

    /// Who acts, for the ledger. Without it nothing can be changed, so this is where a question that the
    /// application's file asks for, and that was forgotten, stops the call.
    pub fn actor(&self) -> Result<Actor, Denial> {
        match self.pending {
            None => Ok(self.actor.clone()),
            Some(action) => Err(Denial::internal(format!("polkit was not asked about {}", action.id()))),
        }
    }

    /// Whether who acts may give this role to somebody, or take it: the application has it, and nobody gives what he
    /// does not have himself.
    pub fn may_give(&self, role: &str) -> Result<(), Denial> {
        let application = self.application()?;
        let Some(given) = application.policy.roles.get(role) else {
            return Err(acting::no_such_role(&application.name, role));
        };
        match &self.power {
            Some(power) => power.covers(&application.name, given, &format!("the role {role}")),
            None => Ok(()),
        }
    }

    /// What is done concerns the whole application: a role in one group is not ground enough.
    pub fn in_the_whole_application(&self) -> Result<(), Denial> {
        match self.actor.by.as_ref().and_then(|by| by.group.as_ref()) {
            None => Ok(()),
            Some((group, _)) => Err(acting::only_in_group(&self.application()?.name, group)),
        }
    }

    /// Whether who acts has this permission too, beside the method's own, and over the same accounts.
    pub fn has(&self, permission: Permission) -> Result<(), Denial> {
        match &self.power {
            Some(power) => power.has(permission),
            None => Ok(()),
        }
    }

    /// The question of the method's row is not about what this call asks for.
    pub fn no_question(&mut self) {
        self.pending = None;
    }

    /// The answer to the call: the grant is used up.
    pub fn answer<T>(self, value: T) -> Granted<T> {
        Granted(value)
    }
}

/// What has an application, and may have an owner.
pub trait Owned {
    /// Whose it is.
    fn application(&self) -> &ApplicationName;
    /// The uid of the OS account that it is about.
    fn owner(&self) -> Option<u32>;
    /// The only uid that may use it on the application's side, where it was pinned.
    fn service_uid(&self) -> Option<u32> {
        None
    }
}

impl Call {
    /// Remembers what the call is about, for the record of a refusal.
    pub fn note(&self, about: &About) {
        let mut held = self.about.lock().unwrap_or_else(PoisonError::into_inner);
        // Who acts does not change while more becomes known of what it is about.
        let acting = about.acting.clone().or_else(|| held.acting.take());
        *held = About { acting, ..about.clone() };
    }

    /// Decides a call that everybody may make.
    pub fn authorize_public(&self) -> Result<Grant, Denial> {
        if self.method.authority != Authority::Public {
            return Err(Denial::internal(format!("{} is not public", self.method.name())));
        }
        let snapshot = self.daemon.directory.snapshot();
        let application = snapshot.of_uid(self.caller.uid);
        Ok(self.grant(Ground::Public, snapshot, application, "public".into()))
    }

    /// Decides a call about one application: the caller's own, or the one that an administrator names.
    pub async fn authorize(&self, about: About) -> Result<Grant, Denial> {
        self.decide(about, true).await
    }

    /// Decides a call that may also be about all applications, or about the caller's own OS account.
    pub async fn authorize_any(&self, about: About) -> Result<Grant, Denial> {
        self.decide(about, false).await
    }

    async fn decide(&self, about: About, one: bool) -> Result<Grant, Denial> {
        self.note(&about);
        let snapshot = self.daemon.directory.snapshot();
        let own = snapshot.of_uid(self.caller.uid);
        if own.is_some() && matches!(self.method.authority, Authority::Administrator(_)) {
            return Err(not_the_administrator());
        }
        if let Some(own) = own {
            if about.application.as_ref().is_some_and(|asked| *asked != own.name) {
                return Err(Denial::not_found());
            }
            let mut about = About { application: Some(own.name.clone()), ..about };
            self.note(&about);
            let power = acting::decide(self, &own, &mut about)?;
            self.note(&about);
            let rule = match &power {
                Some(power) => power.rule.clone(),
                None => format!("applications.d/{}.toml: service_user", own.name),
            };
            let mut grant = self.grant(Ground::Application, snapshot, Some(own), rule);
            grant.actor.by = about.acting;
            grant.power = power;
            return Ok(grant);
        }
        if about.by.is_some() {
            return Err(by_is_for_applications());
        }
        let action = match self.method.authority {
            Authority::Public => return self.authorize_public(),
            Authority::Application => return Err(not_the_service_user()),
            Authority::ApplicationOrAdministrator(action) | Authority::Administrator(action) => action,
            Authority::OwnerOrApplicationOrAdministrator(action) => {
                if about.application.is_none() && self.caller.uid != 0 && !one {
                    return Ok(self.grant(Ground::Owner, snapshot, None, "owner of the OS account".into()));
                }
                action
            }
        };
        if one && about.application.is_none() {
            return Err(name_the_application());
        }
        let rule = self.administrator(action, &about).await?;
        // The answer may have taken minutes: what it was about is looked up again.
        let snapshot = self.daemon.directory.snapshot();
        let application = match &about.application {
            None => None,
            Some(name) => Some(snapshot.get(name).ok_or_else(Denial::not_found)??),
        };
        Ok(self.grant(Ground::Administrator, snapshot, application, rule))
    }

    /// Decides a call about one thing. Who may not see it is told that it is not there.
    pub async fn authorize_object<T: Owned>(
        &self,
        look_up: impl Fn() -> Result<Option<T>, Denial> + Send,
    ) -> Result<(Grant, T), Denial> {
        let snapshot = self.daemon.directory.snapshot();
        let own = snapshot.of_uid(self.caller.uid);
        let (owners, action) = match self.method.authority {
            Authority::Public | Authority::Application => (false, None),
            Authority::ApplicationOrAdministrator(action) | Authority::Administrator(action) => {
                (false, Some(action))
            }
            Authority::OwnerOrApplicationOrAdministrator(action) => (true, Some(action)),
        };
        if let Some(found) = look_up()? {
            let pinned = found.service_uid().is_none_or(|uid| uid == self.caller.uid);
            if let Some(own) = own.as_ref().filter(|own| own.name == *found.application() && pinned) {
                self.note(&About::application(Some(own.name.clone())));
                let rule = format!("applications.d/{}.toml: service_user", own.name);
                return Ok((self.grant(Ground::Application, snapshot, Some(Arc::clone(own)), rule), found));
            }
            if owners && found.owner() == Some(self.caller.uid) {
                self.note(&About::application(Some(found.application().clone())));
                let application = snapshot.get(found.application()).and_then(Result::ok);
                return Ok((
                    self.grant(Ground::Owner, snapshot, application, "owner of the OS account".into()),
                    found,
                ));
            }
        }
        let (None, Some(action)) = (own, action) else { return Err(Denial::not_found()) };
        // Whether it is there or not: the same question, without details that would tell, and the same answer.
        let Ok(rule) = self.administrator(action, &About::default()).await else {
            return Err(Denial::not_found());
        };
        let found = look_up()?.ok_or_else(Denial::not_found)?;
        let snapshot = self.daemon.directory.snapshot();
        let application = snapshot.get(found.application()).and_then(Result::ok);
        Ok((self.grant(Ground::Administrator, snapshot, application, rule), found))
    }

    /// Decides on whose behalf an application calls about one thing of its own, which was looked up already.
    pub fn act(&self, grant: &mut Grant, mut about: About) -> Result<(), Denial> {
        let own = match &grant.application {
            Some(own) if grant.ground == Ground::Application => Arc::clone(own),
            _ if about.by.is_some() => return Err(by_is_for_applications()),
            _ => return Ok(()),
        };
        let power = acting::decide(self, &own, &mut about)?;
        self.note(&about);
        grant.actor.by = about.acting;
        if let Some(power) = &power {
            grant.actor.rule = Some(power.rule.clone());
        }
        grant.power = power;
        Ok(())
    }

    /// Asks polkit too, where the application's file says so. It may take minutes: what the call is about has to be
    /// looked up again afterwards.
    pub async fn ask_too(&self, grant: &mut Grant, about: About) -> Result<(), Denial> {
        self.note(&about);
        if let Some(action) = grant.pending {
            self.administrator(action, &about).await?;
            grant.pending = None;
        }
        Ok(())
    }

    /// Whether polkit lets the caller do this; the rule that says so. Root is polkit's administrator already, and
    /// stays one while polkit is away.
    async fn administrator(&self, action: Action, about: &About) -> Result<String, Denial> {
        if self.caller.uid == 0 {
            return Ok("uid 0".into());
        }
        let interactive = self.message.primary_header().flags().contains(Flags::ALLOW_INTERACTIVE_AUTH);
        let details = about.details();
        let answer = self.daemon.authorizer.check(&self.message, action, &details, interactive).await;
        let remedy = match answer {
            Answer::Yes => return Ok(format!("polkit: {}", action.id())),
            Answer::No => "a rule of polkit's would have to allow this action to the caller",
            Answer::Challenge => "authenticate as an administrator: allow interaction, with an agent running",
            Answer::Unreachable => "polkit does not answer: look at polkit.service; root does not need it",
        };
        Err(Denial::new(
            Code::NotAuthorized,
            format!("polkit: {}", action.id()),
            "this is for the application's service user and for the administrators of this machine",
        )
        .remedy(remedy))
    }

    fn grant(
        &self,
        ground: Ground,
        snapshot: Arc<Snapshot>,
        application: Option<Arc<Registered>>,
        rule: String,
    ) -> Grant {
        let speaks = if ground == Ground::Application { application.as_ref() } else { None };
        let actor = Actor {
            caller_uid: self.caller.uid,
            bus_name: Some(self.caller.bus_name.to_string()),
            application: speaks.map(|application| application.name.clone()),
            by: None,
            action: self.method.name(),
            rule: Some(rule),
        };
        // An administrator by polkit's word was asked about already.
        let pending = match (self.method.asks, speaks) {
            (Some((question, action)), Some(own)) if own.policy.ask_polkit.contains(&question) => {
                Some(action)
            }
            _ => None,
        };
        Grant { ground, snapshot, application, actor, power: None, pending }
    }
}

fn by_is_for_applications() -> Denial {
    Denial::invalid("the option by is for an application, about its own accounts")
        .remedy("leave it out: the caller acts in his own name")
}

fn name_the_application() -> Denial {
    Denial::invalid("the caller is no application's service user, so the option application is needed")
        .remedy("name the application; deputyctl application list shows them")
}

fn not_the_administrator() -> Denial {
    Denial::new(
        Code::NotAuthorized,
        "administrators of the machine",
        "this is for the administrators of this machine; an application cannot do it for itself",
    )
    .remedy("have root do it")
}

fn not_the_service_user() -> Denial {
    Denial::new(
        Code::NotAuthorized,
        "applications.d: service_user",
        "only an application itself can do this, and the caller is no application's service user",
    )
    .remedy(
        "call as the service user; if that is what you did, deputyctl application check tells what is wrong with the file",
    )
}
