"""The second set, part one: small worlds in which an agent acts by a policy, so that results follow from what was done.

In: a random generator. Out: traces. Made of other stuff than the first set: nothing here is a row out of a form, every
result is what the world answers. Honest policies get on; stuck ones have a flaw that real agents have.
"""

from random import Random

from tests.health_set import second_words as words
from tests.health_set.second_words import Paced as Trace
from tests.health_set.sets import SECOND

PATIENCE = 60
"""Acts after which a stuck policy is let be."""


class Shell:
    """Files and a few commands."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.files = {words.path(rng): [words.sentence(rng) for _ in range(rng.randint(5, 40))] for _ in range(9)}
        self.bugs = rng.randint(2, 6)
        self.installed: set[str] = set()

    def run(self, command: str) -> str:
        verb, _, rest = command.partition(" ")
        match verb:
            case "ls":
                return "\n".join(sorted(self.files))
            case "cat":
                return "\n".join(self.files[rest]) if rest in self.files else f"cat: {rest}: No such file or directory"
            case "grep":
                hits = [f"{name}:{line}" for name, lines in self.files.items() for line in lines if rest in line]
                return "\n".join(hits[:8])
            case "wc":
                return f"{len(self.files.get(rest, []))} {rest}"
            case "pytest":
                if not self.bugs:
                    return f"12 passed in {self.rng.uniform(0.1, 3):.2f}s"
                taken = self.rng.uniform(0.1, 3)
                return f"FAILED test_{self.bugs}\n{self.bugs} failed, {12 - self.bugs} passed in {taken:.2f}s"
            case "pip":
                package = rest.removeprefix("install ")
                first = package not in self.installed
                self.installed.add(package)
                return f"Successfully installed {package}" if first else f"Requirement already satisfied: {package}"
        return f"bash: {verb}: command not found"


def _explore(trace: Trace, shell: Shell, acts: int, agent: str = "dev") -> None:
    for name in shell.rng.sample(sorted(shell.files), min(acts, len(shell.files))):
        trace.call(agent, "bash", {"command": f"cat {name}"}, shell.run(f"cat {name}"))
        if shell.rng.random() < 0.3:
            trace.call(agent, "bash", {"command": f"wc {name}"}, shell.run(f"wc {name}"))


@SECOND.honest(40, "a shell: lists, reads, repairs bug after bug, tests after each")
def shell_repairs(rng: Random) -> Trace:
    trace, shell = Trace(rng, timed=rng.random() < 0.6), Shell(rng)
    trace.call("dev", "bash", {"command": "ls"}, shell.run("ls"))
    _explore(trace, shell, rng.randint(2, 6))
    while shell.bugs:
        trace.call("dev", "bash", {"command": "pytest -q"}, shell.run("pytest -q"))
        name = rng.choice(sorted(shell.files))
        shell.files[name][rng.randrange(len(shell.files[name]))] = words.sentence(rng)
        trace.call("dev", "str_replace", {"path": name, "new": words.sentence(rng)}, "OK")
        if rng.random() < 0.7:
            shell.bugs -= 1
    trace.call("dev", "bash", {"command": "pytest -q"}, shell.run("pytest -q"))
    return trace.ends()


@SECOND.honest(30, "a shell: one package after the other is found missing and installed")
def shell_installs(rng: Random) -> Trace:
    trace, shell = Trace(rng, timed=rng.random() < 0.6), Shell(rng)
    packages = ("numpy", "pandas", "lxml", "redis", "boto3", "attrs", "httpx", "rich", "click", "jinja2")
    for package in packages[: rng.randint(4, 10)]:
        lacking = f"ModuleNotFoundError: No module named '{package}'"
        trace.call("dev", "bash", {"command": "python main.py"}, error=lacking)
        trace.call("dev", "bash", {"command": f"pip install {package}"}, shell.run(f"pip install {package}"))
    trace.call("dev", "bash", {"command": "python main.py"}, "started")
    return trace.ends()


@SECOND.looping(20, "a shell: the package is installed already, the program still lacks it, round and round")
def shell_installs_in_vain(rng: Random) -> Trace:
    trace, shell = Trace(rng, timed=rng.random() < 0.6), Shell(rng)
    _explore(trace, shell, rng.randint(0, 5))
    shell.run("pip install cv2")
    trace.loop_begins(2)
    for _ in range(PATIENCE // 4):
        trace.call("dev", "bash", {"command": "python main.py"}, error="ModuleNotFoundError: No module named 'cv2'")
        trace.call("dev", "bash", {"command": "pip install cv2"}, shell.run("pip install cv2"))
    return trace.ends()


@SECOND.looping(20, "a shell: reads the same files over and over after each test, with a thought before each act")
def shell_rereads(rng: Random) -> Trace:
    trace, shell = Trace(rng, timed=rng.random() < 0.6), Shell(rng)
    names = rng.sample(sorted(shell.files), rng.randint(1, 3))
    _explore(trace, shell, rng.randint(0, 4))
    trace.loop_begins(2 * len(names) + 2)
    for _ in range(7):
        for name in names:
            trace.say(
                "dev",
                f"{rng.choice(('Looking at', 'Opening', 'Back to', 'Checking', 'Reading'))} {name}"
                f"{rng.choice((' again.', ' to be sure.', ', the fault must be there.', '.'))}",
            )
            trace.call("dev", "bash", {"command": f"cat {name}"}, shell.run(f"cat {name}"))
        trace.say("dev", rng.choice(("Now the tests.", "Do they pass?", "Running the suite.", "Test again.")))
        trace.call("dev", "bash", {"command": "pytest -q"}, shell.run("pytest -q"))
    return trace.ends()


class Depot:
    """Orders, stock, and a carrier that fails now and then."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.stock = {f"SKU-{rng.randint(100, 999)}": rng.randint(0, 30) for _ in range(12)}
        self.orders = {rng.randint(10000, 99999): rng.choice(sorted(self.stock)) for _ in range(rng.randint(6, 25))}
        self.clock = 0

    def look(self, sku: str) -> dict[str, object]:
        return {"sku": sku, "on_hand": self.stock[sku]}

    def ship(self, order: int) -> dict[str, object] | str:
        sku = self.orders[order]
        if not self.stock[sku]:
            return "out of stock"
        self.stock[sku] -= 1
        return {"order": order, "status": "shipped"}


