//! A conversation: PAM with a person, over the client's own socket, in a program started afresh.
//!
//! The child re-executes the launcher, so that nothing of an earlier request is in its memory and its addresses are
//! its own. It lives for one login, 120 seconds at most.

mod client;
mod dialogue;
mod tries;

use std::ffi::CStr;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use deputy_core::application::AuthenticationMethod;
use deputy_core::consent::{Consent, GivenBy};
use deputy_core::denial::{Code, Denial};
use deputy_core::job::OsIdentity;
use deputy_core::message::conversation::{REFUSAL_TIME, ServerFrame};
use deputy_core::message::{
    Authenticated, ConverseRequest, LauncherReply, LauncherRequest, MAX_MEMFD, Purpose, decode,
};
use deputy_sys::process;
use deputy_wire::Peer;
use rustix::fs::{MemfdFlags, memfd_create};

use self::client::PersonsClient;
use crate::consents;
use crate::request::{refuse, reply, share, slot};
use crate::rules::{self, Rules};

/// The name under which the launcher's program is a conversation.
pub const PROGRAM_NAME: &CStr = c"deputy-conversation";

/// How long a conversation may last, from first to last.
const LIFETIME_SECONDS: u32 = 120;

/// Where the re-executed program finds what was handed to it.
const CONNECTION: i32 = 3;
const CLIENT: i32 = 4;
const REQUEST: i32 = 5;

/// In the forked child: hands the request to a program started afresh. Returns only if that failed.
pub fn start(packet: &[u8], mut descriptors: Vec<OwnedFd>, connection: OwnedFd, peer: Peer) {
    let Some(client) = descriptors.pop().filter(|_| descriptors.is_empty()) else {
        let denial = Denial::new(Code::BadMessage, "protocol", "a conversation takes exactly one descriptor");
        return refuse(&connection, peer, denial);
    };
    let error = match hand_over(packet, client, &connection) {
        Ok(never) => match never {},
        Err(error) => error,
    };
    refuse(&connection, peer, Denial::internal(format!("the conversation could not be started: {error}")));
}

fn hand_over(
    packet: &[u8],
    client: OwnedFd,
    connection: &OwnedFd,
) -> std::io::Result<std::convert::Infallible> {
    let mut request = File::from(memfd_create("deputy-request", MemfdFlags::CLOEXEC)?);
    request.write_all(packet)?;
    // Out of the way first, so that no move overwrites what is still to be moved.
    let request = process::move_to(request.into(), REQUEST + 10)?;
    let client = process::move_to(client, CLIENT + 10)?;
    let client = process::move_to(client, CLIENT)?;
    let request = process::move_to(request, REQUEST)?;
    for descriptor in [connection.as_fd(), client.as_fd(), request.as_fd()] {
        process::keep_on_exec(descriptor)?;
    }
    Err(process::execute_self_as(PROGRAM_NAME))
}

/// The re-executed program.
pub fn main() -> ! {
    let status = catch_unwind(AssertUnwindSafe(|| -> std::io::Result<()> {
        process::harden()?;
        process::no_core_dumps()?;
        process::end_after(LIFETIME_SECONDS);
        let connection = process::take_descriptor(CONNECTION)?;
        let client = process::take_descriptor(CLIENT)?;
        let request = process::take_descriptor(REQUEST)?;
        process::close_from(REQUEST + 1)?;
        let peer = deputy_wire::peer(&connection).map_err(std::io::Error::other)?;
        let answer = read_request(request).and_then(|request| converse(&request, client, peer, &connection));
        if let Err(denial) = answer {
            refuse(&connection, peer, denial);
        }
        Ok(())
    }));
    process::exit_now(i32::from(!matches!(status, Ok(Ok(())))));
}

fn read_request(request: OwnedFd) -> Result<ConverseRequest, Denial> {
    use std::os::unix::fs::FileExt as _;
    let file = File::from(request);
    let length = file.metadata().map_or(u64::MAX, |metadata| metadata.len());
    let length = usize::try_from(length).ok().filter(|&length| length <= MAX_MEMFD);
    let mut packet = vec![0; length.ok_or_else(|| Denial::internal("the request was not handed over"))?];
    file.read_exact_at(&mut packet, 0).map_err(|error| Denial::internal(error.to_string()))?;
    match decode(&packet)? {
        LauncherRequest::Converse(request) => Ok(request),
        _ => Err(Denial::internal("another request was handed over")),
    }
}

