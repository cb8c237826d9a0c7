"""InitProducerId: the identity of an idempotent or transactional producer (KIP-98, KIP-360)."""

from typing import Annotated, NamedTuple

from fastprod.protocol import versions
from fastprod.protocol.schema import Int16, Int32, Int64, String, message_of, since

# The timeout that says nothing: without a transactional id brokers do not look at it.
NO_TIMEOUT_MS = 2**31 - 1


@message_of(versions.INIT_PRODUCER_ID)
class InitProducerIdRequest(NamedTuple):
    """`producer_id` and `producer_epoch` are the present ones where the epoch is to be bumped."""

    transactional_id: String | None = None
    transaction_timeout_ms: Int32 = NO_TIMEOUT_MS
    producer_id: Annotated[Int64, since(3)] = -1
    producer_epoch: Annotated[Int16, since(3)] = -1


@message_of(versions.INIT_PRODUCER_ID)
class InitProducerIdResponse(NamedTuple):
    """`producer_id` is -1 with an error."""

    throttle_time_ms: Int32 = 0
    error_code: Int16 = 0
    producer_id: Int64 = -1
    producer_epoch: Int16 = 0
