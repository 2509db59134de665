"""The part that each API's form plays. Pure. In: a request's body, then an answer. Out: what is asked, then the answer
in that API's own words, whole or as events of a stream.
"""

from typing import Any, Protocol

from bulkhead_services.doors.port import Answered, Asked, Piece, Refusal


class Form(Protocol):
    """One request of one API. asked: in OpenAI's chat form. request_id: ids of its stream are made of it."""

    asked: Asked

    def whole(self, answer: Answered) -> dict[str, Any]:
        """The body of an answer that is not streamed."""
        ...

    def begin(self, call_id: str, now_unix_ms: int) -> bytes:
        """Events before the first piece."""
        ...

    def piece(self, piece: Piece) -> bytes:
        """Events of a piece of the answer; none where the API has no word for its part."""
        ...

    def end(self, answer: Answered) -> bytes:
        """Events after the last piece."""
        ...

    def failed(self, refusal: Refusal) -> bytes:
        """Events that end a stream that has begun."""
        ...


class Unstreamed:
    """An API whose answers come whole: a stream of it has no events."""

    def begin(self, call_id: str, now_unix_ms: int) -> bytes:
        """None."""
        return b""

    def piece(self, piece: Piece) -> bytes:
        """None."""
        return b""

    def end(self, answer: Answered) -> bytes:
        """None."""
        return b""

    def failed(self, refusal: Refusal) -> bytes:
        """None."""
        return b""
