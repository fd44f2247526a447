#!/usr/bin/python
# Copyright: (c) The selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The host's half of selfhost.fleet.certificate."""

from __future__ import annotations

DOCUMENTATION = r"""
module: certificate
short_description: Keeps all keys and certificates of a host right
version_added: 0.1.0
description:
  - Every certificate is three files in a folder of its own, C(privkey.pem), C(fullchain.pem) and C(ca.pem).
  - With O(certificates[].mode=local_ca) the key is made on the host and never leaves it; the fleet's own authority,
    which lies on the controller, signs it for 397 days. A new key is made with every certificate.
  - With O(certificates[].mode=provided) the pair comes from the controller. There it is checked first that the key
    belongs to the certificate, which covers the names and has not expired. The key is sent only when the host lacks it.
  - With O(certificates[].mode=acme) a folder without a certificate gets one for 7 days that the host signs itself, so that
    nginx starts; M(selfhost.fleet.acme) then puts that of the authority in its place, and renewal is certbot's.
  - One connection to the host when nothing is to do, however many certificates there are; two otherwise.
  - All files of all certificates are replaced, and the units reloaded, together; when one cannot be reloaded the former
    files come back.
options:
  certificates:
    description: The certificates that the host has.
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
        default: []
      addresses:
        description: IP addresses that it holds for.
        type: list
        elements: str
        default: []
      mode:
        description: Who issues it.
        type: str
        choices: [local_ca, provided, acme]
        default: local_ca
      directory:
        description: The folder of its three files.
        type: path
        required: true
      owner:
        description: Owner of the files.
        type: str
        default: root
      group:
        description: Group of the files. It can read the key only where the owner is root.
        type: str
        default: root
      reload:
        description: Units that read it, and are reloaded, if they run, when it has changed.
        type: list
        elements: str
        default: []
      provided:
        description:
          - Mode provided only. C(certificate) (leaf first, then its issuers), C(key) and optionally C(ca), each a file
            on the controller or the PEM text itself.
          - The action plugin takes it; it never reaches the host as such.
        type: dict
      chain:
        description: Set by the action plugin, for mode provided.
        type: str
      ca:
        description: Set by the action plugin, for mode provided.
        type: str
  ca_dir:
    description: The authority's folder on the controller, made at first use. Keep it, and keep it secret.
    type: path
  ca_passphrase:
    description: Encrypts the authority's key in O(ca_dir). Without it the key is a file with mode 0600.
    type: str
  renew_before:
    description: Days before its end at which a certificate is renewed.
    type: int
    default: 30
  authority:
    description: Set by the action plugin, the authority's certificate.
    type: str
  issued:
    description: Set by the action plugin, what is to be put in place.
    type: list
    elements: dict
    suboptions:
      name:
        description: The certificate's name.
        type: str
        required: true
      chain:
        description: Its C(fullchain.pem).
        type: str
        required: true
      ca:
        description: Its C(ca.pem).
        type: str
        required: true
      key:
        description: Its key, for mode provided only.
        type: str
attributes:
  check_mode:
    support: full
    description: Also on a host without openssl, or without the files' owner.
  diff_mode:
    support: full
    description: Names and days left, never content.
author:
  - The selfhost.fleet authors (@selfhost)
"""

EXAMPLES = r"""
- name: Hold a certificate from the fleet's own authority
  selfhost.fleet.certificate:
    ca_dir: "{{ inventory_dir }}/.local-ca"
    certificates:
      - name: api.example.com
        domains: [api.example.com]
        directory: /etc/selfhost/tls/api.example.com
        reload: [nginx.service]
"""

RETURN = r"""
certificates:
  description: Why each certificate that is replaced, or only given to its owner again, was so.
  type: list
  elements: dict
  returned: always
  sample: [{name: api.example.com, reasons: [12 days are left]}]
reloaded:
  description: Units that were reloaded.
  type: list
  elements: str
  returned: when something was put in place
"""

import os  # noqa: E402
import subprocess  # noqa: E402
import time  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.certificate import host as certificates  # noqa: E402

ARGUMENTS: dict[str, Any] = {
    "certificates": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "domains": {"type": "list", "elements": "str", "default": []},
            "addresses": {"type": "list", "elements": "str", "default": []},
            "mode": {"type": "str", "choices": ["local_ca", "provided", "acme"], "default": "local_ca"},
            "directory": {"type": "path", "required": True},
            "owner": {"type": "str", "default": "root"},
            "group": {"type": "str", "default": "root"},
            "reload": {"type": "list", "elements": "str", "default": []},
            "provided": {"type": "dict", "no_log": True},
            "chain": {"type": "str"},
            "ca": {"type": "str"},
        },
    },
    "ca_dir": {"type": "path"},
    "ca_passphrase": {"type": "str", "no_log": True},
    "renew_before": {"type": "int", "default": 30},
    "authority": {"type": "str"},
    "issued": {
        "type": "list",
        "elements": "dict",
        "options": {
            "name": {"type": "str", "required": True},
            "chain": {"type": "str", "required": True},
            "ca": {"type": "str", "required": True},
            "key": {"type": "str", "no_log": True},
        },
    },
}


def look(module: AnsibleModule, host: certificates.Host, wanted: list[certificates.Wanted]) -> dict[str, Any]:
    """The first call: what is to do, and the requests for it."""
    surveys = [host.survey(one) for one in wanted]
    requests = []
    for survey in surveys:
        if survey.ownership:
            host.own(survey.wanted)
        if not survey.reasons or module.check_mode:
            continue
        if survey.wanted.mode == "acme":
            host.placeholder(survey.wanted)
        else:
            local = survey.wanted.mode == "local_ca"
            requests.append({"name": survey.wanted.name, "csr": host.request(survey.wanted) if local else None})
    touched = [survey for survey in surveys if survey.reasons or survey.ownership]
    result: dict[str, Any] = {
        "changed": bool(touched),
        "requests": requests,
        "certificates": [{"name": s.wanted.name, "reasons": s.reasons or ["owner or mode"]} for s in touched],
    }
    if module._diff:
        result["diff"] = [
            {"before_header": s.wanted.name, "after_header": s.wanted.name}
            | ({"before": f"{s.before}\n", "after": f"{s.after}\n"} if s.reasons else {"prepared": "owner or mode\n"})
            for s in touched
        ]
    return result


def main() -> None:
    # Daemons have to read what is made here: it does not depend on the operator's umask.
    os.umask(0o022)
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)

    def run(command: list[str]) -> subprocess.CompletedProcess[str]:
        code, out, err = module.run_command(command)
        return subprocess.CompletedProcess(command, code, out, err)

    host = certificates.Host(
        run,
        openssl=certificates.Openssl(run),
        now=time.time,
        renew_before=module.params["renew_before"],
        dry_run=module.check_mode,
    )
    try:
        authority = module.params["authority"] or ""
        wanted = [certificates.Wanted.of(entry, authority=authority) for entry in module.params["certificates"]]
        if module.params["issued"] is None:
            module.exit_json(**look(module, host, wanted))
        by_name = {one.name: one for one in wanted}
        issued = [(by_name[i["name"]], i["chain"], i["ca"], i["key"] or "") for i in module.params["issued"]]
        module.exit_json(changed=True, reloaded=host.install(issued))
    except certificates.CertificateError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
