//! Says one thing at the owners' socket, whoever runs it and wherever: the request is the one argument, as JSON, and
//! the answer is printed as JSON.
#![forbid(unsafe_code)]

use deputy_core::message::{OwnerReply, OwnerRequest, decode, encode};
use deputy_wire::{OWNER_SOCKET, connect, receive, send};

fn main() -> anyhow::Result<()> {
    let argument =
        std::env::args().nth(1).ok_or_else(|| anyhow::anyhow!("usage: deputy-fake-owner REQUEST"))?;
    let request: OwnerRequest = serde_json::from_str(&argument)?;
    let socket = connect(OWNER_SOCKET)?;
    send(&socket, &encode(&request)?, &[])?;
    let answer = receive(&socket)?.ok_or_else(|| anyhow::anyhow!("no answer"))?;
    let reply: OwnerReply = decode(&answer.bytes)?;
    println!("{}", serde_json::to_string(&reply)?);
    Ok(())
}
