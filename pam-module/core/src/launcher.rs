//! A conversation with a child of the launcher's, in a foreign process that root runs.

use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::Duration;

use deputy_core::job::OsIdentity;
use deputy_core::message::conversation::MAX_ANSWER;
use deputy_core::message::{self, ConverseRequest, LauncherReply, LauncherRequest, Purpose};
use deputy_core::{Code, Denial};
use deputy_wire::LAUNCHER_SOCKET;
use deputy_wire::conversation::{Client, ConversationError, Expected, Turn as Frame};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use zeroize::Zeroizing;

use crate::converse::Ended;
use crate::pam::{Refusal, Turn};

/// How long the launcher may take to begin, and to say who was authenticated once the person was told. It may have to be
/// started first.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long PAM may think about an answer. The child itself gives up after two minutes.
const CONVERSATION: Duration = Duration::from_secs(130);

/// Holds it: `turn` asks the person, or tells. Whose it was, if it ended well.
pub fn converse(
    request: &ConverseRequest,
    turn: &mut dyn FnMut(Turn) -> Result<Option<Zeroizing<Vec<u8>>>, Refusal>,
) -> Result<OsIdentity, Ended> {
    let absent = |error: &dyn std::fmt::Display| Ended::Absent(error.to_string());
    let socket = deputy_wire::connect(Path::new(LAUNCHER_SOCKET)).map_err(|error| absent(&error))?;
    if deputy_wire::peer(&socket).map_err(|error| absent(&error))?.uid != 0 {
        return Err(Ended::Absent(format!("{LAUNCHER_SOCKET} is not root's")));
    }
    set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE)).map_err(|error| absent(&error))?;
    let expected = Expected {
        purpose: Purpose::Login,
        application: request.application.clone(),
        account: request.account.clone(),
        os_user: Some(request.os_user.clone()),
    };
    let (mut client, theirs) = Client::new(expected).map_err(|error| absent(&error))?;
    client.wait_at_most(PATIENCE).map_err(|error| absent(&error))?;
    let packet =
        message::encode(&LauncherRequest::Converse(request.clone())).map_err(|error| absent(&error))?;
    deputy_wire::send(&socket, &packet, &[theirs.as_fd()]).map_err(|error| absent(&error))?;
    // From here on the child alone holds it: when that ends, this end sees the end.
    drop(theirs);
    client.hello().map_err(ended)?;
    client.wait_at_most(CONVERSATION).map_err(|error| absent(&error))?;
    client.accept().map_err(ended)?;
    loop {
        let (next, is_question) = match client.next().map_err(ended)? {
            Frame::Secret(text) => (Turn::Hidden(text), true),
            Frame::Visible(text) => (Turn::Shown(text), true),
            Frame::Info(text) => (Turn::Told(text), false),
            Frame::Error(text) => (Turn::Complaint(text), false),
            Frame::Success => break,
        };
        let answer = turn(next).map_err(Ended::ByPerson)?;
        if is_question {
            let answer = answer.ok_or(Ended::ByPerson(Refusal::Conversation))?;
            client.answer(short(answer)).map_err(ended)?;
        }
    }
    let packet = deputy_wire::receive(&socket).map_err(|error| absent(&error))?;
    let packet = packet.ok_or_else(|| Ended::Absent("it ended without an answer".into()))?;
    match message::decode(&packet.bytes).map_err(|error| absent(&error))? {
        LauncherReply::Authenticated(done) if done.purpose == Purpose::Login => Ok(done.os_account),
        LauncherReply::Denied(denial) => Err(refused(denial)),
        _ => Err(Ended::Absent("it answers something else than was asked".into())),
    }
}

/// No password of PAM's is longer: another one, which is none, takes the place of such an answer.
fn short(answer: Zeroizing<Vec<u8>>) -> Zeroizing<Vec<u8>> {
    if answer.len() <= MAX_ANSWER { answer } else { Zeroizing::new(vec![0x7f; MAX_ANSWER]) }
}

fn ended(error: ConversationError) -> Ended {
    match error {
        ConversationError::Denied(denial) => refused(denial),
        other => Ended::Absent(other.to_string()),
    }
}

/// What a person can be refused for. Anything else is a fault of the set-up.
fn refused(denial: Denial) -> Ended {
    match denial.code {
        Code::AuthenticationFailed | Code::TooManyTries => Ended::Refused(denial),
        code => Ended::Absent(format!("{code}: {}", denial.message)),
    }
}
