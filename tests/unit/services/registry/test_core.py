"""Which release follows which, by the act that a person signed."""

from typing import Any

import pytest

from bulkhead_contracts.approval import ApprovalGrant
from bulkhead_contracts.prompt import (
    Canary,
    PromptContent,
    PromptRelease,
    PromptVersion,
    ReleaseChange,
    ReleasedPrompt,
    ReleaseMoveRequested,
)
from bulkhead_contracts.result import Failure
from bulkhead_services.registry.core import plan_release

SHA = "0" * 64
CONTENT = PromptContent(text="Answer.")
WORD = ApprovalGrant(
    kind="prompt",
    tenant="demo",
    task="act-2",
    approval_id="act-2",
    arguments_sha256=SHA,
    decision="granted",
    person="pia",
    role="prompt_editor",
    via="api_key",
    decided_unix_ms=1,
)
WHO = {"person": "ann", "role": "operator", "act": "act-1", "act_sha256": SHA}
FIRST = ReleasedPrompt(prompt="worker.step", number=1, sha256=CONTENT.sha256)
SECOND = FIRST.model_copy(update={"number": 2})
STANDING = PromptRelease(label="production", number=4, prompts=(FIRST,), reason="ok", moved_unix_ms=1, **WHO)
CANARY = STANDING.model_copy(update={"canary": Canary(prompts=(SECOND,), percent=10, began=4)})
VERSIONS = {
    ("worker.step", number): PromptVersion(
        prompt="worker.step",
        number=number,
        content=CONTENT,
        sha256=CONTENT.sha256,
        owner="support",
        note="ours",
        published_unix_ms=1,
        **WHO,
    )
    for number in (1, 2)
}


def plan(
    standing: PromptRelease | None, restored: PromptRelease | None = None, **fields: Any
) -> PromptRelease | Failure:
    usual = {"act": "act-2", "label": "production", "after": standing.number if standing else 0, "reason": "go"}
    move = ReleaseMoveRequested(**(usual | fields))
    return plan_release(move, standing, VERSIONS, restored, WORD, 2)


def to(number: int, **more: Any) -> tuple[ReleaseChange, ...]:
    return (ReleaseChange(prompt="worker.step", number=number, **more),)


def test_each_act_makes_the_next_release_of_its_person() -> None:
    moved = plan(STANDING, changes=to(2))
    assert isinstance(moved, PromptRelease)
    assert (moved.number, moved.prompts[0].number, moved.person, moved.canary) == (5, 2, "pia", None)
    begun = plan(STANDING, changes=to(2), percent=10)
    assert isinstance(begun, PromptRelease) and begun.canary is not None
    assert (begun.prompts, begun.canary.prompts[0].number, begun.canary.began) == ((FIRST,), 2, 5)
    grown = plan(CANARY, percent=30)
    assert isinstance(grown, PromptRelease) and grown.canary is not None
    assert (grown.canary.percent, grown.canary.began) == (30, 4), "who is in it stays in it"
    promoted = plan(CANARY, end_canary="promote")
    assert isinstance(promoted, PromptRelease) and (promoted.prompts, promoted.canary) == ((SECOND,), None)
    restored = plan(CANARY, STANDING.model_copy(update={"number": 2, "prompts": ()}), restore=2)
    assert isinstance(restored, PromptRelease)
    assert (restored.prompts, restored.canary, restored.restores) == ((), None, 2)


@pytest.mark.parametrize(
    ("standing", "fields", "code"),
    [
        (STANDING, {"changes": to(2), "after": 3}, "release_moved"),
        (None, {"changes": to(1), "after": 1}, "release_moved"),
        (STANDING, {}, "no_single_change"),
        (STANDING, {"changes": to(2), "restore": 1}, "no_single_change"),
        (STANDING, {"changes": to(9)}, "unknown_version"),
        (STANDING, {"changes": to(1)}, "nothing_changes"),
        (STANDING, {"changes": to(2) + to(1)}, "prompt_twice"),
        (STANDING, {"changes": to(2, values={"tone": "formal"})}, "bad_value"),
        (STANDING, {"changes": to(0), "percent": 10}, "canary_of_shipped"),
        (STANDING, {"restore": 9}, "unknown_release"),
        (STANDING, {"percent": 10}, "no_canary"),
        (STANDING, {"end_canary": "drop"}, "no_canary"),
        (CANARY, {"changes": to(2)}, "canary_stands"),
    ],
)
def test_an_act_that_does_not_fit_is_refused_by_name(
    standing: PromptRelease, fields: dict[str, Any], code: str
) -> None:
    failure = plan(standing, **fields)
    assert isinstance(failure, Failure) and failure.code == code and failure.hint


def test_a_filled_prompt_has_the_bound_of_an_empty_one() -> None:
    content = PromptContent.model_validate({"text": "{{a}}" * 200, "variables": [{"name": "a", "default": "x" * 200}]})
    assert any("with its defaults" in problem for problem in content.list_problems())
