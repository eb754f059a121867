"""A real HTCondor pool on one machine, for tests and the demo: `open_pool`; and its RabbitMQ alone: `open_rabbitmq`.

It lives in a Debian root file system that is built once, so that nothing but the root's builder is installed on the
machine, and in namespaces of its own, so that nothing of it is left afterwards.
"""

from ewms.testing.pool.namespace import CommandFailed
from ewms.testing.pool.opening import Pool, Versions, open_pool, open_rabbitmq
from ewms.testing.pool.rabbitmq import RabbitServer
from ewms.testing.pool.steps import PoolUnavailable

__all__ = ["CommandFailed", "Pool", "PoolUnavailable", "RabbitServer", "Versions", "open_pool", "open_rabbitmq"]
