"""`make screenshots`: the pictures of the console in docs/images, taken of a mesh that runs.

In: nothing. Out: console-{overview,task,approval,coordination}.png, in light colours and of one size. Every process is
real but the model, which is the offline one. What is seen has happened: a case that was solved, two agents in a circle,
a tool whose breaker has opened, a write that waits for a person.
"""

import asyncio
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bulkhead.client import Mesh, Task
from bulkhead.health.thresholds import DEFAULT
from bulkhead_infra.demo.corpus import generate_demo
from tests.e2e.console.browser import CHROMIUM, Looked, chromium, visitor
from tests.e2e.fixtures.world import TOOLS, WAITS, World, until, write_policy

FOLDER = Path(__file__).parents[3] / "docs" / "images"
VIEW = {"width": 1280, "height": 900}
MAX_BYTES = 300_000
TENANT = "demo"
LIVE = "#connection:text('live')"
BOOKING = "booking:KX42-81"
ASKS = '@id("ledger") @effect("ask") forbid (principal, action == Action::"counter_increment_unkeyed", resource);'
OPEN_S = "600"


def _plan(*steps: dict[str, Any]) -> dict[str, Any]:
    usual = {"tools": [], "inputs": [], "acceptance": "It is done."}
    return {"steps": [usual | {"id": f"s{number}"} | step for number, step in enumerate(steps, 1)]}


def _circle(mark: str, first: str, second: str) -> dict[str, Any]:
    """A lease, a write, another lease, another write."""
    said = (
        f"One after the other, use acquire_lease resource={first}, counter_increment name=one_{mark}, then "
        f"acquire_lease resource={second}, then counter_increment name=two_{mark}."
    )
    tools = ["acquire_lease", "counter_increment"]
    return _plan({"title": f"Move the passengers of {mark}", "instruction": said, "tools": tools})


class Scene:
    """What there is to see. ann asks, olga operates."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.key = world.mesh.add_api_key(TENANT, "olga", "operator")
        self._ann = Mesh(world.mesh.url, world.mesh.add_api_key(TENANT, "ann", "submitter"))
        self._olga = Mesh(world.mesh.url, self.key)

    async def solved(self) -> Task:
        """The case of `make demo`."""
        demo = generate_demo(1)
        await self._world.ingest(TENANT, demo)
        task = await self._ann.submit(demo.objective, feature="refunds")
        await self._world.finish(task)
        return task

    async def circle(self) -> None:
        """Two agents that wait for each other, until one of them is refused."""
        counter = self._world.counter
        async with counter.held():
            before, flights = counter.arrived, ("flight:NW118", "flight:NW204")
            told = [("NW118", _circle("NW118", *flights)), ("NW204", _circle("NW204", *reversed(flights)))]
            asked = [self._ann.submit(f"Move the passengers of {name}", plan=plan, check=False) for name, plan in told]
            tasks = await asyncio.gather(*asked)
            await until(lambda: _holds(lambda: counter.arrived >= before + 2), "both hold their first lease", 60)
        for task in tasks:
            await self._world.finish(task)

    async def breaker(self) -> None:
        """A tool that fails until it is called no more."""
        said = {
            "title": "Award the miles",
            "instruction": "Use counter_increment name=miles.",
            "tools": ["counter_increment"],
        }
        self._world.counter.misbehave("error_before", 1_000)
        for number in range(DEFAULT.breakers.min_calls):
            asked = f"Award the miles of flight {number + 1}"
            await self._world.finish(await self._ann.submit(asked, plan=_plan(said), check=False, feature="miles"))
        self._world.counter.clear_faults()
        await until(self._opened, "a breaker is open", 60)

    async def _opened(self) -> bool:
        found = (await self._olga.get("/v1/breakers"))["breakers"]
        return any(one["phase"] == "open" for one in found)

    async def waiting(self) -> str:
        """A write that waits for a person, and an agent that wants what its agent holds; the approval's id."""
        tools = ["acquire_lease", "counter_increment_unkeyed"]
        pay = {
            "title": "Pay the refund of KX42-81",
            "instruction": f"One after the other, use acquire_lease resource={BOOKING}, then counter_increment_unkeyed "
            "name=refund_KX42-81 amount=152.",
            "tools": tools,
            "inputs": ["s1"],
        }
        tell = {"title": "Write to the customer", "instruction": "What is 152 - 60?", "inputs": ["s2"]}
        amount = {"title": "Work out the refund", "instruction": "What is 385 - 233?", "tools": ["calculate"]}
        task = await self._ann.submit(
            "Refund booking KX42-81 and tell the customer.",
            plan=_plan(amount, pay, tell),
            check=False,
            feature="refunds",
        )

        async def asked() -> Any:
            return (await self._olga.approvals("waiting", task.id)).approvals

        [row] = await until(asked, "the refund waits for a person", 60)
        seat = {
            "title": "Change the seat of KX42-81",
            "instruction": f"Use acquire_lease resource={BOOKING}.",
            "tools": ["acquire_lease"],
        }
        await self._ann.submit(
            "Seat the customer of KX42-81 at a window.", plan=_plan(seat), check=False, feature="seats"
        )
        await self._olga.halt("tool", "date_add", "the calendar is being moved")
        await until(self._wanted, "the booking is wanted", 60)
        return str(row.approval_id)

    async def _wanted(self) -> bool:
        found = await self._olga.get("/v1/coordination")
        return any(one["kind"] == "want" for one in found["waits"])

    async def close(self) -> None:
        """Hang up."""
        await self._ann.close()
        await self._olga.close()


