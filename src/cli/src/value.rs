//! D-Bus values as JSON: the one form in which records are held, printed and laid out in tables.

use std::collections::HashMap;

use serde_json::{Map, Value};
use zbus::wire::signature::Signature;
use zbus::{OwnedVariant, Variant};

use deputy_core::byte_text::byte_text;

/// A dictionary as D-Bus brings it.
pub type Dictionary = HashMap<String, OwnedVariant>;

/// A record: a dictionary's fields, ordered by name.
pub type Record = Map<String, Value>;

/// The record of a dictionary.
pub fn record(dictionary: &Dictionary) -> Record {
    let mut fields: Vec<_> =
        dictionary.iter().map(|(name, value)| (name.clone(), from_variant(value))).collect();
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    fields.into_iter().collect()
}

/// The records of a list of dictionaries.
pub fn records(dictionaries: &[Dictionary]) -> Vec<Record> {
    dictionaries.iter().map(record).collect()
}

/// A value; byte strings take the form of [`byte_text`], descriptors are null.
pub fn from_variant(value: &Variant<'_>) -> Value {
    match value {
        Variant::U8(number) => (*number).into(),
        Variant::Bool(truth) => (*truth).into(),
        Variant::I16(number) => (*number).into(),
        Variant::U16(number) => (*number).into(),
        Variant::I32(number) => (*number).into(),
        Variant::U32(number) => (*number).into(),
        Variant::I64(number) => (*number).into(),
        Variant::U64(number) => (*number).into(),
        Variant::F64(number) => (*number).into(),
        Variant::Str(text) => text.as_str().into(),
        Variant::ObjectPath(path) => path.as_str().into(),
        Variant::Signature(signature) => signature.to_string().into(),
        Variant::Variant(inner) => from_variant(inner),
        Variant::Array(array) if *array.element_signature() == Signature::U8 => {
            let bytes: Vec<u8> = array.iter().filter_map(|item| u8::try_from(item).ok()).collect();
            byte_text(&bytes).into()
        }
        Variant::Array(array) => array.iter().map(from_variant).collect::<Vec<_>>().into(),
        Variant::Structure(structure) => {
            structure.fields().iter().map(from_variant).collect::<Vec<_>>().into()
        }
        Variant::Dict(dict) => dict
            .iter()
            .map(|(key, value)| {
                let key = match from_variant(key) {
                    Value::String(text) => text,
                    other => other.to_string(),
                };
                (key, from_variant(value))
            })
            .collect::<Map<_, _>>()
            .into(),
        Variant::Fd(_) => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_texts_bytes_and_nested_values_keep_their_meaning() {
        let argv = vec![b"ls".to_vec(), b"\xff\\".to_vec()];
        assert_eq!(from_variant(&Variant::from(argv)), json!(["ls", "\\xff\\\\"]));
        assert_eq!(from_variant(&Variant::from(Vec::<u8>::new())), json!(""));
        assert_eq!(from_variant(&Variant::new((7u32, "x", true))), json!([7, "x", true]));
        let inner = HashMap::from([("a", Variant::from(u64::MAX))]);
        assert_eq!(from_variant(&Variant::from(inner)), json!({"a": u64::MAX}));
    }
}
