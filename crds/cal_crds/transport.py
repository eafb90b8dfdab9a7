"""How bytes go to the API server and come back: connections, bodies that it reads as YAML, replies that never end."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Any
from urllib.request import getproxies

import aiohttp
from kubernetes.aio.client import ApiClient, Configuration


def client(configuration: Configuration, connections: int) -> ApiClient:
    configuration.connection_pool_maxsize = connections
    # Unless there is a proxy to be found there, aiohttp shall not read the environment and .netrc, in a thread, at each request.
    configuration.client_session_kwargs = {"trust_env": bool(getproxies())}
    return ApiClient(configuration)


#: What YAML wants escaped in a string, and JSON doesn't.
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


def yaml(body: dict[str, Any]) -> bytes:
    """JSON that is YAML too. The API server reads an apply as YAML, which knows no pairs of escaped surrogates (an emoji in JSON)."""
    text = json.dumps(body, ensure_ascii=False)
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text).encode()


def cut(response: aiohttp.ClientResponse) -> None:
    """Drop the connection of a stream at once: TLS' goodbye takes time, and whoever leaves a watch often ends right after."""
    if response.connection is not None and response.connection.transport is not None:
        response.connection.transport.abort()
    response.close()


async def lines(response: aiohttp.ClientResponse, limit: int = 2**26) -> AsyncIterator[bytes]:
    """The lines of a reply, ends included. aiohttp's own iteration fails on lines above 128 KiB, and a provider's offers are longer."""
    rest = bytearray()
    async for chunk in response.content.iter_any():
        *ends, tail = chunk.split(b"\n")
        for end in ends:
            yield bytes(rest + end + b"\n")
            rest.clear()
        rest += tail
        if len(rest) > limit:
            yield bytes(rest)
            rest.clear()
    if rest:
        yield bytes(rest)
