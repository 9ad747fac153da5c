//! Where the answers of a conversation come from: the terminal, or a descriptor with one answer per line.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;

use deputy_core::denial::Code;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use zeroize::Zeroizing;

use crate::failure::Failure;
use crate::terminal::{Terminal, read_line};
use crate::{escape, output};

/// Where the answers come from.
pub enum Answers {
    /// The terminal, which shows the questions.
    Terminal(Terminal),
    /// A descriptor that the caller opened.
    Descriptor(File),
}

impl Answers {
    /// The descriptor `number`, or else the terminal. Call it before anything else is opened: a number that the
    /// caller did not open must not turn out to be one of ours.
    pub fn find(number: Option<u32>) -> Result<Self, Failure> {
        match number {
            Some(number) => descriptor(number).map(Answers::Descriptor).map_err(|error| {
                Failure::new(Code::InvalidArgument, format!("descriptor {number} cannot be read: {error}"))
                    .remedy(format!(
                        "open it in the same command: deputyctl ... --answers-fd {number} {number}< FILE"
                    ))
            }),
            None => Terminal::open().map(Answers::Terminal).ok_or_else(|| {
                Failure::new(
                    Code::InvalidArgument,
                    "there is no terminal on which the questions could be asked",
                )
                .remedy("run it on a terminal, or give the answers with --answers-fd N, one per line")
            }),
        }
    }

    /// The terminal, whose state has to be put back if a signal ends the program.
    pub fn terminal(&self) -> Option<Terminal> {
        match self {
            Answers::Terminal(terminal) => Some(terminal.clone()),
            Answers::Descriptor(_) => None,
        }
    }

    /// Shows something to the person.
    pub fn show(&self, text: &str) -> Result<(), Failure> {
        let lines = escape::lines(text);
        match self {
            Answers::Terminal(terminal) => Ok(terminal.write(&format!("{lines}\n"))?),
            Answers::Descriptor(_) => output::note(&lines),
        }
    }

    /// The answer to a question.
    pub fn ask(&self, question: &str, secret: bool) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let answer = match self {
            Answers::Terminal(terminal) => terminal.ask(&escape::lines(question), secret)?,
            Answers::Descriptor(file) => read_line(file)?,
        };
        answer.ok_or_else(|| {
            Failure::new(
                Code::ConversationAborted,
                format!("there is no answer to the question {question:?}"),
            )
            .remedy("give one line for each question")
        })
    }
}

/// A copy of a descriptor that this process was started with. `/dev/fd/N` would open the file anew, which another
/// account's pipe does not allow and which begins a file again at its first byte.
fn descriptor(number: u32) -> io::Result<File> {
    let invalid = || io::Error::from(rustix::io::Errno::BADF);
    let number = i32::try_from(number).map_err(|_| invalid())?;
    let own = pidfd_open(getpid(), PidfdFlags::empty())?;
    if own_number(&own) == number {
        return Err(invalid());
    }
    Ok(pidfd_getfd(own.as_fd(), number, PidfdGetfdFlags::empty())?.into())
}

fn own_number(descriptor: &impl std::os::fd::AsRawFd) -> i32 {
    descriptor.as_raw_fd()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek as _, Write as _};
    use std::os::fd::AsRawFd as _;

    #[test]
    fn a_descriptor_is_read_line_by_line_from_where_it_stands() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"skipped\nsecret\n").unwrap();
        file.seek(io::SeekFrom::Start(8)).unwrap();
        let number = u32::try_from(file.as_raw_fd()).unwrap();
        let answers = Answers::find(Some(number)).unwrap();
        assert_eq!(*answers.ask("Password: ", true).unwrap(), b"secret");
        assert_eq!(answers.ask("Again: ", true).unwrap_err().code, "ConversationAborted");
    }

    #[test]
    fn a_descriptor_that_is_not_open_is_an_error_with_a_remedy() {
        let failure = Answers::find(Some(987)).err().unwrap();
        assert_eq!(failure.code, "InvalidArgument");
        assert!(failure.remedy.contains("987<"), "{}", failure.remedy);
    }
}
