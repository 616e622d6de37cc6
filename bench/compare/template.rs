//! Owns the placeholders of the files in `bench/peers`: `@NAME@`.

use anyhow::{Result, bail};

/// The text with every placeholder replaced. One that has no value is an error, and so is a value that no
/// placeholder asks for: a line of a peer's file has been lost then.
pub fn fill(template: &str, values: &[(&str, String)]) -> Result<String> {
    let mut text = template.to_owned();
    for (name, value) in values {
        let placeholder = format!("@{name}@");
        if !text.contains(&placeholder) {
            bail!("there is no {placeholder} to fill");
        }
        text = text.replace(&placeholder, value);
    }
    match first_placeholder(&text) {
        Some(left) => bail!("{left} has no value"),
        None => Ok(text),
    }
}

fn first_placeholder(text: &str) -> Option<String> {
    let is_name = |part: &&str| {
        !part.is_empty()
            && part
                .chars()
                .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit())
    };
    // Between the first and the last `@`; the parts outside belong to nobody.
    let parts: Vec<&str> = text.split('@').collect();
    let inner = parts.get(1..parts.len().saturating_sub(1))?;
    inner
        .iter()
        .find(|part| is_name(part))
        .map(|part| format!("@{part}@"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(value: &str) -> Vec<(&'static str, String)> {
        vec![("PORT", value.into())]
    }

    #[test]
    fn every_place_is_filled() {
        let filled = fill("a @PORT@, b @PORT@; mail@example.com", &port("80")).unwrap();
        assert_eq!(filled, "a 80, b 80; mail@example.com");
    }

    #[test]
    fn nothing_may_be_left_over_on_either_side() {
        assert!(
            fill("@PORT@ @ADMIN@", &port("80"))
                .unwrap_err()
                .to_string()
                .contains("@ADMIN@")
        );
        assert!(fill("no place", &port("80")).is_err());
    }
}