@SECOND.honest(40, "a depot: order by order is looked up and shipped or put off")
def depot_day(rng: Random) -> Trace:
    trace, depot = Trace(rng, timed=rng.random() < 0.6), Depot(rng)
    trace.call("clerk", "list_orders", {}, sorted(depot.orders))
    for order, sku in depot.orders.items():
        if rng.random() < 0.6:
            trace.call("clerk", "stock", {"sku": sku}, depot.look(sku))
        shipped = depot.ship(order)
        if isinstance(shipped, str):
            trace.call("clerk", "ship", {"order": order}, error=shipped)
            trace.call("clerk", "put_off", {"order": order}, {"status": "ok"})
        else:
            trace.call("clerk", "ship", {"order": order}, shipped)
    return trace.ends()


@SECOND.honest(30, "a depot: stock is looked at every few minutes until the lorry comes; the figure seldom changes")
def depot_waits(rng: Random) -> Trace:
    trace, depot = Trace(rng), Depot(rng)
    sku, even = rng.choice(sorted(depot.stock)), rng.choice((120, 300, 900))
    for _ in range(rng.randint(8, 30)):
        trace.call("clerk", "stock", {"sku": sku}, depot.look(sku), pause=even + rng.uniform(-2, 2))
        if rng.random() < 0.1:
            depot.stock[sku] += rng.randint(1, 9)
    trace.call("clerk", "ship", {"order": next(iter(depot.orders))}, {"status": "shipped"})
    return trace.ends()


@SECOND.honest(30, "a depot: the carrier is down, the pauses double, then the batch goes on")
def depot_carrier_down(rng: Random) -> Trace:
    trace, depot = Trace(rng), Depot(rng)
    for order in depot.orders:
        pause = rng.uniform(1, 3)
        for _ in range(rng.choice((0, 0, 0, 1, 3, 5))):
            trace.call("clerk", "book_carrier", {"order": order}, error="502 Bad Gateway", pause=pause)
            pause *= 2
        trace.call("clerk", "book_carrier", {"order": order}, {"slot": f"{rng.randint(8, 17)}:00"}, pause=pause)
    return trace.ends()


