//! Small line charts in SVG.

use maud::{Markup, html};

use crate::telemetry::{HISTORY_STEP, Totals};

/// Size of a chart's drawing area.
const SIZE: (f64, f64) = (240.0, 48.0);

/// What was counted per second between two ticks each.
pub(super) fn rates(history: &[Totals], total: fn(&Totals) -> u64) -> Vec<f64> {
    let steps = history.windows(2);
    let rate = |step: &[Totals]| {
        // A mapping that was removed takes its counts with it.
        let counted = total(&step[1]).saturating_sub(total(&step[0]));
        counted as f64 / HISTORY_STEP.as_secs_f64()
    };
    steps.map(rate).collect()
}

/// A line over the last minutes.
pub(super) fn line(title: &str, values: &[f64], show: impl Fn(f64) -> String) -> Markup {
    let most = values.iter().copied().fold(0.0, f64::max);
    let (last, peak) = (show(values.last().copied().unwrap_or_default()), show(most));
    let step = SIZE.0 / (values.len().max(2) - 1) as f64;
    let points = values.iter().enumerate().map(|(place, value)| {
        let x = place as f64 * step;
        // A line along the very edge would be cut in half.
        let y = SIZE.1 - 1.0 - value / most.max(f64::MIN_POSITIVE) * (SIZE.1 - 2.0);
        format!("{x:.1},{y:.1} ")
    });
    let points: String = points.collect();
    html! {
        figure {
            figcaption { (title) " " b { (last) } " " small { "peak " (peak) } }
            svg
                viewBox={ "0 0 " (SIZE.0) " " (SIZE.1) }
                role="img"
                aria-label={ (title) ": now " (last) ", peak " (peak) }
                preserveAspectRatio="none"
            { polyline points=(points) {} }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_what_came_between_two_ticks() {
        let at = |opened| Totals {
            opened,
            ..Totals::default()
        };
        let history = [at(10), at(60), at(60), at(0)];
        assert_eq!(rates(&history, |totals| totals.opened), [10.0, 0.0, 0.0]);
    }

    #[test]
    fn a_chart_without_values_is_empty() {
        let page = line("T", &[], |value| value.to_string()).into_string();
        assert!(page.contains("points=\"\""), "{page}");
        assert!(!page.contains("NaN"), "{page}");
    }
}
