"""What operators do to a topic that the tests' own broker class has no word for; done by confluent-kafka."""

from __future__ import annotations

from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    ResourceType,
)

_WAIT_S = 20.0


def add_partitions(address: str, topic: str, total: int) -> None:
    """Give a topic more partitions, `total` in all."""
    admin = AdminClient({"bootstrap.servers": address})
    for done in admin.create_partitions([NewPartitions(topic, total)]).values():
        done.result(_WAIT_S)


def change_setting(address: str, topic: str, name: str, value: object) -> None:
    """Change one setting of a topic."""
    entry = ConfigEntry(name, str(value), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": address})
    for done in admin.incremental_alter_configs([resource]).values():
        done.result(_WAIT_S)
