"""Login decisions, pure: verified claims become a user of one service's account, or a refusal that says what to do.

In: the permissions file, claims of a token whose signature is good, the broker's question, the time. Out: the claims of
a user JWT as nats-server reads them in configuration mode (`aud`: the account), or why not.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, ValidationError

from bulkhead.text.validation_errors import find_misfits
from bulkhead_contracts import bounds
from bulkhead_contracts.types import Contract, Name, Token

ACCOUNT_OF_TOKENS = "system:serviceaccount:"
NANOSECONDS_PER_S = 10**9
Subject = Annotated[str, Field(min_length=1, max_length=256)]


class PermissionsError(ValueError):
    """The permissions file cannot be used; the message says where and what to do."""


class ReplyLimits(Contract, extra="forbid"):
    """Bounds on the number of answers to a request, and on their time."""

    max: Annotated[int, Field(ge=1, le=100)]
    expires_s: Annotated[int, Field(ge=1, le=600)]


class ServicePermissions(Contract, extra="forbid"):
    """Rights of one service, and who it is in the cluster. An empty list would mean everything to the broker."""

    account: Token
    service_account: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
    publish: Annotated[tuple[Subject, ...], Field(min_length=1, max_length=10_000)]
    subscribe: Annotated[tuple[Subject, ...], Field(min_length=1, max_length=10_000)]
    replies: ReplyLimits | None = None


class PermissionsFile(Contract, extra="forbid"):
    """Content by service, as infra/bulkhead_infra/identity/render.py writes it."""

    services: Annotated[Mapping[Name, ServicePermissions], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class TokenClaims:
    """Content of a verified token."""

    subject: str
    issued_s: int
    expires_s: int
    token_id: str = ""
    pod: str = ""


@dataclass(frozen=True, slots=True)
class LoginQuestion:
    """The broker's question about one client. user_nkey: the name that this login has for the broker. asks_for: the
    user name that the client gave. sealed: whether the question came encrypted."""

    server_id: str
    user_nkey: str
    token: str = ""
    asks_for: str = ""
    client: str = ""
    host: str = ""
    broker: str = ""
    sealed: bool = True


@dataclass(frozen=True, slots=True)
class LoginAdmission:
    """A client may come in as this service until then."""

    service: str
    permissions: ServicePermissions
    claims: TokenClaims


@dataclass(frozen=True, slots=True)
class LoginRefusal:
    """Why a client may not come in. claims: of its token, where its signature is good."""

    code: str
    reason: str
    hint: str
    claims: TokenClaims | None = None


def bounded_word(value: object, max_chars: int = bounds.MAX_LOGIN_WORD_CHARS) -> str:
    """A word of others as it may stand in a fact: cut, and of whole characters; "" for none."""
    return ("" if value is None else str(value))[:max_chars].encode(errors="replace").decode()


def read_permissions(text: bytes) -> Mapping[str, ServicePermissions]:
    """Check the file's content. Raises PermissionsError."""
    try:
        return PermissionsFile.model_validate_json(text).services
    except ValidationError as error:
        raise PermissionsError(
            f"permissions file: {find_misfits(error, PermissionsFile)[0]}; render it again"
        ) from error


def decide_login(
    services: Mapping[str, ServicePermissions],
    namespace: str,
    max_s: int,
    claims: TokenClaims,
    question: LoginQuestion,
    now_s: int,
) -> LoginAdmission | LoginRefusal:
    """Service that a token's owner is here. The client's own words choose nothing."""
    if claims.expires_s <= now_s:
        # Within the leeway of clocks; but a user whose time is over cannot come in.
        return LoginRefusal("token_expired", "the token has expired", "show the one that the file holds now", claims)
    if claims.expires_s - claims.issued_s > max_s:
        reason = f"the token is made to last {claims.expires_s - claims.issued_s} s; at most {max_s} s are taken"
        return LoginRefusal("token_lasts_too_long", reason, "lower expirationSeconds of the projected token", claims)
    owners = {f"{ACCOUNT_OF_TOKENS}{namespace}:{row.service_account}": name for name, row in services.items()}
    service = owners.get(claims.subject)
    if service is None:
        hint = (
            "run the pod under the service account of its service, in this namespace, or add the service to the policy"
        )
        return LoginRefusal("unknown_subject", f"no service here runs as {claims.subject}", hint, claims)
    if question.asks_for not in ("", service):
        reason = f"the token is {service}'s; it cannot log in as {question.asks_for}"
        return LoginRefusal("foreign_account", reason, "log in with the token alone, or with the service's own", claims)
    return LoginAdmission(service, services[service], claims)


def user_claims(admission: LoginAdmission, question: LoginQuestion, issuer: str, now_s: int) -> dict[str, Any]:
    """Claims of the user's JWT. It ends with the token, and the broker then ends the connection."""
    permissions = admission.permissions
    nats: dict[str, Any] = {
        "pub": {"allow": permissions.publish},
        "sub": {"allow": permissions.subscribe},
        "subs": -1,
        "data": -1,
        "payload": -1,
        "allowed_connection_types": ["STANDARD"],
        "type": "user",
        "version": 2,
    }
    if permissions.replies is not None:
        nats["resp"] = {"max": permissions.replies.max, "ttl": permissions.replies.expires_s * NANOSECONDS_PER_S}
    return {
        "aud": permissions.account,
        "exp": admission.claims.expires_s,
        "iat": now_s,
        "iss": issuer,
        # With a name of its own the connection forgets the token, which the monitoring port would show.
        "name": admission.service,
        "sub": question.user_nkey,
        "nats": nats,
    }


def answer_claims(
    question: LoginQuestion, issuer: str, now_s: int, *, user: str = "", error: str = ""
) -> dict[str, Any]:
    """Claims of the answer: for the server that asked, about the user that it asked about."""
    outcome = {"jwt": user} if user else {"error": error}
    nats = {**outcome, "type": "authorization_response", "version": 2}
    return {"aud": question.server_id, "iat": now_s, "iss": issuer, "sub": question.user_nkey, "nats": nats}
