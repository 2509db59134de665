"""The one part of an API server that the mesh asks: its key set, by https, for those who may read it.

In: a folder with keys.json, readers.json, issuer, tls.crt and tls.key, each read anew. Out: `/openid/v1/jwks` for a
bearer whose token is of this issuer, for this issuer, and of a subject among the readers. Runs as a program in a
container of the image of identity, which has PyJWT; everything else is of the standard library.
"""

import http.server
import json
import ssl
import sys
from pathlib import Path

import jwt

PORT = 443
KEY_SET, DISCOVERY = "/openid/v1/jwks", "/.well-known/openid-configuration"


def refusal(folder: Path, header: str) -> tuple[int, str]:
    """Status and reason for who may not read the key set; (200, "") for who may."""
    issuer = (folder / "issuer").read_text()
    kind, _, token = header.partition(" ")
    if kind != "Bearer" or not token:
        return 401, "no bearer token"
    try:
        kid = jwt.get_unverified_header(token).get("kid")
        keys = {row["kid"]: jwt.PyJWK(row) for row in json.loads((folder / "keys.json").read_text())["keys"]}
        if kid not in keys:
            return 401, "no such key"
        claims = jwt.decode(token, keys[kid], algorithms=["RS256"], audience=issuer, issuer=issuer)
    except jwt.PyJWTError as error:
        return 401, str(error)
    if claims["sub"] not in json.loads((folder / "readers.json").read_text()):
        return 403, f"{claims['sub']} may not read the key set"
    return 200, ""


class Answers(http.server.BaseHTTPRequestHandler):
    """Two documents."""

    folder = Path()

    def do_GET(self) -> None:
        """See the module."""
        status, reason = refusal(self.folder, self.headers.get("Authorization", ""))
        issuer = (self.folder / "issuer").read_text()
        known = {
            KEY_SET: (self.folder / "keys.json").read_text(),
            DISCOVERY: json.dumps({"issuer": issuer, "jwks_uri": f"https://kubernetes.default.svc{KEY_SET}"}),
        }
        if status == 200 and self.path not in known:
            status, reason = 404, self.path
        body = known[self.path] if status == 200 else json.dumps({"kind": "Status", "code": status, "message": reason})
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body.encode())


def main(folder: Path) -> None:
    """Never returns."""
    Answers.folder = folder
    server = http.server.ThreadingHTTPServer(("0.0.0.0", PORT), Answers)  # noqa: S104
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
