"""The sixth set, part two: honest runs of machines: incidents, pipelines, builds, crawls, migrations, robots and games.

In: a random generator. Out: traces. All of them repeat themselves, because the work does, and all of them get on.
"""

from random import Random

from tests.health_set import sixth_words as words
from tests.health_set.sets import SIXTH
from tests.health_set.sixth_words import Session, session


@SIXTH.honest(11, "an incident is mended; the error rate is then watched for half an hour until it stays low")
def watch_after_fix(rng: Random) -> Session:
    trace, service = session(rng, untimed=0), rng.choice(words.SERVICES)
    words.prelude(trace, "sre", 2, 4)
    trace.call("sre", "kubectl", {"args": f"rollout undo deploy/{service}"}, f"deployment.apps/{service} rolled back")
    rate = rng.uniform(9, 30)
    while rate > 0.4:
        rate *= rng.uniform(0.45, 0.95)
        trace.call(
            "sre", "prom_query", {"q": f"error_rate{{svc='{service}'}}"}, f"{rate:.1f}", pause=rng.choice((60, 120))
        )
    for _ in range(rng.randint(3, 6)):
        trace.call(
            "sre",
            "prom_query",
            {"q": f"error_rate{{svc='{service}'}}"},
            f"{rng.choice((0.1, 0.2, 0.2, 0.3))}",
            pause=300,
        )
    trace.call("sre", "pagerduty.resolve", {"incident": rng.randrange(9000)}, "resolved")
    trace.say("sre", f"Resolved: {words.sentence(rng)}", "channel")
    return trace.ends()


@SIXTH.honest(11, "a release in five steps of traffic, each step checked by the same three calls with the same answers")
def canary_ladder(rng: Random) -> Session:
    trace, service = session(rng), rng.choice(words.SERVICES)
    for percent in (1, 5, 10, 25, 50, 100):
        trace.call(
            "release-bot", "set_traffic", {"service": service, "canary_percent": percent}, {"ok": True}, pause=20
        )
        if trace.timed:
            trace.wait(rng.choice((300, 600)))
        trace.call("release-bot", "check_slo", {"service": service, "window": "5m"}, "no regression")
        trace.call("release-bot", "check_alerts", {"service": service}, [])
        if percent > 10 and rng.random() < 0.4:
            trace.call("release-bot", "check_slo", {"service": service, "window": "30m"}, "no regression")
    trace.say("release-bot", f"{service} is out at 100 percent.", "channel")
    return trace.ends()


@SIXTH.honest(11, "checks of a warehouse, table by table: the same four, nearly all of them answer with nothing wrong")
def table_checks(rng: Random) -> Session:
    trace = session(rng)
    for name in words.several(rng, words.MODULES, 7, 11):
        table = f"mart.{name}_daily"
        for check in ("row_count_positive", "no_null_keys", "unique_keys", "fresh_within_24h"):
            bad = rng.random() < 0.04
            trace.call(
                "dq-agent",
                "run_check",
                {"table": table, "check": check},
                {"status": "fail", "rows": rng.randint(2, 90)} if bad else {"status": "pass", "rows": 0},
            )
            if bad:
                trace.call("dq-agent", "open_ticket", {"table": table, "check": check}, {"ticket": rng.randrange(9999)})
    return trace.ends()


@SIXTH.honest(11, "a sensor pokes for a partition that comes late: false, every five minutes, then true, then the load")
def late_partition(rng: Random) -> Session:
    trace, pause = session(rng, untimed=0), rng.choice((60, 300, 300, 600))
    day = f"2026-10-{rng.randint(10, 30)}"
    for _ in range(rng.randint(5, 20)):
        trace.call("loader", "poke_partition", {"table": "raw.events", "ds": day}, False, pause=pause)
    trace.call("loader", "poke_partition", {"table": "raw.events", "ds": day}, True, pause=pause)
    rows = rng.randrange(10**6, 10**7)
    trace.call("loader", "copy_into", {"table": "stage.events", "ds": day}, {"rows": rows}, pause=90)
    trace.call("loader", "run_check", {"table": "stage.events", "check": "row_count"}, {"rows": rows})
    return trace.ends()


