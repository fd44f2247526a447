# Copyright: (c) The selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The controller's half of selfhost.fleet.certificate: it holds the authority, and checks what is provided."""

from __future__ import annotations

import datetime
from collections import Counter
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.selfhost.fleet.plugins.module_utils.certificate import provided
from ansible_collections.selfhost.fleet.plugins.module_utils.certificate.authority import Authority
from ansible_collections.selfhost.fleet.plugins.module_utils.certificate.host import CertificateError

MODULE = "selfhost.fleet.certificate"
CONTROLLER_ONLY = ("provided",)


class ActionModule(ActionBase):
    """Ask the host what it lacks; sign or hand out just that."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        try:
            return result | self._converge(task_vars or {})
        except CertificateError as error:
            return result | {"failed": True, "msg": str(error)}

    def _converge(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        certificates: list[dict[str, Any]] = self._task.args.get("certificates") or []
        renew_before = int(self._task.args.get("renew_before", 30))
        _refuse_shared(certificates)
        now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
        pairs = {c["name"]: _provided(c, now) for c in certificates if c.get("mode") == "provided"}
        authority = self._authority(certificates, now)
        arguments = {
            "certificates": [_for_the_host(c, pairs.get(c["name"])) for c in certificates],
            "renew_before": renew_before,
            "authority": authority.certificate() if authority else None,
        }
        looked = self._execute_module(module_name=MODULE, module_args=arguments, task_vars=task_vars)
        requests = looked.pop("requests", [])
        warnings = [
            f"the provided certificate {name} ends in {pair.days_left} days"
            for name, pair in pairs.items()
            if pair.days_left < renew_before
        ]
        if warnings:
            looked["warnings"] = [*looked.get("warnings", []), *warnings]
        if looked.get("failed") or not requests:
            return dict(looked)
        by_name = {c["name"]: c for c in certificates}
        arguments["issued"] = [self._issue(r, by_name[r["name"]], pairs, authority) for r in requests]
        installed = self._execute_module(module_name=MODULE, module_args=arguments, task_vars=task_vars)
        if installed.get("failed"):
            return {
                "failed": True,
                "changed": False,
                "msg": installed.get("msg", "the certificates were not put in place"),
            }
        return {**looked, "reloaded": installed.get("reloaded", [])}

    def _authority(self, certificates: list[dict[str, Any]], now: datetime.datetime) -> Authority | None:
        if all(c.get("mode") in ("provided", "acme") for c in certificates):
            return None
        folder = self._task.args.get("ca_dir")
        if not folder:
            raise CertificateError("ca_dir is missing: the folder on the controller where the fleet's authority lies")
        return Authority(Path(folder).expanduser(), passphrase=self._task.args.get("ca_passphrase") or None, now=now)

    @staticmethod
    def _issue(
        request: dict[str, Any],
        certificate: dict[str, Any],
        pairs: dict[str, provided.Provided],
        authority: Authority | None,
    ) -> dict[str, Any]:
        pair = pairs.get(request["name"])
        if pair is not None:
            return {"name": request["name"], "chain": pair.chain, "ca": pair.ca, "key": pair.key}
        if authority is None:
            raise CertificateError(f"the host asks for a certificate {request['name']} that the plan does not know")
        chain = authority.sign(
            request["csr"], domains=certificate.get("domains") or [], addresses=certificate.get("addresses") or []
        )
        return {"name": request["name"], "chain": chain, "ca": authority.certificate()}


def _refuse_shared(certificates: list[dict[str, Any]]) -> None:
    for key in ("name", "directory"):
        shared = [value for value, count in Counter(c[key] for c in certificates).items() if count > 1]
        if shared:
            raise CertificateError(f"two certificates have the same {key}: {', '.join(shared)}")


def _provided(certificate: dict[str, Any], now: datetime.datetime) -> provided.Provided:
    given = certificate.get("provided") or {}
    if not given.get("certificate") or not given.get("key"):
        raise CertificateError(
            f"certificate {certificate['name']} has mode provided, and lacks provided.certificate or provided.key"
        )
    return provided.check(
        certificate["name"],
        certificate=given["certificate"],
        key=given["key"],
        ca=given.get("ca"),
        domains=certificate.get("domains") or [],
        addresses=certificate.get("addresses") or [],
        now=now,
    )


def _for_the_host(certificate: dict[str, Any], pair: provided.Provided | None) -> dict[str, Any]:
    """What the host is told: everything but where the controller has its keys."""
    told = {key: value for key, value in certificate.items() if key not in CONTROLLER_ONLY}
    return told | ({"chain": pair.chain, "ca": pair.ca} if pair else {})
