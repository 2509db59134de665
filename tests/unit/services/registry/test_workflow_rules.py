"""What a version of a workflow may become, and by whose word."""

from typing import Any

import pytest

from bulkhead_contracts import bounds
from bulkhead_contracts.approval import ApprovalGrant
from bulkhead_contracts.result import Failure
from bulkhead_contracts.workflow import (
    WorkflowActRequested,
    WorkflowRelease,
    WorkflowRow,
    WorkflowSchedule,
    WorkflowShare,
    WorkflowTransition,
    WorkflowTrigger,
)
from bulkhead_services.registry.workflow_rules import (
    RULES,
    as_listed,
    fit_rows,
    judge_role,
    plan_canary,
    plan_transition,
    without_values,
)

SHA = "a" * 64
ROW = WorkflowRow(workflow="report", number=2, sha256=SHA, person="pia", drafted_unix_ms=1)
SCHEDULE = WorkflowSchedule(cron="0 7 * * *")
TRIGGER = WorkflowTrigger(event="order.paid", sources=("shop",), fields={"topic": "/item"})


def word(person: str = "bob", role: str = "operator") -> ApprovalGrant:
    fields = {"tenant": "demo", "task": "act-1", "approval_id": "act-1", "arguments_sha256": SHA}
    return ApprovalGrant(**fields, decision="granted", person=person, role=role, via="api_key", decided_unix_ms=1)


def act(action: str, **fields: Any) -> WorkflowActRequested:
    usual = {"act": "act-1", "workflow": "report", "number": 2, "sha256": SHA, "reason": "go"}
    return WorkflowActRequested(**usual | {"action": action} | fields)


def move(action: str, row: WorkflowRow = ROW, person: str = "bob", **fields: Any) -> WorkflowTransition | Failure:
    return plan_transition(act(action, **fields), row, word(person), 2)


def in_state(state: str, *facts: WorkflowTransition) -> WorkflowRow:
    return ROW.model_copy(update={"state": state, "transitions": facts})


@pytest.mark.parametrize("action", RULES)
def test_each_act_leads_from_its_states_alone_to_its_next_one(action: str) -> None:
    rule = RULES[action]
    fields = {"schedule": SCHEDULE} if action == "schedule" else {}
    for state in ("draft", "in_review", "approved", "published", "retired"):
        row = in_state(state)
        row = row.model_copy(update={"schedule": SCHEDULE}) if action == "unschedule" else row
        fact = move(action, row, **fields)
        if state in rule.before:
            assert isinstance(fact, WorkflowTransition) and (fact.state, fact.place) == (rule.after, 1)
        else:
            assert isinstance(fact, Failure) and fact.code == "wrong_state" and fact.hint


def test_nobody_approves_what_he_drafted_or_submitted() -> None:
    submitted = move("submit", person="wim")
    assert isinstance(submitted, WorkflowTransition)
    for person, code in (("pia", "four_eyes"), ("wim", "four_eyes"), ("bob", "")):
        fact = move("approve", in_state("in_review", submitted), person)
        assert (fact.code if isinstance(fact, Failure) else "") == code


def test_an_act_is_about_the_content_that_was_seen() -> None:
    fact = move("submit", sha256="b" * 64)
    assert isinstance(fact, Failure) and fact.code == "other_digest"


@pytest.mark.parametrize(
    ("action", "schedule"),
    [
        ("schedule", None),
        ("publish", SCHEDULE),
        ("schedule", WorkflowSchedule(cron="* * * * *")),
        ("schedule", WorkflowSchedule(cron="0 7 * * *", parameters={str(number): "x" * 4_000 for number in range(5)})),
    ],
)
def test_a_schedule_that_does_not_fit_is_refused(action: str, schedule: WorkflowSchedule | None) -> None:
    row = in_state("published" if action == "schedule" else "approved")
    fact = move(action, row, schedule=schedule)
    assert isinstance(fact, Failure) and fact.code == "bad_schedule"


def test_a_schedule_is_set_with_an_api_key() -> None:
    row, request = in_state("published"), act("schedule", schedule=SCHEDULE)
    refused = plan_transition(request, row, word().model_copy(update={"via": "jwt"}), 2)
    assert isinstance(refused, Failure) and refused.code == "key_needed"
    fact = plan_transition(request, row, word(), 2)
    assert isinstance(fact, WorkflowTransition) and (fact.via, fact.role) == ("api_key", "operator")


def test_a_retired_version_has_no_schedule_and_one_of_many_facts_can_only_be_retired() -> None:
    scheduled = move("schedule", in_state("published"), schedule=SCHEDULE)
    assert isinstance(scheduled, WorkflowTransition) and scheduled.schedule == SCHEDULE
    full = in_state("published", *[scheduled] * bounds.MAX_WORKFLOW_TRANSITIONS)
    refused, retired = move("unschedule", full.model_copy(update={"schedule": SCHEDULE})), move("retire", full)
    assert isinstance(refused, Failure) and refused.code == "too_many_changes"
    assert isinstance(retired, WorkflowTransition) and retired.schedule is None


@pytest.mark.parametrize(
    ("action", "roles"),
    [("draft", {"prompt_editor", "operator"}), ("approve", {"approver", "operator"}), ("schedule", {"operator"})],
)
def test_an_act_belongs_to_its_roles(action: Any, roles: set[str]) -> None:
    named = ("prompt_editor", "approver", "operator", "submitter", "auditor", "evaluator")
    assert {role for role in named if judge_role(action, role) is None} == roles


