"""Metrics as OpenTelemetry counters and gauges: spending, findings, halts and waiting work.

In: counts. Out: metrics to the OTLP endpoint of the traces, if there is one, and the text of `/metrics`. No attribute
names a task, a tenant or a person: there are too many of them, and readers of metrics need not know them.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

from bulkhead.telemetry import names

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricReader, MetricsData

EVERY_MS = 10_000
Counts = Mapping[tuple[tuple[str, str], ...], float]
"""By attributes, as pairs of name and value."""
ReadGauge = Callable[[], Counts]

_meter = metrics.get_meter("bulkhead")
spent = _meter.create_counter(names.SPENT, description="What settled calls used, by unit")
_attempts = _meter.create_counter(names.ATTEMPTS, description="Calls to providers, by model and how they ended")
_attempts_cost = _meter.create_counter(names.ATTEMPTS_COST, description="Cost of calls to providers")
_attempts_time = _meter.create_counter(names.ATTEMPTS_TIME, description="Duration of calls to providers")
alerts = _meter.create_counter(names.ALERTS, description="Limits that came near, by threshold, unit and account")
latency_missed = _meter.create_counter(names.LATENCY_MISSED, description="Targets of latency that a feature missed")
ceilings = _meter.create_counter(names.CEILINGS, description="Tasks halted at a ceiling, by unit and account")
let_go = _meter.create_counter(names.LET_GO, description="Tasks that went on from a ceiling")
top_ups = _meter.create_counter(names.TOP_UPS, description="Top-ups of tasks")
pushes = _meter.create_counter(names.PUSHES, description="Push notifications, by how they ended")
webhooks = _meter.create_counter(names.WEBHOOKS, description="Posts to tenants' webhooks, by how they ended")
journal_lacks = _meter.create_counter(names.JOURNAL_LACKS, description="Messages that the journal has passed over")
retrievals_ahead = _meter.create_counter(names.RETRIEVALS_AHEAD, description="Queries embedded ahead, and those used")
tool_calls = _meter.create_counter(names.TOOL_CALLS, description="Calls of tools, by tool and how they ended")
tool_sensitive = _meter.create_counter(names.TOOL_SENSITIVE, description="Outputs of tools with keys or personal data")
logins = _meter.create_counter(names.LOGINS, description="Logins to the broker by token, by how they ended")
findings = _meter.create_counter(names.FINDINGS, description="Findings of budget's watcher, by kind and level")
canary_rollbacks = _meter.create_counter(names.CANARY_ROLLBACKS, description="Canaries rolled back, by metric")
writes_uncertain = _meter.create_counter(names.WRITES_UNCERTAIN, description="Writes that may have been done")
ratings = _meter.create_counter(names.RATINGS, description="Ratings of answers, by kind and score")
tasks_time = _meter.create_histogram(
    names.TASKS_TIME,
    description="Seconds from request to end, by how the task ended and what its answer is worth",
    explicit_bucket_boundaries_advisory=(1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 14400, 86400),
)
watch_broke = _meter.create_counter(names.WATCH_BROKE, description="Folds of budget's watcher that ended by an error")


_scraped: "InMemoryMetricReader | None" = None


def setup(service: str, instance: str, otlp_endpoint: str, reader: "MetricReader | None" = None) -> None:
    """Configure this process, once. reader: where metrics go instead of the endpoint."""
    global _scraped
    # Not at the top: libraries that count something need not hold them.
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader, PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import Resource

    _scraped = InMemoryMetricReader()
    readers: list[MetricReader] = [_scraped]
    if reader is not None:
        readers.append(reader)
    elif otlp_endpoint:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

        exporter = OTLPMetricExporter(endpoint=otlp_endpoint.rstrip("/") + "/v1/metrics")
        readers.append(PeriodicExportingMetricReader(exporter, export_interval_millis=EVERY_MS))
    resource = Resource.create(
        {"service.name": service, "service.namespace": "bulkhead", "service.instance.id": instance}
    )
    metrics.set_meter_provider(MeterProvider(readers, resource=resource, shutdown_on_exit=True))


def collected_metrics() -> "MetricsData | None":
    """All that was counted in this process, and its gauges read now; None before `setup`."""
    return _scraped.get_metrics_data() if _scraped is not None else None


def count_attempt(model: str, failed: str, cost_usd_micros: int, took_ms: int) -> None:
    """Count one call to a provider. failed: why it brought no answer; what such calls cost is that of retries and
    fallbacks."""
    by = {names.MODEL: model, names.OUTCOME: failed or "answered"}
    _attempts.add(1, by)
    _attempts_cost.add(cost_usd_micros, by)
    _attempts_time.add(took_ms, by)


def register_gauge(name: str, read_gauge: ReadGauge) -> None:
    """Have a gauge read whenever metrics are. `read_gauge` must be quick; it is called in another thread."""

    def observe_values(_: CallbackOptions) -> Iterable[Observation]:
        return [Observation(value, dict(attributes)) for attributes, value in read_gauge().items()]

    _meter.create_observable_gauge(name, [observe_values])
