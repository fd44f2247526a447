# GNU General Public License v3.0+ (see LICENSE)
"""Bringing the packages of a host up to date, with no more restarts than that needs."""
