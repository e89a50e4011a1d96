"""The search for what is left finds it, and a run that has shown nothing is no success."""

from __future__ import annotations

from pathlib import Path

import pytest

LEAKS = {
    "a process": """
        import subprocess
        def test_it(environment):
            subprocess.Popen(["sleep", "60"], env=environment.variables)
    """,
    "a socket": """
        import socket
        def test_it(environment):
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(str(environment.root / "r/left.sock"))
    """,
    "a thread": """
        import threading
        def test_it(environment):
            threading.Thread(target=threading.Event().wait, daemon=True).start()
    """,
    "connections": """
        import socket
        kept = []
        def test_it(environment):
            kept.extend(socket.socketpair() + socket.socketpair())
    """,
}


@pytest.fixture
def inner(pytester: pytest.Pytester, repository: Path) -> pytest.Pytester:
    """A test run of its own with our fixtures."""
    pytester.makeconftest(
        (repository / "tests" / "conftest.py").read_text().replace("SETTLING = 5.0", "SETTLING = 0.2")
    )
    marks = "".join(f"    {name}: what it needs\n" for name in ("docker", "bubblewrap", "root", "browser"))
    pytester.makeini(f"[pytest]\nmarkers =\n{marks}")
    return pytester


@pytest.mark.parametrize("source", LEAKS.values(), ids=LEAKS)
def test_what_a_test_leaves_behind_fails_it(source: str, inner: pytest.Pytester) -> None:
    inner.makepyfile(source)
    result = inner.runpytest_subprocess("-p", "no:cacheprovider", timeout=60)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*left behind:*"])


def test_a_test_that_leaves_nothing_passes(inner: pytest.Pytester) -> None:
    inner.makepyfile("def test_it(environment):\n    assert environment.manager_pid is None")
    inner.runpytest_subprocess("-p", "no:cacheprovider", timeout=60).assert_outcomes(passed=1)


def test_a_run_in_which_every_test_is_skipped_is_no_success_and_names_them(inner: pytest.Pytester) -> None:
    inner.makepyfile("import pytest\n@pytest.mark.skip(reason='no such moon')\ndef test_it():\n    pass")
    result = inner.runpytest_subprocess("-p", "no:cacheprovider", timeout=60)
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    result.stdout.fnmatch_lines(["*1 skipped: no such moon*", "*::test_it"])
