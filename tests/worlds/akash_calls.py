"""What the stand-in's Console does on each request: one function per operation of `akash_openapi.yaml`."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import yaml
from worlds import akash_views as views
from worlds.akash_schema import SDLSchema
from worlds.akash_state import Account, Deployment, World

from cal_adapters.akash.manifest import group_names, manifest_hash, manifest_text

_TOKEN_KEY: Final = b"the stand-in's own"
#: What a deployment is funded with.
_DEPOSIT: Final = Decimal(500_000)


class Refusal(Exception):
    """The Console's no."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


@dataclass(frozen=True)
class Call:
    """A request that was understood. `at`: the moment that reads tell of; `account` None: a public one."""

    world: World
    schema: SDLSchema
    account: Account | None
    path: Mapping[str, str]
    query: Mapping[str, str]
    body: Any
    at: float
    origin: str

    @property
    def owner(self) -> str:
        assert self.account is not None
        return self.account.owner

    @property
    def host(self) -> str:
        """What stands in for a provider's host name."""
        return self.origin.partition("://")[2]

    def own(self, dseq: str) -> Deployment:
        item = self.world.deployments.get((self.owner, dseq))
        if item is None or item.made > self.at:
            raise Refusal(404, "Deployment not found")
        return item

    def shown(self, item: Deployment, at: float | None = None) -> dict[str, Any]:
        return {
            "data": views.deployment(self.world, item, self.at if at is None else at, status=True, gateway=self.host)
        }


Answer = tuple[int, dict[str, Any]]


def get_current_user(call: Call) -> Answer:
    assert call.account is not None
    user = {
        "id": call.account.user,
        "userId": f"auth0|{call.account.user}",
        "username": "tester",
        "email": "tester@example.com",
    }
    return 200, {"data": {**user, "emailVerified": True, "subscribedToNewsletter": False}}


def get_wallets(call: Call) -> Answer:
    account = call.account
    assert account is not None
    wallet = {
        "id": 1,
        "userId": account.user,
        "creditAmount": float(account.credits),
        "address": account.owner,
        "isTrialing": False,
    }
    if account.denom is not None:
        wallet["denom"] = account.denom
    return 200, {"data": [wallet] * account.wallets if call.query["userId"] == account.user else []}


def get_balances(call: Call) -> Answer:
    assert call.account is not None
    free = float(call.account.credits)
    bound = float(_DEPOSIT) * sum(item.closed is None for item in call.world.of(call.owner, call.at))
    return 200, {"data": {"balance": free, "deployments": bound, "total": free + bound}}


def list_deployments(call: Call) -> Answer:
    skip, limit = int(call.query.get("skip", 0)), int(call.query.get("limit", 1000))
    active = [item for item in call.world.of(call.owner, call.at) if item.closed is None or item.closed > call.at]
    # A node gives as many as it likes, whatever was asked for.
    page = active[skip : skip + min(limit, call.world.page)]
    shown = [views.deployment(call.world, item, call.at, status=False, gateway="") for item in page]
    paging = {"total": len(active), "skip": skip, "limit": limit, "hasMore": len(active) > skip + limit}
    return 200, {"data": {"deployments": shown, "pagination": paging}}


def get_deployment(call: Call) -> Answer:
    return 200, call.shown(call.own(call.path["dseq"]))


def create_deployment(call: Call) -> Answer:
    assert call.account is not None
    data = call.body["data"]
    if call.world.nameless and "name" in data:
        raise Refusal(400, "Unrecognized key(s) in object: 'name'")
    sdl, text = _manifest(data["sdl"], call.schema)
    placement, pricing = next(iter(sdl["profiles"]["placement"].items()))
    price = next(iter(pricing["pricing"].values()))
    if call.account.credits < _DEPOSIT:
        raise Refusal(
            402, "Not enough balance to cover the deployment deposit. Add credits or turn on auto recharge to continue."
        )
    call.account.credits -= _DEPOSIT
    # The coin is the account's, whatever the SDL says; the amount stays.
    denom = call.account.denom or "uact"
    item = call.world.open(call.owner, [placement], manifest_hash(text), sdl, (denom, Decimal(str(price["amount"]))))
    signed = {"code": 0, "transactionHash": hashlib.sha256(item.dseq.encode()).hexdigest(), "rawLog": ""}
    return 201, {"data": {"dseq": item.dseq, "manifest": text, "signTx": signed}}


def _manifest(text: str, schema: SDLSchema) -> tuple[dict[str, Any], str]:
    try:
        sdl = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise Refusal(400, f"Invalid SDL: {str(error)[:200]}") from error
    if wrong := schema.errors(sdl):
        raise Refusal(400, f"Invalid SDL: {', '.join(wrong)}")
    try:
        return sdl, manifest_text(sdl)
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as error:
        raise Refusal(400, f"Invalid SDL: {type(error).__name__}") from error


