"""Plain web servers on loopback: one of a folder, one that passes requests on, one that never answers."""

from __future__ import annotations

import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

CONDITIONS = {"if-match", "if-none-match"}


class _Server(ThreadingHTTPServer):
    request_queue_size = (
        128  # of 5, the usual, a burst of requests loses some, which are sent again after a second
    )


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


class _Stripping(BaseHTTPRequestHandler):
    """Passes requests on, but for their conditions."""

    target = ""

    def _pass_on(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        kept = {k: v for k, v in self.headers.items() if k.lower() not in {*CONDITIONS, "host", "connection"}}
        request = urllib.request.Request(
            self.target + self.path, self.rfile.read(size) if size else None, kept, method=self.command
        )
        try:
            answer = urllib.request.urlopen(request, timeout=30)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            content = answer.read()
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            length = answer.headers.get("Content-Length") if self.command == "HEAD" else len(content)
            self.send_header("Content-Length", str(length or 0))
            self.end_headers()
            self.wfile.write(content)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _pass_on

    def log_message(self, *_: object) -> None:
        pass


class _Amazon(BaseHTTPRequestHandler):
    """An empty bucket, in words of Amazon's that SeaweedFS does not use."""

    def _nothing(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        code = "NoSuchKey" if self.headers.get("If-Match") or self.command == "GET" else "NoSuchBucket"
        content = b"" if self.command == "HEAD" else f"<Error><Code>{code}</Code></Error>".encode()
        self.send_response(404)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_HEAD = _nothing

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def amazon() -> Iterator[str]:
    """Answers 404 to everything: to a write that is to replace an object, for there is none."""
    with _serving(_Amazon) as url:
        yield url


@contextmanager
def web_server(folder: Path) -> Iterator[str]:
    """Python's own, of the files in a folder: no listing for machines, no ranges."""
    with _serving(partial(_Quiet, directory=str(folder))) as url:
        yield url


@contextmanager
def stripping_proxy(target: str) -> Iterator[str]:
    """In front of an S3 server: it makes every conditional request an unconditional one."""
    with _serving(type("Stripping", (_Stripping,), {"target": target})) as url:
        yield url


@contextmanager
def silence() -> Iterator[str]:
    """The URL of a server that takes connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def _serving(handler: type[BaseHTTPRequestHandler] | partial[BaseHTTPRequestHandler]) -> Iterator[str]:
    with _Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
