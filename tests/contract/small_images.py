"""A small image out of a large one's files, as a directory, and as a registry on the loopback interface serves it."""

import gzip
import hashlib
import io
import json
import shutil
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import attrs

PROGRAMS = ("dash", "true", "cat", "sleep")
LIBRARIES = ("lib64/ld-linux-x86-64.so.2", "lib/x86_64-linux-gnu/libc.so.6")
_TYPE = "application/vnd.oci.image."


def small_directory(image: Path, target: Path) -> Path:
    """`sh`, `true`, `cat` and `sleep` of a Debian directory image, and what they need: 3 MB."""
    for name in ("bin", "lib", "lib64"):
        (target / "usr" / name).mkdir(parents=True)
        (target / name).symlink_to(f"usr/{name}")
    for name in ("dev", "etc", "proc", "sys", "tmp", "var/tmp"):
        (target / name).mkdir(parents=True)
    (target / "usr/lib/x86_64-linux-gnu").mkdir()
    for path in (*(f"bin/{name}" for name in PROGRAMS), *LIBRARIES):
        shutil.copy(image / "usr" / path, target / "usr" / path)
    (target / "usr/bin/sh").symlink_to("dash")
    return target


@attrs.define
class Registry:
    """One image, `NAME:1` whatever the name but `no-such`; counts what is asked for, and can keep the layer back."""

    port: int
    manifest: bytes
    blobs: dict[str, bytes]
    pulls: int = 0
    asked_for_layer: threading.Event = attrs.field(factory=threading.Event)
    may_give_layer: threading.Event = attrs.field(factory=threading.Event)

    @property
    def image(self) -> str:
        return f"docker://127.0.0.1:{self.port}/task:1"

    @property
    def digest(self) -> str:
        """What the name stands for."""
        return _digest(self.manifest)

    def answer(self, path: str) -> tuple[bytes, str] | None:
        """A body and its type."""
        if path == "/v2/":
            return b"{}", "application/json"
        _, _, name, kind, reference = path.split("/")
        if kind == "manifests" and name != "no-such":
            self.pulls += 1
            return self.manifest, f"{_TYPE}manifest.v1+json"
        body = self.blobs.get(reference)
        if body is not None and not body.startswith(b"{"):
            self.asked_for_layer.set()
            self.may_give_layer.wait(60)
        return None if body is None else (body, "application/octet-stream")


@contextmanager
def open_registry(directory: Path, home: Path) -> Iterator[Registry]:
    """Serve `directory` as an image, and tell the container tools of that HOME that it is done by plain HTTP."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body, kind = registry.answer(self.path) or (b"", "")
            self.send_response(200 if kind else 404)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815  the base class's way

        def log_request(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        registry = Registry(server.server_port, *_image_of(directory))
        registry.may_give_layer.set()
        config = home / ".config" / "containers"
        config.mkdir(parents=True)
        (config / "registries.conf").write_text(
            f'[[registry]]\nlocation = "127.0.0.1:{registry.port}"\ninsecure = true\n'
        )
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield registry
        finally:
            registry.may_give_layer.set()
            server.shutdown()
            thread.join()


def _image_of(directory: Path) -> tuple[bytes, dict[str, bytes]]:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.add(directory, arcname=".")
    layer = gzip.compress(stream.getvalue(), 1)
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["sh"], "Env": ["PATH=/usr/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [_digest(stream.getvalue())]},
        }
    ).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_TYPE}manifest.v1+json",
        "config": _descriptor("config.v1+json", config),
        "layers": [_descriptor("layer.v1.tar+gzip", layer)],
    }
    return json.dumps(manifest).encode(), {_digest(blob): blob for blob in (config, layer)}


def _descriptor(kind: str, blob: bytes) -> dict[str, str | int]:
    return {"mediaType": _TYPE + kind, "digest": _digest(blob), "size": len(blob)}


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"
