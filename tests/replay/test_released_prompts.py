"""Prompts that a tenant changes: what models are told, from when on, and by whom it may be moved."""

import httpx
import pytest

from bulkhead.journal.quality import read_prompt_usage
from bulkhead_contracts import bounds, subjects
from bulkhead_contracts.prompt import PromptRelease, ReleasedPrompt, ReleaseMoveRequested
from tests.eventually import until
from tests.replay.stage import AUDITOR, EDITOR, OPERATOR, TENANT, Stage, accept, call, plan, reject, stage, use
from tests.unit.services.model_gateway.scripted_provider import says

TONE = {"name": "tone", "kind": "choice", "choices": ["plain", "formal"], "default": "plain"}
CONTENT = {"text": "Answer in a {{tone}} tone. End each sentence with its marker.", "variables": [TONE]}


def people(on: Stage, key: str = EDITOR) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=on.url, headers={"X-API-Key": key}, timeout=30)


async def publish(client: httpx.AsyncClient, content: object = CONTENT, **more: object) -> httpx.Response:
    body = {"content": content, "note": "Say it as we do", "owner": "support", **more}
    return await client.post("/v1/prompts/worker.step", json=body)


async def move(client: httpx.AsyncClient, after: int, **more: object) -> httpx.Response:
    return await client.post("/v1/releases/production", json={"after": after, "reason": "Try it", **more})


def told(on: Stage) -> list[str]:
    """System messages of the worker's calls."""
    return [body["messages"][0]["content"] for role, _, body in on.model.asked if role == "work"]


async def test_a_task_keeps_the_prompts_that_it_began_with(tmp_path):
    async with stage(tmp_path) as on, people(on) as pia:
        published = await publish(pia)
        assert published.status_code == 201, published.text
        assert (published.json()["number"], published.json()["person"]) == (1, "pia")
        moved = await move(pia, 0, changes=[{"prompt": "worker.step", "number": 1, "values": {"tone": "formal"}}])
        assert moved.status_code == 201, moved.text

        changes: list[httpx.Response] = []

        async def move_on(exchange):
            """Another version is released while the task is between two turns."""
            await publish(pia, {"text": "Answer in rhymes.", "variables": []})
            changes.append(await move(pia, 1, changes=[{"prompt": "worker.step", "number": 2}]))
            await use(call("calculate", expression="1 + 1"))(exchange)

        on.model.will(plan({"id": "a", "tools": ["calculate"]}), a=[move_on, says("It is 2.")])
        first = await on.run()
        assert [change.status_code for change in changes] == [201]
        assert told(on) == ["Answer in a formal tone. End each sentence with its marker.\n"] * 2

        on.model.will(plan({"id": "a"}), a=[says("It is 2.")])
        await on.run()
        assert told(on) == ["Answer in rhymes.\n"]

        replies = [row.body for row in await on.mesh.messages("JOURNAL") if row.task == first["task_id"]]
        named = b'"prompt_id":"worker.step@r1"', b'"release":"production.1"'
        assert sum(all(text in body for text in named) for body in replies) == 2


@pytest.mark.slow
async def test_an_earlier_release_is_restored_and_the_shipped_prompt_too(tmp_path):
    async with stage(tmp_path) as on, people(on) as pia:
        await publish(pia)
        await move(pia, 0, changes=[{"prompt": "worker.step", "number": 1}])
        await move(pia, 1, changes=[{"prompt": "worker.step", "number": 0}])
        on.model.will(plan({"id": "a"}), a=[says("It is 2.")])
        await on.run()
        assert told(on)[0].startswith("You carry out one step of a plan.")
        restored = await move(pia, 2, restore=1)
        assert (restored.json()["number"], restored.json()["restores"]) == (3, 1)
        on.model.will(plan({"id": "a"}), a=[says("It is 2.")])
        await on.run()
        assert told(on)[0].startswith("Answer in a plain tone.")
        history = (await pia.get("/v1/releases/production")).json()["releases"]
        assert [row["number"] for row in history] == [3, 2, 1]


