"""What may change in a released schema and what may not; and that nothing released has changed."""

import copy
import json
from typing import Annotated, Literal

import pytest
from pydantic import Field

from bulkhead_contracts.types import Contract, Token
from bulkhead_infra.render import release
from bulkhead_infra.render.compat import breaking_changes, has_changed
from tests.paths import ROOT


class Inner(Contract):
    """As released."""

    amount: Annotated[int, Field(ge=0, le=100)] = 0


class Old(Contract):
    """As released."""

    name: Token
    kind: Literal["a", "b"] = "a"
    fixed: Literal["x"] = "x"
    text: Annotated[str, Field(max_length=50)] = ""
    inner: Inner = Inner()
    maybe: Inner | None = None
    many: Annotated[tuple[Inner, ...], Field(max_length=4)] = ()


OLD = Old.model_json_schema()


def altered(path: str, value: object = None) -> dict:
    """The old schema with the keyword at `path` set, or removed when there is no value."""
    schema = copy.deepcopy(OLD)
    *way, last = path.split("/")
    node = schema
    for key in way:
        node = node[int(key)] if isinstance(node, list) else node[key]
    if value is None:
        del node[last]
    else:
        node[last] = value
    return schema


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("properties/text", None, "'text' is gone"),
        ("properties/extra", {"type": "string"}, ""),
        ("required", ["name", "text"], "'text' became required"),
        ("required", [], "'name' became optional"),
        ("properties/text/type", "integer", "type changed from string to integer"),
        ("properties/text/type", ["string", "null"], "type widened from string to null/string"),
        ("properties/text/maxLength", 49, "maxLength narrowed from 50 to 49"),
        ("properties/text/minLength", 1, "minLength narrowed from none to 1"),
        ("properties/text/maxLength", 51, ""),
        ("properties/text/maxLength", None, ""),
        ("properties/text/default", "hello", 'default changed from "" to "hello"'),
        ("properties/text/format", "date", "format changed from none to"),
        ("properties/text/enum", ["", "y"], "values narrowed to a list"),
        ("properties/name/pattern", "^[a-z]+$", "pattern changed from"),
        ("properties/name/pattern", None, "pattern changed from"),
        ("properties/kind/enum", ["a"], 'value "b" is no longer allowed'),
        ("properties/kind/enum", ["a", "b", "c"], 'new value "c"'),
        ("properties/kind/enum", None, "the list of values is gone"),
        ("properties/fixed/const", "z", 'value "x" is no longer allowed'),
        ("$defs/Inner/properties/amount/maximum", 99, "inner.amount: maximum narrowed from 100 to 99"),
        ("$defs/Inner/properties/amount/minimum", 1, "many[].amount: minimum narrowed from 0 to 1"),
        ("$defs/Inner/properties/amount/maximum", 1000, ""),
        ("$defs/Inner/properties/amount", None, "maybe: property 'amount' is gone"),
        ("properties/many/maxItems", 3, "maxItems narrowed from 4 to 3"),
        ("properties/many/items", {"type": "string"}, "many[]: type changed from object to string"),
        ("properties/maybe/anyOf", [{"$ref": "#/$defs/Inner"}], "alternative null is gone"),
        (
            "properties/maybe/anyOf",
            [{"$ref": "#/$defs/Inner"}, {"type": "null"}, {"type": "string"}],
            "new alternative string",
        ),
        ("properties/inner/default", {"amount": 0, "later": 1}, ""),
        ("properties/inner/default", {"amount": 1}, "default changed from"),
        ("additionalProperties", False, "additionalProperties changed from none to false"),
        ("title", "Renamed", ""),
        ("properties/text/description", "Explained.", ""),
    ],
)
def test_each_kind_of_change(path, value, says):
    new = altered(path, value)
    found = breaking_changes(OLD, new)
    if says:
        assert any(says in one for one in found), found
    else:
        assert found == []


def test_a_new_required_property_breaks():
    new = altered("properties/extra", {"type": "string"})
    new["required"] = ["name", "extra"]
    assert breaking_changes(OLD, new) == ["body: new property 'extra' is required; what was written lacks it"]


def test_a_value_may_move_from_const_to_a_list_of_one_and_no_further():
    listed = altered("properties/fixed/const")
    listed["properties"]["fixed"]["enum"] = ["x"]
    assert breaking_changes(OLD, listed) == []
    listed["properties"]["fixed"]["enum"].append("y")
    assert breaking_changes(OLD, listed)


def test_prose_is_no_change_but_a_property_that_is_called_title_is():
    assert not has_changed(OLD, altered("properties/text/description", "Explained."))
    assert has_changed(OLD, altered("properties/title", {"type": "string"}))
    assert has_changed(OLD, altered("properties/text/maxLength", 51))


@pytest.mark.parametrize(
    ("path", "value", "is_breaking", "says"),
    [("properties/text", None, True, "add the next one"), ("properties/extra", {"type": "string"}, False, "--release")],
)
def test_a_changed_release_says_what_to_do(path, value, is_breaking, says):
    [found] = release.compare_releases({"mesh.x.v1": OLD}, {"mesh.x.v1": altered(path, value), "mesh.x.v2": OLD})
    assert found.breaking is is_breaking and says in found.message and "mesh.x.v1" in found.message


def test_what_was_released_may_not_vanish():
    [found] = release.compare_releases({"mesh.x.v1": OLD}, {"mesh.x.v2": OLD})
    assert found.breaking and "mesh.x.v1 was released and is gone" in found.message and "upcast" in found.message


def test_a_release_adds_and_never_overwrites_what_broke(tmp_path, monkeypatch):
    (tmp_path / "contracts").mkdir()
    today = {"mesh.x.v1": OLD}
    monkeypatch.setattr(release, "current_schemas", lambda: today)
    assert release.record_release(tmp_path) == [] and release.read_released(tmp_path) == today
    today = {"mesh.x.v1": OLD, "mesh.x.v2": altered("properties/text")}
    assert release.record_release(tmp_path) == [] and release.read_released(tmp_path) == today
    kept = (tmp_path / release.FILE).read_text()
    today = {"mesh.x.v1": altered("properties/text"), "mesh.x.v3": OLD}
    assert {one.name for one in release.record_release(tmp_path)} == {"mesh.x.v1", "mesh.x.v2"}
    assert (tmp_path / release.FILE).read_text() == kept


def test_every_released_version_is_as_it_was_released():
    findings = release.compare_releases(release.read_released(ROOT), release.current_schemas())
    assert not findings, "\n\n".join(finding.message for finding in findings)


def test_every_version_of_today_is_released_and_the_file_is_as_it_is_written():
    released = release.read_released(ROOT)
    missing = sorted(set(release.current_schemas()) - set(released))
    assert not missing, (
        f"not released yet: {missing}; run `python -m bulkhead_infra.render --release` and commit the result"
    )
    assert (ROOT / release.FILE).read_text() == release.render_released(released)


def test_every_schema_of_today_is_compatible_with_itself_and_not_with_another():
    today = release.current_schemas()
    for schema in today.values():
        assert breaking_changes(schema, json.loads(json.dumps(schema))) == []
    assert breaking_changes(today["mesh.task.requested.v1"], today["mesh.task.requested.v2"])
