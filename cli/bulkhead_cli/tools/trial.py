"""`bulkhead tools try`: one call of one tool, made here. In: words. Out: what an agent would be told."""

import json
import secrets
from dataclasses import asdict, dataclass
from typing import Any

from bulkhead.runtime.process.main import setting_problems
from bulkhead.testing.tool_trial import ToolOutcome, open_trial
from bulkhead.tools.export import find_declarations
from bulkhead.tools.packs import PackError
from bulkhead_cli.output import CommandError, Exit, print_json
from bulkhead_cli.screen import err, out
from bulkhead_cli.tools.listing import bad_pack_error, named_packs, read_tools
from bulkhead_services.tool_executor.settings import Settings


@dataclass(frozen=True, slots=True)
class ToolTrialRequest:
    """One call, as its words came. given: `name=value`. arguments: JSON in place of these."""

    tool: str
    given: tuple[str, ...]
    arguments: str
    tenant: str
    user: str
    key: str
    approve: bool


async def try_tool(request: ToolTrialRequest, packs: tuple[str, ...], *, as_json: bool) -> Exit:
    """Make the call and print its outcome. Raises CommandError where it cannot be made."""
    named = named_packs(packs)
    schemas = {row.spec.name: json.loads(row.spec.parameters_json) for row in read_tools(named)}
    if request.tool not in schemas:
        _require_exported(request.tool, named)
    if request.arguments and request.given:
        raise CommandError(Exit.USAGE, "arguments are given twice", "as NAME=VALUE, or as JSON with --arguments")
    words = request.arguments or json.dumps(arguments_of(request.given, schemas.get(request.tool, {})))
    try:
        trial = open_trial(named, {})
    except ValueError as error:
        if problems := setting_problems(error, Settings):
            raise CommandError(Exit.USAGE, "; ".join(problems), "correct the variables") from error
        raise bad_pack_error(error) from error
    try:
        who = {"tenant": request.tenant, "user": request.user, "key": request.key or secrets.token_hex(8)}
        outcome = await trial.call(request.tool, words, **who, approve=request.approve)
    finally:
        await trial.close()
    if as_json:
        print_json(asdict(outcome))
    else:
        _print_outcome(outcome)
    return {"succeeded": Exit.OK, "refused": Exit.REFUSED}.get(outcome.outcome, Exit.FAILED)


def _require_exported(tool: str, packs: tuple[str, ...]) -> None:
    """Raises CommandError where a package has the function and its tools.yaml does not know of it."""
    for pack in packs:
        try:
            declared = tool in find_declarations(pack)
        except (PackError, TypeError) as error:
            raise bad_pack_error(ValueError(str(error))) from error
        if declared:
            problem = f"{tool} is a function with @tool of {pack}, and the tools.yaml of {pack} does not name it"
            raise CommandError(Exit.USAGE, problem, f"run `bulkhead tools export {pack}`", name="not_exported")


def arguments_of(pairs: tuple[str, ...], schema: dict[str, Any]) -> dict[str, Any]:
    """Values by name: texts where the schema wants a text, JSON elsewhere. Raises CommandError."""
    arguments: dict[str, Any] = {}
    for argument in pairs:
        name, equals, value = argument.partition("=")
        if not equals:
            raise CommandError(Exit.USAGE, f"{argument[:80]!r} is no argument", "write NAME=VALUE, as in order=A-17")
        wanted_type = schema.get("properties", {}).get(name, {}).get("type")
        arguments[name] = value
        if wanted_type != "string":
            try:
                arguments[name] = json.loads(value)
            except ValueError:
                pass  # A text after all, or what the schema refuses in words of its own.
    return arguments


def _print_outcome(outcome: ToolOutcome) -> None:
    if outcome.outcome == "succeeded":
        out.print(outcome.text, markup=False)
        for lacks in outcome.missing:
            err.print(f"incomplete: {lacks}", style="yellow", markup=False)
        if outcome.sensitive:
            sensitive_fields = ", ".join(outcome.sensitive)
            err.print(f"holds {sensitive_fields}: kept out of summaries and telemetry", style="yellow", markup=False)
    else:
        err.print(
            f"{outcome.outcome}: {outcome.code}: {outcome.message} ({outcome.hint})", style="bold red", markup=False
        )
    ruled = f"; policy: {outcome.policy} ({outcome.rule})" if outcome.policy else ""
    err.print(f"{outcome.tool} {outcome.outcome} after {outcome.took_ms} ms{ruled}", style="dim", markup=False)
