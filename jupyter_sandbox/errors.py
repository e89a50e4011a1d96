"""The one family of errors: every code, its HTTP status, what it says and what to do next.

The table ``CODES`` is the only place where a code is tied to a class, a status and a remedy. The same
errors travel between agent, manager and client as JSON (:meth:`SandboxError.to_json`) and come out on the
other side as the same class. This file is shipped into every sandbox with the agent, therefore it needs
nothing but Python 3.9 and its standard library.
"""

from __future__ import annotations

from typing import Any, Dict, NamedTuple, Optional, Type


class SandboxWarning(UserWarning):
    """Something that works, but probably not as its author meant it."""


class SandboxError(Exception):
    """Base of all errors of this package.

    Parameters
    ----------
    code:
        A key of :data:`CODES`, for example ``"SANDBOX_NOT_FOUND"``.
    message:
        One plain sentence that names the value and the rule. Default: the sentence of the table.
    remedy:
        What to do next. Default: the remedy of the table.
    details:
        JSON-serializable facts for programs (``{"id": "user-123"}``).

    Build one with :func:`error`, which picks the class that the table names.
    """

    def __init__(
        self,
        code: str,
        message: Optional[str] = None,
        *,
        remedy: Optional[str] = None,
        details: Optional[Dict[str, Any]] = None,
    ) -> None:
        row = CODES[code]
        self.code = code
        self.message = printable(message or row.message)
        self.remedy = printable(row.remedy if remedy is None else remedy)
        self.details: Dict[str, Any] = dict(details or {})
        super().__init__(self.message)

    @property
    def http_status(self) -> int:
        """The HTTP status that a server answers with."""
        return CODES[self.code].status

    @property
    def retry_after(self) -> Optional[int]:
        """Seconds after which trying again makes sense; None when it does not."""
        return 1 if self.http_status == 503 else None

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()

    def to_json(self) -> Dict[str, Any]:
        """The form in which an error travels: ``{"error": {code, message, remedy, details}}``."""
        body = {"code": self.code, "message": self.message, "remedy": self.remedy, "details": self.details}
        return {"error": body}

    def __reduce__(self) -> Any:
        return (_from_body, (self.to_json()["error"],))


class InvalidInput(SandboxError, ValueError):
    """A value breaks a rule; raised before anything starts."""


class NotFound(SandboxError, LookupError):
    """What was asked for does not exist, or does not belong to who asks."""


class Conflict(SandboxError):
    """Not possible in the present state."""


class Denied(SandboxError, PermissionError):
    """Not allowed, or full."""


class Unavailable(SandboxError):
    """Not possible right now; trying again may work."""


class Failed(SandboxError):
    """Not possible as things are; trying again does not help."""


class CommandFailed(SandboxError):
    """A command run with ``check=True`` ended with a non-zero exit code (``details["result"]``)."""


class ExecutionTimeout(SandboxError, TimeoutError):
    """Code or a command ran longer than its timeout."""


class KernelDied(SandboxError):
    """The kernel or its sandbox ended while it ran code; the message says why."""


class Row(NamedTuple):
    """One line of :data:`CODES`."""

    cls: Type[SandboxError]
    status: int
    message: str
    remedy: str


_ID_RULE = "An ID has 1 to 63 of the characters a-z, 0-9 and '-', with no '-' at either end."

