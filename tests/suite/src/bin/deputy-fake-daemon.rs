//! Sends standard input to the launcher's socket as one packet, with the descriptors named on the command line, and
//! prints what comes back: the side of a taken-over `deputyd`.
#![forbid(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{Read as _, pipe};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;

use deputy_core::message::{LauncherReply, decode};
use deputy_wire::{LAUNCHER_SOCKET, connect, receive, send};

/// `O_PATH | O_DIRECTORY` and `O_NOCTTY` of Linux.
const O_PATH: i32 = 0o10_000_000;
const O_NOCTTY: i32 = 0o400;

fn main() -> anyhow::Result<()> {
    let mut packet = Vec::new();
    std::io::stdin().read_to_end(&mut packet)?;
    let mut output = None;
    let mut descriptors: Vec<OwnedFd> = Vec::new();
    let mut kept: Vec<OwnedFd> = Vec::new();
    for word in std::env::args().skip(1) {
        descriptors.push(match word.as_str() {
            "null" => OpenOptions::new().read(true).write(true).open("/dev/null")?.into(),
            "folder" => File::open("/")?.into(),
            "path" => OpenOptions::new().read(true).custom_flags(O_PATH).open("/etc/passwd")?.into(),
            "terminal" => OpenOptions::new().read(true).write(true).custom_flags(O_NOCTTY).open("/dev/ptmx")?.into(),
            "output" => {
                let (reader, writer) = pipe()?;
                output = Some(reader);
                writer.into()
            }
            "pair" => {
                let (ours, theirs) = deputy_wire::pair()?;
                kept.push(ours);
                theirs
            }
            "stream" => {
                let (ours, theirs) = UnixStream::pair()?;
                kept.push(ours.into());
                theirs.into()
            }
            other => anyhow::bail!("no such descriptor: {other}"),
        });
    }
    let socket = match connect(LAUNCHER_SOCKET) {
        Ok(socket) => socket,
        Err(error) => {
            println!("unreachable: {error}");
            return Ok(());
        }
    };
    let borrowed: Vec<_> = descriptors.iter().map(|descriptor| descriptor.as_fd()).collect();
    // A launcher that refuses the peer may have closed already; its answer is there all the same.
    let _ = send(&socket, &packet, &borrowed);
    drop(borrowed);
    drop(descriptors);
    while let Ok(Some(answer)) = receive(&socket) {
        let reply: LauncherReply = decode(&answer.bytes)?;
        println!("reply: {}", serde_json::to_string(&reply)?);
    }
    if let Some(mut reader) = output {
        let mut text = Vec::new();
        reader.read_to_end(&mut text)?;
        println!("output: {}", serde_json::to_string(&String::from_utf8_lossy(&text))?);
    }
    Ok(())
}
