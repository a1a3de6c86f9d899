"""The Faust app: raw bytes in and out, offsets committed only for what is stored."""

import ssl
from typing import Any

import faust
from faust.tables import TableManager

from headwater.settings import Settings
from streams.transport import BatchTransport

SESSION_TIMEOUT_S = 10.0
HEARTBEAT_S = 3.0
PUBLISH_TIMEOUT_S = 8.0
"""Less than a session: a later record might follow what another worker has published meanwhile."""
COMMIT_INTERVAL_S = 0.5
MAX_FETCHED = 1024
STREAM_BUFFER = 64


class NoTables(TableManager):
    """Starts at once: Faust waits a second for agents that declare tables late, and no agent here has one."""

    async def on_start(self) -> None:
        await self._update_channels()
        await self.recovery.start()


def make_app(settings: Settings, group: str) -> faust.App:
    """Return a Faust app in a consumer group, without tables, web server or topics of its own.

    Args:
        settings: Where Kafka is.
        group: Kafka consumer group, and the app's id.
    """
    data_dir = settings.state_dir / "faust"  # shared by all apps: without tables Faust stores nothing in it
    data_dir.mkdir(parents=True, exist_ok=True)
    app = faust.App(
        group,
        datadir=data_dir,
        broker=[f"kafka://{address}" for address in settings.kafka_bootstrap_servers.split(",")],
        broker_credentials=_credentials(settings),
        broker_session_timeout=SESSION_TIMEOUT_S,
        broker_heartbeat_interval=HEARTBEAT_S,
        broker_commit_interval=COMMIT_INTERVAL_S,
        broker_max_poll_records=MAX_FETCHED,
        broker_check_crcs=False,
        consumer_auto_offset_reset="earliest",
        key_serializer="raw",
        value_serializer="raw",
        producer_acks=-1,
        producer_request_timeout=PUBLISH_TIMEOUT_S,
        store="memory://",
        stream_buffer_maxsize=STREAM_BUFFER,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        autodiscover=False,
        TableManager=NoTables,
    )
    app.transport = BatchTransport(app.conf.broker_consumer, app)
    return app


def _credentials(settings: Settings) -> Any:
    protocol = settings.kafka_security_protocol
    context = ssl.create_default_context() if protocol.endswith("SSL") else None
    if settings.kafka_sasl_mechanism and settings.kafka_sasl_password:
        return faust.SASLCredentials(
            mechanism=settings.kafka_sasl_mechanism,
            username=settings.kafka_sasl_username,
            password=settings.kafka_sasl_password.get_secret_value(),
            ssl_context=context,
        )
    return faust.SSLCredentials(context=context) if context else None
