"""Honest runs that look like loops, each with a looping twin in `loops_twins`.

In: a random generator. Out: traces. Figures that change by themselves, words that come back because something else has
changed, counting that arrives, refusals that end, and work of which an agent sees only its own part.
"""

from random import Random

from tests.health_set.runs import coined_words as words
from tests.health_set.runs.traces import Trace
from tests.health_set.sets import TWINS


@TWINS.honest(12, "a titration: half a millilitre, then a reading that hardly moves, until the jump")
def titration(trace: Trace, rng: Random) -> None:
    acid = 3.1
    while acid < 7:
        trace.call("lab", "add", {"ml": 0.5}, "added")
        trace.call("lab", "read_ph", {}, f"{acid:.2f} pH")
        acid += rng.choice((0.02, 0.05, 0.1, 0.2)) if acid < 5 else 1.2
    trace.say("lab", words.tell(rng))


@TWINS.honest(12, "a vessel warms up: the thermometer is read, and only degrees change")
def warming(trace: Trace, rng: Random) -> None:
    warm = rng.randint(15, 40)
    trace.call("cook", "heat", {"on": True}, "on")
    while warm < 95:
        trace.call("cook", "thermometer", {"vessel": 1}, f"{warm} °C", pause=rng.uniform(4, 25))
        warm += rng.randint(0, 9)
    trace.call("cook", "heat", {"on": False}, "off")


@TWINS.honest(12, "folders deleted one by one, silently; the disk is looked at after each and empties slowly")
def making_room(trace: Trace, rng: Random) -> None:
    used = rng.uniform(90, 99)
    for _ in range(rng.randint(8, 20)):
        trace.call("janitor", "sh", {"cmd": f"rm -r /var/cache/{words.noun(rng)}"}, "")
        trace.call("janitor", "sh", {"cmd": "df -h /var | tail -1"}, f"/dev/vdb 200G {int(used * 2)}G {used:.0f}% /var")
        used -= rng.choice((0.1, 0.4, 1.1, 3.0))


@TWINS.honest(12, "a price watched every few seconds until it falls below a mark; it often stands still")
def price_watch(trace: Trace, rng: Random) -> None:
    cents, mark = rng.randint(9_000, 9_900), words.noun(rng).upper()
    for _ in range(rng.randint(12, 35)):
        trace.call(
            "trader",
            "quote",
            {"symbol": mark},
            {"bid": cents / 100, "ask": (cents + 3) / 100, "at": words.stamp(trace.now_s)},
            pause=rng.uniform(3, 8),
        )
        cents += rng.choice((-9, -4, -1, 0, 0, 2, 5))
    trace.call("trader", "buy", {"symbol": mark, "limit": cents / 100}, {"order": words.uuid(rng)})


@TWINS.honest(14, "proposals adopted one by one, each after a thumb, an `ok` or an `agreed` of everybody")
def thumbs(trace: Trace, rng: Random) -> None:
    crew = [words.name(rng) for _ in range(rng.randint(2, 4))]
    sign = rng.choice(("👍", "ok", "agreed", "fine with me", "yes"))
    for number in range(rng.randint(5, 10)):
        trace.say("chair", f"Proposal {number + 1}: {words.said(rng)}", "all")
        for person in crew:
            trace.say(person, sign, "chair")
        trace.call("chair", "adopt", {"proposal": number + 1}, "adopted")


@TWINS.honest(14, "a line: one assembles, one inspects (no arguments, always `pass`), one packs, part after part")
def quality_gate(trace: Trace, rng: Random) -> None:
    for _ in range(rng.randint(8, 18)):
        serial = words.token(rng, 7)
        trace.call("assembler", "assemble", {"kit": words.noun(rng)}, {"serial": serial})
        trace.call("inspector", "inspect_next", {}, "pass")
        trace.call("packer", "pack", {"serial": serial}, "packed")


@TWINS.honest(12, "a moderator who calls `next` without arguments; everybody says something new in turn")
def moderated(trace: Trace, rng: Random) -> None:
    crew = [words.name(rng) for _ in range(rng.randint(2, 5))]
    for number in range(rng.randint(8, 16)):
        trace.call("moderator", "next", {}, {"ok": True})
        person = crew[number % len(crew)]
        trace.call(person, "notes", {"about": words.noun(rng)}, words.said(rng))
        trace.say(person, words.tell(rng, 1, 3), "all")


@TWINS.honest(12, "two agents that yield to each other after every piece of work, by a call without arguments")
def yielding(trace: Trace, rng: Random) -> None:
    for number in range(rng.randint(10, 22)):
        one = ("upper", "lower")[number % 2]
        trace.call(one, "write_row", {"row": number, "text": words.said(rng)}, "ok")
        trace.call(one, "yield_turn", {}, "yielded")


