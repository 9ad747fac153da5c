//! `password`: a new password, for who knows the old one; root is asked for it too.

use deputy_core::Code;
use deputy_core::message::query::{MAX_SECRET, QueryReply, Question};
use zeroize::Zeroizing;

use crate::options::{FirstPass, Options};
use crate::pam::{Known, Pam, Refusal, SecretItem, World};
use crate::start::Start;

/// How often a new password may be refused.
const TRIES: usize = 3;

/// PAM calls twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Can it be changed? (`PAM_PRELIM_CHECK`)
    Check,
    /// Now (`PAM_UPDATE_AUTHTOK`).
    Update,
}

/// Changes the account's password. With `only_expired`, only one that has to be replaced.
pub fn change_password<P: Pam, W: World>(
    pam: &mut P,
    world: &W,
    options: &Options,
    phase: Phase,
    only_expired: bool,
) -> Result<(), Refusal> {
    let mut start = Start::new(pam, world, options)?;
    if only_expired && !start.standing()?.is_some_and(|standing| standing.must_change) {
        return Ok(());
    }
    match phase {
        Phase::Check => check(&mut start),
        Phase::Update => update(&mut start),
    }
}

/// Whether the person knows the old password; it is kept for the second call.
fn check<P: Pam, W: World>(start: &mut Start<'_, P, W>) -> Result<(), Refusal> {
    let first = match start.options.first_pass {
        FirstPass::Ask => None,
        FirstPass::Try | FirstPass::Use => start.pam.secret(SecretItem::OldPassword),
    };
    let old = match (start.options.first_pass, first) {
        (FirstPass::Use, None) => return Err(Refusal::NoFirstPass),
        (_, Some(old)) => old,
        (_, None) => start.pam.ask(&format!("Current password for {}: ", start.options.application))?,
    };
    let shown = if start.is_impossible { Zeroizing::new(vec![0; old.len()]) } else { old.clone() };
    let reply = start.query(Question::Authenticate { password: cut(&shown) })?;
    match reply {
        QueryReply::Right { .. } if !start.is_impossible => {
            start.pam.keep_secret(SecretItem::OldPassword, &old)
        }
        QueryReply::Denied(denial) if is_wrong(denial.code) => {
            start.refused(denial.code.as_str());
            Err(Refusal::OldPasswordWrong)
        }
        QueryReply::Denied(denial) => Err(start.not_served(&denial)),
        _ => Err(start.nonsense()),
    }
}

fn update<P: Pam, W: World>(start: &mut Start<'_, P, W>) -> Result<(), Refusal> {
    let Some(old) = start.pam.secret(SecretItem::OldPassword).filter(|_| !start.is_impossible) else {
        return Err(Refusal::OldPasswordWrong);
    };
    let mut first = match start.options.first_pass {
        FirstPass::Ask => None,
        FirstPass::Try | FirstPass::Use => start.pam.secret(SecretItem::Password),
    };
    for _ in 0..TRIES {
        let is_firsts = first.is_some();
        let new = match (start.options.first_pass, first.take()) {
            (_, Some(new)) => new,
            (FirstPass::Use, None) => return Err(Refusal::NoFirstPass),
            (_, None) => match ask_twice(start)? {
                Some(new) => new,
                None => continue,
            },
        };
        match start.query(Question::ChangePassword { old: cut(&old), new: cut(&new) })? {
            QueryReply::Right { ticket } => {
                start.pam.keep_secret(SecretItem::Password, &new)?;
                // What was proved before was about the old password.
                if let Some(known) = &start.known {
                    let known = Known { ticket: Zeroizing::new(ticket), ..known.clone() };
                    start.pam.remember(&start.options.application, known)?;
                }
                return Ok(());
            }
            QueryReply::Denied(denial) if is_wrong(denial.code) => {
                start.refused(denial.code.as_str());
                return Err(Refusal::OldPasswordWrong);
            }
            QueryReply::Denied(denial)
                if matches!(denial.code, Code::PasswordWeak | Code::InvalidArgument) =>
            {
                start.pam.complain(&format!("{}: {}", denial.message, denial.remedy));
                // Another module's password is what it is.
                if is_firsts && start.options.first_pass == FirstPass::Use {
                    return Err(Refusal::NewPasswordRefused);
                }
            }
            QueryReply::Denied(denial) => return Err(start.not_served(&denial)),
            _ => return Err(start.nonsense()),
        }
    }
    Err(Refusal::NewPasswordRefused)
}

/// A new password, typed twice; nothing if the two differ.
fn ask_twice<P: Pam, W: World>(start: &mut Start<'_, P, W>) -> Result<Option<Zeroizing<Vec<u8>>>, Refusal> {
    let new = start.pam.ask(&format!("New password for {}: ", start.options.application))?;
    let again = start.pam.ask("The same again: ")?;
    if *new == *again {
        return Ok(Some(new));
    }
    start.pam.complain("the two are not the same");
    Ok(None)
}

fn is_wrong(code: Code) -> bool {
    matches!(code, Code::AuthenticationFailed | Code::TooManyTries)
}

fn cut(password: &[u8]) -> &[u8] {
    &password[..password.len().min(MAX_SECRET)]
}
