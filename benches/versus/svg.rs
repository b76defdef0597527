//! A picture for the README: per workload one bar per peer, as long as its main cost is in
//! proportion to the highest. Colours follow the reader's light or dark mode.

use std::fmt::Write;

use crate::{
    peers::OWN,
    report::Results,
    sample::{Metric, Summary, summarise},
    workloads::Workload,
};

const COLUMNS: usize = 2;
/// Widths: a column, the space between columns, the names and the figures beside the bars.
const COLUMN: f64 = 440.0;
const GUTTER: f64 = 32.0;
const NAMES: f64 = 124.0;
const FIGURES: f64 = 96.0;
/// Heights: the title of the picture, the title of a workload, a bar and the space below it.
const TITLE: f64 = 24.0;
const HEADING: f64 = 34.0;
const BAR: f64 = 13.0;
const GAP: f64 = 4.0;

/// One workload.
struct Group {
    title: String,
    bars: Vec<Bar>,
}

/// One peer.
struct Bar {
    peer: String,
    cost: Summary,
}

/// Draws what was measured.
pub fn draw(measured: &[(Workload, Vec<Results>)]) -> String {
    let groups: Vec<Group> = measured.iter().filter_map(group).collect();
    let mut body = String::new();
    let mut top = TITLE;
    for row in groups.chunks(COLUMNS) {
        let mut left = 0.0;
        for group in row {
            group.draw(&mut body, left, top);
            left += COLUMN + GUTTER;
        }
        top += row.iter().map(Group::height).fold(0.0, f64::max);
    }
    let width = 2.0 * COLUMN + GUTTER;
    format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top}" role="img">
<title>What the proxies cost, per workload</title>
<style>
text {{ font: 12px system-ui, sans-serif; fill: #24292f }}
.head {{ font-weight: 600 }}
.note {{ font-weight: 400; fill: #57606a }}
.bar {{ fill: #afb8c1 }}
.own {{ fill: #0969da }}
@media (prefers-color-scheme: dark) {{
  text {{ fill: #e6edf3 }}
  .note {{ fill: #8d96a0 }}
  .bar {{ fill: #484f58 }}
  .own {{ fill: #4493f8 }}
}}
</style>
<text x="0" y="14">Processor time of the proxy itself, and its memory per idle session; shorter is better</text>
{body}</svg>
"#
    )
}

fn group((workload, results): &(Workload, Vec<Results>)) -> Option<Group> {
    let bar = |result: &Results| {
        let cost = summarise(&result.rounds)
            .into_iter()
            .find(|s| matches!(s.metric, Metric::ProxyCpu(_) | Metric::Memory))?;
        Some(Bar {
            peer: result.peer.clone(),
            cost,
        })
    };
    let bars: Vec<Bar> = results.iter().filter_map(bar).collect();
    (!bars.is_empty()).then(|| Group {
        title: workload.short_title(),
        bars,
    })
}

impl Group {
    fn height(&self) -> f64 {
        self.bars.iter().map(|_| BAR + GAP).sum::<f64>() + HEADING
    }

    fn draw(&self, body: &mut String, left: f64, top: f64) {
        let own = self.bars.iter().find(|bar| bar.peer == OWN);
        let longest = self
            .bars
            .iter()
            .map(|bar| bar.cost.median)
            .fold(f64::MIN_POSITIVE, f64::max);
        let unit = self.bars[0].cost.metric.title().replace("proxy CPU ", "");
        let heading = top + HEADING - 9.0;
        // Writing to a string cannot fail.
        let _ = writeln!(
            body,
            r#"<text class="head" x="{left}" y="{heading}">{} <tspan class="note">{unit}</tspan></text>"#,
            escape(&self.title),
        );
        let mut y = top + HEADING;
        for bar in &self.bars {
            let share = (bar.cost.median / longest).max(0.0);
            let length = share * (COLUMN - NAMES - FIGURES);
            let [start, baseline] = [left + NAMES, y + BAR - 2.5];
            let class = if bar.peer == OWN { "own" } else { "bar" };
            let figure = bar.cost.metric.format(bar.cost.median);
            let ratio = match own {
                Some(own) if bar.peer != OWN && own.cost.median > 0.0 => {
                    format!(" ({:.1}×)", bar.cost.median / own.cost.median)
                }
                _ => String::new(),
            };
            let _ = writeln!(
                body,
                r#"<text x="{:.1}" y="{baseline:.1}" text-anchor="end">{}</text><rect class="{class}" x="{start:.1}" y="{y:.1}" width="{length:.1}" height="{BAR}" rx="2"/><text class="note" x="{:.1}" y="{baseline:.1}">{figure}{ratio}</text>"#,
                start - 8.0,
                escape(&bar.peer),
                start + length + 6.0,
            );
            y += BAR + GAP;
        }
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
