//! Families of metrics as messages of `io.prometheus.client`, each behind its length.
//!
//! Written by hand: the exporter compiles its messages with `protoc`, which a machine would have to
//! have, and these are five kinds of fields.

use crate::telemetry::{Distribution, SCHEMA, metric::Kind};

/// A message being written.
#[derive(Debug, Default)]
pub struct Message(Vec<u8>);

impl Message {
    /// The family's name, meaning and kind, and its metrics, each a message.
    pub fn family(name: &str, help: &str, kind: Kind) -> Self {
        let kind = match kind {
            Kind::Counter => 0,
            Kind::Gauge => 1,
            Kind::Histogram(_) => 4,
        };
        let mut family = Self::default();
        family.bytes(1, name.as_bytes());
        family.bytes(2, help.as_bytes());
        family.number(3, kind);
        family
    }

    /// Adds a metric with these labels to a family.
    pub fn metric<'a>(
        &mut self,
        labels: impl Iterator<Item = (&'static str, &'a str)>,
        value: &Self,
    ) {
        let mut metric = Self::default();
        for (label, value) in labels {
            let mut pair = Self::default();
            pair.bytes(1, label.as_bytes());
            pair.bytes(2, value.as_bytes());
            metric.bytes(1, &pair.0);
        }
        metric.0.extend_from_slice(&value.0);
        self.bytes(4, &metric.0);
    }

    /// What a metric of a counter or gauge holds.
    pub fn value(kind: Kind, value: f64) -> Self {
        let mut inner = Self::default();
        inner.real(1, value);
        let mut outer = Self::default();
        outer.bytes(if kind == Kind::Gauge { 2 } else { 3 }, &inner.0);
        outer
    }

    /// What a metric of a histogram holds: the classic one and, unless there is none, the native one.
    pub fn histogram(read: &Distribution) -> Self {
        let mut inner = Self::default();
        inner.number(1, read.count);
        inner.real(2, read.sum);
        for (bound, count) in &read.buckets {
            let mut bucket = Self::default();
            bucket.number(1, *count);
            bucket.real(2, *bound);
            inner.bytes(3, &bucket.0);
        }
        if read.zero_threshold > 0.0 {
            inner.native(read);
        }
        let mut outer = Self::default();
        outer.bytes(7, &inner.0);
        outer
    }

    /// Buckets are told as spans of neighbours, their counts as differences from one to the next.
    fn native(&mut self, read: &Distribution) {
        self.number(5, zigzag(SCHEMA.into()));
        self.real(6, read.zero_threshold);
        self.number(7, read.zero_count);
        let mut next = 0;
        for neighbours in read.native.chunk_by(|one, other| one.0 + 1 == other.0) {
            let mut span = Self::default();
            span.number(1, zigzag((neighbours[0].0 - next).into()));
            span.number(2, neighbours.len() as u64);
            self.bytes(12, &span.0);
            next = neighbours[neighbours.len() - 1].0 + 1;
        }
        let mut before = 0;
        for (_, count) in &read.native {
            let count = i64::try_from(*count).unwrap_or(i64::MAX);
            self.number(13, zigzag(count - before));
            before = count;
        }
    }

    /// Appends it to `out`, behind its length.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        varint(out, self.0.len() as u64);
        out.extend_from_slice(&self.0);
    }

    fn number(&mut self, field: u64, value: u64) {
        varint(&mut self.0, field << 3);
        varint(&mut self.0, value);
    }

    fn real(&mut self, field: u64, value: f64) {
        varint(&mut self.0, field << 3 | 1);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        varint(&mut self.0, field << 3 | 2);
        varint(&mut self.0, value.len() as u64);
        self.0.extend_from_slice(value);
    }
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A number with a sign such that small ones are short.
fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}
