//! `auth`: the person proves to be the account's.

use std::time::{Duration, Instant};

use deputy_core::Code;
use deputy_core::application::PamUse;
use deputy_core::message::query::{MAX_SECRET, QueryReply, Question};
use zeroize::Zeroizing;

use crate::converse::converse;
use crate::options::{FirstPass, Options};
use crate::pam::{Pam, Refusal, SecretItem, World};
use crate::start::Start;

/// A refusal is told at a multiple of this after the password was there, so that what is looked at on the way (a
/// record of root's, the name service) does not show.
const STEP: Duration = Duration::from_millis(500);

/// Authenticates the account, and for a login makes sure that it may be let in at all.
///
/// Whoever cannot be let in goes the same way as a wrong password: the daemon is asked, with something that is no
/// password in its place.
pub fn authenticate<P: Pam, W: World>(pam: &mut P, world: &W, options: &Options) -> Result<(), Refusal> {
    let mut start = Start::new(pam, world, options)?;
    start.forget_somebody_else()?;
    if start.by_conversation {
        return converse(&mut start);
    }
    let first = start.pam.secret(SecretItem::Password);
    match (options.first_pass, first) {
        (FirstPass::Use, None) => return Err(Refusal::NoFirstPass),
        (FirstPass::Use, Some(password)) => return attempt(&mut start, &password),
        (FirstPass::Try, Some(password)) => match attempt(&mut start, &password) {
            Err(Refusal::NotAuthenticated) => {}
            other => return other,
        },
        (FirstPass::Try, None) | (FirstPass::Ask, _) => {}
    }
    let password = start.pam.ask(&format!("Password for {}: ", options.application))?;
    start.pam.keep_secret(SecretItem::Password, &password)?;
    attempt(&mut start, &password)
}

fn attempt<P: Pam, W: World>(start: &mut Start<'_, P, W>, password: &[u8]) -> Result<(), Refusal> {
    let begun = Instant::now();
    let tried = try_once(start, password);
    if tried == Err(Refusal::NotAuthenticated) {
        let steps = begun.elapsed().as_millis().div_ceil(STEP.as_millis()).max(1);
        let told = STEP.saturating_mul(u32::try_from(steps).unwrap_or(u32::MAX));
        start.world.wait(told.saturating_sub(begun.elapsed()));
    }
    tried
}

fn try_once<P: Pam, W: World>(start: &mut Start<'_, P, W>, password: &[u8]) -> Result<(), Refusal> {
    let standing = start.standing()?;
    let enters = start.may_enter(standing.as_ref());
    // A byte more than a password can have is wrong however many follow.
    let cut = &password[..password.len().min(MAX_SECRET)];
    // No password has this byte. The real one is nobody's business where it cannot help: it may be that of an OS
    // account.
    let none = Zeroizing::new(vec![0; cut.len()]);
    let shown = if enters.is_ok() { cut } else { &none };
    let reply = start.query(Question::Authenticate { password: shown })?;
    let os_user = match enters {
        Ok(os_user) => os_user,
        // Whatever the daemon says.
        Err(why) => {
            start.refused(&why);
            return Err(Refusal::NotAuthenticated);
        }
    };
    match reply {
        QueryReply::Right { ticket } => {
            start.debug(if start.usage == PamUse::Login {
                "let in as an OS account"
            } else {
                "authenticated"
            });
            start.enter(os_user, Zeroizing::new(ticket))
        }
        QueryReply::Denied(denial)
            if matches!(denial.code, Code::AuthenticationFailed | Code::TooManyTries) =>
        {
            start.refused(denial.code.as_str());
            Err(Refusal::NotAuthenticated)
        }
        QueryReply::Denied(denial) => Err(start.not_served(&denial)),
        _ => Err(start.nonsense()),
    }
}
