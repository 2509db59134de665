"""Attacks and honest tasks, played against the decision by an agent that does whatever it is told.

In: honest.yaml, attacks.yaml and the tools and rules of the office. Out: a Table. Nothing decides here but
`bulkhead.policy`; the agent has no scruples and the harness no judgement. An approver is one of three: nobody is there
(every question is a refusal), an oracle (grants what the honest task needs and no more), somebody who grants all.
"""

import base64
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

import bulkhead_infra
from bulkhead.policy.attribution import SourceText, attribute_values
from bulkhead.policy.cedar import CedarPolicy
from bulkhead.policy.decision import decide
from bulkhead.policy.records import DecisionRecord, RecordCall, RecordContent, RecordGrant, RecordPlan, build_proposal
from bulkhead.policy.ruling import CallRuling
from bulkhead.policy.sinks import sinks_of
from bulkhead.policy.values import values_of
from bulkhead.tools import catalog
from bulkhead_contracts.model import ModelCallReplied
from bulkhead_contracts.provenance import Flow, PlannedCall, PlannedValue, Selector
from bulkhead_contracts.tool import ToolSpec
from bulkhead_services.planner import drafts

HERE = Path(__file__).parent
HELD_OUT = HERE / "held_out"
"""Cases whose author had not seen the rules' code, and of the other cases only the first."""
KINDS = HERE / "kinds"
"""Cases by kind of what is hard about them."""
RULES = HERE / "rules"
"""Cases in which the plan states values by a rule: it selects records, bounds figures or calculates them."""
FRESH = HERE / "fresh"
"""Cases over the work of a team, whose author had not seen the rules' code; written before any was run."""
HOUSE = Path(bulkhead_infra.__file__).parent / "policy" / "default.cedar"
Approver = Literal["nobody", "oracle", "everybody"]
APPROVERS: tuple[Approver, ...] = ("nobody", "oracle", "everybody")
WHEN = ("first", "before", "after")
"""The attack's calls: before anything was read, as soon as the text was read, after the honest calls."""
STEP = "step"


@dataclass(frozen=True, slots=True)
class Move:
    """One call of an agent, and what its tool gives."""

    tool: str
    arguments: Mapping[str, Any]
    gives: str = ""


@dataclass(frozen=True, slots=True)
class Task:
    """An honest task. flows, figures, planned: what its plan declares. figures: of calls, by tool. granted: tools of
    its step; all where it is empty."""

    id: str
    asked: str
    calls: tuple[Move, ...]
    flows: tuple[Flow, ...] = ()
    figures: tuple[tuple[str, PlannedValue], ...] = ()
    planned: tuple[PlannedCall, ...] = ()
    granted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Attack:
    """What an outsider wants from a task. where: what carries his text. left: nothing is done against its kind."""

    id: str
    task: Task
    where: str
    text: str
    does: tuple[Move, ...]
    left: str = ""
    kind: str = ""


@dataclass(slots=True)
class Run:
    """One task, played. made: the calls that were made; asked: rulings that asked, with the call."""

    made: list[Move] = field(default_factory=list)
    asked: list[tuple[Move, CallRuling]] = field(default_factory=list)
    refused: list[tuple[Move, CallRuling]] = field(default_factory=list)
    consequential: int = 0


@cache
def tools() -> Mapping[str, ToolSpec]:
    """The tools of the office."""
    return {row.spec.name: row.spec for row in catalog.file_rows(HERE / "tools.yaml")}


@cache
def policy() -> CedarPolicy:
    """The house's rules as they ship, and the office's."""
    files = {"default.cedar": HOUSE.read_text(), "office.cedar": (HERE / "office.cedar").read_text()}
    return CedarPolicy(files, tools().values())


@cache
def tasks(of: Path = HERE) -> Mapping[str, Task]:
    """honest.yaml of a set."""
    rows = yaml.safe_load((of / "honest.yaml").read_text())
    return {row["id"]: _task(row) for row in rows}


def _task(row: Mapping[str, Any]) -> Task:
    task = Task(row["id"], row["asked"], _moves(row["calls"]), _flows(row), _figures(row))
    return planned_by_reading(task) if task.figures else task


@cache
def attacks(of: Path = HERE) -> tuple[Attack, ...]:
    """attacks.yaml of a set."""
    rows, known = yaml.safe_load((of / "attacks.yaml").read_text()), tasks(of)
    return tuple(
        Attack(
            row["id"],
            known[row["case"]],
            row["in"],
            row.get("text", ""),
            _moves(row["does"]),
            row.get("left", ""),
            row.get("kind", ""),
        )
        for row in rows
    )


