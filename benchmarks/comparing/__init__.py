"""The parts of `compare.py`: the clients that stand side by side, the rounds, and the report."""
