//! A `deputyd` that has been taken over: any message, any descriptors, from the right uid.
//!
//! The packets leave from the program `deputy-fake-daemon`, which runs as the daemon's user.

use std::io::Write as _;
use std::process::{Child, Command, Stdio};

use deputy_core::message::{LauncherReply, LauncherRequest, encode};

/// A descriptor to send along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Descriptor {
    /// `/dev/null`, for reading and writing.
    Null,
    /// A folder.
    Folder,
    /// A file opened with `O_PATH`.
    Path,
    /// A terminal.
    Terminal,
    /// The write end of a pipe whose contents are printed as `output: ...` at the end.
    Output,
    /// One end of an unnamed SEQPACKET pair, for a conversation with nobody.
    Pair,
    /// One end of a stream pair.
    Stream,
}

impl Descriptor {
    /// The word for the program's command line.
    pub fn word(self) -> &'static str {
        match self {
            Descriptor::Null => "null",
            Descriptor::Folder => "folder",
            Descriptor::Path => "path",
            Descriptor::Terminal => "terminal",
            Descriptor::Output => "output",
            Descriptor::Pair => "pair",
            Descriptor::Stream => "stream",
        }
    }
}

/// Somebody at the launcher's socket.
#[derive(Debug, Clone)]
pub struct Fake {
    user: String,
}

/// What came back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answers {
    /// Each reply, in order.
    pub replies: Vec<LauncherReply>,
    /// What was written to the [`Descriptor::Output`].
    pub output: String,
}

impl Answers {
    /// The code of the refusal that was the only answer.
    pub fn code(&self) -> Option<deputy_core::Code> {
        match self.replies.as_slice() {
            [LauncherReply::Denied(denial)] => Some(denial.code),
            _ => None,
        }
    }
}

impl Fake {
    /// One with the daemon's own uid.
    pub fn daemon() -> Self {
        Self::as_user("deputy")
    }

    /// One with this user's uid.
    pub fn as_user(user: &str) -> Self {
        Self { user: user.into() }
    }

    /// Sends a request and collects what comes back until the other end closes.
    pub fn ask(&self, request: &LauncherRequest, descriptors: &[Descriptor]) -> Answers {
        self.send(&encode(request).expect("a message"), descriptors)
    }

    /// Sends any bytes.
    pub fn send(&self, packet: &[u8], descriptors: &[Descriptor]) -> Answers {
        let mut child = self.start(packet, descriptors);
        drop(child.stdin.take());
        let output = child.wait_with_output().expect("the fake daemon's output");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        let mut answers = Answers::default();
        for line in text.lines() {
            if let Some(reply) = line.strip_prefix("reply: ") {
                answers.replies.push(serde_json::from_str(reply).expect("a reply"));
            } else if let Some(output) = line.strip_prefix("output: ") {
                answers.output = serde_json::from_str(output).expect("an output");
            }
        }
        answers
    }

    fn start(&self, packet: &[u8], descriptors: &[Descriptor]) -> Child {
        let mut child = Command::new("runuser")
            .args(["-u", &self.user, "--", "deputy-fake-daemon"])
            .args(descriptors.iter().map(|descriptor| descriptor.word()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("runuser");
        child.stdin.take().expect("a pipe").write_all(packet).expect("the packet is taken");
        child
    }
}