@TWINS.honest(12, "a writer commits, a hook of somebody else's checks: `OK` each time, for other changes")
def commit_gate(trace: Trace, rng: Random) -> None:
    for _ in range(rng.randint(5, 14)):
        trace.call("writer", "commit", {"patch": words.tell(rng)}, {"commit": words.hexa(rng, 40)})
        trace.call("hook", "make", {"target": "check"}, "OK")
        if rng.random() < 0.4:
            trace.say("hook", "Green.", "writer")


@TWINS.honest(12, "bookings matched one by one: nearly none has a match, each is put on the list")
def reconciling(trace: Trace, rng: Random) -> None:
    for number in range(rng.randint(12, 30)):
        booking = {"amount": round(rng.uniform(1, 9000), 2), "day": f"2026-10-{rng.randint(1, 28):02d}"}
        trace.call(
            "clerk", "find_match", booking, "no match" if rng.random() < 0.85 else f"invoice {words.token(rng, 6)}"
        )
        trace.call("clerk", "to_list", {"line": number}, "listed")


@TWINS.honest(12, "addresses probed in order: closed, closed, closed, one open, to the end of the block")
def probing(trace: Trace, rng: Random) -> None:
    block = f"192.0.2.{rng.choice((0, 64, 128))}"
    first = int(block.rsplit(".", 1)[1])
    for host in range(first, first + rng.randint(16, 40)):
        trace.call(
            "scanner", "probe", {"ip": f"192.0.2.{host}", "port": 443}, "open" if rng.random() < 0.15 else "closed"
        )
    trace.say("scanner", words.tell(rng))


@TWINS.honest(10, "an archive gone through backwards, day by day: closed on some days, a page on the others")
def days_backwards(trace: Trace, rng: Random) -> None:
    for day in range(rng.randint(15, 28), 0, -1):
        trace.call(
            "archivist",
            "page_of",
            {"date": f"1931-03-{day:02d}"},
            "no issue" if rng.random() < 0.5 else words.tell(rng),
        )


@TWINS.honest(12, "a limit of rate that says how long to wait, and is heeded; item after item goes through", timed=1)
def told_to_wait(trace: Trace, rng: Random) -> None:
    for _ in range(rng.randint(5, 12)):
        item = {"title": words.said(rng)}
        for _ in range(rng.choice((0, 0, 1, 2, 3))):
            trace.call("poster", "publish", item, error="429 Too Many Requests: retry after 5 s", pause=1)
            trace.wait(5)
        trace.call("poster", "publish", item, {"id": words.hexa(rng)}, pause=1)


@TWINS.honest(12, "documents that others change, too: conflict, read, conflict, read, stored")
def conflicts(trace: Trace, rng: Random) -> None:
    for _ in range(rng.randint(3, 7)):
        name, version = words.noun(rng), rng.randint(2, 90)
        for _ in range(rng.randint(0, 3)):
            trace.call(
                "editor",
                "store",
                {"name": name, "version": version, "text": words.said(rng)},
                error=f"409 conflict: version is {version + 1} by now",
            )
            version += 1
            trace.call("editor", "load", {"name": name}, {"version": version, "text": words.tell(rng)})
        trace.call("editor", "store", {"name": name, "version": version, "text": words.said(rng)}, {"stored": True})


@TWINS.honest(12, "a German job: `läuft noch`, with pauses that grow, then `fertig`", timed=1)
def auf_deutsch_warten(trace: Trace, rng: Random) -> None:
    pause = rng.uniform(4, 12)
    trace.call("bote", "starte", {"auftrag": words.noun(rng)}, {"nummer": 17})
    for _ in range(rng.randint(5, 10)):
        trace.call("bote", "stand", {"nummer": 17}, {"stand": "läuft noch"}, pause=pause)
        pause *= rng.uniform(1.4, 2)
    trace.call("bote", "stand", {"nummer": 17}, {"stand": "fertig"}, pause=pause)


@TWINS.honest(12, "a text adventure: few commands, rooms that come back, things that do not")
def adventure(trace: Trace, rng: Random) -> None:
    rooms = [words.tell(rng) for _ in range(5)]
    at, things = 0, [words.noun(rng) for _ in range(12)]
    for _ in range(rng.randint(12, 30)):
        if things and rng.random() < 0.4:
            trace.call("player", "do", {"command": f"take {things.pop()}"}, "Taken.")
        else:
            at = (at + rng.choice((1, 1, 2))) % 5
            trace.call(
                "player",
                "do",
                {"command": rng.choice(("go north", "go east", "go down"))},
                f"{rooms[at]} You carry {12 - len(things)} things.",
            )


@TWINS.honest(12, "a coordinator and many workers: `next batch`, a batch worked off, `done`, round after round")
def star(trace: Trace, rng: Random) -> None:
    size, batch = rng.randint(4, 10), rng.randint(100, 900)
    for _ in range(rng.randint(2, 4)):
        for number in range(size):
            trace.say("coordinator", "next batch", f"w{number}")
            trace.call(f"w{number}", "process", {"batch": batch}, {"rows": rng.randint(900, 1100)})
            trace.say(f"w{number}", "done", "coordinator")
            batch += 1


