//! The options of a call, `a{sv}`: each is taken out by name and type; what is left over is a mistake of the caller's.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::OwnedFd;
use std::str::FromStr;

use deputy_core::{ApplicationName, Denial};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use zbus::{Fd, OwnedVariant, Signature, Type, Variant};

/// Options that were not looked at yet.
#[derive(Debug, Default)]
pub struct Options(BTreeMap<String, OwnedVariant>);

impl Type for Options {
    const SIGNATURE: &'static Signature = <BTreeMap<String, OwnedVariant> as Type>::SIGNATURE;
}

impl<'de> Deserialize<'de> for Options {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Options;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("options")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Options, A::Error> {
                let mut options = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, OwnedVariant>()? {
                    // Which of two values counts would depend on who reads them.
                    if options.insert(key, value).is_some() {
                        return Err(A::Error::custom("an option was given twice"));
                    }
                }
                Ok(Options(options))
            }
        }
        deserializer.deserialize_map(Each)
    }
}

/// How many elements a list has on a page unless the caller says.
const DEFAULT_LIMIT: u32 = 100;

/// The most elements of a page.
const MAX_LIMIT: u32 = 1000;

/// The most bytes of a free text: an address, a person's name.
const MAX_TEXT: usize = 256;

/// Which part of a list is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageOptions {
    /// Where the page before ended.
    pub cursor: Option<String>,
    /// How many elements at most.
    pub limit: usize,
}

/// What stands for a stream.
#[derive(Debug)]
pub enum Given {
    /// Type h.
    Descriptor(OwnedFd),
    /// Type ay.
    Path(Vec<u8>),
    /// Type s.
    Word(String),
}

impl Options {
    fn take<T>(&mut self, key: &str, type_name: &str) -> Result<Option<T>, Denial>
    where
        T: TryFrom<Variant<'static>>,
    {
        match self.0.remove(key) {
            None => Ok(None),
            Some(value) => T::try_from(Variant::from(value))
                .map(Some)
                .map_err(|_| Denial::invalid(format!("the option {key} is not of type {type_name}"))),
        }
    }

    /// A string.
    pub fn text(&mut self, key: &str) -> Result<Option<String>, Denial> {
        self.take(key, "s")
    }

    /// A free text of a person: bounded, without control characters.
    pub fn free_text(&mut self, key: &str) -> Result<Option<String>, Denial> {
        let text = self.text(key)?;
        if let Some(text) = &text
            && (text.len() > MAX_TEXT || text.chars().any(char::is_control))
        {
            return Err(Denial::invalid(format!(
                "the option {key} has more than {MAX_TEXT} bytes, or a control character"
            )));
        }
        Ok(text)
    }

    /// A name or token, in its own type.
    pub fn name<T>(&mut self, key: &str) -> Result<Option<T>, Denial>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        self.text(key)?.map(|text| parse(key, &text)).transpose()
    }

    /// The application; see the interface's description.
    pub fn application(&mut self) -> Result<Option<ApplicationName>, Denial> {
        self.name("application")
    }

    /// Who acts through the application: a session's path, or an account.
    pub fn by(&mut self) -> Result<Option<String>, Denial> {
        self.text("by")
    }

    /// A yes or no; no, if it is not there.
    pub fn flag(&mut self, key: &str) -> Result<bool, Denial> {
        Ok(self.take(key, "b")?.unwrap_or_default())
    }

    /// A number.
    pub fn number(&mut self, key: &str) -> Result<Option<u32>, Denial> {
        self.take(key, "u")
    }

    /// A moment, in microseconds since 1970.
    pub fn moment(&mut self, key: &str) -> Result<Option<u64>, Denial> {
        self.take(key, "t")
    }

    /// A number of bytes, or of anything else of which there can be many.
    pub fn long(&mut self, key: &str) -> Result<Option<u64>, Denial> {
        self.take(key, "t")
    }

    /// A number with a fraction.
    pub fn decimal(&mut self, key: &str) -> Result<Option<f64>, Denial> {
        self.take(key, "d")
    }

    /// A descriptor, a path or a word, whichever the variant's type says.
    pub fn given(&mut self, key: &str) -> Result<Option<Given>, Denial> {
        let Some(value) = self.0.get(key) else { return Ok(None) };
        let given = match value.value_signature().to_string().as_str() {
            "h" => self.descriptor(key)?.map(Given::Descriptor),
            "ay" => self.bytes(key)?.map(Given::Path),
            "s" => self.text(key)?.map(Given::Word),
            _ => return Err(Denial::invalid(format!("the option {key} is not of type h, ay or s"))),
        };
        Ok(given)
    }

    /// Bytes.
    pub fn bytes(&mut self, key: &str) -> Result<Option<Vec<u8>>, Denial> {
        self.take(key, "ay")
    }

    /// A list of bytes.
    pub fn list_of_bytes(&mut self, key: &str) -> Result<Option<Vec<Vec<u8>>>, Denial> {
        self.take(key, "aay")
    }

    /// A descriptor.
    pub fn descriptor(&mut self, key: &str) -> Result<Option<OwnedFd>, Denial> {
        let fd: Option<Fd<'static>> = self.take(key, "h")?;
        fd.map(|fd| OwnedFd::try_from(fd).map_err(|_| Denial::internal("a descriptor could not be kept")))
            .transpose()
    }

    /// Which part of a list.
    pub fn page(&mut self) -> Result<PageOptions, Denial> {
        let cursor = self.text("cursor")?.filter(|cursor| !cursor.is_empty());
        let limit = self.number("limit")?.unwrap_or(DEFAULT_LIMIT);
        if limit == 0 || limit > MAX_LIMIT {
            return Err(Denial::invalid(format!("the option limit is 1 to {MAX_LIMIT}")));
        }
        Ok(PageOptions { cursor, limit: limit as usize })
    }

    /// The end: nothing may be left.
    pub fn finish(self) -> Result<(), Denial> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(key) => Err(Denial::invalid(format!("this method has no option called {key:?}"))
                .remedy("the introspection data of the method names its options")),
        }
    }
}