CODES: Dict[str, Row] = {
    # --- bad input (400): named value, named rule, nothing started -----------------------------------
    "INVALID_ID_EMPTY": Row(InvalidInput, 400, "The sandbox ID is empty.", _ID_RULE),
    "INVALID_ID_TOO_LONG": Row(InvalidInput, 400, "The sandbox ID is longer than 63 characters.", _ID_RULE),
    "INVALID_ID_HYPHEN": Row(InvalidInput, 400, "The sandbox ID begins or ends with '-'.", _ID_RULE),
    "INVALID_ID_CHARACTER": Row(InvalidInput, 400, "The sandbox ID has a character that is not allowed.", _ID_RULE),
    "INVALID_ID_RESERVED": Row(InvalidInput, 400, "The sandbox ID is reserved.", "Choose another ID."),
    "INVALID_OPTION": Row(InvalidInput, 400, "An option has a value that is not allowed.", ""),
    "INVALID_DURATION": Row(
        InvalidInput, 400, "Not a duration.", "Write '30s', '5m', '1h' or a number of seconds above 0."
    ),
    "INVALID_TIMEOUT": Row(InvalidInput, 400, "A timeout is out of its range.", ""),
    "INVALID_PATH": Row(InvalidInput, 400, "Not a usable path.", "Give a path without NUL characters."),
    "INVALID_REQUEST": Row(InvalidInput, 400, "The request cannot be read.", ""),
    "INVALID_VARIABLE": Row(
        InvalidInput,
        400,
        "The variable cannot be passed.",
        "What passes: None, bool, int, float, str, list, dict, bytes, NumPy arrays without objects, and "
        "pandas DataFrames, up to 64 MiB.",
    ),
    "INVALID_MAGIC": Row(InvalidInput, 400, "The magic line cannot be understood.", "See `%sandbox help`."),
    "NOT_AVAILABLE_YET": Row(
        InvalidInput, 501, "This is not available in this version.", "The changelog says when it comes."
    ),
    # --- not there (404) -----------------------------------------------------------------------------
    "SANDBOX_NOT_FOUND": Row(NotFound, 404, "There is no such sandbox.", "See `%sandbox list`."),
    "ROUTE_NOT_FOUND": Row(NotFound, 404, "There is no such route.", ""),
    "FILE_NOT_FOUND": Row(NotFound, 404, "There is no such file or directory in the sandbox.", ""),
    "CONTEXT_NOT_FOUND": Row(NotFound, 404, "There is no such context in the sandbox.", "Create it anew."),
    "LANGUAGE_NOT_FOUND": Row(NotFound, 404, "The sandbox has no kernel for that language.", ""),
    # --- not in this state (409) ---------------------------------------------------------------------
    "SANDBOX_ASLEEP": Row(
        Conflict, 409, "The sandbox is asleep, and looking at it does not wake it.", "Wake it, or run something in it."
    ),
    "SANDBOX_BUSY": Row(Conflict, 409, "The sandbox is busy.", "Wait for it, or force it with `force=True`."),
    "OPTION_CONFLICT": Row(
        Conflict, 409, "The sandbox exists with another value of that option.", "Destroy it first, or use another ID."
    ),
    "STALE_HANDLE": Row(
        Conflict, 409, "The handle belongs to an earlier start of the sandbox.", "Create what it stood for anew."
    ),
    "SANDBOX_DESTROYED": Row(Conflict, 409, "The sandbox was destroyed meanwhile.", "The next call makes a new one."),
    "FILE_EXISTS": Row(Conflict, 409, "There is such a file already.", ""),
    "IS_A_DIRECTORY": Row(Conflict, 409, "That path is a directory.", ""),
    "NOT_A_DIRECTORY": Row(Conflict, 409, "That path is not a directory.", ""),
    "DIRECTORY_NOT_EMPTY": Row(
        Conflict, 409, "That directory is not empty.", "Give `recursive=True` to delete it all."
    ),
    # --- not allowed, or full ------------------------------------------------------------------------
    "POLICY_DENIED": Row(Denied, 403, "Not allowed here.", "Ask who runs this server."),
    "SHARED_SERVER": Row(
        Denied, 403, "This manager belongs to another person.", "Ask for a deployment as a service (see the docs)."
    ),
    "LOGIN_REQUIRED": Row(
        Denied,
        403,
        "The Jupyter server does not know who asks.",
        "Log in, or give its token (for a script: in JUPYTER_SANDBOX_TOKEN).",
    ),
    "FILE_PERMISSION": Row(Denied, 403, "The sandbox's user may not do that with the file.", ""),
    "LIMIT_REACHED": Row(Denied, 429, "The limit is reached.", "Destroy what is no longer needed."),
    "TOO_LARGE": Row(Denied, 413, "That is too large.", ""),
    # --- try again (503) -----------------------------------------------------------------------------
    "ENGINE_UNAVAILABLE": Row(
        Unavailable, 503, "The engine of the sandbox does not answer.", "Start it, then try again; nothing is lost."
    ),
    "MANAGER_UNAVAILABLE": Row(
        Unavailable, 503, "The sandbox manager does not answer.", "Try again; `jupyter sandbox doctor` says more."
    ),
    "START_TIMEOUT": Row(
        Unavailable, 503, "The sandbox did not start in time.", "Try again, or raise `container_timeouts`."
    ),
    "AGENT_UNREACHABLE": Row(
        Unavailable, 503, "The sandbox ended, or does not answer.", "Run it again: it starts anew."
    ),
    # --- not possible as things are (500) ------------------------------------------------------------
    "NO_ENGINE": Row(
        Failed,
        500,
        "No engine works on this machine.",
        "Install Docker and run `jupyter sandbox build`, or allow unprivileged user namespaces for bubblewrap.",
    ),
    "IMAGE_MISSING": Row(
        Failed, 500, "The image is not on this machine.", "Run `jupyter sandbox build` in a terminal."
    ),
    "IMAGE_NOT_USABLE": Row(
        Failed, 500, "The image cannot run a sandbox.", "It needs `python3` with `ipykernel` for an ordinary user."
    ),
    "NETWORK_UNAVAILABLE": Row(
        Failed, 500, "The network `internet` cannot be closed to what is not the internet.", "Use `network='none'`."
    ),
    "BUILD_FAILED": Row(Failed, 500, "The image could not be built.", ""),
    "START_FAILED": Row(Failed, 500, "The sandbox could not be started.", ""),
    "OUT_OF_MEMORY": Row(Failed, 500, "The sandbox ran out of memory.", "Give it more with `limits`."),
    "VERSION_MISMATCH": Row(Failed, 500, "Client and manager have different versions.", "Restart what is older."),
    "OUTPUT_INVALID": Row(
        Failed, 502, "The sandbox sent something that is not an answer.", "Wake it anew, or destroy it."
    ),
    "INTERNAL": Row(Failed, 500, "Something that should not happen happened.", "Please report it."),
    # --- results of running code ---------------------------------------------------------------------
    "COMMAND_FAILED": Row(CommandFailed, 500, "The command failed.", ""),
    "EXECUTION_TIMEOUT": Row(ExecutionTimeout, 500, "It ran longer than its timeout and was stopped.", ""),
    "CONTEXT_STILL_BUSY": Row(
        Conflict, 409, "The context is still busy.", "Interrupt again to restart it; its variables are then lost."
    ),
    "KERNEL_DIED": Row(KernelDied, 500, "The kernel died.", "The next cell gets a new one."),
}


