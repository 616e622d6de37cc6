//! The page that Prometheus reads, in the OpenMetrics text format, by `prometheus_client`.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabelSet, MetricEncoder,
    NoLabelSet, text,
};
use prometheus_client::registry::Registry;

use super::{Histogram, Metric};

/// A page in the making.
pub struct Page<'a>(DescriptorEncoder<'a>);

/// A metric with its samples in the making.
pub struct Family<'a>(MetricEncoder<'a>);

/// A page with the metrics that `write` puts on it, which is likely to have about so many bytes.
///
/// # Errors
/// When `write` has one.
pub(super) fn page(
    bytes: usize,
    write: impl Fn(&mut Page<'_>) -> fmt::Result + Send + Sync + 'static,
) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Written(write)));
    // Growing from nothing, it would take up to three times its size.
    let mut page = String::with_capacity(bytes + bytes / 16);
    text::encode(&mut page, &registry)?;
    Ok(page)
}

struct Written<F>(F);

impl<F> fmt::Debug for Written<F> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Written")
    }
}

impl<F> Collector for Written<F>
where
    F: Fn(&mut Page<'_>) -> fmt::Result + Send + Sync + 'static,
{
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        (self.0)(&mut Page(encoder))
    }
}

impl Page<'_> {
    /// Begins a metric. Its samples follow.
    ///
    /// # Errors
    /// When the page can't be written to.
    pub fn metric<'s>(&'s mut self, metric: &'s Metric) -> Result<Family<'s>, fmt::Error> {
        let Metric {
            name,
            help,
            kind,
            unit,
        } = metric;
        let encoder = self.0.encode_descriptor(name, help, unit.as_ref(), *kind)?;
        Ok(Family(encoder))
    }
}

impl Family<'_> {
    /// A sample of a counter.
    ///
    /// # Errors
    /// When the page can't be written to.
    pub fn count(
        &mut self,
        labels: &impl EncodeLabelSet,
        count: impl EncodeCounterValue,
    ) -> fmt::Result {
        let mut sample = self.0.encode_family(labels)?;
        sample.encode_counter::<NoLabelSet, _, u64>(&count, None)
    }

    /// A sample of a gauge.
    ///
    /// # Errors
    /// When the page can't be written to.
    pub fn gauge(
        &mut self,
        labels: &impl EncodeLabelSet,
        value: impl EncodeGaugeValue,
    ) -> fmt::Result {
        self.0.encode_family(labels)?.encode_gauge(&value)
    }

    /// A histogram; one that has counted nothing is left out.
    ///
    /// # Errors
    /// When the page can't be written to.
    pub fn histogram(
        &mut self,
        labels: &impl EncodeLabelSet,
        histogram: &Histogram,
    ) -> fmt::Result {
        let counted = histogram.counted();
        if counted.count == 0 {
            return Ok(());
        }
        let mut sample = self.0.encode_family(labels)?;
        sample.encode_histogram::<NoLabelSet>(
            counted.sum_seconds,
            counted.count,
            &counted.buckets,
            None,
        )
    }
}
