//! The page: families, each with the lines of its samples.
//!
//! Lines are put together here because of the cost: a page of 10 000 busy mappings has some 400 000 of
//! them, and the exporter's own writer takes its labels as a map of strings for each.

use std::io::Write;

use axum::http::{HeaderMap, header};
use metrics_exporter_prometheus::formatting::{write_help_line, write_type_line};

use super::protobuf::Message;
use crate::telemetry::{
    Distribution,
    metric::{Kind, Metric},
    recorder::{Recording, Value},
};

/// The formats of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Prometheus' text, version 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0; it differs in how counters are announced and in how a page ends.
    OpenMetrics,
    /// Messages, with native histograms.
    Protobuf,
}

impl Format {
    /// Every format, the one that says most last.
    pub const ALL: [Self; 3] = [Self::Prometheus, Self::OpenMetrics, Self::Protobuf];

    /// The format to answer a request in that has these headers: the one that `Accept` names and
    /// wants most, and text if it names none.
    pub fn wanted_by(headers: &HeaderMap) -> Self {
        let stated = headers.get_all(header::ACCEPT).iter();
        let stated: Vec<_> = stated.filter_map(|value| value.to_str().ok()).collect();
        Self::accepted(&stated.join(","))
    }

    /// The same, given the types that `Accept` lists.
    fn accepted(types: &str) -> Self {
        let mut weights = [0.0; Self::ALL.len()];
        for range in types.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            let weight = parts
                .filter_map(|part| part.split_once('='))
                .find(|(key, _)| key.trim().eq_ignore_ascii_case("q"))
                .map_or(Some(1.0), |(_, weight)| weight.trim().parse().ok());
            // What is no weight wants nothing.
            let weight: f32 = weight.filter(|q| (0.0..=1.0).contains(q)).unwrap_or(0.0);
            let known = |format: &Self| name.eq_ignore_ascii_case(format.name());
            if let Some(format) = Self::ALL.into_iter().find(known) {
                let held = &mut weights[format as usize];
                *held = weight.max(*held);
            }
        }
        let wanted = Self::ALL.into_iter().filter(|f| weights[*f as usize] > 0.0);
        wanted
            .max_by(|one, other| weights[*one as usize].total_cmp(&weights[*other as usize]))
            .unwrap_or(Self::Prometheus)
    }

    /// Its media type without parameters.
    pub fn name(self) -> &'static str {
        let (name, _) = self.media_type().split_once(';').expect("parameters");
        name
    }

    /// Its media type.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Protobuf => {
                "application/vnd.google.protobuf; \
                 proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        }
    }
}

/// A page being written.
#[derive(Debug)]
pub struct Page {
    format: Format,
    out: Vec<u8>,
}

impl Page {
    /// An empty page with room for `capacity` bytes.
    pub fn new(format: Format, capacity: usize) -> Self {
        let out = Vec::with_capacity(capacity);
        Self { format, out }
    }

    /// Adds what was recorded.
    pub fn recorded(&mut self, recording: &Recording) {
        let series = recording.series();
        for of_metric in series.chunk_by(|one, other| one.metric.name == other.metric.name) {
            let mut family = self.family(of_metric[0].metric);
            for series in of_metric {
                let labels: Vec<&str> = series.labels.iter().map(String::as_str).collect();
                family.sample(&labels, series.value);
            }
        }
    }

    /// Announces a metric; its samples follow.
    pub fn family(&mut self, metric: &'static Metric) -> Family<'_> {
        let Metric {
            name, kind, help, ..
        } = *metric;
        if self.format != Format::Protobuf {
            let name = match (self.format, kind) {
                (Format::OpenMetrics, Kind::Counter) => name.trim_end_matches("_total"),
                _ => name,
            };
            let mut head = String::new();
            write_help_line(&mut head, name, None, None, help);
            write_type_line(&mut head, name, None, None, kind.word());
            self.out.extend_from_slice(head.as_bytes());
        }
        Family {
            message: (self.format == Format::Protobuf).then(|| Message::family(name, help, kind)),
            out: &mut self.out,
            metric,
            bounds: Vec::new(),
        }
    }

    /// The page.
    pub fn finish(mut self) -> Vec<u8> {
        if self.format == Format::OpenMetrics {
            self.out.extend_from_slice(b"# EOF\n");
        }
        self.out
    }
}

/// The samples of one metric, on the page when this is dropped. The values of its labels need no
/// escaping.
#[derive(Debug)]
pub struct Family<'a> {
    message: Option<Message>,
    out: &'a mut Vec<u8>,
    metric: &'static Metric,
    /// The labels of its buckets, which are the same in all its histograms.
    bounds: Vec<String>,
}

