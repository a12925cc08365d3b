"""A proxy in front of an S3 server that answers badly when told to: what the internet does to a long run."""

import http.client
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

ERROR = "<?xml version='1.0'?><Error><Code>{code}</Code><Message>{text}</Message></Error>"


@dataclass
class Fault:
    """What to do to the next `count` requests that `matches` (method, path with query) picks.

    kind: slow_down (503), internal (500), reset (nothing is done, the connection is reset), cut (half the body comes),
    lost (it is done, and the connection is reset instead of an answer).
    """

    kind: str
    count: int
    matches: Callable[[str, str], bool] = lambda method, path: True
    met: int = 0


class FaultyServer:
    """A proxy on a port of its own."""

    def __init__(self, backend: str) -> None:
        self.backend, self.faults, self.lock = urlsplit(backend).netloc, [], threading.Lock()
        self.page_size, self.listings = None, []
        owner = self

        class Handler(_Handler):
            proxy = owner

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def inject(self, kind: str, count: int, matches=lambda method, path: True) -> Fault:
        """From now on, do this to so many matching requests."""
        self.faults.append(Fault(kind, count, matches))
        return self.faults[-1]

    @contextmanager
    def listing(self, size: int) -> Iterator[list[str]]:
        """Give listings in pages of `size` keys, as S3 does with 1,000; yield the list of those asked for."""
        self.page_size, self.listings = size, []
        yield self.listings
        self.page_size = None

    def paged(self, path: str) -> str:
        if self.page_size is None or "list-type=2" not in path:
            return path
        self.listings.append(path)
        return f"{path}&max-keys={self.page_size}"

    def fault_for(self, method: str, path: str) -> str | None:
        with self.lock:
            for fault in self.faults:
                if fault.met < fault.count and fault.matches(method, path):
                    fault.met += 1
                    return fault.kind
        return None

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: FaultyServer

    def log_message(self, *args) -> None:
        pass

    def do(self) -> None:
        body = self._body()
        kind = self.proxy.fault_for(self.command, self.path)
        if kind in ("slow_down", "internal"):
            code, name = (503, "SlowDown") if kind == "slow_down" else (500, "InternalError")
            self._answer(code, ERROR.format(code=name, text="as told").encode(), {})
        elif kind == "reset":
            self._reset()
        else:
            status, headers, data = self._forward(body)
            if kind == "lost":
                self._reset()
            else:
                self._answer(status, data, headers, cut=kind == "cut")

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            data = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return data
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _forward(self, body: bytes):
        backend = http.client.HTTPConnection(self.proxy.backend, timeout=60)
        headers = {
            k: v for k, v in self.headers.items() if k.lower() not in ("connection", "transfer-encoding")
        }
        headers["Content-Length"] = str(len(body))
        backend.request(self.command, self.proxy.paged(self.path), body, headers)
        answer = backend.getresponse()
        data = answer.read()
        backend.close()
        return answer.status, dict(answer.getheaders()), data

    def _answer(self, status: int, data: bytes, headers: dict, cut: bool = False) -> None:
        self.send_response_only(status)
        dropped = ("connection", "transfer-encoding", "content-length")
        for name, value in headers.items():
            if name.lower() not in dropped:
                self.send_header(name, value)
        length = next((v for k, v in headers.items() if k.lower() == "content-length"), len(data))
        self.send_header("Content-Length", str(length if self.command == "HEAD" else len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            self._reset()

    def _reset(self) -> None:
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()
