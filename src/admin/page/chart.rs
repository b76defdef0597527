//! Small line charts in SVG.

use std::fmt::{self, Write};

use crate::telemetry::{HISTORY_STEP, Totals};

/// Size of a chart's drawing area.
const SIZE: (f64, f64) = (240.0, 48.0);

/// A line over the last minutes.
pub(super) struct Chart<'a> {
    title: &'static str,
    values: Vec<f64>,
    show: &'a dyn Fn(f64) -> String,
}

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

impl<'a> Chart<'a> {
    pub(super) fn new(
        title: &'static str,
        values: Vec<f64>,
        show: &'a dyn Fn(f64) -> String,
    ) -> Self {
        Self {
            title,
            values,
            show,
        }
    }

    pub(super) fn write(&self, page: &mut String) -> fmt::Result {
        let last = self.values.last().copied().unwrap_or_default();
        let most = self.values.iter().copied().fold(0.0, f64::max);
        let (title, last, peak) = (self.title, (self.show)(last), (self.show)(most));
        write!(
            page,
            "<figure><figcaption>{title} <b>{last}</b> <small>peak {peak}</small></figcaption>\
             <svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{title}: now {last}, peak {peak}\" \
             preserveAspectRatio=\"none\"><polyline points=\"",
            SIZE.0, SIZE.1
        )?;
        let step = SIZE.0 / (self.values.len().max(2) - 1) as f64;
        for (place, value) in self.values.iter().enumerate() {
            let x = place as f64 * step;
            // A line along the very edge would be cut in half.
            let y = SIZE.1 - 1.0 - value / most.max(f64::MIN_POSITIVE) * (SIZE.1 - 2.0);
            write!(page, "{x:.1},{y:.1} ")?;
        }
        page.push_str("\"/></svg></figure>\n");
        Ok(())
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
        let mut page = String::new();
        let show = |value: f64| format!("{value}");
        Chart::new("T", Vec::new(), &show)
            .write(&mut page)
            .expect("a string takes all");
        assert!(page.contains("points=\"\""), "{page}");
        assert!(!page.contains("NaN"), "{page}");
    }
}
