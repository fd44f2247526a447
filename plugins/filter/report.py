# GNU General Public License v3.0+ (see LICENSE)
"""Filters that show things to people: the plan as plain text, and the state of the fleet as plain text and as a page."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass
from typing import Any

Data = Mapping[str, Any]
HEADINGS = ("service", "host", "version", "slot", "health", "since")
GOOD, NOTICE, BAD = "good", "notice", "bad"
SOON = 14  # days; certbot renews 30 days before the end, so by then several renewals have failed


def table(headings: list[str], rows: Iterable[list[Any]]) -> str:
    """A table with columns as wide as their widest cell."""
    cells = [headings, *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )


def plan_text(plan: Data) -> str:
    """The plan, as `playbooks/plan.yml` prints it."""
    hosts: Data = plan["hosts"]
    budget: Data = plan["budget"]
    running = [
        [
            name,
            component["service"],
            component["component"],
            component["version"],
            component["slot"],
            component["probe"]["url"],
        ]
        for name, host in hosts.items()
        for component in host["components"]
    ]
    ports = [
        [name, rule["port"], ", ".join(rule["sources"]), rule["why"]]
        for name, host in hosts.items()
        for rule in host["firewall"]["inbound"]
    ]
    pools = [
        [pool["service"], pool["host"], pool["per_instance"], pool["slots"], pool["size"]] for pool in budget["pools"]
    ]
    parts = [
        "HOSTS",
        table(
            ["host", "address", "os", "roles"],
            [[name, host["address"], host["os"], " ".join(host["roles"])] for name, host in hosts.items()],
        ),
        "",
        "WHAT RUNS WHERE",
        table(["host", "service", "component", "version", "slot", "probe"], running),
        "",
        "OPEN PORTS (everything else is closed)",
        table(["host", "port", "open to", "why"], ports),
    ]
    if any(host["postgres"] for host in hosts.values()):
        free = f"{budget['used']} for pools + {budget['reserved']} reserved of max_connections {budget['max_connections']}: {budget['free']} free"
        parts += [
            "",
            "DATABASE CONNECTIONS",
            table(["service", "host", "per instance", "slots", "pool"], pools),
            free,
        ]
    parts += ["", "NOTES", *[f"- {note}" for note in plan["notes"]]] if plan["notes"] else []
    return "\n".join(parts)


def addresses(plan: Data) -> list[str]:
    """Where users reach each service that an edge shows them, one line each, as the end of `playbooks/site.yml` prints it."""
    hosts: Data = plan["hosts"]
    runs: dict[str, dict[str, list[str]]] = {}
    for name, host in hosts.items():
        for component in host["components"]:
            versions = runs.setdefault(component["service"], {})
            on = versions.setdefault(component["version"], [])
            on += [] if name in on else [name]
    domains = {
        site["name"]: site["domains"] for host in hosts.values() if host["edge"] for site in host["edge"]["sites"]
    }
    lines = []
    for service, versions in sorted(runs.items()):
        what = " and ".join(f"{version} on {', '.join(on)}" for version, on in versions.items())
        where = " ".join(f"https://{domain}/" for domain in domains.get(service, ()))
        lines.append(f"{service} {what}: {where or 'no edge shows it to users'}")
    return lines


@dataclass(frozen=True, order=True)
class Row:
    """One line of the state of the fleet. `level` says whether somebody has to look at it; it is no column."""

    service: str
    host: str
    version: str
    slot: str
    health: str
    since: str
    level: str

    @property
    def cells(self) -> list[str]:
        return [str(cell) for cell in astuple(self)[: len(HEADINGS)]]


def rows_of(hosts: Iterable[Data]) -> list[Row]:
    """What every host said of itself, in the order in which it is shown."""
    return sorted(row for variables in hosts for row in _of_host(variables["inventory_hostname"], variables))


def _of_host(name: str, variables: Data) -> Iterator[Row]:
    found = variables.get("status", {})
    if "components" not in found:
        yield Row("-", name, "-", "-", "did not answer", "-", BAD)
        return
    for entry in found["components"]:
        service = f"{entry['service']}/{entry['component']}"
        level = GOOD if entry["health"] == "healthy" else BAD
        yield Row(service, name, entry["version"], entry["slot"], entry["health"], entry["since"], level)
    for entry in found["foundation"]:
        level = GOOD if entry["health"] == "active" else BAD
        yield Row(entry["unit"].removesuffix(".service"), name, "-", "-", entry["health"], entry["since"], level)
    for entry in found.get("certificates", []):
        until = f"until {entry['until'] or '-'}"
        yield Row(f"certificate {entry['name']}", name, "-", "-", entry["health"], until, certificate_level(entry))
    renewal = found.get("renewal")
    if renewal:
        level = GOOD if renewal["result"] == "success" else BAD
        yield Row("certbot", name, "-", "-", renewal_text(renewal), renewal["at"], level)
    if not (found["components"] or found["foundation"]):
        yield Row("-", name, "-", "-", "runs nothing of the fleet", "-", GOOD)


def certificate_level(entry: Data) -> str:
    """Whether a certificate is good, ends soon, or is of no use."""
    days = entry["days_left"]
    if days is None or entry["health"] == "expired":
        return BAD
    return NOTICE if days <= SOON or not entry["health"].endswith("days left") else GOOD


def renewal_text(renewal: Data) -> str:
    """How the last renewal ended, and where the reason is."""
    if renewal["result"] == "success":
        return "last renewal succeeded"
    return f"last renewal failed ({renewal['result']}): journalctl -u certbot says why"


def status_table(hosts: Iterable[Data]) -> str:
    """The state of the fleet, as `playbooks/status.yml` prints it. Hosts that did not answer are said so."""
    return table(list(HEADINGS), [row.cells for row in rows_of(hosts)])


# A page by itself: it may be sent by mail or lie on a share, and nothing is fetched when it is opened. The colours have a contrast of 4.5
# and more on their grounds; below 46rem each row is a card, for which every element has its role once more (`display` takes it away).
STYLE = """
:root { color-scheme: light dark;
  --page: #f6f7f9; --sheet: #fff; --text: #1c2430; --quiet: #566172; --line: #dfe3e9;
  --good: #116932; --good-ground: #e3f5e9; --notice: #7a4d00; --notice-ground: #fdf0d5; --bad: #a3131c; --bad-ground: #fde7e7; }
@media (prefers-color-scheme: dark) { :root {
  --page: #12161c; --sheet: #1a2029; --text: #e6eaf0; --quiet: #a3adbb; --line: #2d3541;
  --good: #7fdca0; --good-ground: #15301f; --notice: #f5c56b; --notice-ground: #372a10; --bad: #ff9d9d; --bad-ground: #3d191c; } }
* { box-sizing: border-box; }
body { margin: 0; padding: 2.5rem 1.25rem; background: var(--page); color: var(--text);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 76rem; margin: auto; }
h1 { margin: 0; font-size: 1.6rem; line-height: 1.25; letter-spacing: -.01em; }
.made { margin: .25rem 0 1.5rem; color: var(--quiet); }
.verdict { margin: 0 0 1.5rem; padding: .8rem 1.1rem; border-radius: .6rem; border-left: .3rem solid; font-weight: 600; }
.verdict.good { color: var(--good); background: var(--good-ground); }
.verdict.notice { color: var(--notice); background: var(--notice-ground); }
.verdict.bad { color: var(--bad); background: var(--bad-ground); }
table { width: 100%; border-collapse: separate; border-spacing: 0; background: var(--sheet); border: 1px solid var(--line); border-radius: .6rem; }
caption { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
th, td { padding: .65rem 1rem; text-align: left; vertical-align: top; overflow-wrap: break-word; }
tbody :is(th, td) { border-top: 1px solid var(--line); }
thead th { color: var(--quiet); font-size: .8rem; font-weight: 600; text-transform: uppercase; letter-spacing: .05em; }
tbody th { font-weight: 600; }
.since { color: var(--quiet); font-variant-numeric: tabular-nums; }
.state { display: inline-block; padding: .05rem .65rem; border-radius: 1rem; font-weight: 600; }
.state::before { margin-right: .4rem; }
.state.good { color: var(--good); background: var(--good-ground); }
.state.good::before { content: "\\2713" / ""; }
.state.notice { color: var(--notice); background: var(--notice-ground); }
.state.notice::before { content: "!" / ""; }
.state.bad { color: var(--bad); background: var(--bad-ground); border-radius: .6rem; }
.state.bad::before { content: "\\2715" / ""; }
@media (min-width: 46rem) { td.since, td.version, td.slot { white-space: nowrap; } }
@media (max-width: 46rem) {
  body { padding: 1.25rem .9rem; }
  table, tbody, tr, tbody th, td { display: block; }
  table { background: none; border: 0; }
  thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  tr { margin-bottom: .8rem; padding: .8rem 1rem; background: var(--sheet); border: 1px solid var(--line); border-radius: .6rem; }
  tbody :is(th, td) { padding: .15rem 0; border: 0; }
  tbody th { padding-bottom: .35rem; font-size: 1.05rem; }
  td { display: grid; grid-template-columns: 5rem minmax(0, 1fr); justify-items: start; overflow-wrap: anywhere; }
  td::before { content: attr(data-label); color: var(--quiet); }
  td.empty { display: none; }
}
@media print { body { background: none; padding: 0; } tr { break-inside: avoid; } }
"""


def status_html(hosts: Iterable[Data], made: str) -> str:
    """The same rows as a page by itself; `made` is when. What hosts and services say of themselves is text and never markup."""
    rows = rows_of(hosts)
    level, words = verdict(rows)
    headings = "".join(f'<th scope="col" role="columnheader">{heading.capitalize()}</th>' for heading in HEADINGS)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>State of the fleet: {html.escape(words)}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<h1>State of the fleet</h1>
<p class="made">As the hosts said it at <time>{html.escape(made)}</time></p>
<p class="verdict {level}">{html.escape(words)}</p>
<table role="table">
<caption>What runs where, whether it answers, and since when</caption>
<thead role="rowgroup"><tr role="row">{headings}</tr></thead>
<tbody role="rowgroup">
{"".join(_row(row) for row in rows)}</tbody>
</table>
</main>
</body>
</html>
"""


def verdict(rows: Iterable[Row]) -> tuple[str, str]:
    """The worst level, and the whole in one sentence."""
    levels = [row.level for row in rows]
    bad, soon = levels.count(BAD), levels.count(NOTICE)
    if bad:
        return BAD, f"{bad} of {len(levels)} {'needs' if bad == 1 else 'need'} attention"
    if soon:
        return NOTICE, f"All {len(levels)} are well; {soon} {'wants' if soon == 1 else 'want'} a look"
    return GOOD, f"All {len(levels)} are well"


def _row(row: Row) -> str:
    service, *cells = (html.escape(cell) for cell in row.cells)
    text = f'<tr role="row"><th scope="row" role="rowheader">{service}</th>'
    for heading, cell in zip(HEADINGS[1:], cells, strict=True):
        shown = f'<span class="state {row.level}">{cell}</span>' if heading == "health" else cell
        # A card of a phone has no use for a dash.
        kind = f"{heading} empty" if cell == "-" else heading
        text += f'<td role="cell" class="{kind}" data-label="{heading.capitalize()}">{shown}</td>'
    return text + "</tr>\n"


class FilterModule:
    """Filters by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "plan_text": plan_text,
            "addresses": addresses,
            "status_table": status_table,
            "status_html": status_html,
        }
