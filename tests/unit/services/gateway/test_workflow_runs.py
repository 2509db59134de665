"""Runs of workflows as requests of tasks, and whose words their texts are."""

from typing import Any

from bulkhead_contracts.result import digest_of
from bulkhead_contracts.task import RequesterClaim, TaskLimits, TaskRequested
from bulkhead_contracts.workflow import WorkflowContent, WorkflowVersion
from bulkhead_services.gateway.intake import own_words
from bulkhead_services.gateway.workflow_runs import build_request

STEPS = [
    {"id": "look", "instruction": "Look for {{topic}}.", "acceptance": "found", "tools": ["search_documents"]},
    {"id": "tell", "instruction": "Tell it.", "acceptance": "told", "inputs": ["look"], "tools": ["calculate"]},
]
CONTENT = WorkflowContent.model_validate(
    {
        "objective": "Look for {{topic}}",
        "parameters": [{"name": "topic"}],
        "steps": STEPS,
        "limits": {"tokens": 5_000},
        "check": False,
        "route": "small",
    }
)
VERSION = WorkflowVersion(
    workflow="looks",
    number=3,
    content=CONTENT,
    sha256=CONTENT.sha256,
    note="first",
    person="pia",
    role="prompt_editor",
    act="act-1",
    act_sha256="0" * 64,
    drafted_unix_ms=1,
)


def run(version: WorkflowVersion = VERSION, *, agent: bool = False, **fields: Any) -> TaskRequested:
    claim = RequesterClaim(tenant="demo", person="ann", role="submitter", via="api_key", agent=agent)
    return build_request(version, (), {"topic": "tea"}, claim, payload_sha256="0" * 64, **fields)


def test_a_run_has_the_versions_options_and_no_model_plans_it() -> None:
    task = run(conversation="c1")
    assert (task.workflow, task.replan, task.route, task.check) == ("looks.3", "none", "small", False)
    assert (task.objective, task.conversation, task.written_by) == ("Look for tea", "c1", "person")
    assert task.plan is not None and [step.id for step in task.plan.steps] == ["look", "tell"]


def test_limits_of_a_run_only_lower_those_of_the_version() -> None:
    lowered = run(limits=TaskLimits(tokens=1_000_000, deadline_ms=1_000)).limits
    assert (lowered.tokens, lowered.deadline_ms) == (5_000, 1_000)
    dear = VERSION.model_copy(
        update={"content": CONTENT.model_copy(update={"limits": TaskLimits(cost_usd_micros=90_000_000)})}
    )
    assert run(dear, limits=TaskLimits(deadline_ms=1_000)).limits.cost_usd_micros == 90_000_000


def test_an_agents_values_make_a_text_a_models_and_the_workflows_own_texts_stay_peoples() -> None:
    for task in (run(agent=True), run(written_by="model")):
        assert task.written_by == "model" and task.workflow_steps == ("tell",)
        labels = {label.sha256: label.trust for label in own_words(task, by_model=True, approved_steps=("tell",))}
        assert task.plan is not None
        trusts = [labels[digest_of(step.prompt_text)] for step in task.plan.steps]
        assert trusts == ["untrusted", "user"] and labels[digest_of(task.objective)] == "untrusted"


def test_whoever_else_names_approved_steps_is_not_believed() -> None:
    labels = own_words(run(agent=True), by_model=True)
    assert {label.trust for label in labels} == {"untrusted"}
