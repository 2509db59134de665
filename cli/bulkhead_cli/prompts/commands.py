"""`bulkhead prompts`: what models are told, as versions that never change and labels that move. `main` adds it.

In: the gateway, as a person with the role prompt_editor or operator. Out: text or JSON, and an exit code.
"""

import asyncio
import difflib
import os
import shlex
import tempfile
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from bulkhead.client import Mesh
from bulkhead.text import amounts
from bulkhead_cli.invocation import CommandGroup
from bulkhead_cli.options import GatewayOptions, duration_s, reason_of
from bulkhead_cli.output import EXIT_CODES, CommandError, Exit, Work, one_line, print_json
from bulkhead_cli.prompts.canaries import print_watch
from bulkhead_cli.prompts.files import PromptFile, read_prompt_file, render_settings, write_prompt_file
from bulkhead_cli.screen import out
from bulkhead_contracts.prompt import PRODUCTION, PromptContent, version_name

SUFFIX = ".md"
POLL_S = 1.0
PromptId = Annotated[str, typer.Argument(metavar="PROMPT", help="Id of the prompt: worker.step.")]
Label = Annotated[str, typer.Option("--label", metavar="LABEL", help="Environment whose label is meant.")]
Why = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Reason; stored with the move.")]
Values = Annotated[
    list[str] | None, typer.Option("--value", metavar="NAME=TEXT", help="Value of a variable; may be repeated.")
]
BreakGlass = Annotated[
    bool, typer.Option("--break-glass", help="Move it without the statements that its gate asks for, on record.")
]
Note = Annotated[str, typer.Option("--note", metavar="TEXT", help="What changes, and why; stored with the version.")]
Owner = Annotated[str, typer.Option("--owner", metavar="NAME", help="Owner, where the file names none.")]
File = Annotated[Path, typer.Argument(metavar="FILE", help="File of the prompt, PROMPT.md.")]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of prompts' files.")]

prompts_app = CommandGroup(invoke_without_command=True, rich_markup_mode="rich", epilog=EXIT_CODES)


@prompts_app.callback()
async def show_prompts(at: GatewayOptions) -> None:
    """List, change and release what models are told: versions and labels.

    A version never changes; a label (production) says which version of each prompt tasks begin with. A task keeps what
    it began with. Without a subcommand, the prompts are listed.
    """
    await _print_prompts(at)


@prompts_app.command("list")
async def list_prompts(at: GatewayOptions) -> None:
    """List the prompts, the newest version of each, and which one each label uses."""
    await _print_prompts(at)


@prompts_app.command("show")
async def show_prompt(
    prompt: PromptId,
    at: GatewayOptions,
    number: Annotated[
        int, typer.Option("--version", metavar="N", help="Version whose text is printed.", show_default="the newest")
    ] = 0,
) -> None:
    """Show a prompt: its versions, who made them and why, and the text of one."""
    async with at.gateway_target().mesh_client() as mesh:
        document = await mesh.prompt(prompt)
    if at.as_json:
        print_json(document)
        return
    for version in document["versions"]:
        when = amounts.format_time(version["published_unix_ms"])
        name = version_name(version["prompt"], version["number"])
        out.print(one_line(f"{name:28} {when}  {version['person']}: {version['note']}"), markup=False)
    out.print(one_line(f"{document['prompt']['shipped']:28} comes with the mesh"), markup=False)
    out.print()
    content = _content_of(document, number)
    out.print(render_settings(content) + content["text"], markup=False, end="")


@prompts_app.command("releases")
async def show_releases(
    at: GatewayOptions, label: Annotated[str, typer.Argument(metavar="LABEL", help="Label.")] = PRODUCTION
) -> None:
    """Show what a label stood for, the newest first: who moved it, when and why."""
    async with at.gateway_target().mesh_client() as mesh:
        page = await mesh.releases(label)
    if at.as_json:
        print_json(page)
        return
    for release in page["releases"]:
        _print_release(release)
    if not page["releases"]:
        out.print(f"{label} stands for the shipped prompts: nobody has moved it", markup=False)


