"""Places in a schema: what a plan can name of what a tool takes or gives."""

import pytest

from bulkhead.flow.schema_places import MAX_PLACES, list_places

TEXT = {"type": "string"}


@pytest.mark.parametrize(
    ("schema", "places"),
    [
        ({"properties": {"a": TEXT, "b": {}}}, (("/a", "string"), ("/b", "any"))),
        ({"properties": {"a/b": {"type": "object", "properties": {"~": TEXT}}}}, (("/a~1b/~0", "string"),)),
        ({"type": "array", "items": {"properties": {"n": {"type": "number"}}}}, (("/*/n", "number"),)),
        ({"properties": {"to": {"type": "array", "items": TEXT}, "x": {"$ref": "#/a"}}}, (("/to/*", "string"),)),
        ({"properties": {"a": {"type": ["string", "null"]}, "b": {"type": "object"}}}, (("/a", "any"),)),
        ({"properties": {"x" * 300: TEXT, "b": True}}, ()),
        (TEXT, ()),
        (None, ()),
        ([], ()),
    ],
)
def test_scalars_are_named_by_their_pointers(schema, places):
    assert list_places(schema) == places


def test_the_list_is_bounded_in_length_and_depth():
    assert len(list_places({"properties": {f"p{n}": TEXT for n in range(1_000)}})) == MAX_PLACES
    deep = TEXT
    for _ in range(1_000):
        deep = {"items": deep}
    assert list_places(deep) == ()
