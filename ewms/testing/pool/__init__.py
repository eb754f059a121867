"""A real HTCondor pool for tests and the demo: `open_pool`; brokers without a pool: `open_rabbitmq`, `open_nats`.

It lives in a Debian root file system that is built once, so that nothing but the root's builder is installed on the
machine, and in namespaces of its own, so that nothing of it is left afterwards.
"""

from ewms.testing.pool.namespace import CommandFailed
from ewms.testing.pool.nats import NatsServer
from ewms.testing.pool.opening import Pool, Versions, open_nats, open_pool, open_rabbitmq, open_tms_image
from ewms.testing.pool.rabbitmq import RabbitServer
from ewms.testing.pool.server import BrokerServer
from ewms.testing.pool.steps import PoolUnavailable

__all__ = [
    "BrokerServer",
    "CommandFailed",
    "NatsServer",
    "Pool",
    "PoolUnavailable",
    "RabbitServer",
    "Versions",
    "open_nats",
    "open_pool",
    "open_rabbitmq",
    "open_tms_image",
]
