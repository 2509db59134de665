"""The tree of a task: plans, their steps, attempts and calls as rows, each with a bar on one axis of time. Pure.

In: a story as the API tells it; the rows that are open, chosen or looked for. Out: rows and ticks for templates, with
lengths in percent of the axis. A row's key is its address in the page: `plan.1`, `step.1.ID`, `attempt.1.2.ID`,
`call.ID`.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from bulkhead.journal.story.calls import short_arguments
from bulkhead.text.amounts import format_duration
from bulkhead.text.plain_text import cut_line
from bulkhead_contracts.plan import planned_ids
from bulkhead_services.gateway.console.api import Json

MAX_NOTE_CHARS = 120
PAGE = 50
"""Children of a row that are shown at a time."""
MAX_MATCHES = 200
OPEN_WHOLE = 12
"""A tree of at most so many rows is open wholly."""
MIN_WIDTH = 1.5
"""In percent: two or three pixels, which a person can see and hit."""
MAX_TICKS = 3
LAST_TICK = 65
"""A label further right would touch that of the end."""
UNITS = (
    ("ms", 1, (1, 2, 5, 10, 20, 50, 100, 200, 500)),
    ("s", 1_000, (1, 2, 5, 10, 15, 30)),
    ("min", 60_000, (1, 2, 5, 10, 15, 30)),
    ("h", 3_600_000, (1, 2, 3, 6, 12, 24)),
)
"""Distances between ticks: the unit, its milliseconds, and how many of it."""
RUNS = "running"
WAITS = {
    RUNS: "running",
    "queued": "queued",
    "step": "waits for a step",
    "lease": "waits for a lease",
    "time": "waits for its time",
    "approval": "waits for approval",
    "budget": "at a ceiling",
    "halt": "halted",
    "breaker": "held by a breaker",
    "retried": "retried",
    "failed": "failed",
}
"""What a wait is called."""
SPAN = "span"
CALLS = {"model": "model call", "tool": "tool call", "search": "search"}
PIECES = {**CALLS, SPAN: "between calls", **{kind: label for kind, label in WAITS.items() if kind != RUNS}}
"""What a piece of a bar stands for."""
WAITED = {
    "queued": "was queued",
    "step": "waited for a step",
    "lease": "waited for a lease",
    "time": "waited for its time",
    "approval": "waited for approval",
    "budget": "was at a ceiling",
    "halt": "was halted",
    "breaker": "was held by a breaker",
    "retried": "retried",
}
"""The same of a wait that has ended."""
BAD = ("failed", "rejected", "stopped", "refused", "uncertain")


@dataclass(frozen=True, slots=True)
class BarPiece:
    """A piece of a bar. x, width: in percent. label: what it stands for, with what is waited for."""

    kind: str
    x: float
    width: float
    label: str = ""


@dataclass(slots=True)
class TreeNode:
    """A row's facts. took_ms: None while it goes on. began_unix_ms: 0 for what has not begun. told: from the story."""

    key: str
    kind: str
    name: str
    state: str
    began_unix_ms: int
    took_ms: int | None
    tokens: int
    cost_usd_micros: int
    told: Json
    parent: str = ""
    note: str = ""
    waits: Sequence[Json] = ()
    children: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class TreeRow:
    """A node as it is shown. more: how many of its siblings follow that are not; is_open: None without children."""

    node: TreeNode
    level: int
    is_open: bool | None
    bar: tuple[BarPiece, ...]
    title: str
    more: int = 0
    next: int = 0


