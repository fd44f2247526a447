"""Package updates of a fleet: users notice nothing, and a host that does not come back gets nothing to do."""

from __future__ import annotations

import dataclasses
import json
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from fleetbed.engine import docker
from fleetbed.host import Host
from fleetbed.paths import REPOSITORY
from fleetbed.runner import Ansible, Run
from fleetbed.service import DOMAIN, SHARED_SETTINGS, fluxbase

PLAYBOOKS = REPOSITORY / "playbooks"
UNIT = "fluxbase-server@blue.service"
CA_ON_CLIENT = "/root/patch-ca.pem"
ENVIRONMENT = "/etc/fluxbase/server.blue.env"

# Asks until the file is there; prints how often which answer came. Each request over a connection of its own.
TRAFFIC = """
import collections, json, os, socket, ssl, sys, time
from http.client import HTTPException, HTTPSConnection

address, domain, ca, end, path = sys.argv[1:]
trust = ssl.create_default_context(cafile=ca)
came = collections.Counter()
while not os.path.exists(end):
    connection = HTTPSConnection(domain, context=trust, timeout=30)
    try:
        connection.sock = trust.wrap_socket(socket.create_connection((address, 443), 30), server_hostname=domain)
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        came[f"{answer.status} {json.loads(body)['host'] if answer.status == 200 else ''}".strip()] += 1
    except (HTTPException, OSError) as error:
        came[repr(error)] += 1
    connection.close()
    time.sleep(0.05)
print(json.dumps(came))
"""

# Two packages in two versions, the first of them installed, the second in an archive on the host's own disk: what Debian's would be.
# One is a program that runs as a unit, and is of the archive of security updates by its label; the other is of no use.
ARCHIVES = """
set -e
rm -f /etc/apt/sources.list.d/* /etc/apt/sources.list
for entry in example:Debian-Security other:Local; do
    name=${entry%:*} label=${entry#*:} archive=/srv/archives/$name
    mkdir -p $archive
    for version in 1.0 2.0; do
        work=$(mktemp -d)
        mkdir -p $work/DEBIAN $work/usr/bin $work/usr/lib/systemd/system
        cp /usr/bin/sleep $work/usr/bin/selfhost-$name
        printf '[Service]\\nExecStart=/usr/bin/selfhost-%s infinity\\n' $name > $work/usr/lib/systemd/system/selfhost-$name.service
        printf 'Package: selfhost-%s\\nVersion: %s\\nArchitecture: all\\nMaintainer: Tests <tests@example.com>\\nDescription: for a test\\n' \
            $name $version > $work/DEBIAN/control
        dpkg-deb --build --root-owner-group $work $archive/selfhost-${name}_$version.deb > /dev/null
    done
    dpkg --install $archive/selfhost-${name}_1.0.deb > /dev/null
    rm $archive/selfhost-${name}_1.0.deb
    cd $archive
    package=selfhost-${name}_2.0.deb
    { dpkg-deb --field $package
      echo "Filename: ./$package"; echo "Size: $(stat -c %s $package)"; echo "SHA256: $(sha256sum $package | cut -d ' ' -f 1)"; } > Packages
    printf 'Origin: Tests\\nLabel: %s\\nSuite: stable\\nDate: %s\\nSHA256:\\n %s %s Packages\\n' \
        $label "$(date -Ru | sed s/+0000/UTC/)" $(sha256sum Packages | cut -d ' ' -f 1) $(stat -c %s Packages) > Release
    echo "deb [trusted=yes] file:$archive ./" > /etc/apt/sources.list.d/$name.list
done
systemctl daemon-reload
systemctl start selfhost-example selfhost-other
"""


