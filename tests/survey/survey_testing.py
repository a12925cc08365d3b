"""Small bricks and catalogues in the survey's layout, and a web server that can misbehave."""

import hashlib
import http.server
import re
import socket
import struct
import threading
import time
from pathlib import Path

import fitsio
import numpy as np

from darkhaloscope.survey import bricks, photometry
from darkhaloscope.survey.bricks import brick_centre, parse_names
from darkhaloscope.survey.coadds import file_path

BRICK = "0591m305"
SIDE = 300
SCALE = 0.262 / 3600


def brick_header(brickname=BRICK, side=SIDE):
    row, column = parse_names([brickname])
    ra, dec = (float(v[0]) for v in brick_centre(row, column))
    crpix = (side + 1) / 2
    return {
        "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": ra, "CRVAL2": dec, "CRPIX1": crpix,
        "CRPIX2": crpix, "CD1_1": -SCALE, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": SCALE, "BRICK": brickname,
    }  # fmt: skip


def write_plane(base, kind, band, data, brickname=BRICK, compress="RICE", tile=(100, 100), **header):
    """Write one coadd file as the survey does (or, with compress=None, uncompressed in HDU 0)."""
    path = Path(base) / file_path(brickname, kind, band)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    full = {**brick_header(brickname, data.shape[0]), **header}
    options = {} if compress is None else {"compress": compress, "tile_dims": list(tile)}
    if compress and data.dtype.kind == "f":
        options |= {"qmethod": "SUBTRACTIVE_DITHER_2"} if compress == "RICE" else {"qlevel": 0.0}
    fitsio.write(str(path), data, header=full, **options)
    return path


