"""`make flame`: where a full step's CPU goes, as a flame graph of the mesh's services.

In: the file to write. Out: an SVG; the most expensive functions on standard output. A process is as wide as its CPU
time; within it py-spy's samples say who used it. Broker and Redis are one box each: they are not Python.
"""

import asyncio
import signal
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping
from html import escape
from pathlib import Path

from tests.bench import accounting
from tests.bench.measures.full_steps import IN_FLIGHT
from tests.bench.measures.whole import Whole, whole
from tests.bench.peers.worker_process import VENV

SAMPLES_PER_S = 100
CHAIN = 5
WIDTH, ROW = 1200, 16
MIN_SHARE = 0.003
"""Narrower boxes are left out."""
CHAR_WIDTH = 6.5
TOP = 20
Stacks = dict[tuple[str, ...], float]
"""CPU seconds by stack, outermost frame first."""


async def sample_full_steps(mesh: Whole, folder: Path) -> Stacks:
    """Run chains of full steps and look at every service meanwhile."""
    await mesh.run_together(IN_FLIGHT, 1)
    pids = {name: of_service[0] for name, of_service in mesh.pids().items()}
    before = {name: accounting.cpu_s([pid]) for name, pid in pids.items()}
    spies = {name: await _start_spy(pid, folder / name) for name, pid in pids.items()}
    await mesh.run_together(IN_FLIGHT, CHAIN)
    stacks: Stacks = {}
    for name, pid in pids.items():
        used_s = accounting.cpu_s([pid]) - before[name]
        if spies[name].returncode is None:
            spies[name].send_signal(signal.SIGINT)
        await spies[name].wait()
        samples = _read_samples(folder / name)
        for frames, count in samples.items():
            stacks[name, *frames] = used_s * count / samples.total()
        if not samples:
            stacks[(name,)] = used_s
    return stacks


async def _start_spy(pid: int, output: Path) -> asyncio.subprocess.Process:
    options = ["--nonblocking", "--nolineno", "-r", str(SAMPLES_PER_S), "-f", "raw", "-o", str(output), "-p", str(pid)]
    quiet = asyncio.subprocess.DEVNULL
    return await asyncio.create_subprocess_exec(
        str(VENV / "bin" / "py-spy"), "record", *options, stdout=quiet, stderr=quiet, start_new_session=True
    )


def _read_samples(path: Path) -> Counter[tuple[str, ...]]:
    samples = Counter[tuple[str, ...]]()
    for line in path.read_text().splitlines() if path.is_file() else ():
        frames, _, count = line.rpartition(" ")
        samples[tuple(frames.split(";"))] += int(count)
    return samples


def draw_svg(stacks: Stacks) -> str:
    """A flame graph: callers below what they call."""
    total = sum(stacks.values())
    widths: defaultdict[tuple[str, ...], float] = defaultdict(float)
    for frames, used_s in stacks.items():
        for depth in range(1, len(frames) + 1):
            widths[frames[:depth]] += used_s / total
    shown = {frames: width for frames, width in widths.items() if width >= MIN_SHARE}
    height = ROW * max(len(frames) for frames in shown)
    boxes = [_draw_box(frames, left, shown[frames], height) for frames, left in _places(shown).items()]
    view = f'viewBox="0 0 {WIDTH} {height}" font-family="monospace" font-size="11"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {view}>'
    return "\n".join([head, *boxes, "</svg>", ""])


def _places(widths: Mapping[tuple[str, ...], float]) -> dict[tuple[str, ...], float]:
    """The left edge of each box: those of one caller side by side, the widest first."""
    places: dict[tuple[str, ...], float] = {}
    ends: dict[tuple[str, ...], float] = {(): 0.0}
    for frames in sorted(widths, key=lambda row: (len(row), -widths[row], row)):
        places[frames] = ends[frames[:-1]]
        ends[frames[:-1]] += widths[frames]
        ends[frames] = places[frames]
    return places


def _draw_box(frames: tuple[str, ...], left: float, width: float, height: int) -> str:
    function, x, top, pixels = frames[-1], left * WIDTH, height - ROW * len(frames), width * WIDTH
    name = function.partition(" (")[0][: int(pixels / CHAR_WIDTH)]
    hue = 30 if "(bulkhead" in function or len(frames) == 1 else 210
    box = f'<rect x="{x:.1f}" y="{top}" width="{pixels:.1f}" height="{ROW - 1}" fill="hsl({hue},70%,75%)"/>'
    title = f"<title>{escape(function)}: {width:.1%}</title>"
    return f'<g>{title}{box}<text x="{x + 2:.1f}" y="{top + 11}">{escape(name)}</text></g>'


def list_functions(stacks: Stacks) -> list[str]:
    """The most expensive functions by themselves, with what share of all services' CPU they use."""
    own: defaultdict[str, float] = defaultdict(float)
    for frames, used_s in stacks.items():
        own[frames[-1]] += used_s
    dearest = sorted(own.items(), key=lambda row: -row[1])[:TOP]
    return [f"{used_s / sum(stacks.values()):6.1%}  {function}" for function, used_s in dearest]


async def main(path: Path) -> None:
    """See the module."""
    with tempfile.TemporaryDirectory(prefix="bulkhead-flame-") as name:
        folder = Path(name)
        async with whole(folder / "mesh", "power") as mesh:
            stacks = await sample_full_steps(mesh, folder)
    path.write_text(draw_svg(stacks))
    print("\n".join(list_functions(stacks)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
