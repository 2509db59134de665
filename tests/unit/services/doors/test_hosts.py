"""The names under which clients may come to the doors."""

import pytest
from starlette.requests import Request

from bulkhead_services.doors.http.hosts import AllowedHosts
from bulkhead_services.doors.port import DoorRefusal
from bulkhead_services.doors.settings import Settings


def hosts(listens: str = "127.0.0.1", *named: str) -> AllowedHosts:
    return AllowedHosts(Settings(nats_url="nats://127.0.0.1:1", http_host=listens, allowed_hosts=named))


def request(host: str, origin: str = "") -> Request:
    heads = [(b"host", host.encode()), *([(b"origin", origin.encode())] if origin else [])]
    return Request({"type": "http", "method": "POST", "path": "/mcp", "query_string": b"", "headers": heads})


@pytest.mark.parametrize("host", ["127.0.0.1:8090", "10.0.0.7", "[::1]:8090", "localhost", "doors:8090"])
def test_addresses_and_names_without_a_dot_are_no_rebound_names(host: str) -> None:
    assert hosts().check_host(request(host)) == f"http://{host}"


@pytest.mark.parametrize(("host", "status"), [("evil.example", 421), ("127.0.0.1.evil.example:8090", 421)])
def test_a_name_that_nobody_gave_to_the_doors_is_turned_away(host: str, status: int) -> None:
    for found in (hosts(), hosts("0.0.0.0", "mesh.example")):
        with pytest.raises(DoorRefusal) as refused:
            found.check_host(request(host))
        assert (refused.value.status, refused.value.code) == (status, "unknown_host")


@pytest.mark.parametrize("host", ["", "a b", "mesh.example/x", "x" * 300, "[::1", "mesh.example:port"])
def test_what_is_no_host_is_refused_whatever_is_allowed(host: str) -> None:
    with pytest.raises(DoorRefusal) as refused:
        hosts("0.0.0.0").check_host(request(host))
    assert refused.value.status == 400


def test_behind_a_proxy_whose_names_are_not_told_any_name_is_taken_and_else_the_named() -> None:
    assert hosts("0.0.0.0").check_host(request("mesh.example")) == "http://mesh.example"
    assert hosts("0.0.0.0", "Mesh.example").check_host(request("MESH.example.:443"))


def test_the_address_of_the_settings_is_taken_and_stands_for_whatever_was_called() -> None:
    settings = Settings(nats_url="nats://127.0.0.1:1", http_host="0.0.0.0", public_url="https://mesh.example")
    for called in ("mesh.example", "10.0.0.7:8090"):
        assert AllowedHosts(settings).check_host(request(called)) == "https://mesh.example"
    with pytest.raises(DoorRefusal):
        AllowedHosts(settings).check_host(request("evil.example"))


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "https://[", "http://localhost.evil.example"])
def test_pages_of_others_are_turned_away(origin: str) -> None:
    for found in (hosts(), hosts("0.0.0.0"), hosts("0.0.0.0", "mesh.example")):
        with pytest.raises(DoorRefusal) as refused:
            found.check_origin(request("127.0.0.1", origin))
        assert (refused.value.status, refused.value.code) == (403, "foreign_origin")


def test_pages_of_this_machine_and_of_named_hosts_are_taken() -> None:
    found = hosts("0.0.0.0", "mesh.example")
    for origin in ("http://localhost:6274", "http://[::1]:1", "https://mesh.example", ""):
        found.check_origin(request("127.0.0.1", origin))
