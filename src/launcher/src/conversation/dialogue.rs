//! PAM and the person: who asks what, and what PAM says in the end.

use std::ffi::{CStr, CString};
use std::panic::{AssertUnwindSafe, catch_unwind};

use deputy_core::denial::{Code, Denial};
use deputy_core::job::OsIdentity;
use deputy_core::message::ConverseRequest;
use deputy_core::message::conversation::ServerFrame;
use pam_client::{Context, ConversationHandler, ErrorCode, Flag};
use zeroize::Zeroizing;

use super::client::PersonsClient;
use crate::pam::check_user;
use crate::rules::Rules;

/// What stands in for the answers where no answer can be right: no password is this, and it is as long as the one
/// that was given, so that hashing it takes as long.
const GARBAGE: &[u8] = b"\x08\n\r\x7fINCORRECT";

/// Passes PAM's questions to the person. Where nothing can be right, the person is asked all the same, and PAM gets
/// garbage.
struct Dialogue<'a> {
    person: &'a mut PersonsClient,
    garbage: bool,
    /// What PAM said while it is not known whether the person may hear it.
    held: Option<Vec<ServerFrame>>,
    /// Why the conversation ended early, if it did; PAM only hears of a failure.
    aborted: Option<Denial>,
}

impl Dialogue<'_> {
    /// A panic must not unwind into PAM's C code.
    fn guarded<R>(&mut self, action: impl FnOnce(&mut Self) -> Result<R, ErrorCode>) -> Result<R, ErrorCode> {
        catch_unwind(AssertUnwindSafe(|| action(self))).unwrap_or(Err(ErrorCode::CONV_ERR))
    }

    fn ask(&mut self, question: &ServerFrame) -> Result<CString, ErrorCode> {
        self.guarded(|dialogue| {
            let answer = dialogue.person.ask(question).map_err(|denial| {
                dialogue.aborted = Some(denial);
                ErrorCode::CONV_ERR
            })?;
            let answer = if dialogue.garbage {
                Zeroizing::new(GARBAGE.iter().copied().cycle().take(answer.len().max(1)).collect())
            } else {
                answer
            };
            // Frames with a NUL are refused when they are decoded.
            CString::new(answer.as_slice()).map_err(|_| ErrorCode::CONV_ERR)
        })
    }

    fn say(&mut self, frame: ServerFrame) {
        let _ = self.guarded(|dialogue| {
            match &mut dialogue.held {
                Some(held) => held.push(frame),
                None => dialogue.person.send(&frame),
            }
            Ok(())
        });
    }

    /// Passes on what was held back.
    fn release(&mut self) {
        for frame in self.held.take().unwrap_or_default() {
            self.say(frame);
        }
    }
}

fn text(message: &CStr) -> String {
    message.to_string_lossy().into_owned()
}

impl ConversationHandler for Dialogue<'_> {
    fn prompt_echo_on(&mut self, prompt: &CStr) -> Result<CString, ErrorCode> {
        self.ask(&ServerFrame::Visible(text(prompt)))
    }

    fn prompt_echo_off(&mut self, prompt: &CStr) -> Result<CString, ErrorCode> {
        self.ask(&ServerFrame::Secret(text(prompt)))
    }

    fn text_info(&mut self, message: &CStr) {
        self.say(ServerFrame::Info(text(message)));
    }

    fn error_msg(&mut self, message: &CStr) {
        self.say(ServerFrame::Error(text(message)));
    }
}

/// Has PAM find out whether the person is the owner of the OS account: authentication, account, and a new password
/// where the old one has expired. With a `target` that is refused the same is done with garbage for the answers, and
/// the refusal is the outcome whatever PAM says.
pub fn authenticate(
    rules: &Rules,
    request: &ConverseRequest,
    target: Result<OsIdentity, Denial>,
    person: &mut PersonsClient,
) -> Result<OsIdentity, Denial> {
    let user = request.os_user.as_str();
    let dialogue = Dialogue { person, garbage: target.is_err(), held: None, aborted: None };
    let mut context = Context::new(&rules.application.pam.login, Some(user), dialogue)
        .map_err(|error| Denial::internal(format!("PAM could not be started: {error}")))?;
    let outcome = pass(&mut context, rules, user);
    if let Some(denial) = context.conversation_mut().aborted.take() {
        return Err(denial);
    }
    let identity = target?;
    outcome.map(|()| identity)
}

fn pass(context: &mut Context<Dialogue<'_>>, rules: &Rules, user: &str) -> Result<(), Denial> {
    let refused = |error: pam_client::Error| {
        Denial::new(
            Code::AuthenticationFailed,
            format!("/etc/pam.d/{}", rules.application.pam.login),
            error.to_string(),
        )
    };
    context.set_ruser(Some(rules.name.as_str())).map_err(refused)?;
    context.set_tty(Some("deputy")).map_err(refused)?;
    context.authenticate(Flag::DISALLOW_NULL_AUTHTOK).map_err(refused)?;
    check_user(context, user)?;
    // An account that is refused here had the right password, and whoever tries passwords must not hear of it: what
    // PAM says about it waits until the account may be used.
    context.conversation_mut().held = Some(Vec::new());
    match context.acct_mgmt(Flag::DISALLOW_NULL_AUTHTOK) {
        Ok(()) => context.conversation_mut().release(),
        // Only here, where the old password has just been proven, and only an expired one: as root, PAM would
        // otherwise change it without asking for the old one.
        Err(error) if error.code() == ErrorCode::NEW_AUTHTOK_REQD => {
            context.conversation_mut().release();
            context.chauthtok(Flag::CHANGE_EXPIRED_AUTHTOK).map_err(refused)?;
        }
        Err(error) => {
            for frame in context.conversation_mut().held.take().unwrap_or_default() {
                tracing::info!(event = "pam_says", text = ?frame);
            }
            return Err(refused(error));
        }
    }
    check_user(context, user)
}