@TWINS.honest(12, "a stubborn test: five to seven different changes, red each time, then green")
def red_red_green(trace: Trace, rng: Random) -> None:
    red = "--- FAIL: TestFold\n    want 4, got 3\nFAIL"
    for _ in range(rng.randint(5, 7)):
        trace.call("gopher", "patch", {"file": f"{words.noun(rng)}.go", "text": words.said(rng)}, "patched")
        trace.call("gopher", "sh", {"cmd": "go test ./..."}, error=red)
    trace.call("gopher", "patch", {"file": "fold.go", "text": words.said(rng)}, "patched")
    trace.call("gopher", "sh", {"cmd": "go test ./..."}, "ok")


@TWINS.honest(12, "a regulator tuned up and down: settings come back, measurements differ")
def tuning(trace: Trace, rng: Random) -> None:
    gain = rng.randint(3, 9)
    for _ in range(rng.randint(8, 16)):
        trace.call("tuner", "set_gain", {"gain": gain}, "set")
        trace.call("tuner", "measure", {}, {"overshoot": round(abs(gain - 6) * 0.1 + rng.uniform(0.01, 0.09), 3)})
        gain = max(1, gain + rng.choice((-2, -1, 1, 2)))


@TWINS.honest(10, "a menu walked down key by key: the screen differs in which line is marked")
def menu(trace: Trace, rng: Random) -> None:
    lines = [words.noun(rng) for _ in range(rng.randint(8, 18))]
    for at in range(len(lines)):
        shown = "\n".join(("> " if number == at else "  ") + line for number, line in enumerate(lines))
        trace.call("hands", "key", {"press": "down"}, shown)
    trace.call("hands", "key", {"press": "enter"}, words.tell(rng))


@TWINS.honest(12, "versions of a draft, numbered, each revised in several places after a remark")
def versions(trace: Trace, rng: Random) -> None:
    text = [words.said(rng) for _ in range(9)]
    for number in range(1, rng.randint(6, 12)):
        trace.call("author", "save", {"name": f"draft_v{number}.md", "text": " ".join(text)}, "saved")
        trace.say("reader", words.said(rng), "author")
        for at in rng.sample(range(9), 5):
            text[at] = words.said(rng)


@TWINS.honest(10, "clauses asked for in nearly the same words; each answer has one clause of its own")
def clauses(trace: Trace, rng: Random) -> None:
    body, thing = words.tell(rng, 4, 5), words.noun(rng)
    for part in ("rent", "deposit", "notice", "repairs", "keys", "pets", "noise", "heating", "garden"):
        question = f"What does the contract about the {thing} say of {part}, for those who moved in before the reform?"
        trace.call("lawyer", "ask_contract", {"question": question}, f"{body} {words.said(rng)}")


@TWINS.honest(10, "files fetched by signed addresses: one signature and one download each")
def signed_downloads(trace: Trace, rng: Random) -> None:
    for _ in range(rng.randint(7, 18)):
        url = f"https://files.example/{words.noun(rng)}.zip?X-Signature={words.hexa(rng, 64)}"
        trace.call("fetcher", "sign_url", {"file": url.split("/")[3].split("?")[0]}, {"url": url})
        trace.call("fetcher", "download", {"url": url}, {"bytes": rng.randint(1000, 10**7), "saved": True})


@TWINS.honest(10, "a token that runs out now and then: refused once, renewed, the call goes through")
def renewed_tokens(trace: Trace, rng: Random) -> None:
    fresh = words.token(rng, 40)
    for page in range(rng.randint(8, 20)):
        if rng.random() < 0.35:
            trace.call(
                "client",
                "get_orders",
                {"page": page, "bearer": fresh},
                error={"status": 401, "error": "token_expired", "trace": words.hexa(rng, 32)},
            )
            fresh = words.token(rng, 40)
            trace.call("client", "renew_token", {}, {"token": fresh})
        trace.call("client", "get_orders", {"page": page, "bearer": fresh}, [words.noun(rng) for _ in range(3)])


@TWINS.honest(10, "a baton carried round with work at each hand: the same words, another piece")
def baton_with_work(trace: Trace, rng: Random) -> None:
    crew = [words.name(rng) for _ in range(rng.randint(3, 5))]
    for number in range(len(crew) * rng.randint(3, 5)):
        one, other = crew[number % len(crew)], crew[(number + 1) % len(crew)]
        trace.call(one, "take_baton", {"nonce": words.hexa(rng)}, {"holder": one})
        trace.call(one, "carve", {"piece": words.noun(rng)}, words.said(rng))
        trace.say(one, "Your turn.", other)
