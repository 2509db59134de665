"""What was spent over HTTP: who may see it, and what a question may say."""

import hashlib
import json

import pytest

from tests.unit.services.gateway.harness import AUDITOR, OPERATOR

SUBMITTER = "bk_submitter_key_of_acme"


def told(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def test_operators_and_auditors_see_it_and_nobody_else(http, tmp_path) -> None:
    for key in (OPERATOR, AUDITOR):
        answer = await http.get("/v1/spend", headers=told(key))
        assert answer.status_code == 200 and answer.json()["by"] == "agent" and answer.json()["rows"] == []
    assert (await http.get("/v1/spend", headers=told("bk_x"))).status_code == 401
    _also_a_submitter(tmp_path / "keys.json")
    answer = await http.get("/v1/spend", headers=told(SUBMITTER))
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden") and answer.json()["hint"]
    assert (await http.get("/v1/limits", headers=told(SUBMITTER))).status_code == 200, "the key itself is good"


def _also_a_submitter(keys) -> None:
    rows = json.loads(keys.read_text())["keys"]
    rows.append(
        {
            "sha256": hashlib.sha256(SUBMITTER.encode()).hexdigest(),
            "tenant": "acme",
            "person": "sue",
            "role": "submitter",
        }
    )
    keys.write_text(json.dumps({"keys": rows}))


@pytest.mark.parametrize(
    "query",
    [
        "by=planet",
        "by=",
        "since=0h",
        "since=1",
        "since=32d",
        "since=-1h",
        "since=1h2m",
        "since=%D9%A1h",
        "limit=0",
        "limit=101",
    ],
)
async def test_a_question_that_does_not_fit_is_refused_in_words(http, query: str) -> None:
    answer = await http.get(f"/v1/spend?{query}", headers=told(OPERATOR))
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_query") and answer.json()["hint"], answer.text


@pytest.mark.parametrize("by", ["agent", "step", "workflow", "feature", "user", "tenant", "model", "task"])
async def test_every_kind_can_be_asked_for(http, by: str) -> None:
    answer = await http.get("/v1/spend", params={"by": by, "since": "1h", "limit": "3"}, headers=told(OPERATOR))
    assert (answer.status_code, answer.json()["by"]) == (200, by)
