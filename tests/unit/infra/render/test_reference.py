"""The rendered reference names every command, setting, limit, message, request and tool."""

import json
from pathlib import Path

import pytest
from typer.main import get_command

from bulkhead.tools import catalog as tools_catalog
from bulkhead_cli.main import app
from bulkhead_contracts import bounds, catalog
from bulkhead_infra.composition import settings_of
from bulkhead_infra.render import reference
from tests.paths import ROOT

PAGES = {Path(name).stem: text for name, text in reference.files().items()}


def _named(page: str) -> set[str]:
    """Everything that begins a line of its own in code marks."""
    starts = (
        line.lstrip("#- ").removeprefix("`") for line in PAGES[page].splitlines() if line.startswith(("- `", "###"))
    )
    return {start.partition("`")[0] for start in starts}


def test_every_command_has_a_heading() -> None:
    headings = {name.partition(" ")[2] for name in _named("cli") if name.startswith("bulkhead ")}
    for name, command in getattr(get_command(app), "commands", {}).items():
        wanted = [name, *(f"{name} {inner}" for inner in getattr(command, "commands", {}))]
        assert all(any(heading.split(" ")[: len(w.split())] == w.split() for heading in headings) for w in wanted), name


@pytest.mark.parametrize("service", catalog.EVERY_SERVICE)
def test_every_setting_is_listed_once_for_its_service(service: str) -> None:
    settings = settings_of(service)
    part = PAGES["settings"].partition(f"\n## `{service}`\n")[2].partition("\n## ")[0]
    common = PAGES["settings"].partition("\n## Every service\n")[2].partition("\n## ")[0]
    for name in settings.model_fields:
        assert (part + common).count(f"\n- `{name.upper()}`: ") >= 1, name
        assert part.count(f"\n- `{name.upper()}`: ") <= 1, name


def test_every_limit_message_and_tool_is_listed() -> None:
    assert {name for name in vars(bounds) if name.isupper()} <= _named("limits")
    assert {row.body.ce_type() for row in catalog.ROWS} <= _named("messages")
    assert {row.spec.name for row in tools_catalog.tool_rows()} <= _named("tools")


def test_every_request_is_listed() -> None:
    document = json.loads((ROOT / "contracts" / "openapi.json").read_text())
    wanted = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    assert wanted <= _named("http")


def test_a_sentence_that_begins_with_a_name_explains_that_setting() -> None:
    text = "About all of them. first: what it is. More of it. second, third: both. fourth 0 means none."
    about, told = reference._split_explanations(text, ("first", "second", "third", "fourth"))
    assert about == "About all of them."
    assert told == {
        "first": "What it is. More of it.",
        "second": "Both.",
        "third": "See `SECOND`.",
        "fourth": "fourth 0 means none.",
    }


def test_angle_brackets_outside_code_are_no_tags() -> None:
    assert reference._escape_brackets("a <b> `<c>`") == "a &lt;b&gt; `<c>`"
