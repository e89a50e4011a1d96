"""``input()`` and ``getpass()`` of a sandbox, asked here, with the sandbox's name in front."""

from __future__ import annotations

import getpass
from typing import Any

from IPython.core.interactiveshell import InteractiveShell

from ..client.wire import Message
from .interrupting import sigint_raises
from .safe import clean_text

MAX_PROMPT = 2000
"""Characters of a prompt that are shown."""


def can_ask(shell: InteractiveShell) -> bool:
    """Whether the front end of the running cell takes input; nbclient and papermill do not."""
    kernel: Any = getattr(shell, "kernel", None)
    return kernel is None or bool(getattr(kernel, "_allow_stdin", True))


def ask(sandbox_id: str, request: Message) -> str:
    """Ask the user what ``request`` asks for.

    Nobody can mistake the question for one of the notebook itself: it begins with ``[sandbox ID]``.

    Raises
    ------
    KeyboardInterrupt
        ■ was pressed instead of answering.
    EOFError
        There is nobody to answer.
    """
    prompt = request.content.get("prompt")
    shown = clean_text(prompt)[:MAX_PROMPT] if isinstance(prompt, str) else ""
    question = f"[sandbox {sandbox_id}] {shown}"
    with sigint_raises():
        return getpass.getpass(question) if request.content.get("password") is True else input(question)
