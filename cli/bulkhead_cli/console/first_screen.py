"""One screen about a mesh that has just started: where to look, what to ask, how an agent comes in, how to stop.

In: the addresses, a data directory. Out: text. A login link stands on it where a person reads it: what goes into a file
or a log has none.
"""

import shlex
from pathlib import Path

from rich.text import Text

from bulkhead.client.errors import MeshError
from bulkhead_cli.console.links import make_link
from bulkhead_cli.screen import SafeConsole, out
from bulkhead_cli.target import DEFAULT_DATA, GatewayTarget, read_json

STOP = "Ctrl-C drains the mesh and ends it; a second one ends it at once"


async def print_first_screen(
    url: str, doors_url: str, data: Path, *, path: str = "/", stop: str = STOP, screen: SafeConsole = out
) -> None:
    """Print it. path: the page of the console to begin at."""
    credentials = read_json(data / "credentials.json")
    data_option = "" if data == DEFAULT_DATA else f" --data {shlex.quote(str(data))}"
    link = await _login_link(GatewayTarget(url, str(credentials.get("operator", "")), data), path, screen)
    open_command = f"bulkhead open{data_option}"
    key = "agent" if "agent" in credentials else "submitter"
    note = f"signs you in once, within ten minutes; again: {open_command}" if link else f"with a link: {open_command}"
    rows = (
        ("console", link or f"{url}{path}", note),
        ("first task", f'bulkhead submit "What is refunded, and when?" --docs ./notes --watch{data_option}', ""),
        ("your agent", f"OPENAI_BASE_URL={doors_url}/openai/v1", f"OPENAI_API_KEY: `{key}` of {data}/credentials.json"),
        ("other doors", f"{doors_url}/anthropic, /mcp, A2A", "docs/how-to/bring-your-agent.md"),
        ("stop", stop, ""),
    )
    for name, text, note in rows:
        # No table: it would break a link at the width of the terminal.
        screen.print(Text.assemble((f"  {name:<13}", "dim"), (text, "bold")))
        if note:
            screen.print(Text(f"{'':<15}{note}", style="dim"))


async def _login_link(target: GatewayTarget, path: str, screen: SafeConsole) -> str:
    """A link, where a person sees it; "" elsewhere, and where none can be made now."""
    if not (screen.is_terminal and target.api_key):
        return ""
    try:
        return str((await make_link(target, path))["url"])
    except MeshError:
        return ""