def write_brick(base, brickname=BRICK, bands="grz", maskbits=True, psfsize=True, side=SIDE, seed=1):
    """Write a brick of noise; returns nothing: tests read the files back with astropy as the oracle."""
    rng = np.random.default_rng(seed)
    for i, band in enumerate(bands):
        sigma = 0.002 * (1 + i)
        image = rng.normal(0, sigma, (side, side)).astype(np.float32)
        invvar = np.full((side, side), sigma**-2, np.float32)
        invvar[: side // 10] = 0
        write_plane(base, "image", band, image, brickname)
        write_plane(base, "invvar", band, invvar, brickname)
        if psfsize:
            write_plane(base, "psfsize", band, np.full((side, side), 1.1 + 0.1 * i, np.float32), brickname)
    if maskbits:
        bits = (rng.random((side, side)) < 0.1).astype(np.int32) << 11
        write_plane(base, "maskbits", "", bits, brickname)


SWEEP_TYPES = [
    ("RELEASE", "i2"), ("BRICKID", "i4"), ("BRICKNAME", "S8"), ("OBJID", "i4"), ("TYPE", "S3"), ("RA", "f8"),
    ("DEC", "f8"), ("EBV", "f4"), ("FLUX_G", "f4"), ("FLUX_R", "f4"), ("FLUX_Z", "f4"), ("FLUX_W1", "f4"),
    ("NOBS_G", "i2"), ("NOBS_R", "i2"), ("NOBS_Z", "i2"), ("PSFSIZE_G", "f4"), ("PSFSIZE_R", "f4"),
    ("PSFSIZE_Z", "f4"), ("PSFDEPTH_G", "f4"), ("PSFDEPTH_R", "f4"), ("PSFDEPTH_Z", "f4"),
    ("SHAPE_R", "f4"), ("SHAPE_E1", "f4"), ("SHAPE_E2", "f4"), ("FLUX_IVAR_G", "f4"), ("FLUX_IVAR_R", "f4"),
    ("FLUX_IVAR_Z", "f4"), ("FLUX_IVAR_W1", "f4"),
]  # fmt: skip


def galaxies(n=1, mag_z=20.0, rz=0.45, zw1=1.0, ra=None, dec=None, **changes):
    """Rows of a sweep, each a galaxy that passes v3; `changes` set whole columns."""
    rows = np.zeros(n, dtype=SWEEP_TYPES)
    ra = 150.1 + 0.001 * np.arange(n) if ra is None else np.atleast_1d(ra)
    dec = np.full(n, 2.1) if dec is None else np.atleast_1d(dec)
    row, column = bricks.brick_at(ra, dec)
    values = {
        "RELEASE": 10000, "BRICKID": bricks.brick_id(row, column),
        "BRICKNAME": bricks.names_at(ra, dec).astype("S8"),
        "OBJID": np.arange(n), "TYPE": b"SER", "RA": ra, "DEC": dec, "EBV": 0.05, "SHAPE_R": 0.8,
        "FLUX_G": photometry.flux(mag_z + rz + 1.2), "FLUX_R": photometry.flux(mag_z + rz),
        "FLUX_Z": photometry.flux(mag_z), "FLUX_W1": photometry.flux(mag_z - zw1),
        **{f"FLUX_IVAR_{b}": 400.0 for b in ("G", "R", "Z", "W1")},
        **{f"NOBS_{b}": 3 for b in "GRZ"}, **{f"PSFSIZE_{b}": 1.2 for b in "GRZ"},
        **{f"PSFDEPTH_{b}": (5 / photometry.flux(24.5)) ** 2 for b in "GRZ"}, **changes,
    }  # fmt: skip
    for key, value in values.items():
        rows[key] = value
    return rows


class Server:
    """A web server on a folder, with ETag and Range; `faults` maps the end of a path to answers, used up in order.

    Answers: a status number; (status, headers); "cut" (half the body, connection closed), "reset" (half of it, then
    RST), "stall" (half of it, then silence); "short" (half of it, honest length); "html" (an error page with status
    200); "other" (the file has changed); "lie" (it has, and a Range is answered as if it had not); "endless" (no
    length, and more than any limit). `requests` are the paths asked for, `ranges` their Range headers, `sent` the
    bytes of all bodies, `connections` those made.
    """

    def __init__(self, folder):
        self.faults, self.requests, self.ranges, self.sent = {}, [], [], 0
        self.connections, self.stopping = 0, threading.Event()
        self.folder, self.lock = folder, threading.Lock()
        handler = type("Handler", (_Handler,), {"owner": self})
        self.httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.httpd.handle_error = lambda *args: None
        self.url = f"http://127.0.0.1:{self.httpd.server_port}"
        threading.Thread(target=self.httpd.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self):
        self.stopping.set()
        self.httpd.shutdown()
        self.httpd.server_close()


class _Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: Server

    def __init__(self, *args, **kwargs):
        super().__init__(*args, directory=str(self.owner.folder), **kwargs)

    def setup(self):
        with self.owner.lock:
            self.owner.connections += 1
        super().setup()

    def log_message(self, *args):
        pass

    def do_GET(self):
        with self.owner.lock:
            self.owner.requests.append(self.path)
            self.owner.ranges.append(self.headers.get("Range"))
            answers = next((a for end, a in self.owner.faults.items() if self.path.endswith(end)), [])
            answer = answers.pop(0) if answers else None
        try:
            self.answer(answer)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def answer(self, answer):
        if isinstance(answer, int | tuple):
            status, headers = (answer, {}) if isinstance(answer, int) else answer
            return self.reply(status, b"out of order", headers)
        if answer == "html":
            return self.reply(200, b"<html>out of order</html>")
        file = Path(self.translate_path(self.path))
        if file.is_dir():
            return self.copyfile(self.list_directory(str(file)), self.wfile)
        if not file.is_file():
            return self.reply(404, b"nothing here")
        body = file.read_bytes()
        if answer == "endless":
            return self.reply(200, body * 100, length=False)
        if answer == "short":
            return self.reply(200, body[: len(body) // 2])
        tag = f'"{hashlib.sha1(body).hexdigest()}"'
        if answer in ("other", "lie"):
            body = body[::-1] + b"more"
            tag = '"other"' if answer == "other" else tag
        start = self.range_start(tag, answer)
        headers = {"ETag": tag}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        self.reply(206 if start else 200, body[start:], headers, fault=answer)

    def range_start(self, tag, answer):
        same = answer == "lie" or self.headers.get("If-Range") in (None, tag)
        wanted = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        return int(wanted[1]) if same and wanted else 0

    def reply(self, status, body, headers=None, length=True, fault=None):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if length:
            self.send_header("Content-Length", str(len(body)))
        else:
            self.send_header("Connection", "close")
        self.end_headers()
        broken = fault in ("cut", "reset", "stall")
        self.wfile.write(body[: len(body) // 2] if broken else body)
        self.owner.sent += len(body) // 2 if broken else len(body)
        if fault == "stall":
            self.owner.stopping.wait(10)
        if fault == "reset":
            self.wfile.flush()
            time.sleep(0.05)  # or the client may not read what came before the reset
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        self.close_connection = self.close_connection or broken or not length
