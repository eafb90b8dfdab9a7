"""The objects of one kind, as the watch cache keeps them: parsed and rendered when they change, found by uid, name or index key."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from cal_api import ownership, spending
from cal_crds.base import Resource
from cal_crds.meta import Kind
from cal_crds.pool import Cost

_LOG = logging.getLogger(__name__)
_MOST_TOMBSTONES = 10_000
#: Pages of one list that are kept joined; clients ask for the same few again and again.
_MOST_PAGES = 8

R = TypeVar("R", bound=Resource)
#: ("pool", uid), ("owner", id), ...
Key = tuple[str, str]


@dataclass(eq=False, slots=True)
class Entry(Generic[R]):
    """One object. Updated in place: an index that holds it stays right when only its content changes."""

    uid: str
    namespace: str
    name: str
    version: int
    #: The version in which it was made, to tell apart what was made within one second; 0 if that was before the first list.
    born: int
    object: R
    #: Helm, Flux or Argo CD, if one of them keeps it in line.
    managed_by: str | None
    #: When its content last changed, RFC 3339.
    updated: str
    keys: tuple[Key, ...] = ()
    #: What REST shows of it, as JSON; where its cost grows, as of `second`.
    rendered: bytes = b""
    growing: Cost | None = None
    second: datetime | None = None

    def at(self, second: datetime) -> bytes:
        """What REST shows of it in that second."""
        if self.growing is not None and self.second != second:
            self.rendered, self.second = spending.as_of(second, self.rendered, self.growing), second
        return self.rendered


@dataclass(eq=False, slots=True)
class _Bucket(Generic[R]):
    members: dict[str, Entry[R]] = field(default_factory=dict)
    newest: list[Entry[R]] | None = None
    #: (offset, end) -> what `Table.page` says of that part, and the second that it is right for (None: any).
    pages: dict[tuple[int, int | None], tuple[datetime | None, bytes]] = field(default_factory=dict)

    def changed(self, order: bool) -> None:
        """Forget what a change of a member makes wrong; its order only if one came or went."""
        self.pages.clear()
        if order:
            self.newest = None


class Table(Generic[R]):
    """All known objects of a kind. `keys`, `render` and `cost` are called on every change of an object, never on a read."""

    def __init__(
        self,
        kind: Kind,
        model: type[R],
        keys: Callable[[R], tuple[Key, ...]],
        render: Callable[[Entry[R]], bytes],
        cost: Callable[[R], Cost | None] = lambda _: None,
    ) -> None:
        self.kind = kind
        self._model, self._keys, self._render, self._cost = model, keys, render, cost
        self._by_uid: dict[str, Entry[R]] = {}
        self._by_name: dict[tuple[str, str], Entry[R]] = {}
        self._buckets: dict[Key, _Bucket[R]] = {}
        self._tombstones: OrderedDict[str, None] = OrderedDict()
        self.synced = False

    def __len__(self) -> int:
        return len(self._by_uid)

    def get(self, uid: str) -> Entry[R] | None:
        return self._by_uid.get(uid)

    def named(self, namespace: str, name: str) -> Entry[R] | None:
        return self._by_name.get((namespace, name))

    def known_gone(self, uid: str) -> bool:
        """Whether that very object was seen to be deleted: a uid never comes back."""
        return uid in self._tombstones

    def listing(self, key: Key) -> Sequence[Entry[R]]:
        """The objects under an index key, newest first. Not to be changed."""
        bucket = self._buckets.get(key)
        if bucket is None:
            return ()
        if bucket.newest is None:
            bucket.newest = sorted(bucket.members.values(), key=_age, reverse=True)
        return bucket.newest

    def page(self, name: str, key: Key, second: datetime, offset: int = 0, limit: int | None = None) -> bytes:
        """A part of `listing` as {"<name>": [...], "total": <all there are>}; joined once until one of them changes, or, where one's
        cost grows, once a second."""
        bucket = self._buckets.get(key)
        if bucket is None:
            return _whole(name, (), 0)
        end = None if limit is None else offset + limit
        right_for, page = bucket.pages.get((offset, end), (second, None))
        if page is None or right_for not in (None, second):
            found = self.listing(key)
            part = found[offset:end]
            page = _whole(name, [entry.at(second) for entry in part], len(found))
            if len(bucket.pages) < _MOST_PAGES or (offset, end) in bucket.pages:
                bucket.pages[offset, end] = second if any(entry.growing for entry in part) else None, page
        return page

    def put(self, body: dict[str, Any]) -> Entry[R] | None:
        """Take an object in, unless a newer version of it is known or it is known to be gone. The entry, None if it can't be read."""
        metadata = body["metadata"]
        uid, version = metadata["uid"], int(metadata["resourceVersion"])
        old = self._by_uid.get(uid)
        if uid in self._tombstones or (old and old.version >= version):
            return old
        entry = self._read(body, version)
        if entry is None:
            return old
        before = self._by_name.get((entry.namespace, entry.name))
        if before and before.uid != uid:
            # A newer object of that name: the older one is gone, whatever the watch still has to say of it.
            if before.version > version:
                return None
            self.remove(before.uid)
        return self._insert(entry, old)

    def refresh(self, entry: Entry[R]) -> None:
        """Render again and move in the indexes, where something that the object refers to has changed."""
        keys = self._keys(entry.object)
        if keys != entry.keys:
            self._unindex(entry)
            entry.keys = keys
            self._index(entry)
        entry.rendered, entry.second = self._render(entry), None
        entry.growing = spending.growing(self._cost(entry.object))
        for key in keys:
            self._buckets[key].changed(order=False)

    def remove(self, uid: str) -> Entry[R] | None:
        """The object is gone."""
        self._tombstones[uid] = None
        while len(self._tombstones) > _MOST_TOMBSTONES:
            self._tombstones.popitem(last=False)
        entry = self._by_uid.pop(uid, None)
        if entry is not None:
            if self._by_name.get((entry.namespace, entry.name)) is entry:
                del self._by_name[entry.namespace, entry.name]
            self._unindex(entry)
        return entry

    def keep_only(self, uids: Iterable[str], version: int) -> list[Entry[R]]:
        """After a list at `version`: what it doesn't name and isn't newer is gone. The entries that went."""
        alive = frozenset(uids)
        gone = [entry.uid for entry in self._by_uid.values() if entry.uid not in alive and entry.version <= version]
        return [entry for uid in gone if (entry := self.remove(uid))]

    def _read(self, body: dict[str, Any], version: int) -> Entry[R] | None:
        metadata = body["metadata"]
        try:
            parsed = self._model.parse(body)
        except ValidationError as error:
            # Stored under another schema than ours: one object that can't be shown must not hide all others.
            _LOG.warning("%s %s can't be read: %s", self.kind.name, metadata.get("name"), error.errors()[0]["msg"])
            return None
        # A manager's time moves only when it owns other fields than before; conditions tell of the rest.
        times = [entry.get("time") for entry in metadata.get("managedFields") or []]
        times += [entry.get("lastTransitionTime") for entry in body.get("status", {}).get("conditions") or []]
        return Entry(
            uid=metadata["uid"],
            namespace=metadata.get("namespace", ""),
            name=metadata["name"],
            version=version,
            born=version if self.synced else 0,
            object=parsed,
            managed_by=ownership.managed_by(metadata),
            updated=max(filter(None, times), default=str(metadata.get("creationTimestamp", ""))),
        )

    def _insert(self, new: Entry[R], old: Entry[R] | None) -> Entry[R]:
        entry = old or new
        if old is not None:
            old.version, old.object, old.managed_by, old.updated = new.version, new.object, new.managed_by, new.updated
        else:
            self._by_uid[entry.uid] = entry
            self._by_name[entry.namespace, entry.name] = entry
        self.refresh(entry)
        return entry

    def _index(self, entry: Entry[R]) -> None:
        for key in entry.keys:
            bucket = self._buckets.setdefault(key, _Bucket())
            bucket.members[entry.uid] = entry
            bucket.changed(order=True)

    def _unindex(self, entry: Entry[R]) -> None:
        for key in entry.keys:
            bucket = self._buckets[key]
            bucket.members.pop(entry.uid, None)
            bucket.changed(order=True)
            if not bucket.members:
                del self._buckets[key]


def _age(entry: Entry[Any]) -> tuple[Any, int, str]:
    return entry.object.metadata.creation_timestamp, entry.born, entry.name


def _whole(name: str, items: Sequence[bytes], total: int) -> bytes:
    return b'{"%s":[%s],"total":%d}' % (name.encode(), b",".join(items), total)
