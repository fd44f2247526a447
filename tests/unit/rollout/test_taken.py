"""Steps that were taken, as hosts record them."""

from __future__ import annotations

from typing import Any

from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.taken import recorded

HOSTS = ["app1", "app2"]


def begun(*steps: tuple[str, list[str], float]) -> list[dict[str, Any]]:
    return [
        {"name": f"{phase} {', '.join(hosts)}", "phase": phase, "hosts": hosts, "began": began}
        for phase, hosts, began in steps
    ]


STEPS = begun(("copy", ["db1"], 10), ("start", ["app1"], 12), ("traffic", HOSTS, 15.5), ("finish", ["app1"], 20))


def test_of_a_host_those_that_concern_it() -> None:
    first, second = (recorded(STEPS, 21, host=host, hosts=HOSTS) for host in HOSTS)
    assert [step["name"] for step in first] == ["copy db1", "start app1", "traffic app1, app2", "finish app1"]
    assert [step["name"] for step in second] == ["copy db1", "traffic app1, app2"]
    assert first[1] == {"name": "start app1", "outcome": "done", "seconds": 3.5, "ago": 5.5, "comment": ""}


def test_the_one_that_is_under_way_is_none_yet() -> None:
    found = recorded(STEPS, 21, host="app1", hosts=HOSTS, under_way=True)
    assert [(step["name"], step["seconds"]) for step in found][-1] == ("traffic app1, app2", 4.5)
    assert recorded(STEPS[:1], 21, host="app1", hosts=HOSTS, under_way=True) == []


def test_the_one_that_failed_and_those_on_the_way_back() -> None:
    back = [*STEPS[:2], *begun(("adopt", ["app1"], 18))]
    found = recorded(back, 21, STEPS[1], host="app1", hosts=HOSTS)
    assert [step["outcome"] for step in found] == ["done", "failed", "done"]


def test_what_hosts_say_of_a_step_and_of_a_stop() -> None:
    twice = [*begun(("stop", ["app1"], 1)), *STEPS]
    said = [{}, {"copy db1": "80 MiB"}]
    found = recorded(twice, 21, host="app1", hosts=HOSTS, remarks=said, kill="it was killed")
    assert {step["name"]: step["comment"] for step in found if step["comment"]} == {
        "copy db1": "80 MiB",
        "finish app1": "it was killed",
    }
    # What was said of an earlier one was written down before this one began.
    found = recorded(twice, 21, host="app1", hosts=HOSTS, kill="it was killed", under_way=True)
    assert [step["name"] for step in found if step["comment"]] == ["stop app1"]
    assert not any(step["comment"] for step in recorded(twice, 21, host="app2", hosts=HOSTS, kill="it was killed"))
