"""Steps by HTTP: long poll, beats, the answer.

In: requests with an identity's key, or with the key of the step. Out: JSON; errors in OpenAI's form.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from bulkhead.callers.authentication import Unauthenticated, credential_of
from bulkhead.callers.step_keys import Identity, StepKey
from bulkhead.http_server.bodies import Bodies
from bulkhead_contracts import bounds
from bulkhead_contracts.delegation import StepAnswer
from bulkhead_contracts.task import RequesterClaim
from bulkhead_contracts.types import Contract
from bulkhead_contracts.wording import words
from bulkhead_services.doors.http.answers import unless_gone
from bulkhead_services.doors.http.caller import check_once
from bulkhead_services.doors.http.hosts import Hosts
from bulkhead_services.doors.http.places import Places
from bulkhead_services.doors.port import Caller, Refusal
from bulkhead_services.doors.steps.handover import HandOvers

MAX_WAIT_S = 60.0
MAX_ANSWER_BODY = 8 * bounds.MAX_ANSWER_CHARS
People = Callable[[Request], Awaitable[Caller]]


class Identities(Protocol):
    """Knows the keys of programs that take steps; `Authenticator` does."""

    def worker(self, headers: Mapping[str, str]) -> tuple[str, str]:
        """Tenant and name. Raises Unauthenticated."""
        ...


class StepsHttp:
    """The routes. places: of requests that wait for a step. people: who asks with a key of a tenant."""

    def __init__(
        self, steps: HandOvers, identities: Identities, bodies: Bodies, places: Places, hosts: Hosts, people: People
    ) -> None:
        self._steps, self._identities, self._bodies, self._places = steps, identities, bodies, places
        self._hosts, self._people = hosts, people

    def routes(self) -> list[BaseRoute]:
        """Where they are served."""
        return [
            Route("/v1/steps", self.take, methods=["GET"]),
            Route("/v1/steps/open", self.open, methods=["GET"]),
            Route("/v1/steps/{id}/heartbeat", self.beat, methods=["POST"]),
            Route("/v1/steps/{id}/answer", self.answer, methods=["POST"]),
        ]

    async def take(self, request: Request) -> Response:
        """GET /v1/steps?role=&holder=&wait_s=: a step, or 204."""
        self._check(request)
        tenant, name = self._identities.worker(request.headers)
        role, holder = _text(request, "role", 32), _text(request, "holder", bounds.MAX_NAME_CHARS)
        release = self._places.take(claim_of(tenant, name))
        try:
            waiting = self._steps.take(Identity(tenant, name), role, holder, _wait_s(request))
            found = await unless_gone(waiting, request.receive)
        finally:
            release()
        return Response(status_code=204) if found is None else _json(found)

    async def open(self, request: Request) -> Response:
        """GET /v1/steps/open: the tenant's steps that wait for an answer, and who has them."""
        self._check(request)
        caller = await self._people(request)
        if caller.step is not None:
            what = "the key of a step tells nothing of others"
            raise Refusal(403, "forbidden", what, "use an API key of the tenant")
        return _json(self._steps.shown(caller.claim.tenant))

    async def beat(self, request: Request) -> Response:
        """POST /v1/steps/{id}/heartbeat"""
        return _json(await self._steps.beat(self._key(request)))

    async def answer(self, request: Request) -> Response:
        """POST /v1/steps/{id}/answer"""
        key = self._key(request)
        async with self._bodies.read(request, claim_of(key.tenant, key.identity), MAX_ANSWER_BODY) as raw:
            try:
                said = StepAnswer.model_validate_json(raw)
            except ValidationError as error:
                first = error.errors(include_url=False, include_input=False)[0]
                what = f"{'.'.join(map(str, first['loc'])) or 'body'}: {words(first)}"
                hint = 'send {"text": "..."}, or {"failed": "why"}; beside it {"missing": ["what it lacks"]}'
                raise Refusal(400, "bad_answer", what, hint) from error
            return _json(await self._steps.answer(key, said))

    def _check(self, request: Request) -> None:
        check_once(request.headers.keys())
        self._hosts.check(request)
        self._hosts.check_origin(request)

    def _key(self, request: Request) -> StepKey:
        self._check(request)
        key = self._steps.keys.read(credential_of(request.headers))
        if key is None or key.call_id != request.path_params["id"]:
            hint = "send the `key` that came with the step as a bearer"
            raise Unauthenticated("this is not the key of this step", hint)
        return key


def claim_of(tenant: str, name: str) -> RequesterClaim:
    """Stands for the program where callers are counted."""
    return RequesterClaim(tenant=tenant, person=name, role="submitter", via="api_key")


def _text(request: Request, name: str, most: int) -> str:
    value = request.query_params.get(name, "")
    if len(value) > most or not value.isprintable():
        raise Refusal(400, "bad_parameter", f"{name} has at most {most} printable characters", "shorten it")
    return value


def _wait_s(request: Request) -> float:
    text = request.query_params.get("wait_s", "30")
    try:
        return min(MAX_WAIT_S, max(0.0, float(text[:16])))
    except ValueError:
        raise Refusal(400, "bad_parameter", "wait_s is a number of seconds", f"send 0 to {MAX_WAIT_S:g}") from None


def _json(body: Contract) -> JSONResponse:
    return JSONResponse(body.model_dump(mode="json"))
