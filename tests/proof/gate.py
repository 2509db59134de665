"""Proof of the gate: three kinds of planted regression in a prompt are refused at a label, and no change is not.

A mesh of processes with the offline model, the shipped example set, `eval serve` with a key of its own.
"""

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from bulkhead.client import Mesh, Refused
from bulkhead.evaluation.statement import make_key
from bulkhead_cli.evaluation.serve import ServeRequest, serve_evaluations
from bulkhead_cli.screen import out
from bulkhead_cli.target import GatewayTarget
from bulkhead_infra.local.supervisor import LocalMesh
from tests.e2e.fixtures.world import write_tenants
from tests.paths import ROOT
from tests.proof.__main__ import Figure

SETS = ROOT / "examples" / "evaluation"
REGRESSIONS = {
    "drops citations": "Do not cite.",
    "refuses too often": "Answer only what at least 3 sources say.",
    "doubles length": "Say everything twice.",
}


def measure() -> list[Figure]:
    """Figures of each planted regression, and of none."""
    with tempfile.TemporaryDirectory(prefix="bulkhead-proof-") as folder:
        out.quiet = True
        try:
            return asyncio.run(_measure(Path(folder)))
        finally:
            out.quiet = False


async def _measure(folder: Path) -> list[Figure]:
    key = folder / "key.pem"
    gate = {"sets": {"cases": None}, "keys": [make_key(key)], "min_pass": 0.9}
    tenants = write_tenants(folder / "tenants.yaml", demo={"gates": {"production": gate}})
    figures = []
    async with LocalMesh(folder / "mesh", durability="process", tenants=tenants) as mesh:
        target = GatewayTarget(mesh.url, mesh.add_api_key("demo", "eve", "evaluator"))
        async with Mesh(mesh.url, mesh.add_api_key("demo", "pia", "prompt_editor")) as editor:
            shipped = (await editor.prompt("worker.step"))["shipped_text"]
            for name, instruction in {"no regression": "Be brief.", **REGRESSIONS}.items():
                change = await _publish(editor, f"{shipped}\n{instruction}\n")
                await editor.request_evaluation("production", [change], name, case_set="cases")
                request = ServeRequest(SETS, key, 1, 4, 0, 120.0, once=True)
                await serve_evaluations(target, folder, request)
                figures.append(await _try_move(editor, name, change, is_bad=name in REGRESSIONS))
    return figures


async def _publish(editor: Mesh, text: str) -> dict[str, Any]:
    version = await editor.publish_prompt("worker.step", {"text": text, "variables": []}, "planted", "proof")
    return {"prompt": "worker.step", "number": version["number"]}


async def _try_move(editor: Mesh, name: str, change: dict[str, Any], *, is_bad: bool) -> Figure:
    """Move the label to a version that has just been evaluated."""
    after = len((await editor.releases("production"))["releases"])
    try:
        await editor.move_label("production", after, name, {"changes": [change]})
        code = "moved"
    except Refused as error:
        code = error.code
    number = (await editor.evaluations())["evaluations"][0]["evaluation"]["number"]
    predicate = (await editor.evaluation(number))["statement"]["predicate"]
    fell = f"{predicate['failed_count']} of {predicate['cases']} cases fell"
    cost = f"{predicate['runs']} tasks, ${predicate['spent_usd_micros'] / 1e6:.4f}"
    claim = "gate_failed" if is_bad else "moved"
    return Figure(name, f"{code}: {fell} in {cost}", claim, code == claim)
