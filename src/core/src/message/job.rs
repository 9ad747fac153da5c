//! What a job's shepherd and its listeners say to each other, in versions of its own.
//!
//! A shepherd lives as long as its job and therefore through upgrades and downgrades of everything around it. So this part
//! of the messages does not follow [`VERSION`]: who connects says which versions it speaks, the shepherd
//! takes the newest that both do, and every packet of a job names the version that it is in.
//!
//! | version | what is new |
//! | --- | --- |
//! | 1 | a greeting without numbers; the states; [`JobCommand::Cancel`], [`JobCommand::Signal`] |
//! | 2 | the greeting names versions; [`JobCommand::EndForConsent`] |

use super::{JobCommand, LauncherReply, MAGIC, MessageError, VERSION, decode_of, encode_of};
use crate::denial::{Code, Denial};

/// The newest version that this program speaks with shepherds and as one.
pub const JOB_VERSION: u16 = 2;

/// The oldest one. A release goes on speaking what the two releases before it did.
pub const OLDEST_JOB_VERSION: u16 = 1;

/// What whoever hands a connection over says first; from version 2 on its oldest and newest version follow.
const ADOPT: &[u8] = b"adopt";

/// What the shepherd answers when it has it; from version 2 on the version that it chose follows.
const ADOPTED: &[u8] = b"adopted";

/// What it answers when there is no version that both speak: its own oldest and newest follow.
const REFUSED: &[u8] = b"refused";

/// The versions that one side speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobVersions {
    /// The oldest.
    pub oldest: u16,
    /// The newest.
    pub newest: u16,
}

impl JobVersions {
    /// Those of this program.
    pub const OURS: Self = Self { oldest: OLDEST_JOB_VERSION, newest: JOB_VERSION };

    /// Those of a program that was made before versions were named.
    pub const UNNAMED: Self = Self { oldest: 1, newest: 1 };

    /// The newest version that both sides speak.
    pub fn common(self, other: Self) -> Option<u16> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest.max(other.oldest)).then_some(newest)
    }

    /// The refusal where there is none.
    pub fn denial(self) -> Denial {
        let Self { oldest, newest } = self;
        Denial::new(
            Code::UnsupportedVersion,
            "jobs",
            format!(
                "the job's shepherd is of another release: it speaks versions {oldest} to {newest} of its protocol, \
                 this release {OLDEST_JOB_VERSION} to {JOB_VERSION}"
            ),
        )
        .remedy("the job runs on and its end is kept; install a release that lies between the two, or wait for its end")
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; 4] = bytes.try_into().ok()?;
        let [a, b, c, d] = *bytes;
        Some(Self { oldest: u16::from_le_bytes([a, b]), newest: u16::from_le_bytes([c, d]) })
    }

    fn to_bytes(self) -> [u8; 4] {
        let ([a, b], [c, d]) = (self.oldest.to_le_bytes(), self.newest.to_le_bytes());
        [a, b, c, d]
    }
}

/// The first packet to a shepherd, with the connection to hand over.
pub fn adopt(versions: JobVersions) -> Vec<u8> {
    if versions == JobVersions::UNNAMED { ADOPT.to_vec() } else { [ADOPT, &versions.to_bytes()].concat() }
}

/// What a first packet to a shepherd says; none if it is no such packet.
pub fn read_adopt(packet: &[u8]) -> Option<JobVersions> {
    match packet.strip_prefix(ADOPT)? {
        [] => Some(JobVersions::UNNAMED),
        versions => JobVersions::from_bytes(versions),
    }
}

/// The shepherd's answer to a first packet, and the version to go on in; none if there is no common one.
pub fn answer_adopt(theirs: JobVersions) -> (Vec<u8>, Option<u16>) {
    match JobVersions::OURS.common(theirs) {
        None => ([REFUSED, &JobVersions::OURS.to_bytes()].concat(), None),
        Some(version) if theirs == JobVersions::UNNAMED => (ADOPTED.to_vec(), Some(version)),
        Some(version) => ([ADOPTED, &version.to_le_bytes()].concat(), Some(version)),
    }
}

/// A shepherd's answer to a first packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdoptAnswer {
    /// It has the connection, and speaks this version on it.
    Adopted(u16),
    /// It speaks only these.
    Refused(JobVersions),
}

/// What a shepherd's answer says; none if it is no such packet.
pub fn read_answer(packet: &[u8]) -> Option<AdoptAnswer> {
    if let Some(version) = packet.strip_prefix(ADOPTED) {
        return match version {
            [] => Some(AdoptAnswer::Adopted(1)),
            &[a, b] => Some(AdoptAnswer::Adopted(u16::from_le_bytes([a, b]))),
            _ => None,
        };
    }
    packet.strip_prefix(REFUSED).and_then(JobVersions::from_bytes).map(AdoptAnswer::Refused)
}

/// The packet of a job's state, in this version. The states have not changed since version 1.
pub fn encode_state(state: super::JobState, version: u16) -> Result<Vec<u8>, MessageError> {
    encode_of(&LauncherReply::Job(state), MAGIC, version)
}