@SIXTH.honest(11, "a backfill in batches: the same call each time, only what remains gets less")
def backfill_batches(rng: Random) -> Session:
    trace, size, left = session(rng), rng.choice((500, 1000, 5000)), 0
    left = size * rng.randint(7, 14) + rng.randrange(size)
    trace.call("migrator", "count_todo", {"table": "orders"}, {"remaining": left})
    while left:
        done = min(size, left)
        left -= done
        trace.call("migrator", "run_batch", {"table": "orders", "limit": size}, {"updated": done, "remaining": left})
    trace.call("migrator", "count_todo", {"table": "orders"}, {"remaining": 0})
    return trace.ends()


@SIXTH.honest(11, "a review in three or four rounds: fewer comments each time, the same checks, in the end approved")
def review_to_approval(rng: Random) -> Session:
    trace, number, path = session(rng), rng.randrange(400, 4000), f"src/{rng.choice(words.MODULES)}.py"
    comments, number_of_round = rng.randint(3, 5), 0
    while True:
        number_of_round += 1
        trace.call("reviewer", "get_diff", {"pr": number}, words.text(rng, 3, 6))
        if not comments:
            break
        for _ in range(comments):
            trace.call(
                "reviewer",
                "comment",
                {"pr": number, "path": path, "line": rng.randint(4, 300), "body": words.sentence(rng)},
                {"id": rng.randrange(10**6)},
            )
        trace.say("reviewer", f"{comments} comments, please have a look.", "author")
        for _ in range(comments):
            trace.call("author", "edit", {"path": path, "old": words.sentence(rng), "new": words.sentence(rng)}, "ok")
        trace.call("author", "run", {"cmd": "make check"}, "All checks passed.")
        trace.call("author", "push", {"branch": f"pr-{number}"}, words.digest(rng, 7))
        trace.say("author", "Done, please look again.", "reviewer")
        comments = max(0, comments - rng.randint(1, 3))
    trace.call("reviewer", "approve", {"pr": number}, "approved")
    return trace.ends()


@SIXTH.honest(10, "is a flaky test mended? the same test under ten seeds, every time the one line that it passed")
def flake_under_seeds(rng: Random) -> Session:
    trace, test = session(rng), f"tests/test_{rng.choice(words.MODULES)}.py::test_{rng.choice(words.MODULES)}"
    for number in range(rng.randint(3, 5)):
        failed = number % 2
        trace.call(
            "ci-agent",
            "bash",
            {"command": f"pytest -q {test} -p no:cacheprovider --seed {rng.randrange(9999)}"},
            f"1 failed in {rng.uniform(1, 4):.2f}s: {words.sentence(rng)}" if failed else "1 passed in 1.31s",
        )
    trace.call(
        "ci-agent", "edit", {"path": test.partition("::")[0], "old": "sleep(0.1)", "new": "wait_for(ready)"}, "ok"
    )
    trace.say("ci-agent", "The race should be gone. I try ten seeds.")
    for seed in rng.sample(range(10_000), 10):
        trace.call(
            "ci-agent",
            "bash",
            {"command": f"pytest -q {test} -p no:cacheprovider --seed {seed}"},
            f"1 passed in {rng.uniform(1, 4):.2f}s",
        )
    trace.call(
        "ci-agent",
        "bash",
        {"command": "git commit -am 'Wait for the fact, not for a time'"},
        f"[main {words.digest(rng, 7)}] 1 file changed",
    )
    return trace.ends()


