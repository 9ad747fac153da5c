//! A conversation: what it is for is shown first, then questions are answered until the end.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use deputy_core::message::Purpose;
use deputy_core::message::conversation::Hello;
use deputy_wire::conversation::{Client, Expected, Turn};

use crate::answers::Answers;
use crate::bus::{Bus, CallOptions};
use crate::failure::Failure;
use crate::signals::Signals;
use crate::value::{self, Dictionary, Record};

/// Has the conversation that `expected` describes, and returns what `deputyd` made of it.
pub async fn authenticate(bus: &Bus, expected: Expected, answers: Answers) -> Result<Record, Failure> {
    let application = expected.application.to_string();
    let account = expected.account.to_string();
    let purpose = expected.purpose.as_str();
    let mut options = CallOptions::from([("application", application.as_str().into())]);
    let os_user = expected.os_user.as_ref().map(ToString::to_string);
    if let Some(os_user) = &os_user {
        options.insert("os_user", os_user.as_str().into());
    }
    let (client, theirs) = Client::new(expected)?;
    let id: String = begin(bus, &account, purpose, theirs, &options).await?;
    with_terminal(Arc::new(answers), move |answers| talk(client, answers)).await?;
    let result: Dictionary = bus.call("Authentication", "Finish", &(id.as_str(),)).await?;
    Ok(value::record(&result))
}

/// Hands the other end of the conversation over; our copy of it is closed, so that its end can be seen.
async fn begin(
    bus: &Bus,
    account: &str,
    purpose: &str,
    theirs: OwnedFd,
    options: &CallOptions<'_>,
) -> Result<String, Failure> {
    bus.call("Authentication", "Begin", &(account, purpose, zbus::OwnedFd::from(theirs), options)).await
}

/// Asking blocks, so it has a thread of its own; a signal puts the terminal back and ends the program.
pub async fn with_terminal<T: Send + 'static>(
    answers: Arc<Answers>,
    talk: impl FnOnce(&Answers) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let terminal = answers.terminal();
    let mut signals = Signals::new()?;
    let talk = tokio::task::spawn_blocking(move || talk(&answers));
    tokio::select! {
        result = talk => result.unwrap_or_else(|_| {
            Err(Failure::new(deputy_core::Code::Internal, "the questions ended by a fault of deputyctl's"))
        }),
        signal = signals.next() => {
            if let Some(terminal) = terminal {
                terminal.close();
                // The cursor still stands behind the question.
                terminal.write("\n")?;
            }
            Err(Failure::interrupted(signal))
        }
    }
}

fn talk(mut client: Client, answers: &Answers) -> Result<(), Failure> {
    let hello = client.hello()?;
    answers.show(&introduction(&hello))?;
    client.accept()?;
    loop {
        match client.next()? {
            Turn::Secret(question) => client.answer(answers.ask(&question, true)?)?,
            Turn::Visible(question) => client.answer(answers.ask(&question, false)?)?,
            Turn::Info(text) | Turn::Error(text) => answers.show(&text)?,
            Turn::Success => return Ok(()),
        }
    }
}

/// What the person has to know before answering: who asks, and what for.
fn introduction(hello: &Hello) -> String {
    let Hello { purpose, application, account, os_user, .. } = hello;
    let sentence = match purpose {
        Purpose::Link => format!(
            "Link: the application {application} wants its account {account} to act as your OS account {os_user}.\n\
             If you answer, its jobs for {account} will run as {os_user} until you revoke that."
        ),
        Purpose::Login => format!(
            "Login: the application {application} asks whether you are its account {account}.\n\
             Answer as the OS account {os_user}."
        ),
    };
    sentence + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use deputy_core::ids::Nonce;

    #[test]
    fn the_introduction_names_everything_that_the_hello_says() {
        for purpose in [Purpose::Link, Purpose::Login] {
            let text = introduction(&Hello {
                purpose,
                application: "portal".parse().unwrap(),
                account: "alice".parse().unwrap(),
                os_user: "ann".parse().unwrap(),
                nonce: Nonce::from_random([1; 20]),
            });
            for word in ["portal", "alice", "ann"] {
                assert!(text.contains(word), "{text}");
            }
            assert!(text.to_lowercase().starts_with(purpose.as_str()), "{text}");
        }
    }
}
