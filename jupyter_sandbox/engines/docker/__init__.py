"""The Docker engine: one container and one volume per lifetime, started by a daemon that shares our kernel."""

from .engine import DockerEngine

__all__ = ["DockerEngine"]
