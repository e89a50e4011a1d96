"""Sandboxes for Jupyter: a cell, a command or a script runs in an isolated place with its own state."""

__version__ = "0.1.0"
