"""Tests that look for what only chance brings about: races, leaks, bytes that nobody thought of."""
