"""What ``/metrics`` says, by sample."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from prometheus_client.parser import text_string_to_metric_families

from tests.support.bridge import Bridge

Samples = Mapping[str, float]
"""By name and, in Prometheus' way of writing them, labels: ``stompbridge_frames_total{command="SEND",...}``."""


def parse(text: str) -> dict[str, float]:
    samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return samples


def names(text: str) -> set[str]:
    """All families, with or without samples, as ``# TYPE`` has them."""
    return {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")}


def scrape(bridge: Bridge) -> dict[str, float]:
    status, text = bridge.get("/metrics")
    assert status == 200, text
    return parse(text)


def scrape_until(bridge: Bridge, condition: Callable[[Samples], bool], within: float = 10.0) -> dict[str, float]:
    """Scrapes again and again until the condition holds."""
    deadline = time.monotonic() + within
    while not condition(samples := scrape(bridge)):
        assert time.monotonic() < deadline, samples
        time.sleep(0.02)
    return samples
