"""The messages in the services' READMEs: between two markers, from the catalog's rows."""

from collections.abc import Iterator
from pathlib import Path

from bulkhead_contracts import catalog

BEGIN = "<!-- messages: rendered by `make render` -->"
END = "<!-- end of messages -->"


def message_table(service: str) -> str:
    """The messages that come in and go out, by peer."""
    arriving: dict[str, list[str]] = {}
    leaving: dict[str, list[str]] = {}
    for row in catalog.ROWS:
        name = f"`{row.body.ce_type()}`" + (" (rpc)" if row.plane == "rpc" else "")
        for sender, receiver in row.edges:
            if receiver == service:
                arriving.setdefault(sender, []).append(name)
            if sender == service:
                leaving.setdefault(receiver, []).append(name)
    return "\n".join((*_peer_lines("from", arriving), *_peer_lines("to", leaving)))


def _peer_lines(direction: str, messages: dict[str, list[str]]) -> Iterator[str]:
    """Peers with the same messages share a line."""
    for names in dict.fromkeys(map(tuple, messages.values())):
        peers = [peer for peer, passing in messages.items() if tuple(passing) == names]
        yield f"- {direction} {', '.join(peers)}: {', '.join(names)}"


def files(root: Path) -> dict[str, str]:
    """READMEs of the services that have one with markers, with their table renewed."""
    texts = {}
    for service in catalog.EVERY_SERVICE:
        path = root / "services" / "bulkhead_services" / service / "README.md"
        if not path.is_file():
            continue
        head, _, after_begin = path.read_text().partition(BEGIN)
        _, end, tail = after_begin.partition(END)
        if end:
            texts[f"services/bulkhead_services/{service}/README.md"] = (
                f"{head}{BEGIN}\n{message_table(service)}\n{END}{tail}"
            )
    return texts
