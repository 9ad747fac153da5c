//! `auth` where the operating system authenticates the application's accounts: what the stack `deputy-login` asks for is
//! passed on to the person, question by question, and the launcher's child says how it ended.
//!
//! The questions and the verdict are root's word; `deputyd` has no part in it.

use std::time::Instant;

use deputy_core::message::conversation::REFUSAL_TIME;
use deputy_core::message::{ConverseRequest, Purpose};
use deputy_core::{Denial, OsUserName};
use zeroize::Zeroizing;

use crate::options::FirstPass;
use crate::pam::{Level, Pam, Refusal, Turn, World};
use crate::start::Start;

/// Onto whom a conversation is held for an account that cannot be called like an OS account.
const NOBODY: &str = "unlinked";

/// How a conversation ended that did not end well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The program could not ask, or the person did not answer.
    ByPerson(Refusal),
    /// The person was refused.
    Refused(Denial),
    /// There was none, or not one of Deputy's; why is for the log.
    Absent(String),
}

/// Authenticates the account by the OS account that it is linked to.
pub fn converse<P: Pam, W: World>(start: &mut Start<'_, P, W>) -> Result<(), Refusal> {
    if start.options.first_pass == FirstPass::Use {
        // One password is not what a conversation asks for, and it is not for Deputy to try it onto an OS account.
        start
            .pam
            .log(Level::Error, "use_first_pass: this application's accounts have no passwords of their own");
        return Err(Refusal::NoFirstPass);
    }
    let standing = start.standing()?;
    let link = standing.as_ref().and_then(|standing| standing.link.clone());
    let enters = start.may_enter(standing.as_ref());
    // Who cannot be let in goes the same way, onto his own name, as at a login page. Without a consent onto that the
    // launcher's child gives PAM garbage; whatever it says, it is a no.
    let target = enters.as_ref().ok().and_then(Option::as_deref).unwrap_or(start.account.as_str());
    let target = OsUserName::new(target).or_else(|_| OsUserName::new(NOBODY)).map_err(|_| Refusal::System)?;
    let request = ConverseRequest {
        purpose: Purpose::Login,
        application: start.options.application.clone(),
        account: start.account.clone(),
        os_user: target,
    };
    let (pam, world) = (&mut *start.pam, start.world);
    let mut answered = Instant::now();
    let ended = world.converse(&request, &mut |turn| {
        let answer = match turn {
            Turn::Hidden(question) => Some(pam.ask(&question)?),
            Turn::Shown(question) => Some(pam.ask_shown(&question)?),
            Turn::Told(text) => {
                pam.inform(&text);
                None
            }
            Turn::Complaint(text) => {
                pam.complain(&text);
                None
            }
        };
        answered = Instant::now();
        Ok(answer)
    });
    match (enters, ended) {
        // The same identity that root's consent was read for.
        (Ok(Some(os_user)), Ok(identity)) if link.as_ref() == Some(&identity) => {
            start.debug("let in as an OS account, by its own conversation");
            start.enter(Some(os_user), Zeroizing::default())
        }
        (_, Err(Ended::ByPerson(refusal))) => Err(refusal),
        (_, Err(Ended::Absent(why))) => {
            start.pam.log(Level::Error, &format!("the launcher: {why}"));
            Err(Refusal::Unavailable)
        }
        (enters, ended) => {
            let why = match (&enters, &ended) {
                (Err(why), _) => why.as_str(),
                (_, Err(Ended::Refused(denial))) => denial.code.as_str(),
                _ => "the conversation was another OS account's",
            };
            start.refused(why);
            if ended.is_ok() {
                // The child told its success at once; a refusal of its own it would have kept for so long.
                world.wait(REFUSAL_TIME.saturating_sub(answered.elapsed()));
            }
            Err(Refusal::NotAuthenticated)
        }
    }
}