@pytest.mark.slow
async def test_a_canary_gets_its_share_and_is_promoted(tmp_path):
    async with stage(tmp_path) as on, people(on) as pia:
        await publish(pia)
        begun = await move(pia, 0, changes=[{"prompt": "worker.step", "number": 1}], percent=50)
        release = PromptRelease.model_validate(begun.json())
        shares = [release.ref_for(f"task{number}", "ann").endswith(".canary") for number in range(2_000)]
        assert 900 < sum(shares) < 1_100
        larger = release.model_copy(update={"canary": release.canary.model_copy(update={"percent": 60})})
        assert all(larger.ref_for(f"task{n}", "ann").endswith(".canary") for n in range(2_000) if shares[n])
        for _ in range(6):
            on.model.will(plan({"id": "a"}), a=[says("It is 2.")])
            task = (await on.run())["task_id"]
            in_canary = release.ref_for(task, "ann").endswith(".canary")
            assert told(on)[0].startswith("Answer in a plain tone.") == in_canary
        ended = await move(pia, 1, end_canary="promote")
        assert [row["number"] for row in ended.json()["prompts"]] == [1]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"text": "Say {{what}}."}, "{{what}} stands in the text and is not declared"),
        ({"text": "Say it.", "variables": [TONE]}, "the variable tone does not stand in the text"),
        ({"text": "Say it.\u200b"}, "characters that nobody sees: U+200B"),
        (CONTENT | {"variables": [TONE | {"default": "rude"}]}, "tone is one of plain, formal"),
        ({"text": "Say it.", "model": "openai/gpt-latest"}, "the model openai/gpt-latest is whatever is newest"),
        ({"text": "Say it.", "output_schema": {"type": "object", "required": 1}}, "the output schema is none"),
        ({"text": "Say it.", "output_schema": {"type": "array"}}, "the output schema needs `type: object`"),
        (
            {"text": "Say it.", "output_schema": {"type": "object", "properties": {"a": {"$ref": "http://a"}}}},
            "the output schema refers to another document",
        ),
    ],
)
async def test_a_version_that_could_not_be_used_is_refused_by_name(tmp_path, content, reason):
    async with stage(tmp_path) as on, people(on) as pia:
        refused = await publish(pia, content)
        assert refused.status_code == 422, refused.text
        assert reason in refused.json()["detail"]


async def test_who_may_change_prompts_and_that_two_do_not_overrule_each_other(tmp_path):
    async with stage(tmp_path) as on, people(on) as pia, people(on, "bk_ann_of_demo") as ann:
        assert (await publish(ann)).json()["code"] == "forbidden"
        assert (await pia.get("/v1/prompts/worker.nothing")).status_code == 404
        assert (await publish(pia)).status_code == 201
        assert (await publish(pia)).json()["code"] == "same_text"
        assert (await move(pia, 0, changes=[{"prompt": "worker.step", "number": 7}])).json()[
            "code"
        ] == "unknown_version"
        assert (await move(pia, 0, changes=[{"prompt": "worker.step", "number": 1}])).status_code == 201
        late = (await move(pia, 0, changes=[{"prompt": "worker.step", "number": 1}])).json()
        assert (late["code"], "moved by pia: Try it" in late["detail"]) == ("release_moved", True)
        [row] = [row for row in (await pia.get("/v1/prompts")).json()["prompts"] if row["prompt"] == "worker.step"]
        assert (row["newest"], row["used"]) == (1, {"production": 1})


async def test_a_gateway_that_lies_moves_no_label(tmp_path, monkeypatch):
    """It has no word of the signer on this act, or the word on another one."""
    async with stage(tmp_path) as on, people(on) as pia:
        await publish(pia)
        gateway = on.mesh.context("gateway")
        signed: list[str] = []
        ask_signer = gateway.publisher.request

        async def overhear(receiver, body, **fields):
            if getattr(body, "token", ""):
                signed.append(body.token)
            return await ask_signer(receiver, body, **fields)

        monkeypatch.setattr(on.mesh.running["gateway", "0"].service.context.publisher, "request", overhear)
        moved = await move(pia, 0, changes=[{"prompt": "worker.step", "number": 1}])
        assert moved.status_code == 201
        for token in ("", *signed):
            forged = ReleaseMoveRequested(
                act="act-forged", label="production", after=1, restore=1, reason="no reason", token=token
            )
            reply = await gateway.publisher.request(
                "registry", forged, tenant=TENANT, task="act-forged", index=f"forged/{len(token)}", actor="pia"
            )
            assert reply.failure.code == "not_signed"


