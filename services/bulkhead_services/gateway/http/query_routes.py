"""Routes of declared reads: the caller's role is checked, the parameters are parsed, the reply is sent.

In: a row of `bulkhead.gateway_api` and what answers it. Out: a route.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bulkhead.gateway_api.query import Parameters, Query
from bulkhead_contracts.task import RequesterClaim
from bulkhead_contracts.types import Contract
from bulkhead_services.gateway.http.auth import GatewayAuthenticator
from bulkhead_services.gateway.http.request_values import json_response
from bulkhead_services.gateway.problems import invalid_query

P = TypeVar("P", bound=Parameters)
R = TypeVar("R", bound=Contract)


def query_route(
    query: Query[P, R], auth: GatewayAuthenticator, answer: Callable[[RequesterClaim, P], Awaitable[R | bytes]]
) -> Route:
    """The route of a read. answer: makes the reply, or its JSON, for a caller who may read it. Raises Problem."""

    async def serve_query(request: Request) -> Response:
        claim = await auth.require_role(request, query.allowed, query.action)
        return json_response(await answer(claim, _parse_parameters(query, request)))

    return Route(query.path, serve_query, methods=["GET"])


def _parse_parameters(query: Query[P, R], request: Request) -> P:
    """The parameters of a request. Raises Problem 422 with the remedy of the first that does not fit."""
    texts = {**request.query_params, **request.path_params}
    try:
        return query.parameters.from_texts(texts)
    except ValidationError as error:
        name = str(error.errors(include_url=False)[0]["loc"][0])
        remedy = query.parameters.remedy_of(name)
        raise invalid_query(name, texts[name], remedy.hint, remedy.limit) from error
