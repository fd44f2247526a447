"""The test bed keeps its word: what other tests build on is so."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from fleetbed import keys
from fleetbed.engine import TestbedError, docker
from fleetbed.host import Host, find, hosts
from fleetbed.network import LABEL
from fleetbed.paths import TESTBED
from fleetbed.runner import Ansible


@pytest.fixture(params=["host", "debian12_host"])
def either(request: pytest.FixtureRequest) -> Host:
    made = request.getfixturevalue(request.param)
    assert isinstance(made, Host)
    return made


def command_line(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TESTBED / "testbed.py"), *arguments]
    return subprocess.run(command, check=check, capture_output=True, text=True, timeout=600)


def test_a_host_is_the_release_that_was_asked_for(either: Host) -> None:
    assert f'VERSION_ID="{either.os.removeprefix("debian-")}"' in either.read("/etc/os-release")


def test_systemd_has_booted_and_nothing_failed(either: Host) -> None:
    failed = either.root("systemctl --failed --no-legend").stdout
    assert (either.state(), failed) == ("running", "")


def test_the_user_is_unprivileged_and_may_become_root(either: Host) -> None:
    assert either.ssh("id -un").stdout.strip() == "admin"
    assert either.ssh("test -r /etc/shadow", check=False).returncode == 1
    assert either.ssh("sudo -n id -un").stdout.strip() == "root"


def test_root_does_not_get_in_over_ssh(either: Host) -> None:
    *command, _user = keys.ssh_command(either.name, either.address)
    answer = subprocess.run([*command, f"root@{either.address}", "true"], check=False, capture_output=True, text=True)
    assert answer.returncode == 255
    assert "Permission denied" in answer.stderr


def test_each_host_has_an_identity_of_its_own(host: Host, debian12_host: Host) -> None:
    for path in ("/etc/machine-id", "/etc/ssh/ssh_host_ed25519_key.pub"):
        assert host.read(path) != debian12_host.read(path)


def test_a_host_with_another_key_is_refused(host: Host, debian12_host: Host) -> None:
    file = keys.known_hosts(host.name)
    right = file.read_text()
    keys.write_known_hosts(host.name, [host.address], debian12_host.root("cat /etc/ssh/ssh_host_*_key.pub").stdout)
    answer = host.ssh("true", check=False)
    file.write_text(right)
    assert answer.returncode == 255
    assert "Host key verification failed" in answer.stderr


def test_a_unit_runs_hardened_with_a_memory_limit(either: Host) -> None:
    properties = "-p ProtectSystem=strict -p PrivateTmp=yes -p DynamicUser=yes -p MemoryMax=64M"
    done = either.root(f"systemd-run --wait --pipe {properties} sh -c 'touch /usr/x 2>&1 || echo refused'")
    assert "refused" in done.stdout


def test_files_of_the_engine_are_the_hosts_own(either: Host) -> None:
    """A mount point could not be replaced by rename."""
    for file in ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf"):
        either.root(f"cp -p {file} {file}.new && mv {file}.new {file}")


def test_put_writes_where_it_is_read(either: Host) -> None:
    for path in ("/run/put/file", "/tmp/file", "/srv/file"):
        either.put(path, b"\x00text", mode="0640", owner="admin:root")
        assert either.ssh(f"stat -c '%U:%G %a %s' {path}").stdout.strip() == "admin:root 640 5"


def test_hosts_know_each_other_by_name(host: Host, debian12_host: Host) -> None:
    script = "import socket, sys; print(socket.create_connection((sys.argv[1], 22), 5).recv(4))"
    assert host.root(["python3", "-c", script, debian12_host.name]).stdout.strip() == "b'SSH-'"


def test_packages_can_be_installed_on_hosts_at_once(
    host: Host, debian12_host: Host, new_host: Callable[..., Host]
) -> None:
    chosen = [host, new_host("second"), debian12_host]
    script = "apt-get update -q && apt-get install -qy --no-install-recommends netcat-openbsd"
    running = [
        subprocess.Popen(
            ["docker", "exec", one.container, "sh", "-ec", script],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for one in chosen
    ]
    outputs = [process.communicate(timeout=300)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], outputs


def test_a_restart_is_a_reboot_that_keeps_address_keys_and_files(either: Host) -> None:
    boot = "cat /proc/1/stat | cut -d' ' -f22"
    before = either.root(boot).stdout, either.read("/etc/machine-id"), keys.known_hosts(either.name).read_text()
    either.root("echo kept > /srv/kept; echo lost > /run/lost; echo '192.0.2.1 kept' >> /etc/hosts")
    assert either.restart() == "running"
    after = either.root(boot).stdout, either.read("/etc/machine-id"), keys.known_hosts(either.name).read_text()
    assert (before[0] != after[0], before[1:]) == (True, after[1:])
    assert find(either.name) == either
    addresses = either.root("ip -o addr show dev eth0").stdout
    assert f" {either.address}/" in addresses
    assert not either.address_v6 or f" {either.address_v6}/" in addresses
    assert either.read("/srv/kept") == "kept\n"
    assert "192.0.2.1 kept" in either.read("/etc/hosts")
    assert either.root("test -e /run/lost", check=False).returncode == 1


def test_a_host_comes_back_after_the_power_went(host: Host) -> None:
    host.kill()
    assert not host.is_up()
    assert host.start() == "running"


def test_a_paused_host_answers_nobody(host: Host) -> None:
    host.pause()
    with pytest.raises(TestbedError, match="no end after"):
        host.ssh("true", timeout=3)
    host.unpause()
    assert host.ssh("echo again").stdout == "again\n"


def test_a_port_is_published(new_host: Callable[..., Host]) -> None:
    made = new_host("published", publish=["127.0.0.1::22"])
    published = docker("port", made.container, "22/tcp").stdout.strip()
    script = "import socket, sys; print(socket.create_connection((sys.argv[1], int(sys.argv[2])), 5).recv(4))"
    done = subprocess.run([sys.executable, "-c", script, *published.split(":")], check=True, capture_output=True)
    assert done.stdout.strip() == b"b'SSH-'"


def test_the_client_has_its_tools(client: Host) -> None:
    client.root("curl --version; openssl version; python3 -c 'import websockets'")


def test_ansible_calls_a_module_and_gives_its_result(ansible: Ansible, either: Host) -> None:
    assert ansible.module("ansible.builtin.ping", {}, either)["ping"] == "pong"
    assert ansible.module("ansible.builtin.command", {"argv": ["id", "-un"]}, either)["stdout"] == "root"
    failure = ansible.module("ansible.builtin.command", {"argv": ["false"]}, either, expect_failure=True)
    assert failure["rc"] == 1
    with pytest.raises(AssertionError, match="non-zero return code"):
        ansible.module("ansible.builtin.command", {"argv": ["false"]}, either)


def test_ansible_checks_and_shows_the_difference_without_touching(ansible: Ansible, host: Host) -> None:
    arguments = {"dest": "/srv/new", "content": "text\n"}
    result = ansible.module("ansible.builtin.copy", arguments, host, check=True, diff=True)
    assert (result["changed"], result["diff"][0]["after"]) == (True, "text\n")
    assert host.root("test -e /srv/new", check=False).returncode == 1


def test_ansible_runs_a_playbook_over_groups(ansible: Ansible, host: Host, debian12_host: Host) -> None:
    tasks = [
        {
            "name": "See the fleet",
            "ansible.builtin.debug": {"msg": "{{ fleet_os }} {{ greeting }} {{ groups.edge | length }}"},
        },
        {"name": "Not here", "ansible.builtin.debug": {}, "when": False},
    ]
    plays = [{"hosts": "edge", "gather_facts": False, "tasks": tasks}]
    both = [host, debian12_host]
    run = ansible.playbook(plays, both, groups={"edge": both}, variables={"greeting": "hello"})
    assert run.of("See the fleet", host.name).result["msg"] == "debian-13 hello 2"
    assert run.of("See the fleet", debian12_host.name).result["msg"] == "debian-12 hello 2"
    assert run.of("Not here").status == "skipped"
    assert (run.failed, run.changed) == ([], [])


def test_runs_side_by_side_are_processes_of_their_own(ansible: Ansible, host: Host) -> None:
    """Each with its session, its exit status and its folder, though Ansible is imported once; and one that is killed is seen to be."""
    tasks = [{"name": "lasts", "ansible.builtin.command": {"argv": ["sleep", "{{ seconds }}"]}}]
    play = {"hosts": "all", "gather_facts": False, "tasks": tasks}
    ends, goes_on = (ansible.start([play], [host], variables={"seconds": seconds}) for seconds in (2, 60))
    folders = [f"ansible-local-{run.process.pid}*" for run in (ends, goes_on)]
    home = Path("~/.ansible/tmp").expanduser()
    until = time.monotonic() + 60
    while not all(any(home.glob(folder)) for folder in folders):
        assert time.monotonic() < until
        time.sleep(0.1)
    assert ends.end(timeout=60).returncode == 0
    assert [any(home.glob(folder)) for folder in folders] == [False, True]
    assert goes_on.process.poll() is None
    assert os.getsid(goes_on.process.pid) == goes_on.process.pid
    goes_on.kill()
    assert goes_on.process.poll() == -signal.SIGKILL
    for left in home.glob(folders[1]):
        shutil.rmtree(left)


@pytest.fixture
def name() -> Iterator[str]:
    chosen = f"cli-{os.getpid()}"
    yield chosen
    for host in hosts():
        if host.name == chosen:
            host.remove()


def test_the_command_line_from_up_to_down(name: str) -> None:
    command_line("up", name)
    made = find(name)
    again = command_line("up", name, check=False)
    assert (again.returncode, "already" in again.stderr) == (1, True)
    inventory = yaml.safe_load(command_line("inventory", name).stdout)
    assert inventory == {"all": {"hosts": {name: made.variables()}}}
    assert "running" in next(line for line in command_line("list").stdout.splitlines() if line.startswith(name))
    assert command_line("ssh", name, "sudo id -un").stdout.strip() == "root"
    command_line("restart", name)
    assert find(name) == made

    command_line("down", name)
    left = docker("ps", "--all", "--quiet", f"--filter=name=^/{made.container}$", f"--filter=label={LABEL}=1").stdout
    assert (left, keys.known_hosts(name).exists()) == ("", False)
    volume = docker(
        "run",
        "--rm",
        f"--mount=type=volume,src=fleet-testbed-apt-{made.os},dst=/cache",
        _image(made),
        "ls",
        "/cache/hosts",
    )
    assert name not in volume.stdout.split()
    unknown = command_line("down", name, check=False)
    assert (unknown.returncode, "there is no host" in unknown.stderr) == (1, True)


def _image(host: Host) -> str:
    return command_line("image", host.os).stdout.strip()
