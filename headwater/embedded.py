"""Stand-ins for Kafka and Redis inside this machine, for trying things out.

librdkafka's mock broker speaks the Kafka protocol; fakeredis speaks Redis'. Both forget everything when
they stop; the broker keeps about 100,000 records a partition and does not compact.
"""

import signal
import sys
import threading
from collections.abc import Callable

import click

from headwater.errors import UsageError
from headwater.names import TOPICS
from headwater.settings import read_settings


def _wait_for_stop() -> None:
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    stop.wait()


def _announce(address: str) -> None:
    sys.stdout.write(f"{address}\n")
    sys.stdout.flush()


def run_broker() -> None:
    """Run the mock broker with all topics until a signal stops it; its address is the first line printed."""
    from confluent_kafka import Producer

    names = read_settings().names
    producer = Producer({"test.mock.num.brokers": "1", "bootstrap.servers": ""})
    for topic in TOPICS:
        producer.list_topics(names.topic(topic), timeout=10)
    broker = next(iter(producer.list_topics(timeout=10).brokers.values()))
    _announce(f"{broker.host}:{broker.port}")
    _wait_for_stop()


def run_redis() -> None:
    """Run fakeredis on a free port until a signal stops it; its URL is the first line printed."""
    from fakeredis import TcpFakeServer

    server = TcpFakeServer(("127.0.0.1", 0), server_type="redis")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    host, port = server.server_address[:2]
    _announce(f"redis://{host!s}:{port}/0")
    _wait_for_stop()
    server.shutdown()


SERVICES: dict[str, Callable[[], None]] = {"kafka": run_broker, "redis": run_redis}


@click.command(hidden=True)
@click.argument("service", type=click.Choice(sorted(SERVICES)))
def embedded(service: str) -> None:
    """Run one embedded service; `headwater up` starts both."""
    try:
        SERVICES[service]()
    except ImportError as error:
        raise UsageError(f"the embedded {service} needs `pip install 'headwater[embedded]'` ({error})") from None
