"""The edge of identity: answers the broker's questions about logins (NATS auth callout).

In: questions on `$SYS.REQ.USER.AUTH`, sealed for this service's xkey; shared with other replicas. Out: a user's JWT,
signed by the issuer that the broker trusts, or a refusal; sealed for the broker that asked. A fact about each.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import nkeys

from bulkhead.bus.port import BusUnavailable, LiveMessage
from bulkhead.bus.xkeys import BoxNotForUs, public_xkey, seal, unseal
from bulkhead.runtime.background import cancel_tasks
from bulkhead.runtime.context import Context
from bulkhead.runtime.edge.protocol import EdgeComponent
from bulkhead.telemetry import metrics, names
from bulkhead.telemetry.log import Log
from bulkhead.telemetry.metrics import ReadGauge
from bulkhead_services.identity import nkey_jwt
from bulkhead_services.identity.audit import LoginAudit
from bulkhead_services.identity.core import (
    LoginAdmission,
    LoginQuestion,
    LoginRefusal,
    PermissionsError,
    ServicePermissions,
    answer_claims,
    bounded_word,
    decide_login,
    read_permissions,
    user_claims,
)
from bulkhead_services.identity.key_set import RETRY_S, KeySet
from bulkhead_services.identity.settings import Settings
from bulkhead_services.identity.tokens import LoginTokenVerifier

log = Log("identity")

SUBJECT = "$SYS.REQ.USER.AUTH"
XKEY_HEADER = "Nats-Server-Xkey"
ISSUER_FILE, XKEY_FILE = "identity.issuer", "identity.xkey"
PERMISSIONS_FILE = "permissions.json"
NO_ANSWER: tuple[Mapping[str, str], bytes] = ({}, b"")
"""The broker takes it for a refusal, and need not wait until its time is over."""


class LoginAnswers(EdgeComponent):
    """The edge. It has no inbox."""

    def __init__(self, context: Context, settings: Settings) -> None:
        self._context, self._settings = context, settings
        self._keys = KeySet(settings)
        self._tokens = LoginTokenVerifier(settings, self._keys)
        self._audit = LoginAudit(context.publisher, context.clock)
        self._permissions: Mapping[str, ServicePermissions] = {}
        self._issuer: nkeys.KeyPair = None
        self._issuer_key = self._xkey = ""
        self._serving = False
        self._auditing: asyncio.Task[None] | None = None
        self._opening: asyncio.Task[None] | None = None
        """Where no key was known at the start."""
        self._stop: Callable[[], Awaitable[None]] | None = None

    async def start(self) -> None:
        """Read keys and permissions, and take questions once a key is known. Raises ValueError with what to do."""
        if problems := self._settings.start_problems():
            raise ValueError("; ".join(problems))
        folder = self._settings.identity_dir
        self._issuer = _load_issuer(folder / ISSUER_FILE)
        self._issuer_key = bytes(self._issuer.public_key).decode()
        self._xkey = _read_text(folder / XKEY_FILE)
        _check_xkey(self._xkey, folder / XKEY_FILE)
        path = self._settings.permissions_file or folder / PERMISSIONS_FILE
        self._permissions = read_permissions(_read_text(path).encode())
        await self._keys.read_keys()
        self._auditing = self._context.background.start("audit of logins", self._audit.run())
        if self._keys.key_count:
            await self._serve_questions()
        else:
            self._opening = self._context.background.start("first key set", self._open_once_keys_known())

    async def _open_once_keys_known(self) -> None:
        """Try until it takes questions. The broker asks any replica: one without keys would refuse whom others let
        in."""
        while not self._serving:
            await asyncio.sleep(RETRY_S)
            if not self._keys.key_count:
                await self._keys.read_keys()
                continue
            try:
                await self._serve_questions()
            except BusUnavailable as error:
                log.warning("logins_not_taken", reason=str(error), then="it is tried again")

    async def _serve_questions(self) -> None:
        self._stop = await self._context.bus.serve(SUBJECT, "identity", self.answer_question)
        self._serving = True
        log.info("takes_logins", services=len(self._permissions), keys=self._keys.key_count, issuer=self._issuer_key)

    async def stop(self) -> None:
        """Take no more questions; store what was decided, if the journal takes it."""
        if self._opening is not None:
            await cancel_tasks(self._opening)
            self._opening = None
        self._serving = False
        if self._stop is not None:
            await self._stop()
        await self._audit.wait_until_stored()
        if self._auditing is not None:
            await cancel_tasks(self._auditing)

    def is_ready(self) -> bool:
        """True when it can tell good tokens from others."""
        return self._serving and self._keys.key_count > 0

    def describe_problem(self) -> str:
        """Why it takes no questions: where no replica does, nobody can log in."""
        if self._opening is None or self._keys.key_count:
            return ""
        return (
            f"{self._keys.read_problem}; until it can, this replica takes no questions: without another nobody logs in"
        )

    def describe_degradation(self) -> str:
        """A key set that cannot be renewed, or facts that are not stored."""
        if self._keys.read_problem and self._keys.key_count:
            return f"{self._keys.read_problem}; tokens are verified by the one before"
        if self._audit.lost_count:
            return f"{self._audit.lost_count} logins are told by no fact: the journal took none for a while"
        return ""

    def details(self) -> dict[str, object]:
        """Keys at hand, and facts that are not stored yet."""
        return {"keys": self._keys.key_count, "facts_waiting": self._audit.waiting_facts}

    def gauges(self) -> dict[str, ReadGauge]:
        """Facts that are not stored yet."""
        return {names.LOGIN_FACTS: lambda: {(): self._audit.waiting_facts}}

    async def answer_question(self, asked: LiveMessage) -> tuple[Mapping[str, str], bytes]:
        """One question, one answer. Bytes that are no broker's question get none."""
        sender = next((value for name, value in asked.headers.items() if name.lower() == XKEY_HEADER.lower()), "")
        now_s = int(time.time())
        try:
            text = unseal(asked.body, self._xkey, sender) if sender else asked.body
            question = _parse_question(nkey_jwt.verify_question(text, now_s), sealed=bool(sender))
        except (BoxNotForUs, ValueError) as error:
            hint = "the broker's `xkey` must be the public one of identity.xkey: render its accounts again"
            log.warning("question_unreadable", reason=str(error), hint=hint)
            metrics.logins.add(1, {names.OUTCOME: "question_unreadable"})
            return NO_ANSWER
        decided = await self._verify_and_decide(question, now_s)
        if isinstance(decided, LoginRefusal):
            metrics.logins.add(1, {names.OUTCOME: decided.code})
            self._audit.record_refused(decided, question)
            refusal_text = f"{decided.code}: {decided.reason}; {decided.hint}"
            claims = answer_claims(question, self._issuer_key, now_s, error=refusal_text)
        else:
            metrics.logins.add(1, {names.OUTCOME: "granted"})
            self._audit.record_granted(decided, question)
            user = nkey_jwt.encode_jwt(user_claims(decided, question, self._issuer_key, now_s), self._issuer)
            claims = answer_claims(question, self._issuer_key, now_s, user=user)
        answer = nkey_jwt.encode_jwt(claims, self._issuer).encode()
        return {}, seal(answer, self._xkey, sender) if sender else answer

    async def _verify_and_decide(self, question: LoginQuestion, now_s: int) -> LoginAdmission | LoginRefusal:
        if not question.sealed:
            hint = (
                "set `xkey` in the broker's auth_callout (render its accounts), and exchange the tokens that it showed"
            )
            return LoginRefusal("not_encrypted", "the broker sent the token in the clear", hint)
        claims = await self._tokens.verify_token(question.token)
        if isinstance(claims, LoginRefusal):
            return claims
        settings = self._settings
        return decide_login(self._permissions, settings.token_namespace, settings.token_max_s, claims, question, now_s)


