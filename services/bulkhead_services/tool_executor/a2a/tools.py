"""Remote agents as tools in the executor's registry, for as long as it runs.

Enters: the file of agents and its pins, read anew when either changes; calls; cancels. Leaves: outcomes. A file that
cannot be used changes nothing, and is told.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema_rs
from pydantic import ValidationError

from bulkhead.blobs import BlobCorrupt, BlobMissing, Blobs
from bulkhead.bus.port import BusError, WrongLastSequence
from bulkhead.grants import GrantRefused
from bulkhead.runtime.background import cancel
from bulkhead.runtime.component import Component
from bulkhead.runtime.consume.inbound import Received
from bulkhead.runtime.context import Context
from bulkhead.telemetry.log import Log
from bulkhead.tools.agent_cards import Unfit
from bulkhead.tools.agents_file import OF_STEPS, PARAMETERS, AgentsFile, AgentsFileError, read
from bulkhead.tools.api import Arguments, Call, Done, Failed, Run
from bulkhead.tools.mcp_file import pins_path
from bulkhead_contracts import bounds
from bulkhead_contracts.result import ContentRef
from bulkhead_contracts.tool import ToolCallCancelRequested
from bulkhead_services.tool_executor.a2a import http
from bulkhead_services.tool_executor.a2a.remote import Remote
from bulkhead_services.tool_executor.a2a.remote_tasks import RemoteTask, RemoteTasks
from bulkhead_services.tool_executor.registry import Registry, Stop, Tool

log = Log("agents")

READ_EVERY_S = 2.0
STOP_TRIES = 3
CLOSE_S = 5.0
_SCHEMA = jsonschema_rs.Draft202012Validator(json.loads(json.dumps(PARAMETERS)))


class RemoteAgents(Component):
    """Keeps the registry's remote agents. Raises AgentsFileError where the files cannot be used at the start."""

    def __init__(self, file: Path, registry: Registry, context: Context, resolve: http.Resolve | None = None) -> None:
        self._file, self._registry, self._context, self._resolve = file, registry, context, resolve
        self._tasks = RemoteTasks(context)
        self._own = frozenset(registry.tools) | frozenset(registry.unconfigured) | frozenset(registry.elsewhere)
        self._stamp = self._stamps()
        self._unreadable = ""
        self._remotes: dict[str, Remote] = {}
        self._stopping: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None
        self._offer(read(file))

    async def start(self) -> None:
        """Watch the files."""
        self._task = self._context.background.start("agents file", self._follow())

    async def stop(self) -> None:
        """Let cancels under way reach their agents, and close everything."""
        if self._task is not None:
            await cancel(self._task)
        if self._stopping:
            await asyncio.wait(self._stopping, timeout=CLOSE_S)
        await cancel(*self._stopping)
        await asyncio.gather(*(remote.close() for remote in self._remotes.values()))

    def offered(self) -> tuple[Tool, ...]:
        """The tools that are in the registry by it."""
        return tuple(self._registry.tools[name] for name in self._remotes)

    def degraded(self) -> str:
        """Files that cannot be used, agents that are quarantined or held back."""
        if self._unreadable:
            return f"{self._unreadable}, the agents of before go on; mend the file"
        for remote in self._remotes.values():
            if what := remote.problem().replace(";", ","):
                todo = f"bulkhead agents check {remote.tool.agent}"
                return f"{what}; look at it with {todo}"
        return ""

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(READ_EVERY_S)
            if (stamp := self._stamps()) == self._stamp:
                continue
            self._stamp = stamp
            try:
                self._offer(await asyncio.to_thread(read, self._file))
            except AgentsFileError as error:
                self._unreadable = str(error).replace(";", ",")
                what = "what was read before holds"
                log.error("agents_file_refused", file=str(self._file), why=str(error), meaning=what)
                continue
            self._unreadable = ""
            log.info("agents_file_read", file=str(self._file), agents=len(self._remotes))

    def _stamps(self) -> tuple[tuple[int, int] | None, ...]:
        return tuple(map(_stamp, (self._file, pins_path(self._file))))

    def _offer(self, files: AgentsFile) -> None:
        """Put the pinned agents into the registry in place of those of before. Raises AgentsFileError."""
        tools = files.tools()
        if taken := sorted(set(tools) & (self._own | set(self._registry.tools) - set(self._remotes))):
            raise AgentsFileError(
                f"{self._file}: {taken[0]} is a tool of the mesh already; give the agent another name"
            )
        remotes: dict[str, Remote] = {}
        for name, tool in tools.items():
            before = self._remotes.get(name)
            if before is not None and before.tool == tool:
                remotes[name] = before
                continue
            try:
                remotes[name] = Remote(tool, self._tasks, self._resolve)
            except Unfit as error:
                raise AgentsFileError(f"{pins_path(self._file)}: {tool.agent}: {error}") from error
        for name in self._remotes:
            self._registry.tools.pop(name, None)
        # Calls under way keep the agent that they have; its connections end with them.
        self._remotes = remotes
        for name, remote in remotes.items():
            self._registry.tools[name] = Tool(
                remote.tool.row,
                self._run_of(name),
                _SCHEMA,
                stop=self._stop_of(name),
                begun=self._begun,
                of_steps=OF_STEPS,
            )
        for name in sorted(set(files.agents) - set(files.pins)):
            card = files.agents[name].card
            log.warning("agent_not_pinned", agent=name, todo=f"bulkhead agents add {card} --name {name}")

    def _run_of(self, name: str) -> Run:
        async def run(arguments: Arguments, call: Call) -> Done | Failed:
            remote = self._remotes.get(name)
            if remote is None:
                return Failed("not_offered", f"{name} was taken out of the mesh", "go another way")
            tenant = call.key.partition(".")[0]
            if not remote.tool.declared.allows(tenant):
                hint = f"an operator may add the tenant to {remote.tool.agent} in the file of agents"
                return Failed("not_granted", f"tenant {tenant} may not use the agent {remote.tool.agent}", hint)
            try:
                texts, cut = await told(arguments, tenant, self._context.blobs)
            except (BlobMissing, BlobCorrupt, ValidationError, BusError) as error:
                what = f"an input of {name} cannot be read: {str(error)[:300]}"
                return Failed("unreadable_input", what, "make the step anew", transient=isinstance(error, BusError))
            said = await remote.call(texts, call.key)
            return replace(said, omitted=(*cut, *said.omitted)) if isinstance(said, Done) and cut else said

        return run

    async def _begun(self, key: str) -> bool:
        row, _ = await self._tasks.find(key)
        return row is not None and row.number > 0

    def _stop_of(self, name: str) -> Stop:
        def stop(key: str, for_good: bool) -> None:
            task = asyncio.create_task(self.cancel(name, key, for_good), name=f"stop {name}")
            self._stopping.add(task)
            task.add_done_callback(self._stopping.discard)

        return stop

    async def cancel_requested(self, message: Received) -> None:
        """A call that nobody waits for any more. Whoever may make it may stop it, also with an expired grant."""
        body, origin = message.body, message.task
        assert isinstance(body, ToolCallCancelRequested)
        try:
            place = {"tenant": message.tenant, "task": message.task, "now_unix_ms": 0}
            authority = self._context.verifier.authority(message.envelope.grant, **place)  # type: ignore[arg-type]
        except GrantRefused as error:
            log.warning("cancel_not_believed", tenant=message.tenant, task=message.task, code=error.code)
            return
        origin = authority.task.origin or origin
        if authority.step is not None and body.tool in authority.step.tools and body.tool in self._remotes:
            await self.cancel(body.tool, f"{message.tenant}.{origin}.{body.call_id}", True)

    async def cancel(self, name: str, key: str, for_good: bool) -> None:
        """Stop a call wherever it runs: by its record, so that it does not begin, and at the agent.

        for_good: else a read may begin anew.
        """
        remote = self._remotes.get(name)
        for _ in range(STOP_TRIES):
            try:
                row, sequence = await self._tasks.find(key)
                row = row or RemoteTask(agent=name)
                if not row.stopped or (for_good and row.stopped != "cancelled"):
                    stopped = row.model_copy(update={"stopped": "cancelled" if for_good else "cut"})
                    await self._tasks.put(key, stopped, sequence)
                if remote is not None:
                    await remote.cancel(row.task)
                return
            except WrongLastSequence:
                continue  # Its task was named just now.
            except BusError as error:
                log.error("agent_call_not_stopped", tool=name, key=key, error=str(error))
                return


