"""Where push notifications may go: what the tenant's row names, by https, and nothing that looks like it."""

import pytest
from pydantic import ValidationError

from bulkhead.a2a.push_urls import PushTarget, PushUrlForbidden, parse_push_url
from bulkhead_contracts import bounds
from bulkhead_contracts.push_policy import PushPolicy

ANY = PushPolicy(hosts=("*",), private_hosts=("localhost:9000", "[::1]:9000"))
SOME = PushPolicy(hosts=("hooks.example.org", "hooks.example.org:8443", "*.acme.example"))


@pytest.mark.parametrize(
    ("policy", "url", "found"),
    [
        (ANY, "https://hooks.example.org/a?b=c", PushTarget("hooks.example.org", 443, False)),
        (ANY, "https://HOOKS.example.org.:443/", PushTarget("hooks.example.org", 443, False)),
        (ANY, "http://localhost:9000/x", PushTarget("localhost", 9000, True)),
        (ANY, "http://[::1]:9000/x", PushTarget("::1", 9000, True)),
        (SOME, "https://hooks.example.org:8443", PushTarget("hooks.example.org", 8443, False)),
        (SOME, "https://a.b.acme.example/", PushTarget("a.b.acme.example", 443, False)),
    ],
)
def test_what_the_row_names_is_allowed(policy, url, found):
    assert parse_push_url(url, policy) == found


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.org/",
        "http://localhost:9001/",
        "https://localhost/",
        "ftp://hooks.example.org/",
        "gopher://hooks.example.org/",
        "//hooks.example.org/",
        "https:hooks.example.org",
        "https:///path",
        "https://ann@hooks.example.org/",
        "https://ann:pw@hooks.example.org/",
        "https://@hooks.example.org/",
        "https://hooks.example.org:22/",
        "https://hooks.example.org:0/",
        "https://hooks.example.org:65536/",
        "https://hooks.example.org:4x3/",
        "https://169.254.169.254/latest/meta-data/",
        "https://10.0.0.1/",
        "https://224.0.0.1/",
        "https://127.1/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0x7f.0.0.1/",
        "https://0177.0.0.1/",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://[fe80::1%25eth0]/",
        "https://hooks.example.org\\@10.0.0.1/",
        "https://hooks.example.org/ HTTP/1.1",
        "https://hooks.example.org/\r\nHost: x",
        "https://hooks.example.org/\u00e9",
        "https://ex\u00e4mple.org/",
        "https://hooks%2eexample.org/",
        "https://hooks..example.org/",
        "https://hooks.example.org/#x",
        "https://h.example.org/" + "x" * bounds.MAX_PUSH_URL_CHARS,
        "",
    ],
)
def test_a_hostile_url_is_forbidden_where_any_public_host_is_allowed(url):
    with pytest.raises(PushUrlForbidden) as refused:
        parse_push_url(url, ANY)
    assert "pw" not in str(refused.value)


@pytest.mark.parametrize(
    "host", ["example.org", "xhooks.example.org", "hooks.example.org.evil.example", "acme.example", "evilacme.example"]
)
def test_a_host_that_only_looks_like_one_of_the_row_is_none(host):
    with pytest.raises(PushUrlForbidden, match="none of the hosts"):
        parse_push_url(f"https://{host}/", SOME)


def test_a_row_that_names_no_hosts_allows_nothing_and_a_pattern_that_is_none_is_told():
    assert not PushPolicy().is_enabled
    with pytest.raises(PushUrlForbidden):
        parse_push_url("https://hooks.example.org/", PushPolicy())
    for wrong in (
        {"hosts": ["https://x.org"]},
        {"hosts": ["a*.x.org"]},
        {"private_hosts": ["localhost"]},
        {"host": []},
    ):
        with pytest.raises(ValidationError):
            PushPolicy.model_validate(wrong)
