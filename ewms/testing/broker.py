"""Real message brokers for tests, out of the pool's root file system, with or without the pool around them."""

from ewms.testing.pool import BrokerServer, NatsServer, PoolUnavailable, RabbitServer, open_nats, open_rabbitmq

__all__ = ["BrokerServer", "NatsServer", "PoolUnavailable", "RabbitServer", "open_nats", "open_rabbitmq"]
