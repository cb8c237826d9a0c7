"""The control plane: everything that goes wrong, and everything that happens rarely.

One Python thread opens connections, keeps metadata and the producer id, judges errors and runs
delivery callbacks. It talks to the data plane only through the seam that `fastprod/DESIGN.md`
describes.
"""
