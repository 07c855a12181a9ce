"""How one value is encrypted: a prefix that names the provider and the key, then the ciphertext. The same forms as
kube-apiserver's, so that either can read what the other has written."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.padding import PKCS7

Noise = Callable[[int], bytes]
"""So many random bytes."""
SYSTEM_NOISE: Noise = secrets.token_bytes
"""The only one for keys in use: a nonce that comes twice, or an IV that can be foretold, gives values away."""
AES_SIZES, SECRETBOX_SIZES = (16, 24, 32), (32,)
BLOCK = 16


class DecryptError(Exception):
    """The value is not what this key has encrypted for this place."""


class Provider(Protocol):
    """``prefix``: what its values begin with. ``context``: where a value lies, which some providers bind it to."""

    prefix: bytes

    def encrypt(self, value: bytes, context: bytes) -> bytes: ...

    def decrypt(self, value: bytes, context: bytes) -> bytes:
        """Raises DecryptError. The prefix is there."""
        ...


class Identity:
    """Leaves values as they are."""

    prefix = b""

    def encrypt(self, value: bytes, context: bytes) -> bytes:
        return value

    def decrypt(self, value: bytes, context: bytes) -> bytes:
        return value


class AesGcm:
    """AES-GCM with a random nonce of 12 bytes; a value is good only under its own key of the store."""

    def __init__(self, name: str, key: bytes, noise: Noise) -> None:
        self.prefix = b"k8s:enc:aesgcm:v1:" + name.encode() + b":"
        self._cipher, self._noise = AESGCM(key), noise

    def encrypt(self, value: bytes, context: bytes) -> bytes:
        nonce = self._noise(12)
        return self.prefix + nonce + self._cipher.encrypt(nonce, value, context)

    def decrypt(self, value: bytes, context: bytes) -> bytes:
        at = len(self.prefix)
        try:
            return self._cipher.decrypt(value[at : at + 12], value[at + 12 :], context)
        except (InvalidTag, ValueError):
            raise DecryptError("cipher: message authentication failed") from None


class AesCbc:
    """AES-CBC with PKCS#7 padding. It does not notice who changes a value: AES-GCM is better."""

    def __init__(self, name: str, key: bytes, noise: Noise) -> None:
        self.prefix = b"k8s:enc:aescbc:v1:" + name.encode() + b":"
        self._cipher, self._noise = algorithms.AES(key), noise

    def encrypt(self, value: bytes, context: bytes) -> bytes:
        start, padder = self._noise(BLOCK), PKCS7(BLOCK * 8).padder()
        encryptor = Cipher(self._cipher, modes.CBC(start)).encryptor()
        padded = padder.update(value) + padder.finalize()
        return self.prefix + start + encryptor.update(padded) + encryptor.finalize()

    def decrypt(self, value: bytes, context: bytes) -> bytes:
        at, unpadder = len(self.prefix), PKCS7(BLOCK * 8).unpadder()
        try:
            decryptor = Cipher(self._cipher, modes.CBC(value[at : at + BLOCK])).decryptor()
            padded = decryptor.update(value[at + BLOCK :]) + decryptor.finalize()
            return unpadder.update(padded) + unpadder.finalize()
        except ValueError as error:
            raise DecryptError(str(error)) from None


class SecretBox:
    """XSalsa20 and Poly1305 (NaCl's secretbox) with a random nonce of 24 bytes."""

    def __init__(self, name: str, key: bytes, noise: Noise) -> None:
        from nacl.secret import SecretBox as Box

        self.prefix = b"k8s:enc:secretbox:v1:" + name.encode() + b":"
        self._box, self._noise = Box(key), noise

    def encrypt(self, value: bytes, context: bytes) -> bytes:
        return self.prefix + self._box.encrypt(value, self._noise(24))

    def decrypt(self, value: bytes, context: bytes) -> bytes:
        from nacl.exceptions import CryptoError

        try:
            return self._box.decrypt(value[len(self.prefix) :])
        except (CryptoError, ValueError):
            raise DecryptError("output array was not large enough for encryption or authentication failed") from None
