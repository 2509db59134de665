"""A version tried on stored tasks: which ones, then old and new side by side.

In: a visit and the version of its page. Out: pages; an evaluation without a set, whose release names the version, and a
task for each that is tried, in the person's name.
"""

import asyncio
from typing import Any

from starlette.responses import Response

from bulkhead.gateway_api.query import SUBMITTERS
from bulkhead.prompts import trial
from bulkhead_contracts import subjects
from bulkhead_contracts.prompt import PRODUCTION
from bulkhead_services.gateway.console.api import ApiRefused, Json
from bulkhead_services.gateway.console.task.difference import compare_tasks
from bulkhead_services.gateway.console.visits import KEY_FIELD, Visit, redirect_to
from bulkhead_services.gateway.read_model.task_view import ENDED

ROWS = 50


async def show_trial(visit: Visit, here: str, prompt: str, mark: str, *, may_change: bool) -> Response:
    """The page: tasks to choose, or the pairs that its address names. Raises ApiRefused."""
    pairs = [_read_pair(text) for text in visit.request.query_params.getlist("pair")[: trial.MAX_TASKS]]
    values: dict[str, Any] = {"here": here, "prompt": prompt, "mark": mark, "max_tasks": trial.MAX_TASKS}
    if pairs:
        compared = await asyncio.gather(*(_compare_pair(visit, *pair) for pair in pairs))
        is_over = all(row["new"]["status"] in ENDED for row in compared)
        address = str(visit.request.url.path) + "?" + str(visit.request.url.query)
        return visit.render_page("prompts/trial.html", pairs=compared, is_over=is_over, address=address, **values)
    may = may_change and visit.claim.role in SUBMITTERS.names
    tasks = await _offer_tasks(visit, prompt) if may else []
    at_most = sum(map(trial.limit_of, tasks))
    return visit.render_page("prompts/trial.html", pairs=(), may=may, tasks=tasks, at_most=at_most, **values)


async def begin_trial(visit: Visit, here: str, prompt: str, mark: str, version: Json) -> Response:
    """Make the release, submit the tasks, and go to their comparison. Raises ApiRefused."""
    form = await visit.read_form()
    ids = [_check_id(form[f"task-{number}"].strip()) for number in range(trial.MAX_TASKS) if form.get(f"task-{number}")]
    if not ids:
        raise ApiRefused(422, {"title": "No task", "detail": "no task is named", "hint": "name one to five tasks"})
    documents, tools, page = await asyncio.gather(
        asyncio.gather(*(visit.get(f"/v1/tasks/{task}") for task in dict.fromkeys(ids))),
        visit.get("/v1/tools"),
        visit.get(f"/v1/releases/{PRODUCTION}"),
    )
    try:
        bodies = [trial.build_submission(document, tools["tools"], "") for document in documents]
    except ValueError as error:
        hint = "a trial runs with tools that only read"
        raise ApiRefused(422, {"title": "Not to be tried", "detail": str(error), "hint": hint}) from error
    change = trial.build_change(prompt, version["number"], version["content"]["variables"], page["releases"])
    key = form.get(KEY_FIELD, "")
    body: Json = {"label": PRODUCTION, "changes": [change], "reason": f"try {prompt}@{mark} on stored tasks"}
    release = (await visit.post("/v1/evaluations", body, key))["evaluation"]["release"]
    receipts = [
        await visit.post("/v1/tasks", body | {"prompt_release": release}, f"{key}t{number}")
        for number, body in enumerate(bodies)
    ]
    pairs = "".join(
        f"&pair={document['task_id']}.{receipt['task_id']}"
        for document, receipt in zip(documents, receipts, strict=True)
    )
    return redirect_to(visit.request, f"{here}/try?version={mark}{pairs}")


async def _offer_tasks(visit: Visit, prompt: str) -> list[Json]:
    """The newest tasks that succeeded with the prompt."""
    page = await visit.get("/v1/tasks", status="succeeded", kind="planned", limit=ROWS)
    candidates = trial.list_candidates(page["tasks"])
    stories = await asyncio.gather(*(visit.get(f"/v1/tasks/{task}/why") for task in candidates))
    fitting = [
        task
        for task, explanation in zip(candidates, stories, strict=True)
        if trial.uses_prompt(explanation["story"], prompt)
    ]
    return await asyncio.gather(*(visit.get(f"/v1/tasks/{task}") for task in fitting[: trial.USUAL_TASKS]))


async def _compare_pair(visit: Visit, old_id: str, new_id: str) -> dict[str, Any]:
    old, new, old_why, new_why = await asyncio.gather(
        visit.get(f"/v1/tasks/{old_id}"),
        visit.get(f"/v1/tasks/{new_id}"),
        visit.get(f"/v1/tasks/{old_id}/why"),
        visit.get(f"/v1/tasks/{new_id}/why"),
    )
    # In a thread: two long answers take a while.
    difference = await asyncio.to_thread(compare_tasks, new, old, new_why["story"], old_why["story"])
    return {"old": old, "new": new, "difference": difference, "content": old_why["content"] and new_why["content"]}


def _read_pair(text: str) -> tuple[str, str]:
    """Ids of the earlier task and of the new one. Raises ApiRefused."""
    old, _, new = text.partition(".")
    return _check_id(old), _check_id(new)


def _check_id(text: str) -> str:
    try:
        return subjects.check_token(text)
    except subjects.SubjectError as error:
        hint = "choose a task of your tenant by its id"
        raise ApiRefused(422, {"title": "Not a task's id", "detail": str(error), "hint": hint}) from error
