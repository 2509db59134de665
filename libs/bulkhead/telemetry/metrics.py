"""Metrics as OpenTelemetry counters and gauges: spending, findings, halts and waiting work.

In: counts. Out: metrics to the OTLP endpoint of the traces; nothing without one. No attribute names a task, a tenant or
a person: there are too many of them, and readers of metrics need not know them.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

from bulkhead.telemetry import names

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricReader

EVERY_MS = 10_000
Counts = Mapping[tuple[tuple[str, str], ...], int]
"""By attributes, as pairs of name and value."""
Look = Callable[[], Counts]

_meter = metrics.get_meter("bulkhead")
spent = _meter.create_counter(names.SPENT, description="What settled calls used, by unit")
alerts = _meter.create_counter(names.ALERTS, description="Limits that came near, by threshold, unit and account")
ceilings = _meter.create_counter(names.CEILINGS, description="Tasks halted at a ceiling, by unit and account")
let_go = _meter.create_counter(names.LET_GO, description="Tasks that went on from a ceiling")
top_ups = _meter.create_counter(names.TOP_UPS, description="Top-ups of tasks")
webhooks = _meter.create_counter(names.WEBHOOKS, description="Posts to tenants' webhooks, by how they ended")
watch_broke = _meter.create_counter(names.WATCH_BROKE, description="Folds of budget's watcher that ended by an error")


def setup(service: str, instance: str, otlp_endpoint: str, reader: "MetricReader | None" = None) -> None:
    """Configure this process, once. reader: where metrics go instead of the endpoint."""
    if reader is None and not otlp_endpoint:
        return
    # Not at the top: a process without an endpoint need not hold them.
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import Resource

    if reader is None:
        exporter = OTLPMetricExporter(endpoint=otlp_endpoint.rstrip("/") + "/v1/metrics")
        reader = PeriodicExportingMetricReader(exporter, export_interval_millis=EVERY_MS)
    resource = Resource.create(
        {"service.name": service, "service.namespace": "bulkhead", "service.instance.id": instance}
    )
    metrics.set_meter_provider(MeterProvider([reader], resource=resource, shutdown_on_exit=True))


def gauge(name: str, look: Look) -> None:
    """Have a gauge read whenever metrics are. `look` must be quick; it is called in another thread."""

    def observe(_: CallbackOptions) -> Iterable[Observation]:
        return [Observation(value, dict(attributes)) for attributes, value in look().items()]

    _meter.create_observable_gauge(name, [observe])
