"""Which adapters there are: an explicit list of names and import strings. Adding a provider adds one line here.

No entry points: an installed package must not be able to replace an adapter of a system that spends money.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Final, cast

from cal_adapters.contract import Factory

#: Adapter name -> module with `create(context) -> Adapter`. Alphabetical.
ADAPTERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "akash": "cal_adapters.akash",
        "demo": "cal_adapters.fake",
        "k8s": "cal_adapters.k8s",
        "local": "cal_adapters.local",
        "nosana": "cal_adapters.nosana",
    }
)

#: Adapters that load only where a flag asks for them: they run commands here, or sell what doesn't exist.
ON_REQUEST: Final = frozenset({"demo", "local"})
_ASKED: Final = "--enable-adapters; `calctl up` asks for local, `calctl up --demo` for demo too"


class UnknownAdapter(LookupError):
    """No adapter of that name, or it isn't enabled here. The message says which there are."""


def available(enabled: Collection[str]) -> list[str]:
    """The names that `load` accepts, with these of the on-request ones enabled."""
    return [name for name in ADAPTERS if name not in ON_REQUEST or name in enabled]


def load(name: str, enabled: Collection[str] = ()) -> Factory:
    """The factory of an adapter, imported now."""
    if name not in available(enabled):
        why = f": it loads only where it is asked for ({_ASKED})" if name in ADAPTERS else ""
        raise UnknownAdapter(f"No adapter {name!r} here{why}. Available: {available(enabled)}")
    return cast(Factory, import_module(ADAPTERS[name]).create)
