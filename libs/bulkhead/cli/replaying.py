"""`bulkhead replay`: every decider of a task folded again from the journal, compared with what was said.

In: a task's recorded messages and contents. Out: a report. No provider is called and nothing is published.
"""

from typing import Any

from bulkhead.blobs import Blobs
from bulkhead.bus.port import Bus
from bulkhead.cli.history import read_journal
from bulkhead.cli.output import Exit, Stop
from bulkhead.runtime.context import unix_ms
from bulkhead.runtime.replay import Divergence, Logics, Report, replay
from bulkhead_contracts.result import ContentRef

IN_THE_WORKS_MS = 10_000
"""What came in so lately may still be in the works."""


def logics() -> Logics:
    """The decision logic of every decider, by version."""
    from services.checker.app import LOGICS as CHECKER
    from services.planner.app import LOGICS as PLANNER
    from services.worker.app import LOGICS as WORKER

    return {"planner": PLANNER, "worker": WORKER, "checker": CHECKER}


async def replay_task(bus: Bus, task: str) -> Report:
    """Replay one task. Raises Stop when there is no such task, BusError."""
    journal = await read_journal(bus, task)
    if not journal:
        raise Stop(Exit.USAGE, f"the journal holds nothing of task {task}", "`bulkhead tasks` lists what there is")
    tenant = journal[0].subject.split(".")[4]
    blobs = Blobs(bus, "operator")

    async def fetch(ref: ContentRef) -> str:
        return await blobs.text(tenant, ref)

    return await replay(journal, logics(), fetch, answered_until_unix_ms=unix_ms() - IN_THE_WORKS_MS)


def as_json(report: Report) -> dict[str, Any]:
    """For programs."""
    return {
        "messages": report.messages,
        "decisions": report.decisions,
        "compared": report.compared,
        "outstanding": report.outstanding,
        "ended": report.ended,
        "divergences": [_divergence(one) for one in report.divergences],
    }


def _divergence(one: Divergence) -> dict[str, Any]:
    return {
        "service": one.service,
        "sequence": one.sequence,
        "ce_id": one.ce_id,
        "what": one.what,
        "expected": one.expected,
        "recorded": one.recorded,
    }
