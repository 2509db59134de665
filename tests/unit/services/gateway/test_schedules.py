"""In whose name a scheduled run begins, and when nobody is left."""

from types import SimpleNamespace
from typing import Any

import pytest

from bulkhead.callers.api_keys import ApiKey
from bulkhead_contracts.workflow import WorkflowRow, WorkflowSchedule, WorkflowTransition
from bulkhead_services.gateway.schedules import LapsedAuthority, ScheduleRunner, build_scheduled_request
from tests.unit.services.gateway.test_workflow_runs import VERSION

SCHEDULE = WorkflowSchedule(cron="0 7 * * *", parameters={"topic": "tea"})
WHO = {"person": "olga", "act": "act-2", "act_sha256": "0" * 64}
FACT = WorkflowTransition(
    workflow="looks",
    number=3,
    place=4,
    action="schedule",
    state="published",
    sha256=VERSION.sha256,
    schedule=SCHEDULE,
    reason="daily",
    role="operator",
    via="api_key",
    moved_unix_ms=2,
    **WHO,
)
KEY = ApiKey(sha256="a" * 64, tenant="demo", person="olga", role="operator")


def row_of(**changes: Any) -> WorkflowRow:
    fact = FACT.model_copy(update=changes)
    return WorkflowRow(
        workflow="looks",
        number=3,
        state="published",
        sha256=VERSION.sha256,
        person="pia",
        drafted_unix_ms=1,
        transitions=(fact,),
        schedule=SCHEDULE,
    )


def request(*keys: ApiKey, **changes: Any) -> Any:
    row = row_of(**changes)
    return build_scheduled_request("demo", row, VERSION, (), keys, "schedule/looks.3/1")


def test_a_run_has_the_role_of_who_set_the_schedule() -> None:
    claim = request(KEY).requester
    assert (claim.person, claim.role, claim.via, claim.agent) == ("olga", "operator", "api_key", False)


@pytest.mark.parametrize(
    ("keys", "changes", "reason"),
    [
        ((), {}, "has no API key of that role any more"),
        ((KEY.model_copy(update={"role": "submitter"}),), {}, "has no API key of that role any more"),
        ((KEY.model_copy(update={"person": "other"}),), {}, "has no API key of that role any more"),
        ((KEY,), {"via": "jwt"}, "without an API key"),
        ((KEY,), {"via": ""}, "without an API key"),
        ((KEY.model_copy(update={"role": "auditor"}),), {"role": "auditor"}, "has no API key of that role any more"),
    ],
)
def test_a_schedule_outlives_no_authority(keys: Any, changes: Any, reason: str) -> None:
    with pytest.raises(LapsedAuthority, match=reason):
        request(*keys, **changes)


async def test_a_run_begins_when_the_key_that_was_replaced_is_there_again() -> None:
    begun, keys = list[str](), list[ApiKey]()

    async def submit_request(body: Any, key: str) -> tuple[str, bool]:
        begun.append(key)
        return "t1", False

    async def read_new() -> None:
        """Nothing is new."""

    async def read_runnable(*_: Any) -> Any:
        return VERSION, ()

    row = row_of()
    context: Any = SimpleNamespace(bus=None, clock=lambda: 0)
    intake: Any = SimpleNamespace(submit_request=submit_request)
    ledger: Any = SimpleNamespace(
        read_new=read_new, list_scheduled=lambda: [("demo", row)], read_runnable=read_runnable
    )
    runner = ScheduleRunner(context, intake, ledger, lambda tenant: tuple(keys))
    due_unix_ms = 1_795_244_400_000
    await runner.begin_due_runs(due_unix_ms + 1_000)
    keys.append(KEY)
    await runner.begin_due_runs(due_unix_ms + 61_000)
    await runner.begin_due_runs(due_unix_ms + 62_000)
    assert len(begun) == 1
