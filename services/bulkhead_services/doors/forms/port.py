"""The part that each API's form plays. Pure. In: a request's body, then an answer. Out: what is asked, then the answer
in that API's own words, whole or as events of a stream.
"""

from typing import Any, Protocol

from bulkhead_services.doors.port import AnswerPiece, DoorRefusal, ModelCallAnswer, ParsedModelCall


class ApiForm(Protocol):
    """One request of one API. asked: in OpenAI's chat form. request_id: ids of its stream are made of it."""

    parsed_call: ParsedModelCall

    def render_answer(self, answer: ModelCallAnswer) -> dict[str, Any]:
        """The body of an answer that is not streamed."""
        ...

    def render_start(self, call_id: str, now_unix_ms: int) -> bytes:
        """Events before the first piece."""
        ...

    def render_piece(self, piece: AnswerPiece) -> bytes:
        """Events of a piece of the answer; none where the API has no word for its part."""
        ...

    def render_end(self, answer: ModelCallAnswer) -> bytes:
        """Events after the last piece."""
        ...

    def render_failure(self, refusal: DoorRefusal) -> bytes:
        """Events that end a stream that has begun."""
        ...


class UnstreamedForm:
    """An API whose answers come whole: a stream of it has no events."""

    def render_start(self, call_id: str, now_unix_ms: int) -> bytes:
        """None."""
        return b""

    def render_piece(self, piece: AnswerPiece) -> bytes:
        """None."""
        return b""

    def render_end(self, answer: ModelCallAnswer) -> bytes:
        """None."""
        return b""

    def render_failure(self, refusal: DoorRefusal) -> bytes:
        """None."""
        return b""
