"""Instructions a record, and what they may be. `benchmarks/budgets` is the command."""
