//! The page: what the exporter has written, and the families of mappings.
//!
//! Lines of mappings are put together here because of the cost: a page of 10 000 busy mappings has some
//! 400 000 of them, and the exporter's own writer takes its labels as a map of strings for each.

use std::fmt::{Display, Write};

use axum::http::{HeaderMap, header};
use metrics_exporter_prometheus::formatting::{write_help_line, write_type_line};

use crate::telemetry::{
    Distribution,
    metric::{Kind, Metric},
};

/// The two formats; they differ in how counters are announced and in how a page ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Prometheus' own, version 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// The format to answer a request in that has these headers: OpenMetrics where `Accept` names it
    /// and nothing else is wanted more.
    pub fn wanted_by(headers: &HeaderMap) -> Self {
        let stated = headers.get_all(header::ACCEPT).iter();
        let stated: Vec<_> = stated.filter_map(|value| value.to_str().ok()).collect();
        Self::accepted(&stated.join(","))
    }

    /// The same, given the types that `Accept` lists.
    fn accepted(types: &str) -> Self {
        let (mut open_metrics, mut text) = (0.0, None);
        for range in types.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            let weight = parts
                .filter_map(|part| part.split_once('='))
                .find(|(key, _)| key.trim().eq_ignore_ascii_case("q"))
                .map_or(Some(1.0), |(_, weight)| weight.trim().parse().ok());
            // What is no weight wants nothing.
            let weight: f32 = weight.filter(|q| (0.0..=1.0).contains(q)).unwrap_or(0.0);
            if name.eq_ignore_ascii_case("application/openmetrics-text") {
                open_metrics = weight.max(open_metrics);
            } else if name.eq_ignore_ascii_case("text/plain") {
                text = Some(weight.max(text.unwrap_or(0.0)));
            }
        }
        match open_metrics > 0.0 && open_metrics >= text.unwrap_or(0.0) {
            true => Self::OpenMetrics,
            false => Self::Prometheus,
        }
    }

    /// Its media type.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// A page being written.
#[derive(Debug)]
pub struct Page {
    format: Format,
    text: String,
}

impl Page {
    /// An empty page with room for `capacity` bytes.
    pub fn new(format: Format, capacity: usize) -> Self {
        Self {
            format,
            text: String::with_capacity(capacity),
        }
    }

    /// Adds what a recorder of the exporter has written: families with an empty line behind each, in
    /// no order.
    pub fn exported(&mut self, text: &str) {
        let mut families: Vec<&str> = text.split_terminator("\n\n").collect();
        families.sort_unstable();
        for line in families.into_iter().flat_map(str::lines) {
            match line.starts_with('#') && self.format == Format::OpenMetrics {
                // OpenMetrics calls the family without the suffix that its samples have.
                true => self.text.push_str(&line.replacen("_total ", " ", 1)),
                false => self.text.push_str(line),
            }
            self.text.push('\n');
        }
    }

    /// Announces a metric; its samples follow.
    pub fn family(&mut self, metric: &'static Metric) -> Family<'_> {
        let name = match (self.format, metric.kind) {
            (Format::OpenMetrics, Kind::Counter) => metric.name.trim_end_matches("_total"),
            _ => metric.name,
        };
        write_help_line(&mut self.text, name, None, None, metric.help);
        write_type_line(&mut self.text, name, None, None, metric.kind.word());
        Family {
            text: &mut self.text,
            metric,
        }
    }

    /// The page.
    pub fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

/// The samples of one metric. The values of its labels need no escaping.
#[derive(Debug)]
pub struct Family<'a> {
    text: &'a mut String,
    metric: &'static Metric,
}

impl Family<'_> {
    /// Writes a sample with the values of the labels in their order.
    pub fn sample(&mut self, labels: &[&str], value: impl Display) {
        debug_assert_eq!(labels.len(), self.metric.labels.len());
        self.line("", labels, None, value);
    }

    /// Writes all samples of a histogram.
    pub fn histogram<const N: usize>(&mut self, labels: &[&str], read: &Distribution<N>) {
        for (bound, count) in read.buckets {
            self.line("_bucket", labels, Some(bound), count);
        }
        self.line("_bucket", labels, Some(f64::INFINITY), read.count);
        self.line("_sum", labels, None, read.sum);
        self.line("_count", labels, None, read.count);
    }

