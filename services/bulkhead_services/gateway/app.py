"""Composition root of the gateway: HTTP, the inbox and live text, each with its handler."""

import asyncio
from collections.abc import Callable

import yaml
from pydantic import TypeAdapter, ValidationError

from bulkhead.bus.port import LiveMessage, LiveSubscription
from bulkhead.http_server.server import HttpServer
from bulkhead.quotas.tenant_quotas import TenantQuotas
from bulkhead.runtime.background import cancel_tasks
from bulkhead.runtime.component import Pool
from bulkhead.runtime.context import Context
from bulkhead.runtime.edge.live_text import LIVE_CALLS, LIVE_PENDING, LIVE_TEXT
from bulkhead.runtime.edge.pokes import Pokes
from bulkhead.runtime.edge.protocol import EdgeComponent, ReceivedMessage
from bulkhead.runtime.edge.readiness import why_unready
from bulkhead.runtime.errors import HandBack
from bulkhead.runtime.process.main import main
from bulkhead.telemetry import metrics, names
from bulkhead.telemetry.log import Log
from bulkhead.telemetry.metrics import Counts, ReadGauge
from bulkhead.workflows.ledger import WorkflowLedger
from bulkhead_contracts.approval import DecideRequested
from bulkhead_contracts.outside_event import EventMatched, EventPublished
from bulkhead_contracts.rating import TaskRated
from bulkhead_contracts.task import (
    PlaceReturned,
    PlacesGiven,
    PlaceTaken,
    TaskCancelRequested,
    TaskEnded,
    TaskQueued,
    TaskRejected,
    TaskReleased,
    TaskRequested,
)
from bulkhead_services.gateway.admission.backpressure import OpenRequests
from bulkhead_services.gateway.admission.durable_writes import DurableWrites
from bulkhead_services.gateway.admission.rate_limits import SubmissionRateLimits
from bulkhead_services.gateway.admission.run_slots import RunSlotAdmission
from bulkhead_services.gateway.console.app import Console
from bulkhead_services.gateway.decisions import Decisions
from bulkhead_services.gateway.document_intake import DocumentIntake
from bulkhead_services.gateway.http.auth import GatewayAuthenticator
from bulkhead_services.gateway.http.routes.tasks import GatewayHttpApp
from bulkhead_services.gateway.http.submission_checks import SubmissionChecks
from bulkhead_services.gateway.intake import Intake
from bulkhead_services.gateway.outside_events import OutsideEvents
from bulkhead_services.gateway.push_notifications import PushPostRequester
from bulkhead_services.gateway.read_model.approvals import ApprovalIndex
from bulkhead_services.gateway.read_model.changes import ChangeWatchers
from bulkhead_services.gateway.read_model.feeds import InboxFeed, InboxFeeds
from bulkhead_services.gateway.read_model.task_index import TaskIndex
from bulkhead_services.gateway.schedules import ScheduleRunner
from bulkhead_services.gateway.session_ends import SessionEnds
from bulkhead_services.gateway.sessions import Sessions
from bulkhead_services.gateway.settings import PublisherSettings, Settings, SubscriberSettings
from bulkhead_services.gateway.task_events import TaskEvents

SERVICE = "gateway"
LAG_RETRY_S = 0.05
log = Log("gateway")


