# GNU General Public License v3.0+ (see LICENSE)
"""Rules for secrets: length, alphabet, entropy, refused placeholders. No function here returns or prints a value."""

from __future__ import annotations

import math
import re
from collections import Counter

from .findings import Findings
from .model import Data, Service

# Placeholders from documentation everywhere; a definition adds its own.
PLACEHOLDERS = re.compile(
    r"change[-_ ]?me|your[-_ ]|example|placeholder|replace[-_ ]?(me|this)|xxxx|todo|default|insert[-_ ]|password|secret",
    re.IGNORECASE,
)
DEFAULT_MIN_LENGTH = 16
DEFAULT_ENTROPY = 2.5  # bits per character: lets a hexadecimal string pass, not aaaa or abcabc
PLAYBOOK = "ansible-playbook selfhost.fleet.secrets"


def entropy(text: str) -> float:
    """Shannon entropy of a text, in bits per character."""
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values()) if text else 0.0


def problem(value: object, rule: Data) -> str | None:
    """What is wrong with a secret, or None. The value itself is never part of the answer."""
    if not isinstance(value, str):
        return "is not a text"
    size = len(value.encode())
    if not size:
        return "is empty"
    if value in rule.get("refused", []):
        return "is a placeholder from the documentation"
    # A long random text can contain "todo" by chance: words count only where they are a good part of the whole.
    found = PLACEHOLDERS.search(value)
    if found and (size < 24 or re.fullmatch(r"[a-z0-9 _.-]+", value) and "-" in value):
        return "is a placeholder"
    if "length" in rule and size != rule["length"]:
        return f"is {size} bytes long and must be exactly {rule['length']}"
    minimum: int = rule.get("min_length") or rule.get("length") or DEFAULT_MIN_LENGTH
    if size < minimum:
        return f"is {size} bytes long and must have at least {minimum}"
    if "alphabet" in rule and not re.fullmatch(f"[{rule['alphabet']}]+", value):
        return f"has characters outside {rule['alphabet']}"
    least = rule.get("entropy", DEFAULT_ENTROPY)
    if entropy(value) < least:
        return f"has {entropy(value):.1f} bits of entropy per character and must have at least {least}"
    if any(ord(char) < 32 for char in value):
        return "has a control character such as a line break"
    return None


def rules_of(service: Service) -> dict[str, Data]:
    return dict(service.contract.get("secrets") or {})


def missing(service: Service) -> list[str]:
    """Names of secrets that the service cannot be without and that have no value."""
    given = service.wanted.get("secrets") or {}
    return [name for name, rule in rules_of(service).items() if rule.get("required", True) and name not in given]


def check(service: Service, findings: Findings) -> None:
    """Every secret of a service against its rule."""
    rules = rules_of(service)
    absent = missing(service)
    given = service.wanted.get("secrets") or {}
    for name, rule in rules.items():
        remedy = f"Make one with: {rule.get('generate', 'openssl rand -base64 48')}, and keep it in an encrypted file (ansible-vault)"
        if name in absent:
            findings.add(
                f"{service.variable}.secrets.{name}",
                f"is missing ({rule.get('description', 'a secret')})",
                f"{remedy}. Or make all that are missing: {PLAYBOOK}",
            )
        if name not in given:
            continue
        wrong = problem(given[name], rule)
        if wrong:
            findings.add(f"{service.variable}.secrets.{name}", wrong, remedy)
    for name in given:
        if name not in rules:
            findings.add(
                f"{service.variable}.secrets.{name}",
                f"is no secret of {service.name} {service.version}",
                f"Known are: {', '.join(sorted(rules)) or 'none'}. Anything else belongs to settings",
            )
