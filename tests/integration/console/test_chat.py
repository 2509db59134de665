"""The room Chat over the whole mesh in one process: what is looked at, the answer, its sources, and acts by role."""

import json
import re
from pathlib import Path

import pytest

from bulkhead.blobs import reference
from tests.integration.console.browsing import browsing, form
from tests.integration.console.test_ratings import ANN, FARES, QUESTION
from tests.integration.memory_mesh.test_approvals import asks
from tests.replay.stage import AUDITOR, OPERATOR, TENANT, call, stage, until, use
from tests.unit.services.model_gateway.scripted_provider import says


async def test_a_turn_is_asked_followed_cited_rated_and_asked_again(tmp_path: Path) -> None:
    marker = reference("rag", FARES.encode()).marker
    async with stage(tmp_path) as on, on.client() as client, browsing(on, ANN) as ann, browsing(on, AUDITOR) as aud:
        await client.add_document(FARES.encode(), "fares.md")
        answer = says(f"It is EUR 12 [#{marker}].")
        on.model.will(answer=[use(call("search_documents", query=QUESTION)), answer])
        hidden = form((await ann.get("/chat")).text, "Send")
        asked = await ann.post("/chat", data=hidden | {"text": QUESTION})
        here = asked.url.path
        [task] = set(re.findall(rf'"{here}/turns/([\w-]+)/live"', asked.text))
        told = (await ann.get(f"{here}/turns/{task}/live")).text
        assert f'id="texts-{task}"' in told
        rows = re.findall(r'<li id="(doing-\w+)"( hx-swap-oob="outerHTML")?>', told)
        assert len({row for row, _ in rows}) == 2 and len(rows) == 4, "each step and call has one row, which ends"
        assert f"<q>{QUESTION}</q>" in told and "event: ended" in told
        doings = (await ann.get(f"{here}/turns/{task}/doings")).text
        assert "fares.md" in doings and "1 passage" in doings and "&lt;b&gt;Children" in doings
        page = (await ann.get(here)).text
        assert "It is EUR 12" in page and f"/tasks/{task}/citations/{marker}" in page and "Why? (optional)" not in page
        thumb = await ann.post(f"/tasks/{task}/rating", data=form(page, 'value="bad"') | {"score": "good"})
        rated = await ann.post(f"/tasks/{task}/rating", data=form(thumb.text, "Why? (optional)") | {"comment": "right"})
        assert rated.url.path == here and 'value="right"> <button>Save' in rated.text
        assert re.search(r'value="good"[^>]*aria-pressed="true"', rated.text)
        assert QUESTION in (await ann.get("/chat")).text
        # What is pinned is shown to each later turn, and says whose word it is.
        pin = form(rated.text, "From the answer of turn 1")
        own = form(rated.text, "In your own words")
        assert pin["turn"] == "1"
        await ann.post(f"{here}/pin", data=pin | {"text": "It is EUR 12."})
        pinned = (await ann.post(f"{here}/pin", data=own | {"text": "<b>I travel alone.</b>"})).text
        assert "from the answer of turn 1, with its trust; pinned by ann" in pinned and "&lt;b&gt;I travel" in pinned
        unpinned = await ann.post(f"{here}/unpin", data=form(pinned, "It is EUR 12.</span>"))
        assert "It is pinned no more." in unpinned.text and "turn 1, with its trust" not in unpinned.text
        assert "said by ann" in unpinned.text
        # The next turn is shown what was said; what is at fault is told, and changes nothing.
        on.model.will(answer=[says("Six.")])
        more = form(rated.text, "Send")
        again = await ann.post(here, data=more | {"text": "And for a child?"})
        assert again.text.count('class="card turn"') == 2 and "And for a child?" in again.text
        assert (await ann.post(here, data=more | {"text": "Another."})).status_code == 422
        [second] = set(re.findall(rf"{here}/turns/([\w-]+)", again.text)) - {task}
        assert "event: ended" in (await ann.get(f"{here}/turns/{second}/live")).text
        shown = (await ann.get(here)).text
        assert "It is EUR 12" in shown and "Six." in shown and QUESTION in json.dumps(on.model.asked[-1][2])
        assert (await aud.get(here)).status_code == 404, "a conversation is its participants'"
        gone = await ann.post(f"{here}/delete", data=form(shown, "Delete the conversation"))
        assert "The conversation is deleted." in gone.text and (await ann.get(here)).status_code == 404


@pytest.mark.slow
async def test_a_turn_that_waits_says_for_what_and_is_replaced_or_forked(tmp_path: Path) -> None:
    async with stage(tmp_path) as on, browsing(on, ANN) as ann, on.client(OPERATOR) as olga:
        on.model.will(answer=[says("Noted.")])
        await olga.halt("tenant", TENANT, "we look at it first")
        page = await ann.post("/chat", data=form((await ann.get("/chat")).text, "Send") | {"text": "I have a cat."})
        here = page.url.path
        [task] = set(re.findall(rf"{here}/turns/([\w-]+)/live", page.text))

        async def held() -> str:
            text = (await ann.get(f"{here}/turns/{task}")).text
            return text if "we look at it first" in text else ""

        assert 'href="/coordination">The halt' in await until(held, "the turn says that it waits", 20)
        await olga.resume("tenant", TENANT, "looked at")
        told = (await ann.get(f"{here}/turns/{task}/live")).text
        assert told.index("event: standing") < told.index("event: ended")
        page = await ann.get(here)
        stopped = await ann.post(f"/tasks/{task}/cancel", data={"key": "0" * 32})
        assert "It had ended already." in stopped.text
        fork = await ann.post(f"{here}/fork", data=form(page.text, "Fork: a new"))
        assert fork.url.path != here and "I have a cat." in fork.text
        assert fork.url.path in (await ann.get("/chat")).text
        edit = form(page.text, "Your question")
        edited = await ann.post(here, data=edit | {"text": "I have a dog."})
        assert "1 turn replaced" in edited.text and edited.text.count('class="card turn"') == 1


@pytest.mark.slow
async def test_a_turn_whose_call_waits_for_a_person_leads_to_the_request(tmp_path: Path) -> None:
    async with stage(tmp_path, rule=asks) as on, browsing(on, ANN) as ann, on.client("bk_ann_of_demo") as client:
        on.model.will(answer=[use(call("counter_increment", name="kept", amount=2)), says("Done.")])
        session = client.session(check=False, tools=("counter_increment",))
        task = await session.say("Count it.")

        async def asked() -> str:
            text = (await ann.get(f"/chat/{session.id}")).text
            return text if "Open the request" in text else ""

        page = await until(asked, "the turn says that it waits", 20)
        [link] = re.findall(r'href="(/approvals/[\w-]+)">Open the request', page)
        assert "counter_increment" in (await ann.get(link)).text
        await task.cancel()
