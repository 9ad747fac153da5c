//! What a taken-over `deputyd` can do to a person's client: our client library answers nobody but root, about nothing
//! but what was asked for.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd as _, OwnedFd};

use deputy_core::ids::Nonce;
use deputy_core::message::conversation::{Hello, ServerFrame};
use deputy_core::message::{ConverseRequest, LauncherReply, LauncherRequest, Purpose, encode};
use deputy_suite::acting::{acting_as, ids};
use deputy_suite::line::Line;
use deputy_suite::need_the_sandbox;
use deputy_suite::requests::consents_of;
use deputy_suite::talk::wanted;
use deputy_wire::conversation::{Client, ConversationError, Expected, Turn};
use rustix::net::{RecvFlags, SendFlags};
use zeroize::Zeroizing;

fn password() -> Zeroizing<Vec<u8>> {
    Zeroizing::new(b"wonder".to_vec())
}

/// A client of the portal's that wants this.
fn client(request: &ConverseRequest) -> (Client, OwnedFd) {
    let expected = Expected {
        purpose: request.purpose,
        application: request.application.clone(),
        account: request.account.clone(),
        os_user: Some(request.os_user.clone()),
    };
    acting_as(ids("portal"), || Client::new(expected)).unwrap()
}

fn hello_for(request: &ConverseRequest) -> ServerFrame {
    ServerFrame::Hello(Hello {
        purpose: request.purpose,
        application: request.application.clone(),
        account: request.account.clone(),
        os_user: request.os_user.clone(),
        nonce: Nonce::from_random([5; 20]),
    })
}

fn send_as(user: &str, socket: &OwnedFd, frame: &ServerFrame) {
    let packet = frame.encode();
    acting_as(ids(user), || rustix::net::send(socket, &packet, SendFlags::NOSIGNAL)).unwrap();
}

/// Nothing that the client sent waits at the other end.
fn heard_nothing(socket: &OwnedFd) {
    let mut bytes = [0; 1024];
    let received = rustix::net::recv(socket, &mut bytes[..], RecvFlags::DONTWAIT);
    assert_eq!(received.map(|(length, _)| length), Err(rustix::io::Errno::AGAIN));
}

#[test]
fn a_hello_that_is_not_roots_gets_no_answer() {
    need_the_sandbox();
    let request = wanted(Purpose::Login, "demo", "alice", "alice");
    for forger in ["deputy", "portal", "bob"] {
        let (mut client, server) = client(&request);
        send_as(forger, &server, &hello_for(&request));
        send_as(forger, &server, &ServerFrame::Secret("Password: ".into()));
        let error = client.hello().unwrap_err();
        assert!(matches!(error, ConversationError::Forged(Some(uid)) if uid == ids(forger).uid), "{error}");
        assert!(matches!(client.accept(), Err(ConversationError::OutOfOrder)));
        assert!(matches!(client.next(), Err(ConversationError::OutOfOrder)));
        assert!(matches!(client.answer(password()), Err(ConversationError::OutOfOrder)));
        heard_nothing(&server);
    }
    let (mut client, server) = client(&request);
    send_as("root", &server, &hello_for(&request));
    assert!(client.hello().is_ok());
    heard_nothing(&server);
    client.accept().unwrap();
    let mut bytes = [0; 1024];
    assert!(
        rustix::net::recv(&server, &mut bytes[..], RecvFlags::DONTWAIT).is_ok(),
        "only accepting says something"
    );
}

/// Has the launcher converse over this socket, as a daemon that asks for what it likes.
fn ask(request: &ConverseRequest, server: &OwnedFd) -> Line {
    let line = Line::to_launcher(ids("deputy")).unwrap();
    line.send(&encode(&LauncherRequest::Converse(request.clone())).unwrap(), &[server.as_fd()]);
    line
}

#[test]
fn a_conversation_about_something_else_gets_no_answer() {
    need_the_sandbox();
    let person_wants = wanted(Purpose::Login, "demo", "asked", "alice");
    for daemon_asks in [
        wanted(Purpose::Link, "demo", "asked", "alice"),
        wanted(Purpose::Login, "demo", "another", "alice"),
        wanted(Purpose::Login, "demo", "asked", "carol"),
    ] {
        let (mut client, server) = client(&person_wants);
        let daemon = ask(&daemon_asks, &server);
        let error = client.hello().unwrap_err();
        assert!(matches!(error, ConversationError::NotWhatWasAsked { .. }), "{error}");
        assert!(matches!(client.answer(password()), Err(ConversationError::OutOfOrder)));
        drop(client);
        drop(server);
        assert!(matches!(daemon.reply(), LauncherReply::Denied(_)));
    }
    assert!(consents_of("asked").is_empty() && consents_of("another").is_empty());
}

#[test]
fn a_frame_slipped_in_between_roots_gets_no_answer() {
    need_the_sandbox();
    let request = wanted(Purpose::Link, "demo", "slipped", "alice");
    let (mut client, server) = client(&request);
    // The daemon keeps a copy of the end that it hands over.
    let daemon = ask(&request, &server);
    client.hello().unwrap();
    send_as("deputy", &server, &ServerFrame::Secret("Password: ".into()));
    assert!(matches!(client.next(), Err(ConversationError::Forged(Some(uid))) if uid == ids("deputy").uid));
    drop(client);
    drop(server);
    assert!(matches!(daemon.reply(), LauncherReply::Denied(_)));
    assert!(consents_of("slipped").is_empty());
}

#[test]
fn an_honest_conversation_comes_to_its_end() {
    need_the_sandbox();
    let request = wanted(Purpose::Link, "demo", "honestly", "alice");
    let (mut client, server) = client(&request);
    let daemon = ask(&request, &server);
    drop(server);
    let hello = client.hello().unwrap();
    assert_eq!(
        (hello.purpose, hello.account, hello.os_user),
        (request.purpose, request.account, request.os_user)
    );
    client.accept().unwrap();
    assert!(matches!(client.next().unwrap(), Turn::Secret(_)));
    client.answer(password()).unwrap();
    assert_eq!(client.next().unwrap(), Turn::Success);
    assert!(matches!(daemon.reply(), LauncherReply::Authenticated(_)));
    assert_eq!(consents_of("honestly").len(), 1);
}