def printable(text: str) -> str:
    """``text`` without what commands a terminal or turns the direction of writing; lines and tabs stay.

    Messages often quote what a sandbox said, and end on terminals.
    """
    if text.isprintable():
        return text
    return "".join(c if c in "\n\t" or c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def error(code: str, message: Optional[str] = None, *, remedy: Optional[str] = None, **details: Any) -> SandboxError:
    """Build the error of ``code`` as the class that :data:`CODES` names for it."""
    return CODES[code].cls(code, message, remedy=remedy, details=details)


def error_from_json(payload: Any) -> SandboxError:
    """Turn what :meth:`SandboxError.to_json` made into the same error again.

    The sender is not trusted: an unknown code or a wrong shape becomes ``INTERNAL`` with what can be read.
    """
    body = payload.get("error") if isinstance(payload, dict) else None
    if not isinstance(body, dict):
        return error("INTERNAL", "The answer is an error that cannot be read.")
    return _from_body(body)


def _from_body(body: Dict[str, Any]) -> SandboxError:
    code = body.get("code")
    known = isinstance(code, str) and code in CODES
    details = body.get("details")
    message, remedy = body.get("message"), body.get("remedy")
    return error(
        str(code) if known else "INTERNAL",
        message[:4000] if isinstance(message, str) and message else None,
        remedy=remedy[:4000] if isinstance(remedy, str) else None,
        **(
            {str(k): v for k, v in details.items() if k not in ("code", "message", "remedy")}
            if isinstance(details, dict)
            else {}
        ),
    )
