"""Faults to switch on while the stand-in runs: which calls they meet, how often, and what they do. Pure."""

from fnmatch import fnmatchcase

import attrs

CONTROL_PREFIX = "/_standin"


@attrs.frozen
class Fault:
    """One kind of trouble; with several for one call, the first that was added acts."""

    path: str = "*"
    """A shell pattern for the path, `/v1` included (`*` also spans `/`)."""
    method: str = "*"
    count: int | None = None
    """How many calls it meets; None: every one until it is cleared."""
    delay: float = 0.0
    """Latency in s, before the call is acted upon, or with `after` between that and the answer.

    A caller that gives up before hinders nothing: the WMS acts late, perhaps after newer calls.
    """
    status: int | None = None
    """Answer with this status instead (401, 429, 500, …)."""
    retry_after: int | None = None
    """With `status`: the `Retry-After` header, in s."""
    answer: str | None = None
    """Answer with this text, whatever was asked; with status 200 unless `status` says another one."""
    drop: bool = False
    """Cut the connection instead of answering."""
    after: bool = False
    """Act upon the call first: with `drop`, `status` or `answer` its true answer is lost."""

    @property
    def replaces_answer(self) -> bool:
        """Whether the caller does not get the real answer."""
        return self.drop or self.status is not None or self.answer is not None

    def meets(self, method: str, path: str) -> bool:
        """Whether this call is one of those."""
        return fnmatchcase(method, self.method) and fnmatchcase(path, self.path)


class Faults:
    """The faults that are switched on."""

    def __init__(self) -> None:
        self._active: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Switch one on, behind those that are on."""
        self._active.append(fault)

    def clear(self) -> None:
        """Switch all off."""
        self._active.clear()

    def active(self) -> list[Fault]:
        """Those that are on, with what is left of their counts."""
        return list(self._active)

    def take(self, method: str, path: str) -> Fault:
        """The fault that meets this call (a harmless one if none does), counted down. Control calls are spared."""
        if not path.startswith(CONTROL_PREFIX):
            for index, fault in enumerate(self._active):
                if fault.meets(method, path):
                    self._count_down(index, fault)
                    return fault
        return Fault()

    def _count_down(self, index: int, fault: Fault) -> None:
        if fault.count is None:
            return
        if fault.count <= 1:
            del self._active[index]
        else:
            self._active[index] = attrs.evolve(fault, count=fault.count - 1)
