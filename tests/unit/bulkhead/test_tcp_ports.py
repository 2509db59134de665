"""Free ports of this machine."""

from bulkhead.http_server import tcp_ports


def test_two_who_ask_one_after_the_other_are_given_two_ports(monkeypatch):
    """Neither listens yet."""
    drawn = iter([20_001, 20_001, 20_002])
    monkeypatch.setattr(tcp_ports, "_bindable", lambda host, port: True)
    monkeypatch.setattr(tcp_ports.random, "randint", lambda first, last: next(drawn))
    assert tcp_ports.free_port() != tcp_ports.free_port()
