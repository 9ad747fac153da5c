//! The launcher's two sockets: root's own, and that of the owners of OS accounts.
//!
//! What creates right goes straight to the launcher, whose children ask the kernel who is speaking; nothing that
//! passes through `deputyd` could do it.

use std::os::fd::OwnedFd;
use std::path::Path;

use deputy_core::consent::Consent;
use deputy_core::denial::Code;
use deputy_core::message::{self, ConsentPage, LauncherReply, LauncherRequest, OwnerReply, OwnerRequest};
use rustix::process::{Uid, getuid};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::failure::Failure;

/// Asks over the launcher's socket. Only root can.
pub fn ask(request: &LauncherRequest) -> Result<LauncherReply, Failure> {
    match exchange(Path::new(deputy_wire::LAUNCHER_SOCKET), request, Uid::ROOT)? {
        LauncherReply::Denied(denial) => Err(denial.into()),
        reply => Ok(reply),
    }
}

/// Asks over the launcher's socket for something that takes long: `told` hears every answer until it says that this was
/// the last. Only root can.
pub fn follow(
    request: &LauncherRequest,
    mut told: impl FnMut(LauncherReply) -> Result<bool, Failure>,
) -> Result<(), Failure> {
    let socket = connect(Path::new(deputy_wire::LAUNCHER_SOCKET), Uid::ROOT)?;
    let request =
        message::encode(request).map_err(|error| Failure::new(Code::InvalidArgument, error.to_string()))?;
    let sent = deputy_wire::send(&socket, &request, &[]);
    loop {
        let Some(packet) = deputy_wire::receive(&socket)? else {
            sent?;
            return Err(closed());
        };
        let reply = message::decode(&packet.bytes);
        match reply.map_err(|error| Failure::from(deputy_core::Denial::from(error)))? {
            LauncherReply::Denied(denial) => return Err(denial.into()),
            reply => {
                if told(reply)? {
                    return Ok(());
                }
            }
        }
    }
}

/// Asks over the owner's socket, on behalf of the caller's own OS account.
pub fn ask_owner(request: &OwnerRequest) -> Result<OwnerReply, Failure> {
    match exchange(Path::new(deputy_wire::OWNER_SOCKET), request, Uid::ROOT)? {
        OwnerReply::Denied(denial) => Err(denial.into()),
        reply => Ok(reply),
    }
}

/// Every consent onto the caller's OS account.
pub fn own_consents(page: impl FnMut(Vec<Consent>) -> Result<(), Failure>) -> Result<(), Failure> {
    pages(page, |after| match ask_owner(&OwnerRequest::List { after })? {
        OwnerReply::Consents(page) => Ok(page),
        _ => Err(unexpected()),
    })
}

