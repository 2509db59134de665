"""The edge: takes what the mesh says about adopted tasks and delegated steps, serves HTTP, and is the desk of HTTP.

In: messages of the inbox, live text, calls. Out: word to the planner that a run is held back or goes on, notices to the
other replicas.
"""

import asyncio
from collections.abc import Callable

from pydantic import ValidationError

from bulkhead.bounded_dict import BoundedDict
from bulkhead.bus.port import BusError, LiveMessage, LiveSubscription
from bulkhead.callers.authentication import CallerAuthenticator
from bulkhead.http_server.server import HttpServer
from bulkhead.quotas.tenant_quotas import TenantQuotas
from bulkhead.runtime.background import cancel_tasks
from bulkhead.runtime.component import Pool
from bulkhead.runtime.context import Context
from bulkhead.runtime.edge.live_text import LIVE_PENDING, LIVE_TEXT
from bulkhead.runtime.edge.pokes import Pokes
from bulkhead.runtime.edge.protocol import EdgeComponent, ReceivedMessage
from bulkhead.runtime.edge.readiness import why_unready
from bulkhead.runtime.errors import HandBack
from bulkhead_contracts import subjects
from bulkhead_contracts.control import CallDeferred
from bulkhead_contracts.model import CallFollowers
from bulkhead_contracts.step import StepPaused
from bulkhead_contracts.tool import ToolSpec
from bulkhead_services.doors import refusals
from bulkhead_services.doors.a2a.routes import A2aRoutes
from bulkhead_services.doors.calls import ModelCalls
from bulkhead_services.doors.ends import RunFinisher
from bulkhead_services.doors.feed import SERVICE, RunFeed, RunFeeds
from bulkhead_services.doors.http.gateway_pool import GatewayPool
from bulkhead_services.doors.http.routes import DoorsHttp
from bulkhead_services.doors.mcp.calls import ToolCalls, ToolRunCall
from bulkhead_services.doors.mcp.granted import GrantedTools
from bulkhead_services.doors.mcp.http import McpHttp
from bulkhead_services.doors.mcp.port import ParsedToolCall, ToolCallAnswer
from bulkhead_services.doors.mcp.server import McpMethods
from bulkhead_services.doors.mcp.sessions import SessionIds
from bulkhead_services.doors.model_call import ModelRunCall
from bulkhead_services.doors.model_names import ModelNames
from bulkhead_services.doors.places import CallPlaces
from bulkhead_services.doors.port import Caller, ParsedModelCall, StoredCall
from bulkhead_services.doors.run_call import CallsInFlight
from bulkhead_services.doors.run_places import RunPlaces
from bulkhead_services.doors.runs import RunDirectory
from bulkhead_services.doors.settings import Settings
from bulkhead_services.doors.steps.handover import StepHandOvers
from bulkhead_services.doors.steps.routes import StepsHttp
from bulkhead_services.doors.steps.rpc import STANDING, StepsRpc
from bulkhead_services.doors.stored_bytes import StoredBytes

LAG_RETRY_S = 0.05
LIVE_PROGRESS = "live.tool_executor.>"
RECENT_RUNS = 1_024
"""Runs that are kept in memory though nobody waits for them."""
REREAD_S = 1.0
USE_TOLD_S = 1.0
"""Between two words to the other replicas that a run is used; they end it after minutes."""