class GatewayService(EdgeComponent):
    """The edge: `handle_message` takes the inbox, `start` opens HTTP."""

    def __init__(self, context: Context, settings: Settings) -> None:
        self._context = context
        self._settings = settings = _with_publishers(settings)
        self._writes = DurableWrites(context)
        self._session_ends = SessionEnds(context, self._writes)
        sessions = Sessions(context.message_key, settings.session_s)
        self._auth = GatewayAuthenticator(settings, sessions, self._session_ends, context.clock)
        self.changes = ChangeWatchers()
        self.feeds = InboxFeeds(
            context.bus, recent=settings.recent_tasks, live=settings.live_tasks, reread_s=settings.reread_s
        )
        quotas = TenantQuotas(settings.tenants_file)
        self.admission = RunSlotAdmission(context, quotas, settings.running_tasks, settings.reread_s)
        spikes = SubmissionRateLimits(quotas, settings.edge_replicas)
        self._intake = Intake(
            context, self.feeds, settings.publishers, self.admission, spikes, self._writes, settings.logic
        )
        workflows, keys_of = WorkflowLedger(context.bus), self._auth.keys_of
        self.schedules = ScheduleRunner(context, self._intake, workflows, keys_of)
        self._outside = OutsideEvents(context, settings, self._intake, spikes, self._writes, workflows, keys_of)
        self._backlog = backlog = OpenRequests()
        approvals = ApprovalIndex(context.bus)
        self._decisions = Decisions(context, approvals, self.feeds)
        self._events = TaskEvents(context.publisher, settings.subscribers, settings.webhook_events, context.clock)
        self._pushes = PushPostRequester(context.publisher, quotas, self._read_up_to)
        self._pokes = Pokes(context.bus, SERVICE, context.instance, self._on_message_handled)
        self.http = GatewayHttpApp(
            settings,
            self._auth,
            self._intake,
            DocumentIntake(context, self.feeds, self._writes),
            self.feeds,
            TaskIndex(context.bus, settings.listed_tasks),
            self._why_unready,
            context,
            SubmissionChecks(quotas, spikes, self.admission, backlog, context.clock),
            approvals,
            self._decisions,
            self.changes,
            self._writes,
            self._outside,
        )
        self.app = Console(self.http.build_app(), self._auth, settings.session_s, settings.runbooks).build_app()
        self._server = HttpServer(self.app, settings, "the gateway")
        self._subscriptions: list[LiveSubscription] = []
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def port(self) -> int:
        """Port of the HTTP server; 0 before the start."""
        return self._server.port

    async def start(self) -> None:
        """Subscribe, then listen: a client must not connect before its text can be heard."""
        await self.attach_inbox()
        await self._server.start()

    async def attach_inbox(self) -> None:
        """Everything but the listening socket."""
        self._auth.load()
        live_text = await self._context.bus.subscribe_live(LIVE_TEXT, LIVE_PENDING)
        live_calls = [await self._context.bus.subscribe_live(subject, LIVE_PENDING) for subject in LIVE_CALLS]
        self._subscriptions = [live_text, *live_calls, await self._pokes.subscribe()]
        start = self._context.background.start
        self._tasks = [
            start("text", self._read_live(live_text, self.feeds.apply_live_text)),
            *(start("calls", self._read_live(calls, self.feeds.apply_live_call)) for calls in live_calls),
            start("pokes", self._pokes.run()),
            start("feeds", self.feeds.run()),
            start("admission", self.admission.run()),
            start("writes", self._writes.run()),
            start("rows", self.http.task_list.rows.run()),
            start("schedules", self.schedules.run()),
        ]
        self.http.started = True

    async def stop(self) -> None:
        """End the streams (clients resume elsewhere), finish the requests, close."""
        self.feeds.close()
        self.changes.close()
        await self._server.stop()
        for subscription in self._subscriptions:
            await subscription.close()
        await cancel_tasks(*self._tasks)

    def gauges(self) -> dict[str, ReadGauge]:
        """Metrics: tasks with a place to run and tasks that wait for one, as this replica knows."""
        return {names.PLACES: self._count_places}

    def _count_places(self) -> Counts:
        state = self.admission.state
        if state is None:
            return {}
        return {((names.STATE, "running"),): len(state.running), ((names.STATE, "waiting"),): len(state.waiting)}

    def pools(self) -> dict[str, Pool]:
        """Event streams that it may hold open."""
        return {"streams": self.http.stream_pool()}

    def is_ready(self) -> bool:
        """True while HTTP is served."""
        return self.http.started and not self.feeds.is_closing

    def describe_problem(self) -> str:
        """The reason why nothing can be taken in; "" when it can."""
        return self._writes.failure_reason()

    async def handle_message(self, message: ReceivedMessage) -> None:
        """One stored message: requests are passed on, and the watchers of every replica are notified."""
        match message.body:
            case TaskRequested() as request:
                # Delivered again it may have been answered: then to the end.
                feed = await self._read_up_to(message, at_least=message.sequence if message.attempts == 1 else 0)
                await self._intake.handle_request(message, request, feed)
            case TaskCancelRequested() as cancel_request:
                # To the end: the planner's word that it has the task comes after this message.
                await self._intake.handle_cancel(message, cancel_request, await self._read_up_to(message, at_least=0))
            case TaskReleased():
                await self._intake.handle_release(message, await self._read_up_to(message, at_least=message.sequence))
            case EventPublished() as event:
                await self._outside.handle_event(message, event)
            case EventMatched() as matched:
                await self._outside.relay_match(message, matched)
            case DecideRequested() as decide_request:
                await self._decisions.apply_outside_decision(message, decide_request, self._settings.publishers)
            case PlaceReturned():
                await self._intake.handle_returned_place(message)
            case PlaceTaken():
                await self._intake.handle_wanted_place(message)
            case PlacesGiven() as decision:
                await self._intake.carry_out_decision(message, decision)
            case TaskQueued() | TaskEnded() | TaskRejected():
                # A place may have become free, also while this one began to wait. Watchers need not wait for that.
                self._pokes.announce_message(message.tenant, message.task, message.sequence)
                await self.admission.fill_free_places(message.sequence)
            case TaskRated() as rating:
                if message.attempts == 1:
                    metrics.ratings.add(1, {names.KIND: rating.kind, names.SCORE: rating.score})
            case _:
                pass  # A fact: only watchers care.
        self._pokes.announce_message(message.tenant, message.task, message.sequence)
        await self._events.store_events(message)
        await self._pushes.request_due_posts(message)

    async def _read_up_to(self, message: ReceivedMessage, at_least: int) -> InboxFeed:
        """The feed of a message's task, read up to that message. Raises HandBack.

        A follower that lags: judged by it, a first request would look like a second one, and a cancel would be lost.
        """
        feed = self.feeds.feed_of(message.tenant, message.task)
        await feed.refresh(at_least)
        if feed.sequence < message.sequence:
            raise HandBack(LAG_RETRY_S, "the inbox cannot be read up to this message yet")
        return feed

    def _on_message_handled(self, tenant: str, task: str, sequence: int) -> None:
        self._session_ends.on_session_ended(task)
        self.feeds.apply_poke(tenant, task, sequence)
        self.http.task_list.rows.mark_changed(tenant, task)
        self.changes.announce_change(tenant, task)
        self._backlog.discard_request(tenant, task)

    @staticmethod
    async def _read_live(subscription: LiveSubscription, apply: Callable[[LiveMessage], None]) -> None:
        async for live in subscription:
            apply(live)

    async def _why_unready(self) -> str:
        if not self.http.started:
            return "starting"
        return await why_unready(self._context.bus, SERVICE) or self._writes.failure_reason()


def _with_publishers(settings: Settings) -> Settings:
    if settings.publishers_file is None:
        return settings
    try:
        document = yaml.safe_load(settings.publishers_file.read_text())  # JSON is YAML too.
        subscriber_rows = document.get("subscribers", {}) if isinstance(document, dict) else {}
        document = (
            document.get("publishers", {} if subscriber_rows else document) if isinstance(document, dict) else document
        )
        policies = TypeAdapter(dict[str, PublisherSettings]).validate_python(document)
        subscribers = TypeAdapter(dict[str, SubscriberSettings]).validate_python(subscriber_rows)
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise ValueError(
            f"cannot read publishers from {settings.publishers_file}: {error}; "
            'it must hold {"pub_<name>": {"tenant", "person", "role"}}'
        ) from error
    return settings.model_copy(update={"publishers": policies, "subscribers": subscribers})


def build(context: Context, settings: Settings) -> GatewayService:
    """The gateway, not yet started."""
    return GatewayService(context, settings)


if __name__ == "__main__":
    main(SERVICE, build, Settings)
