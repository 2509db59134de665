"""Grafana dashboards as code: one per question, each panel a few expressions over `/metrics`.

In: the rows below. Out: JSON that Grafana imports; `datasource` is a variable, so any Prometheus fits.
"""

import json
from typing import Any, NamedTuple

FOLDER = "infra/bulkhead_infra/observability/dashboards"
SCHEMA_VERSION = 39
WIDTH, HEIGHT, COLUMNS = 8, 8, 24


class Panel(NamedTuple):
    """One picture. queries: legend and expression. unit: as Grafana calls it. stat: a number in place of lines."""

    title: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    stat: bool = False


def _make_panel(title: str, unit: str, *queries: tuple[str, str], stat: bool = False) -> Panel:
    return Panel(title, queries, unit, stat)


_P95 = "histogram_quantile(0.95, sum by (le{more}) (rate(bulkhead_tasks_seconds_bucket[10m])))"
_OK = 'bulkhead_status="succeeded",bulkhead_standing="ok"'

DASHBOARDS: dict[str, tuple[str, tuple[Panel, ...]]] = {
    "spend": (
        "Bulkhead: spend and burn",
        (
            _make_panel(
                "Share of the day's ceilings",
                "percentunit",
                ("{{bulkhead_account}} {{bulkhead_unit}}", "bulkhead:day_share:max"),
            ),
            _make_panel(
                "Burn: share of a day's ceiling per hour",
                "percentunit",
                ("{{bulkhead_account}} {{bulkhead_unit}}", "increase(bulkhead:day_share:max[1h])"),
            ),
            _make_panel(
                "Dollars per hour",
                "currencyUSD",
                ("settled", 'sum(increase(bulkhead_budget_spent_total{bulkhead_unit="cost_usd_micros"}[1h])) / 1e6'),
                (
                    "of it estimated",
                    'sum(increase(bulkhead_budget_spent_total{bulkhead_unit="estimated_usd_micros"}[1h])) / 1e6',
                ),
            ),
            _make_panel(
                "Dollars per hour by model",
                "currencyUSD",
                (
                    "{{bulkhead_model}}",
                    "sum by (bulkhead_model) (increase(bulkhead_model_attempts_usd_micros_total[1h])) / 1e6",
                ),
            ),
            _make_panel(
                "Dollars per hour of attempts without an answer",
                "currencyUSD",
                (
                    "{{bulkhead_outcome}}",
                    "sum by (bulkhead_outcome) (increase(bulkhead_model_attempts_usd_micros_total"
                    '{bulkhead_outcome!="answered"}[1h])) / 1e6',
                ),
            ),
            _make_panel(
                "Alerts of limits, ceilings, top-ups",
                "short",
                ("alerts {{bulkhead_kind}}", "sum by (bulkhead_kind) (increase(bulkhead_budget_alerts_total[1h]))"),
                ("paused at a ceiling", "sum(increase(bulkhead_budget_ceilings_total[1h]))"),
                ("went on", "sum(increase(bulkhead_budget_let_go_total[1h]))"),
                ("topped up", "sum(increase(bulkhead_budget_top_ups_total[1h]))"),
            ),
        ),
    ),
    "queues": (
        "Bulkhead: queues and lag",
        (
            _make_panel("Running tasks", "short", ("running", "max(bulkhead_tasks_living)"), stat=True),
            _make_panel(
                "Tasks that wait for a place",
                "short",
                ("waiting", 'max(bulkhead_tasks_places{bulkhead_state="waiting"})'),
            ),
            _make_panel("Replicas that are ready", "short", ("{{service}}", "sum by (service) (bulkhead_ready)")),
            _make_panel(
                "Messages that wait",
                "short",
                ("{{bulkhead_inbox}}", "max by (bulkhead_inbox) (bulkhead_inbox_pending)"),
            ),
            _make_panel(
                "Messages in work", "short", ("{{bulkhead_inbox}}", "max by (bulkhead_inbox) (bulkhead_inbox_in_work)")
            ),
            _make_panel(
                "Places that are taken or waited for",
                "percentunit",
                (
                    "{{service}} {{kind}}",
                    "sum by (service, kind) (bulkhead_pool_wanted) / sum by (service, kind) (bulkhead_pool_places)",
                ),
            ),
            _make_panel("Fullest replica", "percentunit", ("{{service}}", "max by (service) (bulkhead_load)")),
            _make_panel(
                "Streams: share of their bound", "percentunit", ("{{bulkhead_stream}}", "bulkhead:stream_fill:ratio")
            ),
            _make_panel(
                "Dead letters that wait",
                "short",
                ("{{bulkhead_service}}", "max by (bulkhead_service) (bulkhead_dead_letters_open)"),
            ),
        ),
    ),
    "health": (
        "Bulkhead: breakers, deadlocks, waits",
        (
            _make_panel("Ledger", "short", ("ready", "max(bulkhead_ledger_ready)"), stat=True),
            _make_panel(
                "Degraded replicas", "short", ("{{service}}", "sum by (service) (bulkhead_degraded)"), stat=True
            ),
            _make_panel(
                "Breakers that are not closed",
                "short",
                (
                    "{{bulkhead_scope}} {{bulkhead_state}}",
                    "max by (bulkhead_scope, bulkhead_state) (bulkhead_breakers_open)",
                ),
            ),
            _make_panel(
                "Deadlocks, loops, chatter, stalls per hour",
                "short",
                (
                    "{{bulkhead_kind}} {{bulkhead_level}}",
                    "sum by (bulkhead_kind, bulkhead_level) (increase(bulkhead_watch_findings_total[1h]))",
                ),
            ),
            _make_panel("Halts", "short", ("{{bulkhead_scope}}", "max by (bulkhead_scope) (bulkhead_halts_standing)")),
            _make_panel(
                "Calls that wait for a halt", "short", ("{{service}}", "sum by (service) (bulkhead_calls_parked)")
            ),
            _make_panel("Tasks that stand still", "short", ("tasks", "max(bulkhead_tasks_quiet)")),
            _make_panel("Approvals that wait", "short", ("approvals", "max(bulkhead_approvals_waiting)")),
            _make_panel("Oldest approval", "s", ("oldest", "max(bulkhead_approvals_oldest_s)")),
            _make_panel(
                "Watcher's own errors per hour",
                "short",
                ("{{bulkhead_outcome}}", "sum by (bulkhead_outcome) (increase(bulkhead_watch_broke_total[1h]))"),
                ("journal lacks", "sum(increase(bulkhead_journal_lacks_total[1h]))"),
            ),
            _make_panel(
                "Posts to webhooks per hour",
                "short",
                ("{{bulkhead_outcome}}", "sum by (bulkhead_outcome) (increase(bulkhead_webhook_notices_total[1h]))"),
            ),
            _make_panel(
                "Push notifications per hour",
                "short",
                ("{{bulkhead_outcome}}", "sum by (bulkhead_outcome) (increase(bulkhead_push_posts_total[1h]))"),
            ),
        ),
    ),
    "answers": (
        "Bulkhead: quality and latency",
        (
            _make_panel(
                "Tasks that ended per hour",
                "short",
                (
                    "{{bulkhead_status}} {{bulkhead_standing}}",
                    "sum by (bulkhead_status, bulkhead_standing) (increase(bulkhead_tasks_seconds_count[1h]))",
                ),
            ),
            _make_panel(
                "Share of tasks with a whole answer",
                "percentunit",
                (
                    "ok",
                    f"sum(increase(bulkhead_tasks_seconds_count{{{_OK}}}[1h])) "
                    "/ sum(increase(bulkhead_tasks_seconds_count[1h]))",
                ),
            ),
            _make_panel(
                "Duration of tasks",
                "s",
                ("p50", _P95.format(more="").replace("0.95", "0.5")),
                ("p95", _P95.format(more="")),
                ("p95 {{bulkhead_status}}", _P95.format(more=", bulkhead_status")),
            ),
            _make_panel(
                "Calls of models per second",
                "reqps",
                (
                    "{{bulkhead_model}} {{bulkhead_outcome}}",
                    "sum by (bulkhead_model, bulkhead_outcome) (rate(bulkhead_model_attempts_total[5m]))",
                ),
            ),
            _make_panel(
                "Mean duration of a call of a model",
                "ms",
                (
                    "{{bulkhead_model}}",
                    "sum by (bulkhead_model) (rate(bulkhead_model_attempts_ms_total[5m])) "
                    "/ sum by (bulkhead_model) (rate(bulkhead_model_attempts_total[5m]))",
                ),
            ),
            _make_panel(
                "Failing calls of models", "percentunit", ("{{bulkhead_model}}", "bulkhead:attempts_failed:share10m")
            ),
            _make_panel(
                "Calls of tools per second",
                "reqps",
                (
                    "{{gen_ai_tool_name}} {{bulkhead_outcome}}",
                    "sum by (gen_ai_tool_name, bulkhead_outcome) (rate(bulkhead_tool_calls_total[5m]))",
                ),
            ),
            _make_panel(
                "Missed targets of latency per day",
                "short",
                ("{{bulkhead_feature}}", "sum by (bulkhead_feature) (increase(bulkhead_latency_missed_total[1d]))"),
            ),
            _make_panel(
                "Results with secrets or personal data per hour",
                "short",
                ("{{bulkhead_kind}}", "sum by (bulkhead_kind) (increase(bulkhead_tool_sensitive_total[1h]))"),
            ),
            _make_panel(
                "Writes of unknown outcome per day",
                "short",
                ("{{gen_ai_tool_name}}", "sum by (gen_ai_tool_name) (increase(bulkhead_writes_uncertain_total[1d]))"),
            ),
        ),
    ),
}


