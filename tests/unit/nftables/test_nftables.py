"""The rules as text, the mistakes in them, and the order in which a new ruleset is armed, loaded and confirmed."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from ansible_collections.selfhost.fleet.plugins.module_utils.nftables.connection import refuse_cut, ssh_connection
from ansible_collections.selfhost.fleet.plugins.module_utils.nftables.firewall import Firewall
from ansible_collections.selfhost.fleet.plugins.module_utils.nftables.kernel import Kernel, restore_text
from ansible_collections.selfhost.fleet.plugins.module_utils.nftables.render import render
from ansible_collections.selfhost.fleet.plugins.module_utils.nftables.rules import FirewallError, Ruleset, parse


def rule(**changes: object) -> dict[str, object]:
    return {"port": 443, "protocol": "tcp", "sources": ["any"], "why": "edge: HTTPS", **changes}


def rendered(*entries: dict[str, object]) -> list[str]:
    return [line.strip() for line in render(parse(entries)).splitlines()]


def test_replaces_only_its_own_table_in_one_transaction() -> None:
    text = render(Ruleset())
    assert "flush" not in text
    assert text.index("table inet selfhost_fleet\n") < text.index("delete table inet selfhost_fleet\n")
    assert "policy drop" in text
    assert "forward" not in text


def test_anybody() -> None:
    assert 'tcp dport 443 accept comment "edge: HTTPS"' in rendered(rule())


def test_sources_of_both_families_become_one_rule_each() -> None:
    lines = rendered(rule(port=5432, sources=["192.0.2.21", "2001:db8::/32", "192.0.2.22"], why="db"))
    assert 'ip saddr { 192.0.2.21, 192.0.2.22 } tcp dport 5432 accept comment "db"' in lines
    assert 'ip6 saddr { 2001:db8::/32 } tcp dport 5432 accept comment "db"' in lines
    assert not any(line.startswith("tcp dport 5432") for line in lines)


def test_overlapping_sources_are_merged() -> None:
    assert "ip saddr { 10.0.0.0/8 } tcp dport 443 accept" in rendered(rule(sources=["10.1.2.3", "10.0.0.0/8"], why=""))


def test_a_whole_family() -> None:
    lines = rendered(rule(sources=["0.0.0.0/0"], why=""))
    assert "meta nfproto ipv4 tcp dport 443 accept" in lines
    assert not any("ip6 saddr" in line and "443" in line for line in lines)


def test_the_same_rule_twice_is_one() -> None:
    assert rendered(rule(), rule()).count('tcp dport 443 accept comment "edge: HTTPS"') == 1


def test_a_comment_cannot_break_out() -> None:
    (line,) = [line for line in rendered(rule(why='x" accept\nflush ruleset \\')) if "443" in line]
    assert line == 'tcp dport 443 accept comment "x\' accept flush ruleset /"'


def test_a_comment_is_cut_to_what_nft_takes_without_splitting_a_character() -> None:
    (line,) = [line for line in rendered(rule(why="ü" * 100)) if "443" in line]
    assert line.partition("comment ")[2] == '"' + "ü" * 64 + '"'


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"port": 0}, "not a port"),
        ({"port": 65536}, "not a port"),
        ({"port": True}, "not a port"),
        ({"protocol": "sctp"}, "tcp or udp"),
        ({"sources": []}, "no sources"),
        ({"sources": ["192.0.2.21/24"]}, "host bits"),
        ({"sources": ["example.com"]}, "neither any nor an address"),
    ],
)
def test_mistakes(changes: dict[str, object], words: str) -> None:
    with pytest.raises(FirewallError, match=words):
        parse([rule(**changes)])


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(FirewallError, match=r"inbound\[0\].*inbound\[2\]"):
        parse([rule(port=0), rule(), rule(sources=["x"])])


RATE = {"per_minute": 30, "burst": 60}


def test_new_connections_are_counted_by_address_and_by_a_v6_clients_whole_network() -> None:
    text = render(parse([rule(port=22, rate=RATE)]))
    assert "set new_tcp_22_v4 {" in text
    assert "timeout 120s" in text  # 60 connections at 30 a minute
    assert "update @new_tcp_22_v4 { ip saddr limit rate over 30/minute burst 60 packets } counter drop" in text
    assert "update @new_tcp_22_v6 { ip6 saddr & ffff:ffff:ffff:ffff:: limit rate over 30/minute" in text
    # A packet that the limit drops must not have been accepted before.
    assert text.index("limit rate over") < text.index("tcp dport 22 accept")


def test_the_trusted_are_not_counted() -> None:
    text = render(parse([rule(port=22, rate=RATE)], trusted=["192.0.2.0/24", "192.0.2.7", "2001:db8::1"]))
    assert "ip saddr != { 192.0.2.0/24 } tcp dport 22 ct state new update @new_tcp_22_v4" in text
    assert "ip6 saddr != { 2001:db8::1 } tcp dport 22 ct state new update @new_tcp_22_v6" in text
    whole = render(parse([rule(port=22, rate=RATE)], trusted=["0.0.0.0/0"]))
    assert "update @new_tcp_22_v4" not in whole
    assert "update @new_tcp_22_v6" in whole


def test_everything_may_go_out_unless_the_ways_are_named() -> None:
    assert "output" not in render(parse([rule()]))
    assert "hook output priority filter; policy drop" in render(parse([rule()], []))


def test_ways_out() -> None:
    ways = [
        {"port": 53, "protocol": "udp", "destinations": ["any"], "why": "DNS"},
        {"port": 443, "destinations": ["any"], "users": ["root", "_apt"], "why": "packages"},
        {"protocol": "any", "destinations": ["203.0.113.0/24", "2001:db8::/32"], "users": ["notes"]},
    ]
    ruleset = parse([], ways)
    lines = [line.strip() for line in render(ruleset).splitlines()]
    assert 'udp dport 53 accept comment "DNS"' in lines
    assert 'meta skuid { root, _apt } tcp dport 443 accept comment "packages"' in lines
    assert "ip daddr { 203.0.113.0/24 } meta skuid { notes } accept" in lines
    assert "ip6 daddr { 2001:db8::/32 } meta skuid { notes } accept" in lines
    assert ruleset.users == {"root", "_apt", "notes"}


@pytest.mark.parametrize(
    ("way", "words"),
    [
        ({"destinations": [], "port": 1}, "no destinations"),
        ({"destinations": ["any"], "protocol": "any", "port": 1}, "without one"),
        ({"destinations": ["any"], "protocol": "tcp"}, "a port goes with"),
        ({"destinations": ["any"], "port": 1, "protocol": "icmp"}, "tcp, udp or any"),
        ({"destinations": ["any"], "port": 1, "users": ["x } accept"]}, "no list of system users"),
        ({"destinations": ["db.example.com"], "port": 1}, "neither any nor an address"),
    ],
)
def test_mistakes_in_ways_out(way: dict[str, object], words: str) -> None:
    with pytest.raises(FirewallError, match=r"outbound\[0\].*" + words):
        parse([], [way])


@pytest.mark.parametrize(
    "rate", [{"per_minute": 0, "burst": 1}, {"per_minute": 5}, {"per_minute": True, "burst": 1}, 5]
)
def test_mistakes_in_rates(rate: object) -> None:
    with pytest.raises(FirewallError, match="not a rate"):
        parse([rule(rate=rate)])


def test_mistakes_of_all_lists_are_told_at_once() -> None:
    with pytest.raises(FirewallError, match=r"inbound\[0\].*outbound\[0\].*trusted\[0\]"):
        parse([rule(port=0)], [{"destinations": []}], ["office"])


@pytest.mark.parametrize(
    ("sources", "address", "admitted"),
    [
        (["any"], "198.51.100.7", True),
        (["198.51.100.0/24"], "198.51.100.7", True),
        (["198.51.100.0/24"], "203.0.113.7", False),
        (["198.51.100.0/24"], "2001:db8::1", False),
        (["198.51.100.0/24"], "::ffff:198.51.100.7", True),
        (["fe80::/10"], "fe80::1%eth0", True),
    ],
)
def test_the_present_connection(sources: list[str], address: str, admitted: bool) -> None:
    rules = parse([rule(port=22, sources=sources)]).inbound
    if admitted:
        refuse_cut(rules, (address, 22))
    else:
        with pytest.raises(FirewallError, match=f"from {address} to port 22"):
            refuse_cut(rules, (address, 22))


def test_another_ssh_port_is_asked_for_by_number() -> None:
    with pytest.raises(FirewallError, match="to port 2222"):
        refuse_cut(parse([rule(port=22)]).inbound, ("192.0.2.1", 2222))


def test_no_ssh_no_refusal() -> None:
    refuse_cut([], None)


def test_the_connection_is_found_above_sudo(tmp_path: Path) -> None:
    for pid, parent, environment in ((30, 20, b"A=b\0"), (20, 10, b"SSH_CONNECTION=192.0.2.9 40000 192.0.2.1 2222\0")):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "environ").write_bytes(environment)
        (tmp_path / str(pid) / "status").write_text(f"Name:\tx\nPPid:\t{parent}\n")
    assert ssh_connection(tmp_path, 30) == ("192.0.2.9", 2222)
    assert ssh_connection(tmp_path, 99) is None


class Host:
    """Stands in for nft and systemd: keeps the live table as the text that was loaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.live: str | None = None
        self.armed = False
        self.calls: list[str] = []
        self.refuses = False

    def __call__(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        line = " ".join(command)
        code, out, err = 0, "", ""
        if "unshare" in command[0]:
            out = Path(command[6]).read_text()
            code, err = (1, "syntax error") if self.refuses else (0, "")
        elif "list table" in line:
            code, out, err = (1, "", "No such file or directory") if self.live is None else (0, self.live, "")
        elif command[0] == "systemd-run":
            self.armed = True
            self.calls.append("arm")
        elif command[:2] == ["systemctl", "is-active"]:
            code = 0 if self.armed else 3
        elif command[:2] == ["systemctl", "stop"]:
            if command[2].endswith(".timer"):
                self.armed = False
                self.calls.append("disarm")
        else:
            text = Path(command[2]).read_text()
            self.live = text.removeprefix(restore_text(None)) or None
            self.calls.append(f"load {Path(command[2]).name}")
        return subprocess.CompletedProcess(command, code, out, err)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def firewall(host: Host, nft: str = "/bin/sh") -> Firewall:
    kernel = Kernel(host, nft=nft)
    return Firewall(host.folder / "etc" / "firewall.nft", run=host, kernel=kernel, state=host.folder / "run")


def test_the_way_back_is_armed_before_loading_and_the_file_is_written_only_when_confirmed(host: Host) -> None:
    outcome = firewall(host).converge("rules", rollback_after=30, dry_run=False)
    assert (outcome.changed, outcome.pending, outcome.drift) == (True, True, False)
    assert host.calls == ["arm", "load candidate.nft"]
    assert not (host.folder / "etc" / "firewall.nft").exists()
    firewall(host).confirm(outcome.change)
    assert (host.folder / "etc" / "firewall.nft").read_text() == "rules"
    assert (host.folder / "etc" / "firewall.nft").stat().st_mode & 0o777 == 0o600
    assert not host.armed


def test_a_second_run_changes_nothing(host: Host) -> None:
    firewall(host).confirm(firewall(host).converge("rules", rollback_after=30, dry_run=False).change)
    host.calls.clear()
    assert firewall(host).converge("rules", rollback_after=30, dry_run=False).changed is False
    assert host.calls == []


def test_a_table_changed_by_hand_is_drift(host: Host) -> None:
    firewall(host).confirm(firewall(host).converge("rules", rollback_after=30, dry_run=False).change)
    host.live = "fewer rules"
    outcome = firewall(host).converge("rules", rollback_after=30, dry_run=False)
    assert (outcome.changed, outcome.drift, outcome.before, outcome.after) == (True, True, "fewer rules", "rules")


def test_confirming_too_late_is_a_failure(host: Host) -> None:
    change = firewall(host).converge("rules", rollback_after=30, dry_run=False).change
    host.armed = False
    with pytest.raises(FirewallError, match="taken back"):
        firewall(host).confirm(change)
    assert not (host.folder / "etc" / "firewall.nft").exists()


def test_what_another_run_left_behind_confirms_nothing(host: Host) -> None:
    """A worker of a killed run gets through at last, when the next run's ruleset waits."""
    former = firewall(host).converge("rules", rollback_after=30, dry_run=False).change
    host.armed, host.live = False, None
    change = firewall(host).converge("rules", rollback_after=30, dry_run=False).change
    with pytest.raises(FirewallError, match="that of another run waits now"):
        firewall(host).confirm(former)
    assert host.armed
    assert not (host.folder / "etc" / "firewall.nft").exists()
    firewall(host).confirm(change)
    assert list((host.folder / "run").iterdir()) == []


def test_what_a_dead_run_left_unconfirmed_is_taken_back_first(host: Host) -> None:
    host.live = "former"
    firewall(host).converge("first", rollback_after=30, dry_run=False)
    host.calls.clear()
    outcome = firewall(host).converge("second", rollback_after=30, dry_run=False)
    assert outcome.before == "former"
    assert host.calls == ["disarm", "load former.nft", "arm", "load candidate.nft"]


def test_check_mode_touches_nothing(host: Host) -> None:
    outcome = firewall(host).converge("rules", rollback_after=30, dry_run=True)
    assert (outcome.changed, outcome.pending) == (True, False)
    assert host.calls == []
    assert list(host.folder.iterdir()) == []


def test_check_mode_without_nft(host: Host) -> None:
    assert firewall(host, nft="/no/such/nft").converge("rules", rollback_after=30, dry_run=True).changed


def test_without_nft_the_package_is_named(host: Host) -> None:
    with pytest.raises(FirewallError, match="nftables"):
        firewall(host, nft="/no/such/nft").converge("rules", rollback_after=30, dry_run=False)


def test_taken_back_at_the_last_moment_is_not_confirmed(host: Host) -> None:
    host.live = "former"
    change = firewall(host).converge("rules", rollback_after=30, dry_run=False).change
    host.live = "former"  # the timer was faster than the one who stopped it
    with pytest.raises(FirewallError, match="while it was confirmed"):
        firewall(host).confirm(change)
    assert not (host.folder / "etc" / "firewall.nft").exists()


def test_users_that_are_not_there_yet(host: Host) -> None:
    wanted = {"rollback_after": 30, "missing_users": {"notes"}}
    assert firewall(host).converge("rules", dry_run=True, **wanted).changed
    with pytest.raises(FirewallError, match="not there: notes"):
        firewall(host).converge("rules", dry_run=False, **wanted)
    assert host.calls == []


def test_a_refused_ruleset_is_never_loaded(host: Host) -> None:
    host.refuses = True
    with pytest.raises(FirewallError, match="syntax error"):
        firewall(host).converge("rules", rollback_after=30, dry_run=False)
    assert host.calls == []