/// The whole conversation. What it refuses before PAM for reasons that the application may know is told as it is;
/// whatever depends on the OS account or its link takes the same path and time as a wrong password.
fn converse(
    request: &ConverseRequest,
    client: OwnedFd,
    peer: Peer,
    connection: &OwnedFd,
) -> Result<(), Denial> {
    let settings = rules::settings()?;
    let _slot = slot("conversations", settings.launcher.max_conversations)?;
    let rules = Rules::read(&request.application)?;
    let _share = share("conversations", settings.launcher.max_conversations, rules.service_uid)?;
    let target = target(request, &rules);
    // The owner's own socket is taken whether or not the account is a target: a refusal here would tell.
    let owner_uid = rules::look_up(&request.os_user).ok().map(|found| found.entry.uid);
    let mut person = PersonsClient::new(client, rules.service_uid, owner_uid)?;
    if let Err(denial) = may_begin(&rules) {
        person.send(&ServerFrame::Failure(denial.clone()));
        return Err(denial);
    }
    person.greet(request)?;
    if let Err(denial) = tries::count(&rules.name, request, rules.service_uid) {
        person.send(&ServerFrame::Failure(denial.clone()));
        return Err(denial);
    }

    let identity = dialogue::authenticate(&rules, request, target, &mut person)
        .and_then(|identity| finish(request, &rules, identity));
    match identity {
        Ok(authenticated) => {
            tracing::info!(
                event = "authenticated",
                application = %rules.name,
                account = %request.account,
                os_user = %request.os_user,
                uid = authenticated.os_account.uid.raw(),
                purpose = request.purpose.as_str(),
                peer_uid = peer.uid,
            );
            tries::forgive(&rules.name, request);
            reply(connection, &LauncherReply::Authenticated(authenticated));
            person.send(&ServerFrame::Success);
            Ok(())
        }
        Err(denial) => {
            tracing::warn!(
                event = "authentication_refused",
                application = %rules.name,
                account = %request.account,
                os_user = %request.os_user,
                purpose = request.purpose.as_str(),
                code = denial.code.as_str(),
                reason = %denial.message,
                peer_uid = peer.uid,
            );
            std::thread::sleep(REFUSAL_TIME.saturating_sub(person.latest.elapsed()));
            // Why is in the journal. Outside there is one answer, except for Deputy's own faults.
            let told = match denial.code {
                Code::Internal | Code::Disk | Code::ConversationAborted => denial,
                _ => Denial::authentication_failed(),
            };
            reply(connection, &LauncherReply::Denied(told.clone()));
            person.send(&ServerFrame::Failure(told));
            Ok(())
        }
    }
}

/// What the application's file and the machine say, whoever asks.
fn may_begin(rules: &Rules) -> Result<(), Denial> {
    if !rules.application.authentication.contains(&AuthenticationMethod::Os) {
        return Err(Denial::new(
            Code::MethodNotAllowed,
            format!("applications.d/{}.toml: authentication", rules.name),
            "this application does not authenticate with OS passwords",
        )
        .remedy("root can add \"os\" to the list"));
    }
    crate::pam::check_service(&rules.application.pam.login)
}

/// Whose password would be right, if anybody's.
fn target(request: &ConverseRequest, rules: &Rules) -> Result<OsIdentity, Denial> {
    let (_, identity) = rules.target(&request.os_user)?;
    if request.purpose == Purpose::Login {
        // A login is of a linked account: without consent, the right password is as good as a wrong one.
        let consent = consents::find(&rules.name, &request.account, identity.uid)?;
        consent.ok_or_else(Consent::missing)?.check(&identity, rules.service_uid, consents::now())?;
    }
    Ok(identity)
}

fn finish(request: &ConverseRequest, rules: &Rules, identity: OsIdentity) -> Result<Authenticated, Denial> {
    let expires = match request.purpose {
        Purpose::Login => None,
        Purpose::Link => {
            let uid = identity.uid.raw();
            consents::give(rules, &request.account, &identity, GivenBy::Owner, uid, None)?.expires
        }
    };
    Ok(Authenticated { purpose: request.purpose, os_account: identity, expires })
}
