"""The pages of docs/reference, from what ansible-doc and the playbooks say: `make docs` writes them, with --check only a difference is shown.

A playbook is documented by the comment before its first line. Lines of it that are indented are commands; `- name: text` describes a
variable that it takes. Variables are found by themselves: with a default in the playbook, without one as `-e name=` in such a command.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

Data = Mapping[str, Any]
Pages = dict[str, str]  # by their path below docs/reference

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "docs" / "reference"
COLLECTION = "selfhost.fleet"
# What ansible-doc calls a kind: the folder of its pages, the files that it has, the heading in the index. Filters without a file of
# documentation are the roles' own.
KINDS = {
    "role": ("roles", "roles/*/meta/argument_specs.yml", "Roles"),
    "module": ("modules", "plugins/modules/*.py", "Modules"),
    "filter": ("filters", "plugins/filter/*.yml", "Filters"),
    "lookup": ("lookups", "plugins/lookup/*.py", "Lookups"),
    "callback": ("callbacks", "plugins/callback/*.py", "Callbacks"),
}
GENERATED = "<!-- Made by docs/make_reference.py from {source}. Change that, then: make docs -->\n"
MARKUP = re.compile(r"\b(?P<kind>[A-Z]{1,2})\((?P<text>(?:\\.|[^)\\])*)\)")
DEFAULTED = re.compile(r"(?<![.\w])(?P<name>[a-z_]\w*) \| default\((?P<default>[^)]*)\)")


def lines_of(text: str | Sequence[str] | None) -> list[str]:
    """A description, which Ansible allows to be one text or a list of paragraphs."""
    return [] if text is None else [text] if isinstance(text, str) else list(text)


def code(text: str) -> str:
    return f"``{text}``" if "`" in text else f"`{text}`"


def link(name: str, kind: str) -> str:
    """A name of the collection's as a link to its page; others as code."""
    collection, _dot, short = name.rpartition(".")
    return f"[{short}](../{KINDS[kind][0]}/{short}.md)" if collection == COLLECTION and kind in KINDS else code(name)


def markdown(text: str) -> str:
    """Ansible's markup as Markdown's."""

    def replaced(match: re.Match[str]) -> str:
        inner = re.sub(r"\\(.)", r"\1", match["text"])
        match match["kind"]:
            case "C" | "V" | "E":
                return code(inner)
            case "O" | "RV":
                return code(inner.replace("=", ": ", 1))
            case "M":
                return link(inner, "module")
            case "P":
                name, _hash, kind = inner.partition("#")
                return link(name, kind)
            case "L":
                label, _comma, address = inner.partition(",")
                return f"[{label}]({address.strip()})"
            case "U":
                return f"<{inner}>"
            case "B":
                return f"**{inner}**"
            case "I":
                return f"*{inner}*"
        return match[0]

    parts: list[str] = []
    end = 0
    for match in MARKUP.finditer(text):
        parts += [_escaped(text[end : match.start()]), replaced(match)]
        end = match.end()
    return "".join([*parts, _escaped(text[end:])])


def _escaped(text: str) -> str:
    return re.sub(r"([<*])", r"\\\1", text)


