"""The errors that a program written for kafka-python catches: its own, or ours where it is not installed."""

try:
    import kafka.errors as kafka_errors  # type: ignore[import-untyped]
except ModuleNotFoundError:
    from fastprod import errors as kafka_errors

__all__ = ["kafka_errors"]
