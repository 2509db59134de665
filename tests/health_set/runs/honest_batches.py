"""Honest runs: many similar items, pages, chunks, sweeps. In: a random generator. Out: traces."""

from random import Random

from tests.health_set.runs import words
from tests.health_set.runs.traces import Trace
from tests.health_set.sets import DAILY


@DAILY.honest(30, "pages by number, by offset or by an opaque cursor", timed=0.7)
def paging(trace: Trace, rng: Random) -> None:
    way = rng.choice(("page", "offset", "cursor", "none"))
    cursor, filters = None, {"status": "open", "place": rng.choice(words.PLACES)}
    for page in range(rng.randint(6, 25)):
        items = [{"id": rng.randrange(10**7), "title": words.sentence(rng)[:60]} for _ in range(rng.randint(2, 4))]
        where = {
            "page": {"page": page + 1},
            "offset": {"offset": page * 50, "limit": 50},
            "cursor": {"cursor": cursor} if cursor else {},
            "none": {},
        }[way]
        cursor = words.token(rng)
        trace.call("lister", rng.choice(("list_orders",)), filters | where, {"items": items, "next": cursor})
    trace.say("lister", words.paragraph(rng))


@DAILY.honest(30, "one short write per row of a table, every one answered with the same ok")
def batch_of_rows(trace: Trace, rng: Random) -> None:
    action, key, first = rng.choice(
        (
            ("delete_row", "row", rng.randint(1, 900)),
            ("close_ticket", "ticket_id", rng.randint(4000, 9000)),
            ("archive_order", "order", rng.randint(100000, 900000)),
            ("approve_leave", "request", rng.randint(1, 99)),
            ("mark_paid", "invoice_no", rng.randint(2000, 8000)),
        )
    )
    answer = rng.choice(({"status": "ok"}, "ok", {"updated": 1}, "done", ""))
    for number in range(rng.randint(20, 60)):
        trace.call("clerk", action, {key: first + number * rng.choice((1, 1, 3)) if number else first}, answer)


@DAILY.honest(25, "chunks uploaded one after the other, acknowledged alike")
def uploading(trace: Trace, rng: Random) -> None:
    upload, size = words.uuid(rng), rng.choice((65536, 1048576, 5242880))
    trace.call("uploader", "start_upload", {"name": "video.mp4"}, {"upload_id": upload})
    for number in range(rng.randint(12, 40)):
        arguments = {"upload_id": upload, "offset": number * size, "data": f"<{size} bytes>"}
        if rng.random() < 0.5:
            arguments["data"] = words.token(rng, 60)
        trace.call("uploader", "put_chunk", arguments, {"ok": True}, pause=rng.uniform(0.2, 1.5))
    trace.call("uploader", "finish_upload", {"upload_id": upload}, {"etag": words.digest(rng)[:32]})


@DAILY.honest(25, "a number guessed by halving; the answer is one of two words", timed=0.5)
def guessing(trace: Trace, rng: Random) -> None:
    low, high, secret = 1, 4096, rng.randint(1, 4096)
    while low < high:
        middle = (low + high) // 2
        trace.call("player", "guess", {"number": middle}, "higher" if secret > middle else "lower or equal")
        low, high = (middle + 1, high) if secret > middle else (low, middle)
    trace.call("player", "guess", {"number": low}, "correct")


@DAILY.honest(30, "a search refined until something is found, the first tries empty")
def search_refinement(trace: Trace, rng: Random) -> None:
    topic = words.query(rng)
    for _ in range(rng.randint(2, 4)):
        tried = rng.choice(
            (
                f"{topic} {rng.choice(words.FIELDS)}",
                f'"{topic}"',
                f"{topic} site:example.org",
                f"{rng.choice(words.VERBS)} {topic}",
                " ".join(topic.split()[::-1]),
            )
        )
        trace.call("searcher", "web_search", {"q": tried}, rng.choice(("no results", [], {"hits": 0})))
    for _ in range(rng.randint(2, 6)):
        hits = [{"url": f"https://example.org/{words.token(rng, 9)}", "snippet": words.sentence(rng)} for _ in range(3)]
        trace.call("searcher", "web_search", {"q": f"{words.query(rng)}"}, hits)
        trace.call("searcher", "open_url", {"url": hits[0]["url"]}, words.paragraph(rng, 4, 8))
    trace.say("searcher", words.paragraph(rng))


@DAILY.honest(25, "many siblings that first read the same guide and then do a part each", timed=0.7)
def fan_out(trace: Trace, rng: Random) -> None:
    guide, asked = words.document(rng), rng.random() < 0.5
    parts = rng.randint(8, 40)
    for number in range(parts):
        trace.say("planner", f"Summarise chapter {number + 1} after the guide.", f"mapper-{number}", pause=0.01)
    order = [f"mapper-{number}" for number in range(parts)]
    rng.shuffle(order)
    for name in order:
        trace.call(name, "read_file", {"path": "guide.md"}, guide, pause=rng.uniform(0.05, 0.4))
    rng.shuffle(order)
    for name in order:
        part = {"path": f"chapters/{name.removeprefix('mapper-')}.md"}
        trace.call(name, "read_file", part, words.document(rng), pause=rng.uniform(0.05, 0.8))
        if asked:
            trace.call(name, "quota", {}, "ok", pause=0.1)
        trace.say(name, words.paragraph(rng), "planner", pause=rng.uniform(0.1, 2))
    trace.say("planner", words.paragraph(rng))


@DAILY.honest(20, "several samples of one question in one turn, to vote on them", timed=1)
def self_consistency(trace: Trace, rng: Random) -> None:
    for _ in range(rng.randint(2, 5)):
        question, answer, asked = words.sentence(rng), rng.choice(("42", "yes", "3.5 km")), round(trace.now_s, 3)
        for _ in range(rng.randint(3, 7)):
            trace.call(
                "solver",
                "ask_model",
                {"prompt": question, "temperature": 0.9},
                answer if rng.random() < 0.8 else words.sentence(rng),
                pause=rng.uniform(0.2, 1),
                since=asked,
            )
        trace.call("solver", "note", {"text": words.sentence(rng)}, "noted")
