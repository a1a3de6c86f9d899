"""The server: per-topic candidates over HTTP and Kafka."""
