"""Checks of the store: it opens, is fast enough, and its records can be decrypted."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from akoya_gateway.config.model import Config
from akoya_gateway.doctor.check_result import CheckResult, fault, fine, warning
from akoya_gateway.doctor.connectivity import CONNECT_TIMEOUT
from akoya_gateway.errors import GatewayError
from akoya_gateway.grants.repository import GrantRepository
from akoya_gateway.store import Keyring, Store, describe, open_store
from akoya_gateway.store.encrypted_store import EncryptedStore, context

SLOW_STORE_MILLISECONDS = 50.0
"""Median duration of a store round trip above which to warn."""
UNTRUSTED = "untrusted_answer"
"""`grants.events.Reason.UNTRUSTED_ANSWER`, which is stable."""
SAMPLE = 50
"""Maximum records of each kind to decrypt."""


async def check_store(config: Config) -> list[CheckResult]:
    """Check that the store opens, is fast enough, and can be decrypted with the configured keys."""
    about = "sessions.store"
    name = describe(config.sessions.store)
    if (missing := _missing_file_result(name)) is not None:
        return [missing]
    try:
        store = open_store(config.sessions.store)
        began = time.perf_counter()
        async with asyncio.timeout(CONNECT_TIMEOUT):
            await store.open()
        opened = round((time.perf_counter() - began) * 1000, 1)
        try:
            taken = []
            for _ in range(5):
                began = time.perf_counter()
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    await store.check()
                taken.append(round((time.perf_counter() - began) * 1000, 2))
            shut = await _shut_records(config, store)
            waiting = [] if shut else await _waiting_grants(config, store)
        finally:
            await store.close()
    except GatewayError as error:
        says = error.detail or error.title
        says = says if says.startswith(name) else f"{name}: {says}"
        return [fault(about, says, "is it running, writable, and the URL right?")]
    except TimeoutError:
        return [
            fault(
                about,
                f"{name}: no response within {CONNECT_TIMEOUT:g} s",
                "is it running, or locked by another process?",
            )
        ]
    if shut:
        remedy = "put the key back into sessions.keys, or restore a backup"
        return [fault(about, f"{name}: {each}", remedy) for each in shut]
    middle = sorted(taken)[2]
    says = f"{name} opened in {opened:g} ms; a write and a read take {middle:g} ms"
    if middle > SLOW_STORE_MILLISECONDS:
        return [warning(about, says, "every connect and refresh waits for it: move it closer to the gateway"), *waiting]
    return [fine(about, says, middle), *waiting]


async def _shut_records(config: Config, store: Store) -> list[str]:
    """Return the problems of records that cannot be decrypted. `store.check` does not find these."""
    keyring, shut, looked = Keyring(config.sessions.keys), Counter[str](), 0
    async with asyncio.timeout(CONNECT_TIMEOUT):
        for kind in ("grant", "session"):
            looked_at_most = looked + SAMPLE
            async for record in store.scan(kind):
                looked += 1
                try:
                    keyring.decrypt(record.body, context(record))
                except GatewayError as error:
                    shut[error.detail or error.title] += 1
                if looked >= looked_at_most:
                    break
    return [f"{count} of {looked} checked records cannot be decrypted: {why}" for why, count in shut.items()]


async def _waiting_grants(config: Config, store: Store) -> list[CheckResult]:
    """Return warnings about grants with untrusted responses, and grants that another server or client was issued.

    At most `SAMPLE` grants are read.
    """
    moved, untrusted, looked = Counter[str](), Counter[str](), 0
    async with asyncio.timeout(CONNECT_TIMEOUT):
        async for grant in GrantRepository(EncryptedStore(store, Keyring(config.sessions.keys))).scan():
            looked += 1
            client = config.clients.get(grant.key.client)
            if client is not None and grant.tokens.source not in (None, client.token_source):
                moved[client.name] += 1
            elif grant.reason == UNTRUSTED:
                untrusted[grant.connector] += 1
            if looked >= SAMPLE:
                break
    remedy = (
        "put the old value back, unless you changed it on purpose: a refresh will show whether the tokens are valid"
    )
    return [
        warning(
            f"clients.{name}",
            f"{count} of {looked} checked grants were issued by another token_endpoint, or to another client_id",
            remedy,
        )
        for name, count in moved.items()
    ] + [
        warning(
            f"connectors.{name}",
            f"refresh responses for {count} of {looked} checked grants cannot be trusted",
            "see the log event `refresh finished`, and the results for the environment",
        )
        for name, count in untrusted.items()
    ]


def _missing_file_result(name: str) -> CheckResult | None:
    """Return the result for an SQLite database that does not exist yet, or None.

    The file is not created here, because it must belong to the user that runs the gateway.
    """
    kind, _, rest = name.partition(":")
    path = Path(rest)
    if kind != "sqlite" or _holds(path.exists):
        return None
    if _holds(path.is_symlink):
        return fault("sessions.store", f"{name} is a symbolic link to a file that does not exist", "correct the link")
    folder = next(each for each in (path.parent, *path.parent.parents) if _holds(each.exists))
    if os.access(folder, os.W_OK | os.X_OK):
        return fine("sessions.store", f"{name} will be created at the first start")
    return fault(
        "sessions.store",
        f"{name} cannot be found, and {folder} is not writable",
        "run this as the gateway's user, or make it writable",
    )


def _holds(question: Callable[[], bool]) -> bool:
    """Return the result of a method of `Path`, or False if it raises because this user lacks the permission."""
    try:
        return question()
    except OSError:
        return False
