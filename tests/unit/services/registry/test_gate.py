"""The gate before a label: which moves need a statement, and what each refusal says is missing."""

import pytest

from bulkhead.evaluation.statement import VerifiedStatement
from bulkhead_contracts.approval import ApprovalGrant
from bulkhead_contracts.evaluation import EvaluationPredicate, EvaluationStatement, StatementSubject, SubjectDigest
from bulkhead_contracts.prompt import (
    Canary,
    PromptContent,
    PromptRelease,
    PromptVersion,
    ReleaseChange,
    ReleasedPrompt,
    ReleaseMoveRequested,
)
from bulkhead_contracts.prompt.gate_policy import GatePolicy
from bulkhead_contracts.result import Failure
from bulkhead_services.registry import gate

NOW, HOUR_MS, SHA = 1_800_000_000_000, 3_600_000, "0" * 64
SHIPPED = {"worker.step": "1" * 64, "checker.judge": "2" * 64}
CHANGE = (ReleaseChange(prompt="worker.step", number=2),)


def row(number: int, **values: str) -> ReleasedPrompt:
    return ReleasedPrompt(prompt="worker.step", number=number, sha256=str(number) * 64, values=values)


def make_release(**fields) -> PromptRelease:
    person = {"person": "pia", "role": "prompt_editor", "act": "a", "act_sha256": SHA, "moved_unix_ms": NOW}
    return PromptRelease(**{"label": "production", "number": 1, "reason": "go"} | person | fields)


def make_move(**fields) -> ReleaseMoveRequested:
    return ReleaseMoveRequested(**{"act": "a", "label": "production", "after": 1, "reason": "go"} | fields)


def make_statement(number: int, digests: dict[str, str], case_set: str = "answers", **fields) -> gate.StoredStatement:
    subject = [
        StatementSubject(name=f"prompts/{name}", digest=SubjectDigest(sha256=sha)) for name, sha in digests.items()
    ]
    counts = {"cases": 4, "runs": 4, "expected_runs": 4, "passed": 1.0, "made_unix_ms": NOW - HOUR_MS, "tenant": "demo"}
    predicate = EvaluationPredicate(**{"case_set": case_set} | counts | fields)
    statement = EvaluationStatement(subject=subject, predicate=predicate)
    return gate.StoredStatement(number, VerifiedStatement(statement, SHA, SHA), "pia")


CANARY = Canary(prompts=(row(2),), percent=10, began=2)


@pytest.mark.parametrize(
    ("move", "standing", "release", "needed"),
    [
        ({"changes": CHANGE}, {}, {"prompts": (row(2),)}, True),
        ({"changes": CHANGE, "percent": 10}, {}, {"canary": CANARY}, True),
        ({"end_canary": "promote"}, {"canary": CANARY}, {"prompts": (row(2),)}, True),
        ({"percent": 20}, {"canary": CANARY}, {"canary": CANARY.model_copy(update={"percent": 20})}, True),
        ({"percent": 5}, {"canary": CANARY}, {"canary": CANARY.model_copy(update={"percent": 5})}, False),
        ({"end_canary": "drop"}, {"canary": CANARY}, {}, False),
    ],
)
def test_what_gives_tasks_something_new_needs_a_statement(move, standing, release, needed):
    assert gate.needs_gate(make_move(**move), make_release(**standing), make_release(number=2, **release)) is needed


@pytest.mark.parametrize(
    ("standing", "restored", "needed"),
    [
        ({"number": 5}, {"number": 4}, False),
        ({"number": 5}, {"number": 2}, True),
        ({"number": 5, "restores": 3}, {"number": 4}, True),
        ({"number": 5}, {"number": 2, "gate": ("answers#7@0",)}, False),
        ({"number": 5}, {"number": 2, "gate": ("break_glass",)}, True),
        ({"number": 5}, {"number": 2, "gate": ("answers#7@0",), "canary": CANARY}, True),
    ],
)
def test_only_the_last_release_and_those_with_statements_are_restored_freely(standing, restored, needed):
    move = make_move(restore=restored["number"])
    earlier = make_release(**restored)
    assert gate.needs_gate(move, make_release(**standing), make_release(number=6), earlier) is needed


def test_a_canary_is_judged_as_what_everybody_would_get():
    release = make_release(prompts=(row(1, tone="formal"),), canary=CANARY)
    assert gate.digest_prompts(gate.candidate_rows(release), SHIPPED) == SHIPPED | {"worker.step": "2" * 64}
    valued = gate.digest_prompts(release.prompts, SHIPPED)
    assert valued["worker.step"] not in ("1" * 64, SHIPPED["worker.step"])