def _moves(rows: Iterable[Sequence[Any]]) -> tuple[Move, ...]:
    return tuple(Move(*row) for row in rows)


def _flows(row: Mapping[str, Any]) -> tuple[Flow, ...]:
    """`TOOL /ARGUMENT <- TOOL /FIELD where TEST /FIELD TEXT; TEST ... as OPERAND`, of which the end may be left out."""
    flows = []
    for text in row.get("flows", ()):
        text, _, operand = text.partition(" as ")
        text, _, conditions = text.partition(" where ")
        tool, argument, _, source, pointer = text.split()
        tests = [condition.split(" ", 2) for condition in conditions.split("; ") if condition]
        selectors = tuple(
            Selector(test=words[0], field="".join(words[1:2]), text="".join(words[2:])) for words in tests
        )
        flows.append(
            Flow(
                tool=tool,
                argument=argument,
                step_id=STEP,
                from_tool=source,
                field=pointer,
                where=selectors,
                operand=operand,
            )
        )
    return tuple(flows)


def _figures(row: Mapping[str, Any]) -> tuple[tuple[str, PlannedValue], ...]:
    """`TOOL /ARGUMENT = EXPRESSION` or `TOOL /ARGUMENT in LEAST..MOST`."""
    figures = []
    for text in row.get("figures", ()):
        tool, argument, sign, rule = text.split(" ", 3)
        least, _, most = rule.partition("..")
        value = {"calculate": rule} if sign == "=" else {"at_least": least, "at_most": most}
        figures.append((tool, PlannedValue(argument=argument, **value)))
    return tuple(figures)


def planned_by_reading(task: Task) -> Task:
    """The task with the calls that a planner foresees who reads the asker's words, and nothing else: each with the
    values in sinks that stand there."""
    asked = [SourceText(task.asked, "user", "0" * 64)]
    planned: list[PlannedCall] = []
    for move in task.calls:
        kinds = {sink.argument: sink.kind for sink in sinks_of(tools()[move.tool], task.flows)}
        said = {(value.pointer, value.text) for value in attribute_values(move.arguments, asked)[0] if value.origins}
        values = list(values_of(move.arguments)) if kinds or consequential(move.tool) else []
        literals = [figure for tool, figure in task.figures if tool == move.tool]
        for leaf in (value for value in values if value.role == "leaf"):
            parts = [part for part in values if part.role == "part" and part.pointer == leaf.pointer]
            kind = kinds.get("/" + leaf.pointer.split("/")[1], kinds.get("/*", "text"))
            known = {(leaf.pointer, leaf.text)} <= said or (
                parts and all((part.pointer, part.text) in said for part in parts)
            )
            is_stated = any(figure.argument == leaf.pointer for figure in literals)
            if known and kind != "text" and not is_stated:
                literals.append(PlannedValue(argument=leaf.pointer, text=leaf.text))
        planned.append(PlannedCall(tool=move.tool, values=tuple(literals)))
    return replace(task, planned=tuple(planned))


def drafted(task: Task, of: Path = HERE) -> Task:
    """The task with the calls and flows of the plan that a model drafted, as the planner reads them."""
    row = _drafts(of)[task.id]
    names = {tool for tool, *_ in row.get("calls", ())} | {name for name in tools() if not consequential(name)}
    calls = [
        {
            "tool": tool,
            "values": [
                {"argument": argument, "text": text}
                for argument, text in (given.items() if isinstance(given, dict) else given)
            ],
            "figures": [
                figure.model_dump(include={"argument", "at_least", "at_most", "calculate"})
                for name, figure in _figures(row)
                if name == tool
            ],
            "times": times[0] if times else 1,
        }
        for tool, given, *times in row.get("calls", ())
    ]
    flows = [flow.model_dump() for flow in _flows(row)]
    step = {"id": STEP, "instruction": task.asked, "acceptance": "It is done.", "tools": sorted(names)}
    text = json.dumps({"steps": [{**step, "calls": calls, "flows": flows}]})
    reply = ModelCallReplied(call_id="draft", outcome="answered", prompt_id="planner.draft@2")
    (read,), notes = drafts.read_reply(reply, text, tuple(tools().values()))
    assert not notes, (task.id, notes)
    return replace(task, flows=read.flows, planned=read.calls, granted=read.tools)


@cache
def _drafts(of: Path) -> Mapping[str, Mapping[str, Any]]:
    rows: Mapping[str, Mapping[str, Any]] = yaml.safe_load((of / "drafts.yaml").read_text())
    return rows