@dataclasses.dataclass
class Fleet:
    """One host for the edge and the database, and two that serve."""

    front: Host
    apps: list[Host]
    client: Host
    ansible: Ansible
    variables: dict[str, Any]

    @property
    def hosts(self) -> list[Host]:
        return [*self.apps, self.front]

    def run(self, playbook: str, *, options: Sequence[str] = (), **more: Any) -> Run:
        groups = {"edge": [self.front], "postgres": [self.front], "app": self.apps}
        return self.ansible.playbook(
            PLAYBOOKS / f"{playbook}.yml", self.hosts, groups=groups, variables=self.variables, options=options, **more
        )

    @contextmanager
    def traffic(self, path: str = "/health") -> Iterator[dict[str, int]]:
        """Users' requests while something happens; afterwards the answers that came, by status and host."""
        came: dict[str, int] = {}
        end = f"/root/end-{secrets.token_hex(4)}"
        self.client.put("/root/patch-traffic.py", TRAFFIC)
        command = ["python3", "/root/patch-traffic.py", self.front.address, DOMAIN, CA_ON_CLIENT, end, path]
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(self.client.root, command, timeout=900)
            try:
                yield came
            finally:
                self.client.root(["touch", end])
            came.update(json.loads(asked.result().stdout))

    def who_answers(self) -> set[str]:
        with self.traffic() as came:
            time.sleep(2)
        return set(came)

    def refused(self) -> int:
        """How often nginx has asked a host that did not answer; users did not see it, as another one did."""
        several = 'awk \'/"upstream":"[^"]*, / { count++ } END { print count + 0 }\' /var/log/nginx/access.log'
        return int(self.front.root(several).stdout)

    def sent_to(self) -> dict[str, bool]:
        """The hosts in the edge's configuration, and whether each gets requests."""
        lines = self.front.root("grep -E '^ +server ' /etc/nginx/conf.d/fluxbase.conf").stdout.splitlines()
        return {app.name: " down" not in line for app in self.apps for line in lines if f"{app.address}:" in line}


