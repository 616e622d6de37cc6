//! Rust source as words and signs, without comments, strings and characters: enough to tell which
//! names it uses, and no more.

/// A piece of source text.
#[derive(Clone, Debug, PartialEq)]
pub enum Token {
    Word(String),
    /// `::`
    Path,
    Sign(char),
}

/// The code of `text`, each token with its line. Comments, strings and characters are left out.
pub fn tokens(text: &str) -> Vec<(usize, Token)> {
    let chars: Vec<char> = text.chars().collect();
    let mut found = Vec::new();
    let mut line = 1;
    let mut at = 0;
    while at < chars.len() {
        let (end, token) = next_token(&chars, at);
        found.extend(token.map(|token| (line, token)));
        line += chars[at..end]
            .iter()
            .filter(|&&character| character == '\n')
            .count();
        at = end;
    }
    found
}

/// What begins at `at`: where it ends, and the token if it is one.
fn next_token(chars: &[char], at: usize) -> (usize, Option<Token>) {
    let next = chars.get(at + 1).copied().unwrap_or(' ');
    match chars[at] {
        '/' if next == '/' => (position(chars, at, |rest| rest[0] == '\n'), None),
        '/' if next == '*' => (end_of_block_comment(chars, at), None),
        '"' => (end_of_string(chars, at), None),
        'r' if next == '"' || next == '#' && is_raw_string(chars, at + 1) => {
            (end_of_raw_string(chars, at + 1), None)
        }
        '\'' => (end_of_quote(chars, at), None),
        ':' if next == ':' => (at + 2, Some(Token::Path)),
        character if character.is_whitespace() => (at + 1, None),
        character if is_word(character) => {
            let end = position(chars, at, |rest| !is_word(rest[0]));
            (end, Some(Token::Word(chars[at..end].iter().collect())))
        }
        character => (at + 1, Some(Token::Sign(character))),
    }
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// The first place from `at` on whose rest is as wanted, or the end.
fn position(chars: &[char], at: usize, is_wanted: impl Fn(&[char]) -> bool) -> usize {
    (at..chars.len())
        .find(|&place| is_wanted(&chars[place..]))
        .unwrap_or(chars.len())
}

fn end_of_block_comment(chars: &[char], at: usize) -> usize {
    let mut depth = 0;
    let mut place = at;
    while place + 1 < chars.len() {
        match (chars[place], chars[place + 1]) {
            ('/', '*') => depth += 1,
            ('*', '/') => depth -= 1,
            _ => {
                place += 1;
                continue;
            }
        }
        place += 2;
        if depth == 0 {
            return place;
        }
    }
    chars.len()
}

fn end_of_string(chars: &[char], at: usize) -> usize {
    let mut place = at + 1;
    while place < chars.len() && chars[place] != '"' {
        place += if chars[place] == '\\' { 2 } else { 1 };
    }
    (place + 1).min(chars.len())
}

/// Whether the number signs at `at` open a raw string, and not a raw name such as `r#type`.
fn is_raw_string(chars: &[char], at: usize) -> bool {
    let open = position(chars, at, |rest| rest[0] != '#');
    chars.get(open) == Some(&'"')
}

fn end_of_raw_string(chars: &[char], at: usize) -> usize {
    let open = position(chars, at, |rest| rest[0] != '#');
    let end: Vec<char> = std::iter::once('"')
        .chain(std::iter::repeat_n('#', open - at))
        .collect();
    (position(chars, open + 1, |rest| rest.starts_with(&end)) + end.len()).min(chars.len())
}

/// A character ends at its second quote; a lifetime is only the quote, and its name a word.
fn end_of_quote(chars: &[char], at: usize) -> usize {
    match chars.get(at + 1) {
        Some('\\') => (position(chars, at + 3, |rest| rest[0] == '\'') + 1).min(chars.len()),
        Some(_) if chars.get(at + 2) == Some(&'\'') => at + 3,
        _ => at + 1,
    }
}