class Doors(EdgeComponent):
    """The runs and calls of this replica; `port.ModelCallPort` for the HTTP side."""

    def __init__(self, context: Context, settings: Settings) -> None:
        self._context, self._settings = context, settings
        self.feeds = RunFeeds(context.bus, recent=RECENT_RUNS, reread_s=REREAD_S)
        stored = StoredBytes(TenantQuotas(settings.tenants_file), context.clock)
        wait_hint = "wait for one of them; each goes on to its end"
        model_calls = CallsInFlight[ModelRunCall](CallPlaces.of_calls(settings, "in flight", wait_hint))
        tool_places = CallPlaces.of_calls(settings, "of tools in flight", "wait for one of them")
        tool_calls = CallsInFlight[ToolRunCall](tool_places)
        self._granted = GrantedTools(context, TenantQuotas(settings.tenants_file))
        self.steps = StepHandOvers(context, settings, self.feeds, stored)
        in_flight = (model_calls, tool_calls)
        self._places = RunPlaces(context, settings, self.feeds, in_flight)
        self._ends = RunFinisher(context, settings, self.feeds, in_flight, self._places)
        self._runs = RunDirectory(context, settings, self.feeds, self._ends, self._places, self._granted, self.steps)
        self._models = ModelNames(context)
        self.calls = ModelCalls(context, settings, self._runs, model_calls, stored, self._models)
        self.tool_calls = ToolCalls(context, settings, self._runs, tool_calls, self._announce_use)
        self._pokes = Pokes(context.bus, SERVICE, context.instance, self._on_handled, self._on_live_notice)
        self._credentials = CallerAuthenticator(settings)
        self._http = http = DoorsHttp(settings, self._credentials, self, self._why_unready, self.steps.keys)
        self._gateway = GatewayPool(settings.gateway_url)
        methods = McpMethods(self, self._gateway)
        sessions, issuer = SessionIds(context.message_key), settings.jwt_issuer
        self._mcp = McpHttp(methods, http.identify_model_caller, http.bodies, http.places, http.hosts, issuer, sessions)
        self._a2a = A2aRoutes(settings, http, self._gateway)
        polls = CallPlaces.of_polls(settings)
        steps = StepsHttp(self.steps, self._credentials, http.bodies, polls, http.hosts, http.identify_caller)
        http.more = [*self._mcp.build_routes(), *self._a2a.build_routes(), *steps.build_routes()]
        self.rpc, self.rpc_long_polls = StepsRpc(self.steps, polls).rpc_table(), STANDING
        self._server = HttpServer(self._http.build_app(), settings, "doors", "--doors-port")
        self._subscriptions: list[LiveSubscription] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._announced_s = BoundedDict[tuple[str, str], float](RECENT_RUNS)

    @property
    def port(self) -> int:
        """Port of the HTTP server; 0 before the start."""
        return self._server.port

    async def start(self) -> None:
        """Subscribe, then listen: a client must not connect before its text can be heard."""
        self._credentials.load()
        text = await self._context.bus.subscribe_live(LIVE_TEXT, LIVE_PENDING)
        progress = await self._context.bus.subscribe_live(LIVE_PROGRESS, LIVE_PENDING)
        self._subscriptions = [text, progress, await self._pokes.subscribe()]
        start = self._context.background.start
        self._tasks = [
            start("text", _read_live(text, self.calls.on_live_text)),
            start("progress", _read_live(progress, self.tool_calls.on_live_progress)),
            start("pokes", self._pokes.run()),
            start("feeds", self.feeds.run()),
            start("ends", self._ends.run()),
            start("places", self._places.run()),
            start("mcp", self._mcp.run()),
            start("steps", self.steps.open.run()),
        ]
        await self._server.start()
        self._http.started = True

    async def stop(self) -> None:
        """Finish the requests; what is in flight then is asked for again, elsewhere."""
        self._a2a.close()
        self.steps.open.close()
        await self._server.stop()
        await self._gateway.close_connections()
        await self.calls.close()
        await self.tool_calls.close()
        for subscription in self._subscriptions:
            await subscription.close()
        await cancel_tasks(*self._tasks)

    def pools(self) -> dict[str, Pool]:
        """Calls that it may have in flight."""
        return {"calls": self._http.call_pool()}

    def is_ready(self) -> bool:
        """True once HTTP is served."""
        return self._http.started

    async def _why_unready(self) -> str:
        if not self._http.started:
            return "starting"
        return await why_unready(self._context.bus, SERVICE)

    # The desk

    async def begin_model_call(self, caller: Caller, parsed_call: ParsedModelCall) -> StoredCall:
        """A call. The run is open and the call stored when this returns. Raises DoorRefusal."""
        call = await self.calls.begin_call(caller, parsed_call)
        self._announce_use(call.call.feed)
        return call

    async def end_run(self, caller: Caller, task: str) -> None:
        """End a run of this caller. Raises DoorRefusal."""
        try:
            await self._ends.finish_and_wait(await self._runs.own_run(caller, task))
        except BusError as error:
            raise refusals.mesh_unavailable(f"the message broker does not answer: {error}") from error

    async def list_models(self, caller: Caller) -> tuple[str, ...]:
        """Names that a call may ask for."""
        return self._settings.models or await self._models.list_names(caller.claim)

    def _announce_use(self, feed: RunFeed) -> None:
        """Tell that a call is begun: no replica ends the run meanwhile because it hears nothing of it."""
        run, now_s = (feed.tenant, feed.task), asyncio.get_running_loop().time()
        self._places.note_use(*run)
        if now_s - self._announced_s.get(run, -USE_TOLD_S) < USE_TOLD_S:
            self._on_handled(*run, 0)
            return
        self._announced_s[run] = now_s
        self._pokes.announce_message(*run, 0)

    # The desk of the tool door

    async def list_tools(self, caller: Caller) -> tuple[ToolSpec, ...]:
        """The tools of the caller's tenant, or of the step that it holds. Raises DoorRefusal."""
        if caller.step is None:
            return await self._granted.list_specs(caller.claim)
        try:
            request = (await self.steps.held_feed(caller.step)).request
        except BusError as error:
            raise refusals.mesh_unavailable(f"the message broker does not answer: {error}") from error
        return request.tools if request is not None else ()

    async def call_tool(self, caller: Caller, parsed_call: ParsedToolCall) -> ToolCallAnswer:
        """A call of a tool, once. Raises DoorRefusal."""
        return await self.tool_calls.call_tool(caller, parsed_call)

    # The inbox

    async def handle_message(self, message: ReceivedMessage) -> None:
        """One stored message: the planner hears of a run that is held back, the waiters of every replica hear of it."""
        if not subjects.is_of_doors(message.task):
            await self.steps.on_stored_message(message)
            self._pokes.announce_message(message.tenant, message.task, message.sequence)
            return
        feed = self.feeds.run_feed(message.tenant, message.task)
        if not await feed.take_delivery(message):
            raise HandBack(LAG_RETRY_S, "the inbox cannot be read up to this message yet")
        if (change := feed.hold_change_at(message.sequence)) is not None and feed.is_open:
            await self._tell_planner(feed, message, *change)
        self._pokes.announce_message(message.tenant, message.task, message.sequence)

    async def _tell_planner(self, feed: RunFeed, message: ReceivedMessage, held: CallDeferred | None) -> None:
        assert feed.assigned is not None
        step = feed.assigned
        body = StepPaused(
            step_id=step.step.id, attempt=step.attempt, plan_version=step.plan_version, active=held is not None
        )
        if held is not None:
            hold_fields = held.model_dump(include={"code", "reason", "until_unix_ms"})
            body = body.model_copy(update=hold_fields)
        await self._context.publisher.send("planner", body, **message.cause_fields, index="paused", actor=feed.actor)

    def _on_handled(self, tenant: str, task: str, sequence: int) -> None:
        if not subjects.is_of_doors(task):
            self.steps.open.on_handled(tenant, task, sequence)
            return
        self.feeds.poke_feed((tenant, task), sequence)
        self._ends.note_activity(tenant, task)
        self._places.note_activity(tenant, task)

    def _on_live_notice(self, live: LiveMessage) -> None:
        """A notice from `live.doors.<tenant>.<task>`, of this replica perhaps."""
        try:
            notice = CallFollowers.model_validate_json(live.body)
        except ValidationError:
            self.steps.on_live_beat(live.subject, live.body)
            return
        tenant, task = live.subject.split(".")[2:4]
        for calls in (self.calls, self.tool_calls):
            calls.on_peer_notice((tenant, task, notice.about), notice)


async def _read_live(subscription: LiveSubscription, handler: Callable[[LiveMessage], None]) -> None:
    async for live in subscription:
        handler(live)
