"""A portable history: whole, the same bytes every time, verified on reading, with nobody's authority in it."""

import gzip
import hashlib
import json
import os
import re
import resource
import stat
from dataclasses import replace as change
from pathlib import Path

import jwt
import pytest

from bulkhead.blobs import reference
from bulkhead.bus.port import StoredMessage
from bulkhead.flow.content import LISTED, list_of
from bulkhead.runtime.decider import history as histories
from bulkhead.runtime.decider import history_file
from bulkhead.runtime.decider.history import HistoryContent, HistoryError, at_its_source, collect_history, content_refs
from bulkhead.runtime.decider.history_file import dump_history, load_history, save_history
from bulkhead.runtime.decider.history_secrets import strip_signature
from bulkhead_contracts import envelope
from bulkhead_contracts.approval import ApprovalDecided
from bulkhead_contracts.control import MessageRejected
from bulkhead_contracts.model import ModelCallReplied
from bulkhead_contracts.rating import TaskRated
from bulkhead_contracts.result import REFERENCES
from bulkhead_contracts.task import TaskEnded, TaskRejected, TaskRequested

TEXT = "Zürich\x00 \u2028 [[part]]"
TASK_GRANT = jwt.encode({"grant": {"kind": "task", "task": "t1"}}, "k" * 32)
STEP_GRANT = jwt.encode({"grant": {"kind": "step"}, "parent": TASK_GRANT}, "k" * 32)


def stored(sequence, body, **headers):
    names = {key.replace("_", "-"): value for key, value in headers.items()}
    return StoredMessage(
        "mesh.model_gateway.planner.5.demo.t1.-",
        {"ce-type": "mesh.x.y.v1", "ce-id": f"{sequence}", **names},
        body,
        sequence,
        1_000 + sequence,
    )


REF = reference("model_gateway", TEXT.encode())
PDF = reference("gateway", b"%PDF\xff\xfe")
REPLY = ModelCallReplied(call_id="c", outcome="answered", content=REF, prompt_id="p").encode()


async def gather(*messages, **contents):
    held = {REF.sha256: TEXT.encode(), PDF.sha256: b"%PDF\xff\xfe", **contents}

    async def read(ref):
        return held.get(ref.sha256)

    return await collect_history(messages, read)


async def test_what_a_list_names_is_in_it_too():
    named_alone = reference("doors", b"{}", LISTED, "")
    data = list_of([named_alone])
    ref = reference("doors", data, REFERENCES, "")
    asked = json.dumps({"messages": [ref.model_dump()]}).encode()
    found = await gather(stored(7, asked), **{ref.sha256: data, named_alone.sha256: b"{}"})
    assert found.contents[named_alone.sha256].data == b"{}" and found.contents[ref.sha256].data == data
    unfit = await gather(stored(7, asked), **{ref.sha256: b"[1]"})
    assert unfit.contents.keys() == {ref.sha256}


async def one():
    return await gather(
        stored(7, REPLY, Nats_Stream_Source="INBOX_PLANNER 3 > >", Nats_Msg_Id="secret"),
        stored(8, json.dumps({"list": [{"deep": PDF.model_dump()}]}).encode()),
    )


async def test_every_message_and_every_content_it_names(tmp_path):
    found = await one()
    assert [message.sequence for message in found.messages] == [3, 8], "the place in the inbox, not in the journal"
    assert found.contents[REF.sha256].data == TEXT.encode() and found.contents[PDF.sha256].data == b"%PDF\xff\xfe"
    for name in ("h.jsonl", "h.jsonl.gz"):
        size = save_history(found, tmp_path / name)
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600, "prompts and live grants are in it"
        assert size == (tmp_path / name).stat().st_size
        again = load_history(tmp_path / name)
        assert again == found and again.text_of(REF) == TEXT
    assert (tmp_path / "h.jsonl.gz").read_bytes()[:2] == b"\x1f\x8b"
    assert not list(tmp_path.glob("*.part"))


