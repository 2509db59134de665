"""A command made from a declared read: its options are the read's parameters, its output is the reply.

In: a row of `bulkhead.gateway_api`. Out: a command; the reply as JSON, or as the row's printer shows it.
"""

from collections.abc import Callable
from inspect import Parameter, Signature
from typing import Annotated, Any, TypeVar

import typer

from bulkhead.client.request_checks import check_parameters
from bulkhead.gateway_api.query import Parameters, Query
from bulkhead_cli.options import GatewayOptions
from bulkhead_cli.output import Work, print_json
from bulkhead_cli.target import GatewayTarget
from bulkhead_contracts.types import Contract

P = TypeVar("P", bound=Parameters)
R = TypeVar("R", bound=Contract)
Printer = Callable[[dict[str, Any]], None]


async def show_reply(
    target: GatewayTarget, query: Query[P, R], parameters: P, printer: Printer = print_json, *, as_json: bool
) -> None:
    """Ask a gateway and print what it replies. Raises MeshError."""
    async with target.mesh_client() as mesh:
        reply = await mesh.read_json(query, parameters)
    (print_json if as_json else printer)(reply)


def query_command(query: Query[P, R], name: str, about: str = "", printer: Printer = print_json) -> Callable[..., Work]:
    """The command of a read. about: its help, where it says more than the row's summary."""

    def show_query(*, at: GatewayOptions, **given: Any) -> Work:
        parameters = check_parameters(query, given)
        return show_reply(at.gateway_target(), query, parameters, printer, as_json=at.as_json)

    options = [_option_of(query, option) for option in query.parameters.model_fields]
    at = Parameter("at", Parameter.KEYWORD_ONLY, annotation=GatewayOptions)
    show_query.__signature__ = Signature([*options, at])  # type: ignore[attr-defined]
    show_query.__name__, show_query.__doc__ = name, about or query.summary
    return show_query


def _option_of(query: Query[P, R], name: str) -> Parameter:
    """Parameters in the path are arguments, the others are options."""
    field = query.parameters.model_fields[name]
    if query.in_path(name):
        form: object = typer.Argument(metavar=name.upper(), help=field.description)
        return Parameter(name, Parameter.KEYWORD_ONLY, annotation=Annotated[str, form])
    form = typer.Option(f"--{name.replace('_', '-')}", help=field.description)
    several = isinstance(field.default, tuple)
    annotation = Annotated[str if several else field.annotation, form]  # type: ignore[valid-type, name-defined]
    default = "" if several else field.default
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
