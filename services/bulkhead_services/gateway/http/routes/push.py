"""Push notifications of a task over HTTP: set, shown, deleted by who may submit tasks.

In: requests of doors with a client's own credential, or of any program. Out: the configs as they stand, or problem
details. A config is a message in the gateway's inbox, beside those of its task.
"""

import hashlib
import re

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bulkhead.a2a.push_urls import Forbidden, place
from bulkhead.bus.port import BusUnavailable, PublishRefused
from bulkhead.runtime.context import Context
from bulkhead.tenant_quotas import TenantQuotas
from bulkhead_contracts import bounds
from bulkhead_contracts.push import CONFIG_ID, PushConfigDeleted, PushConfigSet
from bulkhead_contracts.push_policy import PushPolicy
from bulkhead_contracts.task import RequesterClaim
from bulkhead_contracts.types import Body
from bulkhead_services.gateway.admission.durable_writes import DurableWrites
from bulkhead_services.gateway.http.auth import Authenticator
from bulkhead_services.gateway.http.history_schemas import PushDocument, PushPage, PushSubmission
from bulkhead_services.gateway.http.request_limits import Bodies
from bulkhead_services.gateway.http.request_values import answered, existing_task, parsed
from bulkhead_services.gateway.problems import Problem, not_found, not_stored
from bulkhead_services.gateway.read_model import task_view
from bulkhead_services.gateway.read_model.feeds import Feed, Feeds

MAX_BODY_BYTES = 8 * 1024
TITLE = "The push notifications cannot be set"
OFF = "nothing is posted while the tenant's row names no hosts (`push`); an operator may name them again"


