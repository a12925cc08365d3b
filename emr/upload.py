"""Packages and configs on S3, under names that hold their checksum: what is there is not sent again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from darkhaloscope.provenance import sha256_of
from darkhaloscope.storage import filesystem, join
from emr.aws import SubmitError, call
from emr.requests import Uploaded

REPOSITORY = Path(__file__).resolve().parents[1]
MANIFEST = "manifest.json"  # of bootstrap/package.py
PREPARE_NODE = "bootstrap/prepare_node.sh"


@dataclass(frozen=True)
class Upload:
    """A local file and where it goes."""

    path: Path
    url: str
    sha256: str


@dataclass(frozen=True)
class Package:
    """What bootstrap/package.py built: its folder and manifest."""

    folder: Path
    manifest: dict[str, Any]


def read_package(folder: Path, release: str) -> Package:
    """Read a package's manifest and check that it is that of this code and release.

    Raises:
        SubmitError: none was built, for another release or machine, or from scripts that have changed since.
    """
    path = folder / MANIFEST
    if not path.exists():
        raise SubmitError(f"{path}: no package there; build it first: make emr-package")
    manifest = json.loads(path.read_text())
    if manifest["release"] != release:
        raise SubmitError(
            f"{path}: built for {manifest['release']}, the cluster runs {release}; build it for that one"
        )
    if manifest["machine"] != "x86_64":
        raise SubmitError(
            f"{path}: built on {manifest['machine']}; the nodes are x86_64; build it on such a machine"
        )
    changed = [s for s, sha in manifest["scripts"].items() if sha256_of(REPOSITORY / s) != sha]
    if changed:
        raise SubmitError(f"{path}: older than {changed}: build it anew (make emr-package)")
    return Package(folder, manifest)


def plan_uploads(
    package: Package, script: str, files: Sequence[Path], code: str
) -> tuple[list[Upload], Uploaded, dict[Path, str]]:
    """Return the files to upload, the URLs that requests name, and those of the files that arguments name.

    Args:
        package: what was built.
        script: path of the stage's script in the repository.
        files: of this machine, that the stage's arguments name.
        code: URL of the folder for code and configs.
    """
    manifest = package.manifest
    archive = _upload(package.folder / manifest["archive"], code, manifest["archive_sha256"])
    entry, prepare = (_upload(REPOSITORY / s, code, manifest["scripts"][s]) for s in (script, PREPARE_NODE))
    given = [_upload(file, code, sha256_of(file)) for file in files]
    uploads = [archive, entry, prepare, *given]
    return uploads, Uploaded(archive.url, entry.url, prepare.url), {u.path: u.url for u in given}


def send(s3: Any, uploads: list[Upload], kms_key: str = "") -> list[Upload]:
    """Upload what is not there yet; return those that were sent.

    Raises:
        SubmitError: a bucket that is missing or refuses, or a file that is not the one the manifest names.
    """
    return [upload for upload in uploads if call(f"upload of {upload.path.name} to {upload.url}",
                                                 partial(_send_one, s3, upload, kms_key))]  # fmt: skip


def _send_one(s3: Any, upload: Upload, kms_key: str) -> bool:
    """Upload a file unless it is there; return whether it was sent."""
    bucket, _, key = filesystem(upload.url)[1].partition("/")
    if _is_there(s3, bucket, key, upload.sha256):
        return False
    if sha256_of(upload.path) != upload.sha256:
        raise SubmitError(f"{upload.path}: not the file whose checksum the manifest has; build it anew")
    encryption = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key} if kms_key else {}
    extra = {"Metadata": {"sha256": upload.sha256}, **encryption}
    s3.upload_file(str(upload.path), bucket, key, ExtraArgs=extra)
    return True


def check_bucket(s3: Any, url: str, region: str) -> str:
    """Check that a URL's bucket can be reached; return a warning where it is in another region, else "".

    Raises:
        SubmitError: it does not exist, or may not be read.
    """
    bucket = filesystem(url)[1].partition("/")[0]
    head = call(f"bucket {bucket} of {url}", lambda: s3.head_bucket(Bucket=bucket))
    found = head.get("BucketRegion", region)
    if found == region:
        return ""
    return f"bucket {bucket} is in {found}, the cluster in {region}: transfers cost money"


def _is_there(s3: Any, bucket: str, key: str, sha256: str) -> bool:
    try:
        head = s3.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["Error"]["Code"] in {"404", "NoSuchKey", "NotFound"}:
            return False
        raise
    return head.get("Metadata", {}).get("sha256") == sha256


def _upload(path: Path, code: str, sha: str) -> Upload:
    return Upload(path, join(code, sha[:16], path.name), sha)
