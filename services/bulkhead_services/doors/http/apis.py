"""The APIs that the doors speak: how each reads a request and says a refusal."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from bulkhead_services.doors.forms import errors
from bulkhead_services.doors.forms.sse import to_json
from bulkhead_services.doors.port import DoorRefusal

JSON = "application/json"


@dataclass(frozen=True, slots=True)
class VendorApi:
    """One vendor's API. request_id_header: where its SDK looks for the request's id."""

    error: Callable[[DoorRefusal, str], dict[str, Any]]
    request_id_header: str

    def render_refusal(self, refusal: DoorRefusal, request_id: str) -> Response:
        """An error as an HTTP answer."""
        headers = errors.error_headers(refusal) | {self.request_id_header: request_id}
        return Response(
            to_json(self.error(refusal, request_id)).encode("utf-8", "replace"), refusal.status, headers, JSON
        )


OPENAI = VendorApi(errors.openai_body, "x-request-id")
ANTHROPIC = VendorApi(errors.anthropic_body, "request-id")


def api_of(path: str) -> VendorApi:
    """The API that a path belongs to. Runs are the doors' own, and speak as OpenAI's does."""
    return ANTHROPIC if path.startswith("/anthropic/") else OPENAI
