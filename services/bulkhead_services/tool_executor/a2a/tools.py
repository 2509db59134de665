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
from bulkhead.runtime.background import cancel_tasks
from bulkhead.runtime.component import Component
from bulkhead.runtime.consume.inbound import ReceivedMessage
from bulkhead.runtime.context import Context
from bulkhead.telemetry.log import Log
from bulkhead.tools.agent_cards import UnfitCard
from bulkhead.tools.agents_file import PARAMETERS, STEP_ONLY_ARGUMENTS, AgentsFile, AgentsFileError, read_agents_file
from bulkhead.tools.api import Arguments, Call, Done, Failed, Run
from bulkhead.tools.mcp_file import pinned_file_stamps, pins_path
from bulkhead_contracts import bounds
from bulkhead_contracts.result import ContentRef
from bulkhead_contracts.tool import ToolCallCancelRequested
from bulkhead_services.tool_executor.a2a.remote import PinnedAgent
from bulkhead_services.tool_executor.a2a.remote_tasks import RemoteTask, RemoteTasks
from bulkhead_services.tool_executor.registry import RegisteredTool, StopCall, ToolRegistry

log = Log("agents")

READ_EVERY_S = 2.0
STOP_TRIES = 3
CLOSE_S = 5.0
_SCHEMA = jsonschema_rs.Draft202012Validator(json.loads(json.dumps(PARAMETERS)))


class RemoteAgents(Component):
    """Keeps the registry's remote agents. Raises AgentsFileError where the files cannot be used at the start."""

    def __init__(self, file: Path, registry: ToolRegistry, context: Context) -> None:
        self._file, self._registry, self._context = file, registry, context
        self._tasks = RemoteTasks(context)
        self._mesh_names = frozenset(registry.tools) | frozenset(registry.unconfigured) | frozenset(registry.elsewhere)
        self._read_stamps = pinned_file_stamps(self._file)
        self._file_problem = ""
        self._remotes: dict[str, PinnedAgent] = {}
        self._stopping: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None
        self._offer_tools(read_agents_file(file))

    async def start(self) -> None:
        """Watch the files."""
        self._task = self._context.background.start("agents file", self._watch_files())

    async def stop(self) -> None:
        """Let cancels under way reach their agents, and close everything."""
        if self._task is not None:
            await cancel_tasks(self._task)
        if self._stopping:
            await asyncio.wait(self._stopping, timeout=CLOSE_S)
        await cancel_tasks(*self._stopping)
        await asyncio.gather(*(remote.close() for remote in self._remotes.values()))

    def offered_tools(self) -> tuple[RegisteredTool, ...]:
        """The tools that are in the registry by it."""
        return tuple(self._registry.tools[name] for name in self._remotes)

    def describe_degradation(self) -> str:
        """Files that cannot be used, agents that are quarantined or held back."""
        if self._file_problem:
            return f"{self._file_problem}, the agents of before go on; mend the file"
        for remote in self._remotes.values():
            if problem := remote.find_problem().replace(";", ","):
                todo = f"bulkhead agents check {remote.tool.agent}"
                return f"{problem}; look at it with {todo}"
        return ""

    async def _watch_files(self) -> None:
        while True:
            await asyncio.sleep(READ_EVERY_S)
            if (stamp := pinned_file_stamps(self._file)) == self._read_stamps:
                continue
            self._read_stamps = stamp
            try:
                self._offer_tools(await asyncio.to_thread(read_agents_file, self._file))
            except AgentsFileError as error:
                self._file_problem = str(error).replace(";", ",")
                meaning = "what was read before holds"
                log.error("agents_file_refused", file=str(self._file), why=str(error), meaning=meaning)
                continue
            self._file_problem = ""
            log.info("agents_file_read", file=str(self._file), agents=len(self._remotes))

    def _offer_tools(self, files: AgentsFile) -> None:
        """Put the pinned agents into the registry in place of those of before. Raises AgentsFileError."""
        tools = files.pinned_tools()
        if clashes := sorted(set(tools) & (self._mesh_names | set(self._registry.tools) - set(self._remotes))):
            raise AgentsFileError(
                f"{self._file}: {clashes[0]} is a tool of the mesh already; give the agent another name"
            )
        remotes: dict[str, PinnedAgent] = {}
        for name, tool in tools.items():
            previous = self._remotes.get(name)
            if previous is not None and previous.tool == tool:
                remotes[name] = previous
                continue
            try:
                remotes[name] = PinnedAgent(tool, self._tasks)
            except UnfitCard as error:
                raise AgentsFileError(f"{pins_path(self._file)}: {tool.agent}: {error}") from error
        for name in self._remotes:
            self._registry.tools.pop(name, None)
        # Calls under way keep the agent that they have; its connections end with them.
        self._remotes = remotes
        for name, remote in remotes.items():
            self._registry.tools[name] = RegisteredTool(
                remote.tool.row,
                self._run_of(name),
                _SCHEMA,
                stop_call=self._stop_of(name),
                was_sent=self._was_sent,
                step_only_arguments=STEP_ONLY_ARGUMENTS,
            )
        for name in sorted(set(files.agents) - set(files.pins)):
            card = files.agents[name].card
            log.warning("agent_not_pinned", agent=name, todo=f"bulkhead agents add {card} --name {name}")

    def _run_of(self, name: str) -> Run:
        async def run_call(arguments: Arguments, call: Call) -> Done | Failed:
            remote = self._remotes.get(name)
            if remote is None:
                return Failed("not_offered", f"{name} was taken out of the mesh", "go another way")
            tenant = call.key.partition(".")[0]
            if not remote.tool.declared.allows_tenant(tenant):
                hint = f"an operator may add the tenant to {remote.tool.agent} in the file of agents"
                return Failed("not_granted", f"tenant {tenant} may not use the agent {remote.tool.agent}", hint)
            try:
                texts, omissions = await bounded_input_texts(arguments, tenant, self._context.blobs)
            except (BlobMissing, BlobCorrupt, ValidationError, BusError) as error:
                message = f"an input of {name} cannot be read: {str(error)[:300]}"
                return Failed("unreadable_input", message, "make the step anew", transient=isinstance(error, BusError))
            outcome = await remote.call_agent(texts, call.key)
            return (
                replace(outcome, omitted=(*omissions, *outcome.omitted))
                if isinstance(outcome, Done) and omissions
                else outcome
            )

        return run_call

    async def _was_sent(self, key: str) -> bool:
        row, _ = await self._tasks.find_task(key)
        return row is not None and row.number > 0

    def _stop_of(self, name: str) -> StopCall:
        def begin_stop(key: str, for_good: bool) -> None:
            task = asyncio.create_task(self.stop_call(name, key, for_good), name=f"stop {name}")
            self._stopping.add(task)
            task.add_done_callback(self._stopping.discard)

        return begin_stop

    async def on_cancel_requested(self, message: ReceivedMessage) -> None:
        """A call that nobody waits for any more. Whoever may make it may stop it, also with an expired grant."""
        body, origin = message.body, message.task
        assert isinstance(body, ToolCallCancelRequested)
        try:
            place = {"tenant": message.tenant, "task": message.task, "now_unix_ms": 0}
            authority = self._context.verifier.verify_authority(message.envelope.grant, **place)  # type: ignore[arg-type]
        except GrantRefused as error:
            log.warning("cancel_not_believed", tenant=message.tenant, task=message.task, code=error.code)
            return
        origin = authority.task.origin or origin
        if authority.step is not None and body.tool in authority.step.tools and body.tool in self._remotes:
            await self.stop_call(body.tool, f"{message.tenant}.{origin}.{body.call_id}", True)

    async def stop_call(self, name: str, key: str, for_good: bool) -> None:
        """StopCall a call wherever it runs: by its record, so that it does not begin, and at the agent.

        for_good: else a read may begin anew.
        """
        remote = self._remotes.get(name)
        for _ in range(STOP_TRIES):
            try:
                row, sequence = await self._tasks.find_task(key)
                row = row or RemoteTask(agent=name)
                if not row.stopped or (for_good and row.stopped != "cancelled"):
                    stopped = row.model_copy(update={"stopped": "cancelled" if for_good else "cut"})
                    await self._tasks.put(key, stopped, sequence)
                if remote is not None:
                    await remote.cancel_task(row.task)
                return
            except WrongLastSequence:
                continue  # Its task was named just now.
            except BusError as error:
                log.error("agent_call_not_stopped", tool=name, key=key, error=str(error))
                return