async def test_a_file_that_cannot_be_written_leaves_nothing_and_what_was_there_stays(tmp_path):
    found, path = await one(), tmp_path / "h.jsonl"
    path.write_text("of before")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))  # As a disk that is full in the middle of it.
    try:
        with pytest.raises(OSError):
            save_history(found, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_text() == "of before" and list(tmp_path.iterdir()) == [path]
    for nothing in (tmp_path, Path("/dev/full")):
        with pytest.raises(OSError):
            save_history(found, nothing)
    assert list(tmp_path.iterdir()) == [path] and not list(tmp_path.parent.glob("*.part"))


async def test_what_is_no_file_is_written_into_and_keeps_its_place(tmp_path):
    """Run as root, a device that a file took the place of would be gone for everybody."""
    found, pipe, link, path = await one(), tmp_path / "pipe", tmp_path / "link", tmp_path / "h.jsonl"
    os.mkfifo(pipe)
    end = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    try:
        save_history(found, pipe)
        assert pipe.is_fifo() and os.read(end, 65_536) == dump_history(found)
    finally:
        os.close(end)
    path.write_text("of before")
    link.symlink_to(path)
    save_history(found, link)
    assert link.is_symlink() and path.read_bytes() == dump_history(found)


async def test_the_same_bytes_for_the_same_history():
    first, second = await one(), await one()
    assert dump_history(first) == dump_history(second) and dump_history(first, compressed=True) == dump_history(
        second, compressed=True
    )
    head = json.loads(dump_history(first).splitlines()[0])
    assert len(head.pop("digest")) == 64
    assert head == {
        "bulkhead_history": 1,
        "tenant": "demo",
        "task": "t1",
        "ended": False,
        "settled": True,
        "messages": 2,
        "contents": 2,
    }
    rows = [json.loads(line) for line in dump_history(first).splitlines()[1:]]
    assert rows[0]["stream"] == "INBOX_PLANNER" and b"secret" not in dump_history(first)


async def test_nobody_gains_authority_by_a_history():
    digest = envelope.grant_digest(STEP_GRANT)
    found = await gather(
        stored(1, b"{}", bulkhead_grant=TASK_GRANT, ce_grantdigest=envelope.grant_digest(TASK_GRANT)),
        stored(2, b"{}", bulkhead_grant=STEP_GRANT, ce_grantdigest=digest),
        stored(3, b"{}", ce_grantdigest=digest),
        stored(4, b"{}", ce_grantdigest="another"),
    )
    raw = dump_history(found).decode()
    for token in (TASK_GRANT, STEP_GRANT):
        assert token.rpartition(".")[2] not in raw
    step = found.messages[1].headers["bulkhead-grant"]
    assert jwt.decode(step, options={"verify_signature": False})["parent"] == strip_signature(TASK_GRANT)
    assert found.messages[2].headers["ce-grantdigest"] == envelope.grant_digest(step), "still names the same grant"
    assert found.messages[3].headers["ce-grantdigest"] == "another"
    assert dump_history(await gather(*found.messages)) == dump_history(found), (
        "exporting what was exported changes nothing"
    )


async def test_vouchers_and_signed_words_of_people_are_left_out():
    asked = TaskRequested(objective="Grüße", voucher=TASK_GRANT)
    word = ApprovalDecided(approval_id="a", token=STEP_GRANT)
    found = await gather(
        stored(1, asked.encode(), ce_type=asked.ce_type()),
        stored(2, word.encode(), ce_type=word.ce_type()),
        stored(3, b"{no json", ce_type=word.ce_type()),
    )
    first, second, third = (one.body for one in found.messages)
    assert first == asked.model_copy(update={"voucher": ""}).encode(), "as if there had been none"
    assert second == word.model_copy(update={"token": strip_signature(STEP_GRANT)}).encode() and third == b"{no json"
    assert dump_history(await gather(*found.messages)) == dump_history(found)


async def test_a_label_stays_blind_and_a_rating_keeps_its_score():
    fields = {"score": "bad", "comment": "too dear", "person": "ann", "role": "approver", "rated_unix_ms": 1}
    rows = [TaskRated(rating_id="r1", kind="label", **fields), TaskRated(rating_id="r2", **fields)]
    found = await gather(*(stored(number, row.encode(), ce_type=row.ce_type()) for number, row in enumerate(rows)))
    label, rating = (TaskRated.model_validate_json(one.body) for one in found.messages)
    assert (label.score, label.role, label.person, label.comment) == ("good", "-", "-", ""), "whatever it was"
    assert (rating.score, rating.person, rating.comment) == ("bad", "-", "")


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "a.bm90IGpzb24.c", "a.W10.c", "." * 9])
def test_what_is_no_token_is_left_out(token):
    assert strip_signature(token) == ""


