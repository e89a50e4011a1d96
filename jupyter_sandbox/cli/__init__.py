"""`jupyter sandbox …`: the command line, a user of the client like any other."""

from .main import main

__all__ = ["main"]
