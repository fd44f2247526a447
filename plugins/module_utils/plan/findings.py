# GNU General Public License v3.0+ (see LICENSE)
"""Findings: what is wrong with an inventory, in the words of the person who has to mend it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, order=True)
class Finding:
    """One mistake: the variable to mend, what is wrong with it, and the remedy. Never a secret's value."""

    variable: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.variable}: {self.problem}. {self.remedy}"


@dataclass
class Findings:
    """Collects all findings, so that they are reported together and not one by one."""

    items: list[Finding] = field(default_factory=list)

    def add(self, variable: str, problem: str, remedy: str) -> None:
        """Once per problem; and a variable that is known to be undefined is not reported as missing as well."""
        finding = Finding(variable, problem, remedy)
        known = any(other.variable == variable for other in self.items) and problem.startswith("is missing")
        if finding not in self.items and not known:
            self.items.append(finding)

    def __bool__(self) -> bool:
        return bool(self.items)

    def text(self) -> str:
        """All findings as a numbered list for a terminal."""
        lines = [f"The inventory has {len(self.items)} finding(s). No host was touched."]
        for number, finding in enumerate(sorted(self.items), 1):
            lines += [f"{number:3}. {finding.variable}", f"     {finding.problem}.", f"     -> {finding.remedy}"]
        return "\n".join(lines)