@SIXTH.honest(11, "the checks of a pull request are looked at while they run, with growing pauses, until all are green")
def checks_turn_green(rng: Random) -> Session:
    trace, pull = session(rng, untimed=0), rng.randrange(100, 9000)
    open_checks, pause = words.several(rng, ("lint", "unit", "e2e", "docs", "build", "types"), 4, 6), 15.0
    trace.call("ci-agent", "git_push", {"branch": f"fix-{pull}"}, words.digest(rng, 7))
    done = 0
    while done < len(open_checks):
        trace.call(
            "ci-agent",
            "mcp__github__get_checks",
            {"pr": pull},
            [
                {"name": one, "status": "completed" if place < done else "in_progress"}
                for place, one in enumerate(open_checks)
            ],
            pause=pause,
        )
        pause = min(120.0, pause * 1.5)
        done += rng.choice((0, 0, 1, 1, 2))
    trace.call(
        "ci-agent",
        "mcp__github__get_checks",
        {"pr": pull},
        [{"name": one, "status": "completed"} for one in open_checks],
        pause=pause,
    )
    trace.call("ci-agent", "mcp__github__merge", {"pr": pull}, {"merged": True})
    return trace.ends()


@SIXTH.honest(10, "a culprit is searched by halves: build, the same test, good or bad, the next revision")
def bisecting(rng: Random) -> Session:
    trace, left = session(rng), 2 ** rng.randint(6, 9)
    trace.call("bisector", "bash", {"command": "git bisect start HEAD v2.4.0"}, f"Bisecting: {left} revisions left")
    while left > 1:
        left //= 2
        trace.call("bisector", "bash", {"command": "make -s build"}, "ok")
        bad = rng.random() < 0.5
        trace.call("bisector", "bash", {"command": "./repro.sh"}, "FAIL" if bad else "PASS")
        trace.call(
            "bisector",
            "bash",
            {"command": f"git bisect {'bad' if bad else 'good'}"},
            f"Bisecting: {left} revisions left\n[{words.digest(rng, 10)}] {words.sentence(rng)}",
        )
    trace.call(
        "bisector", "bash", {"command": "git bisect log | tail -1"}, f"# first bad commit: {words.digest(rng, 10)}"
    )
    return trace.ends()


@SIXTH.honest(11, "a filtered scan: pages without a hit, whose cursor and count go on, then pages with hits again")
def sparse_scan(rng: Random) -> Session:
    trace, cursor, seen = session(rng), "", 0
    for _ in range(rng.randint(2, 4)):
        for hit in [False] * rng.randint(2, 9) + [True]:
            seen += rng.randint(900, 1000)
            following = words.digest(rng, 16)
            trace.call(
                "scanner",
                "table.scan",
                {"filter": "status = 'stuck'", "start_key": cursor},
                {
                    "items": [{"order": rng.randrange(10**6), "note": words.sentence(rng)}] if hit else [],
                    "scanned": seen,
                    "next_key": following,
                },
            )
            cursor = following
    trace.call(
        "scanner", "table.scan", {"filter": "status = 'stuck'", "start_key": cursor}, {"items": [], "scanned": seen}
    )
    return trace.ends()


@SIXTH.honest(
    11, "configurations of the same make are moved to a new form: read, written, validated, one like the other"
)
def config_migration(rng: Random) -> Session:
    trace = session(rng)
    for service in words.several(rng, words.SERVICES, 8, 12):
        port = rng.randrange(7000, 9999)
        trace.call(
            "mover",
            "read_file",
            {"path": f"deploy/{service}/values.yaml"},
            f"name: {service}\nreplicas: 2\nport: {port}\nprobe: /healthz\nlog: json\n",
        )
        trace.call(
            "mover",
            "write_file",
            {
                "path": f"deploy/{service}/app.toml",
                "content": f"[app]\nname = '{service}'\nreplicas = 2\nport = {port}\nprobe = '/healthz'\nlog = "
                "'json'\n",
            },
            "written",
        )
        trace.call("mover", "validate", {"path": f"deploy/{service}/app.toml"}, "valid")
        trace.call("mover", "delete_file", {"path": f"deploy/{service}/values.yaml"}, "deleted")
    return trace.ends()


