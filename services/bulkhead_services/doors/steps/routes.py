"""Steps by HTTP: long poll, beats, the answer.

In: requests with an identity's key, or with the key of the step. Out: JSON; errors in OpenAI's form.
"""

from collections.abc import Awaitable, Callable

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from bulkhead.callers.authentication import CallerAuthenticator, Unauthenticated, credential_of
from bulkhead.callers.step_keys import StepKey, WorkerIdentity
from bulkhead.http_server.bodies import BodyReader
from bulkhead_contracts import bounds
from bulkhead_contracts.delegation import StepAnswer
from bulkhead_contracts.task import RequesterClaim
from bulkhead_contracts.types import Contract
from bulkhead_contracts.wording import describe_error
from bulkhead_services.doors.http.answers import run_unless_disconnected
from bulkhead_services.doors.http.caller import check_once
from bulkhead_services.doors.http.hosts import AllowedHosts
from bulkhead_services.doors.places import CallPlaces
from bulkhead_services.doors.port import Caller, DoorRefusal
from bulkhead_services.doors.steps.handover import StepHandOvers

MAX_WAIT_S = 60.0
MAX_ANSWER_BODY = 8 * bounds.MAX_ANSWER_CHARS
IdentifyCaller = Callable[[Request], Awaitable[Caller]]


class StepsHttp:
    """The routes. places: of requests that wait for a step. identify_caller: of a request with a key of a tenant."""

    def __init__(
        self,
        steps: StepHandOvers,
        identities: CallerAuthenticator,
        bodies: BodyReader,
        places: CallPlaces,
        hosts: AllowedHosts,
        identify_caller: IdentifyCaller,
    ) -> None:
        self._steps, self._identities, self._bodies, self._places = steps, identities, bodies, places
        self._hosts, self._identify_caller = hosts, identify_caller

    def build_routes(self) -> list[BaseRoute]:
        """Routes for the application."""
        return [
            Route("/v1/steps", self.take_step, methods=["GET"]),
            Route("/v1/steps/open", self.list_open, methods=["GET"]),
            Route("/v1/steps/{id}/heartbeat", self.record_beat, methods=["POST"]),
            Route("/v1/steps/{id}/answer", self.submit_answer, methods=["POST"]),
        ]

    async def take_step(self, request: Request) -> Response:
        """GET /v1/steps?role=&holder=&wait_s=: a step, or 204."""
        self._check_headers(request)
        tenant, name = self._identities.worker(request.headers)
        role, holder = _query_text(request, "role", 32), _query_text(request, "holder", bounds.MAX_NAME_CHARS)
        with self._places.take_place(claim_of(tenant, name)):
            waiting = self._steps.take_step(WorkerIdentity(tenant, name), role, holder, _wait_s(request))
            step = await run_unless_disconnected(waiting, request.receive)
        return Response(status_code=204) if step is None else _json_response(step)

    async def list_open(self, request: Request) -> Response:
        """GET /v1/steps/open: the tenant's steps that wait for an answer, and who has them."""
        self._check_headers(request)
        caller = await self._identify_caller(request)
        if caller.step is not None:
            message = "the key of a step tells nothing of others"
            raise DoorRefusal(403, "forbidden", message, "use an API key of the tenant")
        return _json_response(self._steps.list_open(caller.claim.tenant))

    async def record_beat(self, request: Request) -> Response:
        """POST /v1/steps/{id}/heartbeat"""
        return _json_response(await self._steps.record_beat(self._step_key(request)))

    async def submit_answer(self, request: Request) -> Response:
        """POST /v1/steps/{id}/answer"""
        key = self._step_key(request)
        async with self._bodies.read(request, claim_of(key.tenant, key.identity), MAX_ANSWER_BODY) as raw:
            try:
                step_answer = StepAnswer.model_validate_json(raw)
            except ValidationError as error:
                first = error.errors(include_url=False, include_input=False)[0]
                message = f"{'.'.join(map(str, first['loc'])) or 'body'}: {describe_error(first)}"
                hint = 'send {"text": "..."}, or {"failed": "why"}; beside it {"missing": ["what it lacks"]}'
                raise DoorRefusal(400, "bad_answer", message, hint) from error
            return _json_response(await self._steps.submit_answer(key, step_answer))

    def _check_headers(self, request: Request) -> None:
        check_once(request.headers.keys())
        self._hosts.check_host(request)
        self._hosts.check_origin(request)

    def _step_key(self, request: Request) -> StepKey:
        self._check_headers(request)
        key = self._steps.keys.parse_key(credential_of(request.headers))
        if key is None or key.call_id != request.path_params["id"]:
            hint = "send the `key` that came with the step as a bearer"
            raise Unauthenticated("this is not the key of this step", hint)
        return key


def claim_of(tenant: str, name: str) -> RequesterClaim:
    """Stands for the program where callers are counted."""
    return RequesterClaim(tenant=tenant, person=name, role="submitter", via="api_key")


def _query_text(request: Request, name: str, most: int) -> str:
    value = request.query_params.get(name, "")
    if len(value) > most or not value.isprintable():
        raise DoorRefusal(400, "bad_parameter", f"{name} has at most {most} printable characters", "shorten it")
    return value


def _wait_s(request: Request) -> float:
    text = request.query_params.get("wait_s", "30")
    try:
        return min(MAX_WAIT_S, max(0.0, float(text[:16])))
    except ValueError:
        raise DoorRefusal(400, "bad_parameter", "wait_s is a number of seconds", f"send 0 to {MAX_WAIT_S:g}") from None


def _json_response(body: Contract) -> JSONResponse:
    return JSONResponse(body.model_dump(mode="json"))
