"""The live view of workflows: what is stored becomes rows, and what does not fit changes nothing."""

import asyncio
from types import SimpleNamespace

from bulkhead.workflows.ledger import WorkflowLedger
from bulkhead_contracts.workflow import (
    WorkflowCanary,
    WorkflowContent,
    WorkflowRelease,
    WorkflowTransition,
    WorkflowVersion,
)

STEP = {"id": "a", "instruction": "x", "acceptance": "y"}
CONTENT = WorkflowContent.model_validate({"objective": "x", "steps": [STEP]})
WHO = {"person": "pia", "role": "operator", "act": "act-1", "act_sha256": "0" * 64}


def version(number: int, at: int = 1) -> tuple[str, bytes]:
    fields = {"workflow": "looks", "content": CONTENT, "sha256": CONTENT.sha256, "note": "n", "drafted_unix_ms": at}
    body = WorkflowVersion(number=number, **fields, **WHO)
    return f"workflow.demo.looks.{number}", body.model_dump_json().encode()


def fact(number: int, place: int, state: str, **more: object) -> tuple[str, bytes]:
    fields = {"workflow": "looks", "number": number, "place": place, "action": "submit", "state": state}
    body = WorkflowTransition(**fields | more, sha256=CONTENT.sha256, reason="r", moved_unix_ms=2, **WHO)
    return f"workflow.demo.looks.{number}.{place}", body.model_dump_json().encode()


class StoredFacts:
    """A stream of these."""

    def __init__(self, *facts: tuple[str, bytes]) -> None:
        self.readers = self.most_readers = 0
        self.rows = [
            SimpleNamespace(subject=subject, body=body, sequence=number)
            for number, (subject, body) in enumerate(facts, 1)
        ]

    async def read(self, _stream: str, _subject: str, *, after: int) -> list[SimpleNamespace]:
        self.readers += 1
        self.most_readers = max(self.most_readers, self.readers)
        await asyncio.sleep(0)
        self.readers -= 1
        return self.rows[after : after + 2]


async def test_facts_move_a_version_on_in_their_order_and_one_of_another_place_does_not() -> None:
    facts = [version(1), fact(1, 1, "published"), version(2), fact(2, 1, "in_review"), fact(2, 3, "published")]
    ledger = WorkflowLedger(StoredFacts(*facts, ("workflow.demo.looks.3", b"{}"), fact(4, 1, "published")))
    await ledger.read_new()
    rows = [record.row for record in ledger.list_versions("demo", "looks")]
    assert [(row.number, row.state) for row in rows] == [(2, "in_review"), (1, "published")]
    published = ledger.find_published("demo", "looks")
    assert published is not None and published.row.number == 1
    assert ledger.find_published("other", "looks") is None and ledger.list_names("other") == []


async def test_two_who_read_at_once_fold_each_fact_once() -> None:
    stored = StoredFacts(version(1), fact(1, 1, "in_review"), fact(1, 2, "published"))
    ledger = WorkflowLedger(stored)
    await asyncio.gather(ledger.read_new(), ledger.read_new())
    record = ledger.find_version("demo", "looks", 1)
    assert record is not None and record.row.state == "published" and stored.most_readers == 1


async def test_drafts_are_counted_by_tenant_and_time() -> None:
    ledger = WorkflowLedger(StoredFacts(version(1, at=10), version(2, at=20)))
    await ledger.read_new()
    assert [ledger.count_drafts("demo", since) for since in (0, 15, 30)] == [2, 1, 0]
    assert ledger.count_drafts("other", 0) == 0


def release(number: int, percent: int = 0, began: int = 1) -> tuple[str, bytes]:
    canary = WorkflowCanary(number=2, facts=1, published=1, percent=percent, began=began) if percent else None
    body = WorkflowRelease(workflow="looks", number=number, canary=canary, reason="r", moved_unix_ms=3, **WHO)
    return f"workflow.demo.looks.0.{number}", body.model_dump_json().encode()


async def test_a_canary_stands_until_anything_becomes_known_about_either_version() -> None:
    before = (version(1), fact(1, 1, "published"), version(2), fact(2, 1, "approved"), release(1, 10), release(2, 20))
    ledger = WorkflowLedger(StoredFacts(*before))
    await ledger.read_new()
    standing = ledger.find_canary("demo", "looks")
    assert standing is not None and standing.number == 2 and list(ledger.list_canaries()) == [("demo", "looks")]
    assert ledger.find_release("demo", "looks", 1) is not None
    for later in (
        [fact(2, 2, "published")],
        [fact(2, 2, "draft"), fact(2, 3, "approved")],
        [fact(1, 2, "retired")],
        [version(3), fact(3, 1, "published")],
        [release(3)],
    ):
        ledger = WorkflowLedger(StoredFacts(*before, *later))
        await ledger.read_new()
        assert ledger.find_canary("demo", "looks") is None and ledger.list_canaries() == {}
    assert ledger.find_release("demo", "looks", 1) is None, "of a canary that is over nothing is kept"