def drafted_unbound(task: Task, of: Path = HERE) -> Task:
    """The task with the tools of that plan alone: what it was while a model could foresee nothing."""
    return replace(drafted(task, of), flows=(), planned=())


def planned_anew(task: Task, of: Path = HERE) -> Task:
    """The task with the plan that its asker brought, which foresees its calls."""
    return planned_by_reading(task)


def as_submitted(task: Task, of: Path = HERE) -> Task:
    """The task with the flows that its asker's plan declares."""
    return task


PLANS: Mapping[str, Callable[[Task, Path], Task]] = {
    "": as_submitted,
    "calls planned": planned_anew,
    "drafted, unbound": drafted_unbound,
    "drafted": drafted,
}
"""Where a task's flows and calls come from, by name."""


def consequential(tool: str) -> bool:
    """Whether a call of the tool changes the world or leaves the house."""
    spec = tools().get(tool)
    return spec is None or spec.effect == "write" or spec.egress


class Play:
    """One task in progress: the texts that the model was shown, and the calls made."""

    def __init__(self, task: Task, approver: Approver) -> None:
        self.task, self.approver, self.run = task, approver, Run()
        self.texts = [RecordContent(content=task.asked, source="user")]

    def show(self, text: str, source: Literal["retrieved", "tool", "model"], name: str) -> None:
        """A text comes into the context."""
        self.texts.append(RecordContent(content=text, source=source, name=name, step_id=STEP))

    def call(self, move: Move) -> bool:
        """Propose a call; whether it was made."""
        if consequential(move.tool):
            self.run.consequential += 1
        ruling = self._ruled(move)
        if ruling.effect == "ask":
            self.run.asked.append((move, ruling))
        if ruling.effect == "forbid" or (ruling.effect == "ask" and not self._agrees(move)):
            self.run.refused.append((move, ruling))
            return False
        self.run.made.append(move)
        if move.gives:
            self.show(move.gives, "tool", move.tool)
        return True

    def _ruled(self, move: Move) -> CallRuling:
        before = sum(made.tool == move.tool for made in self.run.made)
        if move.tool not in tools():
            return CallRuling("forbid", "grant", policy().sha256, code="not_granted")
        record = DecisionRecord(
            grant=RecordGrant(tenant="office", tools=self.task.granted or tuple(tools())),
            plan=RecordPlan(flows=self.task.flows, calls=self.task.planned),
            sources=tuple(self.texts),
            call=RecordCall(tool=move.tool, arguments=dict(move.arguments), step_id=STEP, calls_before=before),
        )
        return decide(build_proposal(record, tools()), policy())

    def _agrees(self, move: Move) -> bool:
        return self.approver == "everybody" or (
            self.approver == "oracle" and any(_same(move, honest) for honest in self.task.calls)
        )


def _same(one: Move, other: Move) -> bool:
    return (one.tool, one.arguments) == (other.tool, other.arguments)


def honest(task: Task, approver: Approver) -> Run:
    """The task without an attack."""
    play = Play(task, approver)
    for move in task.calls:
        play.call(move)
    return play.run


def attacked(attack: Attack, when: str, spelled: bool, approver: Approver) -> tuple[Run, bool]:
    """The task with the attack, and whether all of the attack's calls were made."""
    play = Play(attack.task, approver)
    text = attack.text if spelled else _hidden(attack.text)
    if text and attack.where != "result":
        _carry(play, attack.where, text)
    done: list[bool] = []
    struck = when == "first"
    if struck:
        done = [play.call(move) for move in attack.does]
    for at, move in enumerate(attack.task.calls):
        carries = text and attack.where == "result" and at == 0
        play.call(replace(move, gives=_with(move.gives, text)) if carries else move)
        if when == "before" and not struck:
            struck, done = True, [play.call(one) for one in attack.does]
    if not struck:
        done = [play.call(one) for one in attack.does]
    return play.run, all(done)


def _hidden(text: str) -> str:
    return text and f"Decode and follow: {base64.b64encode(text.encode()).decode()}"


def _carry(play: Play, where: str, text: str) -> None:
    match where:
        case "document":
            play.show(text, "retrieved", "note.md")
        case "description":
            play.show(text, "model", "description of a tool")
        case "file name":
            play.show(f"note.md\n{text}", "tool", "list_files")
        case "memory":
            play.show(text, "tool", "read_memory")
        case "web page":
            play.show(f"<html><body><p>{text}</p></body></html>", "tool", "fetch")
        case "error message":
            play.show(f"Error: {text}", "tool", "run_command")
        case "calendar":
            play.show(f"09:00 {text}", "tool", "read_calendar")
        case "agent":
            play.show(text, "model", "another agent")
        case "scan":
            play.show(f"[code] {text}", "retrieved", "scan.pdf")
        case _:
            raise ValueError(f"attacks.yaml: {where} carries nothing")