def close_deployment(call: Call) -> Answer:
    assert call.account is not None
    item = call.own(call.path["dseq"])
    if item.closed is None:
        call.world.close(item)
        call.account.credits += _DEPOSIT
    return 200, {"data": {"success": True}}


def list_bids(call: Call) -> Answer:
    item = call.world.deployments.get((call.owner, call.query["dseq"]))
    made = call.world.bids(item, call.at) if item is not None else []
    return 200, {"data": [views.bid(item, each, call.at) for each in made] if item is not None else []}


def create_leases(call: Call) -> Answer:
    wanted = call.body["leases"][0]
    item = call.own(wanted["dseq"])
    if item.lease is None or item.lease.ended is not None:
        _lease(call, item, wanted["provider"])
    lease = item.lease
    assert lease is not None
    if lease.bid.provider.address != wanted["provider"]:
        raise Refusal(404, f"no lease for deployment {item.dseq}")
    if not _fits(call.body["manifest"], item):
        raise Refusal(422, "manifest version validation failed")
    lease.handed = lease.handed if lease.handed is not None else call.world.now()
    return 200, call.shown(item, call.world.now())


def _lease(call: Call, item: Deployment, provider: str) -> None:
    if item.closed is not None:
        raise Refusal(400, "Failed to create lease: Deployment closed")
    if item.lease is not None:
        raise Refusal(
            400, "Cannot create lease: The associated order has already been matched or closed. "
            "Re-create the deployment to generate a new order and try again.",
        )  # fmt: skip
    bid = next((each for each in call.world.bids(item, call.world.now()) if each.provider.address == provider), None)
    if bid is None:
        raise Refusal(
            400, "Cannot create lease: The selected bid is no longer open. Please refresh and select an available bid."
        )
    call.world.take(item, bid)


def _fits(manifest: str, item: Deployment) -> bool:
    """As a provider sees it: the manifest's hash must be the deployment's."""
    try:
        return manifest_hash(manifest) == item.hash and group_names(manifest) == item.groups
    except ValueError:
        return False


def create_jwt_token(call: Call) -> Answer:
    data, now = call.body["data"], int(call.world.now())
    _check_leases(data["leases"])
    claims = {
        "iss": call.owner,
        "iat": now,
        "nbf": now,
        "exp": now + data["ttl"],
        "version": "v1",
        "leases": data["leases"],
    }
    call.world.claims = claims
    return 201, {"data": {"token": sign(claims)}}


def _check_leases(leases: Mapping[str, Any]) -> None:
    """The rules between fields that the token's schema has."""
    permissions = leases.get("permissions", [])
    if (leases["access"] == "granular") != bool(permissions) or (leases["access"] == "scoped") != ("scope" in leases):
        raise Refusal(400, "Invalid leases: access doesn't fit what is given")
    for each in permissions:
        if (each["access"] == "scoped") != ("scope" in each) or (each["access"] == "granular") != (
            "deployments" in each
        ):
            raise Refusal(400, "Invalid leases: a permission's access doesn't fit what is given")


def sign(claims: Mapping[str, Any]) -> str:
    """A token of the usual form (with our own key: nobody but the stand-in's gateways reads it)."""
    parts = [_url64(json.dumps(part).encode()) for part in ({"alg": "ES256K", "typ": "JWT"}, claims)]
    return ".".join([*parts, _url64(hmac.digest(_TOKEN_KEY, ".".join(parts).encode(), "sha256"))])


def read_token(token: str) -> dict[str, Any] | None:
    """The claims of a token that we signed; None for any other."""
    head, _, signature = token.rpartition(".")
    if not hmac.compare_digest(signature, _url64(hmac.digest(_TOKEN_KEY, head.encode(), "sha256"))):
        return None
    body = head.partition(".")[2]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return claims


def _url64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def get_deployment_by_owner_dseq(call: Call) -> Answer:
    item = call.world.deployments.get((call.path["owner"], call.path["dseq"]))
    if item is None or item.made > call.at - call.world.lag:
        return 404, {"error": "NotFoundError", "message": "Deployment Not Found"}
    return 200, views.public(item, call.at)


def get_gpu_prices(call: Call) -> Answer:
    return 200, views.prices(call.world)


def get_market_data(call: Call) -> Answer:
    return 200, {"price": float(call.world.akt)}


def get_provider(call: Call) -> Answer:
    shown = views.provider(call.path["address"], f"{call.origin}/gateway")
    return (200, shown) if shown is not None else (404, {"error": "NotFoundError", "message": "Provider not found"})


#: Operation -> what it does.
CALLS: Final[Mapping[str, Callable[[Call], Answer]]] = {
    re.sub(r"_(\w)", lambda found: found[1].upper(), each.__name__): each
    for each in (
        get_current_user,
        get_wallets,
        get_balances,
        list_deployments,
        get_deployment,
        create_deployment,
        close_deployment,
        list_bids,
        create_leases,
        create_jwt_token,
        get_deployment_by_owner_dseq,
        get_gpu_prices,
        get_market_data,
        get_provider,
    )
}
