"""Requests by the names of operations, sent to a gateway as the OpenAPI document describes them, and kept as examples.

In: a client, an operation, its parameters and body, the status that is to come. Out: the answer, which fits the
document; at the end the content of examples.json.
"""

import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx
import schemathesis

from bulkhead_services.gateway.http.openapi import openapi
from bulkhead_services.gateway.http.operation_examples import COMMON_CODES

Json = dict[str, Any]
LISTED, SHOWN_CHARS = 2, 400
"""So many elements of a list and characters of a text are shown."""


@dataclass
class ExampleRecorder:
    """Examples so far, by operation, and the problems by code."""

    operations: dict[str, Json] = field(default_factory=dict)
    problems: dict[str, Json] = field(default_factory=dict)

    def __post_init__(self) -> None:
        document = openapi()
        self._schema = schemathesis.openapi.from_dict(document)
        self._operations = {
            operation["operationId"]: (path, method, operation)
            for path, item in document["paths"].items()
            for method, operation in item.items()
        }

    async def record(
        self, http: httpx.AsyncClient, name: str, status: int = 200, /, *, body: Any = None, **parameters: Any
    ) -> Any:
        """Send a request and keep it with its answer, which it returns: JSON, or a text."""
        answer = await self._send(http, name, parameters, body)
        assert answer.status_code == status, (name, answer.status_code, answer.text)
        is_json = answer.headers["content-type"].startswith("application/json")
        received: Any = answer.json() if is_json else answer.text
        row: Json = {"parameters": parameters} if parameters else {}
        row |= {"body": body} if body is not None else {}
        codes = self.operations.get(name, {}).get("codes")
        row |= {"status": status, "answer": shorten(received)} | ({"codes": codes} if codes else {})
        self.operations[name] = row
        return received

    async def record_problem(
        self, http: httpx.AsyncClient, name: str, status: int, code: str, /, *, body: Any = None, **parameters: Any
    ) -> None:
        """Send a request that is refused, and keep the problem. code: of this operation; common ones are kept once."""
        answer = await self._send(http, name, parameters, body)
        problem = answer.json()
        assert (answer.status_code, problem.get("code")) == (status, code), (name, answer.text)
        self.problems[code] = problem
        if not is_common(code):
            codes = self.operations.setdefault(name, {}).setdefault("codes", {}).setdefault(str(status), [])
            codes += [code] if code not in codes else []

    async def record_first_event(self, http: httpx.AsyncClient, name: str, /) -> None:
        """Keep the beginning of a stream that does not end."""
        path, _, _ = self._operations[name]
        async with http.stream("GET", path) as answer:
            lines = []
            async for line in answer.aiter_lines():
                lines.append(line)
                if lines[-2:-1] and not line:
                    break
        self.operations[name] = {"status": answer.status_code, "answer": "\n".join([*lines, ""])}

    async def _send(self, http: httpx.AsyncClient, name: str, parameters: Json, body: Any) -> httpx.Response:
        path, method, operation = self._operations[name]
        places = {parameter["name"]: parameter["in"] for parameter in operation.get("parameters", ())}
        assert {*parameters} <= {*places}, (name, {*parameters} - {*places})
        by_place: dict[str, Json] = {"path": {}, "query": {}, "header": {}}
        for parameter, value in parameters.items():
            by_place[places[parameter]][parameter] = value
        address = path.format_map({key: quote(str(value), safe="") for key, value in by_place["path"].items()})
        content: Json = {"content" if isinstance(body, str) else "json": body}
        answer = await http.request(
            method,
            address,
            params=by_place["query"],
            headers=by_place["header"],
            **(content if body is not None else {}),
        )
        self._schema[path][method.upper()].validate_response(answer)
        return answer


def is_common(code: str) -> bool:
    """True of a code that many operations answer with."""
    return code in {"invalid_body", "invalid_query", *(code for codes in COMMON_CODES.values() for code in codes)}


def shorten(received: Any) -> Any:
    """An answer with the beginnings of its lists and texts."""
    if isinstance(received, dict):
        return {key: shorten(value) for key, value in received.items()}
    if isinstance(received, list):
        return [shorten(value) for value in received[:LISTED]]
    if isinstance(received, str) and len(received) > SHOWN_CHARS:
        return received[: SHOWN_CHARS - 1] + "…"
    return received


def mask_values(value: Any) -> Any:
    """A request without what is another one in each run: ids, digests, numbers, signatures."""
    if isinstance(value, dict):
        return {key: mask_values(part) for key, part in value.items()}
    if isinstance(value, list):
        return [mask_values(part) for part in value]
    return re.sub(r"[0-9A-Za-z+/]{40,}={0,2}|[0-9a-z]{12,}|\d+", "0", value) if isinstance(value, str) else value
