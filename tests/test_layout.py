"""The house keeps its plan: who may import whom, how long a file is, and what must not stand in it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PACKAGE = "jupyter_sandbox"
BASE = {"ids", "options", "models", "errors", "paths", "__init__"}
ARROWS: dict[str, set[str]] = {
    "errors": set(),
    "ids": {"errors"},
    "options": {"errors"},
    "models": set(),
    "paths": {"errors"},
    "agent": {"errors"},
    "engines": BASE,
    "manager": BASE | {"engines"},
    "client": BASE,
    "server": BASE | {"client"},
    "magics": BASE | {"client"},
    "widgets": BASE | {"client"},
    "cli": BASE | {"client", "engines"},
    # The public names; the magics are imported when IPython asks for them.
    "__init__": BASE | {"client", "magics", "widgets"},
}
"""Who may import whom inside the package (design, section 3); everybody may import itself."""

LONGEST = 450
"""Lines; a longer file is more than one thing."""


def modules(repository: Path) -> list[Path]:
    return sorted((repository / PACKAGE).rglob("*.py"))


def part_of(path: Path, repository: Path) -> str:
    return path.relative_to(repository / PACKAGE).parts[0].removesuffix(".py")


def imported_parts(path: Path, repository: Path) -> set[str]:
    """The parts of the package that a module imports, wherever in the file and for whatever reason."""
    package = path.relative_to(repository).parts[:-1]
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            source = ".".join([*start, *filter(None, [node.module])])
            names |= {f"{source}.{alias.name}" for alias in node.names}
    known = {entry.name.removesuffix(".py") for entry in (repository / PACKAGE).iterdir()}
    inside = [name.split(".")[1:] for name in names if name.split(".")[0] == PACKAGE]
    # `from .. import __version__` takes a name of the package itself.
    return {parts[0] if parts and parts[0] in known else "__init__" for parts in inside}


def test_imports_follow_the_arrows(repository: Path) -> None:
    wrong = []
    for path in modules(repository):
        part = part_of(path, repository)
        allowed = ARROWS.get(part, set()) | {part}
        wrong += [
            f"{path.relative_to(repository)} imports {other}" for other in imported_parts(path, repository) - allowed
        ]
    assert not wrong, "\n".join(wrong)


def test_every_part_of_the_package_has_its_arrows(repository: Path) -> None:
    assert {part_of(path, repository) for path in modules(repository)} <= set(ARROWS)


def test_the_client_starts_the_manager_as_a_process_and_does_not_import_it(repository: Path) -> None:
    for path in (repository / PACKAGE / "client").rglob("*.py"):
        assert "manager" not in imported_parts(path, repository), path.name


def test_the_manager_knows_no_engine_by_name(repository: Path) -> None:
    named = [
        f"{path.relative_to(repository)}:{node.lineno}"
        for path in (repository / PACKAGE / "manager").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value in ("docker", "bubblewrap")
    ]
    assert not named, named


def test_no_file_is_longer_than_one_thing(tracked_files: list[Path]) -> None:
    sources = [path for path in tracked_files if path.suffix in (".py", ".ts", ".tsx")]
    long = {path.name: count for path in sources if (count := len(path.read_text().splitlines())) > LONGEST}
    assert not long, long


def test_every_python_file_says_in_its_first_line_what_it_is(tracked_files: list[Path]) -> None:
    silent = []
    for path in (path for path in tracked_files if path.suffix == ".py" and path.stat().st_size):
        docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
        if len(docstring.split("\n")[0].split()) < 3:
            silent.append(str(path))
    assert not silent, silent


@pytest.mark.parametrize(
    ("what", "pattern"),
    [
        ("a path of one machine", r"(?<![\w.$}])/w[o]rk/[\w.]|/root/\.(pyenv|cargo)|/Users/"),
        (
            "the address of a package index",
            r"(?i)(index-url|find-links|registry)[\"' :=]+https?://|pypi\.org/simple|npmjs\.(org|com)/",
        ),
        ("unfinished business", r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b"),
        ("a merge conflict", r"(?m)^(<{7}|>{7}) "),
    ],
)
def test_the_repository_holds_nothing_of_this_kind(
    what: str, pattern: str, tracked_files: list[Path], repository: Path
) -> None:
    found = []
    for path in tracked_files:
        if path.suffix in (".png", ".gif", ".ico") or path == Path(__file__):
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if re.search(pattern, line):
                found.append(f"{path.relative_to(repository)}:{number}: {line.strip()[:120]}")
    assert not found, f"{what}:\n" + "\n".join(found)


def test_notebooks_are_committed_without_outputs(tracked_files: list[Path]) -> None:
    import nbformat

    for path in (path for path in tracked_files if path.suffix == ".ipynb"):
        notebook = nbformat.reads(path.read_text(), as_version=4)  # type: ignore[no-untyped-call]
        assert not [cell.id for cell in notebook.cells if cell.get("outputs") or cell.get("execution_count")], path
