//! On behalf of which account an application calls, and what that account may do.
//!
//! A part of the authority: only [`crate::authority`] asks here, once for each call.

use deputy_core::account::Status;
use deputy_core::application::Trust;
use deputy_core::role::Role;
use deputy_core::{AccountName, ApplicationName, Code, Denial, GroupName, Permission, SessionId};

use crate::authority::{About, Call};
use crate::bus::introspection::{self, Path};
use crate::bus::options::parse;
use crate::bus::table::{Needs, Object};
use crate::daemon::Daemon;
use crate::directory::Registered;
use crate::sessions;
use crate::store::{Account, Acting, Authentication, Session};

/// What the acting account has power over in one call.
#[derive(Debug, Clone)]
pub struct Power {
    /// The rule that gave it.
    pub rule: String,
    application: ApplicationName,
    role: Role,
}

impl Power {
    /// Whether it is at least the other role, which `whose` describes.
    pub fn covers(&self, application: &ApplicationName, other: Role, whose: &str) -> Result<(), Denial> {
        if self.role.covers(&other) {
            return Ok(());
        }
        let more = match other.permissions.iter().find(|permission| !self.role.permissions.has(*permission)) {
            Some(permission) => permission.as_str(),
            None => "superuser",
        };
        Err(missing(
            application,
            format!(
                "{whose} has more ({more}) than the acting account: nobody gives or manages what he does not have"
            ),
        ))
    }

    /// Whether it has this permission too.
    pub fn has(&self, permission: Permission) -> Result<(), Denial> {
        if self.role.permissions.has(permission) {
            return Ok(());
        }
        Err(lacks(&self.application, permission))
    }
}

fn missing(application: &ApplicationName, message: String) -> Denial {
    Denial::new(Code::PermissionMissing, format!("applications.d/{application}.toml: roles"), message)
        .remedy("have an account do it whose role allows it; deputyctl role list tells what each allows")
}

fn lacks(application: &ApplicationName, permission: Permission) -> Denial {
    missing(application, format!("the acting account's role does not have {permission} for this"))
}

/// The permission is one in a group, and this concerns more.
pub fn only_in_group(application: &ApplicationName, group: &GroupName) -> Denial {
    missing(application, format!("the acting account may do this in the group {group} only"))
}

/// There is no role of that name.
pub fn no_such_role(application: &ApplicationName, role: &str) -> Denial {
    Denial::invalid(format!("{application} has no role called {role:?}"))
        .remedy("deputyctl role list shows the roles; an application's own are in its file, [roles.NAME]")
}

/// An account that is active; the same answer as ever for one that is not there.
pub fn active(daemon: &Daemon, registered: &Registered, account: &AccountName) -> Result<Account, Denial> {
    let found = daemon.store.account(&registered.name, account)?.ok_or_else(Denial::not_found)?;
    match found.status {
        Status::Active => Ok(found),
        status => Err(not_active(status)),
    }
}

/// The account is there, and not active.
pub fn not_active(status: Status) -> Denial {
    let remedy = match status {
        Status::Pending => "have it approved: deputyctl account approve",
        Status::Rejected => "the person can register again",
        _ => "have it reactivated: deputyctl account reactivate",
    };
    Denial::new(Code::AccountNotActive, "the account's status", format!("the account is {status}"))
        .remedy(remedy)
}

/// Whether an account may do something in its own name, by its role in the application or in any group.
pub fn permitted(
    daemon: &Daemon,
    registered: &Registered,
    account: &Account,
    permission: Permission,
) -> Result<(), Denial> {
    let roles = &registered.policy.roles;
    if roles.of(&account.role).permissions.has(permission)
        || whole(daemon, registered, account)?.permissions.has(permission)
    {
        return Ok(());
    }
    let message = format!("the role {} does not have {permission}", account.role);
    Err(missing(&registered.name, message))
}