class TaskTree:
    """All nodes of one story. until_unix_ms: the end of the axis."""

    def __init__(self, story: Json, now_unix_ms: int, *, has_ended: bool) -> None:
        self.nodes: dict[str, TreeNode] = {}
        self.roots: list[str] = []
        self.began_unix_ms: int = story["began_unix_ms"]
        self._has_ended = has_ended
        self._last_unix_ms: int = self.began_unix_ms + story["took_ms"]
        plans = story["plans"] or [{"version": 0, "origin": "drafted", "by": "", "notes": (), "adopted_unix_ms": 0}]
        drafts = story["planning"]
        task_waits = [wait for wait in story["waits"] if wait["kind"] != "step"]  # That of some step, while others run.
        for plan in plans if story["plans"] or drafts else ():
            is_last = plan is plans[-1]
            plan_drafts = [call for call in drafts if is_last or call["asked_unix_ms"] <= plan["adopted_unix_ms"]]
            drafts = drafts[len(plan_drafts) :]
            steps = [step for step in story["steps"] if step["plan_version"] == plan["version"]]
            self._add_plan(plan, plan_drafts, steps, is_last=is_last, waits=task_waits if not self.roots else ())
        ends = [node.began_unix_ms + (node.took_ms or 0) for node in self.nodes.values()]
        last_unix_ms = max([*ends, self._last_unix_ms, self.began_unix_ms + 1])
        self.until_unix_ms = last_unix_ms if has_ended else max(last_unix_ms, now_unix_ms)

    def _add_plan(
        self, plan: Json, drafts: Sequence[Json], steps: Sequence[Json], *, is_last: bool, waits: Sequence[Json]
    ) -> None:
        calls = [*drafts, *(call for step in steps for call in step["calls"])]
        spans = [(call["asked_unix_ms"], call["took_ms"] or 0) for call in calls]
        if any(call["took_ms"] is None for call in calls):  # Its task ended first.
            spans.append((self._last_unix_ms, 0))
        spans += [(attempt["began_unix_ms"], attempt["took_ms"] or 0) for step in steps for attempt in step["tried"]]
        began = min([start_ms for start_ms, _ in spans], default=plan["adopted_unix_ms"] or self.began_unix_ms)
        end = max([start_ms + span_ms for start_ms, span_ms in spans], default=began)
        goes_on = is_last and not self._has_ended
        node = TreeNode(
            f"plan.{plan['version']}",
            "plan",
            _name_plan(plan, is_only=is_last and not self.roots),
            "",
            began,
            None if goes_on else max(0, end - began),
            sum(map(_tokens_of, calls)),
            sum(call["usage"]["cost_usd_micros"] for call in calls),
            plan,
            note="" if is_last else "replaced",
            waits=waits,
        )
        self._add_node(node)
        for call in drafts:
            self._add_call(call, node.key)
        for step in steps:
            if plan["origin"] == "adopted":
                for call in step["calls"]:
                    self._add_outside_call(call, node.key)
            else:
                map_key = f"step.{plan['version']}.{planned_ids(step['step_id'])[-1]}"
                map_node = self.nodes.get(map_key)
                is_item = map_node is not None and map_node.told["inputs"] == step["inputs"] != []
                self._add_step(step, map_key if is_item else node.key)
        for key in node.children:
            self._fold_items(self.nodes[key])

    def _fold_items(self, node: TreeNode) -> None:
        """Count the items below a map, and put those that failed first. Its own attempts read and gather; nobody calls
        anything in them."""
        items = [self.nodes[key] for key in node.children if self.nodes[key].kind == "step"]
        if items:
            counts = Counter(item.state for item in items)
            node.note = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
            node.tokens += sum(item.tokens for item in items)
            node.cost_usd_micros += sum(item.cost_usd_micros for item in items)
            for key in set(node.children).difference(item.key for item in items):
                del self.nodes[key]
            node.children = [item.key for item in sorted(items, key=lambda item: item.state not in BAD)]

    def _add_step(self, step: Json, parent: str) -> None:
        tried, version = step["tried"], step["plan_version"]
        is_running = bool(tried) and tried[-1]["took_ms"] is None and step["outcome"] == "running"
        node = TreeNode(
            f"step.{version}.{step['step_id']}",
            "step",
            step["title"] or step["step_id"],
            "not_begun" if step["outcome"] == "waiting" and self._has_ended else step["outcome"],
            tried[0]["began_unix_ms"] if tried else 0,
            None if is_running else step["took_ms"],
            _tokens_of(step),
            step["usage"]["cost_usd_micros"],
            step,
            parent,
            "taken over" if step["given"] else f"{len(tried)} attempts" if len(tried) > 1 else "",
            step["waits"],
        )
        self._add_node(node)
        if len(tried) < 2:
            for call in step["calls"]:
                self._add_call(call, node.key)
            return
        for attempt in tried:
            calls = [call for call in step["calls"] if call["attempt"] == attempt["number"]]
            child = TreeNode(
                f"attempt.{version}.{attempt['number']}.{step['step_id']}",
                "attempt",
                f"Attempt {attempt['number']}",
                attempt["outcome"],
                attempt["began_unix_ms"],
                attempt["took_ms"],
                sum(map(_tokens_of, calls)),
                sum(call["usage"]["cost_usd_micros"] for call in calls),
                attempt,
                node.key,
                waits=[wait for wait in step["waits"] if _falls_into(wait, attempt)],
            )
            self._add_node(child)
            for call in calls:
                self._add_call(call, child.key)

    def _add_call(self, call: Json, parent: str) -> None:
        words = short_arguments(call["arguments"], MAX_NOTE_CHARS)
        if call["kind"] == "model" and not words and not call["result"].startswith("{"):
            words = call["result"]
        self._add_node(
            TreeNode(
                f"call.{call['call_id']}",
                call["kind"],
                call["name"],
                call["outcome"],
                call["asked_unix_ms"],
                call["took_ms"],
                _tokens_of(call),
                call["usage"]["cost_usd_micros"],
                call,
                parent,
                words,
                call["waits"],
            )
        )

    def _add_outside_call(self, call: Json, parent: str) -> None:
        """A call of an outside agent, whose run is one step: what it asked, and what it got."""
        self._add_call(call, parent)
        node = self.nodes[f"call.{call['call_id']}"]
        if call["kind"] == "model" and call["arguments"]:
            node.name, node.note = cut_line(call["arguments"], MAX_NOTE_CHARS), call["result"]

    def _add_node(self, node: TreeNode) -> None:
        self.nodes[node.key] = node
        (self.nodes[node.parent].children if node.parent else self.roots).append(node.key)

    def choose_key(self, preferred: str, waiting_step: str) -> str:
        """The preferred row, else the step that waits or failed, else the last plan; "" in an empty tree."""
        if preferred in self.nodes or not self.roots:
            return preferred if preferred in self.nodes else ""
        steps = [self.nodes[key] for key in self.nodes[self.roots[-1]].children if self.nodes[key].kind == "step"]
        failed = [node.key for node in steps if node.state in BAD]
        waiting = [node.key for node in steps if waiting_step and node.told["step_id"] == waiting_step]
        return next(iter(waiting or failed[-1:]), self.roots[-1])

    def opened_keys(self, chosen: str, besides: Sequence[str]) -> set[str]:
        """The rows whose children are shown: the last plan, what leads to the chosen row, and those besides."""
        if len(self.nodes) <= OPEN_WHOLE:
            return set(self.nodes)
        opened = {*besides, *self.roots[-1:], *self.path_to(chosen)}
        if self.nodes.get(chosen) is not None and self.nodes[chosen].kind in ("step", "attempt"):
            opened.add(chosen)
        return opened

    def path_to(self, key: str) -> list[str]:
        """The rows above this one, the nearest first."""
        path: list[str] = []
        while (node := self.nodes.get(key)) is not None and node.parent:
            path.append(key := node.parent)
        return path

    def visible_rows(self, opened: set[str], chosen: str) -> Iterator[TreeRow]:
        """The rows of the open tree, in order."""
        for key in self.roots:
            yield from self._rows_from(key, 1, opened, chosen)

    def rows_below(self, parent: str, start: int, opened: set[str]) -> Iterator[TreeRow]:
        """Children of a row from a place on, and what is open below them."""
        if parent in self.nodes:
            yield from self._page_of(parent, len(self.path_to(parent)) + 2, start, opened, "")

    def matching_rows(self, words: str) -> tuple[list[TreeRow], bool]:
        """Rows that have all of these words, under those that lead to them; True where there are more."""
        parts = words.lower().split()
        matches = [key for key, node in self.nodes.items() if all(part in _text_of(node) for part in parts)]
        key_set = {key for match in matches[:MAX_MATCHES] for key in (match, *self.path_to(match))}
        rows = [
            self._row_of(key, len(self.path_to(key)) + 1, None) for key in self._in_order(self.roots) if key in key_set
        ]
        return rows, len(matches) > MAX_MATCHES

    def _in_order(self, keys: Sequence[str]) -> Iterator[str]:
        for key in keys:
            yield key
            yield from self._in_order(self.nodes[key].children)

    def _rows_from(self, key: str, level: int, opened: set[str], chosen: str) -> Iterator[TreeRow]:
        node = self.nodes[key]
        is_open = (key in opened) if node.children else None
        yield self._row_of(key, level, is_open)
        if is_open:
            path = [chosen, *self.path_to(chosen)]
            first = next((place for place, child in enumerate(node.children) if child in path), 0)
            yield from self._page_of(key, level + 1, first // PAGE * PAGE, opened, chosen)

    def _page_of(self, parent: str, level: int, start: int, opened: set[str], chosen: str) -> Iterator[TreeRow]:
        children = self.nodes[parent].children
        if start and chosen:  # Those before, which a link to a late row passes over.
            yield TreeRow(self.nodes[parent], level, None, (), "", start, 0)
        for key in children[start : start + PAGE]:
            yield from self._rows_from(key, level, opened, chosen)
        if len(children) > start + PAGE:
            yield TreeRow(self.nodes[parent], level, None, (), "", len(children) - start - PAGE, start + PAGE)

    def _row_of(self, key: str, level: int, is_open: bool | None) -> TreeRow:
        node = self.nodes[key]
        pieces = tuple(self._pieces_of(node))
        kinds = dict.fromkeys(PIECES.get(str(piece.kind), "") for piece in pieces)
        title = (
            f"from {format_duration(max(0, node.began_unix_ms - self.began_unix_ms))} on" if node.began_unix_ms else ""
        )
        return TreeRow(node, level, is_open, pieces, ", ".join(filter(None, (title, *kinds))))

    def _pieces_of(self, node: TreeNode) -> Iterator[BarPiece]:
        """A call in the colour of its kind; above calls, these on a light ground, with waits, and a red end for each
        attempt that failed."""
        if node.kind in ("plan", "step", "attempt"):
            tried: Sequence[Json] = node.told["tried"] if node.kind == "step" else ()
            spans = [(attempt["began_unix_ms"], attempt["took_ms"]) for attempt in tried]
            if node.kind != "step" and node.began_unix_ms:
                spans = [(node.began_unix_ms, node.took_ms)]
            for at_unix_ms, took_ms in spans:
                yield self._piece(SPAN, at_unix_ms, took_ms)
            yield from self._waits_of(node)
            yield from self._pieces_below(node)
            yield from self._failed_ends(node)
            return
        if node.began_unix_ms and not any(_covers(wait, node) for wait in node.waits):
            yield self._piece("failed" if node.state in BAD else node.kind, node.began_unix_ms, node.took_ms)
        yield from self._waits_of(node)

    def _failed_ends(self, node: TreeNode) -> Iterator[BarPiece]:
        """A red end for each attempt that failed, of a step or of the attempt itself."""
        tried: Sequence[Json] = node.told["tried"] if node.kind == "step" else ()
        failed = [attempt for attempt in tried if attempt is not tried[-1] or node.state in BAD]
        failed += [node.told] if node.kind == "attempt" and node.state in BAD else []
        for attempt in failed:
            if attempt["took_ms"] is not None:
                yield self._end_piece(attempt["began_unix_ms"] + attempt["took_ms"])

    def _waits_of(self, node: TreeNode) -> Iterator[BarPiece]:
        for wait in node.waits:
            yield self._piece(wait["kind"], wait["at_unix_ms"], wait["took_ms"], wait["what"])

    def _own_waits(self, step: TreeNode) -> Iterator[BarPiece]:
        """Waits of a step, except for other steps, which have waits or calls of their own."""
        return (piece for piece in self._waits_of(step) if piece.kind != "step")

    def _pieces_below(self, node: TreeNode) -> list[BarPiece]:
        """Pieces of all calls below a row, and the waits and failed ends of its steps; those of one kind that touch
        each other on the axis are one piece. Waits lie on calls, failures on both."""
        below = sorted(map(self.nodes.__getitem__, self._in_order(node.children)), key=lambda row: row.began_unix_ms)
        calls = [piece for row in below if row.kind in CALLS for piece in self._pieces_of(row)]
        steps = [row for row in below if row.kind == "step"]
        ends = [piece for row in steps for piece in (*self._own_waits(row), *self._failed_ends(row))]
        pieces: list[BarPiece] = []
        last: dict[str, int] = {}
        for piece in (*calls, *ends):
            place = last.get(piece.kind)
            before = pieces[place] if place is not None else None
            if place is not None and before is not None and before.x <= piece.x <= before.x + before.width:
                width = max(before.width, piece.x + piece.width - before.x)
                pieces[place] = BarPiece(piece.kind, before.x, round(width, 2), before.label)
            else:
                last[piece.kind] = len(pieces)
                pieces.append(piece)
        return sorted(pieces, key=lambda piece: 0 if piece.kind in CALLS else 2 if piece.kind == "failed" else 1)

    def _piece(self, kind: str, at_unix_ms: int, took_ms: int | None, what: str = "") -> BarPiece:
        span = self.until_unix_ms - self.began_unix_ms
        until_unix_ms = self.until_unix_ms if took_ms is None else at_unix_ms + took_ms
        x = min(max(0.0, (at_unix_ms - self.began_unix_ms) * 100 / span), 100 - MIN_WIDTH)
        width = min(max(MIN_WIDTH, (until_unix_ms - at_unix_ms) * 100 / span), 100 - x)
        label = ": ".join(filter(None, (PIECES.get(kind, kind), cut_line(what, MAX_NOTE_CHARS))))
        return BarPiece(kind, round(x, 2), round(width, 2), label)

    def _end_piece(self, end_unix_ms: int) -> BarPiece:
        span = self.until_unix_ms - self.began_unix_ms
        x = min(max(0.0, (end_unix_ms - self.began_unix_ms) * 100 / span - MIN_WIDTH), 100 - MIN_WIDTH)
        return BarPiece("failed", round(x, 2), MIN_WIDTH, "failed")

    def ticks(self) -> list[tuple[float, str]]:
        """Places on the axis, in percent, with their times; the last is its end."""
        span = self.until_unix_ms - self.began_unix_ms
        steps = [(unit, size, count) for unit, size, counts in UNITS for count in counts]
        long_step = ("h", 3_600_000, span // 3_600_000 // MAX_TICKS + 1)
        unit, size, count = next((step for step in steps if span < step[1] * step[2] * MAX_TICKS), long_step)
        in_seconds = unit == "ms" and count * MAX_TICKS > 1_000
        ticks = [count * number for number in range(MAX_TICKS + 1) if count * number * size * 100 < span * LAST_TICK]
        labels = [f"{tick / 1_000:g} s" if in_seconds else f"{tick} {unit}" for tick in ticks]
        places = [(round(tick * size * 100 / span, 2), label) for tick, label in zip(ticks, labels, strict=True)]
        return [*places, (100.0, format_duration(span))]

    def used_tools(self) -> list[tuple[str, int, int]]:
        """Name, calls and failed calls of each tool that the task called, the most used first."""
        calls = [node for node in self.nodes.values() if node.kind in ("tool", "search")]
        failed = Counter(node.told["name"] for node in calls if node.state in BAD and node.state != "stopped")
        called = Counter(node.told["name"] for node in calls)
        return [(name, count, failed[name]) for name, count in called.most_common()]

    def awaited_inputs(self, node: TreeNode) -> list[str]:
        """Titles of the steps on which a step builds and that are not over yet."""
        version, inputs = node.told.get("plan_version"), node.told.get("inputs", ()) if node.kind == "step" else ()
        steps = [self.nodes.get(f"step.{version}.{step_id}") for step_id in inputs]
        return [step.name for step in steps if step is not None and step.state not in ("accepted", "skipped")]

    def holder_of(self, node: TreeNode) -> str:
        """Title of the input that a step which has begun waited for longest; "" where it had none."""
        version, inputs = node.told.get("plan_version"), node.told.get("inputs", ()) if node.kind == "step" else ()
        steps = [self.nodes[key] for step_id in inputs if (key := f"step.{version}.{step_id}") in self.nodes]
        last = max(steps, key=lambda step: step.began_unix_ms + (step.took_ms or 0), default=None)
        return last.name if last is not None and last.began_unix_ms else ""

    def dependents_of(self, node: TreeNode) -> list[TreeNode]:
        """Steps that build on a step."""
        steps = (other for other in self.nodes.values() if other.kind == "step") if node.kind == "step" else ()
        return [
            other
            for other in steps
            if other.told["plan_version"] == node.told["plan_version"]
            and node.told["step_id"] in other.told.get("inputs", ())
        ]

    def open_wait(self, node: TreeNode) -> Json | None:
        """The wait in which a step that has begun, or a call, stands still now."""
        below = [self.nodes[key] for key in self._in_order(node.children)] if node.kind == "step" else []
        waits = [wait for row in (node, *below) for wait in row.waits if wait["took_ms"] is None]
        return waits[-1] if waits and node.took_ms is None and not self._has_ended else None

    def open_waits(self) -> list[tuple[TreeNode, Json]]:
        """Steps of the last plan that wait now, with what for, other than for their turn."""
        steps = [self.nodes[key] for root in self.roots[-1:] for key in self.nodes[root].children]
        return [
            (node, wait)
            for node in steps
            if node.kind == "step" and node.state == RUNS
            for wait in node.waits
            if wait["took_ms"] is None and wait["kind"] in ("lease", "step")
        ]


def _name_plan(plan: Json, *, is_only: bool) -> str:
    if plan["origin"] == "adopted":
        return "Run of an outside agent"
    return "Plan" if is_only else f"Plan {plan['version']}"


def _covers(wait: Json, call: TreeNode) -> bool:
    """True if a call did nothing but wait."""
    if wait["kind"] == "retried" or wait["at_unix_ms"] > call.began_unix_ms:
        return False
    return wait["took_ms"] is None or (
        call.took_ms is not None and wait["at_unix_ms"] + wait["took_ms"] >= call.began_unix_ms + call.took_ms
    )


def _falls_into(wait: Json, attempt: Json) -> bool:
    """True if a wait of a step began in this attempt."""
    since_ms: int = wait["at_unix_ms"] - attempt["began_unix_ms"]
    return since_ms >= 0 and (attempt["took_ms"] is None or since_ms < attempt["took_ms"])


def _tokens_of(row: Json) -> int:
    tokens: int = row["usage"]["input_tokens"] + row["usage"]["output_tokens"]
    return tokens


def _text_of(node: TreeNode) -> str:
    """Text in which words are looked for."""

    parts = (
        node.name,
        node.state,
        node.note,
        *(str(node.told.get(name, "")) for name in ("result", "failure", "model", "step_id")),
    )
    return " ".join(parts).lower()
