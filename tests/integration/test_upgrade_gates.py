"""Rollouts with gates of one's own, and users who stay with one version: commands on real hosts, and a real Prometheus."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fleetbed.host import Host
from fleetbed.paths import REPOSITORY
from fleetbed.site import SITE, Site
from fleetbed.upgrade import NEW, OLD, UPGRADE, VARIANTS, serves_alone, slot_that_serves, upgradable, wants
from fleetbed.visitors import Visits, visited

PROMETHEUS = """\
global: {scrape_interval: 1s}
scrape_configs:
  - job_name: shop
    static_configs: [{targets: ["127.0.0.1:9101"]}]
"""
# Of 20 users who stay with their version 3 may well be on one side, with 40 requests each; and a machine that does much else makes a
# slot that has just started slow.
JUDGED = {"min_requests": 20, "latency_floor": 2000}
CANARY = {"strategy": "canary", "sticky": "cookie", "observe": 10, "soak": 1, "canary": JUDGED}


@pytest.fixture(scope="module")
def site(new_host: Callable[..., Host], client: Host, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site that serves the former version."""
    return upgradable(new_host, client, tmp_path_factory.mktemp("gates"), "gates")


@pytest.fixture(scope="module")
def prometheus(new_host: Callable[..., Host]) -> Iterator[str]:
    """Where a Prometheus is that reads, every second, how many errors a shop's slots have."""
    host = new_host("prometheus")
    host.put("/etc/prometheus/prometheus.yml", PROMETHEUS)
    host.put("/srv/metrics", 'shop_errors{slot="blue"} 0.001\nshop_errors{slot="green"} 0.002\n')
    host.root(
        "export DEBIAN_FRONTEND=noninteractive; apt-get update -q; "
        "apt-get install -qy --no-install-recommends -o Dpkg::Options::=--force-confold prometheus",
        timeout=300,
    )
    host.root("systemd-run --quiet --unit=shop python3 -m http.server --directory /srv --bind 127.0.0.1 9101")
    yield f"http://{host.address}:9090"


def asked(url: str, query: str, **bounds: float) -> dict[str, Any]:
    return {"name": "errors", "timeout": 20, "prometheus": {"url": url, "query": query, **bounds}}


