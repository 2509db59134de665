"""Rules, alerts, dashboards and configuration, by Prometheus's own tool: they parse, fire on troubles, and ask for
nothing that the mesh does not tell. Where no program can be had (Grafana, the collector) a schema holds them."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from bulkhead.telemetry import names, prometheus
from bulkhead_infra import observability
from bulkhead_infra.observability import dashboards
from tests.needs import need
from tests.paths import ROOT

HERE = Path(__file__).parent
RULES = yaml.safe_load((observability.HERE / "alerts.yaml").read_text())
ROWS = [rule for group in RULES["groups"] for rule in group["rules"]]
ALERTS = sorted({rule["alert"] for rule in ROWS if "alert" in rule})
RECORDED = {rule["record"] for rule in ROWS if "record" in rule}
DRAWN = {path.stem: json.loads(path.read_text()) for path in sorted((observability.HERE / "dashboards").glob("*.json"))}
PANELS = [(name, panel) for name, drawn in sorted(DRAWN.items()) for panel in drawn["panels"]]
EXPRESSIONS = sorted({one["expr"] for _, panel in PANELS for one in panel["targets"]} | {row["expr"] for row in ROWS})
COUNTERS = """
from bulkhead.telemetry import metrics, prometheus
metrics.setup("x", "0", "")
for one in list(vars(metrics).values()):
    if hasattr(one, "add"): one.add(1)
    if hasattr(one, "record"): one.record(1)
