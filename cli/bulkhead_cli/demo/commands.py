"""`bulkhead demo`: its arguments."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from bulkhead_cli.options import Json, OwnConfig
from bulkhead_cli.output import Work

Seed = Annotated[int, typer.Option("--seed", metavar="N", help="Number of the generated case.")]
DemoData = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        help="Directory that keeps the state of the mesh.",
        show_default="a temporary one, removed at the end",
    ),
]
Keep = Annotated[
    bool, typer.Option("--keep", help="Leave the mesh running until Ctrl-C, and print the address of its console.")
]
SmallModel = Annotated[
    Literal["rules", "smollm2"],
    typer.Option(
        "--model",
        help="Model that answers when the environment names no provider: the rule-based offline model, or a small "
        "language model that runs on this machine (packages of its own; it is hardly ever right).",
    ),
]
InContainers = Annotated[
    bool,
    typer.Option(
        "--containers", help="Run the mesh in containers, built from a checkout of the repository; needs Docker."
    ),
]


def demo(
    seed: Seed = 1,
    data: DemoData = None,
    keep: Keep = False,
    model: SmallModel = "rules",
    containers: InContainers = False,
    config: OwnConfig = None,
    as_json: Json = False,
) -> Work:
    """Run a whole mesh once on a generated case, and check its answer.

    Starts a broker, Redis, a model and every service on this machine; adds an airline's fare rules as documents; asks
    for a refund; prints the plan, each step, the timeline and the answer with its citations and cost; stops everything.
    Without a provider in the environment (OPENAI_API_KEY and others) the offline model answers: it is a set of rules
    and no LLM. Exit code 0: the answer is the one that the generator of the case expects; with --model smollm2, the
    task ended.

    Examples: bulkhead demo · bulkhead demo --seed 7 --keep · bulkhead demo --json
    """
    from bulkhead_cli.demo.run import run_demo

    return run_demo(seed, data, model, containers=containers, keep=keep, as_json=as_json, config=config)