WANTED = SHIPPED | {"worker.step": "2" * 64}
GOOD = make_statement(7, WANTED)


@pytest.mark.parametrize(
    ("statements", "move", "role", "result"),
    [
        ([GOOD], {}, "prompt_editor", (f"answers#7@{SHA}",)),
        ([make_statement(8, SHIPPED), GOOD], {}, "prompt_editor", (f"answers#7@{SHA}",)),
        ([], {}, "prompt_editor", "gate_statement_missing"),
        ([make_statement(7, WANTED, "others")], {}, "prompt_editor", "gate_statement_missing"),
        ([make_statement(7, WANTED, tenant="other")], {}, "prompt_editor", "gate_other_tenant"),
        ([make_statement(7, WANTED, tenant="")], {}, "prompt_editor", "gate_other_tenant"),
        ([make_statement(7, SHIPPED)], {}, "prompt_editor", "gate_other_digests"),
        ([make_statement(7, WANTED, made_unix_ms=NOW - 73 * HOUR_MS)], {}, "prompt_editor", "gate_stale"),
        ([make_statement(8, SHIPPED), make_statement(7, WANTED, passed=0.5)], {}, "prompt_editor", "gate_failed"),
        ([], {"break_glass": True}, "operator", ("break_glass",)),
        ([GOOD], {"break_glass": True}, "prompt_editor", "break_glass_refused"),
    ],
)
def test_a_move_stands_on_a_statement_or_is_refused_with_what_is_missing(statements, move, role, result):
    judged = judge(
        GatePolicy(sets={"answers": None}, keys=["a" * 64], break_glass=["operator"]), statements, move, role
    )
    assert (judged.code if isinstance(judged, Failure) else judged) == result
    assert not isinstance(judged, Failure) or judged.hint


@pytest.mark.parametrize(("author", "refused"), [("max", True), ("pia", False)])
def test_nobody_moves_a_label_to_a_version_of_their_own(author, refused):
    policy = GatePolicy(sets={"answers": None}, keys=["a" * 64], four_eyes=True)
    judged = judge(policy, [GOOD], {}, "prompt_editor", author)
    assert isinstance(judged, Failure) is refused and (not refused or judged.code == "four_eyes")


@pytest.mark.parametrize("move", [{}, {"break_glass": True}])
def test_an_api_key_moves_no_label_whose_gate_wants_tokens(move):
    policy = GatePolicy(sets={"answers": None}, keys=["a" * 64], break_glass=["operator"], require_tokens=True)
    refused = judge(policy, [GOOD], move, "operator")
    assert isinstance(refused, Failure) and refused.code == "token_required"
    assert not isinstance(judge(policy, [GOOD], move, "operator", via="jwt"), Failure)


@pytest.mark.parametrize(
    ("requester", "standing", "refused"), [("max", {}, True), ("pia", {}, False), ("max", {"tone": "formal"}, False)]
)
def test_nobody_alone_chooses_values_evaluates_them_and_moves_a_label_to_them(requester, standing, refused):
    policy = GatePolicy(sets={"answers": None}, keys=["a" * 64], four_eyes=True)
    changes = (ReleaseChange(prompt="worker.step", number=2, values={"tone": "formal"}),)
    statement = GOOD._replace(person=requester)
    judged = judge(policy, [statement], {"changes": changes}, "prompt_editor", standing=(row(1, **standing),))
    assert isinstance(judged, Failure) is refused and (not refused or judged.code == "four_eyes")


def judge(policy, statements, move, role, author="pia", via="api_key", standing=()):
    word = {"kind": "prompt", "tenant": "demo", "task": "a", "approval_id": "a", "arguments_sha256": SHA}
    signed = ApprovalGrant(
        **word, decision="granted", person="max", role=role, via=via, reason="go", decided_unix_ms=NOW
    )
    content, made = PromptContent(text="Answer."), {"act": "b", "act_sha256": SHA, "published_unix_ms": NOW}
    version = PromptVersion(
        prompt="worker.step",
        number=2,
        content=content,
        sha256=content.sha256,
        owner="x",
        note="n",
        person=author,
        role="prompt_editor",
        **made,
    )
    return gate.judge_move(
        "demo",
        policy,
        make_move(**{"changes": CHANGE} | move),
        make_release(prompts=standing),
        digests=WANTED,
        changed=[version],
        statements=statements,
        signed_word=signed,
        now_unix_ms=NOW,
    )
