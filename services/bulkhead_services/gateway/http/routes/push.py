"""Push notifications of a task over HTTP: set, shown, deleted by who may submit tasks.

In: requests of doors with a client's own credential, or of any program. Out: the configs as they stand, or problem
details. A config is a message in the gateway's inbox, beside those of its task.
"""

import hashlib
import re

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bulkhead.a2a.push_urls import PushUrlForbidden, parse_push_url
from bulkhead.bus.port import BusUnavailable, PublishRefused
from bulkhead.gateway_api.query import OPERATORS, SUBMITTERS
from bulkhead.gateway_api.tasks import PushDocument, PushListQuery, PushPage, PushQuery
from bulkhead.quotas.tenant_quotas import TenantQuotas
from bulkhead.runtime.context import Context
from bulkhead_contracts import bounds
from bulkhead_contracts.push import CONFIG_ID, PushConfigDeleted, PushConfigSet
from bulkhead_contracts.push_policy import PushPolicy
from bulkhead_contracts.task import RequesterClaim
from bulkhead_contracts.types import Body
from bulkhead_services.gateway.admission.durable_writes import DurableWrites
from bulkhead_services.gateway.http.auth import GatewayAuthenticator
from bulkhead_services.gateway.http.query_routes import query_route
from bulkhead_services.gateway.http.request_limits import GatewayRequestBodies
from bulkhead_services.gateway.http.request_values import existing_task, json_response, parse_body
from bulkhead_services.gateway.http.schemas import PushSubmission
from bulkhead_services.gateway.problems import Problem, not_found, not_stored
from bulkhead_services.gateway.read_model.feeds import InboxFeed, InboxFeeds

MAX_BODY_BYTES = 8 * 1024
TITLE = "The push notifications cannot be set"
OFF = "nothing is posted while the tenant's row names no hosts (`push`); an operator may name them again"


class PushConfigRoutes:
    """The routes under /v1/tasks/{task_id}/push."""

    def __init__(
        self,
        context: Context,
        auth: GatewayAuthenticator,
        bodies: GatewayRequestBodies,
        feeds: InboxFeeds,
        quotas: TenantQuotas,
        writes: DurableWrites,
    ) -> None:
        self._context, self._auth, self._bodies = context, auth, bodies
        self._feeds, self._quotas, self._writes = feeds, quotas, writes

    def routes(self) -> list[Route]:
        """Routes for the application."""
        config_path = "/v1/tasks/{task_id}/push/{config_id}"
        return [
            query_route(PushListQuery, self._auth, self.list_configs),
            query_route(PushQuery, self._auth, self.show_config),
            Route(config_path, self.set_config, methods=["PUT"]),
            Route(config_path, self.delete_config, methods=["DELETE"]),
        ]

    async def set_config(self, request: Request) -> Response:
        """PUT /v1/tasks/{task_id}/push/{config_id}: the same again changes nothing."""
        claim, policy = await self._authorize_caller(request)
        _require_push(policy)
        async with self._bodies.read_body(request, claim, MAX_BODY_BYTES) as raw:
            body = parse_body(PushSubmission, raw)
        name = _check_config_id(request.path_params["config_id"])
        try:
            parse_push_url(body.url, policy)
        except PushUrlForbidden as error:
            hint = "use an https URL of a host that the operator allows (`push.hosts` of the tenant's row)"
            raise Problem(422, "push_url", TITLE, str(error), hint) from error
        feed = await existing_task(request.path_params["task_id"], self._feeds, claim)
        config = PushConfigSet(config_id=name, url=body.url, token=body.token, form=body.form, person=claim.person)
        current = feed.pushes.configs.get(name)
        _require_owner(feed, name, claim)
        _require_requester(feed, claim)
        if current is None or current.body != config or name in feed.pushes.given_up:
            self._check_room(feed, name)
            await self._store_change(feed, claim, config)
            current = feed.pushes.configs.get(name)
            if current is None or current.body != config:
                self._check_room(feed, name)
                detail, hint = f"the config {name} was changed by somebody else at the same time", "send it again"
                raise Problem(409, "push_changed", TITLE, detail, hint)
        return json_response(_push_document(feed, name, claim, policy))

    async def list_configs(self, claim: RequesterClaim, query: PushListQuery) -> PushPage:
        """Configs of a task."""
        policy = self._push_policy(claim)
        return _push_page(await self._configured_task(query.task_id, claim, policy), claim, policy)

    async def show_config(self, claim: RequesterClaim, query: PushQuery) -> PushDocument:
        """One config."""
        policy = self._push_policy(claim)
        feed, name = await self._configured_task(query.task_id, claim, policy), _check_config_id(query.config_id)
        if name not in feed.pushes.configs:
            raise not_found("push config", name, "GET /v1/tasks/{task_id}/push lists those that stand")
        return _push_document(feed, name, claim, policy)

    async def delete_config(self, request: Request) -> Response:
        """DELETE /v1/tasks/{task_id}/push/{config_id}: one that is not there is deleted already. Answers
        with those that are left."""
        claim, policy = await self._authorize_caller(request)
        feed = await self._configured_task(request.path_params["task_id"], claim, policy)
        name = _check_config_id(request.path_params["config_id"])
        if name in feed.pushes.configs:
            _require_owner(feed, name, claim)
            await self._store_change(feed, claim, PushConfigDeleted(config_id=name))
        return json_response(_push_page(feed, claim, policy))

    async def _authorize_caller(self, request: Request) -> tuple[RequesterClaim, PushPolicy]:
        claim = await self._auth.require_role(request, SUBMITTERS, PushListQuery.ACTION)
        return claim, self._push_policy(claim)

    def _push_policy(self, claim: RequesterClaim) -> PushPolicy:
        self._quotas.reload_if_changed()
        return self._quotas.push_policy_of(claim.tenant)

    async def _configured_task(self, task_id: str, claim: RequesterClaim, policy: PushPolicy) -> InboxFeed:
        """The task; without hosts only one that has configs from before, whose people may read why they ended."""
        feed = await existing_task(task_id, self._feeds, claim)
        if not feed.pushes.configs:
            _require_push(policy)
        return feed

    async def _store_change(self, feed: InboxFeed, claim: RequesterClaim, body: Body) -> None:
        digest = hashlib.sha256(body.encode()).hexdigest()[:32]
        index = f"push/{feed.task}/{feed.pushes.changes}/{digest}"
        write = self._context.publisher.send(
            "gateway", body, tenant=feed.tenant, task=feed.task, index=index, actor=claim.person
        )
        try:
            ack = await self._writes.write_within(write)
            await feed.refresh(ack.sequence)
        except (BusUnavailable, PublishRefused) as error:
            raise not_stored(error) from error

    @staticmethod
    def _check_room(feed: InboxFeed, name: str) -> None:
        """Raises Problem 409."""
        if feed.pushes.settings >= bounds.MAX_PUSH_SETTINGS:
            detail = f"push notifications of this task were set {bounds.MAX_PUSH_SETTINGS} times, which is the most"
            raise Problem(409, "push_limit", TITLE, detail, "leave what is set; a repeat of it is not counted")
        if name not in feed.pushes.configs and len(feed.pushes.configs) >= bounds.MAX_PUSH_CONFIGS:
            detail = f"the task has {bounds.MAX_PUSH_CONFIGS} configs, which is the most"
            raise Problem(409, "push_limit", TITLE, detail, "delete one of them", limit=bounds.MAX_PUSH_CONFIGS)