print(prometheus.render_exposition([], metrics.collected_metrics()))
"""


def promtool(*arguments: str) -> str:
    need("prometheus")
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def told() -> set[str]:
    """Every name that a process of the mesh may tell at /metrics."""
    done = subprocess.run([sys.executable, "-c", COUNTERS], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]
    counted = {re.split(r"[ {]", row)[0] for row in done.stdout.splitlines() if row and not row.startswith("#")}
    plain = {value for value in vars(names).values() if isinstance(value, str) and value.startswith("bulkhead")}
    return counted | {prometheus.name_of(name) for name in plain if f"{prometheus.name_of(name)}_total" not in counted}


@pytest.mark.slow
def test_every_alert_fires_on_its_trouble_and_on_nothing_else(tmp_path: Path) -> None:
    for path in (observability.HERE / "alerts.yaml", HERE / "alerts_test.yaml"):
        shutil.copy(path, tmp_path)
    assert "SUCCESS" in promtool("test", "rules", str(tmp_path / "alerts_test.yaml"))
    tried = (HERE / "alerts_test.yaml").read_text()
    assert [name for name in ALERTS if name not in tried] == []


def test_an_alert_says_how_bad_it_is_and_where_its_page_stands() -> None:
    page = (ROOT / "docs" / "how-to" / "runbooks.md").read_text()
    sections = set(re.findall(r"^## (\w+)$", page, re.M))
    assert sections == set(ALERTS), "a section per alert, under its name"
    for row in (row for row in ROWS if "alert" in row):
        assert row["labels"]["severity"] in ("critical", "warning") and row["annotations"].keys() >= {"summary"}
        assert row["annotations"]["runbook_url"] == f"{observability.RUNBOOKS}#{row['alert'].lower()}"
        assert row["annotations"]["description"]


def test_all_expressions_parse_and_name_what_the_mesh_tells(tmp_path: Path) -> None:
    rules = [{"record": f"x:{number}", "expr": expr} for number, expr in enumerate(EXPRESSIONS)]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "x", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", str(tmp_path / "rules.yaml"))
    known = told() | RECORDED
    for expr in EXPRESSIONS:
        # What stands in braces, or behind `by`, are labels.
        plain = re.sub(r"\{[^}]*\}|\b(?:by|on|unless on)\s*\([^)]*\)|\"[^\"]*\"", "", expr)
        asked = set(re.findall(r"bulkhead[\w:]*", plain))
        assert asked <= known, f"{asked - known} of {expr}"


def test_labels_are_those_of_the_metrics() -> None:
    attributes = {prometheus.name_of(value) for value in vars(names).values() if isinstance(value, str)}
    attributes |= {"service", "replica", "instance", "job", "kind", "le"}
    for expr in EXPRESSIONS:
        groups = [one.split(",") for one in re.findall(r"\bby\s*\(([^)]*)\)", expr)]
        groups += [re.findall(r"(\w+)\s*[=!]", one) for one in re.findall(r"\{([^}]*)\}", expr)]
        assert {label.strip() for group in groups for label in group} <= attributes, expr


def test_prometheus_takes_its_configuration_with_the_meshs_own_directory(tmp_path: Path) -> None:
    for name, text in observability.monitoring_files(tmp_path / "mesh", "https://ops.example/runbooks/").items():
        path = tmp_path / "out" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    said = promtool("check", "config", str(tmp_path / "out" / "prometheus.yaml"))
    assert "rules found" in said
    scrape = yaml.safe_load((tmp_path / "out" / "prometheus.yaml").read_text())["scrape_configs"][0]
    assert scrape["file_sd_configs"][0]["files"] == [str(tmp_path / "mesh" / "run" / "*.target.json")]
    assert "https://ops.example/runbooks/#bulkheadinboxlag" in (tmp_path / "out" / "alerts.yaml").read_text()


@pytest.mark.parametrize("name", sorted(DRAWN))
def test_a_dashboard_is_what_grafana_imports(name: str) -> None:
    drawn = DRAWN[name]
    jsonschema_rs.validate(DASHBOARD, drawn)
    assert dashboards.files()[f"{dashboards.FOLDER}/{name}.json"] == json.dumps(drawn, indent=1) + "\n"
    places = [tuple(panel["gridPos"][key] for key in ("x", "y")) for panel in drawn["panels"]]
    assert len(set(places)) == len(places), "no panel lies on another"


def test_the_collectors_pipelines_are_made_of_what_is_configured() -> None:
    found: dict[str, Any] = yaml.safe_load((observability.HERE / "collector.yaml").read_text())
    jsonschema_rs.validate(COLLECTOR, found)
    used: dict[str, set[str]] = {"receivers": set(), "processors": set(), "exporters": set()}
    for pipeline in found["service"]["pipelines"].values():
        for part, one in pipeline.items():
            used[part] |= set(one)
        assert pipeline["processors"][0] == "memory_limiter", "what is too much is refused before it is held"
    assert used == {part: set(found[part]) for part in used}
    assert set(found["service"]["extensions"]) == set(found["extensions"])


def test_the_collector_reads_the_metrics_as_prometheus_does(tmp_path: Path) -> None:
    found: dict[str, Any] = yaml.safe_load((observability.HERE / "collector.yaml").read_text())
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(found["receivers"]["prometheus"]["config"]))
    promtool("check", "config", str(tmp_path / "prometheus.yaml"))
    [own] = yaml.safe_load((observability.HERE / "prometheus.yaml").read_text())["scrape_configs"]
    [its] = found["receivers"]["prometheus"]["config"]["scrape_configs"]
    assert {key: its[key] for key in own} == own


_SOURCE = {"type": "object", "required": ["type", "uid"], "properties": {"type": {"const": "prometheus"}}}
_TARGET = {
    "type": "object",
    "required": ["refId", "expr", "datasource", "legendFormat"],
    "additionalProperties": False,
    "properties": {
        "refId": {"pattern": "^[A-Z]$"},
        "expr": {"type": "string", "minLength": 1},
        "datasource": _SOURCE,
        "legendFormat": {"type": "string"},
    },
}
_PLACE = {
    "type": "object",
    "required": ["x", "y", "w", "h"],
    "properties": {
        "x": {"type": "integer", "minimum": 0, "maximum": 23},
        "y": {"type": "integer", "minimum": 0},
        "w": {"type": "integer", "minimum": 1, "maximum": 24},
        "h": {"type": "integer", "minimum": 1},
    },
}
_PANEL = {
    "type": "object",
    "required": ["id", "type", "title", "datasource", "gridPos", "fieldConfig", "targets"],
    "properties": {
        "id": {"type": "integer", "minimum": 1},
        "type": {"enum": ["timeseries", "stat"]},
        "title": {"type": "string", "minLength": 1},
        "datasource": _SOURCE,
        "gridPos": _PLACE,
        "targets": {"type": "array", "minItems": 1, "items": _TARGET},
    },
}
DASHBOARD: dict[str, Any] = {
    "type": "object",
    "required": ["uid", "title", "schemaVersion", "panels", "templating", "time"],
    "properties": {
        "uid": {"type": "string", "maxLength": 40},
        "title": {"type": "string", "minLength": 1},
        "schemaVersion": {"type": "integer", "minimum": 36},
        "panels": {"type": "array", "minItems": 3, "items": _PANEL},
        "templating": {"type": "object", "required": ["list"]},
    },
}
"""The part of Grafana's dashboard schema that ours use."""
_NAMES = {"type": "array", "minItems": 1, "items": {"type": "string"}}
COLLECTOR: dict[str, Any] = {
    "type": "object",
    "required": ["receivers", "processors", "exporters", "service"],
    "additionalProperties": False,
    "properties": {
        **{
            part: {"type": "object", "minProperties": 1}
            for part in ("receivers", "processors", "exporters", "extensions")
        },
        "service": {
            "type": "object",
            "required": ["pipelines"],
            "additionalProperties": False,
            "properties": {
                "extensions": _NAMES,
                "pipelines": {
                    "type": "object",
                    "propertyNames": {"pattern": "^(traces|metrics|logs)(/.+)?$"},
                    "additionalProperties": {
                        "type": "object",
                        "required": ["receivers", "exporters"],
                        "additionalProperties": False,
                        "properties": dict.fromkeys(("receivers", "processors", "exporters"), _NAMES),
                    },
                },
            },
        },
    },
}
"""The collector's own shape; what stands inside a component is that component's."""
