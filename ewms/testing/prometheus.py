"""A real Prometheus with its promtool, for tests of what it is to read: `open_prometheus`.

Both are Debian's, in a root file system of their own that is entered like the pool's (`ewms.testing.pool`): nothing is
installed on the machine, and nothing is left afterwards.
"""

import json
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import attrs
import httpx
import trio

from ewms.testing.pool.data import containers_dir
from ewms.testing.pool.namespace import Namespace, open_namespace
from ewms.testing.pool.places import default_cache_dir, opened_to_all
from ewms.testing.pool.ports import free_ports
from ewms.testing.pool.rootfs import root_filesystem
from ewms.testing.pool.steps import PoolUnavailable, Progress, last_line
from ewms.testing.pool.surroundings import check_surroundings

_USER: Final = "prometheus"
_START_DEADLINE_S: Final = 60
_POLL_S: Final = 0.1


@attrs.frozen(kw_only=True)
class PrometheusHost:
    """A machine that has Prometheus installed; none runs yet."""

    directory: Path
    """The same path inside and outside; everybody may read there."""
    inside: Namespace

    async def promtool(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        """Run `promtool` in `directory`, to its end."""
        return await self.inside.run(["promtool", *arguments], user=_USER, cwd=str(self.directory), check=False)

    async def serve(self, config: Mapping[str, Any]) -> str:
        """Start a Prometheus with this configuration and wait until it is ready; its URL.

        Once for a machine, with which it ends.

        Raises:
            PoolUnavailable: it does not come up.
        """
        (port,) = free_ports(1)
        file, output = self.directory / "prometheus.json", self.directory / "logs" / "prometheus.log"
        file.write_text(json.dumps(config))  # JSON is YAML
        options = [
            f"--config.file={file}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--storage.tsdb.path=/tmp/prometheus",
        ]
        with output.open("ab") as log:
            server = await self.inside.spawn(["prometheus", *options], user=_USER, log=log)
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(trust_env=False) as http:
            with trio.move_on_after(_START_DEADLINE_S):
                while server.poll() is None:
                    with suppress(httpx.TransportError):
                        if (await http.get(f"{url}/-/ready")).is_success:
                            return url
                    await trio.sleep(_POLL_S)
        raise PoolUnavailable(f"Prometheus does not come up: {last_line(output)} (its log: {output})")


@asynccontextmanager
async def open_prometheus(
    work_dir: Path, *, progress: Progress, cache_dir: Path | None = None
) -> AsyncIterator[PrometheusHost]:
    """A machine with Prometheus while the context lasts; the machine's loopback interface is the host's.

    The first time, it gets some 100 MB of Debian packages and keeps them under `cache_dir`. `work_dir` becomes
    readable for everybody who can walk there.

    Raises:
        PoolUnavailable: with the one condition that failed.
    """
    await check_surroundings()
    cache_dir = cache_dir or default_cache_dir()
    opened_to_all(work_dir)
    async with (
        root_filesystem("prometheus-root", cache_dir=cache_dir, progress=progress) as root,
        open_namespace(root, work_dir, visible=[cache_dir, containers_dir()]) as inside,
    ):
        yield PrometheusHost(directory=work_dir, inside=inside)
