"""`bulkhead eval online`: a share of what ends is judged, for as long as it runs.

In: a target, and what to judge by. Out: a line a verdict, and ratings in the mesh.
"""

import asyncio
import re
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

from bulkhead.client import MeshError, Refused
from bulkhead.evaluation.cases import CaseError
from bulkhead.evaluation.judges.certificates import SeatedJudge, certificate_path, seat_judge
from bulkhead.evaluation.judges.jury import build_vote_plan
from bulkhead.evaluation.judges.panels import Judge, find_judge
from bulkhead.evaluation.on_mesh import MeshRunner
from bulkhead.evaluation.online import DayBudget, JudgedTask, OnlineJudging, SeatedOnlineJudge
from bulkhead.gateway_api.ratings import OF_ONLINE_JUDGES
from bulkhead_cli.options import since_s
from bulkhead_cli.output import CommandError, Exit, json_line
from bulkhead_cli.screen import err, out
from bulkhead_cli.target import GatewayTarget

DEADLINE_S = 120.0


@dataclass(frozen=True, slots=True)
class OnlineRequest:
    """Request for online judging. certificate: its file. share: from 0 to 1. once: one look."""

    seat: SeatedJudge
    certificate: Path
    share: float
    budget_usd_micros: int
    every_s: int
    once: bool

    @classmethod
    def parse(cls, judge: str, judges: Path, share: str, budget_usd: str, every: str, *, once: bool) -> Self:
        """Parse what people write. judges: file that declares them, beside their certificates. Raises CommandError."""
        percent = re.fullmatch(r"(\d{1,3}(?:\.\d{1,4})?)%?", share)
        if percent is None or not 0 < float(percent[1]) <= 100:
            raise CommandError(Exit.USAGE, f"--share {share[:20]!r} is no share", "write a percentage, as in 5%")
        amount = re.fullmatch(r"(\d{1,6}(?:\.\d{1,6})?)(?:/day)?", budget_usd)
        if amount is None:
            raise CommandError(Exit.USAGE, f"--budget-usd {budget_usd[:20]!r} is no amount", "write it as 1/day")
        budget_usd_micros = round(float(amount[1]) * 1_000_000)
        seat, place = _seat_judge(judge, judges), certificate_path(judges.parent, judge)
        return cls(seat, place, float(percent[1]) / 100, budget_usd_micros, since_s(every), once)


def _seat_judge(name: str, path: Path) -> SeatedJudge:
    """The judge, with its certificate. Raises CommandError."""
    try:
        return seat_judge(find_judge(path, name), certificate_path(path.parent, name), round(time.time() * 1000))
    except CaseError as error:
        raise CommandError(Exit.USAGE, str(error), error.hint, name="evaluation") from error


def _reseat_judge(judge: Judge, path: Path) -> SeatedJudge:
    """The same judge with its certificate as it is now; one that cannot be read leaves advice."""
    try:
        return seat_judge(judge, path, round(time.time() * 1000))
    except CaseError as error:
        return SeatedJudge(judge=judge, advice=str(error))


async def judge_online(target: GatewayTarget, request: OnlineRequest, *, as_json: bool) -> Exit:
    """Judge until it is stopped, or once. Raises CommandError, and MeshError at its first look."""
    seat = request.seat
    if seat.advice:
        err.print(f"{seat.judge.name} is not certified: {seat.advice}", style="yellow", markup=False)
    async with target.mesh_client() as mesh:
        plan_of = partial(build_vote_plan, {seat.judge.name: seat})
        # A vote that is under way when this is stopped is collected by the next one.
        votes = MeshRunner(
            mesh, feature=OF_ONLINE_JUDGES, deadline_s=DEADLINE_S, plan_of=plan_of, check=False, leaves_running=True
        )
        read_seat = partial(_reseat_judge, seat.judge, request.certificate)
        judge = SeatedOnlineJudge(read_seat, votes if seat.judge.jury else None)
        judging, first = OnlineJudging(mesh, judge, request.share, DayBudget(request.budget_usd_micros)), True
        if seat.judge.jury:
            await judging.read_spent(round(time.time() * 1000))
        while True:
            try:
                async for judged in judging.judge_ended(round(time.time() * 1000)):
                    _print_judged(judged, as_json=as_json)
            except MeshError as error:
                # A mesh that restarts comes back; what it refuses for good it refuses at the first look, too.
                if first or request.once or (isinstance(error, Refused) and error.status in (401, 403)):
                    raise
                err.print(f"{error}; looking again", style="yellow", markup=False)
            if request.once:
                return Exit.OK
            first = False
            await asyncio.sleep(request.every_s)


def _print_judged(judged: JudgedTask, *, as_json: bool) -> None:
    verdict = judged.verdict
    if as_json:
        row: dict[str, Any] = {"budget": "spent"}
        if verdict is not None:
            row = {name: getattr(verdict, name) for name in ("passed", "reason", "cost_usd_micros", "certified")}
        print(json_line({"task_id": judged.task, **row}))
    elif verdict is None:
        out.print(f"{judged.task} waits: the money of the day is spent", style="yellow", markup=False)
    else:
        outcome = {True: "good", False: "bad", None: "abstains"}[verdict.passed]
        out.print(f"{judged.task} {outcome}: {verdict.reason}", markup=False)
