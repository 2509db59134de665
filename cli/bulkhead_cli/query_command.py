"""A command made from a declared read: its options are the read's parameters, its output is the reply.

In: a query of `bulkhead.gateway_api`. Out: a command; the reply as JSON, or as a printer shows it.
"""

from collections.abc import Callable
from inspect import Parameter, Signature
from typing import Annotated, Any

import typer

from bulkhead.client.request_checks import check_query
from bulkhead.gateway_api.query import Query
from bulkhead_cli.options import GatewayOptions
from bulkhead_cli.output import Work, print_json
from bulkhead_cli.target import GatewayTarget

Printer = Callable[[dict[str, Any]], None]


async def show_reply(target: GatewayTarget, query: Query[Any], printer: Printer = print_json, *, as_json: bool) -> None:
    """Ask a gateway and print what it replies. Raises MeshError."""
    async with target.mesh_client() as mesh:
        reply = await mesh.read_json(query)
    (print_json if as_json else printer)(reply)


def query_command(
    query: type[Query[Any]], name: str, about: str = "", printer: Printer = print_json
) -> Callable[..., Work]:
    """The command of a read. about: its help, where it says more than the query's summary."""

    def show_query(*, at: GatewayOptions, **given: Any) -> Work:
        return show_reply(at.gateway_target(), check_query(query, given), printer, as_json=at.as_json)

    options = [_option_of(query, option) for option in query.model_fields]
    at = Parameter("at", Parameter.KEYWORD_ONLY, annotation=GatewayOptions)
    show_query.__signature__ = Signature([*options, at])  # type: ignore[attr-defined]
    show_query.__name__, show_query.__doc__ = name, about or query.summary()
    return show_query


def _option_of(query: type[Query[Any]], name: str) -> Parameter:
    """Parameters in the path are arguments, the others are options."""
    field = query.model_fields[name]
    if query.in_path(name):
        argument = typer.Argument(metavar=name.upper(), help=field.description)
        return Parameter(name, Parameter.KEYWORD_ONLY, annotation=Annotated[str, argument])
    option = typer.Option(f"--{name.replace('_', '-')}", help=field.description)
    several = isinstance(field.default, tuple)
    annotation = Annotated[str if several else field.annotation, option]  # type: ignore[valid-type]
    return Parameter(name, Parameter.KEYWORD_ONLY, default="" if several else field.default, annotation=annotation)
