"""Ready-made for those who have Prometheus, Grafana and a collector: rules, alerts, dashboards, configuration.

In: a mesh's directory, and where its runbooks are. Out: a folder of files. The dashboards are rendered from
`dashboards.py` by `python -m bulkhead_infra.render`; the rest is written by hand.
"""

from pathlib import Path

HERE = Path(__file__).parent
FILES = ("alerts.yaml", "collector.yaml", "prometheus.yaml")
TARGETS = ".bulkhead/run/*.target.json"
RUNBOOKS = "docs/how-to/runbooks.md"


def monitoring_files(data: Path, runbooks: str = RUNBOOKS) -> dict[str, str]:
    """Texts by relative path. data: of the mesh whose processes are to be read. runbooks: address of the page."""
    texts = {name: (HERE / name).read_text() for name in FILES}
    texts |= {f"dashboards/{path.name}": path.read_text() for path in sorted((HERE / "dashboards").glob("*.json"))}
    target_pattern = str(data.absolute() / "run" / "*.target.json")
    return {
        name: text.replace(TARGETS, target_pattern).replace(f"{RUNBOOKS}#", f"{runbooks}#")
        for name, text in texts.items()
    }
