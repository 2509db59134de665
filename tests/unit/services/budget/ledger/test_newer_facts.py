"""A budget of the version before builds its ledger beside facts that only this one's successor can read."""

from pathlib import Path

import pytest

from bulkhead.bus.port import Stored
from bulkhead.runtime.consume.inbound import Received
from bulkhead.runtime.errors import Unreadable
from bulkhead_contracts import catalog, envelope, subjects
from bulkhead_contracts.budget import Reserved, Settled
from bulkhead_contracts.envelope import Envelope
from bulkhead_contracts.task import TaskStopped
from bulkhead_services.budget.ledger import rebuild
from bulkhead_services.budget.ledger.model import Ledger

LEASE_MS, NOW = 60_000, 1_795_231_204_272
EXAMPLES = Path(catalog.__file__).parents[1] / "examples"


def told(kind: str, sender: str = "budget", receiver: str = "journal") -> Stored:
    head = Envelope(id="a" * 32, type=kind, source=sender, time_unix_ms=NOW, cause="c", actor="p")
    return Stored(subjects.mesh(sender, receiver, "demo", "t1"), head.headers(), b"{}", 7, NOW)


@pytest.mark.parametrize("kind", ["mesh.budget.forecast.v1", "mesh.control.rehearsed.v3"])
def test_a_later_fact_that_moves_no_money_is_left_out(kind: str) -> None:
    ledger = Ledger(LEASE_MS)
    rebuild.take(ledger, told(kind))
    assert ledger == Ledger(LEASE_MS)


@pytest.mark.parametrize(
    ("kind", "sender", "receiver"),
    [
        (f"{Reserved.TYPE}.v99", "budget", "journal"),
        (f"{Settled.TYPE}.v99", "rag", "budget"),
        (f"{TaskStopped.TYPE}.v99", "planner", "budget"),
        ("mesh.ledger.refunded.v1", "budget", "journal"),
    ],
)
def test_a_later_fact_that_moves_money_leaves_no_ledger(kind: str, sender: str, receiver: str) -> None:
    with pytest.raises(Unreadable, match="start the newer version of budget"):
        rebuild.take(Ledger(LEASE_MS), told(kind, sender, receiver))


def test_whatever_changes_a_ledger_is_known_by_its_name() -> None:
    """Else the version before would leave it out: give it another name, or the version before a way to read it."""
    moved = set()
    for row in catalog.ROWS:
        for sender, receiver in row.edges:
            if row.plane != "mesh" or not (receiver == "budget" or (sender, receiver) == ("budget", "journal")):
                continue
            kind = f"{row.body.TYPE}.v{row.body.VERSION}"
            body = catalog.decode(kind, (EXAMPLES / f"{kind}.json").read_bytes())
            ledger = Ledger(LEASE_MS)
            head = envelope.parse(told(kind, sender, receiver).headers)
            rebuild.fold(ledger, Received(head, body, "demo", "t1", sender, 7, NOW, receiver=receiver))
            if ledger != Ledger(LEASE_MS):
                moved.add(row.body.TYPE)
    assert {Reserved.TYPE, Settled.TYPE, TaskStopped.TYPE} <= moved
    assert all(name in rebuild.FOLDED or name.startswith(rebuild.MONEY) for name in moved)