def value(content: object) -> str:
    """A default or a sample, as one would write it in YAML on one line."""
    return code(json.dumps(content, ensure_ascii=False))


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; a bar within a cell would end the cell."""
    body = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in body) + "\n"


def kind_of(option: Data) -> str:
    return f"list of {option['elements']}" if option.get("elements") else str(option.get("type", "str"))


def option_rows(options: Data, prefix: str = "") -> list[list[str]]:
    """A row for each option, those of its entries below it; what is required comes first."""
    rows = []
    for name, option in sorted(options.items(), key=lambda item: (not item[1].get("required"), item[0])):
        path = prefix + name
        words = [markdown(line) for line in lines_of(option.get("description"))]
        if option.get("choices"):
            words.append("One of " + ", ".join(value(choice) for choice in option["choices"]) + ".")
        standard = "required" if option.get("required") else value(option["default"]) if "default" in option else ""
        rows.append([code(path), kind_of(option), standard, "<br>".join(words)])
        inner = option.get("suboptions") or option.get("options") or {}
        rows += option_rows(inner, path + ("[]." if option.get("type") == "list" else "."))
    return rows


def options_section(heading: str, options: Data) -> list[str]:
    if not options:
        return []
    return [f"## {heading}\n", table(["name", "type", "default", "meaning"], option_rows(options))]


def return_rows(values: Data, prefix: str = "") -> list[list[str]]:
    rows = []
    for name, entry in values.items():
        words = [markdown(line) for line in lines_of(entry.get("description"))]
        if "sample" in entry:
            words.append(f"For example {value(entry['sample'])}.")
        rows.append([code(prefix + name), kind_of(entry), markdown(str(entry.get("returned", ""))), "<br>".join(words)])
        inner = entry.get("contains") or {}
        rows += return_rows(inner, prefix + name + ("[]." if entry.get("type") == "list" else "."))
    return rows


def list_section(heading: str, items: Sequence[str]) -> list[str]:
    return [f"## {heading}\n", "".join(f"- {markdown(item)}\n" for item in items)] if items else []


def plugin_page(name: str, kind: str, source: str, data: Data) -> str:
    """A module, filter or other plugin."""
    doc = data["doc"]
    parts = [
        GENERATED.format(source=source),
        f"# {COLLECTION}.{name} ({kind})\n",
        markdown(doc["short_description"]) + ".\n",
    ]
    parts += [markdown(line) + "\n" for line in lines_of(doc.get("description"))]
    parts += list_section("Needs", lines_of(doc.get("requirements")))
    # A callback has those of the one that it extends, which are others with each release of ansible-core.
    parts += options_section("Options", {} if kind == "callback" else doc.get("options") or {})
    attributes = doc.get("attributes") or {}
    if attributes:
        rows = [
            [
                code(key),
                entry["support"],
                "<br>".join(map(markdown, [*lines_of(entry.get("description")), *lines_of(entry.get("details"))])),
            ]
            for key, entry in sorted(attributes.items())
        ]
        parts += ["## Attributes\n", table(["attribute", "support", "meaning"], rows)]
    parts += list_section("Notes", lines_of(doc.get("notes")))
    if data.get("examples"):
        parts += ["## Examples\n", f"```yaml\n{data['examples'].strip()}\n```\n"]
    if data.get("return"):
        parts += ["## Returns\n", table(["name", "type", "returned", "meaning"], return_rows(data["return"]))]
    return "\n".join(parts)


def role_page(name: str, source: str, data: Data) -> str:
    """A role, by its argument specification; every entry point has its own variables."""
    parts = [GENERATED.format(source=source), f"# {COLLECTION}.{name} (role)\n"]
    for entry_point, spec in data["entry_points"].items():
        parts += [f"## Entry point {entry_point}\n"] if entry_point != "main" else []
        parts += [markdown(spec["short_description"]) + ".\n"]
        parts += [markdown(line) + "\n" for line in lines_of(spec.get("description"))]
        parts += options_section("Variables", spec.get("options") or {})
    return "\n".join(parts)


def header(text: str) -> list[str]:
    """The lines of a playbook's first comment, without their sign. What a variable means may go on in the next one."""
    found: list[str] = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        words = line[1:].removeprefix(" ")
        if words.startswith("  ") and found and found[-1].startswith("- "):
            found[-1] += f" {words.strip()}"
        else:
            found.append(words)
    return found


def playbook_variables(text: str) -> dict[str, tuple[str, str]]:
    """Default and meaning of each variable that a playbook takes."""
    comment, body = "\n".join(header(text)), text.partition("\n---\n")[2]
    described = dict(re.findall(r"^- (\w+): (.+)$", comment, flags=re.MULTILINE))
    given = re.findall(r"^  .* -e (\w+)=", comment, flags=re.MULTILINE)
    found = {match["name"]: match["default"] for match in DEFAULTED.finditer(text)}
    prompts = [prompt for play in yaml.safe_load(text) for prompt in play.get("vars_prompt", [])]
    defaults = {name: code(default) if default != "omit" else "" for name, default in found.items()}
    defaults |= {
        prompt["name"]: code(prompt["default"]) if prompt.get("default") else "asked for" for prompt in prompts
    }
    return {
        # What only tasks that several playbooks share read has its default there.
        name: (defaults.get(name, "required" if name in body else ""), described.get(name, ""))
        for name in sorted({*described, *given, *defaults})
    }


