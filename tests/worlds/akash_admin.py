"""The stand-in's other door, /_world/: where tests and the chaos harness look behind the scenes and pull the strings."""

from __future__ import annotations

import random
from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from worlds.akash_faults import Fault
from worlds.akash_state import Account, Bid, Bidder, Deployment

if TYPE_CHECKING:
    from worlds.akash import Akash


def admin_routes(akash: Akash) -> list[Route]:
    """All of /_world/."""
    admin = Admin(akash)

    def reading(name: str, view: Callable[[], Any]) -> Route:
        async def endpoint(_: Request) -> Response:
            return JSONResponse(view())

        return Route(f"/_world/{name}", endpoint, methods=["GET"])

    def doing(name: str, deed: Callable[[Any], Any], method: str = "POST") -> Route:
        async def endpoint(request: Request) -> Response:
            try:
                deed(await request.json() if method == "POST" else None)
            except (KeyError, TypeError, ValueError) as error:
                return JSONResponse({"detail": f"{type(error).__name__}: {error}"}, 400)
            return JSONResponse({"ok": True})

        return Route(f"/_world/{name}", endpoint, methods=[method])

    views = {
        "deployments": admin.deployments,
        "billing": admin.billing,
        "violations": lambda: akash.violations,
        "faults": lambda: akash.plan.shown,
    }
    deeds = ("advance", "faults", "account", "revoke", "reprice", "akt", "lease", "say", "open", "bid")
    return [
        *(reading(name, view) for name, view in views.items()),
        *(doing(name, getattr(admin, f"do_{name}")) for name in deeds),
        doing("faults", lambda _: admin.calm(), "DELETE"),
    ]


class Admin:
    """What can be seen and done from behind."""

    def __init__(self, akash: Akash) -> None:
        self._akash, self._state = akash, akash.state

    def deployments(self) -> list[dict[str, Any]]:
        return [
            {
                "owner": item.owner,
                "dseq": item.dseq,
                "groups": item.groups,
                "closed": item.closed is not None,
                "leased": item.lease is not None,
                "provider": item.lease.bid.provider.name if item.lease else None,
                "price": str(item.lease.bid.usd) if item.lease else None,
                "billing": item.lease is not None and item.lease.ended is None,
                "billed_seconds": round(self._state.billed(item), 3),
            }
            for item in self._state.deployments.values()
        ]

    def billing(self) -> list[dict[str, Any]]:
        """What bills, or may by itself: everything that isn't closed."""
        return [item for item in self.deployments() if not item["closed"]]

    def do_advance(self, body: Any) -> None:
        self._state.advance(float(body["seconds"]))

    def do_faults(self, body: Any) -> None:
        if isinstance(body, dict):
            self._akash.plan.roll(float(body["rate"]), int(body.get("seed", 0)))
        else:
            self._akash.plan.faults += [Fault(**each) for each in body]

    def calm(self) -> None:
        self._akash.plan.faults.clear()
        self._akash.plan.rate, self._akash.plan.dice = 0.0, random.Random(0)

    def do_account(self, body: Any) -> None:
        known = next((each for each in self._state.accounts if each.owner == body["owner"]), None)
        if known is None:
            user = f"00000000-0000-4000-8000-{len(self._state.accounts):012d}"
            known = Account(body["owner"], user, set())
            self._state.accounts.append(known)
        if "key" in body:
            for other in self._state.accounts:
                other.keys.discard(body["key"])
            known.keys.add(body["key"])
        known.credits = Decimal(str(body.get("credits", known.credits)))
        known.denom = body.get("denom", known.denom)

    def do_revoke(self, body: Any) -> None:
        for account in self._state.accounts:
            account.keys.discard(body["key"])

    def do_reprice(self, body: Any) -> None:
        self._state.factors[body["model"]] = Decimal(str(body["factor"]))

    def do_akt(self, body: Any) -> None:
        self._state.akt = Decimal(str(body["price"]))

    def do_lease(self, body: Any) -> None:
        item = self._of(body["dseq"])
        lease = item.lease
        if lease is None:
            raise ValueError("there is no lease")
        if body.get("state") == "closed":
            lease.ended, lease.reason = self._state.now(), body.get("reason")
        lease.word = body.get("word", lease.word)
        if "reclaim" in body:
            lease.reclaimed = self._state.now() + float(body["reclaim"])
        lease.up, lease.seen = body.get("up", lease.up), body.get("seen", lease.seen)

    def do_say(self, body: Any) -> None:
        self._of(body["dseq"]).log.append((self._state.now(), str(body["line"])))

    def do_open(self, body: Any) -> None:
        """A deployment of somebody else's on an account, with this group name."""
        sdl: dict[str, Any] = {"services": {"web": {"expose": []}}, "profiles": {"compute": {"web": {"resources": {}}}}}
        self._state.open(body["owner"], [body["name"]], "c29tZWJvZHkgZWxzZSdz", sdl, ("uact", Decimal(1)))

    def do_bid(self, body: Any) -> None:
        """One more bid, whatever the order's price: what bids must meet is the adapter's to check, too."""
        item, usd = self._of(body["dseq"]), Decimal(str(body["usd"]))
        bidder = Bidder(body["provider"], 0, Decimal(1))
        amount = self._state.amount(usd, item.denom)
        item.extra.append(Bid(bidder, usd, amount, self._state.now(), {"units": 1, **body.get("gpu", {})}))

    def _of(self, dseq: str) -> Deployment:
        return {item.dseq: item for item in self._state.deployments.values()}[dseq]
