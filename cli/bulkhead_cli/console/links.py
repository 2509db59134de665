"""Links that sign a browser in at the console, once: made by a gateway for the owner of an API key.

In: a target, a page. Out: a link, or a browser that opens it. A program's arguments can be read by every user of a
machine, and a browser is started with the address that it opens: it gets the name of a file of this user's alone, which
leads on to the link.
"""

import html
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from bulkhead_cli.output import print_json
from bulkhead_cli.target import GatewayTarget


async def make_link(target: GatewayTarget, path: str = "/") -> dict[str, Any]:
    """{"url", "expires_unix_ms"} of a link to this page. Raises MeshError."""
    async with target.open_transport() as gateway:
        link = await gateway.request_json("POST", "/v1/console-links", json={"path": path})
        address = gateway.require_field(link, "path")
    if not str(address).startswith("/"):
        raise gateway.foreign_answer("a link without a path")
    return {"url": f"{target.url.rstrip('/')}{address}", "expires_unix_ms": link.get("expires_unix_ms")}


async def open_page(target: GatewayTarget, path: str, *, printed: bool, as_json: bool) -> None:
    """Open a page in a browser, or print its link. Raises MeshError."""
    link = await make_link(target, path)
    if as_json:
        print_json(link)
        return
    from bulkhead_cli.screen import out

    if printed or not _start_browser(link["url"], target.data):
        out.print(link["url"], markup=False)
    else:
        out.print(f"opened {target.url}{path} in a browser; elsewhere: bulkhead open --print", markup=False)


def _start_browser(url: str, data: Path | None) -> bool:
    """True if a browser starts. One in this terminal would be of no use: the console has scripts."""
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    import webbrowser

    page = f'<!doctype html><meta http-equiv="refresh" content="0;url={html.escape(url)}">'
    folder = data or Path(tempfile.mkdtemp(prefix="bulkhead-open-"))
    file = folder.absolute() / "open.html"
    file.unlink(missing_ok=True)
    file.touch(0o600, exist_ok=False)
    file.write_text(page)
    try:
        return webbrowser.open(file.as_uri())
    except webbrowser.Error:
        return False
