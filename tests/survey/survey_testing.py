"""Small bricks and catalogues in the survey's layout, and a web server that can misbehave."""

import http.server
import threading
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
    """A web server on a folder; `faults` maps the end of a path to a list of answers, used up in order.

    Answers: a status number; "cut" (half the body, connection closed); "short" (half of it, honest length);
    "html" (an error page with status 200).
    """

    def __init__(self, folder):
        self.faults, self.requests = {}, []
        server = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *args, **kwargs):
                super().__init__(*args, directory=str(folder), **kwargs)

            def log_message(self, *args):
                pass

            def do_GET(self):
                server.requests.append(self.path)
                answers = next((a for end, a in server.faults.items() if self.path.endswith(end)), [])
                answer = answers.pop(0) if answers else None
                if answer is None:
                    return super().do_GET()
                if isinstance(answer, int):
                    return self.send_error(answer)
                body = Path(self.translate_path(self.path)).read_bytes()
                sent = b"<html>out of order</html>" if answer == "html" else body[: len(body) // 2]
                self.send_response(200)
                self.send_header("Content-Length", str(len(body) if answer == "cut" else len(sent)))
                self.end_headers()
                self.wfile.write(sent)

        self.httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.httpd.server_port}"
        threading.Thread(target=self.httpd.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self):
        self.httpd.shutdown()
        self.httpd.server_close()