@prompts_app.command("diff")
async def diff_versions(
    prompt: PromptId,
    at: GatewayOptions,
    old: Annotated[
        int, typer.Option("--from", metavar="N", help="Older version; 0: the shipped one.", show_default="one before")
    ] = -1,
    new: Annotated[int, typer.Option("--to", metavar="N", help="Newer version.", show_default="the newest")] = 0,
) -> None:
    """Compare two versions of a prompt: variables, model, parameters, schema, text."""
    async with at.gateway_target().mesh_client() as mesh:
        document = await mesh.prompt(prompt)
    newest = document["prompt"]["newest"]
    if not newest:
        raise CommandError(Exit.USAGE, f"{prompt} has no version of yours", "publish one: bulkhead prompts publish")
    new = new or newest
    old = new - 1 if old < 0 else old
    contents = [_content_of(document, number, shipped=not number) for number in (old, new)]
    names = [version_name(prompt, number) if number else document["prompt"]["shipped"] for number in (old, new)]
    if at.as_json:
        texts = {"from_text": contents[0]["text"], "to_text": contents[1]["text"]}
        print_json({"from": names[0], "to": names[1], **texts})
        return
    lines = [(render_settings(content) + content["text"]).splitlines() for content in contents]
    for line in difflib.unified_diff(lines[0], lines[1], names[0], names[1], lineterm=""):
        out.print(line, markup=False, style={"+": "green", "-": "red", "@": "cyan"}.get(line[:1], ""))


@prompts_app.command("check")
def check_file(file: File, at: GatewayOptions) -> Exit:
    """Check a prompt's file without sending it anywhere: its variables, its size, its characters."""
    content = read_prompt_file(file).content
    problems = content.list_problems()
    if at.as_json:
        print_json({"file": str(file), "sha256": content.sha256, "problems": problems})
    else:
        for problem in problems:
            out.print(f"{file}: {problem}", markup=False)
        if not problems:
            out.print(f"{file}: {len(content.text):,} characters, {len(content.variables)} variables", markup=False)
    return Exit.FAILED if problems else Exit.OK


@prompts_app.command("publish")
async def publish_file(file: File, at: GatewayOptions, note: Note = "", owner: Owner = "") -> None:
    """Publish a file as the next version of the prompt of its name. No task uses it before a label is moved to it."""
    prompt_file = read_prompt_file(file)
    prompt_file = prompt_file._replace(owner=owner or prompt_file.owner)
    async with at.gateway_target().mesh_client() as mesh:
        await _publish_version(mesh, at, file.name.removesuffix(SUFFIX), prompt_file, note)


@prompts_app.command("edit")
async def edit_prompt(prompt: PromptId, at: GatewayOptions, note: Note = "") -> None:
    """Open the newest version in $EDITOR, and publish what is saved."""
    async with at.gateway_target().mesh_client() as mesh:
        document = await mesh.prompt(prompt)
        newest = document["versions"][0] if document["versions"] else None
        before = newest["content"] if newest else {"text": document["shipped_text"], "variables": []}
        owner = newest["owner"] if newest else document["prompt"]["owner"]
        review_by = newest.get("review_by", "") if newest else ""
        with tempfile.TemporaryDirectory(prefix="bulkhead-prompt-") as folder:
            file = Path(folder) / f"{prompt}{SUFFIX}"
            file.write_text(write_prompt_file(before, owner, review_by))
            editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
            process = await asyncio.create_subprocess_exec(*shlex.split(editor), str(file))
            if await process.wait():
                raise CommandError(Exit.FAILED, f"{editor} ended with an error", "nothing was published")
            edited = read_prompt_file(file)
        if edited.content == PromptContent.model_validate(before) and edited.review_by == review_by:
            raise CommandError(Exit.USAGE, "nothing was changed", "nothing was published")
        await _publish_version(mesh, at, prompt, edited, note)


@prompts_app.command("promote")
async def promote_version(
    prompt: PromptId,
    at: GatewayOptions,
    number: Annotated[
        int, typer.Option("--version", metavar="N", help="Version; 0: the shipped one.", show_default="the newest")
    ] = -1,
    label: Label = PRODUCTION,
    percent: Annotated[
        int, typer.Option("--percent", metavar="P", help="Share of the tasks that get it, as a canary; 0: all.")
    ] = 0,
    by_person: Annotated[bool, typer.Option("--by-person", help="Share people out, and not tasks.")] = False,
    value: Values = None,
    reason: Why = "",
    break_glass: BreakGlass = False,
) -> None:
    """Move a label to a version: tasks that begin from now on get it, all or a share of them."""
    async with at.gateway_target().mesh_client() as mesh:
        change = await _read_change(mesh, prompt, number, value)
        fields = {"changes": [change], "percent": percent, "sticky_by": "person" if by_person else "task"}
        fields |= {"break_glass": True} if break_glass else {}
        await _move_label(mesh, at, label, reason, fields)


