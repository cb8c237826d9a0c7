"""What error classes do beyond what their row in the table says.

A mixin here comes first among the bases of the class that it is listed for, before anything of
kafka-python's, so ours behave alike with and without that package.
"""

from typing import Any, Final


class KafkaErrorMixin(Exception):
    """KafkaError: kafka-python's text and equality, and instances that can be hashed."""

    maybe_written: bool = False

    def __str__(self) -> str:
        text = Exception.__str__(self)
        return f"{type(self).__name__}: {text}" if self.args else type(self).__name__

    def __eq__(self, other: object) -> bool:
        if isinstance(other, KafkaErrorMixin):
            return type(self) is type(other) and self.args == other.args
        return NotImplemented

    def __hash__(self) -> int:
        try:
            return hash((type(self), self.args))
        except TypeError:
            # Arguments may be anything, lists included; an error must still fit into a set.
            return hash(type(self))


class BrokerResponseErrorMixin(Exception):
    """BrokerResponseError: the text begins with the code."""

    errno: int | None

    def __str__(self) -> str:
        return f"[Error {self.errno}] {KafkaErrorMixin.__str__(self)}"  # type: ignore[arg-type]


class CommitFailedErrorMixin(Exception):
    """CommitFailedError: has a text even when none is given."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args or ("The group has rebalanced and given the partitions away.",))


class BatchDeliveryErrorMixin(Exception):
    """BatchDeliveryError: holds the outcome of the whole call."""

    def __init__(self, *args: object, metadata: Any = None) -> None:
        super().__init__(*args)
        self.metadata = metadata


class UnrecognizedBrokerErrorMixin(Exception):
    """UnrecognizedBrokerError: its subclasses have no name of their own to be pickled by."""

    errno: int | None

    def __reduce__(self) -> tuple[Any, ...]:
        if self.errno is None:
            return super().__reduce__()  # type: ignore[return-value]
        return _restore_unrecognized, (self.errno, self.args), self.__dict__


def _restore_unrecognized(code: int, args: tuple[object, ...]) -> Exception:
    from fastprod.errors import for_code

    return for_code(code)(*args)


MIXINS: Final[dict[str, type[Exception]]] = {
    "KafkaError": KafkaErrorMixin,
    "BrokerResponseError": BrokerResponseErrorMixin,
    "CommitFailedError": CommitFailedErrorMixin,
    "BatchDeliveryError": BatchDeliveryErrorMixin,
    "UnrecognizedBrokerError": UnrecognizedBrokerErrorMixin,
}
