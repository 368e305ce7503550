"""Passwords and keys by reference: read when a connection is made, and kept nowhere."""

from __future__ import annotations

import asyncio
import os
import ssl
from pathlib import Path

from outbox.definitions.relays import Relay, Secret, Source
from outbox.errors import InvalidDeclaration

#: Seconds that a command may take to print a secret.
_LIMIT = 10.0


async def reveal(secret: Secret) -> str:
    """Return what a reference means now.

    Raises InvalidDeclaration, which says what is missing, and never shows what a command or file held.
    """
    if secret.env is not None:
        if secret.env not in os.environ:
            raise InvalidDeclaration(f"there is no environment variable {secret.env}, which a secret refers to")
        return os.environ[secret.env]
    if secret.file is not None:
        try:
            return (await asyncio.to_thread(Path(secret.file).read_text)).rstrip("\r\n")
        except OSError as error:
            raise InvalidDeclaration(
                f"{secret.file}, which a secret refers to, can't be read: {error.strerror}"
            ) from None
    return await _ask(secret.command or ())


async def _ask(command: tuple[str, ...]) -> str:
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
        )
    except OSError as error:
        raise InvalidDeclaration(f"{command[0]}, which a secret refers to, can't be run: {error.strerror}") from None
    try:
        async with asyncio.timeout(_LIMIT):
            printed, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise InvalidDeclaration(f"{command[0]}, which a secret refers to, printed none within {_LIMIT:g} s") from None
    if process.returncode != 0:
        raise InvalidDeclaration(f"{command[0]}, which a secret refers to, ended with code {process.returncode}")
    return printed.decode().rstrip("\r\n")


async def login(peer: Relay | Source) -> tuple[str, str] | None:
    """User and password, if it has them. Raises as `reveal`."""
    if peer.user is None or peer.password is None:
        return None
    return peer.user, await reveal(peer.password)


def tls(peer: Relay | Source) -> ssl.SSLContext | None:
    """How to encrypt, if its URL asks for it. Raises InvalidDeclaration for files that can't be used."""
    if not peer.is_encrypted:
        return None
    try:
        context = ssl.create_default_context(cafile=peer.ca)
        if peer.certificate:
            context.load_cert_chain(peer.certificate, peer.certificate_key)
    except OSError as error:  # an ssl.SSLError is one
        raise InvalidDeclaration(f"a certificate of {peer.url} can't be used: {error}") from None
    return context