@pytest.fixture(scope="module")
def fleet(new_host: Callable[..., Host], client: Host, tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    with ThreadPoolExecutor(3) as pool:
        wanted = {"app1": "debian-13", "app2": "debian-12", "front": "debian-13"}
        app1, app2, front = pool.map(lambda entry: new_host(entry[0], os=entry[1]), wanted.items())
    folder = tmp_path_factory.mktemp("patch")
    entry = fluxbase(hosts="app")
    entry["settings"] |= SHARED_SETTINGS
    entry["rollout"] = {"soak": 2, "drain": 3, "interval": 1}
    variables = {"fleet_local_ca_dir": str(folder / "ca"), "fleet_services": {"fluxbase": entry}}
    made = Fleet(front, [app1, app2], client, Ansible(folder), variables)
    made.run("site")
    client.put(CA_ON_CLIENT, (folder / "ca" / "ca.pem").read_text())
    for host in made.hosts:
        host.root(ARCHIVES, timeout=120)
        # A host that goes down comes up again, as a machine does.
        docker("update", "--restart=always", host.container)
    return made


def version(host: Host, package: str) -> str:
    return host.root(["dpkg-query", "--show", "--showformat=${Version}", package]).stdout


def invocation(host: Host, unit: str) -> str:
    return host.root(["systemctl", "show", "--property=InvocationID", "--value", unit]).stdout.strip()


def lists(host: Host) -> str:
    return host.root("ls -lR --time-style=full-iso /var/lib/apt/lists").stdout


def ask_for_a_boot(*hosts: Host) -> None:
    for host in hosts:
        host.put("/run/reboot-required", "*** System restart required ***\n")
        host.put("/run/reboot-required.pkgs", "linux-image-amd64\n")


def asked_for_a_boot(host: Host) -> bool:
    """Still: /run is empty after one."""
    return host.root(["test", "-e", "/run/reboot-required"], check=False).returncode == 0


def told(run: Run, host: Host) -> list[str]:
    return list(run.of("Say what is done", host.name).result["msg"])


def test_check_mode_foretells_and_touches_nothing(fleet: Fleet) -> None:
    first, _second = fleet.apps
    ask_for_a_boot(first)
    before = [(version(host, "selfhost-example"), lists(host)) for host in fleet.hosts]
    run = fleet.run("patch", check=True, diff=True)
    assert [(version(host, "selfhost-example"), lists(host)) for host in fleet.hosts] == before
    assert {outcome.task for outcome in run.changed} == {"See what there is to do"}
    lines = told(run, first)
    assert "  selfhost-example 1.0 -> 2.0 (security)" in lines
    assert "  selfhost-other 1.0 -> 2.0" in lines
    assert "restarts: selfhost-example.service, selfhost-other.service" in lines
    assert "boots again: /run/reboot-required asks for it (linux-image-amd64)" in lines
    assert f"served meanwhile by: {fleet.apps[1].name}" in lines
    interrupted = f"nobody else has the database on {fleet.front.name}, the edge on {fleet.front.name}: a short interruption is to be expected"
    assert interrupted in told(run, fleet.front)
    assert asked_for_a_boot(first)


def test_security_updates_alone_on_one_host_that_does_not_boot(fleet: Fleet) -> None:
    first, second = fleet.apps
    ask_for_a_boot(first)
    other = invocation(first, "selfhost-other"), invocation(first, "ssh")
    example = invocation(first, "selfhost-example")
    words = ["--limit", first.name, "-e", "patch_scope=security", "-e", "patch_reboot=never"]
    fleet.run("patch", options=words)
    assert (version(first, "selfhost-example"), version(first, "selfhost-other")) == ("2.0", "1.0")
    assert version(second, "selfhost-example") == "1.0"
    # What runs the replaced program was restarted, and nothing else.
    assert invocation(first, "selfhost-example") != example
    assert (invocation(first, "selfhost-other"), invocation(first, "ssh")) == other
    assert asked_for_a_boot(first)


def test_users_do_not_notice_that_both_hosts_are_patched_and_boot(fleet: Fleet) -> None:
    ask_for_a_boot(*fleet.apps)
    refused = fleet.refused()
    with fleet.traffic() as came:
        run = fleet.run("patch", options=["--limit", "app"])
    assert set(came) == {f"200 {app.name}" for app in fleet.apps}, "both served, and nobody was turned away"
    assert fleet.refused() == refused, "nobody was sent to a host that was away"
    for app in fleet.apps:
        assert run.of("Boot it", app.name).changed
        assert not asked_for_a_boot(app)
        assert version(app, "selfhost-example") == version(app, "selfhost-other") == "2.0"
    assert fleet.sent_to() == {app.name: True for app in fleet.apps}


def test_a_second_run_changes_nothing(fleet: Fleet) -> None:
    run = fleet.run("patch", options=["--limit", "app"])
    assert [(outcome.host, outcome.task) for outcome in run.changed] == []


def slots(fleet: Fleet) -> set[str]:
    """That serve."""
    notes = [json.loads(app.read("/etc/selfhost/services/fluxbase-server.json")) for app in fleet.apps]
    return {note["slot"] for note in notes}


def test_what_uses_the_database_is_brought_back_to_it(fleet: Fleet) -> None:
    nginx = fleet.front.root("cat /run/nginx.pid").stdout
    # A new file in the place of the running one's, as dpkg puts it there.
    for program in ("/usr/lib/postgresql/17/bin/postgres", "/usr/sbin/nginx"):
        fleet.front.root(f"cp -a {program} {program}.new && mv {program}.new {program}")
    with fleet.traffic("/.well-known/selfhost-edge") as came:
        run = fleet.run("patch")
    done = run.of("Upgrade its packages, and restart what still runs the former ones", fleet.front.name).result
    assert set(done["restarts"]) >= {"postgresql@17-main.service", "nginx.service", "selfhost-example.service"}
    assert done["database_restarted"]
    assert set(came) == {"204"}, "nginx answered while its program was replaced"
    assert fleet.front.root("cat /run/nginx.pid").stdout != nginx
    assert slots(fleet) == {"green"}, "they do not find back to the database by themselves"
    assert fleet.who_answers() == {f"200 {app.name}" for app in fleet.apps}
    assert [outcome.task for outcome in fleet.run("patch").changed] == []


def test_users_do_not_notice_that_services_go_back_to_a_database_that_has_restarted(fleet: Fleet) -> None:
    fleet.front.root("systemctl restart postgresql@17-main.service")
    fleet.who_answers()  # and has their connections opened anew
    run = fleet.run("refresh", options=["--limit", fleet.front.name], expect_failure=True)
    assert "Run refresh.yml now, without --limit" in run.failed[0].result["msg"]
    with fleet.traffic() as came:
        fleet.run("refresh")
    assert set(came) == {f"200 {app.name}" for app in fleet.apps}
    assert slots(fleet) == {"blue"}
    run = fleet.run("refresh")
    assert "nothing to do" in run.of("Say what will be done").result["msg"]
    assert [outcome.task for outcome in run.changed] == []


def test_all_hosts_of_a_service_at_once_are_refused(fleet: Fleet) -> None:
    ask_for_a_boot(*fleet.apps)
    run = fleet.run("patch", options=["--limit", "app", "-e", "patch_serial=2"], expect_failure=True)
    assert {outcome.task for outcome in run.failed} == {"See that a service of several hosts keeps one"}
    assert "Set patch_serial to less. No host was touched." in run.output
    assert all(asked_for_a_boot(app) for app in fleet.apps)


def test_a_host_that_does_not_come_back_stops_the_run_and_gets_nothing_to_do(fleet: Fleet) -> None:
    first, second = fleet.apps
    good = first.read(ENVIRONMENT)
    # From its next start on the program refuses its configuration.
    first.root(f"sed -i 's/^FLUXBASE_ENCRYPTION_KEY=.*/FLUXBASE_ENCRYPTION_KEY=\"short\"/' {ENVIRONMENT}")
    ask_for_a_boot(first, second)
    with fleet.traffic() as came:
        run = fleet.run("patch", options=["--limit", "app"], expect_failure=True)
    message = run.of("Stop here", first.name).result["msg"]
    assert message.startswith(f"{first.name} is not up to date and well: Ask what has to answer: {first.name}: GET ")
    assert f"{first.name} gets no traffic, which {second.name} has. Not begun: {second.name}." in message
    assert "run patch.yml again" in message
    assert set(came) == {f"200 {app.name}" for app in fleet.apps}
    assert fleet.sent_to() == {first.name: False, second.name: True}
    assert fleet.who_answers() == {f"200 {second.name}"}
    assert asked_for_a_boot(second), "the next one was not begun"

    # Not mended: the next run does not even begin, so that the one that serves is not taken too.
    stopped = fleet.run("patch", options=["--limit", "app"], expect_failure=True)
    assert f"{first.name} is not well, so no host was touched" in stopped.of("Do not begin", first.name).result["msg"]
    assert asked_for_a_boot(second)
    only = fleet.run("patch", options=["--limit", second.name], expect_failure=True)
    assert f"Ask what has to answer: {first.name}: GET " in only.of("Stop here", second.name).result["msg"]
    assert asked_for_a_boot(second)

    first.put(ENVIRONMENT, good, mode="0600")
    first.root(["systemctl", "restart", UNIT])
    with fleet.traffic() as came:
        fleet.run("patch", options=["--limit", "app"])
    assert set(came) <= {f"200 {app.name}" for app in fleet.apps}
    assert not asked_for_a_boot(second)
    assert fleet.sent_to() == {app.name: True for app in fleet.apps}
    assert fleet.who_answers() == {f"200 {app.name}" for app in fleet.apps}