/// A name or token from an argument of a call.
pub fn parse<T>(what: &str, text: &str) -> Result<T, Denial>
where
    T: FromStr,
    T::Err: fmt::Display,
{
    text.parse().map_err(|error| Denial::invalid(format!("{what}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use deputy_core::Code;
    use std::io::{Read as _, Write as _};
    use zbus::Message;

    fn options(pairs: Vec<(&str, Variant<'_>)>) -> Options {
        let map: BTreeMap<&str, Variant<'_>> = pairs.into_iter().collect();
        let message = Message::method_call("/x", "X").build(&(map,)).unwrap();
        let body = message.body();
        let (options,): (Options,) = body.deserialize().unwrap();
        options
    }

    #[test]
    fn what_is_not_known_or_not_of_its_type_is_refused() {
        let denial = options(vec![("colour", "red".into())]).finish().unwrap_err();
        assert_eq!(denial.code, Code::InvalidArgument);
        assert!(denial.message.contains("colour"));
        for (key, value) in
            [("limit", Variant::from("5")), ("limit", Variant::from(0u32)), ("limit", 1001u32.into())]
        {
            assert_eq!(options(vec![(key, value)]).page().unwrap_err().code, Code::InvalidArgument);
        }
        assert!(options(vec![("application", "../etc".into())]).application().is_err());
        assert!(options(vec![("email", "a\nb".into())]).free_text("email").is_err());
        assert!(options(vec![("email", "x".repeat(300).into())]).free_text("email").is_err());
        assert!(options(vec![("stdin", 0u32.into())]).descriptor("stdin").is_err());
        assert!(options(vec![("directory", "text".into())]).bytes("directory").is_err());
    }

    #[test]
    fn what_is_known_is_taken_once() {
        let mut options = options(vec![
            ("application", "demo".into()),
            ("environment", vec![b"A=1".to_vec(), b"B=2".to_vec()].into()),
            ("directory", b"/tmp".to_vec().into()),
            ("cursor", "".into()),
        ]);
        assert_eq!(options.application().unwrap().unwrap().as_str(), "demo");
        assert_eq!(options.list_of_bytes("environment").unwrap().unwrap().len(), 2);
        assert_eq!(options.bytes("directory").unwrap().unwrap(), b"/tmp");
        assert_eq!(options.page().unwrap(), PageOptions { cursor: None, limit: 100 });
        options.finish().unwrap();
    }

    #[test]
    fn a_descriptor_stays_open_after_its_message() {
        let (reader, writer) = std::io::pipe().unwrap();
        let mut options = options(vec![("stdout", Fd::from(&writer).into())]);
        let taken = options.descriptor("stdout").unwrap().unwrap();
        drop(writer);
        drop(options);
        std::fs::File::from(taken).write_all(b"x").unwrap();
        let mut text = String::new();
        { reader }.read_to_string(&mut text).unwrap();
        assert_eq!(text, "x");
    }
}
