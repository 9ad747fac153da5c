//! `session`: a session of Deputy's beside that of the program.

use deputy_core::Code;
use deputy_core::message::query::{QueryReply, Question};

use crate::options::Options;
use crate::pam::{Pam, Refusal, World};
use crate::start::Start;

/// Where the session's path is left.
const SESSION: &str = "DEPUTY_SESSION";

/// Opens one, and says in the environment which.
pub fn open_session<P: Pam, W: World>(pam: &mut P, world: &W, options: &Options) -> Result<(), Refusal> {
    let start = Start::new(pam, world, options)?;
    let standing = start.standing()?;
    start.may_enter(standing.as_ref()).map_err(|why| {
        start.refused(&why);
        Refusal::Session
    })?;
    let mut known = start.known.clone();
    let ticket = known.as_ref().map_or("", |known| known.ticket.as_str());
    let session = match start.query(Question::OpenSession { ticket })? {
        QueryReply::Opened { session } => session,
        QueryReply::Denied(denial)
            if matches!(denial.code, Code::AuthenticationFailed | Code::PasswordMustChange) =>
        {
            start.refused(denial.code.as_str());
            return Err(Refusal::Session);
        }
        QueryReply::Denied(denial) => {
            start.not_served(&denial);
            return Err(Refusal::Session);
        }
        _ => return Err(start.nonsense()),
    };
    // It was good once.
    if let Some(known) = known.as_mut() {
        known.ticket = zeroize::Zeroizing::default();
        start.pam.remember(&options.application, known.clone())?;
    }
    let account = start.account.clone();
    start.pam.set_variable("DEPUTY_APPLICATION", options.application.as_str())?;
    start.pam.set_variable("DEPUTY_ACCOUNT", account.as_str())?;
    start.pam.set_variable(SESSION, &session)
}

/// Closes it. The daemon closes only a session of this account's, whatever the variable says.
pub fn close_session<P: Pam, W: World>(pam: &mut P, world: &W, options: &Options) -> Result<(), Refusal> {
    let start = Start::new(pam, world, options)?;
    let Some(session) = start.pam.variable(SESSION) else { return Ok(()) };
    match start.query(Question::CloseSession { session: &session })? {
        QueryReply::Done => Ok(()),
        QueryReply::Denied(denial) => {
            start.not_served(&denial);
            Err(Refusal::Session)
        }
        _ => Err(start.nonsense()),
    }
}
