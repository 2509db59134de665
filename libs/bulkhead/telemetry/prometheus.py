"""Metrics of one process in Prometheus's text format, under the names that OpenTelemetry's own exporters give them.

In: metrics as the SDK collects them, and families that no instrument stands for. Out: the text of `/metrics`.
`bulkhead.budget.spent`, a counter, is `bulkhead_budget_spent_total`; attributes become labels in the same way.
"""

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import HistogramDataPoint, Metric, MetricsData

CONTENT_TYPE = b"text/plain; version=0.0.4"
_NO_NAME = re.compile(r"[^a-zA-Z0-9_]")


class GaugeFamily(NamedTuple):
    """A gauge: its name as Prometheus writes it, what it tells, values by one label."""

    name: str
    help_text: str
    label: str
    values: Mapping[str, float]


def render_exposition(families: list[GaugeFamily], collected: "MetricsData | None" = None) -> str:
    """The whole text; every family once."""
    lines: list[str] = []
    for family in families:
        lines += _head_lines(family.name, family.help_text, "gauge")
        lines += [
            f"{family.name}{_label_text({family.label: key} if key else {})} {_number_text(v)}"
            for key, v in family.values.items()
        ]
    for resource in collected.resource_metrics if collected is not None else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                lines += _metric_lines(metric)
    return "\n".join([*lines, ""])


def name_of(metric: str, *, counter: bool = False) -> str:
    """The name of an instrument, or of an attribute, as Prometheus writes it."""
    return _NO_NAME.sub("_", metric) + ("_total" if counter else "")


def _metric_lines(metric: "Metric") -> Iterator[str]:
    # Known by then: a process without metrics need not hold them.
    from opentelemetry.sdk.metrics.export import Gauge, Histogram, Sum

    counter = isinstance(metric.data, Sum) and metric.data.is_monotonic
    name = name_of(metric.name, counter=counter)
    if isinstance(metric.data, Histogram):
        yield from _head_lines(name, metric.description, "histogram")
        for histogram in metric.data.data_points:
            yield from _histogram_lines(name, histogram)
    elif isinstance(metric.data, Sum | Gauge):
        yield from _head_lines(name, metric.description, "counter" if counter else "gauge")
        for point in metric.data.data_points:
            yield f"{name}{_label_text(point.attributes or {})} {_number_text(point.value)}"


def _histogram_lines(name: str, point: "HistogramDataPoint") -> Iterator[str]:
    below, attributes = 0, dict(point.attributes or {})
    for bound, count in zip((*point.explicit_bounds, float("inf")), point.bucket_counts, strict=True):
        below += count
        upper = "+Inf" if bound == float("inf") else _number_text(bound)
        yield f"{name}_bucket{_label_text({**attributes, 'le': upper})} {below}"
    yield f"{name}_sum{_label_text(attributes)} {_number_text(point.sum)}"
    yield f"{name}_count{_label_text(attributes)} {point.count}"


def _head_lines(name: str, help_text: str | None, kind: str) -> list[str]:
    plain = " ".join((help_text or "").split()).replace("\\", "/")
    return [f"# HELP {name} {plain}", f"# TYPE {name} {kind}"]


def _label_text(attributes: Mapping[str, object]) -> str:
    pairs = (f'{name_of(key)}="{_escape_value(str(value))}"' for key, value in sorted(attributes.items()))
    return f"{{{','.join(pairs)}}}" if attributes else ""


def _escape_value(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number_text(value: float) -> str:
    """Whole numbers as they are: amounts of money are larger than what six digits tell."""
    return str(value) if isinstance(value, int) else repr(float(value)) if value % 1 else str(int(value))
