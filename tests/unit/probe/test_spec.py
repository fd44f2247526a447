from __future__ import annotations

import pytest
from ansible_collections.selfhost.fleet.plugins.module_utils.probe import ProbeSpec, ProbeSpecError
from ansible_collections.selfhost.fleet.plugins.module_utils.probe.spec import split_host_port

HTTP = {"kind": "http", "url": "http://127.0.0.1:8081/health"}


def test_defaults_and_none_are_the_same() -> None:
    assert ProbeSpec.from_mapping(HTTP) == ProbeSpec.from_mapping(
        {**HTTP, "status": None, "unit": None, "deadline": None}
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "http"}, "probe.url is missing"),
        ({**HTTP, "kind": "grpc"}, "one of http, tcp, websocket"),
        ({**HTTP, "kind": "tcp"}, "begins with tcp://"),
        ({**HTTP, "url": "ws://x/"}, "begins with http:// or https://"),
        ({**HTTP, "url": "http://user:word@x/"}, "user or password"),
        ({**HTTP, "url": "http://x:99999/"}, "probe.url"),
        ({**HTTP, "url": "http:///health"}, "names no host"),
        ({**HTTP, "url": "http://x/a b"}, "%20"),
        ({"kind": "tcp", "url": "tcp://x"}, "names no port"),
        ({**HTTP, "body_pattern": "("}, "probe.body_pattern '(' is not a regular expression"),
        ({**HTTP, "message_pattern": "x"}, "means nothing for kind http"),
        ({"kind": "tcp", "url": "tcp://x:1", "status": [204]}, "probe.status means nothing for kind tcp"),
        ({**HTTP, "timeout": 0}, "probe.timeout"),
        ({**HTTP, "interval": "soon"}, "probe.interval is 'soon'"),
        ({**HTTP, "deadline": float("nan")}, "probe.deadline"),
        ({**HTTP, "successes": 0}, "at least 1"),
        ({**HTTP, "status": []}, "no answer could ever be right"),
        ({**HTTP, "status": ["fine"]}, "not a whole number"),
        ({**HTTP, "verify": "no"}, "true or false"),
        ({**HTTP, "headers": {"A": "b\r\nC: d"}}, "line break"),
        ({**HTTP, "headers": {"host": "x"}}, "probe.host"),
        ({**HTTP, "connect_to": "127.0.0.1:port"}, "probe.connect_to"),
        ({**HTTP, "unit": "-x.service"}, "systemd unit"),
        ({**HTTP, "start_timeout": 5}, "unknown option start_timeout"),
    ],
)
def test_mistakes_name_the_option(options: dict[str, object], words: str) -> None:
    with pytest.raises(ProbeSpecError) as caught:
        ProbeSpec.from_mapping(options)
    assert words in str(caught.value)


def test_a_default_status_is_no_mistake_for_other_kinds() -> None:
    assert ProbeSpec.from_mapping({"kind": "tcp", "url": "tcp://[::1]:5432", "status": [200]}).address() == (
        "::1",
        5432,
    )


def test_connect_to_changes_only_the_address() -> None:
    spec = ProbeSpec.from_mapping(
        {"kind": "websocket", "url": "wss://api.example.com/rt?x=1", "connect_to": "192.0.2.1"}
    )
    assert spec.address() == ("192.0.2.1", 443)
    assert (spec.server_name, spec.host_header, spec.target) == ("api.example.com", "api.example.com", "/rt?x=1")


def test_host_changes_only_the_name() -> None:
    spec = ProbeSpec.from_mapping({"kind": "http", "url": "https://127.0.0.1:8443", "host": "api.example.com:8443"})
    assert spec.address() == ("127.0.0.1", 8443)
    assert (spec.server_name, spec.host_header, spec.target) == ("api.example.com", "api.example.com:8443", "/")


@pytest.mark.parametrize(
    ("text", "parts"),
    [("a", ("a", None)), ("a:1", ("a", 1)), ("::1", ("::1", None)), ("[::1]:2", ("::1", 2)), ("[::1]", ("::1", None))],
)
def test_split_host_port(text: str, parts: tuple[str, int | None]) -> None:
    assert split_host_port(text) == parts
