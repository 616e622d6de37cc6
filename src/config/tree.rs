//! YAML text to a tree that knows where each node stands.
//!
//! Built from the parser's events, because what is lost in the usual trees matters here: where a
//! value stands, whether it was quoted, and keys written twice. What a configuration does not need
//! is refused: anchors, tags, keys that are not plain text, more than one document, deep nesting.
//! Nothing recurses but what `DEPTH_MAX` bounds.

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError};

/// Ours needs seven levels; a bound keeps hostile nesting off the stack.
const DEPTH_MAX: usize = 32;

/// A value and where it starts. Lines and columns count from 1, columns in characters.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub line: usize,
    pub column: usize,
    pub kind: Kind,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    /// Written without quotes, so it may be a number.
    Plain(String),
    /// Written with quotes or as a block: always text.
    Quoted(String),
    Sequence(Vec<Node>),
    /// In the order of the text; a key may stand in it twice.
    Mapping(Vec<Entry>),
    /// A scalar that refers to the environment in vain, which has been reported.
    Broken,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub key: Key,
    pub value: Node,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Key {
    pub line: usize,
    pub column: usize,
    pub text: String,
}

/// Why the text is no tree.
#[derive(Debug, PartialEq)]
pub(super) struct Fault {
    pub line: usize,
    pub column: usize,
    pub message: String,
}

/// The tree of the one document in `text`.
pub(super) fn parse(text: &str) -> Result<Node, Fault> {
    build(text).map_err(|fault| fault.within(text))
}

fn build(text: &str) -> Result<Node, Fault> {
    let mut builder = Builder::default();
    // Event by event: the parser's own `load` recurses without a bound.
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| not_yaml(&error, text))?;
        builder.take(event, span.start)?;
    }
    builder.root.ok_or_else(|| Fault {
        line: 1,
        column: 1,
        message: "empty, expected a configuration".into(),
    })
}

impl Node {
    /// Text, however it is written; nothing of lists, mappings and nulls.
    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Plain(_) if self.is_null() => None,
            Kind::Plain(text) | Kind::Quoted(text) => Some(text),
            Kind::Sequence(_) | Kind::Mapping(_) | Kind::Broken => None,
        }
    }

    /// Text without quotes: the only place for numbers and booleans.
    pub fn plain(&self) -> Option<&str> {
        match &self.kind {
            Kind::Plain(text) if !self.is_null() => Some(text),
            _ => None,
        }
    }

    /// Whether nothing was written, or what YAML's core schema calls null.
    pub fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Plain(text) if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// A node that was not written.
    pub fn plain_text(text: &str) -> Self {
        Self {
            line: 1,
            column: 1,
            kind: Kind::Plain(text.into()),
        }
    }
}

fn not_yaml(error: &ScanError, text: &str) -> Fault {
    let at = *error.marker();
    let mut message = format!("not YAML: {}", error.info());
    let line = text.lines().nth(at.line().saturating_sub(1));
    if line.is_some_and(|line| line.contains("${")) {
        message += "; ${ needs quotes between { } and [ ]";
    }
    fault(at, message)
}

fn fault(at: Marker, message: impl Into<String>) -> Fault {
    Fault {
        line: at.line(),
        column: at.col() + 1,
        message: message.into(),
    }
}

impl Fault {
    /// Of bytes that are text only up to `offset`.
    pub fn not_utf8(bytes: &[u8], offset: usize) -> Self {
        let before = String::from_utf8_lossy(&bytes[..offset]);
        let line = before.rsplit('\n').next().unwrap_or_default();
        Self {
            line: before.matches('\n').count() + 1,
            column: line.chars().count() + 1,
            message: format!("not UTF-8: byte {:#04x} at offset {offset}", bytes[offset]),
        }
    }

    /// The parser can place a fault beyond the end of the text, which then is its place.
    fn within(self, text: &str) -> Self {
        let breaks = text.matches(['\n', '\r']).count() - text.matches("\r\n").count();
        if self.line <= breaks + 1 {
            return self;
        }
        let last = text.rsplit(['\n', '\r']).next().unwrap_or(text);
        Self {
            line: breaks + 1,
            column: last.chars().count() + 1,
            ..self
        }
    }
}

/// A sequence or mapping that has not ended.
enum Open {
    Sequence(Vec<Node>),
    /// With the key whose value comes next.
    Mapping(Vec<Entry>, Option<Key>),
}