async def bounded_input_texts(arguments: Arguments, tenant: str, blobs: Blobs) -> tuple[list[str], tuple[str, ...]]:
    """Texts that the agent is told: the text, then each note and each input with what it lacks; and what of them did
    not fit, which the agent is told, too. Raises BlobMissing, BlobCorrupt, BusError, ValidationError.
    """
    inputs = [("the text", "", arguments["text"]), *(("a note", "", note) for note in arguments.get("notes", ()))]
    for step_input in arguments.get("inputs", ()):
        content = str(step_input.get("text", ""))
        if "content" in step_input:
            content = await blobs.get_text(tenant, ContentRef.model_validate(step_input["content"]))
        title = str(step_input.get("title") or step_input.get("step", ""))
        inputs.append(
            (
                f"the result of the step {title}",
                f"Result of the step {title}{_render_shortcomings(step_input)}:\n",
                content,
            )
        )
    texts, omissions, room = list[str](), list[str](), bounds.MAX_AGENT_INPUT_CHARS
    for name, head, text in inputs:
        fitting = text[:room]
        room -= len(fitting)
        if len(fitting) < len(text):
            omissions.append(
                f"{name} beyond {len(fitting)} of its {len(text)} characters, which the agent was not told"
            )
            fitting += f"\n[left out here: {len(text) - len(fitting)} of {len(text)} characters]"
        texts.append(head + fitting)
    return [text for text in texts if text], tuple(omissions)


def _render_shortcomings(step_input: Mapping[str, Any]) -> str:
    """Shortcomings that a result tells of itself."""
    standing, lacks = str(step_input.get("standing", "")), [str(lack) for lack in step_input.get("lacks", ())]
    remarks = [standing] if standing else []
    if lacks:
        remarks.append(f"incomplete, without {', '.join(lacks)}")
    return f" ({'; '.join(remarks)})" if remarks else ""