@SIXTH.honest(11, "hosts patched one by one: drained, patched, rebooted, ssh refused until it is up, taken in again")
def fleet_patching(rng: Random) -> Session:
    trace = session(rng, untimed=0)
    for host in rng.sample(range(10, 99), rng.randint(4, 7)):
        name = f"node-{host}"
        trace.call("patcher", "drain", {"host": name}, "drained", pause=30)
        trace.call(
            "patcher", "ssh", {"host": name, "cmd": "apt-get -y upgrade"}, f"{rng.randint(3, 60)} upgraded", pause=60
        )
        trace.call("patcher", "ssh", {"host": name, "cmd": "reboot"}, "", pause=4)
        for _ in range(rng.randint(1, 4)):
            trace.call(
                "patcher",
                "ssh",
                {"host": name, "cmd": "uptime"},
                error=f"connect to host {name} port 22: Connection refused",
                pause=15,
            )
        trace.call("patcher", "ssh", {"host": name, "cmd": "uptime"}, "up 0 min, load average: 0.31", pause=15)
        trace.call("patcher", "uncordon", {"host": name}, "uncordoned")
    return trace.ends()


@SIXTH.honest(
    11, "an interface that limits its callers: refused, waited for as long as it says, goes on with the next part"
)
def limited_uploads(rng: Random) -> Session:
    trace = session(rng, untimed=0)
    for part in range(1, rng.randint(9, 14)):
        wait = 1
        while rng.random() < 0.35 and wait < 64:
            trace.call(
                "uploader",
                "PUT /uploads/parts",
                {"part": part, "bytes": 8_388_608},
                error=f"429 Too Many Requests, retry after {wait} s",
                pause=2,
            )
            trace.wait(wait)
            wait *= 2
        trace.call(
            "uploader",
            "PUT /uploads/parts",
            {"part": part, "bytes": 8_388_608},
            {"etag": words.digest(rng, 12)},
            pause=3,
        )
    trace.call("uploader", "POST /uploads/complete", {}, {"location": f"/objects/{words.digest(rng)}"})
    return trace.ends()


@SIXTH.honest(10, "some addresses looked at each quarter of an hour through a night; all is well all the time")
def watch_through_the_night(rng: Random) -> Session:
    trace, hosts = session(rng, untimed=0), words.several(rng, words.SERVICES, 2, 4)
    for turn in range(rng.randint(8, 14)):
        for host in hosts:
            trace.call(
                "watchman",
                "http_get",
                {"url": f"https://{host}.example.org/healthz"},
                {"status": 200, "body": "ok"},
                pause=1,
            )
        trace.call("watchman", "sleep", {"seconds": 900}, "slept", pause=900)
        if turn % 4 == 3:
            trace.call(
                "watchman", "report", {"hour": trace.stamp(), "text": f"{len(hosts)} of {len(hosts)} up"}, "posted"
            )
    return trace.ends()


@SIXTH.honest(
    11, "a room is heated: temperature read each half minute, the valve set by what is missing, until it is warm"
)
def heating_control(rng: Random) -> Session:
    trace, warm, goal = session(rng, untimed=0), rng.uniform(15, 18), 21.0
    while goal - warm > 0.3:
        trace.call("climate", "sensor.read", {"id": "room-4"}, {"celsius": round(warm, 1)}, pause=30)
        valve = min(100, int((goal - warm) * 40))
        trace.call("climate", "valve.set", {"id": "v-4", "percent": valve}, {"ok": True}, pause=0.4)
        warm += (goal - warm) * rng.uniform(0.0, 0.3)
    trace.call("climate", "sensor.read", {"id": "room-4"}, {"celsius": round(warm, 1)}, pause=30)
    trace.call("climate", "mode.set", {"mode": "hold"}, {"ok": True})
    return trace.ends()


@SIXTH.honest(
    11, "a robot picks: drives, looks, grasps, sometimes slips and grasps otherwise, places, drives to the next"
)
def picking_robot(rng: Random) -> Session:
    trace = session(rng)
    for bin_number in rng.sample(range(10, 99), rng.randint(6, 9)):
        trace.call("arm", "navigate_to", {"bin": f"B{bin_number}"}, "SUCCEEDED")
        trace.call("arm", "detect", {"camera": "wrist"}, {"item": rng.choice(words.GOODS), "x": rng.randrange(400)})
        for angle in range(rng.choice((0, 0, 0, 1, 2))):
            trace.call("arm", "grasp", {"angle": 30 * angle + rng.randint(1, 20), "force": 4 + angle}, "SLIPPED")
        trace.call("arm", "grasp", {"angle": rng.randrange(90), "force": 7}, "HOLDING")
        trace.call("arm", "place", {"tote": "T1"}, "SUCCEEDED")
    return trace.ends()