impl Drop for Family<'_> {
    fn drop(&mut self) {
        if let Some(message) = &self.message {
            message.append_to(self.out);
        }
    }
}

impl Family<'_> {
    /// Writes a sample with the values of the labels in their order.
    pub fn sample(&mut self, labels: &[&str], value: impl Into<Value>) {
        debug_assert_eq!(labels.len(), self.metric.labels.len());
        let value = value.into();
        match &mut self.message {
            Some(message) => {
                let real = match value {
                    Value::Whole(value) => value as f64,
                    Value::Real(value) => value,
                };
                let value = Message::value(self.metric.kind, real);
                message.metric(self.metric.labelled(labels), &value);
            }
            None => line(self.out, self.metric, "", labels, "", value),
        }
    }

    /// Writes all samples of a histogram.
    pub fn histogram(&mut self, labels: &[&str], read: &Distribution) {
        if let Some(message) = &mut self.message {
            let value = Message::histogram(read);
            return message.metric(self.metric.labelled(labels), &value);
        }
        for (bound, _) in &read.buckets[self.bounds.len().min(read.buckets.len())..] {
            // Never taken for a whole number, as OpenMetrics wants bounds to be.
            self.bounds.push(format!("le=\"{bound:?}\""));
        }
        let mut line = |suffix, bound: &str, value| {
            line(self.out, self.metric, suffix, labels, bound, value);
        };
        for (bound, (_, count)) in self.bounds.iter().zip(&read.buckets) {
            line("_bucket", bound, Value::Whole(*count));
        }
        line("_bucket", "le=\"+Inf\"", Value::Whole(read.count));
        line("_sum", "", Value::Real(read.sum));
        line("_count", "", Value::Whole(read.count));
    }
}

/// Writes a line; `bound` is the label of a bucket.
fn line(
    out: &mut Vec<u8>,
    metric: &Metric,
    suffix: &str,
    labels: &[&str],
    bound: &str,
    value: Value,
) {
    let mut put = |text: &str| out.extend_from_slice(text.as_bytes());
    put(metric.name);
    put(suffix);
    let mut before = "{";
    for (label, value) in metric.labelled(labels) {
        for part in [before, label, "=\"", value, "\""] {
            put(part);
        }
        before = ",";
    }
    if !bound.is_empty() {
        put(before);
        put(bound);
        before = ",";
    }
    put(if before == "," { "} " } else { " " });
    match value {
        Value::Whole(value) => put(itoa::Buffer::new().format(value)),
        // Writing to memory cannot fail.
        Value::Real(value) => _ = write!(out, "{value}"),
    }
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::{
        Buckets, Histogram,
        metric::{BYTES, CONNECT_LATENCY, MAPPINGS, RELOADS},
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
        const PROTOBUF: &str = "application/vnd.google.protobuf;encoding=delimited";
        for (types, expected) in [
            (format!("{PROTOBUF};q=0.6,{OPEN};q=0.5"), Format::Protobuf),
            (
                format!("{PROTOBUF};q=0.4,{OPEN};q=0.5"),
                Format::OpenMetrics,
            ),
            (format!("{PROTOBUF};q=0"), Format::Prometheus),
        ] {
            assert_eq!(Format::accepted(&types), expected, "{types}");
        }
        let mut headers = HeaderMap::new();
        for types in ["text/html", OPEN] {
            headers.append(header::ACCEPT, types.parse().expect("a header"));
        }
        assert_eq!(Format::wanted_by(&headers), Format::OpenMetrics);
    }

    fn page(format: Format) -> String {
        static BUCKETS: Buckets = Buckets::new(&[Duration::from_secs(1)]);
        let histogram = Histogram::new(&BUCKETS);
        histogram.observe(Duration::from_secs(2));
        let mut page = Page::new(format, 0);
        page.family(&BYTES).sample(&["m", "up"], 7_u64);
        page.family(&CONNECT_LATENCY)
            .histogram(&["m"], &histogram.read());
        let recording = Recording::new();
        metrics::with_local_recorder(&recording, || {
            MAPPINGS.set(&[], 2);
            RELOADS.set_total(&["success"], 3);
        });
        page.recorded(&recording);
        let text = String::from_utf8(page.finish()).expect("text");
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