async def told(arguments: Arguments, tenant: str, blobs: Blobs) -> tuple[list[str], tuple[str, ...]]:
    """What the agent is told: the text, then each note and each input with what it lacks; and what of them did not fit,
    which the agent is told, too. Raises BlobMissing, BlobCorrupt, BusError, ValidationError."""
    named = [("the text", "", arguments["text"]), *(("a note", "", note) for note in arguments.get("notes", ()))]
    for given in arguments.get("inputs", ()):
        content = str(given.get("text", ""))
        if "content" in given:
            content = await blobs.text(tenant, ContentRef.model_validate(given["content"]))
        title = str(given.get("title") or given.get("step", ""))
        named.append((f"the result of the step {title}", f"Result of the step {title}{_short_of(given)}:\n", content))
    texts, cut, room = list[str](), list[str](), bounds.MAX_AGENT_INPUT_CHARS
    for name, head, text in named:
        kept = text[:room]
        room -= len(kept)
        if len(kept) < len(text):
            cut.append(f"{name} beyond {len(kept)} of its {len(text)} characters, which the agent was not told")
            kept += f"\n[left out here: {len(text) - len(kept)} of {len(text)} characters]"
        texts.append(head + kept)
    return [text for text in texts if text], tuple(cut)


def _short_of(given: Mapping[str, Any]) -> str:
    """What a result says of itself that it is not."""
    standing, lacks = str(given.get("standing", "")), [str(one) for one in given.get("lacks", ())]
    said = [standing] if standing else []
    if lacks:
        said.append(f"incomplete, without {', '.join(lacks)}")
    return f" ({'; '.join(said)})" if said else ""


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size)
