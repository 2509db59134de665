"""OpenAI's embeddings, read and written. Pure.

In: the body of a request. Out: one message that holds its inputs; then the vectors as the provider gave them.
"""

import json
from typing import Any

from bulkhead.model_apis.allowed import EMBEDDING_OPTIONS
from bulkhead_contracts import bounds
from bulkhead_services.doors.forms.chat_options import KEPT_HERE, refuse_unlisted, session_of
from bulkhead_services.doors.forms.fields import Fields, unfit_field
from bulkhead_services.doors.forms.openai_chat import model_of
from bulkhead_services.doors.forms.port import UnstreamedForm
from bulkhead_services.doors.port import DoorRefusal, ModelCallAnswer, ParsedModelCall

MAX_INPUTS = 2_048
MAX_DIMENSIONS = 65_536


class Embeddings(UnstreamedForm):
    """One request for vectors, and its answer."""

    def __init__(self, value: object) -> None:
        body = Fields(value)
        model, inputs = model_of(body), _check_inputs(body.get_raw("input"))
        body.get_choice("encoding_format", ("float", "base64"))
        body.get_integer("dimensions", 1, MAX_DIMENSIONS)
        session = session_of(body)
        options = {name: value for name in EMBEDDING_OPTIONS if (value := body.get_raw(name)) is not None}
        for name in KEPT_HERE:
            body.get_raw(name)
        refuse_unlisted(body)
        self.parsed_call = ParsedModelCall(model, ({"input": inputs},), options, 1, False, session=session, embeds=True)

    def render_answer(self, answer: ModelCallAnswer) -> dict[str, Any]:
        """A list of embeddings. Raises DoorRefusal."""
        try:
            vectors = json.loads(answer.text)
        except ValueError as error:
            raise DoorRefusal(502, "content_missing", "the answer on record holds no vectors", "ask anew") from error
        rows = [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(vectors)]
        used = answer.usage.input_tokens
        usage = {"prompt_tokens": used, "total_tokens": used}
        return {"object": "list", "data": rows, "model": answer.model, "usage": usage}


def _check_inputs(value: object) -> Any:
    """A text, texts, tokens, or lists of tokens. Raises DoorRefusal."""
    if isinstance(value, str) and value:
        return value
    if not isinstance(value, list) or not value:
        raise unfit_field("input", "is missing" if not value else "must be a text or a list", "send texts, or tokens")
    if len(value) > MAX_INPUTS and not _is_tokens(value):
        raise unfit_field(
            "input", f"must have at most {MAX_INPUTS} entries, and has {len(value)}", "send several requests"
        )
    texts = all(isinstance(row, str) and row for row in value)
    if not (texts or _is_tokens(value) or all(isinstance(row, list) and _is_tokens(row) for row in value)):
        raise unfit_field("input", "must hold texts that are not empty, or tokens, and nothing else")
    return value


def _is_tokens(row: list[Any]) -> bool:
    return bool(row) and all(type(token) is int and 0 <= token <= bounds.MAX_TOKENS for token in row)