def _require_push(policy: PushPolicy) -> None:
    """Raises Problem 403 where the tenant has no push notifications."""
    if not policy.is_enabled:
        detail = "there are no push notifications for this tenant"
        hint = "stream, or ask for the task; an operator names hosts in `push` of the tenant's row"
        raise Problem(403, "push_off", TITLE, detail, hint)


def _require_owner(feed: InboxFeed, name: str, claim: RequesterClaim) -> None:
    """Raises Problem 403 for a config that another person set, unless an operator asks."""
    config = feed.pushes.configs.get(name)
    if config is not None and config.body.person != claim.person and claim.role not in OPERATORS.names:
        detail = f"the config {name} was set by {config.body.person}, and goes on for that person"
        hint = "set one under another id, or ask that person or an operator to change this one"
        raise Problem(403, "push_not_yours", TITLE, detail, hint)


def _require_requester(feed: InboxFeed, claim: RequesterClaim) -> None:
    """Raises Problem 403 for a task that another person asked for, unless an operator asks: a task has few configs."""
    request = feed.view.request
    requester = request.requester if request is not None else None
    if requester is not None and requester.person != claim.person and claim.role not in OPERATORS.names:
        detail = f"the task is {requester.person}'s, whose push notifications they are"
        raise Problem(403, "push_not_yours", TITLE, detail, "stream the task, or ask that person or an operator")


def _push_page(feed: InboxFeed, claim: RequesterClaim, policy: PushPolicy) -> PushPage:
    return PushPage(configs=tuple(_push_document(feed, name, claim, policy) for name in feed.pushes.configs))


def _push_document(feed: InboxFeed, name: str, claim: RequesterClaim, policy: PushPolicy) -> PushDocument:
    config = feed.pushes.configs[name]
    given_up = feed.pushes.given_up.get(name, "")
    return PushDocument(
        config_id=name,
        task_id=feed.task,
        url=config.body.url,
        token=config.body.token if config.body.person == claim.person else "",
        form=config.body.form,
        person=config.body.person,
        set_unix_ms=config.set_unix_ms,
        waiting=feed.pushes.count_waiting(name),
        given_up=given_up if policy.is_enabled or given_up else OFF,
    )


def _check_config_id(name: str) -> str:
    if not re.fullmatch(CONFIG_ID, name):
        raise Problem(422, "push_id", TITLE, "the id of a config has 1 to 64 of A-Z a-z 0-9 _ . -", "send a UUID")
    return name