    // Writing to a string cannot fail.
    fn line(&mut self, suffix: &str, labels: &[&str], bound: Option<f64>, value: impl Display) {
        self.text.push_str(self.metric.name);
        self.text.push_str(suffix);
        let mut before = '{';
        for (label, value) in self.metric.labels.iter().zip(labels) {
            self.text.push(before);
            self.text.push_str(label);
            self.text.push_str("=\"");
            self.text.push_str(value);
            self.text.push('"');
            before = ',';
        }
        if let Some(bound) = bound {
            self.text.push(before);
            let _ = match bound.is_infinite() {
                true => write!(self.text, "le=\"+Inf\""),
                // Never taken for a whole number, as OpenMetrics wants bounds to be.
                false => write!(self.text, "le=\"{bound:?}\""),
            };
            before = ',';
        }
        if before == ',' {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::{
        Histogram,
        metric::{self, BYTES, CONNECT_LATENCY, MAPPINGS, RELOADS},
    };

    #[test]
    fn what_is_not_wanted_is_not_answered() {
        const OPEN: &str = "application/openmetrics-text";
        for (types, expected) in [
            ("", Format::Prometheus),
            ("*/*", Format::Prometheus),
            (OPEN, Format::OpenMetrics),
            ("Application/OpenMetrics-Text;Q=0.3", Format::OpenMetrics),
            (&format!("{OPEN};q=0"), Format::Prometheus),
            (
                &format!("{OPEN}; version=1.0.0; q=0.000, */*"),
                Format::Prometheus,
            ),
            (&format!("{OPEN};q=x"), Format::Prometheus),
            (
                &format!("{OPEN};q=0.3,text/plain;q=0.5"),
                Format::Prometheus,
            ),
            // As Prometheus asks.
            (
                &format!(
                    "{OPEN};version=1.0.0;q=0.5,{OPEN};version=0.0.1;q=0.4,\
                     text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
                ),
                Format::OpenMetrics,
            ),
        ] {
            assert_eq!(Format::accepted(types), expected, "{types}");
        }
        let mut headers = HeaderMap::new();
        for types in ["text/html", OPEN] {
            headers.append(header::ACCEPT, types.parse().expect("a header"));
        }
        assert_eq!(Format::wanted_by(&headers), Format::OpenMetrics);
    }

    fn page(format: Format) -> String {
        static BOUNDS: [Duration; 1] = [Duration::from_secs(1)];
        let histogram = Histogram::new(&BOUNDS);
        histogram.observe(Duration::from_secs(2));
        let mut page = Page::new(format, 0);
        page.family(&BYTES).sample(&["m", "up"], 7);
        page.family(&CONNECT_LATENCY)
            .histogram(&["m"], &histogram.read());
        let recorder = metric::recorder();
        metrics::with_local_recorder(&recorder, || {
            MAPPINGS.set(&[], 2);
            RELOADS.set_total(&["success"], 3);
        });
        page.exported(&recorder.handle().render());
        let text = page.finish();
        let unhelpful = text.lines().filter(|line| !line.starts_with("# HELP"));
        unhelpful.map(|line| format!("{line}\n")).collect()
    }

    #[test]
    fn both_formats_have_the_same_samples() {
        let expected = |bytes: &str, reloads: &str, end: &str| {
            format!(
                r#"# TYPE {bytes} counter
tml_proxy_bytes_total{{mapping="m",direction="up"}} 7
# TYPE tml_proxy_connect_latency_seconds histogram
tml_proxy_connect_latency_seconds_bucket{{mapping="m",le="1.0"}} 0
tml_proxy_connect_latency_seconds_bucket{{mapping="m",le="+Inf"}} 1
tml_proxy_connect_latency_seconds_sum{{mapping="m"}} 2
tml_proxy_connect_latency_seconds_count{{mapping="m"}} 1
# TYPE {reloads} counter
tml_proxy_config_reloads_total{{result="success"}} 3
# TYPE tml_proxy_mappings gauge
tml_proxy_mappings 2
{end}"#
            )
        };
        let (bytes, reloads) = ("tml_proxy_bytes", "tml_proxy_config_reloads");
        assert_eq!(
            page(Format::Prometheus),
            expected(&format!("{bytes}_total"), &format!("{reloads}_total"), "")
        );
        assert_eq!(
            page(Format::OpenMetrics),
            expected(bytes, reloads, "# EOF\n")
        );
    }
}
