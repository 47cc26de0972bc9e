"""Sign webhook requests, and verify them.

A request carries `X-Ratchet-Delivery` (the alert's id: the receiver drops what it has seen), `X-Ratchet-Timestamp`
(seconds) and `X-Ratchet-Signature: v1,<base64 of HMAC-SHA256 of "id.timestamp.body">`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Mapping


def sign(secret: str, delivery: str, timestamp: str, body: bytes) -> str:
    """Compute X-Ratchet-Signature (the scheme of Standard Webhooks: HMAC-SHA256 of "id.timestamp.body")."""
    message = f"{delivery}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(secret.encode(), message, hashlib.sha256).digest()).decode()


def signature_holds(secret: str, headers: Mapping[str, str], body: bytes, *, tolerance_seconds: float = 300) -> bool:
    """Verify a request, for receivers: whether it comes from who holds the secret, and is not an old one played again.

    `headers` must have lower-case names. Whatever they hold, the answer is yes or no: it is asked before anything is
    known of the sender.
    """
    delivery, timestamp = headers.get("x-ratchet-delivery", ""), headers.get("x-ratchet-timestamp", "")
    try:
        expected = sign(secret, delivery, timestamp, body).encode()
        given = headers.get("x-ratchet-signature", "").encode()
    except UnicodeEncodeError:  # a lone surrogate: nothing of ours
        return False
    if not hmac.compare_digest(expected, given):
        return False
    # Signed by who holds the secret, so it is ours, or that of somebody who may do the same.
    plain = timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= _STAMP_DIGITS
    return plain and abs(time.time() - int(timestamp)) <= tolerance_seconds


_STAMP_DIGITS = 12
"""Seconds since 1970 fit in for thirty thousand years."""
