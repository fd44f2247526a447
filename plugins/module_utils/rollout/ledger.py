# Copyright (c) the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ledger: who moved what to which version, when, in which steps, and how it ended. A file for each rollout, on each host."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.files import (
    RolloutError,
    alone,
    now,
    stamp,
    write_whole,
)
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.compare import real

Data = dict[str, Any]
FOLDER = "/var/lib/selfhost/rollouts"
FORMAT = 1
KEPT = 50  # records of a service
LENGTH = 2000  # characters of a message; the end of it says what went wrong
UNFINISHED = "unfinished"
OUTCOMES = ("done", "rolled_back", "failed")
STEP_OUTCOMES = ("started", "done", "failed")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")

# Messages are other programs' words, and those may repeat what they were given.
SECRETS = (
    (re.compile(r"(\w://[^\s/:@]*:)[^\s/@]+@"), r"\1***@"),
    (
        re.compile(
            r"(?i)\b(\w*(?:password|passwd|secret|token|api[_-]?key|_key)\w*[\"']?\s*[=:]\s*)(\"[^\"]*\"|'[^']*'|\S+)"
        ),
        r"\1***",
    ),
    (re.compile(r"(?i)\b(bearer\s+)\S+"), r"\1***"),
)


def plain(message: str) -> str:
    """A message without what looks like a secret, and no longer than a person reads."""
    for pattern, instead in SECRETS:
        message = pattern.sub(instead, message)
    return message if len(message) <= LENGTH else f"... {message[4 - LENGTH :]}"


@dataclass(kw_only=True)
class Step:
    name: str
    outcome: str
    began: str
    ended: str | None = None
    seconds: float | None = None
    message: str = ""
    tries: int = 1


@dataclass(kw_only=True)
class Record:
    """One rollout of one service, as this host has seen it. `former_ends`: how it had ended before it was taken up again.

    `way_back`: the former version was seen to start on the database that this one leaves.
    """

    id: str
    service: str
    operator: str
    strategy: str
    before: Data | None
    after: Data
    began: str
    outcome: str = UNFINISHED
    ended: str | None = None
    seconds: float | None = None
    message: str = ""
    way_back: bool = False
    steps: list[Step] = field(default_factory=list)
    resumed: list[Data] = field(default_factory=list)
    former_ends: list[Data] = field(default_factory=list)

    @classmethod
    def parse(cls, text: str) -> Record:
        """What is not such a record is a ValueError, a TypeError or a KeyError."""
        data = json.loads(text)
        if not isinstance(data, dict):
            raise ValueError("it is no mapping")
        if data.pop("format", None) != FORMAT:
            raise ValueError("it has a format that is not known")
        steps = [Step(**step) for step in data.pop("steps")]
        record = cls(before=data.pop("from"), after=data.pop("to"), steps=steps, **data)
        texts = [
            record.id,
            record.service,
            record.operator,
            record.strategy,
            record.began,
            record.outcome,
            record.message,
        ]
        texts += [text for step in steps for text in (step.name, step.outcome, step.began, step.message)]
        lists = (record.resumed, record.former_ends)
        right = all(isinstance(text, str) for text in texts) and all(isinstance(item, list) for item in lists)
        if not right or not isinstance(record.after, dict):
            raise ValueError("a part of it is of a wrong type")
        for moment in (record.began, *(step.began for step in steps)):
            if datetime.fromisoformat(moment).tzinfo is None:
                raise ValueError(f"{moment} is in no time zone")
        return record

    def as_data(self) -> Data:
        data = asdict(self)
        return {
            "format": FORMAT,
            **{{"before": "from", "after": "to"}.get(key, key): value for key, value in data.items()},
        }

    def step(self, name: str) -> Step | None:
        return next((step for step in self.steps if step.name == name), None)

    def note(self, name: str, outcome: str, *, moment: datetime, seconds: float | None, message: str) -> bool:
        """Note a step, under its name; says whether that is new. A step that is started again has another try."""
        known = self.step(name)
        if known and known.outcome == outcome and message in ("", known.message):
            return False
        if known is None:
            began = stamp(moment - timedelta(seconds=seconds or 0)) if outcome != "started" else stamp(moment)
            known = Step(name=name, outcome=outcome, began=began)
            self.steps.append(known)
        elif outcome == "started" and known.outcome != "started":
            known.tries, known.began = known.tries + 1, stamp(moment)
        known.outcome, known.message = outcome, message
        known.ended = None if outcome == "started" else stamp(moment)
        known.seconds = (
            None if outcome == "started" else seconds if seconds is not None else between(known.began, moment)
        )
        return True

    def end(self, outcome: str, message: str, moment: datetime, *, way_back: bool = False) -> bool:
        if self.outcome == outcome and message in ("", self.message):
            return False
        self.reopen()
        self.way_back = way_back
        self.outcome, self.message, self.ended = outcome, message, stamp(moment)
        self.seconds = between(self.began, moment)
        return True

    def reopen(self) -> None:
        if self.outcome != UNFINISHED:
            self.former_ends.append({"at": self.ended, "outcome": self.outcome, "message": self.message})
        self.outcome, self.message, self.ended, self.seconds = UNFINISHED, "", None, None


