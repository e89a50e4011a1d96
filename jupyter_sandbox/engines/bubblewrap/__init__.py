"""The bubblewrap engine: sandboxes of namespaces, made without a daemon and without root."""

from .engine import BubblewrapEngine

__all__ = ["BubblewrapEngine"]
