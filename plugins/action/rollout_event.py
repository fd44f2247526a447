# GNU General Public License v3.0+ (see LICENSE)
"""Tells of a rollout: its result is what the callback selfhost.fleet.rollout shows, and a webhook gets the same."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any
from urllib.error import HTTPError, URLError

from ansible.module_utils.urls import open_url
from ansible.plugins.action import ActionBase
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.webhook import own_headers, shown
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.news import fleet_name
from ansible_collections.selfhost.fleet.plugins.plugin_utils.inventory import InventoryReader

ARGUMENTS = {"event": {"type": "dict", "required": True}, "limits": {"type": "dict", "default": {}}}
TIMEOUT = 5  # seconds


class ActionModule(ActionBase):
    """The webhook is read from the inventory here, and is no option: what a task was called with is shown and logged."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _checked, options = self.validate_argument_spec(argument_spec=ARGUMENTS)
        reader = InventoryReader(self._templar, task_vars or {})
        event = {**options["event"], "fleet": fleet_name(reader.sources())}
        wanted = (task_vars or {}).get("fleet_notify")
        if wanted:
            warning = tell(lambda: reader.resolve("fleet_notify", wanted), event)
            result["warnings"] = [warning] if warning else []
        return {**result, "changed": False, "rollout_event": event, "rollout_limits": options["limits"]}


def tell(webhook: Callable[[], dict[str, Any]], event: dict[str, Any]) -> str:
    """What the operator is to know of the webhook; empty where it took the event. Nothing that happens here may stop a rollout."""
    name = "The webhook"
    try:
        found = webhook()
        name = f"The webhook {shown(found['url'])}"
        problem = within(TIMEOUT, lambda: send(found["url"], found.get("headers") or {}, event))
    except Exception as error:  # such as a variable that was there when the plan was computed, and is no more
        problem = unspoken(error)
    return (
        problem
        and f"{name} was not told of the event {event['event']} of {event['service']}: {problem}. The rollout does not wait for it."
    )


def send(url: str, headers: dict[str, Any], event: dict[str, Any]) -> str:
    """Why it did not get there, without a word of the address or the headers; empty where it did."""
    try:
        open_url(
            url,
            method="POST",
            data=json.dumps(event),
            headers=own_headers(headers),
            timeout=TIMEOUT,
            follow_redirects="none",
            http_agent="selfhost.fleet",
        ).close()
    except HTTPError as error:
        return f"it answered with status {error.code}"
    except URLError as error:
        return (
            "it did not answer" if isinstance(error.reason, TimeoutError) else f"it cannot be reached ({error.reason})"
        )
    except TimeoutError:
        return f"it did not answer within {TIMEOUT} s"
    except Exception as error:
        return unspoken(error)
    return ""


def unspoken(error: Exception) -> str:
    """An error whose words may hold a header or the address."""
    return f"it cannot be asked ({type(error).__name__})"


def within(seconds: float, what: Callable[[], str]) -> str:
    """A look-up of a name, and an answer that comes bit by bit, have no limit of their own."""
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(what()), daemon=True)
    thread.start()
    thread.join(seconds)
    return found[0] if found else f"it did not answer within {seconds:g} s"
