"""Search by meaning over a real HTTP endpoint: hybrid results, money, and every way to fail, never silently."""

import json
import math
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pydantic import ValidationError

from bulkhead.runtime.errors import JobRefused
from bulkhead_services.rag.settings import Settings

MEANINGS = {"car": 0, "automobile": 0, "vehicle": 0, "fee": 1, "charge": 1, "cost": 1, "dog": 2, "puppy": 2}


class Endpoint:
    """OpenAI-compatible /embeddings: words of one meaning share a direction."""

    def __init__(self) -> None:
        self.mode, self.usage, self.status = "ok", None, 200
        self.calls = self.texts = 0
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None: ...

            def do_POST(self) -> None:
                endpoint.calls += 1
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                if endpoint.mode == "drop":
                    self.close_connection = True
                    return
                endpoint.texts += len(body["input"])
                status, answer = endpoint.answer(body["input"])
                raw = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def answer(self, texts: list[str]) -> tuple[int, object]:
        if self.mode == "500":
            return 500, {"error": "no"}
        if self.mode == "error_body":
            return 200, {"error": {"message": "overloaded"}}
        data = [{"index": i, "embedding": self.vector(text)} for i, text in enumerate(texts)]
        if self.mode == "nan":
            data[0]["embedding"][0] = math.nan
        if self.mode == "short":
            data.pop()
        usage = {} if self.mode == "no_usage" else {"usage": self.usage or {"prompt_tokens": 7 * len(texts)}}
        return self.status, {"data": data[::-1], **usage}

    @staticmethod
    def vector(text: str) -> list[float]:
        found = [0.01, 0.01, 0.01]
        for word in text.lower().replace(".", "").split():
            if word in MEANINGS:
                found[MEANINGS[word]] += 1.0
        return found


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    found = Endpoint()
    yield found
    found.server.shutdown()
    found.server.server_close()


@pytest.fixture
def hybrid(make_desk, endpoint):
    return make_desk(embeddings_url=endpoint.url, embeddings_price_usd_micros_per_mtok=1_000_000)


async def test_meaning_finds_what_words_do_not(hybrid, endpoint) -> None:
    await hybrid.ingest("a.md", "An automobile may be parked here.")
    await hybrid.ingest("b.md", "Every puppy needs a leash.")
    reply = await hybrid.search("car")
    assert reply.passages[0].citation.document == "a.md"
    assert (reply.standing, reply.completeness.complete) == ("ok", True)
    assert (reply.usage.input_tokens, reply.usage.cost_usd_micros, reply.usage.retrievals) == (7, 7, 1)
    (held,) = hybrid.reservations
    assert hybrid.reserved[-1] == ("c1", 0, "retrieval", 3)
    assert held.settled.usage.cost_usd_micros == 7 and not held.settled.estimated


@pytest.mark.parametrize("mode", ["500", "error_body", "nan", "short", "drop"])
async def test_a_failing_endpoint_degrades_and_says_so(hybrid, endpoint, mode: str) -> None:
    await hybrid.ingest("a.md", "An automobile may be parked here.")
    endpoint.mode = mode
    reply = await hybrid.search("automobile")
    assert reply.passages[0].citation.document == "a.md"
    assert reply.standing == "degraded" and "embeddings endpoint" in reply.standing_reason
    assert [o.reason for o in reply.completeness.omissions] == ["failed_part"]


async def test_an_endpoint_that_is_down_costs_nothing(hybrid, endpoint) -> None:
    await hybrid.ingest("a.md", "An automobile.")
    endpoint.server.shutdown()
    endpoint.server.server_close()
    reply = await hybrid.search("automobile")
    assert reply.standing == "degraded"
    assert hybrid.reservations[0].settled.usage.cost_usd_micros == 0


async def test_missing_usage_is_charged_in_full(hybrid, endpoint) -> None:
    endpoint.mode = "no_usage"
    await hybrid.ingest("a.md", "An automobile.")
    assert hybrid.reservations[0].settled.estimated
    assert hybrid.reservations[0].settled.usage.cost_usd_micros == len("An automobile.")