@SIXTH.honest(10, "a sample is measured ten times to take the mean, for each of some weights; only the noise differs")
def calibration_series(rng: Random) -> Session:
    trace = session(rng)
    for grams in rng.sample((1, 2, 5, 10, 20, 50, 100, 200), 3):
        trace.call("lab", "place_weight", {"grams": grams}, "placed")
        for number in range(1, rng.randint(6, 9)):
            trace.call(
                "lab", "balance.read", {"reading": number}, {"grams": round(rng.gauss(grams, grams / 900), 4)}, pause=4
            )
        trace.call("lab", "fit", {"grams": grams}, {"mean": round(rng.gauss(grams, 0.001), 4), "sd": grams / 900})
    return trace.ends()


@SIXTH.honest(10, "a labyrinth: the same step again and again, north, north, east, and each time another square")
def labyrinth(rng: Random) -> Session:
    trace, x, y = session(rng), 0, 0
    for _ in range(rng.randint(12, 22)):
        way = rng.choice(("north", "north", "east"))
        if rng.random() < 0.15:
            trace.call("explorer", "move", {"direction": "east"}, f"You are at ({x + 1}, {y}). A dead end. Exits: W")
            trace.call("explorer", "move", {"direction": "west"}, f"You are at ({x}, {y}). Exits: N E")
            way = "north"
        elif rng.random() < 0.15:
            trace.call("explorer", "move", {"direction": "south" if way == "east" else "west"}, "A wall.")
        x, y = x + (way == "east"), y + (way == "north")
        trace.call("explorer", "move", {"direction": way}, f"You are at ({x}, {y}). Exits: N E")
    trace.call("explorer", "take", {"what": "lamp"}, "Taken.")
    return trace.ends()


@SIXTH.honest(10, "findings of a scanner: each opened and looked up, nearly all closed for the same reason")
def scanner_findings(rng: Random) -> Session:
    trace = session(rng)
    for finding in rng.sample(range(1000, 9999), rng.randint(7, 11)):
        path = f"src/{rng.choice(words.MODULES)}/{rng.choice(words.MODULES)}.go"
        trace.call(
            "sec-agent", "finding.get", {"id": finding}, {"rule": "G304", "path": path, "line": rng.randint(8, 700)}
        )
        trace.call("sec-agent", "read_file", {"path": path}, words.text(rng, 2, 4))
        if rng.random() < 0.15:
            trace.call("sec-agent", "finding.confirm", {"id": finding, "why": words.sentence(rng)}, {"ok": True})
        else:
            trace.call(
                "sec-agent",
                "finding.dismiss",
                {"id": finding, "why": "path is a constant, not user input"},
                {"ok": True},
            )
    return trace.ends()


@SIXTH.honest(
    10, "an experiment is looked at every six hours until the figures suffice: the same question, more visitors"
)
def experiment_watch(rng: Random) -> Session:
    trace, visitors = session(rng, untimed=0), rng.randrange(900, 3000)
    chance = rng.uniform(0.3, 0.6)
    while chance > 0.05:
        trace.call(
            "analyst",
            "experiment.stats",
            {"key": "short-checkout"},
            {"visitors": visitors, "p": round(chance, 3), "ready": False},
            pause=21_600,
        )
        visitors += rng.randrange(500, 2500)
        chance *= rng.uniform(0.6, 1.05)
    trace.call(
        "analyst",
        "experiment.stats",
        {"key": "short-checkout"},
        {"visitors": visitors, "p": round(chance, 3), "ready": True},
        pause=21_600,
    )
    trace.call("analyst", "experiment.stop", {"key": "short-checkout", "winner": "B"}, {"ok": True})
    return trace.ends()