/// What all roles of an account allow together.
pub fn whole(daemon: &Daemon, registered: &Registered, account: &Account) -> Result<Role, Denial> {
    let roles = &registered.policy.roles;
    let in_groups = daemon.store.memberships(&registered.name, &account.name)?;
    let held = in_groups.iter().filter_map(|membership| membership.role.as_deref());
    Ok(held.fold(roles.of(&account.role), |all, role| all.and(&roles.of(role))))
}

/// Decides what the acting account of a call may, and notes who it is. `None`: the application calls for itself.
pub fn decide(call: &Call, registered: &Registered, about: &mut About) -> Result<Option<Power>, Denial> {
    let needs = call.method.needs;
    let Some(by) = about.by.clone() else {
        let itself = match needs {
            Needs::Nothing | Needs::Read(_) | Needs::ReadOrOwn(_) => true,
            Needs::Change(_) | Needs::ChangeWhole(_) | Needs::ChangeOrOwn(_) => {
                registered.policy.trust == Trust::Application
            }
        };
        return if itself { Ok(None) } else { Err(acting_account_required(registered)) };
    };
    let permission = match needs {
        Needs::Nothing => return Err(Denial::invalid("nobody acts on behalf of an account in this method")),
        Needs::Read(permission)
        | Needs::ReadOrOwn(permission)
        | Needs::Change(permission)
        | Needs::ChangeWhole(permission)
        | Needs::ChangeOrOwn(permission) => permission,
    };
    let (account, session) = who(call, registered, &by)?;
    let role = account.role.clone();
    let acting = Acting { account: account.name.clone(), role, group: None, session };
    about.acting = Some(acting.clone());
    call.note(about);
    let own = about.account.as_ref() == Some(&account.name);
    let power = |role: Role, rule: String| Power { rule, application: registered.name.clone(), role };
    let in_application = registered.policy.roles.of(&account.role);
    if own && matches!(needs, Needs::ReadOrOwn(_) | Needs::ChangeOrOwn(_)) {
        return Ok(Some(power(in_application, format!("{}: its own account", account.name))));
    }
    let mut refusal = lacks(&registered.name, permission);
    if in_application.permissions.has(permission) {
        let power = power(in_application, format!("{}: role {}, {permission}", account.name, account.role));
        match power_over(call, registered, needs, &power, own, about) {
            Ok(()) => return Ok(Some(power)),
            Err(denial) => refusal = denial,
        }
    }
    if matches!(needs, Needs::ChangeWhole(_)) {
        return Err(refusal);
    }
    let held: Vec<_> = call
        .daemon
        .store
        .memberships(&registered.name, &account.name)?
        .into_iter()
        .filter_map(|membership| {
            let name = membership.role?;
            let role = registered.policy.roles.of(&name);
            role.permissions.has(permission).then_some((membership.group, name, role))
        })
        .collect();
    let groups: Vec<&GroupName> = held.iter().map(|(group, ..)| group).collect();
    if !inside(call, registered, about, &groups)? {
        return Err(refusal);
    }
    for (group, name, role) in &held {
        let power = power(
            in_application.and(role),
            format!("{}: role {name} in the group {group}, {permission}", account.name),
        );
        match power_over(call, registered, needs, &power, own, about) {
            Ok(()) => {
                about.acting = Some(Acting { group: Some((group.clone(), name.clone())), ..acting });
                return Ok(Some(power));
            }
            Err(denial) => refusal = denial,
        }
    }
    Err(refusal)
}

/// Whether all that a call is about is in these groups. A call about the whole application is not.
fn inside(
    call: &Call,
    registered: &Registered,
    about: &About,
    groups: &[&GroupName],
) -> Result<bool, Denial> {
    let store = &call.daemon.store;
    let group = about.group.as_ref().map(|group| groups.contains(&group));
    let account = match &about.account {
        // One that is not there yet is wherever it is made.
        Some(account) if group.is_none() || store.account(&registered.name, account)?.is_some() => {
            let mut member = false;
            for group in groups {
                member |= store.membership(&registered.name, group, account)?.is_some();
            }
            Some(member)
        }
        _ => None,
    };
    Ok(match (group, account) {
        (None, None) => false,
        (group, account) => group.unwrap_or(true) && account.unwrap_or(true),
    })
}