def rollout(site: Site, *gates: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The service's entry, with these gates."""
    return {**site.variables["fleet_services"]["fluxbase"]["rollout"], "gates": list(gates), **changes}


def authority(site: Site) -> str:
    return Path(site.variables["fleet_local_ca_dir"], "ca.pem").read_text()


def no_user_has_met_an_error(visits: Visits) -> None:
    assert {slot for own in visits.met for slot in own} <= {"blue", "green"}
    assert min(len(own) for own in visits.met) > 20


SMOKE = """\
import json, os, pwd, urllib.request
health = json.load(urllib.request.urlopen(os.environ["FLEET_URL"] + "/health"))
told = {key: value for key, value in os.environ.items() if key.startswith("FLEET_")}
print(json.dumps({**told, "met": health["slot"], "user": pwd.getpwuid(os.getuid()).pw_name}, indent=0))
"""


def test_each_user_stays_with_one_version_and_all_gates_pass(site: Site, prometheus: str) -> None:
    site.host.put("/usr/local/lib/smoke.py", SMOKE)
    smoke = {"name": "smoke", "command": ["/usr/bin/python3", "/usr/local/lib/smoke.py"], "timeout": 30}
    few_errors = asked(prometheus, 'shop_errors{slot="{slot}"}', below=0.01)
    changes = wants(site, NEW, rollout=rollout(site, smoke, few_errors, **CANARY, shares=[30, 70]))
    said = site.run(playbook=UPGRADE, changes=changes, check=True).of("Say what will be done").result["msg"]
    assert re.search(rf"judge {site.host.name}: smoke +30 s at most", said)
    assert re.search(rf"judge {site.host.name} 30 %: smoke, errors +50 s at most", said)
    with visited(site.client, site.host.address, authority(site)) as visits:
        run = site.run(playbook=UPGRADE, changes=changes)
    serves_alone(site, NEW, "green")
    no_user_has_met_an_error(visits)
    # Nobody goes back and forth: each goes over once, and stays.
    assert visits.turns() == [["blue", "green"]] * len(visits.met)
    # Some went with the first share, others later.
    assert len({own.index("green") // 12 for own in visits.met}) > 1
    for lines in visits.cookies:
        (line,) = lines
        assert re.fullmatch(r"selfhost_fluxbase=[0-9a-f]{32}; Path=/; Secure; HttpOnly; SameSite=Lax", line)
    words = [
        line for outcome in run.outcomes if outcome.task == "Say what they found" for line in outcome.result["msg"]
    ]
    assert words.count("errors: 0.002: below 0.01") == 3
    assert sum("/usr/bin/python3 ended with 0" in line for line in words) == 4
    judged = [outcome.result for outcome in run.outcomes if outcome.task == "See that it passes the gates of its own"]
    results = [each for result in judged for each in result["results"] if "lines" in each]
    told = [json.loads("\n".join(each["lines"])) for each in results]
    assert [each["FLEET_SHARE"] for each in told] == ["0", "30", "70", "100"]
    assert {(each["FLEET_VERSION"], each["met"], each["user"]) for each in told} == {(NEW, "green", "nobody")}


def test_with_one_version_no_cookie_is_set_and_nothing_is_to_be_done(site: Site) -> None:
    changes = wants(site, NEW, rollout=rollout(site, **CANARY))
    assert site.run(playbook=SITE, changes=changes).changed == []
    headers = site.curl("/health", "--include").stdout.lower()
    assert "x-request-id" in headers and "set-cookie" not in headers
    assert site.host.root("grep -rlE 'split_clients|selfhost_fluxbase=' /etc/nginx", check=False).stdout == ""


def test_the_hosts_remember_what_the_gates_found(site: Site) -> None:
    run = site.run(playbook=REPOSITORY / "playbooks" / "status.yml", options=["-e", "history=true"])
    (line,) = [each for each in run.of("Print it").result["msg"] if each.startswith(f"  judge {site.host.name} 70 %")]
    assert re.search(
        r": smoke, errors: done \(.* s\): smoke: .* ended with 0 after .* s; errors: 0\.002: below 0\.01$", line
    )


def test_a_command_that_fails_is_taken_back_and_users_of_a_slot_that_ends_go_to_the_other_one(site: Site) -> None:
    slot = slot_that_serves(site)
    other = {"blue": "green", "green": "blue"}[slot]
    script = f"echo 7 orders are lost; systemctl stop fluxbase-server@{other}.service; sleep 3; exit 7"
    ends = {"name": "orders", "command": ["/bin/sh", "-c", script], "user": "root", "when": "traffic"}
    changes = wants(site, OLD, rollout=rollout(site, ends, **CANARY, shares=[50]))
    with visited(site.client, site.host.address, authority(site)) as visits:
        run = site.run(playbook=UPGRADE, changes=changes, expect_failure=True)
    message = run.failed[-1].result["msg"]
    assert f"It failed in: judge {site.host.name} 50 %: orders" in message
    assert "orders: /bin/sh ended with 7 after" in message and "Its last words:\n  7 orders are lost" in message
    assert f"fluxbase {NEW} alone serves, from the slot {slot} as before" in message
    serves_alone(site, NEW, slot)
    no_user_has_met_an_error(visits)
    turns = visits.turns()
    assert [slot] in turns and [slot, other, slot] in turns
    assert all(each in ([slot], [slot, other, slot]) for each in turns)


def test_a_query_beyond_its_bound_and_a_command_on_the_controller_are_refused_before_users_meet_it(
    site: Site, prometheus: str
) -> None:
    slot = slot_that_serves(site)
    query = {**asked(prometheus, "shop_errors{slot='{slot}'} * 1000", below=1), "when": "start"}
    nothing = {
        **asked(prometheus, "shop_errors{slot='{version}'}", above=0),
        "name": "orders",
        "when": "start",
        "timeout": 6,
    }
    script = site.ansible.folder / "smoke.sh"
    script.write_text('#!/bin/sh\necho "$FLEET_SITE is not what it was, at $FLEET_SLOT"\nexit 1\n')
    script.chmod(0o755)
    outside = {"name": "from outside", "command": ["./smoke.sh"], "where": "controller", "when": "start"}
    changes = wants(site, VARIANTS["bad-answers"], "bad-answers", rollout=rollout(site, query, nothing, outside))
    run = site.run(playbook=UPGRADE, changes=changes, expect_failure=True)
    message = run.failed[-1].result["msg"]
    assert f"It failed in: judge {site.host.name}: errors, orders, from outside" in message
    assert re.search(r"errors: [12] is not below 1, of \{.*slot=\"(blue|green)\".*\}", message)
    assert "orders: the query found no data. Asked 2 times" in message and VARIANTS["bad-answers"] in message
    other = {"blue": "green", "green": "blue"}[slot]
    assert f"https://fluxbase.test is not what it was, at {other}" in message
    assert [outcome for outcome in run.outcomes if outcome.task == "Move the traffic"] == []
    serves_alone(site, NEW, slot)