def _parse_question(claims: Mapping[str, Any], *, sealed: bool) -> LoginQuestion:
    """Those of the broker's words that count here. Raises ValueError."""
    request = claims["nats"]
    client, options, server = request.get("client_info") or {}, request.get("connect_opts") or {}, request["server_id"]
    words = (request["user_nkey"], options.get("auth_token", ""), options.get("user", ""), client.get("host", ""))
    if not all(isinstance(value, str) for value in words):
        raise ValueError("a question with fields of another type")
    return LoginQuestion(
        server_id=claims["iss"],
        user_nkey=words[0],
        token=words[1],
        asks_for=words[2],
        client=bounded_word(options.get("name")),
        host=bounded_word(words[3]),
        broker=bounded_word(server.get("name")),
        sealed=sealed,
    )


def _load_issuer(path: Path) -> nkeys.KeyPair:
    try:
        pair = nkeys.from_seed(bytearray(_read_text(path).encode()))
        if not bytes(pair.public_key).startswith(b"A"):
            raise ValueError("no account's key")
    except (nkeys.NkeysError, ValueError) as error:
        raise ValueError(f"{path} holds no account's nkey ({error}); {KEYS_HINT}") from error
    return pair


def _check_xkey(seed: str, path: Path) -> None:
    try:
        public_xkey(seed)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; {KEYS_HINT}") from error


KEYS_HINT = (
    "it is made with the mesh's keys (`python -m bulkhead_infra.kubernetes keys DIR`) and mounted from its Secret"
)


def _read_text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        cause = getattr(error, "strerror", None) or "it is no text"
        raise PermissionsError(f"{path} cannot be read: {cause}; {KEYS_HINT}") from error
