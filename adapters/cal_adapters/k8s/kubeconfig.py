"""The kubeconfig that comes in a credential's Secret: another cluster, and nothing but that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import yaml

from cal_adapters.errors import CredentialsRefused
from cal_crds.cluster import Body

#: The keys of a kubeconfig that point outside of it, or run something: not for a document that came in a Secret.
_OUTSIDE: Final = frozenset(
    {"exec", "auth-provider", "tokenFile", "client-certificate", "client-key", "certificate-authority"}
)


def parse_kubeconfig(data: Mapping[str, str]) -> Body:
    """The kubeconfig of a credential. CredentialsRefused if it is missing, isn't one, or reaches outside of itself.

    A Secret is no program: `exec` would run one in the operator, and a path would read the operator's own files.
    """
    text = data.get("kubeconfig")
    if not text:
        raise CredentialsRefused("The credential's Secret has no key `kubeconfig`")
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise CredentialsRefused("The kubeconfig isn't YAML") from error
    if not isinstance(document, dict):
        raise CredentialsRefused("The kubeconfig isn't a mapping")
    if found := sorted(_keys(document) & _OUTSIDE):
        raise CredentialsRefused(f"The kubeconfig must hold its keys itself; these aren't allowed: {', '.join(found)}")
    return document


def _keys(value: Any) -> set[str]:
    if isinstance(value, dict):
        return {str(key) for key in value}.union(*(_keys(item) for item in value.values()))
    if isinstance(value, list):
        return set().union(*(_keys(item) for item in value))
    return set()
