#!/usr/bin/env python3
"""Test hosts in containers: Debian with systemd and SSH, made without an image registry. See README.md."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence

from fleetbed import keys
from fleetbed.engine import TestbedError, say
from fleetbed.host import Host, find, hosts
from fleetbed.image import DEFAULT_OS, SUITES, image


def up(arguments: argparse.Namespace) -> None:
    for name in arguments.names:
        begin = time.monotonic()
        host = Host.create(name, os=arguments.os, publish=arguments.publish, apt_cache=arguments.apt_cache)
        say(f"{name} is up: {host.os}, {host.address}, {host.state()}, {time.monotonic() - begin:.1f} s")


def down(arguments: argparse.Namespace) -> None:
    if bool(arguments.names) == arguments.all:
        raise TestbedError("say which hosts to remove, or --all")
    for host in hosts() if arguments.all else [find(name) for name in arguments.names]:
        host.remove()
        say(f"{host.name} is gone")


def show(_arguments: argparse.Namespace) -> None:
    for host in hosts():
        state = host.state() if host.is_up() else "down"
        print(f"{host.name:20} {host.os:10} {host.address:15} {host.address_v6 or '-':28} {state}")


def inventory(arguments: argparse.Namespace) -> None:
    chosen = [host for host in hosts() if host.is_up() and (not arguments.names or host.name in arguments.names)]
    if missing := set(arguments.names) - {host.name for host in chosen}:
        raise TestbedError(f"not running: {', '.join(sorted(missing))}")
    if not chosen:
        print("all: {hosts: {}}")
        return
    print("all:\n  hosts:")
    for host in chosen:
        print(f"    {arguments.name or host.name}:")
        for key, value in host.variables().items():
            print(f"      {key}: {json.dumps(value)}")  # a JSON string is a YAML string


def ssh(arguments: argparse.Namespace) -> None:
    host = find(arguments.name)
    command = keys.ssh_command(host.name, host.address)
    os.execvp(command[0], [*command, *arguments.command])  # noqa: S606 - the terminal goes to ssh


def restart(arguments: argparse.Namespace) -> None:
    for name in arguments.names:
        begin = time.monotonic()
        state = find(name).restart()
        say(f"{name} is back: {state}, {time.monotonic() - begin:.1f} s")


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="testbed.py", description=__doc__)
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("up", help="make hosts, and wait until they have booted and answer over SSH")
    command.add_argument("names", nargs="+", metavar="NAME")
    command.add_argument("--os", choices=sorted(SUITES), default=DEFAULT_OS)
    command.add_argument("--publish", action="append", default=[], metavar="PORT:PORT", help="e.g. 8443:443")
    command.add_argument(
        "--no-apt-cache", dest="apt_cache", action="store_false", help="download every package, as a new server does"
    )
    command.set_defaults(run=up)

    command = commands.add_parser("list", help="the hosts there are")
    command.set_defaults(run=show)

    command = commands.add_parser("down", help="remove hosts")
    command.add_argument("names", nargs="*", metavar="NAME")
    command.add_argument(
        "--all", action="store_true", help="every host of the test bed on this engine, whose ever it is"
    )
    command.set_defaults(run=down)

    command = commands.add_parser("image", help="build a host image if need be, and print its tag")
    command.add_argument("os", choices=sorted(SUITES), metavar="OS")
    command.set_defaults(run=lambda arguments: print(image(arguments.os)))

    command = commands.add_parser("inventory", help="print an Ansible inventory of the running hosts")
    command.add_argument("names", nargs="*", metavar="NAME")
    command.add_argument("--name", help="what the one host is called there")
    command.set_defaults(run=inventory)

    command = commands.add_parser("ssh", help="a shell, or a command, on a host")
    command.add_argument("name", metavar="NAME")
    command.add_argument("command", nargs=argparse.REMAINDER)
    command.set_defaults(run=ssh)

    command = commands.add_parser("restart", help="reboot hosts")
    command.add_argument("names", nargs="+", metavar="NAME")
    command.set_defaults(run=restart)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except TestbedError as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