@prompts_app.command("evaluate")
async def evaluate_version(
    prompt: PromptId,
    at: GatewayOptions,
    number: Annotated[
        int, typer.Option("--version", metavar="N", help="Version; 0: the shipped one.", show_default="the newest")
    ] = -1,
    case_set: Annotated[
        str, typer.Option("--set", metavar="NAME", help="Set of cases.", show_default="each that the gate names")
    ] = "",
    label: Label = PRODUCTION,
    value: Values = None,
    reason: Why = "",
    deadline: Annotated[
        str, typer.Option("--deadline", metavar="TIME", help="Time after which it waits no more: 10m, 2h.")
    ] = "1h",
) -> Exit:
    """Have a version evaluated on top of what a label stands for, wait for the end, and show the cases that fell.

    A process runs it: bulkhead eval serve. The exit code is 1 when a case fell.
    """
    wait_s = duration_s(deadline)
    async with at.gateway_target().mesh_client() as mesh:
        change = await _read_change(mesh, prompt, number, value)
        gate = (await mesh.releases(label)).get("gate") or {"sets": {}}
        sets = [case_set] if case_set else sorted(gate["sets"])
        if not sets:
            raise CommandError(Exit.USAGE, f"no gate stands before {label}, and names no set", "--set NAME")
        name = version_name(prompt, change["number"])
        cause = reason_of(reason) if reason else f"evaluate {name}"
        rows = [await mesh.request_evaluation(label, [change], cause, case_set=set_name) for set_name in sets]
        numbers = [row["evaluation"]["number"] for row in rows]
        try:
            async with asyncio.timeout(wait_s):
                documents = [await _wait_for_report(mesh, number) for number in numbers]
        except TimeoutError as error:
            reason = f"no evaluator has reported {', '.join(map(str, numbers))} after {deadline}"
            hint = f"look whether `bulkhead eval serve` runs, with the sets {', '.join(sets)}; it goes on with them"
            raise CommandError(Exit.FAILED, reason, hint) from error
    if at.as_json:
        print_json({"evaluations": documents})
    fell = False
    for document in documents:
        predicate = document["statement"]["predicate"]
        fell = fell or predicate["failed_count"] > 0 or bool(predicate["problems"])
        if not at.as_json:
            head = f"evaluation {predicate['evaluation']}, {predicate['case_set']}: {predicate['passed']:.0%} passed"
            out.print(one_line(head), markup=False)
            for problem in predicate["problems"]:
                out.print(one_line(f"  {problem}"), style="red", markup=False)
            for case in predicate["failed"]:
                out.print(one_line(f"  {case['case']}: {'; '.join(case['reasons'])}"), style="yellow", markup=False)
    return Exit.FAILED if fell else Exit.OK


@prompts_app.command("try")
def try_on_tasks(
    name: Annotated[
        str, typer.Argument(metavar="PROMPT[@rN]", help="Version, worker.step@r3; the newest without @rN.")
    ],
    at: GatewayOptions,
    task: Annotated[
        list[str] | None,
        typer.Option(
            "--task",
            metavar="ID",
            help="Task that has ended; up to five.",
            show_default="the last three that succeeded with the prompt",
        ),
    ] = None,
) -> Work:
    """Run stored tasks again with a version, and show old and new answer, tokens, cost, time and verdict.

    The tasks run with tools that only read, under a release of their own: no label moves. Each may cost three times
    what it cost before (0.05 to 1 USD), counted under the feature "eval". For operators, who may read tasks.

    Examples: bulkhead prompts try worker.step@r3 · bulkhead prompts try worker.step@r3 --task t3k2
    """
    from bulkhead_cli.prompts.trial import try_version

    return try_version(at.gateway_target(), name, tuple(task or ()), as_json=at.as_json)


@prompts_app.command("rollback")
async def roll_back_label(
    at: GatewayOptions,
    label: Label = PRODUCTION,
    to: Annotated[
        int, typer.Option("--to", metavar="N", help="Number of the release that stands again.", show_default="the last")
    ] = 0,
    reason: Why = "",
) -> None:
    """Let an earlier release of a label stand again. A canary ends."""
    async with at.gateway_target().mesh_client() as mesh:
        standing = await _standing_number(mesh, label)
        if not to and standing < 2:
            raise CommandError(Exit.USAGE, f"{label} has no earlier release", f"`bulkhead prompts releases {label}`")
        await _move_label(mesh, at, label, reason, {"restore": to or standing - 1})