async def test_what_is_gone_is_said():
    found = await gather(stored(1, REPLY), **{REF.sha256: None})
    assert found.contents[REF.sha256] == HistoryContent(("model_gateway",), None) and found.text_of(REF) is None
    assert b'"gone":true' in dump_history(found)


async def test_bodies_that_nobody_can_read(tmp_path):
    found = await gather(stored(1, b"\xff\xfe\x00"), stored(2, b"[" * 100_000), stored(3, b'{"author": 7}'))
    save_history(found, tmp_path / "h.jsonl")
    assert [one.body[:3] for one in load_history(tmp_path / "h.jsonl").messages] == [b"\xff\xfe\x00", b"[[[", b'{"a']
    assert list(content_refs(b'{"author": "x y", "sha256": 3, "size_bytes": -1}')) == []


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda raw: raw.replace("Z\\u00fcrich", "Basel"), "does not have its digest"),
        (lambda raw: "\n".join(raw.splitlines()[:-1]), "is cut off: it has 2 of 2 messages and 1 of 2 contents"),
        (lambda raw: raw[:-20], "is cut off or damaged in line 5"),
        (lambda raw: raw.replace('"bulkhead_history":1', '"bulkhead_history":9'), "version 9; this program reads 1"),
        (lambda raw: '{"tasks": []}', "is no history"),
        (lambda raw: "", "is no history"),
        (lambda raw: raw.replace('"sequence":3', '"sequence":"x"'), "malformed line"),
        (lambda raw: raw.replace('"headers"', '"heads"'), "malformed line"),
        (lambda raw: raw.splitlines()[0] + "\n[]\n", "is cut off or damaged"),
        (lambda raw: raw.replace('"ended":false', '"ended":true'), "its task has ended; its messages say otherwise"),
        (lambda raw: raw.replace('"ended":false', '"ended":"no"'), "its messages say otherwise"),
        (lambda raw: raw.replace('"ended":false,', ""), "malformed line"),
    ],
)
async def test_a_file_that_is_not_whole_is_refused(tmp_path, spoil, said):
    path = tmp_path / "h.jsonl"
    path.write_text(spoil(dump_history(await one()).decode()))
    with pytest.raises(HistoryError, match=said) as told:
        load_history(path)
    assert told.value.hint


async def test_whatever_is_changed_in_a_file_shows_by_its_digest(tmp_path):
    path, whole = tmp_path / "h.jsonl", dump_history(await one()).decode()
    head, *rows = whole.splitlines()
    for spoilt in (
        whole.replace('"time_unix_ms":1007', '"time_unix_ms":1008'),
        whole.replace("outcome", "income"),
        whole.replace('"settled":true', '"settled":false'),
        "\n".join([head, *reversed(rows)]),
        whole.replace(json.loads(head)["digest"], "0" * 64),
        whole.replace('"digest":"', '"digest":null,"x":"'),
        whole.replace("gateway.planner.5", "gateway.planner.6"),
    ):
        assert spoilt != whole
        path.write_text(spoilt)
        with pytest.raises(HistoryError, match="was changed after it was exported") as told:
            load_history(path)
        assert "export the task again" in told.value.hint
    path.write_bytes(whole.replace("\n", "\r\n").encode())
    assert load_history(path).has_digest, "other ends of lines change nothing"
    old = json.loads(head)
    del old["digest"]
    path.write_text("\n".join([json.dumps(old), *rows]))
    assert load_history(path) == await one() and not load_history(path).has_digest, "as they were written before"


