//! The page of `list --fleet -o html`: what one puts on a wall.

use std::fmt::Write as _;

use indicatif::HumanBytes;
use jiff::{SignedDuration, Timestamp};

use super::super::output::page::{self, escaped};
use super::super::output::words::{ago, span};
use super::{LESS_THAN, percent};
use crate::keep::fleet::{Line, Point, Proof, State};

/// The plot of sizes, in pixels.
const PLOT: (f64, f64) = (120.0, 24.0);
/// The bar of age.
const BAR: f64 = 60.0;
/// A table that takes the window's width, and not the text's.
const WIDE: &str = "width:94vw;margin-left:calc(50% - 47vw)";
/// Ages of so many limits fill the bar.
const FULL: f64 = 2.0;

const COLUMNS: [(&str, bool); 15] = [
    ("Cluster", false),
    ("Node", false),
    ("State", false),
    ("Age", false),
    ("Verified", false),
    ("Rehearsed", false),
    ("Recorded", false),
    ("Size", true),
    ("Change", true),
    ("Sizes", false),
    ("Good", true),
    ("etcd", false),
    ("OpenShift", false),
    ("Expires", false),
    ("Signer", false),
];

/// The page.
pub(super) fn page<'a>(
    lines: &[Line],
    problems: impl Iterator<Item = &'a String>,
    limit: SignedDuration,
    now: Timestamp,
) -> String {
    let mut body = format!(
        "<h1>Backups of etcd</h1>\n<p class=\"soft\">{}; stale after {}</p>\n<div class=\"cards\">\n",
        now.strftime("%Y-%m-%d %H:%M:%S UTC"),
        span(limit.as_secs().unsigned_abs())
    );
    for state in [State::Ok, State::Stale, State::Absent, State::Foreign] {
        let count = lines.iter().filter(|line| line.state == state).count();
        if count > 0 || state == State::Ok {
            let _ = writeln!(
                body,
                "<div><b class=\"{}\">{count}</b>{}</div>",
                colour(state),
                state.word()
            );
        }
    }
    body.push_str("</div>\n");
    for problem in problems {
        let _ = writeln!(body, "<p class=\"warn\">{}</p>", escaped(problem));
    }
    let _ = write!(
        body,
        "<div class=\"wide\" style=\"{WIDE}\"><table style=\"white-space:nowrap\">\n<tr>"
    );
    // What needs attention comes first.
    let mut sorted: Vec<&Line> = lines.iter().collect();
    sorted.sort_by_key(|line| (!line.expected, line.state));
    let rows = sorted.into_iter().map(|line| row(line, limit, now));
    let rows: Vec<Row> = rows.collect();
    // What no line has takes no room.
    let used = |at: &usize| rows.iter().any(|row| !row[*at].is_empty());
    let columns: Vec<usize> = (0..COLUMNS.len()).filter(used).collect();
    let class = |number: bool| if number { " class=\"n\"" } else { "" };
    for &at in &columns {
        let (head, number) = COLUMNS[at];
        let _ = write!(body, "<th{}>{head}</th>", class(number));
    }
    body.push_str("</tr>\n");
    for row in &rows {
        body.push_str("<tr>");
        for &at in &columns {
            let _ = write!(body, "<td{}>{}</td>", class(COLUMNS[at].1), row[at]);
        }
        body.push_str("</tr>\n");
    }
    body.push_str("</table></div>\n");
    page::page("Backups of etcd", &body)
}

/// The class of the frame's style that a state is shown with.
fn colour(state: State) -> &'static str {
    match state {
        State::Ok => "added",
        State::Stale => "replaced",
        State::Absent => "removed",
        State::Foreign => "soft",
    }
}

/// The cells of a line, in the order of [`COLUMNS`].
type Row = [String; COLUMNS.len()];

