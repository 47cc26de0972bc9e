"""An S3-compatible server for tests: moto in a process of its own, on loopback.

In this process it would hang: delta-rs keeps the interpreter's lock while it waits for an answer.
"""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.flows.world import free_ports
from tests.waiting import wait


@contextmanager
def s3_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Its address, with a bucket `feedback`; the environment holds its keys."""
    import boto3

    (port,) = free_ports(1)
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            wait("the S3 server", lambda: _answers(address))
            keys = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_DEFAULT_REGION": "us-east-1"}
            for name, value in keys.items():
                monkeypatch.setenv(name, value)
            boto3.client("s3", endpoint_url=address).create_bucket(Bucket="feedback")
            yield address
        finally:
            server.terminate()


def objects(address: str) -> dict[str, str]:
    """Tag of the content by name of every object there is."""
    import boto3

    listed = boto3.client("s3", endpoint_url=address).list_objects_v2(Bucket="feedback")
    return {found["Key"]: found["ETag"] for found in listed.get("Contents", [])}


def _answers(address: str) -> bool:
    with suppress(OSError):
        urllib.request.urlopen(f"{address}/moto-api/", timeout=5).close()
        return True
    return False
