//! Records of root's, a TOML file each, whose names say what they are about.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// What a file of root's says.
pub trait RootRecord: Serialize + DeserializeOwned {
    /// The version that this program writes and reads.
    const VERSION: u32;

    /// The version that it says.
    fn version(&self) -> u32;

    /// The name of the file in which it belongs.
    fn own_file_name(&self) -> String;

    /// The record as text for its file.
    fn to_text(&self) -> Result<String, String> {
        toml::to_string(self).map_err(|error| error.to_string())
    }

    /// Reads the text of the file called `file_name`. A file that was put under another's name is an error.
    fn parse(file_name: &str, text: &str) -> Result<Self, String> {
        let record: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        if record.version() != Self::VERSION {
            return Err(format!(
                "a record of version {}, which this program does not read",
                record.version()
            ));
        }
        if record.own_file_name() != file_name {
            return Err("the record does not belong under this name".into());
        }
        Ok(record)
    }
}