@SECOND.looping(20, "a depot: ships the order that is out of stock, looks at the stock, ships again")
def depot_stubborn(rng: Random) -> Trace:
    trace, depot = Trace(rng, timed=rng.random() < 0.6), Depot(rng)
    orders = iter(depot.orders)
    for order in [next(orders) for _ in range(rng.randint(0, 4))]:
        trace.call("clerk", "ship", {"order": order}, {"order": order, "status": "shipped"})
    order = next(orders)
    sku = depot.orders[order]
    trace.loop_begins(2)
    for _ in range(PATIENCE // 4):
        trace.call("clerk", "ship", {"order": order, "idempotency_key": words.uuid(rng)}, error="out of stock")
        trace.call("clerk", "stock", {"sku": sku}, {"sku": sku, "on_hand": 0, "as_of": words.stamp(trace.now_s)})
    return trace.ends()


@SECOND.looping(20, "a depot: an order is handed to and fro between two clerks, each looks it up first")
def depot_to_and_fro(rng: Random) -> Trace:
    trace, depot = Trace(rng, timed=rng.random() < 0.6), Depot(rng)
    order, sku = next(iter(depot.orders.items()))
    said = (
        ("Order {0} is yours, it is heavy.", "No, {0} is fragile: yours."),
        ("Could you do {0}? Mine is full.", "Sorry, {0} does not fit my lorry, you take it."),
    )[rng.randrange(2)]
    trace.loop_begins(4)
    for _ in range(10):
        for number, name in enumerate(("clerk-a", "clerk-b")):
            trace.call(name, "order", {"order": order}, {"order": order, "sku": sku})
            trace.say(name, said[number].format(order), ("clerk-b", "clerk-a")[number])
    return trace.ends()


@SECOND.honest(30, "a maze walked by hand: few moves, positions come back, the map grows")
def maze(rng: Random) -> Trace:
    trace, at, seen = Trace(rng, timed=rng.random() < 0.5), (0, 0), {(0, 0)}
    moves = {"north": (0, 1), "south": (0, -1), "east": (1, 0), "west": (-1, 0)}
    for _ in range(rng.randint(20, 50)):
        fresh = [name for name, (x, y) in moves.items() if (at[0] + x, at[1] + y) not in seen]
        name = rng.choice(fresh or list(moves))
        at = (at[0] + moves[name][0], at[1] + moves[name][1])
        seen.add(at)
        trace.call("walker", "move", {"direction": name}, {"x": at[0], "y": at[1], "seen": len(seen)})
    return trace.ends()


@SECOND.looping(15, "a maze: to and fro against one wall")
def maze_wall(rng: Random) -> Trace:
    trace = Trace(rng, timed=rng.random() < 0.5)
    for number in range(rng.randint(0, 9)):
        trace.call("walker", "move", {"direction": "north"}, {"x": 0, "y": number + 1})
    trace.loop_begins(2)
    for _ in range(15):
        trace.call("walker", "move", {"direction": "east"}, {"blocked": "wall"})
        trace.call("walker", "look", {}, "A wall to the east. A corridor to the west.")
    return trace.ends()


@SECOND.honest(30, "a browser: a shop is clicked through, back and forth, every page once or twice")
def browsing(rng: Random) -> Trace:
    trace, pages = Trace(rng, timed=rng.random() < 0.6), [words.paragraph(rng, 3, 6) for _ in range(12)]
    overview = "\n".join(page[:40] for page in pages)
    for number in rng.sample(range(12), rng.randint(4, 12)):
        trace.call("browser", "click", {"element": number + 3}, pages[number])
        if rng.random() < 0.4:
            trace.call("browser", "screenshot", {}, {"image": f"sha256:{words.digest(rng)}"})
        trace.call("browser", "go_back", {}, overview)
    trace.say("browser", words.paragraph(rng))
    return trace.ends()


@SECOND.looping(15, "a browser: a cookie banner is clicked that never goes away; the picture has a digest of its own")
def cookie_banner(rng: Random) -> Trace:
    trace, shown, even = Trace(rng, timed=rng.random() < 0.6), words.paragraph(rng, 1, 2), words.digest(rng)
    trace.call("browser", "goto", {"url": "https://example.org"}, shown)
    trace.loop_begins(2)
    for _ in range(15):
        trace.call("browser", "click", {"element": "Accept all"}, "clicked")
        trace.call("browser", "screenshot", {}, {"image": f"sha256:{even}", "text": f"We value your privacy. {shown}"})
    return trace.ends()
