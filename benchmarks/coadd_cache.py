"""How much of a server's bandwidth stage 4b's copies reach, beside plain clients: same files, same run, interleaved.

    python benchmarks/coadd_cache.py [--rounds 3] [--bricks 6] [--connections 8]

Writes ``results/coadd_cache.json``. The server is another process on this machine's loopback and hands out files with
sendfile; the files have the sizes of DR10's (about 79 MB a brick). 100 % is a plain client that reads the same files
over as many connections and throws the bytes away: the server's own bandwidth. Beside it, the same client writing the
bytes to the same disk, which is what any cache must do at the least; and ours, which checks size and FITS structure
and places each file in one step, without and with the survey's sha256 (a second pass over each file).

Measured twice: with a server as fast as the loopback, where the processor is what all of them wait for, and with one
that sends no more than a link of 1 Gbit/s carries, where a client that is good enough loses nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import multiprocessing
import os
import shutil
import socketserver
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
from record import summary, write_result

from darkhaloscope.sections import Fetch
from darkhaloscope.survey.bricks import names_at
from darkhaloscope.survey.checksums import checksums_path
from darkhaloscope.survey.coadds import brick_files, file_path
from darkhaloscope.survey.fetch import fetch_brick
from darkhaloscope.survey.transfer import Client

MEGABYTES = {"image": 14.7, "invvar": 10.5, "maskbits": 1.0, "psfsize": 0.8}
RELEASE = "dr10/south"
PIECE = 1 << 18
GIGABIT = 125.0  # MB/s


def write_files(base: Path, bricks: list[str]) -> list[str]:
    """Write FITS files of the survey's sizes below base/dr10/south; return their paths, and write the checksums."""
    noise, paths = np.random.default_rng(1).bytes(16 << 20), []
    for brick in bricks:
        sums = []
        for kind, band, _ in brick_files("grz"):
            size = int(MEGABYTES[kind] * 1e6)
            cards = ("SIMPLE  =                    T", "BITPIX  =                    8",
                     "NAXIS   =                    1", f"NAXIS1  = {size:20d}", "END")  # fmt: skip
            content = "".join(f"{card:80s}" for card in cards).ljust(2880).encode() + noise[:size]
            path = base / RELEASE / file_path(brick, kind, band)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            sums.append(f"{hashlib.sha256(content).hexdigest()}  {path.name}\n")
            paths.append(f"/{path.relative_to(base)}")
        (base / RELEASE / str(checksums_path("/" + RELEASE, brick))).write_text("".join(sums))
    return paths


class Link:
    """What all connections of a server share: so many bytes a second, or as many as they can."""

    def __init__(self, bytes_per_s: float | None) -> None:
        self.bytes_per_s, self._free, self._lock = bytes_per_s, 0.0, threading.Lock()

    def take(self, n: int) -> None:
        """Wait until `n` more bytes may be sent."""
        if self.bytes_per_s is None:
            return
        with self._lock:
            start = max(self._free, time.monotonic())
            self._free = start + n / self.bytes_per_s
        time.sleep(max(0.0, start - time.monotonic()))


def serve(base: Path, megabytes_per_s: float | None, port: multiprocessing.Queue) -> None:
    """Hand out files for ever, over connections that are kept."""
    link = Link(megabytes_per_s and megabytes_per_s * 1e6)

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while line := self.rfile.readline():
                while self.rfile.readline().strip():
                    pass
                path = base / line.split()[1].decode().lstrip("/")
                if not path.is_file():
                    self.request.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                    continue
                size = path.stat().st_size
                self.request.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
                with path.open("rb") as stream:
                    for start in range(0, size, PIECE):
                        count = min(PIECE, size - start)
                        link.take(count)
                        self.request.sendfile(stream, start, count)

    socketserver.ThreadingTCPServer.daemon_threads = True
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        port.put(server.server_address[1])
        server.serve_forever()


def plain(port: int, paths: list[str], connections: int, target: Path | None) -> None:
    """Read the files over some connections; write them where a folder is given, else throw them away."""

    def some(mine: list[str]) -> None:
        connection, buffer = http.client.HTTPConnection("127.0.0.1", port), memoryview(bytearray(1 << 20))
        for path in mine:
            connection.request("GET", path)
            answer = connection.getresponse()
            with (target / path.replace("/", "_") if target else Path(os.devnull)).open("wb") as stream:
                while n := answer.readinto(buffer):
                    if target:
                        stream.write(buffer[:n])
        connection.close()

    with ThreadPoolExecutor(connections) as pool:
        list(pool.map(some, (paths[i::connections] for i in range(connections))))


