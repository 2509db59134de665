"""`bulkhead eval online`: a share of what ends is judged, for as long as it runs.

In: a target, and what to judge by. Out: a line a verdict, and ratings in the mesh.
"""

import asyncio
import re
import time
from dataclasses import dataclass
from typing import Self

from bulkhead.client import MeshError, Refused
from bulkhead.evaluation.online import DayBudget, GroundingJudge, JudgedTask, OnlineJudge, OnlineJudging
from bulkhead_cli.options import since_s
from bulkhead_cli.output import CommandError, Exit, json_line
from bulkhead_cli.screen import err, out
from bulkhead_cli.target import GatewayTarget

JUDGES: dict[str, type[GroundingJudge]] = {"grounded": GroundingJudge}


@dataclass(frozen=True, slots=True)
class OnlineRequest:
    """Request for online judging. share: from 0 to 1. once: one look."""

    judge: OnlineJudge
    share: float
    budget_usd_micros: int
    every_s: int
    once: bool

    @classmethod
    def parse(cls, judge: str, share: str, budget_usd: str, every: str, *, once: bool) -> Self:
        """Parse what people write. Raises CommandError."""
        if judge not in JUDGES:
            raise CommandError(Exit.USAGE, f"there is no judge {judge[:64]}", f"name one of: {', '.join(JUDGES)}")
        percent = re.fullmatch(r"(\d{1,3}(?:\.\d{1,4})?)%?", share)
        if percent is None or not 0 < float(percent[1]) <= 100:
            raise CommandError(Exit.USAGE, f"--share {share[:20]!r} is no share", "write a percentage, as in 5%")
        amount = re.fullmatch(r"(\d{1,6}(?:\.\d{1,6})?)(?:/day)?", budget_usd)
        if amount is None:
            raise CommandError(Exit.USAGE, f"--budget-usd {budget_usd[:20]!r} is no amount", "write it as 1/day")
        budget_usd_micros = round(float(amount[1]) * 1_000_000)
        return cls(JUDGES[judge](), float(percent[1]) / 100, budget_usd_micros, since_s(every), once)


async def judge_online(target: GatewayTarget, request: OnlineRequest, *, as_json: bool) -> Exit:
    """Judge until it is stopped, or once. Raises CommandError, and MeshError at its first look."""
    async with target.mesh_client() as mesh:
        budget = DayBudget(request.budget_usd_micros)
        judging, first = OnlineJudging(mesh, request.judge, request.share, budget), True
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
        print(json_line({"task_id": judged.task, **(verdict._asdict() if verdict else {"budget": "spent"})}))
    elif verdict is None:
        out.print(f"{judged.task} waits: the money of the day is spent", style="yellow", markup=False)
    else:
        outcome = {True: "good", False: "bad", None: "abstains"}[verdict.passed]
        out.print(f"{judged.task} {outcome}: {verdict.reason}", markup=False)
