"""Test hosts: Debian machines in containers, with systemd, SSH and an address that stays."""
