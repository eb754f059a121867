"""Which day it is: the days that name job event logs are UTC, wherever the access point stands."""

import time


def today() -> str:
    """`YYYY-MM-DD`, as `day_log_name` takes it."""
    return time.strftime("%Y-%m-%d", time.gmtime())