/// Whether the power is enough for whom the call changes: nobody manages who has more than he has.
fn power_over(
    call: &Call,
    registered: &Registered,
    needs: Needs,
    power: &Power,
    own: bool,
    about: &About,
) -> Result<(), Denial> {
    let Some(account) =
        about.account.as_ref().filter(|_| !own && !matches!(needs, Needs::Read(_) | Needs::ReadOrOwn(_)))
    else {
        return Ok(());
    };
    let Some(target) = call.daemon.store.account(&registered.name, account)? else { return Ok(()) };
    let role = whole(&call.daemon, registered, &target)?;
    power.covers(&registered.name, role, &format!("the account {account}"))
}

/// The account that the option `by` names, and its session.
fn who(call: &Call, registered: &Registered, by: &str) -> Result<(Account, Option<SessionId>), Denial> {
    if by.starts_with('/') {
        let Some(Path::Object(Object::Session, Some(id))) = introspection::path(by) else {
            return Err(Denial::not_found());
        };
        let id: SessionId = parse("by", &id)?;
        let session = sessions::live(&call.daemon, &id)?
            .filter(|session| {
                session.application == registered.name && session.service_uid == call.caller.uid
            })
            .ok_or_else(Denial::not_found)?;
        in_its_own_name(registered, &session)?;
        return Ok((active(&call.daemon, registered, &session.account)?, Some(id)));
    }
    if registered.policy.trust != Trust::Application {
        return Err(Denial::new(
            Code::SessionRequired,
            format!("applications.d/{}.toml: trust", registered.name),
            "this application's word is not enough: by has to be a live session",
        )
        .remedy("have the person log in, and give the session's path"));
    }
    let account: AccountName = parse("by", by)?;
    Ok((active(&call.daemon, registered, &account)?, None))
}

/// What only the account itself does is not done in a session in which another acts for it.
fn in_its_own_name(registered: &Registered, session: &Session) -> Result<(), Denial> {
    match session.how {
        Authentication::ActFor { .. } => Err(missing(
            &registered.name,
            "who acts for another account runs jobs and touches files, and administers nothing".to_owned(),
        )),
        Authentication::Os {} | Authentication::Password { .. } | Authentication::Vouched { .. } => Ok(()),
    }
}

/// The same, for the session that the subject of a call turned out to be.
pub fn for_itself(
    daemon: &Daemon,
    registered: &Registered,
    session: Option<&SessionId>,
) -> Result<(), Denial> {
    let Some(id) = session else { return Ok(()) };
    let session = sessions::live(daemon, id)?.ok_or_else(Denial::not_found)?;
    in_its_own_name(registered, &session)
}

/// The application may not do this without one of its accounts.
pub fn acting_account_required(registered: &Registered) -> Denial {
    Denial::new(
        Code::ActingAccountRequired,
        format!("applications.d/{}.toml: trust", registered.name),
        "this application cannot do this in its own name: one of its accounts has to act",
    )
    .remedy("have the person log in, and give the session's path in the option by")
}

/// Who acts, where the session is one in which an account acts for another; as long as that account may.
pub fn of_session(
    daemon: &Daemon,
    registered: &Registered,
    session: Option<&SessionId>,
) -> Result<Option<Acting>, Denial> {
    let Some(id) = session else { return Ok(None) };
    let session = sessions::live(daemon, id)?.ok_or_else(Denial::not_found)?;
    let Authentication::ActFor { by, .. } = session.how else { return Ok(None) };
    let account = active(daemon, registered, &by)?;
    if registered.policy.roles.act_for_seconds.is_none()
        || !whole(daemon, registered, &account)?.permissions.has(Permission::ActFor)
    {
        return Err(lacks(&registered.name, Permission::ActFor));
    }
    Ok(Some(Acting { account: account.name, role: account.role, group: None, session: Some(session.id) }))
}
