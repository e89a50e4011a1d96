"""Builds the zipapp that every sandbox runs: the agent, ``errors.py`` and nothing else of this package.

The file is named by the hash of its content, so that a runtime keeps its own while a newer version starts others.
Next to each source lies its byte code for the Python that builds it, which saves that Python the compilation at
every start; any other Python finds a foreign magic number and uses the source.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import marshal
import secrets
import zipfile
from pathlib import Path

from .. import __version__

_PACKAGE = "jupyter_sandbox"
_MAIN = f"from {_PACKAGE}.agent.__main__ import main\n\nraise SystemExit(main())\n"
_STUB = f'"""Stands in for the package inside a sandbox."""\n\n__version__ = {__version__!r}\n'
_UNCHECKED_HASH = (1).to_bytes(4, "little")
_EPOCH = (1980, 1, 1, 0, 0, 0)


def build(target_dir: Path) -> Path:
    """Make the zipapp in ``target_dir`` if it is not there yet, and return its path.

    The file appears at once as a whole, so that several processes may build it at the same time; mode 0644.
    """
    sources = _sources()
    path = target_dir / f"agent-{_digest(sources)}.pyz"
    if not path.exists():
        target_dir.mkdir(parents=True, exist_ok=True)
        temporary = target_dir / f".{path.name}.{secrets.token_hex(4)}"
        temporary.write_bytes(_zip(sources))
        temporary.chmod(0o644)
        temporary.replace(path)
    return path


def _sources() -> dict[str, bytes]:
    """Names inside the zipapp and what they hold, sorted."""
    root = Path(__file__).resolve().parent.parent
    files = [root / "errors.py", *(root / "agent").rglob("*.py")]
    found = {f"{_PACKAGE}/{file.relative_to(root).as_posix()}": file.read_bytes() for file in files}
    found |= {"__main__.py": _MAIN.encode(), f"{_PACKAGE}/__init__.py": _STUB.encode()}
    return dict(sorted(found.items()))


def _digest(sources: dict[str, bytes]) -> str:
    digest = hashlib.sha256(importlib.util.MAGIC_NUMBER)
    for name, source in sources.items():
        digest.update(f"{name}\0{len(source)}\0".encode() + source)
    return digest.hexdigest()[:16]


def _zip(sources: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, source in sources.items():
            archive.writestr(_entry(name), source)
            archive.writestr(_entry(f"{name}c"), _byte_code(name, source))
    return buffer.getvalue()


def _entry(name: str) -> zipfile.ZipInfo:
    # Stored, not deflated: unpacking costs more at each start than reading a few more pages.
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.external_attr = 0o644 << 16
    return entry


def _byte_code(name: str, source: bytes) -> bytes:
    """A ``.pyc`` that is valid whatever its source's time stamp, which a zip does not keep exactly (PEP 552)."""
    code = compile(source, name, "exec", dont_inherit=True, optimize=0)
    return importlib.util.MAGIC_NUMBER + _UNCHECKED_HASH + importlib.util.source_hash(source) + marshal.dumps(code)
