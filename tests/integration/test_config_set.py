"""config_set on a real host: nginx, systemd, full disks and killed runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from fleetbed.host import Host
from fleetbed.runner import Ansible, Run

SITE = """server {
    listen 127.0.0.1:{{ port }};
{% for name in ['a', 'b'] %}
    location /{{ name }} { return 200 "{{ name }}\\n"; }
{% endfor %}
    location / { return 200 "{{ word }}\\n"; }
}
"""
PATH = "/etc/nginx/conf.d/site.conf"
SERVER = """[Unit]
Description=A server of the test
[Service]
ExecStart=/usr/bin/python3 -m http.server --bind 127.0.0.1 {port}
[Install]
WantedBy=multi-user.target
"""
STATE = "find /etc/nginx /etc/systemd/system /etc/selfhost* -printf '%p %m %u %g %l\\n' -a -type f -exec sha256sum {} +"


class Fleet:
    """A host and the playbooks against it."""

    def __init__(self, host: Host, ansible: Ansible) -> None:
        self.host, self.ansible = host, ansible
        (ansible.folder / "templates").mkdir()
        self.template("site.conf.j2", SITE)

    def template(self, name: str, text: str) -> None:
        (self.ansible.folder / "templates" / name).write_text(text)

    def run(self, arguments: Mapping[str, Any], **options: Any) -> Run:
        variables = options.pop("variables", {})
        task = {"name": "set", "selfhost.fleet.config_set": {"name": "test", **arguments}}
        play = {"hosts": "all", "gather_facts": False, "vars": variables, "tasks": [task]}
        return self.ansible.playbook([play], [self.host], **options)

    def result(self, arguments: Mapping[str, Any], **options: Any) -> dict[str, Any]:
        return self.run(arguments, **options).of("set").result

    def says(self, command: str) -> str:
        return self.host.root(command).stdout

    def get(self, path: str = "/") -> str:
        script = f"import urllib.request as u; print(u.urlopen('http://127.0.0.1:8080{path}').read().decode(), end='')"
        return self.host.root(["python3", "-c", script]).stdout

    def state(self) -> str:
        """Every file that the tests touch, with bytes, mode and owner."""
        return self.says(f"touch /etc/selfhost-test; {STATE} | sort")

    def interrupted(self, arguments: Mapping[str, Any], waits_in: str, end: str) -> None:
        """Start a run, and end its process while it waits in a command."""
        thread = threading.Thread(target=self.run, args=(arguments,), kwargs={"expect_failure": True})
        thread.start()
        deadline = time.monotonic() + 60
        while not (found := self.host.root(["pgrep", "-f", f"^{waits_in}$"], check=False).stdout.split()):
            assert time.monotonic() < deadline, "the run never came to its command"
            time.sleep(0.1)
        self.host.root(f"kill -{end} {self._module(found[0])}")
        # What it waited in outlives a killed run, as it would on any host.
        self.host.root(["pkill", "-f", f"^{waits_in}$"], check=False)
        thread.join(timeout=60)
        assert not thread.is_alive()

    def _module(self, pid: str) -> str:
        """The highest ancestor that runs Python: the module itself, above the child that holds a namespace."""
        found, current = pid, pid
        while current not in ("0", "1"):
            if self.says(f"cat /proc/{current}/comm").startswith("python3"):
                found = current
            current = self.says(f"ps -o ppid= -p {current}").strip()
        return found


def site(word: str = "hello", **more: Any) -> dict[str, Any]:
    return {
        "files": [{"path": PATH, "template": "site.conf.j2", "vars": {"port": 8080, "word": word}}],
        "directories": [{"path": "/etc/nginx/conf.d", "pattern": "*.conf"}],
        "validate": [["nginx", "-t"]],
        "units": [{"name": "nginx", "on_change": "reload"}],
        "probe": {"kind": "http", "url": "http://127.0.0.1:8080/", "body_pattern": word, "deadline": 5},
        **more,
    }


@pytest.fixture
def bare(debian12_host: Host, ansible: Ansible) -> Fleet:
    return Fleet(debian12_host, ansible)


@pytest.fixture(scope="module")
def nginx(host: Host) -> Host:
    host.root(
        "export DEBIAN_FRONTEND=noninteractive; apt-get update -q; apt-get install -qy --no-install-recommends nginx",
        timeout=300,
    )
    return host


@pytest.fixture
def fleet(nginx: Host, ansible: Ansible) -> Iterator[Fleet]:
    """A host that serves `hello`; what a test adds is gone after it."""
    made = Fleet(nginx, ansible)
    made.run(site())
    yield made
    # A run that validates clears up what a killed one left in /run.
    made.run({"validate": [["true"]]})
    assert made.says("find / -xdev -name '*.selfhost-*'; find /run -name 'selfhost-*'") == ""
    assert made.says("find /var/lib/selfhost/transactions -mindepth 2") == ""


def test_check_mode_on_a_bare_host_tells_what_is_missing(bare: Fleet) -> None:
    before = bare.says("find /etc /var/lib/selfhost 2>&1 | sort | sha256sum")
    run = bare.run(site(files=[{"path": PATH, "content": "x\n", "owner": "www"}]), check=True, diff=True)
    result = run.of("set").result
    assert result["changed"] and result["validated"] is False
    assert "there is no user www on this host" in run.output
    assert "Not validated: nginx is not installed" in run.output
    assert "there is no nginx.service on this host" in run.output
    assert f"+++ after: {PATH}" in run.output
    assert bare.says("find /etc /var/lib/selfhost 2>&1 | sort | sha256sum") == before


def test_outside_check_mode_that_is_an_error_and_nothing_was_touched(bare: Fleet) -> None:
    result = bare.result(site(units=[]), expect_failure=True)
    assert "cannot be validated: nginx is not installed" in result["msg"]
    assert result["phase"] == "validate"
    assert bare.says("ls /etc/nginx 2>&1 || echo none").endswith("none\n")


def test_debian_12_validates_in_its_own_namespace(bare: Fleet) -> None:
    validate = [["grep", "-r", "candidate", "/etc/selfhost-test"]]
    files = [{"path": "/etc/selfhost-test/new/file", "content": "candidate\n"}]
    rejected = bare.result({"files": files, "validate": [*validate, ["false"]]}, expect_failure=True)
    assert rejected["phase"] == "validate" and "false rejects the candidate" in rejected["msg"]
    assert bare.says("ls /etc/selfhost-test 2>&1 || echo none").endswith("none\n")
    assert bare.result({"files": files, "validate": validate})["validated"]
    bare.run({})


def test_converges_and_then_changes_nothing(fleet: Fleet) -> None:
    assert fleet.get() == "hello\n" and fleet.get("/b") == "b\n"
    before = fleet.state()
    result = fleet.result(site())
    assert not result["changed"] and result["changed_files"] == [] and result["units"] == {}
    assert fleet.state() == before


def test_rendered_as_the_template_module_does(fleet: Fleet) -> None:
    text = (
        "{% set x = 1 %}\n#{{ x }} {{ 'a\\\\nb' }} {{ word }} {{ data | to_json }}\n{% include 'part.j2' %}\n\n"
        "  {% if true %}\n y\n"
        "  {% endif %}\n{{ raw }}\nend\n\n"
    )
    fleet.template("all.j2", text)
    fleet.template("part.j2", "part {{ word }}\n")
    variables = {"word": "wörd", "data": {"a": [1, None, True]}, "raw": "{{ '{{ not_a_variable }}' }}"}
    fleet.run(
        site(files=[*site()["files"], {"path": "/etc/selfhost-test-a", "template": "all.j2"}]), variables=variables
    )
    fleet.ansible.module(
        "ansible.builtin.template",
        {"src": "all.j2", "dest": "/etc/selfhost-test-b"},
        fleet.host,
        task={"vars": variables},
    )
    assert fleet.says("cmp /etc/selfhost-test-a /etc/selfhost-test-b && wc -l < /etc/selfhost-test-a") != ""
    fleet.says("rm /etc/selfhost-test-b")


def test_check_mode_shows_and_validates_and_changes_nothing(fleet: Fleet) -> None:
    before = fleet.state()
    run = fleet.run(site("new"), check=True, diff=True)
    result = run.of("set").result
    assert result["changed"] and result["validated"] and result["changed_files"] == [PATH]
    assert result["units"] == {"nginx.service": ["reload"]}
    assert '-    location / { return 200 "hello\\n"; }' in run.output
    assert '+    location / { return 200 "new\\n"; }' in run.output
    assert fleet.state() == before and fleet.get() == "hello\n"
    rejected = fleet.result(site('"; }'), check=True, expect_failure=True)
    assert "unknown directive" in rejected["msg"]


def test_broken_candidate_is_rejected_in_the_validators_words(fleet: Fleet) -> None:
    before = fleet.state()
    fleet.template("site.conf.j2", SITE.replace("listen", "lisssten"))
    result = fleet.result(site("new"), expect_failure=True)
    assert 'unknown directive "lisssten" in /etc/nginx/conf.d/site.conf:2' in result["msg"]
    assert "nginx -t rejects the candidate of test" in result["msg"] and "nothing was changed" in result["msg"]
    assert fleet.state() == before and fleet.get() == "hello\n"


def test_sshd_with_a_broken_candidate_lets_everybody_in_as_before(fleet: Fleet) -> None:
    arguments = {
        "files": [{"path": "/etc/ssh/sshd_config.d/50-test.conf", "content": "MaxAuthTries three\n"}],
        "validate": [["/usr/sbin/sshd", "-t"]],
        "units": [{"name": "ssh.service", "on_change": "reload"}],
    }
    result = fleet.result({**arguments, "name": "sshd"}, expect_failure=True)
    assert "/etc/ssh/sshd_config.d/50-test.conf line 1:" in result["msg"]
    assert fleet.host.root("test -e /etc/ssh/sshd_config.d/50-test.conf", check=False).returncode == 1
    assert fleet.host.ssh("echo in").stdout.strip() == "in"


def test_probe_that_fails_brings_the_site_back(fleet: Fleet) -> None:
    before = fleet.state()
    probe = {"kind": "http", "url": "http://127.0.0.1:8080/", "body_pattern": "hello", "deadline": 1}
    result = fleet.result(site("new", probe=probe), expect_failure=True)
    assert result["phase"] == "probe" and result["rolled_back"]
    assert "The probe holds with them" in result["msg"]
    assert fleet.state() == before and fleet.get() == "hello\n"


# The way back runs the commands again; it must not wait as well.
WAIT_ONCE = ["sh", "-c", "test -e /run/waited && exec rm /run/waited; touch /run/waited; exec sleep 321"]


def server(port: str, **more: Any) -> dict[str, Any]:
    path = "/etc/systemd/system/test-server.service"
    files = [*site()["files"], {"path": path, "content": SERVER.format(port=port)}]
    units = [*site()["units"], {"name": "test-server"}]
    return site(files=files, units=units, **more)


def test_unit_that_does_not_start_gets_its_former_file_and_runs(fleet: Fleet) -> None:
    fleet.run(server("8090"))
    before = fleet.state()
    result = fleet.result(server("no-port"), expect_failure=True)
    assert result["unit"] == "test-server.service" and result["phase"] == "apply" and result["rolled_back"]
    assert "argument port: invalid int value: 'no-port'" in result["msg"], "the unit's own words"
    assert fleet.state() == before
    assert fleet.says("systemctl is-active test-server").strip() == "active"
    assert "http.server --bind 127.0.0.1 8090" in fleet.says("systemctl show -p ExecStart test-server; ps ax")


def linked(version: str, **more: Any) -> dict[str, Any]:
    """A unit that runs whatever a link points at."""
    unit = "[Service]\nExecStart=/opt/selfhost-test/current/run infinity\n"
    # A first start: the link is not there yet, but where the validators look.
    verify = ["systemd-analyze", "verify", "--man=no", "test-server.service"]
    return {
        "files": [
            {"path": "/etc/systemd/system/test-server.service", "content": unit},
            {"path": "/opt/selfhost-test/current", "link": version},
        ],
        "units": [{"name": "test-server", "files": ["/opt/selfhost-test/current"], "enabled": None}],
        "validate": [["sh", "-c", f"test $(readlink /opt/selfhost-test/current) = {version}"], verify],
        **more,
    }


def test_a_link_moves_with_its_unit_and_comes_back(fleet: Fleet) -> None:
    fleet.says("mkdir -p /opt/selfhost-test/1 /opt/selfhost-test/2 && cd /opt/selfhost-test && ln -s /bin/sleep 1/run")
    fleet.says("ln -s /bin/false /opt/selfhost-test/2/run")
    assert fleet.result(linked("1"), check=True)["validated"]
    assert fleet.result(linked("1"))["units"] == {"test-server.service": ["start"]}
    before = fleet.state()
    result = fleet.result(linked("2"), expect_failure=True)
    assert result["changed_files"] == ["/opt/selfhost-test/current"]
    assert result["unit"] == "test-server.service" and result["rolled_back"]
    assert fleet.says("readlink /opt/selfhost-test/current") == "1\n" and fleet.state() == before
    assert fleet.says("systemctl is-active test-server") == "active\n"
    assert not fleet.result(linked("1"))["changed"]
    assert fleet.result(site())["removed_files"] == [
        "/etc/systemd/system/test-server.service",
        "/opt/selfhost-test/current",
    ]
    fleet.says("rm -r /opt/selfhost-test")


def test_stopped_unit_is_started_and_that_is_a_change(fleet: Fleet) -> None:
    fleet.run(server("8090"))
    fleet.says("systemctl disable --quiet --now test-server")
    assert fleet.result(server("8090"), check=True)["changed"]
    result = fleet.result(server("8090"))
    assert result["changed"] and result["changed_files"] == []
    assert result["units"] == {"test-server.service": ["enable", "start"]}
    assert not fleet.result(server("8090"))["changed"]


def test_dropped_unit_and_file_are_gone(fleet: Fleet) -> None:
    fleet.run(server("8090"))
    result = fleet.result(site())
    assert result["removed_files"] == ["/etc/systemd/system/test-server.service"]
    assert result["units"]["test-server.service"] == ["stop", "disable"]
    assert fleet.host.root("systemctl status test-server", check=False).returncode == 4
    assert "http.server" not in fleet.says("ps ax")
    assert fleet.says("find /etc/systemd/system -name 'test-server*'") == ""


def test_validator_leaves_no_trace_on_the_live_system(fleet: Fleet) -> None:
    script = (
        "grep -q new /etc/nginx/conf.d/site.conf && touch /run/trace /var/log/trace /etc/nginx/conf.d/trace && mount"
    )
    fleet.result(site("new", validate=[["sh", "-c", script], ["false"]]), expect_failure=True)
    assert fleet.says("find /run /var/log /etc/nginx -name trace") == ""
    assert "overlay on /etc" not in fleet.says("mount")


SECRETS = ("hunter2-in-a-template", "hunter2-in-content", "x7")


def with_secrets(**more: Any) -> dict[str, Any]:
    files = [
        *site()["files"],
        {"path": "/etc/nginx/s1", "template": "secret.j2", "secret": True, "mode": "0600"},
        {"path": "/etc/nginx/s2", "secret_content": "password={{ in_content }}\n", "mode": "0600"},
        {"path": "/etc/nginx/s3", "secret_content": "{{ short }}", "mode": "0600"},
    ]
    return site(files=files, **more)


def test_secrets_are_nowhere(fleet: Fleet) -> None:
    fleet.template("secret.j2", "token: {{ in_template }}\n")
    variables = dict(zip(("in_template", "in_content", "short"), SECRETS, strict=True))
    since = fleet.says("date +%s").strip()
    seen: list[str] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            seen.append(fleet.says("ps axww -o args"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    options = {"options": ["-vvv"], "diff": True, "variables": variables}
    outputs = [fleet.run(with_secrets(), check=True, **options), fleet.run(with_secrets(), **options)]
    shown = ["sh", "-c", "cat /etc/nginx/s1 /etc/nginx/s2 >&2; exit 1"]
    changed = {**variables, "in_template": f"{SECRETS[0]}-2"}
    for arguments in (with_secrets(validate=[shown]), with_secrets(commands=[shown])):
        outputs.append(fleet.run(arguments, expect_failure=True, **{**options, "variables": changed}))
    fleet.template("secret.j2", "{{ in_template | from_json }}")
    outputs.append(fleet.run(with_secrets(), expect_failure=True, **options))
    outputs.append(fleet.run(site(), **options))
    stop.set()
    watcher.join()
    said = "".join(run.output for run in outputs)
    places = {
        "the output": said,
        "the journal": fleet.says(f"journalctl --no-pager -o export --since @{since}"),
        "a process list": "".join(seen),
        "what is left on the host": fleet.says(
            "grep -rsl hunter2 /var/lib/selfhost /var/log /run /tmp /root || echo none"
        ),
    }
    for place, text in places.items():
        assert "hunter2" not in text, place
    assert "(secret content, after)" in said and "s3 (absent)" in said, "a short secret must not blank other words"
    for run in outputs[2:4]:
        assert "(secret)" in run.of("set").result["msg"], "what a command says of a secret is masked"
    broken = outputs[4].of("set").result["msg"]
    assert "/etc/nginx/s1" in broken and "secret.j2" in broken


def test_template_that_cannot_be_rendered_is_named(fleet: Fleet) -> None:
    fleet.template("site.conf.j2", "{{ nobody_set_this }}")
    result = fleet.result(site(), expect_failure=True)
    for part in (PATH, "site.conf.j2", "'nobody_set_this' is undefined"):
        assert part in result["msg"]
    missing = fleet.result({"files": [{"path": PATH, "template": "none.j2"}]}, expect_failure=True)
    assert "none.j2" in missing["msg"] and PATH in missing["msg"]


@pytest.mark.parametrize("where", ["commands", "validate"])
def test_killed_in_the_middle_the_next_run_repairs(fleet: Fleet, where: str) -> None:
    before = fleet.state()
    waiting = {where: [WAIT_ONCE]}
    fleet.interrupted(server("8090", **waiting), "sleep 321", "KILL")
    if where == "commands":
        assert fleet.state() != before, "it was killed after the swap"
        assert fleet.says("ls /var/lib/selfhost/transactions").strip() == "test"
        assert fleet.result(site(), check=True)["changed"]
        assert fleet.result(site(), options=["-v"])["recovered"] != []
    else:
        assert fleet.state() == before
        assert fleet.result(site())["recovered"] == []
    assert fleet.state() == before and fleet.get() == "hello\n"
    assert fleet.result(server("8090"))["changed"]


def test_ended_by_a_signal_it_undoes_itself(fleet: Fleet) -> None:
    before = fleet.state()
    fleet.interrupted(server("8090", commands=[WAIT_ONCE]), "sleep 321", "TERM")
    deadline = time.monotonic() + 30
    while fleet.says("ls /var/lib/selfhost/transactions") and time.monotonic() < deadline:
        time.sleep(0.2)
    assert fleet.state() == before
    assert fleet.result(site())["recovered"] == []


def test_full_disk_leaves_everything_as_it_was(fleet: Fleet) -> None:
    fleet.says("mkdir -p /etc/selfhost-small; mount -t tmpfs -o size=64k none /etc/selfhost-small")
    try:
        small = [{"path": f"/etc/selfhost-small/{name}", "content": name * 8000} for name in "ab"]
        fleet.run(site(files=[*site()["files"], *small]))
        before = fleet.state()
        large = [{"path": f"/etc/selfhost-small/{name}", "content": name.upper() * 40000} for name in "ab"]
        result = fleet.result(site("new", files=[*site("new")["files"], *large]), expect_failure=True)
        assert "No space left on device" in result["msg"] and result["rolled_back"]
        assert fleet.state() == before and fleet.get() == "hello\n"
        fleet.run(site())
    finally:
        fleet.says("umount /etc/selfhost-small; rmdir /etc/selfhost-small")


def test_fifty_files_are_one_call_and_unchanged_the_second_time(fleet: Fleet) -> None:
    files = [
        {"path": f"/etc/selfhost-many/{number}.conf", "template": "site.conf.j2", "vars": {"port": number, "word": "x"}}
        for number in range(50)
    ]
    many = {"files": [*site()["files"], *files]}
    fleet.run(many)
    result = fleet.result(many)
    assert not result["changed"]


def test_template_of_a_role_is_found(fleet: Fleet) -> None:
    role = fleet.ansible.folder / "roles" / "mine"
    (role / "tasks").mkdir(parents=True)
    (role / "templates").mkdir()
    (role / "templates" / "mine.j2").write_text("of the role {{ word }}\n")
    (role / "tasks" / "main.yml").write_text(
        "- selfhost.fleet.config_set: {name: role, files: [{path: /etc/selfhost-role, template: mine.j2}]}\n"
    )
    play = {"hosts": "all", "gather_facts": False, "roles": [{"role": "mine", "vars": {"word": "here"}}]}
    fleet.ansible.playbook([play], [fleet.host])
    assert fleet.says("cat /etc/selfhost-role") == "of the role here\n"
    fleet.run({"name": "role"})
