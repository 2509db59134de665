"""Routes of declared reads: the caller's role is checked, the parameters are parsed, the reply is sent.

In: a query of `bulkhead.gateway_api` and what answers it. Out: a route.
"""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bulkhead.gateway_api.query import Query
from bulkhead_contracts.task import RequesterClaim
from bulkhead_contracts.types import Contract
from bulkhead_services.gateway.http.auth import GatewayAuthenticator
from bulkhead_services.gateway.http.request_values import json_response
from bulkhead_services.gateway.problems import invalid_query

Q = TypeVar("Q", bound=Query[Any])
R = TypeVar("R", bound=Contract)


def query_route(
    query: type[Query[R]], auth: GatewayAuthenticator, answer: Callable[[RequesterClaim, Any], Awaitable[R | bytes]]
) -> Route:
    """The route of a read. answer: makes the reply, or its JSON, for a caller who may read it. Raises Problem."""

    async def serve_query(request: Request) -> Response:
        claim = await auth.require_role(request, query.ALLOWED, query.ACTION)
        return json_response(await answer(claim, parse_query(query, request)))

    return Route(query.PATH, serve_query, methods=["GET"])


def parse_query(query: type[Q], request: Request) -> Q:
    """The query that a request says. Raises Problem 422 with the remedy of the first that does not fit."""
    texts = {**request.query_params, **request.path_params}
    try:
        return query.from_texts(texts)
    except ValidationError as error:
        name = str(error.errors(include_url=False)[0]["loc"][0])
        remedy = query.remedy_of(name)
        raise invalid_query(name, texts[name], remedy.hint, remedy.limit) from error
