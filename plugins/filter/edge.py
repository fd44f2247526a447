# Copyright: (c) The selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters of the role `edge`: from a site of the plan to nginx's files and to the proof that they work."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError

Data = dict[str, Any]


def edge_files(site: Data) -> list[Data]:
    """Arguments of `config_set`: the upstreams by themselves, as they are what a rollout changes."""
    name, variables = site["name"], {"site": site}
    return [
        {"path": f"/etc/nginx/conf.d/{name}.conf", "template": "upstreams.conf.j2", "vars": variables},
        {"path": f"/etc/nginx/selfhost/headers-{name}.conf", "template": "headers.conf.j2", "vars": variables},
        {"path": f"/etc/nginx/sites-enabled/{name}.conf", "template": "site.conf.j2", "vars": variables},
    ]


def edge_probe(site: Data, certificates: list[Data]) -> Data:
    """Arguments of `probe`: nginx answers for the site's name, with the site's certificate."""
    domain = str(site["domains"][0]).replace("*", "selfhost-edge", 1)
    # A provided chain may end at an authority that this host does not know; the controller has checked it already.
    local = any(c["directory"] == site["certificate"] and c["mode"] == "local_ca" for c in certificates)
    verification: Data = {"ca_file": f"{site['certificate']}/ca.pem"} if local else {"verify": False}
    return {
        "kind": "http",
        "url": f"https://{domain}/.well-known/selfhost-edge",
        "connect_to": "127.0.0.1",
        "status": [204],
        "deadline": 10,
        "unit": "nginx.service",
        **verification,
    }


def edge_location(route: Data) -> str:
    """The location of a route, as the plan orders them: the first that matches counts.

    Case does not, and a slash at the end neither: many a framework serves /METRICS/ as /metrics, so a closed or limited
    path has to be recognised in each form. nginx has decoded %6d and merged // before it compares.
    """
    path, match = str(route["path"]), route.get("match", "prefix")
    if not path.startswith("/") or any(char in path for char in "\"'\\\n\0"):
        raise AnsibleFilterError(f"route {path!r}: a path starts with / and holds neither quotes nor backslashes")
    if match not in ("prefix", "exact"):
        raise AnsibleFilterError(f"route {path}: match is prefix or exact, not {match!r}")
    if path == "/":
        return "= /" if match == "exact" else "/"
    stem = re.sub(r"([^\w/-])", r"\\\1", path.rstrip("/"), flags=re.ASCII)
    if match == "exact":
        return f'~* "^{stem}/?$"'
    # What is closed is closed for /metrics;x and /metrics.json too.
    return f'~* "^{stem}(?![\\w-])"' if route["kind"] == "closed" else f'~* "^{stem}(?:/|$)"'


def edge_server(server: Data) -> str:
    """The server line's argument; `weight`, `backup` and `down` are optional."""
    address = str(server["address"])
    try:
        if ipaddress.ip_address(address).version == 6:
            address = f"[{address}]"
    except ValueError:
        pass  # a name, which nginx resolves when it starts
    text = f"{address}:{server['port']}"
    if server.get("weight") is not None:
        text += f" weight={server['weight']}"
    return text + "".join(f" {flag}" for flag in ("backup", "down") if server.get(flag))


def edge_word(text: str) -> str:
    """A name as a part of nginx's variables and zones."""
    return re.sub(r"\W", "_", text, flags=re.ASCII)


class FilterModule:
    """The filters, by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "edge_files": edge_files,
            "edge_probe": edge_probe,
            "edge_location": edge_location,
            "edge_server": edge_server,
            "edge_word": edge_word,
        }