class PushConfigs:
    """The routes under /v1/tasks/{task_id}/push."""

    def __init__(
        self,
        context: Context,
        auth: Authenticator,
        bodies: Bodies,
        feeds: Feeds,
        quotas: TenantQuotas,
        writes: DurableWrites,
    ) -> None:
        self._context, self._auth, self._bodies = context, auth, bodies
        self._feeds, self._quotas, self._writes = feeds, quotas, writes

    def routes(self) -> list[Route]:
        """Routes for the application."""
        one = "/v1/tasks/{task_id}/push/{config_id}"
        return [
            Route("/v1/tasks/{task_id}/push", self.list, methods=["GET"]),
            Route(one, self.show, methods=["GET"]),
            Route(one, self.set, methods=["PUT"]),
            Route(one, self.delete, methods=["DELETE"]),
        ]

    async def set(self, request: Request) -> Response:
        """PUT /v1/tasks/{task_id}/push/{config_id}: the same again changes nothing."""
        claim, policy = await self._allowed(request)
        _on(policy)
        async with self._bodies.read(request, claim, MAX_BODY_BYTES) as raw:
            body = parsed(PushSubmission, raw)
        name = _name(request)
        try:
            place(body.url, policy)
        except Forbidden as error:
            hint = "use an https URL of a host that the operator allows (`push.hosts` of the tenant's row)"
            raise Problem(422, "push_url", TITLE, str(error), hint) from error
        feed = await existing_task(request, self._feeds, claim)
        config = PushConfigSet(config_id=name, url=body.url, token=body.token, form=body.form, person=claim.person)
        stands = feed.pushes.configs.get(name)
        if stands is None or stands.body != config or name in feed.pushes.given_up:
            self._has_room(feed, name)
            await self._store(feed, claim, config)
            stands = feed.pushes.configs.get(name)
            if stands is None or stands.body != config:
                self._has_room(feed, name)
                what, hint = f"the config {name} was changed by somebody else at the same time", "send it again"
                raise Problem(409, "push_changed", TITLE, what, hint)
        return answered(_document(feed, name, claim, policy))

    async def list(self, request: Request) -> Response:
        """GET /v1/tasks/{task_id}/push"""
        claim, policy = await self._allowed(request)
        feed = await self._configured(request, claim, policy)
        return answered(_page(feed, claim, policy))

    async def show(self, request: Request) -> Response:
        """GET /v1/tasks/{task_id}/push/{config_id}"""
        claim, policy = await self._allowed(request)
        feed, name = await self._configured(request, claim, policy), _name(request)
        if name not in feed.pushes.configs:
            raise _unknown(name)
        return answered(_document(feed, name, claim, policy))

    async def delete(self, request: Request) -> Response:
        """DELETE /v1/tasks/{task_id}/push/{config_id}: one that is not there is deleted already. Answers
        with those that are left."""
        claim, policy = await self._allowed(request)
        feed, name = await self._configured(request, claim, policy), _name(request)
        if name in feed.pushes.configs:
            await self._store(feed, claim, PushConfigDeleted(config_id=name))
        return answered(_page(feed, claim, policy))

    async def _allowed(self, request: Request) -> tuple[RequesterClaim, PushPolicy]:
        needed = "submitter or operator"
        claim = await self._auth.allowed(request, task_view.MAY_SUBMIT, "see and set push notifications", needed)
        self._quotas.look()
        return claim, self._quotas.push(claim.tenant)

    async def _configured(self, request: Request, claim: RequesterClaim, policy: PushPolicy) -> Feed:
        """The task; without hosts only one that has configs from before, whose people may read why they ended."""
        feed = await existing_task(request, self._feeds, claim)
        if not feed.pushes.configs:
            _on(policy)
        return feed

    async def _store(self, feed: Feed, claim: RequesterClaim, body: Body) -> None:
        digest = hashlib.sha256(body.encode()).hexdigest()[:32]
        index = f"push/{feed.task}/{feed.pushes.changes}/{digest}"
        write = self._context.publisher.send(
            "gateway", body, tenant=feed.tenant, task=feed.task, index=index, actor=claim.person
        )
        try:
            ack = await self._writes.within(write)
            await feed.refresh(ack.sequence)
        except (BusUnavailable, PublishRefused) as error:
            raise not_stored(error) from error

    @staticmethod
    def _has_room(feed: Feed, name: str) -> None:
        """Raises Problem 409."""
        if feed.pushes.settings >= bounds.MAX_PUSH_SETTINGS:
            what = f"push notifications of this task were set {bounds.MAX_PUSH_SETTINGS} times, which is the most"
            raise Problem(409, "push_limit", TITLE, what, "leave what is set; a repeat of it is not counted")
        if name not in feed.pushes.configs and len(feed.pushes.configs) >= bounds.MAX_PUSH_CONFIGS:
            what = f"the task has {bounds.MAX_PUSH_CONFIGS} configs, which is the most"
            raise Problem(409, "push_limit", TITLE, what, "delete one of them", limit=bounds.MAX_PUSH_CONFIGS)


def _on(policy: PushPolicy) -> None:
    """Raises Problem 403 where the tenant has no push notifications."""
    if not policy.on:
        what = "there are no push notifications for this tenant"
        hint = "stream, or ask for the task; an operator names hosts in `push` of the tenant's row"
        raise Problem(403, "push_off", TITLE, what, hint)


def _page(feed: Feed, claim: RequesterClaim, policy: PushPolicy) -> PushPage:
    return PushPage(configs=tuple(_document(feed, name, claim, policy) for name in feed.pushes.configs))


def _document(feed: Feed, name: str, claim: RequesterClaim, policy: PushPolicy) -> PushDocument:
    found = PushDocument.of(feed, name, claim.person)
    return found if policy.on or found.given_up else found.model_copy(update={"given_up": OFF})


def _name(request: Request) -> str:
    name: str = request.path_params["config_id"]
    if not re.fullmatch(CONFIG_ID, name):
        raise Problem(422, "push_id", TITLE, "the id of a config has 1 to 64 of A-Z a-z 0-9 _ . -", "send a UUID")
    return name


def _unknown(name: str) -> Problem:
    return not_found("push config", name, "GET /v1/tasks/{task_id}/push lists those that stand")
