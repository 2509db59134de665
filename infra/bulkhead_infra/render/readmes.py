"""The message tables of the services' READMEs: between two markers, from the catalog's rows."""

from pathlib import Path

from bulkhead_contracts import catalog

BEGIN = "<!-- messages: rendered by `make render` -->"
END = "<!-- end of messages -->"


def table(service: str) -> str:
    """What comes in and what goes out."""
    lines = ["| | message | from / to |", "| --- | --- | --- |"]
    for row in catalog.ROWS:
        came = sorted({sender for sender, receiver in row.edges if receiver == service})
        went = sorted({receiver for sender, receiver in row.edges if sender == service})
        plane = "" if row.plane == "mesh" else " (rpc)"
        if came:
            lines.append(f"| in | `{row.body.ce_type()}`{plane} | {', '.join(came)} |")
        if went:
            lines.append(f"| out | `{row.body.ce_type()}`{plane} | {', '.join(went)} |")
    return "\n".join(lines)


def files(root: Path) -> dict[str, str]:
    """READMEs of the services that have one with markers, with their table renewed."""
    found = {}
    for service in catalog.SERVICES:
        path = root / "services" / "bulkhead_services" / service / "README.md"
        if not path.is_file():
            continue
        text = path.read_text()
        if BEGIN in text and END in text:
            head, rest = text.split(BEGIN, 1)
            _, tail = rest.split(END, 1)
            found[f"services/bulkhead_services/{service}/README.md"] = f"{head}{BEGIN}\n{table(service)}\n{END}{tail}"
    return found
