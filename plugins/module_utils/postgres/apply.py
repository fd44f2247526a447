# Copyright: the selfhost.fleet authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From a session and a wish to an outcome, as the module reports it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from ansible_collections.selfhost.fleet.plugins.module_utils.postgres.catalog import Reader, read
from ansible_collections.selfhost.fleet.plugins.module_utils.postgres.model import EMPTY, Cluster, ClusterError, Desired
from ansible_collections.selfhost.fleet.plugins.module_utils.postgres.planner import plan
from ansible_collections.selfhost.fleet.plugins.module_utils.postgres.settings import pending_restart, unmet
from ansible_collections.selfhost.fleet.plugins.module_utils.postgres.statement import Statement


class Server(Reader, Protocol):
    def execute(self, statements: list[Statement]) -> None: ...


def describe(desired: Desired) -> dict[str, Any]:
    """What would be made on a host that has no server yet."""
    return _outcome(plan(EMPTY, desired), EMPTY, wrong=[])


def bring_about(server: Server, desired: Desired, *, dry_run: bool) -> dict[str, Any]:
    cluster = read(server, desired)
    statements = plan(cluster, desired)
    wrong = unmet(desired.settings, cluster.settings)
    if not dry_run:
        if wrong:
            raise ClusterError(
                "The server does not run with the settings that were written down for it: "
                + "; ".join(wrong)
                + ". Look for the same setting in postgresql.auto.conf (ALTER SYSTEM RESET) and later in conf.d."
            )
        server.execute(statements)
    return _outcome(statements, cluster, wrong=wrong)


def _outcome(statements: Sequence[Statement], cluster: Cluster, *, wrong: list[str]) -> dict[str, Any]:
    return {
        "changed": bool(statements),
        "statements": [statement.text() for statement in statements],
        "diff": {"prepared": "".join(f"{statement.subject}: {statement.text()}\n" for statement in statements)},
        "pending_restart": pending_restart(cluster.settings),
        "unmet_settings": wrong,
        "server_version": cluster.version,
        "data_checksums": cluster.data_checksums,
        "size": cluster.size,
    }
