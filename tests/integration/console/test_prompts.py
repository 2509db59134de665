"""The rooms of prompts and labels: a version is written, tried on a share, given to everybody, and taken back."""

from pathlib import Path

from tests.integration.console.browsing import browsing, form
from tests.replay.stage import APPROVER, AUDITOR, EDITOR, OPERATOR, plan, stage
from tests.unit.services.model_gateway.scripted_provider import says

TEXT = "Answer in a {{tone}} tone.\n<b>End</b> each sentence with its marker."
TONE = {
    "name-0": "tone",
    "kind-0": "choice",
    "choices-0": "plain\nformal",
    "default-0": "plain",
    "description-0": "How it sounds",
}
NOTE = {"note": "our <i>own</i> words", "owner": "support"}


async def test_a_person_writes_a_version_promotes_it_and_goes_back(tmp_path: Path) -> None:
    async with stage(tmp_path) as on, browsing(on, EDITOR) as pia, browsing(on, AUDITOR) as aud:
        listed = (await pia.get("/prompts")).text
        assert 'href="/prompts/worker.step"' in listed and "every task has the shipped prompts" in listed
        page = (await pia.get("/prompts/worker.step/edit")).text
        assert "You carry out one step of a plan." in page

        checked = await pia.post(
            "/prompts/worker.step/check", data={"text": TEXT, "name-0": "Tone"}, headers={"HX-Request": "true"}
        )
        assert "variables.0.name" in checked.text and 'data-declare="tone"' in checked.text
        refused = await pia.post("/prompts/worker.step/edit", data=form(page, "Publish") | NOTE | {"text": TEXT})
        assert refused.status_code == 422 and "{{tone}} stands in the text and is not declared" in refused.text
        assert "&lt;b&gt;End&lt;/b&gt;" in refused.text and "our &lt;i&gt;own" in refused.text, "what was typed stays"
        done = await pia.post(
            "/prompts/worker.step/edit", data=form(refused.text, "Publish") | NOTE | TONE | {"text": TEXT}
        )
        assert done.url.path == "/prompts/worker.step" and "Text of worker.step@r1" in done.text
        assert "Made from worker.step@1" in done.text
        difference = (await aud.get("/prompts/worker.step?version=r1&against=shipped")).text
        assert "removed:</span> You carry out one step of a plan." in difference
        assert "the variable tone is new: one of plain, formal" in difference

        promoting = (await pia.get("/prompts/worker.step/promote?version=r1")).text
        assert "production has no release yet" in promoting and "How it sounds" in promoting
        move = form(promoting, "Promote") | {"value-tone": "formal", "reason": "try it"}
        unfit = await pia.post("/prompts/worker.step/promote", data=move | {"share": "some", "percent": "99"})
        assert unfit.status_code == 422 and "percent" in unfit.text and "try it" in unfit.text
        label = await pia.post("/prompts/worker.step/promote", data=move | {"share": "some", "percent": "10"})
        assert label.url.path == "/prompts/by-label/production" and "10 % of tasks" in label.text
        assert "tone = formal" in label.text
        label = await pia.post(
            "/prompts/by-label/production/share",
            data=form(label.text, "Change it") | {"percent": "20", "reason": "it does well"},
        )
        assert "20 % of tasks" in label.text
        label = await pia.post(
            "/prompts/by-label/production/promote", data=form(label.text, "Promote it") | {"reason": "better"}
        )
        assert "None: every task gets the same versions" in label.text
        again = await pia.post("/prompts/by-label/production/drop", data={"after": "1", "reason": "late"})
        assert again.status_code == 409 and "production is at release 3 now, and not at 1" in again.text
        listed = (await aud.get("/prompts")).text
        assert "production: r1" in listed and "our &lt;i&gt;own&lt;/i&gt; words" in listed and "pia" in listed

        back = await pia.post(
            "/prompts/by-label/production/restore", data=form(label.text, "Roll back to 1") | {"reason": "worse"}
        )
        assert "production 4" in back.text and "as 1" in back.text
        shipped = (await pia.get("/prompts/worker.step/promote?version=shipped")).text
        assert "Use the shipped text again" in shipped


