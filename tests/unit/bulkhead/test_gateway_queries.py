"""Numbers in the parameters of reads: as long as the bounds that they have."""

import pytest
from pydantic import ValidationError

from bulkhead.gateway_api.documents import DocumentChunkQuery
from bulkhead.gateway_api.operators import TaskCoordinationQuery


def test_a_moment_in_milliseconds_and_a_far_character_are_numbers() -> None:
    assert TaskCoordinationQuery.from_texts({"at": "1800000000000"}).at == 1_800_000_000_000
    assert DocumentChunkQuery.from_texts({"name": "a.md", "start": "3999999"}).start == 3_999_999


@pytest.mark.parametrize("text", ["-1", "1.5", "٣", "9" * 16, "1e3", ""])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        TaskCoordinationQuery.from_texts({"at": text})
