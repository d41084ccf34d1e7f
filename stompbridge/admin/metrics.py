"""``/metrics``, in Prometheus' text format. The parts of the process count with plain integers, which are read when
somebody asks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf

from prometheus_client import Metric, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from stompbridge.admin.measures import SECTIONS, Measure, Value
from stompbridge.admin.snapshot import Measured, Snapshot
from stompbridge.gateway.traffic import add_up
from stompbridge.histogram import Histogram

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _Families(Collector):
    """All measures at one moment, in place of prometheus_client's global registry: nothing else gets in."""

    def __init__(self, now: Snapshot) -> None:
        self._now = now

    def collect(self) -> Iterable[Metric]:
        for measures in SECTIONS.values():
            for measure in measures:
                yield family(measure, measure.read(self._now))


class Metrics:
    """The measures of ``daemon``."""

    def __init__(self, daemon: Measured) -> None:
        self._daemon = daemon

    async def render(self) -> bytes:
        """The answer to a scrape; its type is :data:`CONTENT_TYPE`. A measure that the configuration leaves out has its
        name and help, and no samples."""
        sums = await add_up(self._daemon.gateway, self._daemon.traffic)
        return generate_latest(_Families(Snapshot(self._daemon, sums)))


def family(measure: Measure, value: Value) -> Metric:
    """``measure`` with its samples."""
    name, labels = measure.full_name, measure.labels
    if measure.kind == "histogram":
        assert isinstance(value, Histogram)
        buckets = [("+Inf" if bound == inf else str(bound), count) for bound, count in value.cumulative()]
        return HistogramMetricFamily(name, measure.help, buckets=buckets, sum_value=value.sum)
    make = CounterMetricFamily if measure.kind == "counter" else GaugeMetricFamily
    made = make(name, measure.help, labels=labels)
    if isinstance(value, int | float):
        made.add_metric((), value)
    elif isinstance(value, Mapping):
        for values, number in value.items():
            made.add_metric((values,) if isinstance(values, str) else values, number)
    return made
