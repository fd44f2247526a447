"""What an operator and a webhook are told of rollouts."""

from __future__ import annotations

import http.server
import json
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fleetbed.host import Host
from fleetbed.site import Site
from fleetbed.upgrade import NEW, OLD, UPGRADE, VARIANTS, serves_alone, upgradable, wants

TOKEN = "Bearer f1c9d2e8"
TIME = r"\d\d:\d\d:\d\d"


class Webhook:
    """Answers on this machine; `status` is what it says. `bodies` and `tokens` are what it was sent."""

    def __init__(self) -> None:
        self.status = 204
        self.bodies: list[dict[str, Any]] = []
        self.tokens: list[str | None] = []
        webhook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # noqa: N802  (the name is the standard library's)
                length = int(self.headers["Content-Length"])
                webhook.bodies.append(json.loads(self.rfile.read(length)))
                webhook.tokens.append(self.headers["Authorization"])
                self.send_response(webhook.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """A test reads the bodies."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def variables(self) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self.server.server_port}/T0K3N"
        return {"fleet_notify": {"url": url, "headers": {"Authorization": f"{TOKEN}\n"}}}


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    made = Webhook()
    yield made
    made.close()


@pytest.fixture(scope="module")
def site(new_host: Callable[..., Host], client: Host, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site that serves the former version."""
    return upgradable(new_host, client, tmp_path_factory.mktemp("view"), "view")


PLAY = {
    "name": "A rollout",
    "hosts": "all",
    "gather_facts": False,
    "vars": {"rollout_view": True},
    "tasks": [
        {"name": "Nothing to see", "ansible.builtin.command": "true", "changed_when": False},
        {"name": "Change something outside of a step", "ansible.builtin.command": "true"},
        {
            "name": "Tell a webhook that is not there",
            "selfhost.fleet.rollout_event": {
                "event": {
                    "event": "done",
                    "service": "fluxbase",
                    "strategy": "rolling",
                    "from": {"app1": OLD},
                    "to": {"app1": NEW},
                    "steps": [],
                }
            },
            "vars": {"fleet_notify": {"url": "http://127.0.0.1:1/T0K3N", "headers": {"Authorization": TOKEN}}},
        },
        {"name": "Say something", "ansible.builtin.debug": {"msg": "one\ntwo"}},
        {
            "name": "Fail with more than a message",
            "ansible.builtin.command": "sh -c 'echo its own words >&2; exit 3'",
            "ignore_errors": True,
        },
        {
            "name": "Lose a host",
            "ansible.builtin.ping": {},
            "vars": {"ansible_host": "127.0.0.1", "ansible_port": 1},
            "ignore_unreachable": True,
        },
        {"name": "End it", "ansible.builtin.fail": {"msg": "the first line\n" + "x" * 3000}},
    ],
}


def no_secret_is_shown(output: str) -> None:
    assert "f1c9d2e8" not in output and "T0K3N" not in output


def test_a_failed_upgrade_without_a_terminal(site: Site, webhook: Webhook) -> None:
    webhook.status = 500
    name = site.host.name
    changes = {**wants(site, VARIANTS["crash-at-start"], "crash-at-start"), **webhook.variables()}
    run = site.run(playbook=UPGRADE, changes=changes, expect_failure=True)
    serves_alone(site, OLD, "blue")
    new = VARIANTS["crash-at-start"]
    # A plain line for each step, and no task that went well.
    lines = [line for line in run.output.splitlines() if re.match(TIME, line)]
    assert re.fullmatch(rf"{TIME}  fluxbase {OLD} -> {new}, blue_green, on {name}, by \S+", lines[0])
    told = [re.fullmatch(rf"{TIME}  fluxbase  (.+?) +(done|failed) +[\d.]+ s", line).groups() for line in lines[1:]]
    assert [each for each in told if each[1] == "failed"] == [(f"start {name}", "failed")]
    assert told[0] == (f"prepare {name}", "done") and (f"back: adopt {name}", "done") in told
    assert "\x1b" not in run.output and "Remember what was begun" not in run.output
    # The summary, and then the whole reason as the program gave it.
    summary = run.output.index(f"fluxbase {OLD} -> {new}, blue_green: rolled back after ")
    message = run.failed[-1].result["msg"]
    assert "conn closed" in message and run.output.index(message) > summary
    assert f"{name} serves {OLD} as before, and not {new}" in run.output
    assert "PLAY RECAP" in run.output
    # The webhook heard of all of it; its own failures are warnings that hide who it is.
    assert [body["event"] for body in webhook.bodies] == ["started", "rolled_back"]
    assert webhook.tokens == [TOKEN, TOKEN]
    started, ended = webhook.bodies
    assert (started["service"], started["kind"], started["strategy"]) == ("fluxbase", "upgrade", "blue_green")
    assert (started["from"], started["to"], started["hosts"]) == ({name: OLD}, {name: new}, [name])
    assert started["id"] == ended["id"] and started["operator"] == ended["operator"] != ""
    assert [(step["name"], step["outcome"]) for step in ended["steps"]] == [
        (title.removeprefix("back: "), outcome) for title, outcome in told
    ]
    assert ended["reason"].startswith(f"start {name}: ") and "conn closed" in ended["reason"]
    assert run.output.count("it answered with status 500") == 2
    no_secret_is_shown(run.output)


def test_an_upgrade_on_a_terminal(site: Site, webhook: Webhook) -> None:
    name = site.host.name
    run = site.run(playbook=UPGRADE, changes={**wants(site, NEW), **webhook.variables()}, terminal=True)
    serves_alone(site, NEW, "green")
    screens = run.output.split("\x1b[J")
    gate = [text for text in screens if text.lstrip().startswith(f"fluxbase {OLD} -> {NEW}") and f"gate {name}" in text]
    assert gate and "2 right answers in a row" in gate[0]
    assert re.search(r"\d+ s left at most", gate[0])
    # What was drawn is gone, and what stays is what goes to a file as well.
    stays = "".join(text for text in screens if not re.match(r"fluxbase .*step (\d+ of \d+|back)", text))
    for step in ("prepare", "install", "start", "gate", "soak", "drain", "finish"):
        assert len(re.findall(rf"^{TIME}  fluxbase  {step} {name} +done ", stays, flags=re.MULTILINE)) == 1
    assert re.search(rf"gate {name} .*fluxbase-server@green on {name} gave 2 of 2 answers", stays)
    assert f"fluxbase {OLD} -> {NEW}, blue_green: done after" in stays
    assert f"changed on {name}: " in stays and f"{name} serves {NEW} instead of {OLD}" in stays
    assert [body["event"] for body in webhook.bodies] == ["started", "done"]
    assert webhook.bodies[1]["seconds"] > 0 and webhook.bodies[1]["reason"] == ""
    assert "was not told" not in run.output
    no_secret_is_shown(run.output)


def test_nothing_is_hidden_but_what_went_well(site: Site) -> None:
    plain = {**PLAY, "name": "Another play", "vars": {}, "tasks": PLAY["tasks"][:1]}
    run = site.ansible.playbook([plain, PLAY], [site.host], expect_failure=True)
    before, _heading, shown = run.output.partition(f"ok: [{site.host.name}]\n")
    assert "PLAY [Another play]" in before and "TASK [Nothing to see]" in before
    assert "\none\ntwo\n" in shown and "Say something" not in shown
    assert re.search(r"TASK \[Change something outside of a step\] \*+\nchanged: \[", shown)
    assert "The webhook http://127.0.0.1:1 was not told of the event done of fluxbase" in shown
    assert f"fluxbase {OLD} -> {NEW}, rolling: done after 0.0 s\n  app1 serves {NEW} instead of {OLD}\n" in shown
    no_secret_is_shown(run.output)
    assert "its own words" in shown and "...ignoring" in shown
    assert "UNREACHABLE!" in shown
    assert f"FAILED! => End it:\nthe first line\n{'x' * 3000}\n" in shown
    verbose = site.ansible.playbook([PLAY], [site.host], options=["-v"], expect_failure=True)
    for task in PLAY["tasks"]:
        assert f"TASK [{task['name']}]" in verbose.output
    no_secret_is_shown(verbose.output)
