"""Reads a topic to its end as Confluent's own client does, and prints a JSON object
for each record: partition, key, value and the names of its headers.

Usage: read.py BROKERS REGISTRY TOPIC

Decimals are printed as text and bytes in hexadecimal.
"""

import decimal
import json
import sys

from confluent_kafka import Consumer, KafkaError, KafkaException, OFFSET_BEGINNING, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext


def printable(value):
    if isinstance(value, decimal.Decimal):
        return str(value)
    if isinstance(value, bytes):
        return value.hex()
    raise TypeError(f"{type(value)} has no JSON form")


def main(brokers, registry, topic):
    deserialize = AvroDeserializer(SchemaRegistryClient({"url": registry}))
    consumer = Consumer({
        "bootstrap.servers": brokers,
        "group.id": "headwater-outside-reader",
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
    })
    partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
    consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in partitions])
    unread = set(partitions)
    while unread:
        message = consumer.poll(30)
        if message is None:
            sys.exit(f"nothing came from partitions {sorted(unread)} of {topic} for 30 seconds")
        if message.error():
            if message.error().code() != KafkaError._PARTITION_EOF:
                raise KafkaException(message.error())
            unread.discard(message.partition())
            continue
        record = {
            "partition": message.partition(),
            "key": deserialize(message.key(), SerializationContext(topic, MessageField.KEY)),
            "value": deserialize(message.value(), SerializationContext(topic, MessageField.VALUE)),
            "headers": [name for name, _ in message.headers() or []],
        }
        print(json.dumps(record, default=printable))
    consumer.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