@prompts_app.command("canary")
async def end_canary(
    act: Annotated[
        str,
        typer.Argument(
            metavar="status|promote|drop|N", help="See how it does; give it to all, to nobody, or to N percent."
        ),
    ],
    at: GatewayOptions,
    label: Label = PRODUCTION,
    reason: Why = "",
    break_glass: BreakGlass = False,
) -> None:
    """See how the canary of a label does beside the rest, end it, or change its share."""
    if act == "status":
        await _print_canary(at, label)
        return
    if act not in ("promote", "drop") and not (act.isdecimal() and 1 <= int(act) <= 50):
        raise CommandError(Exit.USAGE, f"{act[:20]!r} is none of status, promote, drop, 1 to 50", "write one of them")
    async with at.gateway_target().mesh_client() as mesh:
        fields: dict[str, Any] = {"percent": int(act)} if act.isdecimal() else {"end_canary": act}
        fields |= {"break_glass": True} if break_glass else {}
        await _move_label(mesh, at, label, reason, fields)


@prompts_app.command("export")
async def export_files(folder: Folder, at: GatewayOptions) -> None:
    """Write the newest version of each prompt, or the shipped one, to DIR/PROMPT.md."""
    written = []
    async with at.gateway_target().mesh_client() as mesh:
        folder.mkdir(parents=True, exist_ok=True)
        for row in (await mesh.prompts())["prompts"]:
            document = await mesh.prompt(row["prompt"])
            newest = document["versions"][0] if document["versions"] else None
            content = newest["content"] if newest else {"text": document["shipped_text"], "variables": []}
            file = folder / f"{row['prompt']}{SUFFIX}"
            file.write_text(write_prompt_file(content, row["owner"], newest.get("review_by", "") if newest else ""))
            written.append(str(file))
    if at.as_json:
        print_json({"files": written})
    else:
        out.print(f"{len(written)} prompts written to {folder}", markup=False)


@prompts_app.command("import")
async def import_files(folder: Folder, at: GatewayOptions, note: Note = "") -> None:
    """Publish each file of DIR that differs from the newest version."""
    files = sorted(folder.glob(f"*{SUFFIX}"))
    if not files:
        raise CommandError(Exit.USAGE, f"{folder} has no prompts", "`bulkhead prompts export DIR` writes them")
    contents = [(file, read_prompt_file(file)) for file in files]
    published = []
    async with at.gateway_target().mesh_client() as mesh:
        for file, prompt_file in contents:
            document = await mesh.prompt(file.name.removesuffix(SUFFIX))
            versions = document["versions"]
            before = versions[0]["sha256"] if versions else PromptContent(text=document["shipped_text"]).sha256
            review_by = versions[0].get("review_by", "") if versions else ""
            if (prompt_file.content.sha256, prompt_file.review_by) != (before, review_by):
                done = await _send_version(mesh, file.name.removesuffix(SUFFIX), prompt_file, note)
                published.append(done)
                if not at.as_json:
                    out.print(f"published {version_name(done['prompt'], done['number'])}", markup=False)
    if at.as_json:
        print_json({"versions": published})
    elif not published:
        out.print("nothing has changed", markup=False)


async def _print_prompts(at: GatewayOptions) -> None:
    async with at.gateway_target().mesh_client() as mesh:
        page = await mesh.prompts()
    if at.as_json:
        print_json(page)
        return
    for row in page["prompts"]:
        newest = version_name(row["prompt"], row["newest"]) if row["newest"] else row["shipped"]
        used = ", ".join(f"{label}: r{number}" for label, number in row["used"].items()) or "shipped"
        review_by = f"  {describe_review(row['review_by'])}" if row.get("review_by") else ""
        out.print(one_line(f"{row['prompt']:32} {newest:36} {used:24} {row['owner']}{review_by}"), markup=False)


def describe_review(review_by: str) -> str:
    """A review date, and whether it is past, by UTC."""
    is_past = review_by < datetime.now(UTC).date().isoformat()
    return f"review was due {review_by}" if is_past else f"review by {review_by}"


