"""Which kernels the sandbox has: the layered Python, and every kernelspec that is installed in it.

The directories are those of jupyter_client, which would cost 130 ms to import, and the layer's own, which it does
not know.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Dict, Iterator, List, Optional, Tuple

from ..errors import error
from .environment import Environment
from .launch import PYTHON, QUIET_IPYKERNEL, Launcher, python_launcher


class KernelSpecs:
    """The kernelspecs as they are now; read anew at each call, since users install kernels."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    def all(self) -> Dict[str, Launcher]:
        """Every launcher by its name; the sandbox's own Python first."""
        found = {PYTHON: python_launcher(self._environment)}
        for name, directory, spec in self._specs():
            if name not in found:
                found[name] = self._launcher(name, directory, spec)
        return found

    def find(self, name: Optional[str], language: Optional[str]) -> Launcher:
        """By the name of a kernelspec, else by language (any case), else the sandbox's own Python.

        Raises
        ------
        SandboxError
            ``LANGUAGE_NOT_FOUND``, naming what is installed.
        """
        if name in (None, PYTHON) and (language or "python").lower() == "python":
            return python_launcher(self._environment)
        found = self.all()
        for launcher in found.values():
            if launcher.name == name or (name is None and launcher.language.lower() == str(language).lower()):
                return launcher
        installed = ", ".join(f"{launcher.language} ({launcher.name})" for launcher in found.values())
        raise error(
            "LANGUAGE_NOT_FOUND",
            f"The sandbox has no kernel for {name or language!r}. Installed: {installed}.",
            remedy="Install one in the sandbox, or use another image.",
            installed=sorted({launcher.language for launcher in found.values()}),
        )

    def models(self) -> Dict[str, Any]:
        """All of them, as a Jupyter server lists them."""
        return {name: _model(launcher) for name, launcher in self.all().items()}

    def model(self, name: str) -> Dict[str, Any]:
        """One of them; raises ``LANGUAGE_NOT_FOUND``."""
        return _model(self.find(name, None))

    def _launcher(self, name: str, directory: str, spec: Dict[str, Any]) -> Launcher:
        argv = [str(word) for word in spec["argv"]]
        env = {str(k): str(v) for k, v in (spec.get("env") or {}).items()}
        if "ipykernel_launcher" in argv:
            argv[0], env = self._environment.python, {**QUIET_IPYKERNEL, **env}
        return Launcher(
            name=name,
            language=str(spec.get("language") or name),
            argv=argv,
            env=env,
            resource_dir=directory,
            interrupt_mode=str(spec.get("interrupt_mode") or "signal"),
            rlimits=self._environment.rlimits,
        )

    def _specs(self) -> Iterator[Tuple[str, str, Dict[str, Any]]]:
        for base in self._directories():
            try:
                names = sorted(os.listdir(base))
            except OSError:
                continue
            for name in names:
                directory = os.path.join(base, name)
                spec = _read(os.path.join(directory, "kernel.json"))
                if spec is not None:
                    yield name, directory, spec

    def _directories(self) -> List[str]:
        home = self._environment.home
        bases = self._environment.build().get("JUPYTER_PATH", "").split(os.pathsep)
        bases += [os.path.join(home, ".local", "share", "jupyter")]
        bases += [os.path.join(prefix, "share", "jupyter") for prefix in (self._environment.venv, sys.prefix)]
        bases += ["/usr/local/share/jupyter", "/usr/share/jupyter"]
        return [os.path.join(base, "kernels") for base in dict.fromkeys(bases) if base]


def _read(path: str) -> Optional[Dict[str, Any]]:
    try:
        with open(path, encoding="utf-8") as file:
            spec = json.load(file)
    except (OSError, ValueError):
        return None
    usable = isinstance(spec, dict) and isinstance(spec.get("argv"), list) and spec["argv"]
    return spec if usable and isinstance(spec.get("env") or {}, dict) else None


def _model(launcher: Launcher) -> Dict[str, Any]:
    spec = {
        "argv": launcher.argv,
        "env": dict(launcher.env),
        "display_name": "Python 3 (sandbox)" if launcher.name == PYTHON else launcher.name,
        "language": launcher.language,
        "interrupt_mode": launcher.interrupt_mode,
        "metadata": {},
    }
    return {"name": launcher.name, "spec": spec, "resources": {}}