async def test_an_act_is_done_once_and_its_key_is_good_for_no_other(tmp_path):
    async with stage(tmp_path) as on, people(on) as pia:
        once = {"Idempotency-Key": "one"}
        body = {"content": CONTENT, "note": "Say it as we do", "owner": "support"}
        first = await pia.post("/v1/prompts/worker.step", json=body, headers=once)
        await publish(pia, {"text": "Answer in rhymes."})
        again = await pia.post("/v1/prompts/worker.step", json=body, headers=once)
        assert (first.json(), again.json()["number"]) == (again.json(), 1)
        other = await pia.post("/v1/prompts/worker.step", json=body | {"note": "another"}, headers=once)
        assert other.json()["code"] == "idempotency_reused"
        change = {"after": 0, "reason": "Try it", "changes": [{"prompt": "worker.step", "number": 1}]}
        moved = await pia.post("/v1/releases/production", json=change, headers=once)
        assert (await pia.post("/v1/releases/production", json=change, headers=once)).json() == moved.json()


@pytest.mark.slow
async def test_a_prompt_is_not_changed_all_day_and_can_always_be_taken_back(tmp_path, monkeypatch):
    monkeypatch.setattr(bounds, "MAX_PROMPT_ACTS_A_DAY", 2)
    async with stage(tmp_path) as on, people(on) as pia:
        for number in range(2):
            assert (await publish(pia, {"text": f"Answer {number}."})).status_code == 201
            row = {"prompt": "worker.step", "number": number + 1}
            assert (await move(pia, number, changes=[row])).status_code == 201
        assert (await publish(pia, {"text": "Answer again."})).json()["code"] == "too_many_changes"
        assert (await move(pia, 2, changes=[row | {"number": 1}])).json()["code"] == "too_many_changes"
        assert (await move(pia, 2, restore=1)).status_code == 201


async def test_a_version_whose_text_was_changed_is_not_used(tmp_path):
    async with stage(tmp_path) as on, people(on) as pia:
        await publish(pia)
        registry = on.mesh.context("registry")
        forged = PromptRelease(
            label="production",
            number=1,
            prompts=(ReleasedPrompt(prompt="worker.step", number=1, sha256="0" * 64),),
            reason="a broken store",
            person="pia",
            role="prompt_editor",
            act="act-1",
            act_sha256="0" * 64,
            moved_unix_ms=1,
        )
        subject = subjects.release_subject(TENANT, "production", 1)
        await registry.bus.publish(subject, forged.model_dump_json().encode(), {}, "forged")

        async def is_seen() -> bool:
            return bool((await pia.get("/v1/releases")).json()["releases"])

        await until(is_seen)
        on.model.will(plan({"id": "a"}), a=[says("It is 2.")])
        ended = await on.run()
        assert ended["status"] == "failed"
        assert not told(on)


async def test_each_call_names_its_version_and_tells_its_text_to_who_may_read_it(tmp_path):
    async with stage(tmp_path) as on, people(on) as pia, people(on, OPERATOR) as olga, people(on, AUDITOR) as aud:
        await publish(pia)
        await move(pia, 0, changes=[{"prompt": "worker.step", "number": 1, "values": {"tone": "formal"}}])
        on.model.will(plan({"id": "a"}), a=[says("It is 2.")])
        task = (await on.run())["task_id"]
        story = (await olga.get(f"/v1/tasks/{task}/why")).json()["story"]
        work = next(row for row in story["steps"][0]["calls"] if row["name"] == "worker.step")
        assert (work["prompt"], work["release"]) == ("worker.step@r1", "production.1")
        assert story["plans"][0]["by"].endswith("(prompt planner.draft@2 (production 1))")
        assert (
            "worker.step@r1 (production 1) ⇒ answered" in (await olga.get(f"/v1/tasks/{task}/timeline")).json()["text"]
        )

        path = f"/v1/tasks/{task}/calls/{work['call_id']}"
        seen = (await olga.get(path)).json()
        assert (
            seen["call"]["instruction"]
            == told(on)[0]
            == "Answer in a formal tone. End each sentence with its marker.\n"
        )
        assert "prompt worker.step@r1 (production 1) " in seen["text"] and "| Answer in a formal tone." in seen["text"]
        assert not (await aud.get(path)).json()["call"]["instruction"], "an auditor reads no texts of tasks"
        draft = story["planning"][0]
        drafted = (await olga.get(f"/v1/tasks/{task}/calls/{draft['call_id']}")).json()["call"]
        system = next(body["messages"][0]["content"] for role, _, body in on.model.asked if role == "plan")
        assert drafted["prompt_id"] == "planner.draft@2" and drafted["instruction"] == system


