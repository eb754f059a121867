"""What is in exception groups: nurseries wrap what their tasks raise, once more in each nursery on the way."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

E = TypeVar("E", bound=BaseException)


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors in a group and in the groups in it; of any other error, itself."""
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from leaves(each)
    else:
        yield error


@contextmanager
def told_as(kind: type[E], tell: Callable[[list[E]], BaseException]) -> Iterator[None]:
    """Raise what `tell` makes of the errors, where all of them are of one kind; everything else passes through.

    Not `except*`: some releases of Python 3.11 wrap what is raised there in a group again.
    """
    try:
        yield
    except (kind, BaseExceptionGroup) as error:
        found = [leaf for leaf in leaves(error) if isinstance(leaf, kind)]
        if len(found) < len(list(leaves(error))):
            raise
        told = tell(found)
    else:
        return
    raise told