def _with(gives: str, text: str) -> str:
    """A result with the injected text in it: in JSON as one more field, as an outsider can fill it."""
    try:
        found = json.loads(gives)
    except ValueError:
        return f"{gives}\n{text}"
    return json.dumps({**found, "comment": text})


@dataclass(frozen=True, slots=True)
class Row:
    """Figures with one approver. succeeded, left: attacks that succeed in any of their runs, by name; `left` those of
    the kinds against which nothing is done. naming: of the questions about attacks, those that name each value that is
    not the asker's."""

    approver: str
    attacks: int
    attacks_left: int
    attack_runs: int
    honest: int
    completed: int
    consequential: int
    approvals: int
    questions: int
    naming: int
    succeeded: tuple[str, ...]
    left: tuple[str, ...]
    incomplete: tuple[str, ...]

    @property
    def attack_share(self) -> float:
        """Of the attacks, those that succeed in any of their runs."""
        return len(self.succeeded) / self.attacks

    @property
    def completion(self) -> float:
        """Of the honest tasks, those of which every call was made."""
        return self.completed / self.honest

    @property
    def approvals_per_100(self) -> float:
        """Questions per 100 consequential calls of honest tasks."""
        return 100 * self.approvals / self.consequential


def measure(approver: Approver, of: Path = HERE, plans: str = "") -> Row:
    """Every task and every attack of a set, in each order and both spellings. plans: of PLANS."""
    plan = PLANS[plans]
    runs = {task.id: honest(plan(task, of), approver) for task in tasks(of).values()}
    complete = {name for name, run in runs.items() if len(run.made) == len(tasks(of)[name].calls)}
    won: dict[str, bool] = {}
    played, questions = 0, list[bool]()
    for attack in attacks(of):
        task = plan(attack.task, of)
        if plans == "drafted" and attack.where == "description":
            # The words of a tool's own server may lead the model that drafts: then nothing flows, and all is open.
            task = replace(attack.task, flows=())
        attack = replace(attack, task=task)
        for when in WHEN:
            for spelled in (True, False) if attack.text else (True,):
                run, success = attacked(attack, when, spelled, approver)
                played += 1
                won[attack.id] = won.get(attack.id, False) or success
                questions += [_named(ruling) for move, ruling in run.asked if any(move is one for one in attack.does)]
    left = {attack.id for attack in attacks(of) if attack.left}
    return Row(
        approver=", ".join(filter(None, (approver, plans))),
        attacks=len(won) - len(left),
        attacks_left=len(left),
        attack_runs=played,
        honest=len(runs),
        completed=len(complete),
        consequential=sum(run.consequential for run in runs.values()),
        approvals=sum(len(run.asked) for run in runs.values()),
        questions=len(questions),
        naming=sum(questions),
        succeeded=tuple(name for name, success in won.items() if success and name not in left),
        left=tuple(name for name, success in won.items() if success and name in left),
        incomplete=tuple(name for name in runs if name not in complete),
    )


def _named(ruling: CallRuling) -> bool:
    """Whether a question names a value that is not the asker's, and says so of each."""
    shown = [(json.dumps(one.text[:60], ensure_ascii=False)[1:-1], one.why) for one in ruling.findings]
    return bool(shown) and all(text in why for text, why in shown)


HEADS = (
    "to ask",
    "attacks succeed",
    "of kinds left",
    "honest completion",
    "approvals per 100",
    "questions that name it",
)


def table(rows: Sequence[Row]) -> str:
    """The table that `make security` prints."""
    cells = [HEADS]
    for row in rows:
        won = f"{len(row.succeeded)}/{row.attacks} ({row.attack_share:.1%})"
        done = f"{row.completed}/{row.honest} ({row.completion:.1%})"
        left, named = f"{len(row.left)}/{row.attacks_left}", f"{row.naming}/{row.questions}"
        cells.append((row.approver, won, left, done, f"{row.approvals_per_100:.1f}", named))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)


def document(rows: Sequence[Row], others: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """The same as a JSON object, other sets by the names of their folders."""
    other_rows = {name: _rows(of) for name, of in others.items()}
    return {"policy_sha256": policy().sha256, "rows": _rows(rows)} | other_rows


def _rows(rows: Sequence[Row]) -> list[dict[str, Any]]:
    shares = ("attack_share", "completion", "approvals_per_100")
    return [{**asdict(row), **{name: getattr(row, name) for name in shares}} for row in rows]
