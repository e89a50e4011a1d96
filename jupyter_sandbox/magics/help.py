"""The text of ``%sandbox help``, made from the same tables that the parser and tab completion read."""

from __future__ import annotations

from .arguments import COMMANDS, OPTIONS


def help_text() -> str:
    """What ``%sandbox help`` prints."""
    commands = "\n".join(f"  %sandbox {name} {text}" for name, text in COMMANDS.items())
    options = "\n".join(f"  {name} {text}" for name, text in OPTIONS.items())
    return (
        "%%sandbox ID [options]\n"
        "Run the cell in the sandbox ID, which is made at its first use. The same ID is always the same sandbox.\n\n"
        f"{options}\n\n{commands}\n"
    )