def playbook_page(name: str, source: str, text: str) -> str:
    """A playbook: its first comment, the variables it takes, and its tasks, which read like a table of contents."""
    parts = [GENERATED.format(source=source), f"# {COLLECTION}.{name} (playbook)\n"]
    prose = ""
    for line in header(text):
        if line.startswith("- "):
            continue
        indented = line.startswith("  ")
        if prose and indented != prose.splitlines()[-1].startswith("  "):
            prose += "\n"
        prose += f"  {line}\n" if indented else line + "\n"
    parts += [prose]
    rows = [[code(name), default, markdown(meaning)] for name, (default, meaning) in playbook_variables(text).items()]
    if rows:
        parts += ["## Variables\n", table(["name", "default", "meaning"], rows)]
    parts += ["## Plays\n"]
    for play in yaml.safe_load(text):
        if "ansible.builtin.import_playbook" in play:
            parts += [f"- {play.get('name', 'The playbook ' + play['ansible.builtin.import_playbook'])}\n"]
            continue
        tasks = [
            task["name"]
            for section in ("pre_tasks", "tasks", "post_tasks")
            for task in play.get(section, [])
            if "name" in task
        ]
        parts += [
            f"{play['name']}, on {code(str(play['hosts']))}:\n",
            "".join(f"1. {_escaped(task)}\n" for task in tasks),
        ]
    return "\n".join(parts)


def first_sentence(lines: Sequence[str]) -> str:
    return re.split(r"(?<=[.:]) ", " ".join(line for line in lines if not line.startswith(" ")))[0].rstrip(".:")


def index_page(sections: Sequence[tuple[str, Sequence[tuple[str, str]]]]) -> str:
    """The list of all pages: for each heading, path and summary of its pages."""
    parts = [
        GENERATED.format(source="the collection"),
        "# Reference\n",
        "The same is said by `ansible-doc -t role selfhost.fleet.edge`, `ansible-doc selfhost.fleet.config_set` and so on.\n",
    ]
    for heading, entries in sections:
        rows = [[f"[{Path(path).stem}]({path})", summary] for path, summary in entries]
        parts += [f"## {heading}\n", table(["name", "what it does"], rows)]
    return "\n".join(parts)


def ansible_doc(kind: str, names: Sequence[str]) -> dict[str, Data]:
    """What ansible-doc knows, by short name."""
    done = subprocess.run(
        [
            Path(sys.executable).with_name("ansible-doc"),
            "--type",
            kind,
            "--json",
            *(f"{COLLECTION}.{name}" for name in names),
        ],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found: dict[str, Data] = json.loads(done.stdout)
    return {name.rpartition(".")[2]: data for name, data in found.items()}


def pages() -> Pages:
    """Every page of this checkout."""
    made: Pages = {}
    sections: list[tuple[str, list[tuple[str, str]]]] = []
    entries = []
    for path in sorted((ROOT / "playbooks").glob("*.yml")):
        text = path.read_text()
        made[f"playbooks/{path.stem}.md"] = playbook_page(path.stem, f"playbooks/{path.name}", text)
        entries.append((f"playbooks/{path.stem}.md", _escaped(first_sentence(header(text)))))
    sections.append(("Playbooks", entries))
    for kind, (folder, pattern, heading) in KINDS.items():
        files = {(path.parents[1].name if kind == "role" else path.stem): path for path in ROOT.glob(pattern)}
        if not files:
            continue
        entries = []
        for name, data in sorted(ansible_doc(kind, sorted(files)).items()):
            source = str(files[name].relative_to(ROOT))
            made[f"{folder}/{name}.md"] = (
                role_page(name, source, data) if kind == "role" else plugin_page(name, kind, source, data)
            )
            about = data["entry_points"]["main"] if kind == "role" else data["doc"]
            entries.append((f"{folder}/{name}.md", markdown(about["short_description"])))
        sections.append((heading, entries))
    return {**made, "README.md": index_page(sections)}


def differences(wanted: Pages, present: Pages) -> str:
    """What `make docs` would change, as a difference; empty where all is current."""
    return "".join(
        line
        for path in sorted({*wanted, *present})
        for line in difflib.unified_diff(
            present.get(path, "").splitlines(keepends=True),
            wanted.get(path, "").splitlines(keepends=True),
            f"docs/reference/{path}",
            f"docs/reference/{path} (current)",
        )
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail with the difference where a page is not current"
    )
    check = parser.parse_args().check
    wanted = pages()
    present = {str(path.relative_to(REFERENCE)): path.read_text() for path in REFERENCE.rglob("*.md")}
    difference = differences(wanted, present)
    if check:
        print(
            difference + "docs/reference is not current; run: make docs" if difference else "docs/reference is current"
        )
        return 1 if difference else 0
    for path in set(present) - set(wanted):
        (REFERENCE / path).unlink()
    for path, text in wanted.items():
        (REFERENCE / path).parent.mkdir(parents=True, exist_ok=True)
        (REFERENCE / path).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