async def _holds(found: Callable[[], bool]) -> bool:
    return found()


async def _take(looked: Looked, name: str, path: str, *seen: str) -> None:
    """One picture, once the page shows all of this; the last of it is in the picture."""
    await looked.go(path)
    for selector in seen:
        await looked.page.locator(selector).first.wait_for()
    await looked.page.locator(seen[-1]).first.evaluate(
        "found => found.getBoundingClientRect().bottom > innerHeight && found.scrollIntoView({block: 'end'})"
    )
    await looked.page.evaluate("document.fonts.ready")
    shot = await looked.page.screenshot(animations="disabled", caret="hide", scale="css")
    assert len(shot) <= MAX_BYTES, f"{name} has {len(shot):,} bytes, more than {MAX_BYTES:,}"
    (FOLDER / f"console-{name}.png").write_bytes(shot)
    print(f"docs/images/console-{name}.png: {len(shot):,} bytes")


async def pictures(folder: Path) -> None:
    """All four."""
    write_policy(folder / "policy")
    world = World(folder, extra_env={"budget": {"BULKHEAD_BREAKER_OPEN_S": OPEN_S}})
    (folder / "policy" / f"{TENANT}.cedar").write_text(ASKS)
    world.change_tenants(
        **{TENANT: {"tools": [*TOOLS, *WAITS], "day": {"cost_usd_micros": 5_000_000, "tokens": 5_000_000}}}
    )
    async with world, chromium() as browser:
        scene = Scene(world)
        solved = await scene.solved()
        await scene.circle()
        await scene.breaker()
        waiting = await scene.waiting()
        async with visitor(
            browser, world.mesh.url, scene.key, viewport=VIEW, color_scheme="light", device_scale_factor=1
        ) as looked:
            await _take(looked, "overview", "/", LIVE, "#spending .spark", "#needs")
            await _take(looked, "task", f"/tasks/{solved.id}", "#tree [role=treeitem]", ".answer")
            await _take(looked, "approval", f"/approvals/{waiting}", ".acts:has-text('Grant')")
            await _take(looked, "coordination", "/coordination", LIVE, "svg.graph")
        await scene.close()


def main() -> int:
    """Take them; 1 where there is no browser."""
    if not CHROMIUM:
        print("Chromium is not installed: on Debian, apt-get install chromium", file=sys.stderr)
        return 1
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bulkhead-screenshots-") as folder:
        asyncio.run(pictures(Path(folder)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
