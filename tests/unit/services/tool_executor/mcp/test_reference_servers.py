"""MCP servers that we did not write, from the registries; the folder BULKHEAD_REFERENCE_MCP holds them:

npm install --prefix DIR @modelcontextprotocol/server-everything @modelcontextprotocol/server-filesystem
python -m venv DIR/venv && DIR/venv/bin/pip install mcp-server-time mcp-server-fetch
"""

import asyncio
import http.server
import json
import os
import subprocess
import threading
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from bulkhead.http_server.tcp_ports import free_port
from bulkhead.tools.api import Done, Failed
from tests.eventually import until

DIR = os.environ.get("BULKHEAD_REFERENCE_MCP", "")
pytestmark = [pytest.mark.slow, pytest.mark.needs("public-suites")]
BIN, VENV = Path(DIR) / "node_modules/.bin", Path(DIR) / "venv/bin"
READ = {"effect": "read"}
LONG = {"trigger-long-running-operation": READ}


async def test_everything(house, monkeypatch) -> None:
    monkeypatch.setenv("BULKHEAD_SECRET", "hunter2")
    await house.pin(all={"command": [str(BIN / "mcp-server-everything")], "timeout_ms": 60_000})
    await house.open()
    assert "hello" in (await house.call("all_echo", {"message": "hello"})).text
    assert "5" in (await house.call("all_get_sum", {"a": 2, "b": 3})).text
    weather = await house.call("all_get_structured_content", {"location": "Chicago"})
    assert {"temperature", "conditions", "humidity"} <= set(json.loads(weather.text))
    image = await house.call("all_get_tiny_image")
    assert image.omitted == ("content of type image (image/png)",) and image.text
    links = await house.call("all_get_resource_links", {"count": 3})
    assert len(links.omitted) == 3 and links.omitted[0].startswith("a link to the resource ")
    assert "hunter2" not in (await house.call("all_get_env")).text


@pytest.mark.parametrize("form", ["stdio", "http"])
async def test_everything_dies_in_mid_call_and_a_replica_answers(house, form) -> None:
    program, ports, processes = str(BIN / "mcp-server-everything"), (free_port(), free_port()), []
    declared = {"command": [program], "replicas": 2}
    if form == "http":
        declared = {"urls": [f"http://127.0.0.1:{port}/mcp" for port in ports]}
        for port in ports:
            environment = os.environ | {"PORT": str(port)}
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            processes.append(subprocess.Popen([program, "streamableHttp"], env=environment, **quiet))
        await until(lambda: all(psutil.Process(one.pid).net_connections("tcp") for one in processes), timeout_s=60)
    try:
        await house.pin(all=declared | {"tools": LONG, "timeout_ms": 60_000})
        await house.open()
        await until(lambda: house.usable("all") == 2, timeout_s=60)
        given = {"duration": 4, "steps": 4}
        call = asyncio.create_task(house.call("all_trigger_long_running_operation", given, timeout_s=60))
        replicas = house.tools._servers["all"].replicas
        await until(lambda: any(one.in_flight for one in replicas.values()), timeout_s=10)
        await asyncio.sleep(1)
        (place,) = (place for place, one in replicas.items() if one.in_flight)
        if form == "http":
            processes[ports.index(urlsplit(place[0]).port)].kill()
        else:
            mine = psutil.Process().children(recursive=True)
            next(one for one in mine if "mcp-server-everything" in " ".join(one.cmdline())).kill()
        done = await call
        assert isinstance(done, Done) and "completed" in done.text, done
    finally:
        for process in processes:
            process.kill()
            process.wait()


async def test_filesystem(house, tmp_path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    tools = {"read_text_file": READ, "write_file": {"idempotent": True}}
    await house.pin(files={"command": [str(BIN / "mcp-server-filesystem"), str(folder)], "tools": tools})
    await house.open()
    path = str(folder / "note.txt")
    assert isinstance(await house.call("files_write_file", {"path": path, "content": "ten"}), Done)
    assert (folder / "note.txt").read_text() == "ten"
    assert "ten" in (await house.call("files_read_text_file", {"path": path})).text
    outside = await house.call("files_read_text_file", {"path": "/etc/passwd"})
    assert isinstance(outside, Failed) and outside.code == "tool_error" and "denied" in outside.message


async def test_time_and_fetch(house) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Page) as pages:
        threading.Thread(target=pages.serve_forever, daemon=True).start()
        time = {"command": [str(VENV / "mcp-server-time")], "tools": {"convert_time": READ}, "replicas": 2}
        fetch = {
            "command": [str(VENV / "mcp-server-fetch"), "--allow-private-ips"],
            "tools": {"fetch": READ | {"egress": True}},
        }
        await house.pin(time=time | {"timeout_ms": 60_000}, web=fetch | {"timeout_ms": 60_000})
        await house.open()
        given = {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"}
        assert "21:00" in (await house.call("time_convert_time", given)).text
        wrong = await house.call("time_convert_time", given | {"time": "noon"})
        assert isinstance(wrong, Failed) and wrong.code == "tool_error"
        page = await house.call("web_fetch", {"url": f"http://127.0.0.1:{pages.server_address[1]}/"})
        assert "Ten desks." in page.text
        pages.shutdown()


class _Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        found = self.path == "/"
        body = b"<html><body><p>Ten desks.</p></body></html>" if found else b""
        self.send_response(200 if found else 404)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
