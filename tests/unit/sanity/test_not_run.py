"""What ansible-test passed over is named, once, with the reason."""

from __future__ import annotations

from tests.sanity.run import not_run

OUTPUT = """\
Running sanity test "import" on Python 3.13
WARNING: Skipping sanity test "import" on Python 3.14 because it could not be found.
Running sanity test "pep8"
Running sanity test "pslint"
WARNING: Required program "pwsh" not found.
Running sanity test "shellcheck"
WARNING: Required program "shellcheck" not found.
WARNING: Reviewing previous 3 warning(s):
WARNING: Required program "shellcheck" not found.
"""


def test_each_is_named_with_its_reason() -> None:
    assert not_run(OUTPUT) == [
        "import: on Python 3.14 because it could not be found.",
        "shellcheck: the program shellcheck is not there",
    ]


def test_a_whole_run_names_none() -> None:
    assert not_run('Running sanity test "pep8"\nRunning sanity test "pylint"\n') == []
