"""The room of approvals over the whole mesh in one process: what a person sees of a call, and what his word does."""

import re
from pathlib import Path

import pytest

from bulkhead_services.gateway.console.api import ConsoleApi, Json, Query
from tests.integration.console.browsing import browsing, form
from tests.integration.memory_mesh.test_approvals import waiting, writing
from tests.replay.stage import APPROVER


async def test_a_person_sees_the_exact_call_with_its_sources_and_grants_it(tmp_path: Path) -> None:
    async with writing(tmp_path) as (on, _, bob, task), browsing(on, APPROVER) as client:
        row = await waiting(bob)
        listed = (await client.get("/approvals")).text
        assert "counter_increment" in listed and f'href="/approvals/{row.approval_id}"' in listed
        page = (await client.get(f"/approvals/{row.approval_id}")).text
        assert "&#34;amount&#34;: 2" in re.sub("<[^>]+>", "", page)
        for shown in (
            "high risk",
            "writes are asked about",
            "<code>/name</code>",
            "nowhere",
            "Count it.",
            row.request.arguments_sha256,
            "writes-ask",
        ):
            assert shown in page, shown
        assert f'hx-get="/approvals/{row.approval_id}/state"' in page
        asked: list[str] = []
        get = ConsoleApi.get

        async def noted(api: ConsoleApi, token: str, path: str, query: Query | None = None) -> Json:
            asked.append(path)
            return await get(api, token, path, query)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ConsoleApi, "get", noted)
            state = (await client.get(f"/approvals/{row.approval_id}/state")).text
        assert 'id="how"' in state and "high risk" in state
        assert asked == [f"/v1/approvals/{row.approval_id}"], "an open page folds no story at each change"
        given = form(page, 'value="granted"') | {"reason": "seen on the invoice"}
        done = await client.post(f"/approvals/{row.approval_id}", data=given)
        assert done.status_code == 200 and "by bob (approver)" in done.text and "seen on the invoice" in done.text
        assert '<form method="post" action="/approvals' not in done.text, "nothing is left to decide"
        assert (await task.wait_until_ended(30))["status"] == "succeeded"
        assert on.counter.counts()["counts"] == {"kept": 2}
        assert "Nothing waits" in (await client.get("/approvals")).text
        assert "seen on the invoice" in (await client.get("/approvals?state=granted")).text
        again = await client.post(f"/approvals/{row.approval_id}", data=given)
        assert again.status_code == 409 and "it was granted by bob" in again.text


async def test_a_word_about_another_call_is_refused_and_a_denial_has_a_reason(tmp_path: Path) -> None:
    async with writing(tmp_path) as (on, _, bob, task), browsing(on, APPROVER) as client:
        path = f"/approvals/{(await waiting(bob)).approval_id}"
        page = (await client.get(path)).text
        other = await client.post(path, data=form(page, 'value="granted"') | {"arguments_sha256": "0" * 64})
        assert other.status_code == 409 and "the digest is not that of the call" in other.text
        assert on.counter.counts()["increments"] == 0
        done = await client.post(path, data=form(page, 'value="denied"') | {"reason": "not <b>this</b> vendor"})
        assert "not &lt;b&gt;this&lt;/b&gt; vendor" in done.text
        await task.wait_until_ended(30)
        assert on.counter.counts()["increments"] == 0


async def test_who_may_not_decide_reads_and_another_tenant_sees_nothing(tmp_path: Path) -> None:
    async with writing(tmp_path) as (on, _, bob, _task):
        path = f"/approvals/{(await waiting(bob)).approval_id}"
        async with browsing(on, "bk_ann_of_demo") as ann:
            page = await ann.get(path)
            assert page.status_code == 200 and 'name="decision"' not in page.text
            refused = await ann.post(path, data={"decision": "granted", "arguments_sha256": "0" * 64})
            assert refused.status_code == 403
        async with browsing(on, "bk_eve_of_acme") as eve:
            assert (await eve.get(path)).status_code == (await eve.get(f"{path}/state")).status_code == 404
            assert "Nothing waits" in (await eve.get("/approvals")).text