async def test_others_read_or_are_told_who_may(tmp_path: Path) -> None:
    async with stage(tmp_path) as on, browsing(on, AUDITOR) as aud, browsing(on, APPROVER) as bob:
        assert "Prompt editors and operators write versions" in (await aud.get("/prompts/worker.step")).text
        for path in ("edit", "promote"):
            page = (await aud.get(f"/prompts/worker.step/{path}")).text
            assert "Ask one of them" in page and 'name="reason"' not in page and 'name="text"' not in page
        refused = await aud.post("/prompts/worker.step/edit", data={"text": "x", "note": "x", "owner": "x"})
        assert refused.status_code == 403
        seen = await bob.get("/prompts")
        assert seen.status_code == 403 and "prompt_editor, operator or auditor" in seen.text
        assert (await aud.get("/prompts/worker.none")).status_code == 404
        assert (await aud.get("/prompts/by-label/production")).status_code == 404


async def test_search_finds_a_prompt(tmp_path: Path) -> None:
    async with stage(tmp_path) as on, browsing(on, OPERATOR) as olga, browsing(on, APPROVER) as bob:
        assert 'href="/prompts/worker.step"' in (await olga.get("/search?q=worker.step")).text
        assert 'href="/prompts/worker.step"' not in (await bob.get("/search?q=worker.step")).text


async def test_a_version_has_its_model_parameters_schema_and_review_date(tmp_path: Path) -> None:
    async with stage(tmp_path) as on, browsing(on, EDITOR) as pia:
        page = (await pia.get("/prompts/worker.step/edit")).text
        settings = {"model": "default", "temperature": "0.2", "output_schema": '{"type": "object"'}
        typed = form(page, "Publish") | NOTE | {"text": "Answer."} | settings
        refused = await pia.post("/prompts/worker.step/edit", data=typed)
        assert refused.status_code == 422 and "output_schema" in refused.text
        typed |= {"output_schema": '{"type": "object"}', "review_by": "2027-03-31"}
        done = (await pia.post("/prompts/worker.step/edit", data=typed)).text
        assert "<code>default</code>" in done and "<dd>0.2</dd>" in done and "2027-03-31" in done
        edited = (await pia.get("/prompts/worker.step/edit")).text
        assert (
            'name="temperature" value="0.2"' in edited and 'name="review_by" type="date" value="2027-03-31"' in edited
        )
        assert "&#34;type&#34;: &#34;object&#34;" in edited


async def test_an_operator_tries_a_version_on_stored_tasks(tmp_path: Path) -> None:
    async with stage(tmp_path) as on, browsing(on, EDITOR) as pia, browsing(on, OPERATOR) as olga:
        on.model.will(plan({"id": "a"}), a=[says("It is 2.")])
        old = (await on.run("Add it up."))["task_id"]
        page = (await pia.get("/prompts/worker.step/edit")).text
        await pia.post("/prompts/worker.step/edit", data=form(page, "Publish") | NOTE | {"text": "Answer in rhymes."})
        assert "an operator may do that" in (await pia.get("/prompts/worker.step/try?version=r1")).text
        offered = (await olga.get("/prompts/worker.step/try?version=r1")).text
        assert f'value="{old}"' in offered and "Add it up." in offered and "$0.05 at most" in offered
        on.model.will(plan({"id": "a"}), a=[says("It is 2, and so are you.")])
        shown = await olga.post("/prompts/worker.step/try?version=r1", data=form(offered, "Try it") | {"task-0": old})
        assert shown.status_code == 200 and f"pair={old}." in str(shown.url), shown.text
        new = str(shown.url).rpartition(".")[2]
        async with on.client(OPERATOR) as client:
            await client.task(new).wait_until_ended(30)
        shown = await olga.get(str(shown.url))
        assert (
            "only new:</span> It is 2, and so are you." in shown.text and "only earlier:</span> It is 2." in shown.text
        )
        assert 'hx-trigger="every 2s"' not in shown.text and "token" in shown.text
        assert (await olga.get("/prompts/worker.step/try?version=r1&pair=..")).status_code == 422
        assert (await olga.get("/prompts/worker.step/try?version=shipped")).status_code == 422
