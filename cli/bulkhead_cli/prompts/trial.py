"""`bulkhead prompts try`: a version on tasks that have ended, old and new side by side.

In: a target, a version, ids of tasks. Out: text or JSON; a task for each that is tried.
"""

import asyncio
import uuid
from typing import Any

from bulkhead.client import Mesh
from bulkhead.client.request_checks import check_query
from bulkhead.evaluation.reports.html import mark_differences
from bulkhead.gateway_api.tasks import TaskListQuery
from bulkhead.prompts import trial
from bulkhead.text.amounts import format_cost, format_count, format_duration, format_usd
from bulkhead_cli.output import CommandError, Exit, one_line, print_json
from bulkhead_cli.screen import err, out
from bulkhead_cli.target import GatewayTarget
from bulkhead_contracts.prompt import PRODUCTION, version_name

ROWS = 50


async def try_version(target: GatewayTarget, name: str, tasks: tuple[str, ...], *, as_json: bool) -> None:
    """Run tasks again with a version, and print how they went. Raises CommandError, MeshError."""
    prompt, _, mark = name.partition("@r")
    async with target.mesh_client() as mesh:
        number = int(mark) if mark.isascii() and mark.isdigit() else 0
        page = await mesh.prompt(prompt)
        number = number or (0 if mark else page["prompt"]["newest"])
        version = next((row for row in page["versions"] if row["number"] == number), None)
        if version is None:
            raise CommandError(
                Exit.USAGE, f"{name} is none of the newest versions", f"`bulkhead prompts show {prompt}`"
            )
        ids = list(dict.fromkeys(tasks)) or await _choose_tasks(mesh, prompt)
        if not 0 < len(ids) <= trial.MAX_TASKS:
            hint = f"--task ID: one to {trial.MAX_TASKS} tasks that have ended"
            raise CommandError(Exit.USAGE, f"{format_count(len(ids), 'task')} to try it on", hint)
        documents = [await mesh.task(task).show() for task in ids]
        tools = (await mesh.tools()).model_dump(mode="json")["tools"]
        try:
            bodies = [trial.build_submission(document, tools, "") for document in documents]
        except ValueError as error:
            raise CommandError(Exit.USAGE, str(error), "a trial runs with tools that only read") from error
        standing = (await mesh.releases(PRODUCTION))["releases"]
        change = trial.build_change(prompt, number, version["content"]["variables"], standing)
        reason, key = f"try {version_name(prompt, number)} on stored tasks", str(uuid.uuid4())
        evaluation = await mesh.request_evaluation(PRODUCTION, [change], reason, idempotency_key=key)
        release = evaluation["evaluation"]["release"]
        at_most = format_usd(sum(map(trial.limit_of, documents)))
        err.print(f"{format_count(len(ids), 'task')} with {release}, for {at_most} at most", markup=False)
        runs = await asyncio.gather(*(_run_again(mesh, body, release) for body in bodies))
    if as_json:
        print_json(
            {"release": release, "pairs": [{"old": old, "new": new} for old, new in zip(documents, runs, strict=True)]}
        )
        return
    for old, new in zip(documents, runs, strict=True):
        _print_pair(old, new)


async def _choose_tasks(mesh: Mesh, prompt: str) -> list[str]:
    """The newest tasks that succeeded with the prompt."""
    query = check_query(TaskListQuery, {"status": "succeeded", "kind": "planned", "limit": ROWS})
    page = await mesh.read_json(query)
    chosen: list[str] = []
    for task in trial.list_candidates(page["tasks"]):
        story = (await mesh.task(task).why()).model_dump(mode="json")["story"]
        if trial.uses_prompt(story, prompt):
            chosen.append(task)
        if len(chosen) == trial.USUAL_TASKS:
            break
    return chosen


async def _run_again(mesh: Mesh, body: dict[str, Any], release: str) -> dict[str, Any]:
    task = await mesh.submit(
        body["objective"],
        limit_usd=body["limits"]["cost_usd_micros"] / 1_000_000,
        tools=tuple(body["tools"]),
        feature=body["feature"],
        route=body.get("route", ""),
        constraints=tuple(body.get("constraints", ())),
        prompt_release=release,
    )
    return await task.wait_until_ended()


def _print_pair(old: dict[str, Any], new: dict[str, Any]) -> None:
    out.print(one_line(old["objective"]), markup=False, style="bold")
    for name, document in (("earlier", old), ("new", new)):
        cost = format_cost(trial.cost_of(document), document["usage"].get("estimated_usd_micros", 0))
        duration = format_duration(document["duration_ms"])
        facts = (
            f"{document['status']}, answered: {document['answered'] or 'unknown'}, {trial.tokens_of(document):,} tokens"
        )
        out.print(one_line(f"  {name:8} {document['task_id']}  {facts}, {cost}, {duration}"), markup=False)
    if new["failure"]:
        out.print(one_line(f"  {new['failure']['message']}"), markup=False, style="red")
    pieces, _ = mark_differences(new["answer"] or "", old["answer"] or "")
    for piece in pieces:
        out.print(piece.text, markup=False, end="", style="green" if piece.mark == "added" else "")
    out.print()
