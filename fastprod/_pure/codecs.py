"""Linked codecs, of which this twin has none: Python's packages compress for it."""

from __future__ import annotations


def linked_codecs() -> dict[str, str]:
    """The codecs that need no package, and the library that does each, with its version."""
    return {}
