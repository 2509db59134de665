"""Answers to the broker's questions: each gets one, however long its words are, and none before keys are known."""

import asyncio
import json
import time
from types import SimpleNamespace

import nkeys
import pytest

from bulkhead.bus.port import BusUnavailable
from bulkhead.bus.xkeys import public_xkey, seal, seed_of, unseal
from bulkhead.runtime.background import BackgroundTasks
from bulkhead_contracts import bounds
from bulkhead_infra.identity import policy, render
from bulkhead_services.identity import effects, nkey_jwt
from bulkhead_services.identity.effects import LoginAnswers
from bulkhead_services.identity.settings import Settings
from tests.eventually import until
from tests.integration.identity.world import AUDIENCE, ISSUER, NAMESPACE, Issuer

BROKER = nkeys.from_seed(bytearray(nkeys.encode_seed(b"\x05" * 32, nkeys.PREFIX_BYTE_SERVER)))
BROKER_XKEY, OWN_XKEY = seed_of(b"\x06" * 32), seed_of(b"\x07" * 32)
LONG = 300


class Bus:
    """Remembers who serves; `away` times it cannot be reached."""

    def __init__(self) -> None:
        self.serving, self.away = None, 0

    async def serve(self, subject, queue, handler):
        if self.away:
            self.away -= 1
            raise BusUnavailable("away")
        assert (subject, queue) == ("$SYS.REQ.USER.AUTH", "identity")
        self.serving = handler

        async def stop() -> None:
            self.serving = None

        return stop


class World:
    """The edge with its files, without a broker."""

    def __init__(self, folder) -> None:
        self.issuer, self.bus, self.stored = Issuer(folder / "keys.json"), Bus(), []
        account = nkeys.encode_seed(b"\x08" * 32, nkeys.PREFIX_BYTE_ACCOUNT)
        (folder / effects.ISSUER_FILE).write_bytes(account)
        (folder / effects.XKEY_FILE).write_text(OWN_XKEY)
        (folder / effects.PERMISSIONS_FILE).write_text(render.render_permissions(policy.load_policy(kubernetes=True)))
        self.settings = Settings(
            token_issuer=ISSUER,
            token_audience=AUDIENCE,
            token_namespace=NAMESPACE,
            key_set_file=self.issuer.key_set,
            identity_dir=folder,
        )

        async def send(to, body, **_) -> None:
            self.stored.append(body)

        context = SimpleNamespace(
            publisher=SimpleNamespace(send=send), clock=lambda: 7, background=BackgroundTasks(), bus=self.bus
        )
        self.edge = LoginAnswers(context, self.settings)

    async def ask(self, token: str, **words: str) -> dict:
        """What the broker is told: the claims of the user, or of the refusal."""
        server = bytes(BROKER.public_key).decode()
        nats = {
            "type": nkey_jwt.QUESTION_TYPE,
            "user_nkey": "UUSER",
            "server_id": {"id": server, "name": words.get("broker", "n")},
            "client_info": {"host": words.get("host", "10.0.0.1")},
            "connect_opts": {"auth_token": token, "name": words.get("client", "c")},
        }
        claims = {"aud": nkey_jwt.QUESTION_AUDIENCE, "iss": server, "exp": int(time.time()) + 2, "nats": nats}
        text = nkey_jwt.encode_jwt(claims, BROKER).encode()
        asked = SimpleNamespace(
            headers={effects.XKEY_HEADER: public_xkey(BROKER_XKEY)}, body=seal(text, BROKER_XKEY, public_xkey(OWN_XKEY))
        )
        _, box = await self.edge.answer_question(asked)
        said = _claims(unseal(box, BROKER_XKEY, public_xkey(OWN_XKEY)).decode())["nats"]
        return _claims(said["jwt"]) if "jwt" in said else said


def _claims(token: str) -> dict:
    return json.loads(nkey_jwt._decode_base64(token.split(".")[1]))


@pytest.fixture
async def world(tmp_path):
    found = World(tmp_path)
    yield found
    await found.edge.stop()


def _words(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "w" * LONG)


@pytest.mark.parametrize("name", ["client", "host", "broker", "pod", "token_id", "subject", "a half of a character"])
@pytest.mark.parametrize("good", [True, False], ids=["granted", "refused"])
async def test_long_words_are_answered_and_cut_in_the_fact(world: World, name: str, good: bool):
    await world.edge.start()
    changes: dict = {"jti": "j" * LONG} if name == "token_id" else {}
    if name == "pod":
        changes["kubernetes.io"] = {"pod": {"name": "p" * LONG}}
    if name == "subject":
        good, changes["sub"] = False, "s" * LONG
    words = _words(name) if name in ("client", "host", "broker") else {}
    if name == "a half of a character":
        words = {"client": "\ud800" + "c" * LONG, "host": "\udfff" * LONG}
        changes |= {"jti": "\ud800" * 9, "kubernetes.io": {"pod": {"name": "\udfff" * 9}}}
    token = world.issuer.token("worker" if good else "stranger", **changes)
    said = await world.ask(token, **words)
    assert said["name"] == "worker" if good else said["error"].startswith("unknown_subject: ")
    [fact] = await until(lambda: world.stored)
    assert fact.granted == good
    if name.isidentifier() and (good or name != "pod"):
        assert len(getattr(fact, name)) == bounds.MAX_LOGIN_WORD_CHARS


async def test_a_reason_of_any_length_is_a_fact(world: World):
    await world.edge.start()
    world.edge._keys._keys = {}
    world.edge._keys.read_problem = "x" * 3 * bounds.MAX_REASON_CHARS
    said = await world.ask(world.issuer.token("worker"))
    assert said["error"].startswith("keys_unavailable: ")
    [fact] = await until(lambda: world.stored)
    assert len(fact.reason) == bounds.MAX_REASON_CHARS


async def test_it_takes_no_questions_before_it_knows_keys(world: World, monkeypatch):
    """The broker asks one replica: one that knows no key would refuse whom another lets in."""
    monkeypatch.setattr(effects, "RETRY_S", 0.02)
    content = world.issuer.key_set.read_text()
    world.issuer.key_set.unlink()
    await world.edge.start()
    assert world.bus.serving is None and not world.edge.is_ready()
    assert "No such file" in world.edge.describe_problem() and "takes no questions" in world.edge.describe_problem()
    assert world.edge.describe_degradation() == "", "there is no key set before that"
    world.bus.away = 2
    world.issuer.key_set.write_text(content)
    await until(lambda: world.bus.serving)
    assert world.edge.is_ready() and not world.edge.describe_problem()
    assert (await world.ask(world.issuer.token("worker")))["name"] == "worker"


async def test_a_key_set_that_can_no_longer_be_read_degrades(world: World):
    await world.edge.start()
    assert world.bus.serving is not None and world.edge.describe_degradation() == ""
    world.issuer.key_set.unlink()
    await world.edge._keys.read_keys()
    assert (
        world.edge.describe_degradation().endswith("; tokens are verified by the one before") and world.edge.is_ready()
    )


async def test_who_stops_before_it_knows_keys_serves_no_more(world: World, monkeypatch):
    monkeypatch.setattr(effects, "RETRY_S", 0.02)
    content = world.issuer.key_set.read_text()
    world.issuer.key_set.unlink()
    await world.edge.start()
    await world.edge.stop()
    world.issuer.key_set.write_text(content)
    await asyncio.sleep(0.1)
    assert world.bus.serving is None and world.edge.describe_problem() == ""
