//! Writing samples in Prometheus' text format and in OpenMetrics.
//!
//! Written by hand because of the cost: a page of 10 000 busy mappings has some 400 000 lines, and
//! a writer that builds label sets and values as objects takes several times the tenth of a second
//! such a scrape may take.

use std::fmt::Write;

use axum::http::{HeaderMap, header};

use super::series::{Kind, Series};
use crate::telemetry::Distribution;

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

/// A value of a sample.
#[derive(Debug, Clone, Copy)]
pub enum Value {
    /// A whole number.
    Whole(u64),
    /// Any number.
    Real(f64),
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Whole(value)
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        Self::Whole(value as u64)
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Whole(value.into())
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Whole(value.into())
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

/// A page being written.
#[derive(Debug)]
pub struct Exposition {
    format: Format,
    text: String,
}

impl Exposition {
    /// An empty page with room for `capacity` bytes.
    pub fn new(format: Format, capacity: usize) -> Self {
        Self {
            format,
            text: String::with_capacity(capacity),
        }
    }

    /// Announces a series; its samples follow.
    pub fn family(&mut self, series: &'static Series) -> Family<'_> {
        let name = match (self.format, series.kind) {
            // OpenMetrics calls the family without the suffix that its samples have.
            (Format::OpenMetrics, Kind::Counter) => series.name.trim_end_matches("_total"),
            _ => series.name,
        };
        let (help, kind) = (series.help, series.kind.word());
        // Writing to a string cannot fail, here and below.
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        Family {
            text: &mut self.text,
            series,
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

/// The samples of one series.
#[derive(Debug)]
pub struct Family<'a> {
    text: &'a mut String,
    series: &'static Series,
}

impl Family<'_> {
    /// Writes a sample with the values of the labels in their order.
    pub fn sample(&mut self, labels: &[&str], value: impl Into<Value>) {
        debug_assert_eq!(labels.len(), self.series.labels.len());
        self.line("", labels, None, value.into());
    }

    /// Writes all samples of a histogram.
    pub fn histogram<const N: usize>(&mut self, labels: &[&str], read: &Distribution<N>) {
        for (bound, count) in read.buckets {
            self.line("_bucket", labels, Some(bound), count.into());
        }
        self.line("_bucket", labels, Some(f64::INFINITY), read.count.into());
        self.line("_sum", labels, None, read.sum.into());
        self.line("_count", labels, None, read.count.into());
    }

    fn line(&mut self, suffix: &str, labels: &[&str], bound: Option<f64>, value: Value) {
        self.text.push_str(self.series.name);
        self.text.push_str(suffix);
        let mut before = '{';
        for (label, value) in self.series.labels.iter().zip(labels) {
            self.text.push(before);
            self.text.push_str(label);
            self.text.push_str("=\"");
            escape(self.text, value);
            self.text.push('"');
            before = ',';
        }
        if let Some(bound) = bound {
            self.text.push(before);
            self.text.push_str("le=\"");
            real(self.text, bound);
            self.text.push('"');
            before = ',';
        }
        if before == ',' {
            self.text.push('}');
        }
        self.text.push(' ');
        match value {
            Value::Whole(value) => _ = write!(self.text, "{value}"),
            Value::Real(value) => real(self.text, value),
        }
        self.text.push('\n');
    }
}

/// A number such that it is never taken for a whole one, as OpenMetrics wants bounds to be.
fn real(text: &mut String, value: f64) {
    if value.is_infinite() {
        text.push_str("+Inf");
    } else {
        let _ = write!(text, "{value:?}");
    }
}

fn escape(text: &mut String, value: &str) {
    if !value.contains(['\\', '"', '\n']) {
        return text.push_str(value);
    }
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            _ => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{
        super::series::{BYTES, CONNECT_LATENCY, MAPPINGS},
        *,
    };
    use crate::telemetry::Histogram;

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
        let mut page = Exposition::new(format, 0);
        page.family(&BYTES).sample(&["a\\\"\n", "up"], 7u64);
        page.family(&CONNECT_LATENCY)
            .histogram(&["m"], &histogram.read());
        page.family(&MAPPINGS).sample(&[], 2u64);
        let text = page.finish();
        let unhelpful = text.lines().filter(|line| !line.starts_with("# HELP"));
        unhelpful.map(|line| format!("{line}\n")).collect()
    }

    const SAMPLES: &str = r#"tml_proxy_bytes_total{mapping="a\\\"\n",direction="up"} 7
# TYPE tml_proxy_connect_latency_seconds histogram
tml_proxy_connect_latency_seconds_bucket{mapping="m",le="1.0"} 0
tml_proxy_connect_latency_seconds_bucket{mapping="m",le="+Inf"} 1
tml_proxy_connect_latency_seconds_sum{mapping="m"} 2.0
tml_proxy_connect_latency_seconds_count{mapping="m"} 1
# TYPE tml_proxy_mappings gauge
tml_proxy_mappings 2
"#;

    #[test]
    fn both_formats_have_the_same_samples() {
        assert_eq!(
            page(Format::Prometheus),
            format!("# TYPE tml_proxy_bytes_total counter\n{SAMPLES}")
        );
        assert_eq!(
            page(Format::OpenMetrics),
            format!("# TYPE tml_proxy_bytes counter\n{SAMPLES}# EOF\n")
        );
    }
}
