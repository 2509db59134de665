"""Who a token's owner is, and the user that the broker is told of."""

import json

import pytest

from bulkhead_infra.identity import policy, render
from bulkhead_infra.identity.rights import rights
from bulkhead_services.identity.core import (
    Admission,
    Claims,
    PermissionsError,
    Question,
    Refusal,
    decide,
    read_permissions,
    user_claims,
)

NOW = 1_000_000
RULES = policy.load(kubernetes=True)
KNOWN = read_permissions(render.permissions(RULES, {"worker": 3}).encode())
QUESTION = Question("NSERVER", "UCLIENT")


def _claims(subject: str = "system:serviceaccount:bulkhead:tool-executor", lasts_s: int = 600) -> Claims:
    return Claims(subject, NOW, NOW + lasts_s)


def _decide(claims: Claims, question: Question = QUESTION, now_s: int = NOW):
    return decide(KNOWN, "bulkhead", 3_600, claims, question, now_s)


def test_a_service_account_is_its_service_and_every_service_has_one():
    admitted = _decide(_claims())
    assert isinstance(admitted, Admission) and admitted.service == "tool_executor"
    for name in RULES.admitted:
        admitted = _decide(_claims(f"system:serviceaccount:bulkhead:{name.replace('_', '-')}"))
        assert isinstance(admitted, Admission) and admitted.permissions.account == f"SVC_{name.upper()}"


@pytest.mark.parametrize(
    ("claims", "question", "code"),
    [
        (_claims("system:serviceaccount:bulkhead:identity"), QUESTION, "unknown_subject"),
        (_claims("system:serviceaccount:other:worker"), QUESTION, "unknown_subject"),
        (_claims("system:serviceaccount:bulkhead:worker:x"), QUESTION, "unknown_subject"),
        (_claims("worker"), QUESTION, "unknown_subject"),
        (_claims(lasts_s=3_601), QUESTION, "token_lasts_too_long"),
        (_claims(lasts_s=0), QUESTION, "token_expired"),
        (_claims(), Question("N", "U", asks_for="budget"), "foreign_account"),
    ],
)
def test_nobody_else_comes_in(claims: Claims, question: Question, code: str):
    refused = _decide(claims, question)
    assert isinstance(refused, Refusal) and refused.code == code and refused.hint and refused.claims == claims


def test_a_user_has_what_the_user_with_an_nkey_has_and_ends_with_the_token():
    granted = rights(RULES, {"worker": 3})
    for name in RULES.admitted:
        admitted = _decide(_claims(f"system:serviceaccount:bulkhead:{name.replace('_', '-')}"))
        assert isinstance(admitted, Admission)
        claims = user_claims(admitted, QUESTION, "AISSUER", NOW)
        may = render.permissions_of(name, granted)
        assert claims["nats"]["pub"] == {"allow": may.publish} and claims["nats"]["sub"] == {"allow": may.subscribe}
        wanted = {"max": 1, "ttl": render.SERVE_REPLY_MAX_S * 10**9} if may.serves else None
        assert claims["nats"].get("resp") == wanted
        assert (claims["aud"], claims["exp"]) == (f"SVC_{name.upper()}", NOW + 600)
    worker = KNOWN["worker"]
    assert sum("MSG.NEXT.INBOX_WORKER" in subject for subject in worker.publish) == 3


@pytest.mark.parametrize(
    "change",
    [
        {"publish": []},
        {"subscribe": []},
        {"account": ""},
        {"service_account": "Worker"},
        {"more": 1},
        {"publish": [""]},
    ],
)
def test_a_permissions_file_that_could_mean_everything_is_not_taken(change: dict):
    rows = json.loads(render.permissions(RULES))
    rows["services"]["worker"].update(change)
    with pytest.raises(PermissionsError, match=r"permissions file: services\.worker.*render it again"):
        read_permissions(json.dumps(rows).encode())
