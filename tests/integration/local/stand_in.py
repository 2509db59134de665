"""A process that behaves as a service towards the supervisor: health file, /readyz, drain. STAND_IN tells how."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from bulkhead.runtime.process.health_endpoints import HealthServer


async def serve(behaviour: str) -> int:
    released = Path(os.environ["BULKHEAD_DATA_DIR"], "released")

    async def status() -> dict[str, object]:
        ready = behaviour != "never_ready" or released.exists()
        return {"ready": ready, "why": "the stand-in is told not to be"}

    health = HealthServer(status)
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set if behaviour != "deaf" else lambda: None)
    await health.start(0, Path(os.environ["BULKHEAD_HEALTH_FILE"]))
    print("stand-in started", flush=True)
    print("x" * 200_000, flush=True)
    Path(os.environ["BULKHEAD_DATA_DIR"], f"environ-{os.getpid()}.json").write_text(json.dumps(dict(os.environ)))
    await stopping.wait()
    print("stand-in drained", flush=True)
    return 0


def main() -> int:
    behaviour = os.environ.get("STAND_IN", "")
    if behaviour == "bad_settings":
        print("worker: setting BULKHEAD_SLOTS: not a number", flush=True)
        return 2
    if behaviour == "crash":
        print("boom", flush=True)
        return 1
    if behaviour == "has_child":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        Path(os.environ["BULKHEAD_DATA_DIR"], "grandchild").write_text(str(child.pid))
    return asyncio.run(serve(behaviour))


if __name__ == "__main__":
    sys.exit(main())
