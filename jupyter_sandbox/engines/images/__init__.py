"""The default image: its Dockerfile, and how it is built."""

from .build import BuiltImage, build
from .progress import BuildEvent

__all__ = ["BuildEvent", "BuiltImage", "build"]
