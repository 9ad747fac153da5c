//! Program arguments and paths: bytes for the kernel, readable text in the ledger where they are text.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One argument or path, as bytes.
///
/// In JSON it is a string where the bytes are UTF-8, and else a list of numbers: the log stays readable, and no byte
/// is lost.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Argument(pub Vec<u8>);

impl From<&str> for Argument {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl From<Vec<u8>> for Argument {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Form {
    Text(String),
    Bytes(Vec<u8>),
}

impl Serialize for Argument {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => self.0.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Argument {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Form::deserialize(deserializer)? {
            Form::Text(text) => Self(text.into_bytes()),
            Form::Bytes(bytes) => Self(bytes),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Argument;

    #[test]
    fn text_stays_text_and_other_bytes_stay_themselves() {
        for (bytes, json) in [(&b"a\nb"[..], r#""a\nb""#), (b"\xff\x00", "[255,0]"), (b"", r#""""#)] {
            let argument = Argument(bytes.to_vec());
            assert_eq!(serde_json::to_string(&argument).unwrap(), json);
            assert_eq!(serde_json::from_str::<Argument>(json).unwrap(), argument);
        }
    }
}