#[derive(Default)]
struct Builder {
    open: Vec<(Marker, Open)>,
    root: Option<Node>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, at: Marker) -> Result<(), Fault> {
        refuse_anchors_and_tags(&event, at)?;
        match event {
            Event::DocumentStart(_) if self.root.is_some() => {
                return Err(fault(at, "a second document, expected one"));
            }
            Event::SequenceStart(..) => self.begin(at, Open::Sequence(Vec::new()))?,
            Event::MappingStart(..) => self.begin(at, Open::Mapping(Vec::new(), None))?,
            Event::SequenceEnd | Event::MappingEnd => self.end()?,
            Event::Scalar(text, ScalarStyle::Plain, ..) => {
                self.put(at, Kind::Plain(text.into_owned()))?;
            }
            Event::Scalar(text, ..) => self.put(at, Kind::Quoted(text.into_owned()))?,
            _ => {}
        }
        Ok(())
    }

    fn begin(&mut self, at: Marker, open: Open) -> Result<(), Fault> {
        if self.open.len() == DEPTH_MAX {
            return Err(fault(at, format!("nested deeper than {DEPTH_MAX} levels")));
        }
        self.open.push((at, open));
        Ok(())
    }

    fn end(&mut self) -> Result<(), Fault> {
        match self.open.pop() {
            Some((at, Open::Sequence(nodes))) => self.put(at, Kind::Sequence(nodes)),
            Some((at, Open::Mapping(entries, _))) => self.put(at, Kind::Mapping(entries)),
            None => Ok(()),
        }
    }

    fn put(&mut self, at: Marker, kind: Kind) -> Result<(), Fault> {
        let node = Node {
            line: at.line(),
            column: at.col() + 1,
            kind,
        };
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some((_, Open::Sequence(nodes))) => nodes.push(node),
            Some((_, Open::Mapping(entries, key))) => match key.take() {
                Some(key) => entries.push(Entry { key, value: node }),
                None => *key = Some(into_key(node, at)?),
            },
        }
        Ok(())
    }
}

fn into_key(node: Node, at: Marker) -> Result<Key, Fault> {
    match node.kind {
        Kind::Plain(text) | Kind::Quoted(text) => Ok(Key {
            line: node.line,
            column: node.column,
            text,
        }),
        Kind::Sequence(_) | Kind::Mapping(_) | Kind::Broken => {
            Err(fault(at, "a list or mapping as a key, expected text"))
        }
    }
}

fn refuse_anchors_and_tags(event: &Event<'_>, at: Marker) -> Result<(), Fault> {
    let (anchor, tag) = match event {
        Event::Alias(_) => return Err(fault(at, "an alias, expected the value itself")),
        Event::Scalar(_, _, anchor, tag) => (*anchor, tag),
        Event::SequenceStart(anchor, tag) | Event::MappingStart(anchor, tag) => (*anchor, tag),
        _ => return Ok(()),
    };
    if anchor != 0 {
        return Err(fault(at, "an anchor, expected a plain value"));
    }
    if tag.is_some() {
        return Err(fault(at, "a tag, expected a plain value"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(line: usize, column: usize, text: &str) -> Node {
        Node {
            line,
            column,
            kind: Kind::Plain(text.into()),
        }
    }

    #[test]
    fn every_node_knows_where_it_stands() {
        let root = parse("# über\na: 1\nö: [x, 'y']\n").unwrap();
        let Kind::Mapping(entries) = root.kind else {
            panic!("{root:?}")
        };
        assert_eq!(
            entries[0].key,
            Key {
                line: 2,
                column: 1,
                text: "a".into()
            }
        );
        assert_eq!(entries[0].value, plain(2, 4, "1"));
        let quoted = Node {
            line: 3,
            column: 8,
            kind: Kind::Quoted("y".into()),
        };
        assert_eq!(
            entries[1].value.kind,
            Kind::Sequence(vec![plain(3, 5, "x"), quoted])
        );
    }

    #[test]
    fn a_key_written_twice_is_kept() {
        let Kind::Mapping(entries) = parse("a: 1\na: 2\n").unwrap().kind else {
            panic!()
        };
        assert_eq!(entries.len(), 2);
    }

    #[test]
    fn only_unquoted_nothing_is_null() {
        for (text, is_null) in [
            ("~", true),
            ("null", true),
            ("---", true),
            ("''", false),
            ("'~'", false),
        ] {
            assert_eq!(parse(text).unwrap().is_null(), is_null, "{text}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let fits = "- ".repeat(DEPTH_MAX) + "x";
        assert!(parse(&fits).is_ok());
        let fault = parse(&"- ".repeat(100_000)).unwrap_err();
        assert_eq!(fault.message, "nested deeper than 32 levels");
        assert_eq!((fault.line, fault.column), (1, 65));
    }
}