def between(began: str, moment: datetime) -> float:
    """Seconds; none is negative where the clock was put back meanwhile."""
    return round(max(0.0, (moment - datetime.fromisoformat(began)).total_seconds()), 3)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """`standing`: all records of the service as they are afterwards, newest first."""

    changed: bool
    record: Record | None
    resumes: bool
    standing: list[Record]
    damaged: list[Data]

    def as_result(self) -> Data:
        unfinished = [record for record in self.standing if record.outcome == UNFINISHED]
        return {
            "changed": self.changed,
            "record": self.record.as_data() if self.record else None,
            "resumes": self.resumes,
            "unfinished": [record.as_data() for record in unfinished],
            "damaged": self.damaged,
        }


class Ledger:
    """`dry_run` writes nothing, and says what would be."""

    def __init__(self, root: Path, *, clock: Callable[[], datetime] = now, dry_run: bool = False) -> None:
        self._folder = real(root, FOLDER)
        self._clock = clock
        self._dry_run = dry_run

    def begin(
        self, service: str, identifier: str, *, operator: str, strategy: str, before: Data | None, after: Data
    ) -> Outcome:
        """Open a record; where it is there already, go on with it: its steps and its beginning stay."""
        with self._alone(service):
            moment = self._clock()
            path = self._path(service, identifier)
            record, _problem = _load(path)
            resumes = record is not None
            if record is None:
                self._set_aside(path)
                record = Record(
                    id=identifier,
                    service=service,
                    operator=operator,
                    strategy=strategy,
                    before=before,
                    after=after,
                    began=stamp(moment),
                )
            elif record.after.get("version") != after.get("version"):
                raise RolloutError(
                    f"The rollout {identifier} of {service} is one to {record.after.get('version')}, not to "
                    f"{after.get('version')}: begin this one with another id"
                )
            else:
                record.reopen()
                record.resumed.append({"at": stamp(moment), "operator": operator})
            return self._keep(path, record, changed=True, resumes=resumes, prune=True)

    def step(
        self, service: str, identifier: str, name: str, outcome: str, *, seconds: float | None = None, message: str = ""
    ) -> Outcome:
        """One alone, which has just come to that."""
        return self.steps(
            service, identifier, [{"name": name, "outcome": outcome, "seconds": seconds, "comment": message}]
        )

    def steps(self, service: str, identifier: str, steps: Sequence[Data]) -> Outcome:
        """Those that are noted already stay as they are. Of each `name` and `outcome`, and optionally `seconds` (how long it took), `ago` and `comment`."""
        with self._alone(service):
            path = self._path(service, identifier)
            record = self._begun(path)
            return self._keep(path, record, changed=record is None or self._note(record, steps))

    def end(
        self,
        service: str,
        identifier: str,
        outcome: str,
        message: str = "",
        *,
        way_back: bool = False,
        steps: Sequence[Data] = (),
    ) -> Outcome:
        """`steps` as in `steps`: the last ones before the end."""
        with self._alone(service):
            path = self._path(service, identifier)
            record = self._begun(path)
            changed = record is None or self._note(record, steps)
            if record is not None:
                changed |= record.end(outcome, plain(message), self._clock(), way_back=way_back)
            return self._keep(path, record, changed=changed)

    def _note(self, record: Record, steps: Sequence[Data]) -> bool:
        moment = self._clock()
        new = [
            record.note(
                step["name"],
                step["outcome"],
                moment=moment - timedelta(seconds=step.get("ago") or 0),
                seconds=step.get("seconds"),
                message=plain(step.get("comment") or ""),
            )
            for step in steps
        ]
        return any(new)

    def read(self, service: str | None = None, *, limit: int = 0) -> Data:
        """The newest records, all of them with 0. What is unfinished or damaged is said whatever the limit is."""
        records, damaged = self._records(service)
        outcome = Outcome(changed=False, record=None, resumes=False, standing=records, damaged=damaged).as_result()
        shown = records[:limit] if limit > 0 else records
        return {**outcome, "records": [record.as_data() for record in shown]}

    def _alone(self, service: str) -> AbstractContextManager[None]:
        _name("service", service)
        return nullcontext() if self._dry_run else alone(self._folder / service)

    def _path(self, service: str, identifier: str) -> Path:
        return self._folder / service / f"{_name('id', identifier)}.json"

    def _begun(self, path: Path) -> Record | None:
        """None only where check mode has not written what went before."""
        record, problem = _load(path)
        if record is None and not self._dry_run:
            why = f"its record {path} is damaged ({problem})" if problem else f"{path} is not there"
            raise RolloutError(
                f"The rollout {path.stem} of {path.parent.name} was not begun on this host: {why}. Begin it with state=begun"
            )
        return record

    def _set_aside(self, path: Path) -> None:
        """A damaged record must not keep its rollout from being taken up again; its bytes stay for whoever wants them."""
        if path.exists() and not self._dry_run:
            path.rename(path.with_name(f"{path.name}.damaged"))

    def _keep(
        self, path: Path, record: Record | None, *, changed: bool, resumes: bool = False, prune: bool = False
    ) -> Outcome:
        if record and changed and not self._dry_run:
            write_whole(path, record.as_data())
        standing, damaged = self._records(path.parent.name)
        if self._dry_run and record:
            standing = _newest_first([*(item for item in standing if item.id != record.id), record])
        if prune:
            current = [item for item in standing if record and item.id == record.id]
            others = [item for item in standing if item not in current]
            for old in others[KEPT - 1 :]:
                if not self._dry_run:
                    self._path(old.service, old.id).unlink(missing_ok=True)
            standing = _newest_first([*current, *others[: KEPT - 1]])
        return Outcome(changed=changed, record=record, resumes=resumes, standing=standing, damaged=damaged)

    def _records(self, service: str | None) -> tuple[list[Record], list[Data]]:
        """What there is, newest first, and what cannot be understood."""
        records, damaged = [], []
        for path in sorted(self._folder.glob(f"{_name('service', service) if service else '*'}/*.json")):
            if path.name.startswith("."):
                continue
            record, problem = _load(path)
            if record:
                records.append(record)
            elif problem:
                damaged.append({"service": path.parent.name, "id": path.stem, "path": str(path), "problem": problem})
        return _newest_first(records), damaged


def _newest_first(records: list[Record]) -> list[Record]:
    return sorted(records, key=lambda record: (record.began, record.id), reverse=True)


def _load(path: Path) -> tuple[Record | None, str]:
    """A record, or why it is none; neither where there is no file."""
    try:
        record = Record.parse(path.read_text())
        if (record.id, record.service) != (path.stem, path.parent.name):
            raise ValueError(f"it is the record of {record.service} {record.id}")
    except FileNotFoundError:
        return None, ""
    except KeyError as error:
        return None, f"{error} is missing"
    except (OSError, ValueError, TypeError, RecursionError) as error:
        return None, str(error).replace("Record.__init__()", "it").replace("Step.__init__()", "a step")
    return record, ""


def _name(what: str, value: str) -> str:
    """It becomes the name of a file."""
    if not NAME.fullmatch(value):
        raise RolloutError(
            f"{what}: {value!r} is not made of letters, digits and . _ + - alone, or longer than 100 characters"
        )
    return value
