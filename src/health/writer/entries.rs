//! The entries of a health file: verdicts go in, what no reader accepts goes out, all else stays.

use std::collections::{HashMap, HashSet};
use std::io;

use serde::Serializer;

use super::Judged;
use crate::health::json::Json;
use crate::health::report::{FIELDS, FILE_BYTES_MAX, NAME_BYTES_MAX, State, accepts, quoted};

/// The entries of a file in their order.
pub(super) type Entries = Vec<(String, Json)>;

/// Takes out what no reader accepts, and says what that was, as `"s1".weight`. After it, names are unique
/// and every entry is a verdict; where that is missing from an object it is `false`, which is what a
/// backend that the file does not name is, too: the rest of the object holds.
pub(super) fn mend(entries: Entries) -> (Entries, Vec<String>) {
    let mut dropped = Vec::new();
    let mut met = HashSet::new();
    let mut mended = Vec::with_capacity(entries.len());
    for (name, value) in entries {
        let value = match value {
            _ if name.len() > NAME_BYTES_MAX => None,
            // Of one that is there twice, the first stays.
            _ if !met.insert(name.clone()) => None,
            Json::Bool(healthy) => Some(Json::Bool(healthy)),
            Json::Object(fields) => Some(Json::Object(mend_fields(&name, fields, &mut dropped))),
            _ => None,
        };
        match value {
            Some(value) => mended.push((name, value)),
            None => dropped.push(quoted(&name)),
        }
    }
    (mended, dropped)
}

fn mend_fields(name: &str, fields: Entries, dropped: &mut Vec<String>) -> Entries {
    let (told, mut met) = (dropped.len(), HashSet::new());
    let mut mended = Vec::with_capacity(fields.len());
    for (field, value) in fields {
        let is_known = FIELDS.contains(&field.as_str());
        if is_known && (!accepts(&field, &value) || !met.insert(field.clone())) {
            dropped.push(format!("{}.{field}", quoted(name)));
        } else {
            mended.push((field, value));
        }
    }
    if !met.contains("healthy") {
        let what = format!("{}.healthy", quoted(name));
        if !dropped[told..].contains(&what) {
            dropped.push(what);
        }
        mended.insert(0, ("healthy".to_owned(), Json::Bool(false)));
    }
    mended
}

/// Puts what was found out into the entries (names unique). Who is in maintenance keeps the entry: whoever
/// has put it there may have done so with a verdict of their own.
pub(super) fn merge<'a>(
    existing: Entries,
    judged: impl IntoIterator<Item = Judged<'a>>,
    detail: bool,
) -> Entries {
    let mut judged: Vec<Option<Judged>> = judged.into_iter().map(Some).collect();
    let places: HashMap<&str, usize> = judged
        .iter()
        .enumerate()
        .filter_map(|(place, one)| Some((one.as_ref()?.name, place)))
        .collect();
    let mut merged = Vec::with_capacity(existing.len());
    for (name, value) in existing {
        let found = places
            .get(name.as_str())
            .and_then(|place| judged[*place].take());
        let value = match found {
            Some(one) if !is_in_maintenance(&value) => judge(Some(value), one, detail),
            _ => value,
        };
        merged.push((name, value));
    }
    let new = judged.into_iter().flatten();
    merged.extend(new.map(|one| (one.name.to_owned(), judge(None, one, detail))));
    merged
}

/// One entry with the new verdict. An object keeps its other fields.
fn judge(value: Option<Json>, judged: Judged, detail: bool) -> Json {
    let mut fields = match value {
        Some(Json::Object(fields)) => fields,
        _ if detail => Vec::new(),
        _ => return Json::Bool(judged.healthy),
    };
    fields.retain(|(name, _)| name != "reason" && name != "verdict");
    let place = fields.iter().position(|(name, _)| name == "healthy");
    let place = place.unwrap_or(0);
    fields.retain(|(name, _)| name != "healthy");
    fields.insert(place, ("healthy".to_owned(), Json::Bool(judged.healthy)));
    if detail {
        let told = [("verdict", judged.verdict), ("reason", judged.reason)];
        let told = told.map(|(name, text)| (name.to_owned(), Json::String(text.to_owned())));
        fields.splice(place + 1..place + 1, told);
    }
    Json::Object(fields)
}

/// Whether the entry says so, whatever else may be wrong with it.
pub(super) fn is_in_maintenance(value: &Json) -> bool {
    let Json::Object(fields) = value else {
        return false;
    };
    fields.iter().any(|(name, value)| {
        name == "state" && matches!(value, Json::String(state) if state == State::Maint.name())
    })
}

/// The text of a file with these entries.
///
/// # Errors
///
/// When no reader would take so much.
pub(super) fn text(entries: &Entries) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let mut serializer = serde_json::Serializer::pretty(&mut text);
    serializer.collect_map(entries.iter().map(|(name, value)| (name, value)))?;
    text.push(b'\n');
    if text.len() > FILE_BYTES_MAX {
        let problem = format!("would be longer than {FILE_BYTES_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, problem));
    }
    Ok(text)
}