/// The packet of a command, in this version. What the version does not have is said with what it has.
pub fn encode_command(command: JobCommand, version: u16) -> Result<Vec<u8>, MessageError> {
    let command = match command {
        // The job ends all the same; its record says only that it was cancelled.
        JobCommand::EndForConsent if version < 2 => {
            JobCommand::Cancel { grace_ms: JobCommand::CONSENT_GRACE_MS }
        }
        command => command,
    };
    encode_of(&command, MAGIC, version)
}

/// The command of a packet, which may be in any version that this program speaks.
pub fn decode_command(packet: &[u8]) -> Result<JobCommand, MessageError> {
    decode_of(packet, &MAGIC, job_version(packet)?)
}

/// The answer of a packet, and the version of the shepherd that it comes from if it is about a job. Answers of other
/// children are in [`VERSION`] and no other.
pub fn decode_reply(packet: &[u8]) -> Result<(LauncherReply, u16), MessageError> {
    let version = super::version_of(packet)?;
    let spoken = job_version(packet).unwrap_or(VERSION);
    match decode_of(packet, &MAGIC, spoken)? {
        reply @ LauncherReply::Job(_) => Ok((reply, version)),
        reply if version == VERSION => Ok((reply, JOB_VERSION)),
        _ => Err(MessageError::Version(version)),
    }
}

fn job_version(packet: &[u8]) -> Result<u16, MessageError> {
    match super::version_of(packet)? {
        version @ OLDEST_JOB_VERSION..=JOB_VERSION => Ok(version),
        other => Err(MessageError::Version(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::JobState;
    use super::*;

    fn versions(oldest: u16, newest: u16) -> JobVersions {
        JobVersions { oldest, newest }
    }

    #[test]
    fn the_newest_that_both_speak_is_taken_and_none_where_there_is_none() {
        let ours = versions(2, 4);
        for (theirs, common) in [
            (versions(1, 1), None),
            (versions(1, 2), Some(2)),
            (versions(3, 9), Some(4)),
            (versions(4, 4), Some(4)),
            (versions(5, 9), None),
            // Said by nobody who means it.
            (versions(4, 2), None),
        ] {
            assert_eq!(ours.common(theirs), common, "{theirs:?}");
        }
    }

    #[test]
    fn greetings_and_answers_are_understood_and_nothing_else_is() {
        assert_eq!(read_adopt(b"adopt"), Some(JobVersions::UNNAMED));
        for versions in [JobVersions::UNNAMED, JobVersions::OURS, versions(7, 9)] {
            assert_eq!(read_adopt(&adopt(versions)), Some(versions));
        }
        for bytes in [&b""[..], b"adop", b"adopt\x01", b"adopt\x01\0\x02", b"adopt\x01\0\x02\0\0", b"hello"] {
            assert_eq!(read_adopt(bytes), None, "{bytes:?}");
        }
        for (theirs, wanted) in [
            (JobVersions::UNNAMED, AdoptAnswer::Adopted(1)),
            (versions(1, 2), AdoptAnswer::Adopted(2)),
            (versions(2, 9), AdoptAnswer::Adopted(2)),
            (versions(3, 9), AdoptAnswer::Refused(JobVersions::OURS)),
        ] {
            assert_eq!(read_answer(&answer_adopt(theirs).0), Some(wanted), "{theirs:?}");
        }
        // What was before there were numbers.
        assert_eq!(answer_adopt(JobVersions::UNNAMED), (b"adopted".to_vec(), Some(1)));
        for bytes in [&b"adopted\x01"[..], b"refused", b"refused\x01\0", b""] {
            assert_eq!(read_answer(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn each_packet_of_a_job_is_read_in_every_version_that_is_spoken_and_in_no_other() {
        for version in OLDEST_JOB_VERSION..=JOB_VERSION {
            let packet = encode_state(JobState::Running, version).unwrap();
            assert_eq!(decode_reply(&packet), Ok((LauncherReply::Job(JobState::Running), version)));
            let signal = JobCommand::Signal { signal: 12 };
            assert_eq!(decode_command(&encode_command(signal, version).unwrap()), Ok(signal));
        }
        for version in [0, OLDEST_JOB_VERSION - 1, JOB_VERSION + 1, u16::MAX] {
            let packet = encode_state(JobState::Running, version).unwrap();
            assert_eq!(decode_reply(&packet), Err(MessageError::Version(version)));
            let packet = encode_command(JobCommand::Signal { signal: 12 }, version).unwrap();
            assert_eq!(decode_command(&packet), Err(MessageError::Version(version)));
        }
        // The other answers have one version.
        let packet = encode_of(&LauncherReply::Done, MAGIC, JOB_VERSION).unwrap();
        assert_eq!(decode_reply(&packet), Err(MessageError::Version(JOB_VERSION)));
        assert_eq!(
            decode_reply(&super::super::encode(&LauncherReply::Done).unwrap()).unwrap().0,
            LauncherReply::Done
        );
    }

    #[test]
    fn a_consent_that_was_taken_back_ends_the_jobs_of_old_shepherds_too() {
        let told =
            |version| decode_command(&encode_command(JobCommand::EndForConsent, version).unwrap()).unwrap();
        assert_eq!(told(1), JobCommand::Cancel { grace_ms: JobCommand::CONSENT_GRACE_MS });
        assert_eq!(told(2), JobCommand::EndForConsent);
    }
}