async def _publish_version(mesh: Mesh, at: GatewayOptions, prompt: str, prompt_file: PromptFile, note: str) -> None:
    done = await _send_version(mesh, prompt, prompt_file, note)
    if at.as_json:
        print_json(done)
        return
    name = version_name(done["prompt"], done["number"])
    out.print(f"published {name}; no task uses it before `bulkhead prompts promote {prompt}`", markup=False)


async def _send_version(mesh: Mesh, prompt: str, prompt_file: PromptFile, note: str) -> dict[str, Any]:
    content, owner, review_by = prompt_file
    if not note:
        raise CommandError(Exit.USAGE, "a version needs a note", "--note TEXT: what changes, and why")
    if not owner:
        raise CommandError(Exit.USAGE, f"{prompt} has no owner", "write `owner: NAME` at the head of the file")
    if problems := content.list_problems():
        raise CommandError(Exit.USAGE, f"{prompt}: {'; '.join(problems)}", "`bulkhead prompts check FILE` tells all")
    fields = content.model_dump(mode="json")
    return await mesh.publish_prompt(prompt, fields, reason_of(note), owner, review_by=review_by)


async def _read_change(mesh: Mesh, prompt: str, number: int, values: list[str] | None) -> dict[str, Any]:
    """The change to a version; to the newest where no number is given. Raises CommandError, MeshError."""
    pairs = [text.partition("=") for text in values or ()]
    if any(not separator for _, separator, _ in pairs):
        raise CommandError(Exit.USAGE, "--value has no =", "write --value tone=formal")
    if number < 0:
        number = (await mesh.prompt(prompt))["prompt"]["newest"]
    return {"prompt": prompt, "number": number, "values": {name: text for name, _, text in pairs}}


async def _wait_for_report(mesh: Mesh, number: int) -> dict[str, Any]:
    document = await mesh.evaluation(number)
    while document["report"] is None:
        await asyncio.sleep(POLL_S)
        document = await mesh.evaluation(number)
    return document


async def _standing_number(mesh: Mesh, label: str) -> int:
    releases = (await mesh.releases(label))["releases"]
    return int(releases[0]["number"]) if releases else 0


async def _move_label(mesh: Mesh, at: GatewayOptions, label: str, reason: str, more: dict[str, Any]) -> None:
    if not reason:
        raise CommandError(Exit.USAGE, "a move of a label needs a reason", "--reason TEXT")
    after = await _standing_number(mesh, label)
    release = await mesh.move_label(label, after, reason_of(reason), more, idempotency_key=str(uuid.uuid4()))
    if at.as_json:
        print_json(release)
    else:
        _print_release(release)


async def _print_canary(at: GatewayOptions, label: str) -> None:
    """The canary that stands; without one, the one that was rolled back last, if nobody has moved the label since."""
    async with at.gateway_target().mesh_client() as mesh:
        page = await mesh.releases(label)
    standing = page["releases"][0] if page["releases"] else {}
    watch = next(iter(page["canaries"]), None) or standing.get("rolled_back")
    if at.as_json:
        print_json({"canary": watch, "release": standing.get("number", 0)})
        return
    if watch is None:
        out.print(f"{label} has no canary", markup=False)
        return
    print_watch(label, watch)


def _print_release(release: dict[str, Any]) -> None:
    prompts = ", ".join(version_name(row["prompt"], row["number"]) for row in release["prompts"]) or "shipped prompts"
    when = amounts.format_time(release["moved_unix_ms"])
    restored = f" (as release {release['restores']})" if release.get("restores") else ""
    line = f"{release['label']} {release['number']}{restored}  {when}  {release['person']}: {release['reason']}"
    out.print(one_line(line), markup=False)
    out.print(f"      {one_line(prompts)}", markup=False, style="dim")
    if canary := release.get("canary"):
        names = ", ".join(version_name(row["prompt"], row["number"]) for row in canary["prompts"])
        unit = "people" if canary["sticky_by"] == "person" else "tasks"
        out.print(f"      canary, {canary['percent']} % of {unit}: {one_line(names)}", markup=False, style="dim")


def _content_of(document: dict[str, Any], number: int, *, shipped: bool = False) -> dict[str, Any]:
    """Content of a version; of the newest where no number is given. Raises CommandError."""
    if shipped or not document["versions"]:
        return {"text": document["shipped_text"], "variables": []}
    number = number or document["prompt"]["newest"]
    for version in document["versions"]:
        if version["number"] == number:
            return dict(version["content"])
    raise CommandError(Exit.USAGE, f"version {number} is not among those listed", "`bulkhead prompts show PROMPT`")
