//! Owns the chart: processor time per request as bars, in plain SVG. It brings its own background, so that it
//! reads the same on a page of any colour, and follows the reader's choice of light or dark.

use std::fmt::Write as _;

/// A bar: what it says, how long it is, and how far the rounds lay apart.
pub struct Bar {
    pub label: String,
    pub value: f64,
    pub min: f64,
    pub max: f64,
    /// Whether it is one of ours.
    pub ours: bool,
}

const WIDTH: f64 = 760.0;
const LEFT: f64 = 170.0;
/// Room for the numbers behind the longest bar.
const RIGHT: f64 = 90.0;
const TOP: f64 = 64.0;
const ROW: f64 = 34.0;
const THICK: f64 = 18.0;
const BOTTOM: f64 = 44.0;

const STYLE: &str = "\
    .panel { fill: #ffffff; stroke: #d0d7de; } .text { fill: #1f2328; } .faint { fill: #59636e; }
    .ours { fill: #0969da; } .other { fill: #8c959f; } .line { stroke: #1f2328; stroke-width: 1.5; } .base { stroke: #d0d7de; }
    text { font: 13px system-ui, 'Segoe UI', Helvetica, Arial, sans-serif; } .title { font-weight: 600; font-size: 15px; }
    @media (prefers-color-scheme: dark) {
      .panel { fill: #0d1117; stroke: #3d444d; } .text { fill: #f0f6fc; } .faint { fill: #9198a1; }
      .ours { fill: #4493f8; } .other { fill: #656c76; } .line { stroke: #f0f6fc; } .base { stroke: #3d444d; }
    }";

/// The whole picture. `note` stands below the bars.
pub fn svg(title: &str, note: &str, bars: &[Bar]) -> String {
    let height = TOP + ROW * bars.len() as f64 + BOTTOM;
    let longest = bars
        .iter()
        .map(|bar| bar.max.max(bar.value))
        .fold(1.0, f64::max);
    let scale = (WIDTH - LEFT - RIGHT) / longest;
    let mut picture = String::new();
    let _ = writeln!(
        picture,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" role=\"img\">\n  <title>{title}</title>\n  <style>\n{STYLE}\n  </style>\n  \
         <rect class=\"panel\" x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"8\"/>\n  \
         <text class=\"text title\" x=\"20\" y=\"32\">{title}</text>",
        WIDTH - 1.0,
        height - 1.0,
        title = escape(title),
    );
    // One: as much as the program that all are compared with.
    let one = LEFT + scale;
    let _ = writeln!(
        picture,
        "  <line class=\"base\" x1=\"{one:.1}\" x2=\"{one:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>",
        TOP - 8.0,
        height - BOTTOM + 2.0,
    );
    for (index, bar) in bars.iter().enumerate() {
        picture += &row(bar, TOP + ROW * index as f64, scale);
    }
    let _ = writeln!(
        picture,
        "  <text class=\"faint\" x=\"20\" y=\"{:.1}\">{}</text>\n</svg>",
        height - 18.0,
        escape(note)
    );
    picture
}

/// Label, bar, whisker from the lowest to the highest round, and the number.
fn row(bar: &Bar, top: f64, scale: f64) -> String {
    let middle = top + THICK / 2.0;
    let baseline = middle + 4.5;
    let end = LEFT + bar.value * scale;
    let (low, high) = (LEFT + bar.min * scale, LEFT + bar.max * scale);
    let class = if bar.ours { "ours" } else { "other" };
    format!(
        "  <text class=\"text\" x=\"{:.1}\" y=\"{baseline:.1}\" text-anchor=\"end\">{}</text>\n  \
         <rect class=\"{class}\" x=\"{LEFT:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{THICK:.1}\" rx=\"2\"/>\n  \
         <line class=\"line\" x1=\"{low:.1}\" x2=\"{high:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\"/>\n  \
         <text class=\"text\" x=\"{:.1}\" y=\"{baseline:.1}\">{:.2} ×</text>\n",
        LEFT - 10.0,
        escape(&bar.label),
        end - LEFT,
        end.max(high) + 8.0,
        bar.value,
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture() -> String {
        let bar = |label: &str, value| Bar {
            label: label.into(),
            value,
            min: value * 0.9,
            max: value * 1.2,
            ours: label == "maitred",
        };
        svg(
            "A & B",
            "<note>",
            &[bar("maitred", 1.5), bar("HAProxy", 1.0)],
        )
    }

    /// Every tag that opens closes, in order; attributes are quoted.
    #[test]
    fn the_picture_is_well_formed() {
        let picture = picture();
        let mut open = Vec::new();
        for tag in picture.split('<').skip(1) {
            let (tag, _) = tag.split_once('>').expect("a tag ends");
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            match tag.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop(), Some(name)),
                None if tag.ends_with('/') => {}
                None => open.push(tag.split_whitespace().next().unwrap()),
            }
        }
        assert!(open.is_empty(), "{open:?}");
    }

    #[test]
    fn everybody_has_a_label_and_a_number() {
        let picture = picture();
        for expected in [
            ">maitred<",
            ">1.50 ×<",
            ">HAProxy<",
            ">1.00 ×<",
            "A &amp; B",
            "&lt;note&gt;",
        ] {
            assert!(picture.contains(expected), "{expected}");
        }
        assert_eq!(picture.matches("class=\"ours\"").count(), 1);
    }
}
