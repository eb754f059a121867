"""Processes that this one started, through however many others: a broker's, a daemon's."""

import psutil


def descendants(name: str) -> list[psutil.Process]:
    """Those of this name that live."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.name() == name and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found
