#!/usr/bin/python
# Copyright: (c) The selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Certificates of a public authority, obtained on the host by certbot."""

from __future__ import annotations

DOCUMENTATION = r"""
module: acme
short_description: Has certbot obtain the certificates that a host lacks
version_added: 0.1.0
description:
  - Asks a public authority (ACME, RFC 8555) for each certificate that is missing, has expired, or has other names or another
    authority than the plan. Renewal is left to certbot's timer; nothing is asked, and nobody contacted, when all are there.
  - The proof is HTTP-01; certbot writes it into O(webroot), from where nginx has to serve it on port 80.
  - Keys are ECDSA P-256, new ones with every certificate, and never leave the host.
  - certbot calls them C(selfhost-<name>). Those that are no longer wanted are deleted, others are the user's own.
  - What was obtained is put in place by the program O(deploy), which also runs after each renewal.
  - When the authority refuses, the task fails with its words, and the site keeps the certificate that it has.
options:
  certificates:
    description: Every certificate that the host has from a public authority.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: What it is called in messages.
        type: str
        required: true
      domains:
        description: Domains that it holds for.
        type: list
        elements: str
        required: true
      directory:
        description: The folder of its three files.
        type: path
        required: true
  server:
    description: Address of the authority's directory.
    type: str
    required: true
  email:
    description: Where the authority writes to. Without one the account has none.
    type: str
    default: ""
  ca_file:
    description: File on the host with the certificate by which the authority itself is checked, in place of the system's.
    type: str
    default: ""
  webroot:
    description: Folder from which nginx serves C(/.well-known/acme-challenge/).
    type: path
    default: /var/lib/selfhost/acme/webroot
  deploy:
    description: Program that puts what certbot has into the folders of the certificates.
    type: path
    default: /etc/letsencrypt/renewal-hooks/deploy/selfhost
  note:
    description: Where it is kept which e-mail the authority was told, since it does not say that again.
    type: path
    default: /var/lib/selfhost/acme/account.json
attributes:
  check_mode:
    support: full
    description: Also on a host without certbot. The authority is not asked.
  diff_mode:
    support: full
    description: Names and reasons, never content.
author:
  - The selfhost.fleet authors (@selfhost)
"""

EXAMPLES = r"""
- name: Hold a certificate of Let's Encrypt
  selfhost.fleet.acme:
    server: https://acme-v02.api.letsencrypt.org/directory
    email: hostmaster@example.com
    certificates:
      - name: api.example.com
        domains: [api.example.com, www.example.com]
        directory: /etc/selfhost/tls/api.example.com
"""

RETURN = r"""
obtained:
  description: Certificates that the authority was asked for, and why.
  type: list
  elements: dict
  returned: always
  sample: [{name: api.example.com, reasons: [the names have changed]}]
deployed:
  description: Certificates that were there already, and were put in place.
  type: list
  elements: str
  returned: always
deleted:
  description: Certificates that certbot no longer renews, by its names.
  type: list
  elements: str
  returned: always
"""

import subprocess  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.certificate.acme import (  # noqa: E402
    Acme,
    Authority,
    Paths,
    Survey,
)
from ansible_collections.selfhost.fleet.plugins.module_utils.certificate.host import (  # noqa: E402
    CertificateError,
    Openssl,
    Wanted,
)

ARGUMENTS: dict[str, Any] = {
    "certificates": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "domains": {"type": "list", "elements": "str", "required": True},
            "directory": {"type": "path", "required": True},
        },
    },
    "server": {"type": "str", "required": True},
    "email": {"type": "str", "default": ""},
    "ca_file": {"type": "str", "default": ""},
    "webroot": {"type": "path", "default": "/var/lib/selfhost/acme/webroot"},
    "deploy": {"type": "path", "default": "/etc/letsencrypt/renewal-hooks/deploy/selfhost"},
    "note": {"type": "path", "default": "/var/lib/selfhost/acme/account.json"},
}


def lines(survey: Survey) -> str:
    """What is done, for a reader of `--diff`."""
    told = [f"{name}: {', '.join(reasons)}" for name, reasons in survey.obtain.items()]
    told += [f"{name}: put in place" for name in survey.deploy]
    told += [f"{name}: deleted" for name in survey.delete]
    told += ["the account's e-mail"] if survey.account else []
    return "".join(f"{line}\n" for line in told)


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    options = module.params

    def run(command: list[str]) -> subprocess.CompletedProcess[str]:
        code, out, err = module.run_command(command)
        return subprocess.CompletedProcess(command, code, out, err)

    acme = Acme(
        run,
        openssl=Openssl(run),
        authority=Authority(server=options["server"], email=options["email"], ca_file=options["ca_file"]),
        paths=Paths(webroot=Path(options["webroot"]), deploy=Path(options["deploy"]), note=Path(options["note"])),
        now=time.time,
        sleep=time.sleep,
    )
    wanted = [Wanted.of({**entry, "mode": "acme"}, authority="") for entry in options["certificates"]]
    try:
        survey = acme.survey(wanted, dry_run=module.check_mode)
        if survey.changed and not module.check_mode:
            acme.converge(wanted, survey)
    except CertificateError as error:
        module.fail_json(msg=str(error))
    result: dict[str, Any] = {
        "changed": survey.changed,
        "obtained": [{"name": name, "reasons": reasons} for name, reasons in survey.obtain.items()],
        "deployed": survey.deploy,
        "deleted": survey.delete,
    }
    if module._diff and survey.changed:
        result["diff"] = {"prepared": lines(survey)}
    module.exit_json(**result)


if __name__ == "__main__":
    main()
