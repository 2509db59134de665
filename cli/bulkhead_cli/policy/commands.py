"""`bulkhead policy`: the arguments of its subcommands. `main` adds them to `bulkhead`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bulkhead_cli.invocation import CommandGroup
from bulkhead_cli.options import Json, Options
from bulkhead_cli.output import EXIT_CODES, Work

if TYPE_CHECKING:
    from bulkhead_cli.policy.policies import Tools

policy_app = CommandGroup(
    no_args_is_help=True,
    rich_markup_mode="rich",
    epilog=EXIT_CODES,
    help="Check, test, explain and compare the policies of tools, and decide about recorded calls.\n\n"
    "A policy is a folder of Cedar files: TENANT.cedar for each tenant with rules of its own, and default.cedar in "
    "place of the one that ships. No mesh is needed. docs/how-to/policy.md describes the rules and the records.",
)
Records = Annotated[Path, typer.Argument(metavar="FILE", help="Records, one JSON object a line; - is standard input.")]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of policies.")]


@dataclass(frozen=True, slots=True)
class PolicyOptions(Options):
    """The policies, and the tools that they are about."""

    policies: Annotated[
        Path | None,
        typer.Option("--policies", metavar="DIR", help="Folder of policies.", show_default="the policies that ship"),
    ] = None
    tools: Annotated[
        Path | None,
        typer.Option("--tools", metavar="FILE", help="Tools besides those of the mesh, in the form of tools.yaml."),
    ] = None
    pack: Annotated[
        list[str] | None,
        typer.Option(
            "--pack",
            metavar="PACKAGE",
            help="Package of tools besides those of the mesh; may be repeated.",
            show_default="those of BULKHEAD_PACKS",
        ),
    ] = None
    as_json: Json = False

    def tools_known(self) -> "Tools":
        """The tools that rules and records may name."""
        from bulkhead_cli.policy.policies import tools_of

        return tools_of(self.tools, tuple(self.pack or ()))


@policy_app.command("check")
def check(at: PolicyOptions) -> Work:
    """Read every rule, hold it against the tools, and list the rules.

    The first mistake is told with its file and line.
    """
    from bulkhead_cli.policy import policies

    return policies.check_policies(policies.load_policies(at.policies, at.tools_known()), as_json=at.as_json)


@policy_app.command("test")
def test(at: PolicyOptions, records: Records) -> Work:
    """Decide about records, and compare each decision with what the record expects.

    Exits with 1 when a decision differs from `expect`: permit, ask or forbid; or a rule's name, with its file before it
    (`default:writes`) where two files have one of that name.
    """
    from bulkhead_cli.policy import policies

    return policies.compare_with_expected(
        policies.load_policies(at.policies, at.tools_known()), policies.read_records(records), as_json=at.as_json
    )


@policy_app.command("explain")
def explain(at: PolicyOptions, records: Records) -> Work:
    """Say for each record what decided and why: the rule with its file and line, and each value with its sources."""
    from bulkhead_cli.policy import policies

    return policies.explain_decisions(
        policies.load_policies(at.policies, at.tools_known()), policies.read_records(records), as_json=at.as_json
    )


@policy_app.command("diff")
def diff(
    old: Folder,
    new: Folder,
    at: PolicyOptions,
    records: Annotated[
        Path | None, typer.Option("--records", metavar="FILE", help="Records whose decisions are compared as well.")
    ] = None,
) -> Work:
    """Compare two folders of policies: rules that were added, removed or changed, and records decided otherwise.

    Exits with 1 when there is a difference.
    """
    from bulkhead_cli.policy import policies

    folders = policies.load_policies(old, at.tools_known()), policies.load_policies(new, at.tools_known())
    return policies.compare_policies(*folders, policies.read_records(records) if records else (), as_json=at.as_json)


@policy_app.command("decide")
def decide(at: PolicyOptions, records: Records = Path("-")) -> Work:
    """Decide about records and write one JSON object a line: effect, rule, risk, reasons, findings.

    A line that is no record gives a line with an error; the others are decided, and the exit code is 1.
    """
    from bulkhead_cli.policy import policies

    return policies.decide_all(policies.load_policies(at.policies, at.tools_known()), records)
