"""The embedded stack: the real Kafka and the real Elasticsearch on this machine, without root or container."""
