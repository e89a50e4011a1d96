"""The bubblewrap engine: sandboxes of namespaces, made without a daemon and without root."""

from .engine import UID_RANGE, BubblewrapEngine

__all__ = ["UID_RANGE", "BubblewrapEngine"]