async def test_a_compressed_file_that_is_cut_or_spoilt_is_refused(tmp_path):
    raw, path = dump_history(await one(), compressed=True), tmp_path / "h.jsonl.gz"
    for bad in (raw[:-9], raw[:40] + b"\x00\x00\x00" + raw[43:], raw[:12]):
        path.write_bytes(bad)
        with pytest.raises(HistoryError, match=r"cut off|no history"):
            load_history(path)


async def test_both_ends_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(histories, "MAX_MESSAGES", 1)
    with pytest.raises(HistoryError, match="over 1 messages"):
        await one()
    monkeypatch.setattr(histories, "MAX_MESSAGES", 10)
    monkeypatch.setattr(histories, "MAX_BYTES", len(REPLY) + 10)
    with pytest.raises(HistoryError, match="exceed"):
        await one()
    # As JSON a content of control characters is six times as long: what is written can be read again.
    monkeypatch.setattr(history_file, "MAX_BYTES", 10_000)
    monkeypatch.setattr(histories, "MAX_BYTES", 10_000)
    large = await gather(stored(1, b"\x00" * 2_000))
    with pytest.raises(HistoryError, match="history exceeds"):
        dump_history(large)
    monkeypatch.setattr(history_file, "MAX_BYTES", 1_000)
    bomb = tmp_path / "bomb.jsonl.gz"
    bomb.write_bytes(gzip.compress(b'{"bulkhead_history":1}\n' + b'{"authors":[],"gone":true,"sha256":"0"}\n' * 1_000))
    with pytest.raises(HistoryError, match="larger than any history"):
        load_history(bomb)


async def test_one_content_by_two_authors_stands_once():
    twin = ModelCallReplied(call_id="c", outcome="answered", content=change_author(REF), prompt_id="p").encode()
    found = await gather(stored(1, REPLY), stored(2, twin))
    assert found.contents[REF.sha256].authors == ("model_gateway", "rag")


def change_author(ref):
    return ref.model_copy(update={"author": "rag"})


def test_the_source_of_a_message_is_named_in_any_case():
    sourced = stored(9, b"", **{"nats-stream-source": "INBOX_PLANNER 4 > >"})
    assert at_its_source(sourced).sequence == 4 and at_its_source(stored(9, b"")).sequence == 9


async def test_it_knows_the_end_of_its_task():
    found = await one()
    end = StoredMessage("mesh.planner.gateway.5.demo.t1.-", {"ce-type": TaskEnded.ce_type(), "ce-id": "e"}, b"{}", 1, 1)
    assert not found.ended and change(found, messages=(*found.messages, end)).ended
    assert hashlib.sha256(TEXT.encode()).hexdigest() == REF.sha256


@pytest.mark.parametrize(("kind", "told"), [(TaskRejected, True), (MessageRejected, True), (TaskRequested, False)])
async def test_a_task_that_was_turned_away_is_over(kind, told, tmp_path):
    request = StoredMessage(
        "mesh.gateway.gateway.5.demo.t1.-", {"ce-type": TaskRequested.ce_type(), "ce-id": "r"}, b"{}", 1, 1
    )
    answer = StoredMessage("mesh.gateway.gateway.5.demo.t1.-", {"ce-type": kind.ce_type(), "ce-id": "a"}, b"{}", 2, 2)
    found = await gather(request, answer)
    assert (found.ended, found.turned_away) == (told, told)
    save_history(found, tmp_path / "new.jsonl")
    assert load_history(tmp_path / "new.jsonl") == found
    if told:  # Files of before say that it has not ended.
        old = re.sub('"digest":"[^"]*",', "", (tmp_path / "new.jsonl").read_text()).replace(
            '"ended":true', '"ended":false'
        )
        (tmp_path / "old.jsonl").write_text(old)
        assert load_history(tmp_path / "old.jsonl") == found


async def test_a_message_that_nobody_could_read_ends_no_task_that_runs():
    found = await one()
    lost = StoredMessage(
        "mesh.gateway.gateway.5.demo.t1.-", {"ce-type": MessageRejected.ce_type(), "ce-id": "m"}, b"{}", 9, 9
    )
    assert not change(found, messages=(*found.messages, lost)).ended