fn row(line: &Line, limit: SignedDuration, now: Timestamp) -> Row {
    let newest = line.newest.as_ref();
    let cluster = match &line.label {
        Some(label) => format!(
            "<span title=\"{}\">{}</span>",
            escaped(&line.cluster),
            escaped(label)
        ),
        None => escaped(&line.cluster),
    };
    let text = |text: Option<&String>| text.map(|text| escaped(text)).unwrap_or_default();
    let proof = |proof: &Option<Proof>| match proof {
        Some(proof) => format!(
            "<span title=\"{}\">{}</span>",
            escaped(&proof.name),
            ago(proof.time, now)
        ),
        None if newest.is_some() => "<span class=\"soft\">never</span>".to_owned(),
        None => String::new(),
    };
    let signer = newest.and_then(|newest| newest.signer.as_ref().or(newest.key.as_ref()));
    let why = escaped(line.why.as_deref().unwrap_or_default());
    let state = format!(
        "<b class=\"{}\" title=\"{why}\">{}</b>",
        colour(line.state),
        line.state.word()
    );
    let shrunk = line.size_change.is_some_and(|change| change < LESS_THAN);
    let change = line.size_change.map(percent).unwrap_or_default();
    [
        cluster,
        text(line.node.as_ref()),
        state,
        age(line, limit),
        proof(&line.verified),
        proof(&line.rehearsed),
        recorded(line, now),
        newest
            .map(|newest| HumanBytes(newest.size).to_string())
            .unwrap_or_default(),
        if shrunk {
            format!("<b class=\"removed\">{change}</b>")
        } else {
            change
        },
        plot(&line.history),
        line.backups.good.to_string(),
        text(newest.and_then(|newest| newest.etcd_version.as_ref())),
        text(newest.and_then(|newest| newest.ocp_version.as_ref())),
        newest.and_then(super::expires).unwrap_or_default(),
        text(signer),
    ]
}

/// How long ago the last recorded change came; marked if some cannot be restored.
fn recorded(line: &Line, now: Timestamp) -> String {
    let Some(recorded) = &line.recorded else {
        return String::new();
    };
    let text = super::recorded(recorded, now);
    match super::gap(line) {
        Some(gap) => format!(
            "<b class=\"removed\" title=\"{}\">{text}</b>",
            escaped(&gap)
        ),
        None => text,
    }
}

/// The age in words, and as a bar of which the limit is the middle.
fn age(line: &Line, limit: SignedDuration) -> String {
    let Some(age) = line.age_seconds else {
        return String::new();
    };
    let part = age as f64 / limit.as_secs().max(1) as f64;
    let width = (part / FULL).clamp(0.0, 1.0) * BAR;
    format!(
        "<svg width=\"{BAR}\" height=\"10\" role=\"img\" aria-label=\"{part:.1} of the limit\" class=\"{}\"><rect width=\"{width:.1}\" height=\"10\" fill=\"currentColor\"/><path d=\"M{:.0} 0v10\" stroke=\"#888\"/></svg> {}",
        colour(line.state),
        BAR / FULL,
        span(age.unsigned_abs())
    )
}

/// The sizes over time, from zero to the largest.
fn plot(points: &[Point]) -> String {
    let (Some(first), Some(last)) = (points.first(), points.last()) else {
        return String::new();
    };
    let (width, height) = PLOT;
    let since = |point: &Point| point.created.duration_since(first.created).as_secs_f64();
    let time = since(last).max(1.0);
    let most = points
        .iter()
        .map(|point| point.size)
        .max()
        .unwrap_or(0)
        .max(1) as f64;
    let mut line = String::new();
    for point in points {
        let x = since(point) / time * width;
        let y = height - 1.0 - point.size as f64 / most * (height - 2.0);
        let _ = write!(line, "{x:.1},{y:.1} ");
    }
    let label = format!("{} to {}", HumanBytes(first.size), HumanBytes(last.size));
    format!(
        "<svg width=\"{width}\" height=\"{height}\" role=\"img\" aria-label=\"{label}\"><polyline points=\"{}\" fill=\"none\" stroke=\"currentColor\" stroke-width=\"1.5\"/></svg>",
        line.trim_end()
    )
}
