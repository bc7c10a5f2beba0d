"""API tokens: shown once, kept as a hash, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import secrets

_BYTES = 32


def make_token() -> str:
    """Return a new token: 256 random bits, which no hash needs to be slow for."""
    return secrets.token_urlsafe(_BYTES)


def hash_token(token: str) -> str:
    """Return what is kept of a token.

    Examples
    --------
    >>> hash_token("secret")[:8]
    '2bb80d53'
    """
    return hashlib.sha256(token.encode()).hexdigest()


def is_token(given: str, token_hash: str) -> bool:
    """Return whether a token is the one of that hash.

    Examples
    --------
    >>> is_token("secret", hash_token("secret")), is_token("guess", hash_token("secret"))
    (True, False)
    """
    return hmac.compare_digest(hash_token(given), token_hash)
