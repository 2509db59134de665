"""A list of workflows that is too long for one message comes in pages, of which none splits a workflow."""

from types import SimpleNamespace

import pytest

from bulkhead.workflows.ledger import WorkflowLedger
from bulkhead_contracts import bounds
from bulkhead_contracts.workflow import WorkflowsReplied, WorkflowsRequested
from bulkhead_services.registry import workflows
from tests.unit.bulkhead.workflows.test_ledger import StoredFacts, fact, version


def make_registry(*facts: tuple[str, bytes]) -> workflows.WorkflowRegistry:
    registry = workflows.WorkflowRegistry(
        SimpleNamespace(bus=None),  # type: ignore[arg-type]
        SimpleNamespace(),  # type: ignore[arg-type]
        (),
        put_once=None,  # type: ignore[arg-type]
        check_word=None,  # type: ignore[arg-type]
        find_watch=None,  # type: ignore[arg-type]
    )
    registry.ledger = WorkflowLedger(StoredFacts(*facts))
    return registry


async def list_pages(registry: workflows.WorkflowRegistry) -> list[WorkflowsReplied]:
    pages: list[WorkflowsReplied] = []
    while not pages or pages[-1].more:
        after = pages[-1].rows[-1].workflow if pages else ""
        requester = {"tenant": "demo", "person": "pia", "role": "operator", "via": "api_key"}
        request = WorkflowsRequested.model_validate({"requester": requester, "after": after})
        pages.append(await registry.on_workflows_requested(SimpleNamespace(body=request, tenant="demo")))  # type: ignore[arg-type]
    return pages


@pytest.mark.parametrize("bound", ["bytes", "rows"])
async def test_every_workflow_stands_on_one_page(monkeypatch: pytest.MonkeyPatch, bound: str) -> None:
    facts = []
    for name in ("a", "b", "c", "d"):
        for subject, body in (version(1), fact(1, 1, "published"), version(2)):
            facts.append((subject.replace("looks", name), body.replace(b'"looks"', f'"{name}"'.encode())))
    registry = make_registry(*facts)
    assert len(await list_pages(registry)) == 1
    if bound == "rows":
        monkeypatch.setattr(bounds, "MAX_WORKFLOW_ROWS", 3)
    else:
        monkeypatch.setattr(workflows, "MAX_ANSWER_BYTES", 1_500)
    pages = await list_pages(registry)
    rows = [[(row.workflow, row.number) for row in page.rows] for page in pages]
    assert [row for page in rows for row in page] == [(name, number) for name in "abcd" for number in (2, 1)]
    assert len(pages) > 1 and all(len(page) % 2 == 0 for page in rows)


async def test_a_version_that_begins_runs_is_listed_whatever_is_published_after_it() -> None:
    schedule = {"cron": "0 7 * * 1-5", "zone": "Europe/Vienna"}
    scheduled = fact(1, 2, "published", action="schedule", schedule=schedule)
    facts = [version(1), fact(1, 1, "published"), scheduled, version(2), fact(2, 1, "published"), version(3)]
    [page] = await list_pages(make_registry(*facts))
    assert [(row.number, row.schedule is not None) for row in page.rows] == [(3, False), (2, False), (1, True)]
