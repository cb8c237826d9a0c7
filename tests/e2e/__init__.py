"""The whole way of a record, on a real broker: from `send` to the log, and back through somebody else's consumer."""
