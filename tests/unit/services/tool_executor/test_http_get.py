"""http_get over a real server: allow-list, addresses, redirects, bounds, text."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from bulkhead_services.tool_executor import addresses


class Site:
    """Pages by path; `seen` lists (path, host header)."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self.failures = 0
        site = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None: ...

            def do_GET(self) -> None:
                site.seen.append((self.path, self.headers["host"]))
                status, headers, body = site.page(self.path)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.host = f"localhost:{self.port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def page(self, path: str) -> tuple[int, dict[str, str], bytes]:
        text = {"content-type": "text/plain; charset=iso-8859-1"}
        match path:
            case "/":
                return 200, text, "Gebühr".encode("latin-1")
            case "/away":
                return 302, {"location": "http://other.example/"}, b""
            case "/inside":
                return 302, {"location": f"http://127.0.0.1:{self.port}/"}, b""
            case "/on":
                return 302, {"location": "/"}, b""
            case "/nowhere":
                return 302, {"location": "http://[broken/"}, b""
            case "/round":
                return 302, {"location": "/round"}, b""
            case "/big":
                return 200, text, b"x" * 300_000
            case "/image":
                return 200, {"content-type": "image/png"}, b"\x89PNG"
            case "/zeros":
                return 200, text, b"a\x00b"
            case "/zip":
                return 200, {**text, "content-encoding": "gzip"}, b"\x1f\x8b"
            case path if path.startswith("/as-"):
                return 200, {"content-type": f"text/plain; charset={path[4:]}"}, b"a \\ud800 b +2AA- \xff"
            case "/empty":
                return 200, text, b"  "
            case "/shaky" if self.failures:
                self.failures -= 1
                return 503, text, b"busy"
            case "/shaky":
                return 200, text, b"steady"
        return 404, text, b"no"


@pytest.fixture
def site() -> Iterator[Site]:
    found = Site()
    yield found
    found.server.shutdown()
    found.server.server_close()


@pytest.fixture
def fetching(make_desk, site):
    return make_desk(http_allow_hosts=(site.host, "example.org"), http_allow_private_hosts=(site.host,))


async def test_text_comes_in_its_charset(fetching, site) -> None:
    reply = await fetching.call("http_get", {"url": f"http://{site.host}/"})
    assert fetching.text(reply) == "Gebühr"
    assert site.seen == [("/", site.host)]


@pytest.mark.parametrize("charset", ["unicode_escape", "utf-7", "idna", "punycode", "undefined", "hex", "nonsense"])
async def test_no_charset_of_a_server_breaks_the_tool(fetching, site, charset) -> None:
    # Some of Python's codecs are no charsets: they raise, or make halves of characters that nothing can store.
    text = fetching.text(await fetching.call("http_get", {"url": f"http://{site.host}/as-{charset}"}))
    assert text.startswith("a ") and text.encode()


async def test_redirects_are_followed_on_the_allow_list_alone(fetching, site) -> None:
    assert fetching.text(await fetching.call("http_get", {"url": f"http://{site.host}/on"})) == "Gebühr"
    for path, code in (
        ("/away", "host_not_allowed"),
        ("/inside", "host_not_allowed"),
        ("/nowhere", "bad_url"),
        ("/round", "too_many_redirects"),
    ):
        reply = await fetching.call("http_get", {"url": f"http://{site.host}{path}"})
        assert (reply.outcome, reply.failure.code) == ("failed", code)
    assert len([path for path, _ in site.seen if path == "/round"]) == 4


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://other.example/", "host_not_allowed"),
        ("http://example.org:8080/", "host_not_allowed"),
        ("http://example.org.evil.example/", "host_not_allowed"),
        ("https://127.0.0.1/", "host_not_allowed"),
        ("http://[::1]/", "host_not_allowed"),
        ("file:///etc/passwd", "bad_url"),
        ("http://user:pw@example.org/", "bad_url"),
        ("http://example.org\\@evil.example/", "bad_url"),
        ("http://exa mple.org/", "bad_url"),
        ("http://example.org:99999/", "bad_url"),
        ("gopher://example.org/", "bad_url"),
    ],
)
async def test_other_places_are_refused(fetching, url: str, code: str) -> None:
    reply = await fetching.call("http_get", {"url": url})
    assert (reply.outcome, reply.failure.code) == ("failed", code)


async def test_an_allowed_name_that_leads_inside_is_refused(make_desk, site) -> None:
    desk = make_desk(http_allow_hosts=(site.host,))
    reply = await desk.call("http_get", {"url": f"http://{site.host}/"})
    assert reply.failure.code == "private_address" and "PRIVATE" in reply.failure.hint
    assert site.seen == []


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("10.0.0.1", False),
        ("169.254.169.254", False),
        ("127.0.0.1", False),
        ("::1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
        ("64:ff9b:1::1", False),
        ("::127.0.0.1", False),
        ("fec0::1", False),
        ("fe80::1%eth0", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("100.64.0.1", False),
    ],
)
def test_public_addresses(address: str, public: bool) -> None:
    assert addresses.is_public(address) is public


async def test_size_is_bounded_and_says_so(fetching, site) -> None:
    reply = await fetching.call("http_get", {"url": f"http://{site.host}/big"})
    assert len(fetching.text(reply)) == 64 * 1024
    assert reply.completeness.omissions[0].reason == "truncated"


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/image", "not_text"),
        ("/zeros", "not_text"),
        ("/zip", "not_text"),
        ("/empty", "empty_body"),
        ("/no", "http_status"),
    ],
)
async def test_what_is_no_text_is_refused(fetching, site, path: str, code: str) -> None:
    reply = await fetching.call("http_get", {"url": f"http://{site.host}{path}"})
    assert (reply.outcome, reply.failure.code, reply.usage.tool_calls) == ("failed", code, 1)


async def test_reads_are_retried_boundedly(fetching, site) -> None:
    site.failures = 2
    reply = await fetching.call("http_get", {"url": f"http://{site.host}/shaky"})
    assert (fetching.text(reply), reply.usage.tool_calls) == ("steady", 3)
    site.failures = 3
    reply = await fetching.call("http_get", {"url": f"http://{site.host}/shaky"}, call_id="c2")
    assert (reply.outcome, reply.failure.code, site.failures) == ("failed", "http_status", 0)
