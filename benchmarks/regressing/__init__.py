"""Two revisions side by side on one machine: built, measured in turn, compared. `benchmarks/regress` is the command."""
