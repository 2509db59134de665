"""Lists of references: written once, read with every bound."""

import pytest

from bulkhead.flow.content import LISTED, in_list, list_of, reference
from bulkhead_contracts import bounds
from bulkhead_contracts.result import REFERENCES

REFS = [reference("doors", f"{number}".encode() * 9, LISTED, "") for number in range(bounds.LISTED_REFERENCES)]


def test_a_full_list_is_read_as_it_was_written():
    data = list_of(REFS)
    ref = reference("doors", data, REFERENCES, "")
    assert in_list(ref, data) == tuple(REFS) and len(data) <= bounds.MAX_LIST_BYTES


@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        b"[1]",
        b'["ab"]',
        b'[["x", 1]]',
        b'[["' + b"0" * 64 + b'", -1]]',
        b'[["' + b"0" * 64 + b'", 1, 2]]',
        b"[" * 100,
        b"\xff",
        b"[" + b",".join([b'["%s", 1]' % (b"0" * 64)] * 33) + b"]",
        b" " * bounds.MAX_LIST_BYTES + b"[]",
    ],
)
def test_what_is_no_list_is_refused(data):
    with pytest.raises(ValueError):
        in_list(reference("doors", data, REFERENCES, ""), data)


def test_a_content_of_another_type_is_no_list():
    with pytest.raises(ValueError, match="no list"):
        in_list(reference("doors", b"[]", LISTED, ""), b"[]")
