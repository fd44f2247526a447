"""The copy of the database from before an upgrade, and the way back to it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fleetbed.host import Host
from fleetbed.site import SITE, Site, psql
from fleetbed.upgrade import OLD, ROLLBACK, UPGRADE, VARIANTS, killed_in, schema, serves_alone, upgradable, wants


@pytest.fixture(scope="module")
def site(new_host: Callable[..., Host], client: Host, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site that serves the former version, from the slot blue."""
    return upgradable(new_host, client, tmp_path_factory.mktemp("restore"), "restore")


def copies(site: Site) -> list[str]:
    """Rollouts whose copies of the database there are, the newest last."""
    names = site.host.root("ls /var/backups/selfhost/fluxbase").stdout.split()
    return [name.removesuffix(".dump") for name in names if name.endswith(".dump")]


def test_a_database_that_the_former_version_cannot_live_with_is_put_back_from_the_copy(site: Site) -> None:
    poison = VARIANTS["poisonous-migration"]
    before = site.add_item()
    rehearsed = {**site.variables["fleet_services"]["fluxbase"]["rollout"], "rehearsal": "auto"}
    forced = ["-e", "no_way_back=fluxbase"]
    site.run(playbook=UPGRADE, changes=wants(site, poison, "poisonous-migration", rollout=rehearsed), options=forced)
    serves_alone(site, poison, "green")
    after, tables = site.add_item(), schema(site.host)

    back = ["-e", "service=fluxbase"]
    run = site.run(playbook=ROLLBACK, options=back, expect_failure=True)
    assert f"nobody has seen {OLD} start on the database that {poison} has left" in run.failed[0].result["msg"]

    copy = copies(site)[-1]
    assert copy.endswith(poison)
    assert site.host.root(f"stat -c '%a %U' /var/backups/selfhost/fluxbase/{copy}.dump").stdout == "600 root\n"
    back += ["-e", f"restore={copy}"]
    release = f"/opt/fluxbase/server/releases/{OLD}"
    site.host.root(f"chmod go= {release}")  # which its user cannot start then
    run = site.run(playbook=ROLLBACK, options=back, expect_failure=True)
    site.host.root(f"chmod go=rx {release}")
    assert f"It failed in: revive {site.host.name}" in run.failed[-1].result["msg"]
    serves_alone(site, poison, "green")
    assert schema(site.host) == tables
    assert psql(site.host, f"SELECT body FROM app.items WHERE body IN ('{before}', '{after}')") == [before, after]

    # Cut off when the databases have changed their names and nobody serves: taken back where the version that served is wanted, and by nothing else.
    killed_in(site, "revive", {}, playbook=ROLLBACK, options=back)
    run = site.run(playbook=UPGRADE, expect_failure=True)
    assert "to the copy of its database was cut off" in run.failed[0].result["msg"]
    site.run(playbook=UPGRADE, changes=wants(site, poison, "poisonous-migration", rollout=rehearsed))
    serves_alone(site, poison, "green")
    assert schema(site.host) == tables
    assert psql(site.host, f"SELECT body FROM app.items WHERE body IN ('{before}', '{after}')") == [before, after]
    assert psql(site.host, "SELECT count(*) FROM pg_database WHERE datname LIKE 'fluxbase%'") == ["1"]

    # Or finished by the same again.
    killed_in(site, "revive", {}, playbook=ROLLBACK, options=back)
    run = site.run(playbook=ROLLBACK, options=back)
    serves_alone(site, OLD, "blue")
    assert psql(site.host, f"SELECT body FROM app.items WHERE body IN ('{before}', '{after}')") == [before]
    assert site.add_item()
    said = run.of("Say what is left to do").result["msg"]
    aside = said.partition("is in the database ")[2].split()[0]
    assert psql(site.host, f"SELECT body FROM app.items WHERE body = '{after}'", aside) == [after]
    assert psql(site.host, "SELECT datname FROM pg_database WHERE datname LIKE '%unpacked'") == []
    assert site.run(playbook=SITE).changed == []