@pytest.mark.slow
async def test_every_version_can_be_read_shipped_ones_too(tmp_path):
    async with stage(tmp_path) as on, people(on) as pia:
        await publish(pia)
        await move(pia, 0, changes=[{"prompt": "worker.step", "number": 1, "values": {"tone": "formal"}}], percent=10)
        shipped = (await pia.get("/v1/prompts/checker.judge/versions/1")).json()
        assert shipped["name"] == "checker.judge@1" and shipped["version"] is None and shipped["text"]
        path = "/v1/prompts/worker.step/versions/"
        own = (await pia.get(f"{path}r1", params={"release": "production.1.canary"})).json()
        assert (own["values"], own["filled_text"][:24]) == ({"tone": "formal"}, "Answer in a formal tone.")
        assert (await pia.get(f"{path}r1")).json()["filled_text"].startswith("Answer in a plain tone.")
        unknown = [(f"{path}r2", ""), (f"{path}9", ""), (f"{path}r1", "production.1"), (f"{path}r1", "production.7")]
        for name, release in unknown:
            refused = await pia.get(name, params={"release": release})
            assert refused.status_code == 404 and refused.json()["code"].startswith("unknown_"), name
        assert (await pia.get(f"{path}newest")).status_code == 422


async def test_a_version_brings_its_model_its_parameters_and_its_form(tmp_path):
    schema = {"type": "object", "required": ["total"], "properties": {"total": {"type": "integer"}}}
    pinned = {"text": "Add it up.", "model": "openai/careful-1", "parameters": {"temperature": 0, "top_p": 0.5}}
    route = {"model": "offline-rules-1", "fallback": {"model": "careful-1", "max_output_tokens": 900}}
    routes = {"default": route, "other": {"model": "other-1"}}
    async with stage(tmp_path, routes=routes, free_models=("careful-1", "other-1")) as on, people(on) as pia:
        await publish(pia, pinned | {"output_schema": schema})
        await move(pia, 0, changes=[{"prompt": "worker.step", "number": 1}])
        on.model.will(plan({"id": "a"}), a=[says('{"total": 2}')])
        assert (await on.run())["status"] == "succeeded"
        [body] = [body for role, _, body in on.model.asked if role == "work"]
        assert (body["model"], body["temperature"], body["top_p"]) == ("careful-1", 0, 0.5)
        assert body["response_format"]["json_schema"] == {"name": "text", "strict": False, "schema": schema}
        assert {body["model"] for role, _, body in on.model.asked if role == "plan"} == {"offline-rules-1"}

        # A task that names a route is answered by it; an answer of another form is none.
        on.model.will(plan({"id": "a"}), a=[says("It is 2.")])
        ended = await on.run(route="other")
        assert {body["model"] for _, _, body in on.model.asked if _ != "judge"} == {"other-1"}
        assert ended["status"] == "failed"

        await publish(pia, {"text": "Add it up.", "model": "openai/nobody-1"})
        await move(pia, 1, changes=[{"prompt": "worker.step", "number": 2}])
        on.model.will(plan({"id": "a"}), a=[says("It is 2.")])
        task = (await on.run())["task_id"]
        replies = [row.body for row in await on.mesh.messages("JOURNAL") if row.task == task]
        assert any(b"the model openai/nobody-1, which no route" in body for body in replies)
        assert not told(on)


async def test_a_version_of_the_same_content_may_have_a_later_review_date(tmp_path):
    async with stage(tmp_path) as on, people(on) as pia:
        assert (await publish(pia, review_by="2027-02-28")).json()["review_by"] == "2027-02-28"
        assert (await publish(pia, review_by="2027-02-28")).json()["code"] == "same_text"
        later = (await publish(pia, review_by="2027-05-01")).json()
        assert (later["number"], later["review_by"]) == (2, "2027-05-01")
        assert (await publish(pia, review_by="2027-02-30")).status_code == 422


