"""The services the other tests stand on are real and survive a kill."""

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic
from redis import Redis

from tests.services import KafkaService, RedisService


def test_kafka_keeps_its_log_through_a_kill() -> None:
    with KafkaService() as kafka:
        admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
        admin.create_topics([NewTopic("kept", 1, 1)])
        admin.close()
        producer = KafkaProducer(bootstrap_servers=kafka.bootstrap_servers, acks="all")
        producer.send("kept", b"value").get(10)
        producer.close()
        kafka.kill()
        kafka.start()
        consumer = KafkaConsumer(bootstrap_servers=kafka.bootstrap_servers, auto_offset_reset="earliest")
        consumer.assign([TopicPartition("kept", 0)])
        record = next(iter(consumer))
        consumer.close()
    assert record.value == b"value"


def test_redis_keeps_its_keys_through_a_kill() -> None:
    with RedisService() as service:
        Redis.from_url(service.url).set("kept", "value")
        service.kill()
        service.start()
        assert Redis.from_url(service.url).get("kept") == b"value"
