"""Reads a topic of events as a program of another team does: with a Kafka client and the SDK of CloudEvents, nothing of ours.

usage: events.py <broker> <topic> <stream that was begun>

Prints one line for each event of business: its type, its subject and its data's fields.
"""

import sys

from cloudevents.core.bindings import kafka
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

# Those that only prove who owns a shard.
OF_THE_LOG = "crm.log."


def records(broker, topic):
    """Every record of every partition, up to the ends of now."""
    consumer = Consumer({"bootstrap.servers": broker, "group.id": "other-team", "enable.auto.commit": False})
    partitions = consumer.list_topics(topic, timeout=20).topics[topic].partitions
    ends = {}
    for partition in partitions:
        _, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=20)
        if end > 0:
            ends[partition] = end
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in ends])
    while ends:
        message = consumer.poll(20)
        assert message is not None, f"nothing more comes, and partitions {ends} are not read to their ends"
        assert message.error() is None, message.error()
        yield message
        if message.offset() + 1 >= ends.get(message.partition(), 0):
            ends.pop(message.partition(), None)
    consumer.close()


def main():
    broker, topic, stream = sys.argv[1:]
    seen, subjects = set(), []
    for message in records(broker, topic):
        headers = dict(message.headers() or [])
        assert len(headers) == len(message.headers() or []), "a header is there twice"
        event = kafka.from_binary_event(kafka.KafkaMessage(headers, message.key(), message.value() or b""))
        # The attributes that every event must have, and that the SDK has parsed.
        assert event.get_specversion() == "1.0"
        # Every partition begins with the record that the log was created with, which is one event.
        is_creation = event.get_type() == OF_THE_LOG + "created.v1"
        identity = (event.get_source(), event.get_id(), message.partition() if is_creation else None)
        assert identity not in seen, f"{identity} is there twice"
        seen.add(identity)
        assert event.get_time().tzinfo is not None, "a time without an offset"
        if event.get_subject() is None:
            continue
        assert event.get_datacontenttype() == "application/json", event.get_datacontenttype()
        data = event.get_data()
        assert isinstance(data, dict), f"the data of {event.get_type()} is no JSON object"
        subjects.append(event.get_subject())
        print(event.get_type(), event.get_subject(), *sorted(data))
    assert stream in subjects, f"{stream} is not among {subjects}"


main()
