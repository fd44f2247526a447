"""Files of variables that Ansible would pass over."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.selfhost.fleet.plugins.module_utils.plan.unread import unread


def write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}\n")


def test_a_file_beside_a_folder_of_its_name_is_told(tmp_path: Path) -> None:
    write(tmp_path / "hosts.yml")
    write(tmp_path / "group_vars" / "all.yml")
    write(tmp_path / "group_vars" / "app.yml")
    write(tmp_path / "host_vars" / "web1.example.com" / "own.yml")
    assert unread([tmp_path / "hosts.yml", tmp_path]) == []
    write(tmp_path / "group_vars" / "all" / "secrets.yml")
    write(tmp_path / "host_vars" / "web1.example.com.yaml")
    (first, second) = unread([tmp_path / "hosts.yml", tmp_path])
    assert str(first) == (
        f"group_vars/all.yml: is not read, as {tmp_path}/group_vars/all is there. "
        f"Move it into the folder: mv {tmp_path}/group_vars/all.yml {tmp_path}/group_vars/all/of-all.yml"
    )
    assert second.variable == "host_vars/web1.example.com.yaml"


def test_an_inventory_without_files(tmp_path: Path) -> None:
    assert unread([Path("web1,"), tmp_path / "nothing"]) == []