@SIXTH.honest(
    10, "questions to the web, many with little to find; other sources, other words, and something new each time"
)
def browsing_research(rng: Random) -> Session:
    trace = session(rng)
    for _ in range(rng.randint(5, 8)):
        about = f"{rng.choice(words.GOODS)} {rng.choice(words.CITIES)} {rng.choice(words.MODULES)}"
        for extra in words.several(rng, ("statistics", "report", "2025", "filetype:pdf", "interview"), 1, 2):
            hits = (
                []
                if rng.random() < 0.4
                else [{"title": words.sentence(rng), "url": f"https://x.example/{words.digest(rng)}"}]
            )
            trace.call("researcher", "web_search", {"query": f"{about} {extra}"}, hits)
            if hits:
                trace.call("researcher", "open_page", {"url": hits[0]["url"]}, words.text(rng, 3, 6))
                trace.call("researcher", "note", {"text": words.sentence(rng)}, "noted")
    trace.say("researcher", words.text(rng, 4, 7), "client")
    return trace.ends()


@SIXTH.honest(10, "packages raised one by one: bumped, installed, tested, committed; the tests say the same each time")
def raising_packages(rng: Random) -> Session:
    trace, passed = session(rng), rng.randint(90, 900)
    for package in words.several(rng, words.MODULES, 6, 9):
        version = f"{rng.randint(1, 9)}.{rng.randint(0, 20)}.{rng.randint(0, 9)}"
        trace.call(
            "upgrader", "shell", {"cmd": f"npm install {package}@{version}"}, f"changed {rng.randint(1, 9)} packages"
        )
        if rng.random() < 0.25:
            trace.call(
                "upgrader", "shell", {"cmd": "npm test"}, f"1 failed, {passed - 1} passed: {words.sentence(rng)}"
            )
            trace.call("upgrader", "edit", {"path": f"src/{package}.ts", "new": words.sentence(rng)}, "ok")
        trace.call("upgrader", "shell", {"cmd": "npm test"}, f"{passed} passed")
        trace.call("upgrader", "shell", {"cmd": f"git commit -am 'Raise {package} to {version}'"}, words.digest(rng, 7))
    return trace.ends()


@SIXTH.honest(
    10, "a service is down: asked again with growing pauses, the same refusal, until it answers and the work goes on"
)
def service_comes_back(rng: Random) -> Session:
    trace, service = session(rng, untimed=0), rng.choice(words.SERVICES)
    words.prelude(trace, "syncer", 1, 3)
    for _ in range(rng.randint(1, 2)):
        pause = 2.0
        for _ in range(rng.randint(3, 6)):
            trace.call(
                "syncer",
                "GET /export",
                {"service": service, "since": "2026-11-01"},
                error="503 Service Unavailable",
                pause=pause,
            )
            pause *= 2
        trace.call(
            "syncer",
            "GET /export",
            {"service": service, "since": "2026-11-01"},
            {"rows": rng.randrange(100, 9000), "until": trace.stamp()},
            pause=pause,
        )
        trace.call("syncer", "store", {"what": service}, {"object": words.digest(rng)})
    return trace.ends()


@SIXTH.honest(10, "orders go down a line of three: picked, packed, shipped, each announced in the same few words")
def order_line(rng: Random) -> Session:
    trace = session(rng)
    for order in rng.sample(range(10_000, 99_999), rng.randint(6, 9)):
        trace.call(
            "picker",
            "pick",
            {"order": order},
            {"items": rng.randint(1, 9), "shelf": f"{rng.choice('ABCDEF')}{rng.randint(1, 40)}"},
        )
        trace.say("picker", f"Order {order} is picked.", "packer")
        trace.call("packer", "pack", {"order": order}, {"parcel": words.digest(rng, 6)})
        trace.say("packer", f"Order {order} is packed.", "shipper")
        trace.call("shipper", "label", {"order": order}, {"tracking": words.digest(rng, 12)})
        trace.say("shipper", f"Order {order} is on its way. Next one, please.", "picker")
    return trace.ends()


