"""Who a token's owner is, and the user that the broker is told of."""

import json

import pytest

from bulkhead_infra.identity import policy, render
from bulkhead_infra.identity.rights import derive_rights
from bulkhead_services.identity.core import (
    LoginAdmission,
    LoginQuestion,
    PermissionsError,
    TokenClaims,
    decide_login,
    read_permissions,
    user_claims,
)

NOW = 1_000_000
RULES = policy.load_policy(kubernetes=True)
KNOWN = read_permissions(render.render_permissions(RULES, {"worker": 3}).encode())
QUESTION = LoginQuestion("NSERVER", "UCLIENT")


def _claims(subject: str = "system:serviceaccount:bulkhead:tool-executor", lasts_s: int = 600) -> TokenClaims:
    return TokenClaims(subject, NOW, NOW + lasts_s)


def _decide(claims: TokenClaims, question: LoginQuestion = QUESTION, now_s: int = NOW):
    return decide_login(KNOWN, "bulkhead", 3_600, claims, question, now_s)


def test_a_service_account_is_its_service_and_every_service_has_one():
    admitted = _decide(_claims())
    assert isinstance(admitted, LoginAdmission) and admitted.service == "tool_executor"
    for name in RULES.with_token:
        admitted = _decide(_claims(f"system:serviceaccount:bulkhead:{name.replace('_', '-')}"))
        assert isinstance(admitted, LoginAdmission) and admitted.permissions.account == f"SVC_{name.upper()}"


def test_a_user_has_what_the_user_with_an_nkey_has_and_ends_with_the_token():
    granted = derive_rights(RULES, {"worker": 3})
    for name in RULES.with_token:
        admitted = _decide(_claims(f"system:serviceaccount:bulkhead:{name.replace('_', '-')}"))
        assert isinstance(admitted, LoginAdmission)
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
    rows = json.loads(render.render_permissions(RULES))
    rows["services"]["worker"].update(change)
    with pytest.raises(PermissionsError, match=r"permissions file: services\.worker.*render it again"):
        read_permissions(json.dumps(rows).encode())