async def test_the_cost_of_each_version_is_summed_and_what_it_brought(tmp_path):
    async with stage(tmp_path) as on, people(on) as pia, people(on, OPERATOR) as olga:
        on.model.will(plan({"id": "a"}), a=[says("It is 2.")])
        await on.run()
        await publish(pia)
        await move(pia, 0, changes=[{"prompt": "worker.step", "number": 1}])
        on.model.will(plan({"id": "a"}), a=[says("It is 2."), says("It is 3.")], judges={"a": [reject("no"), accept()]})
        await on.run()
        page = (await olga.get("/v1/spend", params={"by": "prompt", "since": "1h"})).json()
        assert {row["name"]: row["spent"]["model_calls"] for row in page["rows"]} == {
            "planner.draft@2": 2,
            "worker.step@1": 1,
            "worker.step@r1": 2,
            "checker.judge@2": 3,
        }
        usage = await read_prompt_usage(on.mesh.context("budget").bus, 0)
        rows = {row["prompt"]: row for row in usage["prompts"]}
        assert (rows["worker.step@r1"]["calls"], rows["worker.step@r1"]["accepted"]) == (2, 1)
        assert rows["worker.step@r1"]["tokens_per_accepted"] == rows["worker.step@r1"]["tokens"] > 0
        assert [row["release"] for row in usage["releases"]] == ["(shipped prompts)", "production.1"]


async def test_prompts_in_use_that_are_past_their_review_date_are_counted(tmp_path):
    async with stage(tmp_path) as on, people(on) as pia:
        reviews = on.mesh.running["registry", "0"].service.component.reviews
        await publish(pia, review_by="2020-01-31")
        await reviews.read_dates()
        assert reviews.count_overdue() == 0, "no task gets it"
        await move(pia, 0, changes=[{"prompt": "worker.step", "number": 1}])
        await reviews.read_dates()
        assert reviews.count_overdue() == 1
        [row] = [row for row in (await pia.get("/v1/prompts")).json()["prompts"] if row["prompt"] == "worker.step"]
        assert row["review_by"] == "2020-01-31"
        await publish(pia, review_by="2099-01-31")
        await move(pia, 1, changes=[{"prompt": "worker.step", "number": 2}])
        await reviews.read_dates()
        assert reviews.count_overdue() == 0


async def test_a_pinned_model_is_held_to_the_tenants_policy_and_counted_as_itself(tmp_path):
    routes = {"default": {"model": "offline-rules-1"}, "spare": {"model": "careful-1"}, "abroad": {"model": "far-1"}}
    routes["abroad"]["provider"] = "far"
    settings = {
        "routes": routes,
        "providers": {"far": {"base_url": "http://127.0.0.1:9/v1", "api_key": "k"}},
        "free_models": ("careful-1", "far-1"),
        "tenant_policies": {TENANT: {"providers": ["openai"]}},
    }
    async with stage(tmp_path, **settings) as on, people(on) as pia, people(on, OPERATOR) as olga:
        await publish(pia, {"text": "Add it up.", "model": "spare"})
        await publish(pia, {"text": "Add it up.", "model": "far/far-1"})
        await move(pia, 0, changes=[{"prompt": "worker.step", "number": 1}])
        on.model.will(plan({"id": "a"}), a=[says("It is 2.")])
        assert (await on.run())["status"] == "succeeded"
        page = (await olga.get("/v1/spend", params={"by": "model", "since": "1h"})).json()
        assert {row["name"]: row["spent"]["calls"] for row in page["rows"]} == {"offline-rules-1": 2, "careful-1": 1}

        await move(pia, 1, changes=[{"prompt": "worker.step", "number": 2}])
        on.model.will(plan({"id": "a"}), a=[says("It is 2.")])
        task = (await on.run())["task_id"]
        replies = [row.body for row in await on.mesh.messages("JOURNAL") if row.task == task]
        assert any(
            b"the policy of tenant demo allows no model of tier default: far-1 at far" in body for body in replies
        )