@SIXTH.honest(
    10, "a village is simulated: every morning the same greetings, then work, trade and a talk, day after day"
)
def village_days(rng: Random) -> Session:
    trace, people = session(rng), words.several(rng, words.FIRST_NAMES, 3, 3)
    stock = {one: rng.randint(1, 9) for one in people}
    for day in range(1, rng.randint(4, 7)):
        trace.call(
            "world", "advance", {"to": f"day {day}, 07:00"}, {"weather": rng.choice(("sun", "rain", "fog", "snow"))}
        )
        for place, one in enumerate(people):
            other = people[(place + 1) % 3]
            trace.say(one, f"Good morning, {other}!", other)
            stock[one] += rng.randint(1, 4)
            trace.call(one, "work", {"at": rng.choice(("field", "mill", "forge"))}, {"stock": stock[one], "day": day})
            if rng.random() < 0.5:
                trace.say(one, f"Have you heard? {words.sentence(rng)}", other)
                trace.call(one, "trade", {"with": other, "pieces": rng.randint(1, 3)}, {"accepted": rng.random() < 0.7})
    return trace.ends()


@SIXTH.honest(
    10, "follow the sun: three watches hand over every eight hours, look at the same boards, note what was new"
)
def follow_the_sun(rng: Random) -> Session:
    trace, boards = session(rng, untimed=0), words.several(rng, words.SERVICES, 3, 4)
    watches = ("sre-apac", "sre-emea", "sre-amer")
    for turn in range(rng.randint(5, 8)):
        one, other = watches[turn % 3], watches[(turn + 1) % 3]
        for board in boards:
            trace.call(
                one,
                "board.open",
                {"board": board},
                {"alerts": rng.choice((0, 0, 0, 1)), "p99_ms": rng.randint(80, 400)},
            )
        if rng.random() < 0.4:
            trace.call(one, "alert.ack", {"alert": rng.randrange(9999)}, {"note": words.sentence(rng)})
        trace.wait(28_000)
        trace.say(one, f"Handing over to you. {rng.choice(('A quiet watch.', words.sentence(rng)))}", other)
        trace.say(other, "I have the watch.", one)
    return trace.ends()


@SIXTH.honest(
    10, "the lead looks at the task list between the reports of three workers; it changes slowly, piece by piece"
)
def board_of_a_team(rng: Random) -> Session:
    trace, crew = session(rng), ("dev-a", "dev-b", "dev-c")
    tasks = dict.fromkeys(range(1, rng.randint(5, 8)), "pending")
    while any(state != "done" for state in tasks.values()):
        for one in crew:
            mine = next((number for number, state in tasks.items() if state == one), 0)
            if not mine and (free := [number for number, state in tasks.items() if state == "pending"]):
                tasks[free[0]] = one
            elif mine and rng.random() < 0.5:
                trace.call(
                    one, "edit", {"path": f"src/{rng.choice(words.MODULES)}.py", "new": words.sentence(rng)}, "ok"
                )
                trace.call(one, "task_done", {"task": mine}, "ok")
                tasks[mine] = "done"
            elif mine:
                trace.call(
                    one, "edit", {"path": f"src/{rng.choice(words.MODULES)}.py", "new": words.sentence(rng)}, "ok"
                )
        trace.call("lead", "task_list", {"status": "open"}, {str(number): state for number, state in tasks.items()})
    return trace.ends()


@SIXTH.honest(
    10, "a script of some stages is written, run, mended and run: the same command, a little further each time"
)
def script_cycles(rng: Random) -> Session:
    trace, script = session(rng), f"stage_{rng.choice(words.MODULES)}.py"
    trace.call("artist", "write_file", {"path": script, "content": words.text(rng, 3, 6)}, "written")
    frame = 0
    while frame < 240:
        frame += rng.randint(20, 70)
        shown = f"frame {min(frame, 240)}/240" + ("" if frame >= 240 else f"\nError: {words.sentence(rng)}")
        trace.call("artist", "run_shell_command", {"command": f"blender -b scene.blend -P {script}"}, shown)
        if frame < 240:
            trace.call("artist", "read_file", {"path": script}, words.text(rng, 3, 6))
            trace.call("artist", "edit", {"path": script, "old": words.sentence(rng), "new": words.sentence(rng)}, "ok")
    trace.call("artist", "run_shell_command", {"command": "ls -l out | wc -l"}, "240")
    return trace.ends()
