"""Places: one spelling each, folders of what is written, and how much a label tells."""

import pytest

from bulkhead.policy.attribution import SourceText, shown_sources
from bulkhead.policy.places import carried_sources, named_places, written_places
from tests.unit.policy.proposals import COUNT, MAIL, PAY, READ, TEXT, tool

WRITE = tool("write_file", {"path": TEXT, "content": TEXT}, effect="write", sinks={"path": "path"})
SPELLINGS = ("staff/r3.txt", "./staff/r3.txt", "/staff//r3.txt", "Staff/x/../R3.txt", "staff%2Fr3.txt", "staff\\r3.txt")


@pytest.mark.parametrize("path", SPELLINGS)
def test_a_place_is_one_in_all_its_spellings(path: str) -> None:
    assert written_places(WRITE, {"path": path, "content": "x"})[0] == "staff/r3.txt"
    assert "staff/r3.txt" in named_places({"id": "7", "file": {"path": path}})


def test_a_folder_is_a_place_of_all_that_is_written_below_it() -> None:
    places = written_places(WRITE, {"path": "a/b/c.txt", "content": "secret/d.txt"})
    assert places == ("a/b/c.txt", "a/b", "a")
    assert written_places(WRITE, {"path": "../..", "content": ""}) == ("../..",)


def test_recipients_accounts_and_texts_are_no_places_and_reads_write_none() -> None:
    assert written_places(MAIL, {"to": "a@b.example", "body": "x/y"}) == ()
    assert written_places(PAY, {"iban": "DE89370400440532013000", "amount": 5}) == ()
    assert written_places(READ, {"name": "a/b"}) == ()
    assert written_places(COUNT, {"name": "kept", "by": 2}) == ("kept", "2"), "a write that declares no sinks"


def test_a_label_tells_documents_and_tools_and_that_there_are_more() -> None:
    assert carried_sources(("user", "model", "tool:b", "retrieved:a")) == ("retrieved:a", "tool:b")
    assert carried_sources(("user",)) == ()
    assert carried_sources([f"tool:{number}" for number in range(9)]) == ("unknown",)
    assert carried_sources(("tool:" + "x" * 600,)) == ("unknown",)


def test_what_a_text_carries_counts_as_shown() -> None:
    texts = (SourceText("t", "user", "1" * 64), SourceText("r", "tool", "2" * 64, "read_file", carries=("tool:pay",)))
    assert shown_sources(texts) == ("tool:pay", "tool:read_file", "user")
    unknown = SourceText("r", "tool", "2" * 64, "read_file", carries=("unknown",))
    assert shown_sources((unknown,)) == ("unknown", "tool:read_file")
