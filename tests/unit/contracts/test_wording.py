"""What is said of a value that does not fit is ours: it replays with whatever version of the validating library."""

import pytest
from pydantic import BaseModel, Field, ValidationError

from bulkhead_contracts import catalog
from bulkhead_contracts.catalog import DecodeError
from bulkhead_contracts.step import StepAssigned
from bulkhead_contracts.wording import words


@pytest.mark.parametrize(
    ("kind", "context", "said"),
    [
        ("missing", {}, "Field required"),
        ("string_too_short", {"min_length": 1}, "String should have at least 1 character"),
        ("string_too_long", {"max_length": 64}, "String should have at most 64 characters"),
        ("string_pattern_mismatch", {"pattern": "^[a-z]{2}$"}, "String should match pattern '^[a-z]{2}$'"),
        (
            "too_long",
            {"field_type": "Tuple", "max_length": 8, "actual_length": 9},
            "Tuple should have at most 8 items after validation, not 9",
        ),
        ("literal_error", {"expected": "'a' or 'b'"}, "Input should be 'a' or 'b'"),
        ("greater_than_equal", {"ge": 0}, "Input should be greater than or equal to 0"),
        ("value_error", {"error": ValueError("it is {odd}")}, "Value error, it is {odd}"),
        ("json_invalid", {"error": "whatever a parser says"}, "Invalid JSON"),
        ("of_tomorrow", {"x": 1}, "Input does not fit (of_tomorrow)"),
        ("too_long", {}, "Input does not fit (too_long)"),
    ],
)
def test_a_problem_as_a_sentence(kind, context, said):
    assert words({"type": kind, "ctx": context, "msg": "what the library says today"}) == said


@pytest.mark.parametrize("body", [b"{", b"", b"[1,", b"\xff"])
def test_no_parser_s_words_get_into_a_rejection(body):
    with pytest.raises(DecodeError) as refused:
        catalog.decode(StepAssigned.ce_type(), body)
    assert str(refused.value) == f"{StepAssigned.ce_type()}: body: Invalid JSON"


def test_types_that_contracts_use_have_words():
    class Odd(BaseModel):
        texts: tuple[str, ...] = Field(max_length=1)
        number: float = Field(gt=0, allow_inf_nan=False)

    with pytest.raises(ValidationError) as refused:
        Odd.model_validate_json('{"texts": ["a", "b"], "number": NaN}')
    said = [words(one) for one in refused.value.errors()]
    assert said == ["Tuple should have at most 1 item after validation, not 2", "Input should be a finite number"]