@pytest.mark.parametrize(
    ("status", "usage", "charged"),
    [
        (200, {"prompt_tokens": 0}, 14),
        (200, {"prompt_tokens": True}, 14),
        (200, {"prompt_tokens": 7, "total_tokens": "9000"}, 9_000),
        (200, {"prompt_tokens": 2 * 10**10}, 10**10),
        (400, {"total_tokens": 9}, 9),
        (202, {"total_tokens": 0}, 14),
        (504, {"total_tokens": 0}, 14),
        (500, {"total_tokens": 0}, 0),
    ],
)
async def test_figures_of_vectors_are_charged_as_those_of_a_model(hybrid, endpoint, status, usage, charged) -> None:
    endpoint.status, endpoint.usage = status, usage
    await hybrid.ingest("a.md", "An automobile.")
    (reservation,) = hybrid.reservations
    assert reservation.settled.usage.input_tokens == reservation.settled.usage.cost_usd_micros == charged


async def test_vectors_lost_at_ingest_are_told_and_made_up_for(hybrid, endpoint) -> None:
    endpoint.mode = "500"
    first = await hybrid.ingest("a.md", "An automobile may be parked here.")
    assert first.outcome == "ingested" and "words alone" in first.detail
    endpoint.mode = "ok"
    reply = await hybrid.search("car")
    assert reply.standing == "degraded" and "no vectors" in reply.standing_reason
    again = await hybrid.ingest("a.md", "An automobile may be parked here.", task="again")
    assert (again.outcome, again.detail) == ("unchanged", "")
    reply = await hybrid.search("car")
    assert reply.standing == "ok" and reply.passages[0].citation.document == "a.md"


async def test_no_money_no_vectors(hybrid, endpoint) -> None:
    hybrid.refuse_money = True
    taken = await hybrid.ingest("a.md", "An automobile.")
    assert taken.outcome == "ingested" and "no money" in taken.detail
    with pytest.raises(JobRefused):
        await hybrid.search("automobile")
    assert endpoint.calls == 0


async def test_more_vectors_than_are_scanned_is_told(make_desk, endpoint) -> None:
    desk = make_desk(embeddings_url=endpoint.url, embeddings_price_usd_micros_per_mtok=0, vector_scan_limit=1)
    await desk.ingest("a.md", "An automobile.")
    await desk.ingest("b.md", "A vehicle.")
    reply = await desk.search("automobile")
    assert reply.standing == "degraded" and "exceed" in reply.standing_reason


async def test_nothing_is_embedded_twice(hybrid, endpoint) -> None:
    text = "# Parking\n\nAn automobile may be parked here.\n\n# Dogs\n\nEvery puppy needs a leash.\n"
    await hybrid.ingest("a.md", text)
    before = endpoint.texts
    again = await hybrid.ingest("a.md", text, task="again")
    copy = await hybrid.ingest("copy.md", text, task="copy")
    assert (again.outcome, copy.outcome, copy.detail) == ("unchanged", "ingested", "")
    assert endpoint.texts == before and not hybrid.reservations, "a copy under another name costs nothing"
    await hybrid.ingest("a.md", "Another text. A fee is due.", task="b")
    between = endpoint.texts
    assert (await hybrid.ingest("a.md", text, task="back")).outcome == "ingested"
    assert endpoint.texts == between > before, "a version that comes back has its vectors still"
    reply = await hybrid.search("car")
    assert reply.standing == "ok" and reply.passages


async def test_a_query_that_was_asked_before_is_not_embedded_again(hybrid, endpoint) -> None:
    await hybrid.ingest("a.md", "An automobile may be parked here.")
    first, calls = await hybrid.search("car"), endpoint.calls
    second = await hybrid.search("car")
    assert endpoint.calls == calls and second.usage.cost_usd_micros == 0 < first.usage.cost_usd_micros
    assert [p.content for p in second.passages] == [p.content for p in first.passages] and second.standing == "ok"


async def test_vectors_of_an_erased_document_are_forgotten(hybrid, endpoint) -> None:
    await hybrid.ingest("a.md", "An automobile may be parked here.")
    assert await hybrid.library.delete_document("acme", "default", "a.md") == 1
    before = endpoint.texts
    await hybrid.ingest("b.md", "An automobile may be parked here.", task="b")
    assert endpoint.texts > before


def test_an_unpriced_endpoint_is_refused_at_start() -> None:
    with pytest.raises(ValidationError, match="PRICE"):
        Settings(embeddings_url="http://127.0.0.1:1/v1")
