"""Documents as they arrive: forms of every make, forms made to hold a replica up, names made to deceive a reader."""

from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from pydantic import ValidationError
from starlette.requests import Request

from bulkhead.gateway_api.documents import DocumentListQuery
from bulkhead.gateway_api.query import MAX_PAGE
from bulkhead_contracts import bounds
from bulkhead_services.gateway.http.upload import UploadedDocument, read_document
from bulkhead_services.gateway.problems import Problem

FORM = "multipart/form-data; boundary=b"


def arrives(body: bytes, content_type: str = FORM, **query: str) -> UploadedDocument:
    request = SimpleNamespace(headers={"content-type": content_type}, query_params=query)
    return read_document(cast(Request, request), body)


def part(head: str, data: bytes = b"hello", boundary: str = "b") -> bytes:
    return f"--{boundary}\r\n{head}\r\n\r\n".encode() + data + b"\r\n"


def form(head: str, data: bytes = b"hello") -> bytes:
    return part(head, data) + b"--b--\r\n"


def test_a_form_of_a_real_client_arrives_byte_by_byte() -> None:
    data = b"%PDF\r\n\0\n--b\r\r\n--" + bytes(range(256))
    files = {"f": ('dir/ü "1".pdf', data, "Application/PDF")}
    built = httpx.Request("POST", "http://x/", data={"note": "x"}, files=files)
    found = arrives(built.read(), built.headers["content-type"])
    assert found == UploadedDocument('ü "1".pdf', "application/pdf", data)


@pytest.mark.parametrize(
    ("head", "name"),
    [
        ('Content-Disposition: form-data; name="f"; filename="a.md"', "a.md"),
        ("content-disposition:form-data;name=f;filename=a.md", "a.md"),
        ('Content-Disposition: form-data; name="f"; filename="C:\\docs\\a.md"', "a.md"),
        ('Content-Disposition: form-data; name="f"; filename="../../etc/passwd"', "passwd"),
        ("Content-Disposition: form-data; filename=\"x\"; filename*=UTF-8''gr%C3%BC%C3%9Fe.md", "grüße.md"),
        ('Content-Disposition: form-data; filename="say \\"hi\\".md"', 'say "hi".md'),
    ],
)
def test_the_name_is_the_last_part_of_what_was_said(head: str, name: str) -> None:
    assert arrives(form(head)).name == name


def test_fields_before_the_file_are_passed_over_and_base64_is_undone() -> None:
    body = part('Content-Disposition: form-data; name="note"') + form(
        'Content-Disposition: form-data; filename="a.md"\r\nContent-Transfer-Encoding: base64', b"aGVs\r\nbG8="
    )
    assert arrives(body).data == b"hello"


NAMED = 'Content-Disposition: form-data; filename="a.md"'


@pytest.mark.parametrize(
    ("body", "content_type", "said"),
    [
        (b"", FORM, "cut off"),
        (form(NAMED), "multipart/form-data", "no boundary"),
        (form(NAMED), "multipart/form-data; boundary=other", "cut off"),
        (part(NAMED), FORM, "cut off"),
        (form('Content-Disposition: form-data; name="f"'), FORM, "no file"),
        (form(NAMED + "\r\nContent-Transfer-Encoding: x-uuencode"), FORM, "x-uuencode"),
        (form(NAMED + "\r\nContent-Transfer-Encoding: base64", b"!!"), FORM, "is not"),
        (form(NAMED + "\r\nX: " + "x" * 9000), FORM, "do not end"),
        (part("X: y") * 50 + form(NAMED), FORM, "more than 32"),
    ],
)
def test_a_form_without_a_whole_file_is_refused_with_the_reason(body: bytes, content_type: str, said: str) -> None:
    with pytest.raises(Problem) as raised:
        arrives(body, content_type)
    assert raised.value.body.status == 422 and said in raised.value.body.detail


class Counted(bytes):
    """A body that counts what is looked through in it."""

    looked = 0

    def find(self, *of: Any) -> int:
        begin = of[1] if len(of) > 1 else 0
        found = super().find(*of)
        end = of[2] if len(of) > 2 else len(self)
        type(self).looked += (found if found >= 0 else end) - begin
        return found

    def __radd__(self, other: bytes) -> "Counted":
        return Counted(other + bytes(self))


@pytest.mark.parametrize(
    "body",
    [
        b"".join(b"--b%d\r\nContent-Type: multipart/mixed; boundary=b%d\r\n\r\n" % (at, at + 1) for at in range(5000)),
        b"--b\r\n\r\n\r\n" * 300_000,
        form('Content-Disposition: form-data; name="f"; filename=' + "(" * 100_000),
        b"--b\r\n" * 500_000,
    ],
    ids=["nested", "parts", "comment", "marks"],
)
def test_no_form_holds_the_replica_up(body: bytes) -> None:
    # `email` took from ten seconds to a RecursionError for these: everybody's requests stood still meanwhile.
    for content_type in (FORM, FORM.replace("=b", "=b0"), FORM + "; x=" + "(" * 60_000):
        Counted.looked = 0
        with pytest.raises(Problem) as raised:
            arrives(Counted(body), content_type)
        assert raised.value.body.status == 422
        assert 0 < Counted.looked < 2 * len(body) + 64 * 1024


@pytest.mark.parametrize(
    "name", ["a\x1b[2J.md", "a\x9b2J.md", "a\u2028b.md", "a\u202efdp.exe", "x\u2066y.md", "a\u200bb.md", "", "x" * 300]
)
def test_a_name_that_deceives_who_reads_it_is_refused(name: str) -> None:
    with pytest.raises(Problem) as raised:
        arrives(b"text", "text/plain", name=name)
    assert raised.value.body.status == 422


@pytest.mark.parametrize(
    "name", ["Tarife für Ümläute.md", "スクリーン\u202f3.png", "a'b\"c<d>.md", "../x.md", "👩\u200d🚀.md"]
)
def test_a_name_of_people_is_taken_as_it_is(name: str) -> None:
    assert arrives(b"text", "text/plain", name=name).name == name


@pytest.mark.parametrize("text", ["0", "101", "-1", "x", "", "0000019999999", "000001" + "9" * 5000, "١", "1.0"])
def test_no_spelling_of_a_page_s_size_gets_past_its_bound(text: str) -> None:
    with pytest.raises(ValidationError):
        DocumentListQuery.from_texts({"limit": text})
    assert DocumentListQuery.remedy_of("limit").limit == MAX_PAGE


def test_a_document_of_the_largest_size_fits_a_form() -> None:
    data = b"x" * bounds.MAX_BLOB_BYTES
    assert len(arrives(form(NAMED, data)).data) == bounds.MAX_BLOB_BYTES
