"""The agent door, asked by the official client in JavaScript, as the folder BULKHEAD_REFERENCE_MCP holds it:

npm install --prefix DIR node@22 @a2a-js/sdk@1.3.0
"""

import asyncio
import json
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bulkhead.http_server.tcp_ports import free_port
from tests.integration.doors.agent_door import agent_door, before

DIR = os.environ.get("BULKHEAD_REFERENCE_MCP", "")
pytestmark = [pytest.mark.slow, pytest.mark.needs("public-suites")]
LASTS_S = 60


@pytest.mark.parametrize("binding", ["HTTP+JSON", "JSONRPC"])
async def test_the_client_in_javascript_checks_the_card_and_follows_a_task_to_its_answer(tmp_path, binding) -> None:
    key = generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "card.pem").write_bytes(key)
    port = free_port()
    signed = {"http_port": port, "public_url": f"http://127.0.0.1:{port}", "card_key_file": tmp_path / "card.pem"}
    async with agent_door(tmp_path) as door, before(door.stage.url, door.keys, **signed) as url:
        words = [DIR, url, door.key(), binding]
        process = await asyncio.create_subprocess_exec(
            str(Path(DIR) / "node_modules/node/bin/node"),
            str(Path(__file__).parent / "a2a_client.cjs"),
            *words,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, error = await asyncio.wait_for(process.communicate(), LASTS_S)
    assert process.returncode == 0, error.decode()
    seen = json.loads(out.splitlines()[-1])
    first, end = seen["events"][0]["task"], seen["events"][-1]["statusUpdate"]
    assert end["status"]["state"] == seen["task"]["status"]["state"] == "TASK_STATE_COMPLETED"
    assert "391" in seen["task"]["artifacts"][0]["parts"][0]["text"]
    assert seen["again"] == first["id"] and seen["listed"]["totalSize"] == 1
    assert seen["skills"] == [["task"]] and "TaskNotCancelable" in seen["refused"], seen["refused"]
