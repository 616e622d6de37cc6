//! JSON that keeps what `serde_json::Value` loses: the order of keys, and keys that are there twice.
//!
//! The parser of reports needs the second, the writer the first. (`serde_json`'s `preserve_order`
//! would give the order only, and to every crate in the build.)

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Number;

/// How long a string may be to be shown in a message.
const SHORT_BYTES_MAX: usize = 32;

/// Any JSON value, as written. Depth is bounded by `serde_json` (128).
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Json {
    Null,
    Bool(bool),
    Number(Number),
    String(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// What a person is told to have written: the value if it is short, or else its kind.
    pub(super) fn found(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Number(value) => value.to_string(),
            Self::String(value) if value.len() <= SHORT_BYTES_MAX => format!("{value:?}"),
            Self::String(_) => "a long string".to_owned(),
            Self::Array(_) => "an array".to_owned(),
            Self::Object(_) => "an object".to_owned(),
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Checked::<_, true>(Ok).deserialize(deserializer)
    }
}

/// Reads any value and hands it to a check; what an array or an object holds is left out of it, for
/// millions of values fit into a health file. A complaint that is raised here, while the value is being
/// read, is given the position of the value; later it would be that of the end of what encloses it.
pub(super) fn checked<T, C: FnOnce(Json) -> Result<T, String>>(check: C) -> Checked<C, false> {
    Checked(check)
}

/// A check and whether it is given all that is in the value.
pub(super) struct Checked<C, const DEEP: bool>(C);

/// Reads a value, with the rules for all others, and forgets it.
const SKIPPED: Checked<fn(Json) -> Result<(), String>, false> = Checked(|_| Ok(()));

impl<'de, T, C, const DEEP: bool> DeserializeSeed<'de> for Checked<C, DEEP>
where
    C: FnOnce(Json) -> Result<T, String>,
{
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T, C, const DEEP: bool> Visitor<'de> for Checked<C, DEEP>
where
    C: FnOnce(Json) -> Result<T, String>,
{
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<T, E> {
        self.0(Json::Null).map_err(E::custom)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<T, E> {
        self.0(Json::Bool(value)).map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<T, E> {
        self.0(Json::Number(value.into())).map_err(E::custom)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<T, E> {
        self.0(Json::Number(value.into())).map_err(E::custom)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<T, E> {
        // JSON has no infinity, so that every float is a number.
        self.0(Number::from_f64(value).map_or(Json::Null, Json::Number)).map_err(E::custom)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<T, E> {
        self.0(Json::String(value.to_owned())).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<T, A::Error> {
        let mut values = Vec::new();
        if DEEP {
            while let Some(value) = access.next_element()? {
                values.push(value);
            }
        } else {
            while access.next_element_seed(SKIPPED)?.is_some() {}
        }
        self.0(Json::Array(values)).map_err(Error::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<T, A::Error> {
        let mut entries = Vec::new();
        if DEEP {
            while let Some(entry) = access.next_entry()? {
                entries.push(entry);
            }
        } else {
            while access.next_key::<String>()?.is_some() {
                access.next_value_seed(SKIPPED)?;
            }
        }
        self.0(Json::Object(entries)).map_err(Error::custom)
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(value) => value.serialize(serializer),
            Self::String(value) => serializer.serialize_str(value),
            Self::Array(values) => serializer.collect_seq(values),
            Self::Object(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_order_duplicates_and_every_kind_of_value() {
        let text = r#"{"b":1,"a":[null,true,-2,0.5,"x\n"],"b":{"z":{},"y":18446744073709551615}}"#;
        let json: Json = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&json).unwrap(), text);
    }

    #[test]
    fn what_is_forgotten_obeys_the_rules_all_the_same() {
        let read = |text: &str| {
            let mut deserializer = serde_json::Deserializer::from_str(text);
            let value = checked(Ok).deserialize(&mut deserializer).ok()?;
            deserializer.end().ok().map(|()| value)
        };
        let empty = Some(Json::Array(Vec::new()));
        assert_eq!(read(r#"[1, [2, {"a": "b"}], -1.5e3, true, null]"#), empty);
        assert_eq!(
            read(r#"{"a": [1], "a": {}}"#),
            Some(Json::Object(Vec::new()))
        );
        for text in [
            "[1e999]",
            r#"["\ud800"]"#,
            r#"{"\ud800": 1}"#,
            "[1,]",
            r#"{"a" 1}"#,
            &"[".repeat(200),
        ] {
            assert_eq!(read(text), None, "{text}");
            assert!(serde_json::from_str::<Json>(text).is_err(), "{text}");
        }
    }
}
