"""A real RabbitMQ server for tests, out of the pool's root file system, with or without the pool around it."""

from ewms.testing.pool import PoolUnavailable, RabbitServer, open_rabbitmq

__all__ = ["PoolUnavailable", "RabbitServer", "open_rabbitmq"]
