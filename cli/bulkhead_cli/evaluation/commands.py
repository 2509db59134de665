"""`bulkhead eval run`, `compare`, `models`, `check`, `calibrate`, `from-tasks`: their arguments. `main` adds them."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from bulkhead_cli.invocation import CommandGroup
from bulkhead_cli.models.commands import (
    COMPARE_USD,
    MAX_AT_ONCE,
    MAX_REPEAT,
    Deadline,
    NoCheck,
    ceiling_usd_micros,
    deadline_of,
    parse_route_names,
)
from bulkhead_cli.options import Data, GatewayOptions, Json, Options, duration_s, parse_dollars
from bulkhead_cli.output import EXIT_CODES, Work
from bulkhead_cli.target import DEFAULT_DATA

MAX_CASES_OF_TASKS, MAX_PAIRS = 500, 500

eval_app = CommandGroup(no_args_is_help=True, rich_markup_mode="rich", epilog=EXIT_CODES)

CaseSet = Annotated[
    Path, typer.Argument(metavar="SET", help="Cases with checks: JSON Lines (.jsonl), or YAML.", show_default=False)
]
Tags = Annotated[
    list[str] | None,
    typer.Option("--tag", metavar="T", help="Only cases with this tag; may be repeated.", show_default="all cases"),
]
MinPass = Annotated[
    float | None,
    typer.Option("--min-pass", metavar="SHARE", min=0, max=1, help="Exit with 1 when fewer of the runs pass."),
]
Repetitions = Annotated[
    int, typer.Option("--repetitions", metavar="N", min=1, max=MAX_REPEAT, help="Runs of each case.")
]
Parallel = Annotated[
    int, typer.Option("--parallel", metavar="N", min=1, max=MAX_AT_ONCE, help="Runs at the same time.")
]
BudgetUsd = Annotated[
    float | None,
    typer.Option(
        "--budget-usd",
        metavar="USD",
        parser=parse_dollars,
        help="Maximum cost of all runs together; --resume keeps the earlier one.",
        show_default="1",
    ),
]
BudgetOfModels = Annotated[
    float | None,
    typer.Option("--budget-usd", metavar="USD", parser=parse_dollars, help="Maximum cost of all runs together."),
]
Resume = Annotated[
    str,
    typer.Option(
        "--resume",
        metavar="RUN",
        help="Go on with a run, as it was begun: what has ended is not run again, and no task is paid twice. Checks "
        "may be changed: what is recorded is judged again.",
        show_default=False,
    ),
]
ForceMesh = Annotated[
    bool, typer.Option("--force-mesh", help="Resume on another mesh, or as another tenant, than the run began with.")
]
Baseline = Annotated[
    str, typer.Option("--baseline", metavar="RUN", help="Earlier run to compare with.", show_default=False)
]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Folder of the run.", show_default=".bulkhead/evals/RUN")
]
Route = Annotated[str, typer.Option("--route", metavar="NAME", help="Route of the model gateway.", show_default=False)]
Release = Annotated[
    str,
    typer.Option(
        "--release",
        metavar="LABEL",
        help="Label of the prompts that the tasks get, or one release of it (`trial.7`); production without.",
        show_default=False,
    ),
]
Images = Annotated[
    list[str] | None,
    typer.Option("--image", metavar="NAME=DIGEST", help="Digest of an image that runs; may be repeated."),
]
Earlier = Annotated[str, typer.Argument(metavar="BASELINE", help="The earlier run: its id, or its folder.")]
Later = Annotated[str, typer.Argument(metavar="RUN", help="The later run.")]


@dataclass(frozen=True, slots=True)
class ReportOptions(Options):
    """Files of a report beside those in the folder of its run."""

    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write the report for people to this file, too.")
    ] = None
    junit: Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Write a JUnit file, for builds.")] = (
        None
    )


@eval_app.callback()
def top() -> None:
    """Run sets of cases with checks, compare runs and models, and make cases of tasks.

    Examples: bulkhead eval check cases.jsonl · bulkhead eval run cases.jsonl --repetitions 3
    """


@eval_app.command("run")
def run(
    case_set: CaseSet,
    at: GatewayOptions,
    files: ReportOptions,
    repetitions: Repetitions = 1,
    parallel: Parallel = 4,
    budget_usd: BudgetUsd = None,
    tag: Tags = None,
    resume: Resume = "",
    force_mesh: ForceMesh = False,
    baseline: Baseline = "",
    min_pass: MinPass = None,
    out: Out = None,
    route: Route = "",
    release: Release = "",
    deadline: Deadline = "",
    no_check: NoCheck = False,
    sign: Annotated[
        Path | None,
        typer.Option("--sign", metavar="KEY", help="Sign a statement of the run: statement.json in its folder."),
    ] = None,
    image: Images = None,
) -> Work:
    """Run a set of cases as tasks of the mesh, and report what passed, with intervals of 95 %.

    Each ended run is kept in the run's folder, so that --resume goes on after a crash. The exit code is 1 when fewer
    than --min-pass of the runs pass, when the run is worse than --baseline by a paired test, and when the budget left
    runs undone. Spending is counted under the feature "eval".

    Examples: bulkhead eval run cases.jsonl --repetitions 3 --budget-usd 2 · bulkhead eval run cases.jsonl --baseline
    20261126-101500-3fa9 --min-pass 0.9 --junit report.xml
    """
    from bulkhead_cli.evaluation.run import EvaluationRequest, ReportFiles, run_evaluation
    from bulkhead_cli.evaluation.statements import StatementRequest

    request = EvaluationRequest(
        case_set,
        tags=tuple(tag or ()),
        repetitions=repetitions,
        parallel=parallel,
        budget_usd_micros=ceiling_usd_micros(budget_usd),
        resume=resume,
        baseline=baseline,
        min_pass=min_pass,
        out=out,
        route=route,
        release=release,
        deadline_s=deadline_of(deadline),
        check=not no_check,
        force_mesh=force_mesh,
        statement=StatementRequest(sign, tuple(image or ())) if sign is not None else None,
    )
    target = at.gateway_target(may_make_key=True)
    return run_evaluation(target, at.data, request, ReportFiles(files.html, files.junit), as_json=at.as_json)


@eval_app.command("compare")
def compare(
    baseline: Earlier, run: Later, files: ReportOptions, data: Data = DEFAULT_DATA, as_json: Json = False
) -> Work:
    """Compare a run with an earlier one over the cases that both have, by a paired test.

    The exit code is 1 when the later run is worse, or is not complete.

    Examples: bulkhead eval compare 20261126-101500-3fa9 20261126-111500-8b02 --html changes.html
    """
    from bulkhead_cli.evaluation.run import ReportFiles, compare_evaluations

    return compare_evaluations(data, baseline, run, ReportFiles(files.html, files.junit), as_json=as_json)


@eval_app.command("models")
def models(
    case_set: CaseSet,
    at: GatewayOptions,
    route: Annotated[
        list[str], typer.Option("--route", metavar="NAME", help="Route of the model gateway; may be repeated.")
    ],
    repetitions: Repetitions = 1,
    parallel: Parallel = 1,
    budget_usd: BudgetOfModels = COMPARE_USD,
    min_pass: MinPass = None,
    deadline: Deadline = "",
    no_check: NoCheck = False,
) -> Work:
    """Run a set on several routes: quality, latency and cost of each with intervals of 95 %, and the frontier.

    On the frontier are the routes that no other beats: none is as good in the share passed, the p50 latency and the
    cost of a run, and better in one. Every run is a task of the mesh: limits hold, and spending is counted under the
    feature "compare". More runs at the same time add to latencies. The exit code is 1 when a later route passes fewer
    cases than the first one beyond doubt, when a route passes less than --min-pass, and when the budget left runs
    undone.

    Examples: bulkhead eval models cases.jsonl --route default --route small --repetitions 3 --json > report.json
    """
    from bulkhead_cli.models.compare import RouteComparisonRequest, compare_routes

    request = RouteComparisonRequest(
        case_set,
        parse_route_names(",".join(route)),
        repetitions,
        ceiling_usd_micros(budget_usd),
        parallel,
        deadline_of(deadline),
        min_pass,
        check=not no_check,
        limit_option="--budget-usd",
    )
    return compare_routes(at.gateway_target(may_make_key=True), request, as_json=at.as_json)


@eval_app.command("suggest")
def suggest(
    report: Annotated[
        Path, typer.Argument(metavar="REPORT", help="What `eval models --json` printed.", show_default=False)
    ],
    min_pass: Annotated[
        list[str],
        typer.Option(
            "--min-pass",
            metavar="[TIER=]SHARE",
            help="Least lower bound of the share passed, for a tier (default); may be repeated.",
        ),
    ],
    as_json: Json = False,
) -> Work:
    """Propose for each tier the cheapest route on the frontier whose lower bound clears the gate; nothing is applied.

    Printed are rows of BULKHEAD_ROUTES as YAML, with the reason; --json has them as its field "routes". The exit code
    is 1 when no route clears a tier's gate.

    Examples: bulkhead eval suggest report.json --min-pass 0.9 · bulkhead eval suggest report.json --min-pass 0.9
    --min-pass small=0.75
    """
    from bulkhead_cli.evaluation.suggest import suggest_routes

    return suggest_routes(report, min_pass, as_json=as_json)


@eval_app.command("check")
def check(
    case_set: CaseSet,
    at: GatewayOptions,
    against: Annotated[
        str,
        typer.Option(
            "--against",
            metavar="TIME",
            help="Compare its cases with the requests of so long: 7d. A gateway is asked.",
            show_default=False,
        ),
    ] = "",
) -> Work:
    """Validate a set without running it: its fields, documents, schemas and Python checks.

    With --against the exit code is 1 when the cases no longer resemble the requests: in topics (words), lengths or
    languages their Jensen-Shannon divergence is larger than in all but 5 % of random divisions of the same texts, the
    three together, and by 0.05 or more.

    A case has a name, an input, checks and, optionally, documents (paths beside the set), references, tags and an
    origin. It passes when it is answered and all checks hold. Each check is one of:

    contains, not_contains: a text that is in the answer, or not, whatever its case and blanks. regex: a pattern of RE2
    (no lookaround, no backreferences) that is found in it.

    entities, forbidden: names that all stand there as whole words; words of which none does.

    equals_number: a number of the answer, or {value, tolerance}. json_schema: of the answer as JSON.

    length: {min_words, max_words, min_chars, max_chars}. cites: the name of a document that is cited.

    personal_data: kinds that may stand in the answer, of card, email, iban and phone; [] for none.

    reference_overlap: the least F1 of the words in common with the nearest reference.

    tool_called: a tool that was called, and not refused, or {tool, arguments} with arguments that a call has, among
    others. tool_not_called: a tool that was not even asked for.

    max_cost_usd, max_latency_s: of the task. answered: yes or partly, the mesh's own verdict, at least.

    judge: a judge of judges.yaml beside the set, or grounded, the shipped one, that passes the answer. Without a
    certificate that holds (NAME.certificate.json beside the set) its verdict is advice, and fails no case.

    python: file.py:function beside the set; given the answer (text, cited, tool_calls, answered, cost_usd_micros,
    latency_ms) it returns True or "", or why it does not pass, within 10 s. It runs with your
    rights: read a set of others first.

    Examples: bulkhead eval check cases.jsonl · bulkhead eval check cases.jsonl --against 7d
    """
    from bulkhead_cli.evaluation.sets import check_population, check_set

    if against:
        return check_population(at.gateway_target(), case_set, against, as_json=at.as_json)
    return check_set(case_set, as_json=at.as_json)


@eval_app.command("calibrate")
def calibrate(
    labelled: Annotated[
        Path, typer.Argument(metavar="LABELLED", help="Labelled answers as JSON Lines.", show_default=False)
    ],
    at: GatewayOptions,
    judge: Annotated[str, typer.Option("--judge", metavar="NAME", help="Judge to calibrate.")] = "grounded",
    judges: Annotated[
        Path | None,
        typer.Option(
            "--judges", metavar="FILE", help="File that declares judges.", show_default="judges.yaml beside LABELLED"
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="CERT", help="Write the certificate here.", show_default=False)
    ] = None,
    min_good: Annotated[
        float,
        typer.Option("--min-good", min=0, max=1, help="Least lower bound of the share of good answers that pass."),
    ] = 0.8,
    min_bad: Annotated[
        float, typer.Option("--min-bad", min=0, max=1, help="Least lower bound of the share of bad answers that fail.")
    ] = 0.8,
    pairs: Annotated[
        int,
        typer.Option(
            "--pairs",
            metavar="N",
            min=0,
            max=MAX_PAIRS,
            help="Also ask, in both orders, which of a good and a bad answer to one question is better.",
        ),
    ] = 0,
    parallel: Parallel = 4,
    budget_usd: BudgetUsd = None,
    resume: Resume = "",
    deadline: Deadline = "",
) -> Work:
    """Hold a judge against answers that people have labelled, and write its certificate.

    Each line has a case, a question, documents (paths beside the file), an answer, the model that wrote it and labels,
    as in {"ann": "good", "bob": "bad"}. The judge is certified where the lower bounds (Clopper and Pearson, one-sided,
    95 %) of both rates reach the gate; the exit code is 1 where they do not. An abstention is an error; answers whose
    labellers differ count in no rate. Votes of models are tasks of the mesh under the feature "eval".

    Examples: bulkhead eval calibrate labelled.jsonl --judge panel --out panel.certificate.json
    """
    from bulkhead_cli.evaluation.calibrate import CalibrationRequest, run_calibration

    request = CalibrationRequest(
        labelled,
        judge=judge,
        judges=judges or labelled.parent / "judges.yaml",
        out=out,
        gate=(min_good, min_bad),
        parallel=parallel,
        budget_usd_micros=ceiling_usd_micros(budget_usd),
        resume=resume,
        deadline_s=deadline_of(deadline),
        pairs=pairs,
    )
    return run_calibration(partial(at.gateway_target, may_make_key=True), at.data, request, as_json=at.as_json)


@eval_app.command("keygen")
def keygen(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File of the private key.")], as_json: Json = False
) -> Work:
    """Make a key that signs statements of evaluations: a file for its owner alone; the public key is printed.

    Examples: bulkhead eval keygen evaluator.pem
    """
    from bulkhead_cli.evaluation.statements import make_key_file

    return make_key_file(file, as_json=as_json)


@eval_app.command("verify")
def verify(
    statement: Annotated[Path, typer.Argument(metavar="STATEMENT", help="A signed statement: statement.json.")],
    key: Annotated[list[str], typer.Option("--key", metavar="PUB", help="Public key, or its file; may be repeated.")],
    case_set: Annotated[str, typer.Option("--set", metavar="NAME", help="Set that it has to be of.")] = "",
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", metavar="NAME=DIGEST", help="Digest of a prompt; may be repeated.")
    ] = None,
    image: Images = None,
    models: Annotated[
        str, typer.Option("--models", metavar="A,B", help="Models that answered, or a file of them, and no others.")
    ] = "",
    min_pass: MinPass = None,
    max_age: Annotated[str, typer.Option("--max-age", metavar="TIME", help="Greatest age: 72h, 7d.")] = "",
    as_json: Json = False,
) -> Work:
    """Verify a signed statement, and that it is of these prompts, models and images, fresh and passing.

    The exit code is 1 when something does not fit; each is named.

    Examples: bulkhead eval verify statement.json --key evaluator.pub --image worker=sha256:4f... --max-age 72h
    """
    from bulkhead.evaluation.statement import Expectation
    from bulkhead_cli.evaluation.statements import parse_models, verify_statement

    max_age_ms = round(duration_s(max_age) * 1000) if max_age else None
    expected = Expectation(
        case_set=case_set, models=parse_models(models), min_pass=min_pass or 0, max_age_ms=max_age_ms
    )
    pairs = {"prompts": prompt or [], "images": image or []}
    return verify_statement(statement, key, pairs, expected, as_json=as_json)


@eval_app.command("serve")
def serve(
    at: GatewayOptions,
    sets: Annotated[Path, typer.Option("--sets", metavar="DIR", help="Folder of sets, each a file named for it.")],
    key: Annotated[Path, typer.Option("--key", metavar="FILE", help="Private key of `eval keygen`.")],
    repetitions: Repetitions = 1,
    parallel: Parallel = 4,
    budget_usd: BudgetUsd = None,
    deadline: Deadline = "",
    once: Annotated[bool, typer.Option("--once", help="End when no evaluation waits.")] = False,
) -> Work:
    """Run the evaluations that people ask for, sign a statement of each, and report it to the mesh.

    It needs an API key with the role "evaluator". What is cut off goes on when it is started again.

    Examples: bulkhead eval serve --sets evaluations --key evaluator.pem
    """
    from bulkhead_cli.evaluation.serve import ServeRequest, serve_evaluations

    request = ServeRequest(
        sets, key, repetitions, parallel, ceiling_usd_micros(budget_usd), deadline_of(deadline), once
    )
    return serve_evaluations(at.gateway_target(), at.data, request)


@eval_app.command("from-tasks")
def from_tasks(
    at: GatewayOptions,
    since: Annotated[str, typer.Option("--since", metavar="TIME", help="Tasks that began since then: 24h, 7d.")] = "7d",
    status: Annotated[
        str, typer.Option("--status", metavar="A,B", help="Only tasks of these statuses.", show_default=False)
    ] = "",
    standing: Annotated[
        str, typer.Option("--standing", metavar="A,B", help="Only results of these: ok, degraded.", show_default=False)
    ] = "",
    answered: Annotated[
        str,
        typer.Option(
            "--answered", metavar="A,B", help="Only tasks that are answered so: no, partly.", show_default=False
        ),
    ] = "",
    rated: Annotated[
        str,
        typer.Option("--rated", metavar="A,B", help="Only tasks that people rate so: bad, good.", show_default=False),
    ] = "",
    task: Annotated[
        list[str] | None, typer.Option("--task", metavar="TASK", help="This task; may be repeated.", show_default=False)
    ] = None,
    sample: Annotated[
        int, typer.Option("--sample", metavar="N", min=1, max=MAX_CASES_OF_TASKS, help="So many of the tasks that fit.")
    ] = 50,
    tag: Annotated[
        list[str] | None, typer.Option("--tag", metavar="T", help="Tag of the cases; may be repeated.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="File of the cases.", show_default="standard output")
    ] = None,
) -> Work:
    """Turn tasks that have ended into cases, one JSON object a line, without keys and personal data.

    An answer in full becomes a reference, unless a person rates it bad, and the documents that it cites become checks.
    A rating becomes a tag, and its comment stands in the origin. Look through the cases
    before they join a set: what no rule recognizes as personal data stays.

    Examples: bulkhead eval from-tasks --status failed --out failed.jsonl · bulkhead eval from-tasks --standing degraded
    --answered no,partly --since 24h
    """
    from bulkhead_cli.evaluation.sets import TaskSelection, write_task_cases

    selection = TaskSelection(since, status, standing, answered, rated, tuple(task or ()), sample)
    return write_task_cases(at.gateway_target(), selection, tuple(tag or ()), out, as_json=at.as_json)


@eval_app.command("labels")
def labels(
    at: GatewayOptions,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="File of the labelled answers, JSON Lines.")],
    since: Annotated[str, typer.Option("--since", metavar="TIME", help="Tasks that ended in this time: 7d.")] = "31d",
    feature: Annotated[
        str, typer.Option("--feature", metavar="NAME", help="Only tasks of this feature.", show_default=False)
    ] = "",
    release: Annotated[
        str, typer.Option("--release", metavar="REF", help="Only tasks of this release.", show_default=False)
    ] = "",
) -> Work:
    """Take answers that people have labelled in the console, with what they cite, into files for `eval calibrate`.

    Beside FILE a folder gets the texts. Both hold what tasks said, also personal data. Needs the key of an operator or
    an evaluator.

    Examples: bulkhead eval labels --out labels.jsonl --since 7d
    """
    from bulkhead_cli.evaluation.sets import write_labels

    query = {"since": since, "feature": feature, "release": release}
    return write_labels(at.gateway_target(), query, out, as_json=at.as_json)


@eval_app.command("online")
def online(
    at: GatewayOptions,
    judge: Annotated[str, typer.Option("--judge", metavar="NAME", help="The judge.")] = "grounded",
    judges: Annotated[
        Path, typer.Option("--judges", metavar="FILE", help="File that declares judges, beside their certificates.")
    ] = Path("judges.yaml"),
    share: Annotated[str, typer.Option("--share", metavar="PERCENT", help="Share of the tasks that end.")] = "5%",
    budget_usd: Annotated[
        str, typer.Option("--budget-usd", metavar="USD/day", help="Maximum cost of a day (UTC).")
    ] = "1/day",
    every: Annotated[str, typer.Option("--every", metavar="TIME", help="Between two looks at what has ended.")] = "30s",
    once: Annotated[bool, typer.Option("--once", help="Look once, and end.")] = False,
) -> Work:
    """Judge a share of the tasks that end, and put each verdict as a rating.

    The sample is drawn by the task's id. A task that is judged is judged no more, so that it may be stopped and started
    again. Votes of models are tasks under the feature "online-judge", which the day's money is counted by. Needs the
    key of an evaluator. `bulkhead quality` shows what comes of it.

    Examples: bulkhead eval online --share 20% --budget-usd 2/day
    """
    from bulkhead_cli.evaluation.online import OnlineRequest, judge_online

    request = OnlineRequest.parse(judge, judges, share, budget_usd, every, once=once)
    return judge_online(at.gateway_target(), request, as_json=at.as_json)
