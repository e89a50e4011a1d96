"""Tests of the Jupyter server extension, with real servers."""
