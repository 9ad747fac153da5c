//! A stranger on the bus: asks for every signal and every message, and looks at every object there is to see.
//!
//! Prints `ready` when its match rules are in place; on the end of its standard input prints what it received, one
//! line each, and what introspection and properties showed it.
#![forbid(unsafe_code)]

use std::io::Read as _;
use std::sync::{Arc, Mutex};

use zbus::message::Type;
use zbus::{Connection, MessageStream};

const SERVICE: &str = "org.deputy.Deputy1";
const ROOT: &str = "/org/deputy/Deputy1";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let connection = Connection::system().await?;
    let heard = Arc::new(Mutex::new(Vec::new()));
    let mut stream = MessageStream::from(&connection);
    let collected = Arc::clone(&heard);
    let own_name = connection.unique_name().map(std::string::ToString::to_string);
    tokio::spawn(async move {
        use futures_util::StreamExt as _;
        while let Some(Ok(message)) = stream.next().await {
            let header = message.header();
            let sender = header.sender().map(std::string::ToString::to_string).unwrap_or_default();
            let addressed = header.destination().map(std::string::ToString::to_string);
            // What the bus says to everybody, and the answers to its own calls, are not what it listens for.
            let of_the_bus = sender == "org.freedesktop.DBus";
            let answer =
                matches!(message.message_type(), Type::MethodReturn | Type::Error) && addressed == own_name;
            if !of_the_bus && !answer {
                collected.lock().expect("no panics").push(format!("{header:?} {:?}", message.body()));
            }
        }
    });
    for rule in [
        "",
        "type='signal'",
        "eavesdrop='true'",
        "sender='org.deputy.Deputy1'",
        "path_namespace='/org/deputy'",
    ] {
        // A rule that the bus refuses is as good as one that brings nothing.
        let _ = connection
            .call_method(
                Some("org.freedesktop.DBus"),
                "/org/freedesktop/DBus",
                Some("org.freedesktop.DBus"),
                "AddMatch",
                &(rule,),
            )
            .await;
    }
    println!("ready");
    wait_for_the_end_of_input()?;
    for path in [ROOT.to_owned(), format!("{ROOT}/job"), format!("{ROOT}/session"), "/".into(), "/org".into()]
    {
        for (interface, method) in [
            ("org.freedesktop.DBus.Introspectable", "Introspect"),
            ("org.freedesktop.DBus.ObjectManager", "GetManagedObjects"),
        ] {
            let answer =
                connection.call_method(Some(SERVICE), path.as_str(), Some(interface), method, &()).await;
            if let Ok(answer) = answer {
                println!("seen: {path} {method} {:?}", answer.body().deserialize::<String>());
            }
        }
    }
    for line in heard.lock().expect("no panics").iter() {
        println!("heard: {line}");
    }
    Ok(())
}

/// Reads standard input to its end on a thread of its own runtime's making.
fn wait_for_the_end_of_input() -> anyhow::Result<()> {
    tokio::task::block_in_place(|| {
        let mut rest = Vec::new();
        std::io::stdin().read_to_end(&mut rest)?;
        Ok(())
    })
}