def files() -> dict[str, str]:
    """The rendered files, by path from the repository's root."""
    return {
        f"{FOLDER}/{name}.json": json.dumps(render_dashboard(name, title, panels), indent=1) + "\n"
        for name, (title, panels) in DASHBOARDS.items()
    }


def render_dashboard(name: str, title: str, panels: tuple[Panel, ...]) -> dict[str, Any]:
    """One dashboard as Grafana imports it."""
    source = {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    return {
        "uid": f"bulkhead-{name}",
        "title": title,
        "tags": ["bulkhead"],
        "schemaVersion": SCHEMA_VERSION,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [source]},
        "links": [
            {"type": "dashboards", "title": "Bulkhead", "tags": ["bulkhead"], "asDropdown": True, "includeVars": True}
        ],
        "panels": [_render_panel(number, panel) for number, panel in enumerate(panels)],
    }


def _render_panel(number: int, panel: Panel) -> dict[str, Any]:
    row, column = divmod(number, COLUMNS // WIDTH)
    source = {"type": "prometheus", "uid": "${datasource}"}
    targets = [
        {"refId": chr(ord("A") + index), "datasource": source, "expr": expr, "legendFormat": legend}
        for index, (legend, expr) in enumerate(panel.queries)
    ]
    return {
        "id": number + 1,
        "type": "stat" if panel.stat else "timeseries",
        "title": panel.title,
        "datasource": source,
        "gridPos": {"x": column * WIDTH, "y": row * HEIGHT, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {},
        "targets": targets,
    }