/// Every consent, or every one of an application; root only.
pub fn all_consents(
    application: Option<&deputy_core::ApplicationName>,
    page: impl FnMut(Vec<Consent>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    pages(page, |after| {
        let application = application.cloned();
        match ask(&LauncherRequest::Consents { application, after })? {
            LauncherReply::Consents(page) => Ok(page),
            _ => Err(unexpected()),
        }
    })
}

/// Whether the caller is root.
pub fn is_root() -> bool {
    getuid().is_root()
}

/// The refusal of what only root may do.
pub fn needs_root(what: &str) -> Failure {
    Failure::new(Code::NotAuthorized, format!("only root may {what}"))
        .remedy("run the same command with sudo or pkexec in front")
}

/// An answer that does not belong to the question.
pub fn unexpected() -> Failure {
    Failure::new(Code::BadMessage, "the launcher gave an answer to another question")
        .remedy("use a deputyctl of the same release as the launcher")
}

fn pages(
    mut show: impl FnMut(Vec<Consent>) -> Result<(), Failure>,
    mut get: impl FnMut(Option<String>) -> Result<ConsentPage, Failure>,
) -> Result<(), Failure> {
    let mut after = None;
    loop {
        let page = get(after)?;
        show(page.consents)?;
        after = page.next;
        if after.is_none() {
            return Ok(());
        }
    }
}

fn connect(path: &Path, server: Uid) -> Result<OwnedFd, Failure> {
    let socket = deputy_wire::connect(path).map_err(|error| {
        Failure::new(Code::LauncherUnavailable, format!("cannot connect to {}: {error}", path.display()))
            .remedy("see whether the launcher runs: systemctl status deputy-launcher")
    })?;
    if deputy_wire::peer(&socket)?.uid != server.as_raw() {
        return Err(Failure::new(Code::PeerNotAllowed, format!("{} is not root's", path.display()))
            .remedy("tell the administrator: something else answers in the launcher's place"));
    }
    Ok(socket)
}

fn closed() -> Failure {
    Failure::new(Code::LauncherUnavailable, "the launcher closed the connection without an answer")
        .remedy("its journal has the cause: journalctl -u deputy-launcher")
}

/// One request and its answer. The other end has to be `server`: the sockets are root's, in a folder of root's.
fn exchange<Request, Reply>(path: &Path, request: &Request, server: Uid) -> Result<Reply, Failure>
where
    Request: Serialize,
    Reply: DeserializeOwned,
{
    let socket = connect(path, server)?;
    let request =
        message::encode(request).map_err(|error| Failure::new(Code::InvalidArgument, error.to_string()))?;
    // A child that refuses the peer may close before it reads; what it said before that still arrives.
    let sent = deputy_wire::send(&socket, &request, &[]);
    let packet = match deputy_wire::receive(&socket) {
        Ok(Some(packet)) => packet,
        Ok(None) => {
            sent?;
            return Err(closed());
        }
        Err(error) => return Err(error.into()),
    };
    message::decode(&packet.bytes).map_err(|error| Failure::from(deputy_core::Denial::from(error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use deputy_core::Denial;
    use rustix::net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept, bind, listen, socket_with,
    };

    /// A launcher that answers one request with this packet.
    fn launcher(path: &Path, answer: Vec<u8>) -> std::thread::JoinHandle<Vec<u8>> {
        let socket =
            socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        bind(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
        listen(&socket, 1).unwrap();
        std::thread::spawn(move || {
            let connection = accept(&socket).unwrap();
            let request =
                deputy_wire::receive(&connection).unwrap().map(|packet| packet.bytes).unwrap_or_default();
            if !answer.is_empty() {
                deputy_wire::send(&connection, &answer, &[]).unwrap();
            }
            request
        })
    }

    fn list() -> OwnerRequest {
        OwnerRequest::List { after: None }
    }

    #[test]
    fn a_request_brings_its_answer_and_a_broken_answer_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        let answer = message::encode(&OwnerReply::Denied(Denial::not_found())).unwrap();
        let cases = [
            (answer, Ok(())),
            (b"nonsense".to_vec(), Err("BadMessage")),
            (vec![], Err("LauncherUnavailable")),
        ];
        for (number, (answer, expected)) in cases.into_iter().enumerate() {
            let path = folder.path().join(number.to_string());
            let thread = launcher(&path, answer);
            let reply: Result<OwnerReply, _> = exchange(&path, &list(), getuid());
            assert_eq!(reply.as_ref().map(|_| ()).map_err(|failure| failure.code.as_str()), expected);
            assert_eq!(message::decode::<OwnerRequest>(&thread.join().unwrap()).unwrap(), list());
        }
    }

    #[test]
    fn a_socket_of_somebody_elses_gets_no_request() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let thread = launcher(&path, vec![]);
        let other = Uid::from_raw(getuid().as_raw() + 1);
        let reply: Result<OwnerReply, _> = exchange(&path, &list(), other);
        assert_eq!(reply.unwrap_err().code, "PeerNotAllowed");
        assert!(thread.join().unwrap().is_empty());
    }

    #[test]
    fn pages_follow_each_other_to_the_last() {
        let mut asked = Vec::new();
        let answers = [Some("a"), Some("b"), None];
        pages(
            |_| Ok(()),
            |after| {
                let next = answers[asked.len()].map(String::from);
                asked.push(after);
                Ok(ConsentPage { consents: vec![], next })
            },
        )
        .unwrap();
        assert_eq!(asked, [None, Some("a".into()), Some("b".into())]);
    }
}