def test_a_word_on_a_review_is_of_another_kind_than_one_on_a_draft() -> None:
    assert {act(action).signed_kind for action in ("approve", "reject")} == {"approval"}
    assert {act(action).signed_kind for action in ("submit", "publish", "retire", "schedule")} == {"prompt"}


def test_values_of_schedules_stand_in_one_place_of_a_row_and_in_no_list() -> None:
    schedule = WorkflowSchedule(cron="0 7 * * *", parameters={"topic": "tea"})
    facts = [move("schedule", in_state("published"), schedule=schedule, reason="r" * 2_000) for _ in range(2)]
    row = in_state("published", *facts).model_copy(update={"schedule": schedule})
    shown, listed = without_values(row), as_listed(row)
    assert shown.schedule == schedule and [fact.schedule.parameters for fact in shown.transitions] == [{}, {}]
    assert len(listed.transitions) == 1 and len(listed.transitions[0].reason) == bounds.MAX_SUMMARY_CHARS
    assert listed.schedule.cron == schedule.cron and "tea" not in listed.model_dump_json()


def test_a_list_has_no_more_rows_than_a_message_holds() -> None:
    assert fit_rows([ROW] * 100, 10 * (len(ROW.model_dump_json()) + 1)) == (ROW,) * 10


PUBLISHED = ROW.model_copy(update={"number": 1, "state": "published"})


def share(
    percent: int,
    row: WorkflowRow | None = None,
    *,
    published: WorkflowRow | None = PUBLISHED,
    standing: WorkflowRelease | None = None,
    **fields: Any,
) -> WorkflowRelease | Failure:
    request = act(fields.pop("action", "publish"), canary=WorkflowShare(percent=percent), **fields)
    number = standing.number + 1 if standing is not None else 1
    return plan_canary(request, row or in_state("approved"), published, standing, number, word(), 2)


def test_a_canary_is_approved_and_newer_than_what_is_published() -> None:
    begun = share(10)
    assert isinstance(begun, WorkflowRelease) and begun.canary is not None
    assert (begun.canary.number, begun.canary.published, begun.canary.began) == (2, 1, 1)
    newer = PUBLISHED.model_copy(update={"number": 3})
    for refused in (share(10, in_state("in_review")), share(10, published=None), share(10, published=newer)):
        assert isinstance(refused, Failure) and refused.code == "wrong_state" and refused.hint
    for fields in ({"sha256": "b" * 64}, {"action": "retire"}):
        refused = share(10, **fields)
        assert isinstance(refused, Failure) and refused.code == "other_digest"


def test_the_share_of_a_canary_grows_and_who_was_in_it_stays_there() -> None:
    begun = share(10)
    assert isinstance(begun, WorkflowRelease)
    grown = share(40, standing=begun)
    assert isinstance(grown, WorkflowRelease) and grown.canary is not None and grown.canary.began == 1
    tasks = [f"t{number}" for number in range(500)]
    small, large = (
        {task for task in tasks if release.ref_for(task, "ann").endswith(".canary")} for release in (begun, grown)
    )
    assert small < large and 20 < len(small) < 90 < len(large) < 290
    same = share(10, standing=begun)
    assert isinstance(same, Failure) and same.code == "nothing_changes"
    next_row = in_state("approved").model_copy(update={"number": 3})
    beside = share(10, next_row, standing=begun, number=3)
    assert isinstance(beside, Failure) and beside.code == "canary_stands"


def test_a_canary_ends_once() -> None:
    begun = share(10)
    assert isinstance(begun, WorkflowRelease)
    ended = share(0, standing=begun)
    assert isinstance(ended, WorkflowRelease) and ended.canary is None and ended.ref_for("t", "ann") == "report.2"
    again = share(0)
    assert isinstance(again, Failure) and again.code == "no_canary"


def test_a_version_begins_by_one_schedule_or_one_trigger() -> None:
    published = in_state("published")
    fact = move("schedule", published, trigger=TRIGGER)
    assert isinstance(fact, WorkflowTransition) and (fact.trigger, fact.schedule) == (TRIGGER, None)
    for fields in ({}, {"trigger": TRIGGER, "schedule": SCHEDULE}):
        refused = move("schedule", published, **fields)
        assert isinstance(refused, Failure) and refused.code == "bad_schedule"
    refused = move("publish", in_state("approved"), trigger=TRIGGER)
    assert isinstance(refused, Failure) and refused.code == "bad_schedule"
    twice = TRIGGER.model_copy(update={"parameters": {"topic": "tea"}})
    refused = move("schedule", published, trigger=twice)
    assert isinstance(refused, Failure) and "topic has a value and a field of the event" in refused.message
    by_token = word().model_copy(update={"via": "jwt"})
    refused = plan_transition(act("schedule", trigger=TRIGGER), published, by_token, 2)
    assert isinstance(refused, Failure) and refused.code == "key_needed"
    ended = move("unschedule", published.model_copy(update={"trigger": TRIGGER}))
    assert isinstance(ended, WorkflowTransition) and ended.trigger is None


def test_the_values_of_a_trigger_are_shown_where_it_was_asked_for_alone() -> None:
    trigger = TRIGGER.model_copy(update={"parameters": {"market": "tea"}})
    fact = move("schedule", in_state("published"), trigger=trigger)
    assert isinstance(fact, WorkflowTransition)
    row = in_state("published", fact).model_copy(update={"trigger": trigger})
    shown = without_values(row)
    assert shown.trigger == trigger and shown.transitions[0].trigger.parameters == {}
    assert as_listed(row).trigger.parameters == {} and as_listed(row).trigger.fields == trigger.fields