def ours(url: str, bricks: list[str], connections: int, target: Path) -> None:
    """Fetch the bricks as a task of stage 4b does."""
    client = Client(Fetch(connections=connections))
    with ThreadPoolExecutor(connections) as pool:
        rows = list(pool.map(lambda brick: fetch_brick(url, str(target), brick, client=client), bricks))
    assert all(row["status"] == "cached" for row in rows), rows


def measure(codes: dict[str, Callable[[Path], None]], folder: Path, megabytes: float, rounds: int) -> dict:
    """Rate of each code in interleaved rounds, its share of the first two, and its processor time."""
    rates: dict[str, list[float]] = {name: [] for name in codes}
    work: dict[str, list[float]] = {name: [] for name in codes}
    for _ in range(rounds):
        for name, code in codes.items():
            target = folder / "copy"
            target.mkdir()
            started, worked = time.perf_counter(), time.process_time()
            code(target)
            rates[name].append(megabytes / (time.perf_counter() - started))
            work[name].append(1000 * (time.process_time() - worked) / megabytes)
            shutil.rmtree(target)
    reference, writing = (np.array(rates[name]) for name in list(rates)[:2])
    return {
        name: {
            "megabytes_per_second": summary(values),
            "share_of_reading": summary(np.array(values) / reference),
            "share_of_writing": summary(np.array(values) / writing),
            "client_cpu_seconds_per_gigabyte": summary(work[name]),
        }
        for name, values in rates.items()
    }


def run(folder: Path, megabytes_per_s: float | None, options: argparse.Namespace) -> dict[str, dict]:
    """Measure all codes against a server of some bandwidth."""
    bricks = names_at(10.0 + np.arange(options.bricks), np.zeros(options.bricks)).tolist()
    context, n = multiprocessing.get_context("spawn"), options.connections
    paths, queue = write_files(folder / "served", bricks), context.Queue()
    megabytes = sum((folder / "served" / p.lstrip("/")).stat().st_size for p in paths) / 1e6
    server = context.Process(target=serve, args=(folder / "served", megabytes_per_s, queue), daemon=True)
    server.start()
    port = queue.get()
    base = f"http://127.0.0.1:{port}"
    (folder / "served" / "plain").symlink_to(folder / "served" / RELEASE)
    codes = {
        "plain, thrown away": lambda target: plain(port, paths, n, None),
        "plain, written": lambda target: plain(port, paths, n, target),
        "ours, by structure": lambda target: ours(f"{base}/plain", bricks, n, target),
        "ours, by checksum": lambda target: ours(f"{base}/{RELEASE}", bricks, n, target),
    }
    try:
        return measure(codes, folder, megabytes, options.rounds)
    finally:
        server.terminate()
        server.join()


def tell(title: str, figures: dict[str, dict]) -> None:
    """Print a server's figures."""
    print(title)
    for code, one in figures.items():
        rate, read, write, cpu = (
            one[k]["median"]
            for k in (
                "megabytes_per_second",
                "share_of_reading",
                "share_of_writing",
                "client_cpu_seconds_per_gigabyte",
            )
        )
        shares = f"{100 * read:4.0f} % of reading, {100 * write:4.0f} % of writing"
        print(f"  {code:20s} {rate:8,.0f} MB/s, {shares}, {cpu:.2f} CPU s/GB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="interleaved timing rounds")
    parser.add_argument("--bricks", type=int, default=6, help="bricks of 79 MB")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--folder", help="where to write (default: the system's temporary folder)")
    options = parser.parse_args()
    figures = {}
    for title, limit in (("loopback", None), ("a link of 1 Gbit/s", GIGABIT)):
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            figures[title] = run(Path(name), limit, options)
        tell(title, figures[title])
    settings = {"settings": vars(options)}
    print(f"wrote {write_result('coadd_cache', settings | figures, packages=['urllib3'])}")


if __name__ == "__main__":
    main()
