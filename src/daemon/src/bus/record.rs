//! Answers with named values, `a{sv}`.

use std::collections::BTreeMap;

use deputy_core::Finding;
use serde::{Serialize, Serializer};
use zbus::{Array, Signature, Type, Variant};

/// Named values, without those that are not known.
#[derive(Debug, Default, PartialEq)]
pub struct Record(BTreeMap<&'static str, Variant<'static>>);

impl Type for Record {
    const SIGNATURE: &'static Signature = <BTreeMap<&'static str, Variant<'static>> as Type>::SIGNATURE;
}

impl Serialize for Record {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl Record {
    /// Without values.
    pub fn new() -> Self {
        Self::default()
    }

    /// With this value too.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl Into<Variant<'static>>) -> Self {
        self.0.insert(key, value.into());
        self
    }

    /// With this value too, if there is one.
    #[must_use]
    pub fn maybe(self, key: &'static str, value: Option<impl Into<Variant<'static>>>) -> Self {
        match value {
            Some(value) => self.with(key, value),
            None => self,
        }
    }

    /// Without this value.
    #[must_use]
    pub fn without(mut self, key: &str) -> Self {
        self.0.remove(key);
        self
    }

    /// With this text too.
    #[must_use]
    pub fn text(self, key: &'static str, value: impl ToString) -> Self {
        self.with(key, value.to_string())
    }
}

impl From<&Finding> for Record {
    fn from(finding: &Finding) -> Self {
        Record::new()
            .text("code", &finding.code)
            .text("severity", finding.severity)
            .text("message", &finding.message)
            .text("remedy", &finding.remedy)
    }
}

/// Findings as the interface shows them.
pub fn findings<'f>(findings: impl IntoIterator<Item = &'f Finding>) -> Vec<Record> {
    findings.into_iter().map(Record::from).collect()
}

impl From<Record> for Variant<'static> {
    fn from(record: Record) -> Self {
        record.0.into()
    }
}

/// Records as one value, `aa{sv}`.
pub fn list(records: Vec<Record>) -> Variant<'static> {
    let mut array = Array::new(Record::SIGNATURE);
    for record in records {
        // Each has the array's element type, so that this cannot fail.
        let _ = array.append(record.into());
    }
    Variant::Array(array)
}
