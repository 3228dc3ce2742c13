"""Single sign-on with an OpenID Connect provider: the protocol alone. Knows nothing of accounts or the database.

The authorization code flow with PKCE (RFC 7636), state and nonce (OpenID Connect Core 1.0, section 3.1). The
provider's description and keys are asked for each time: people sign in once in two weeks, and no key is an old one.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import httpx2
from authlib.common.urls import add_params_to_uri
from authlib.integrations.base_client import OAuthError
from authlib.integrations.httpx_client import AsyncOAuth2Client
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import ExpiredTokenError, InvalidClaimError, JoseError
from joserfc.jwk import KeySet
from joserfc.jws import JWSRegistry
from pydantic import SecretStr

from app.people.sign_on_errors import ClocksDiffer, ProviderDeclined, ProviderUnreachable, TokenNotTrusted
from app.settings import Settings

TIMEOUT_S = 5.0  # of each question to the provider
CLOCK_SKEW = timedelta(minutes=2)
# Signatures that only the provider can make: not `none`, and not HS256, for which whoever reads the keys has the key.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
LONGEST_CLAIM = 255  # characters of a subject (OpenID Connect Core 1.0, section 2)


@dataclass(frozen=True)
class Provider:
    """The provider, and what it knows this installation as."""

    issuer: str
    client_id: str
    client_secret: SecretStr
    return_to: str  # our address that the provider sends people back to


@dataclass(frozen=True)
class Ticket:
    """What ties the end of a visit to its beginning."""

    state: str
    nonce: str
    code_verifier: str


@dataclass(frozen=True)
class Person:
    """Who the provider says came back. Only the subject is theirs for ever."""

    issuer: str
    subject: str
    email: str | None
    is_email_verified: bool
    name: str


def provider_of(settings: Settings, our_address: str) -> Provider | None:
    """The provider that this installation is configured for."""
    if not (settings.oidc_issuer and settings.oidc_client_id and settings.oidc_client_secret):
        return None
    return Provider(
        settings.oidc_issuer, settings.oidc_client_id, settings.oidc_client_secret, f"{our_address}/sign-in/sso/return"
    )


async def address_of_visit(provider: Provider, ticket: Ticket) -> str:
    """Where to send a person who wants to sign in.  Raises ProviderUnreachable."""
    async with _client(provider) as client:
        endpoint = _endpoint(await _description(client, provider), "authorization_endpoint")
        address, _ = client.create_authorization_url(
            endpoint, state=ticket.state, nonce=ticket.nonce, code_verifier=ticket.code_verifier
        )
    return str(address)


async def person_behind(provider: Provider, ticket: Ticket, code: str, *, now: datetime) -> Person:
    """Who came back with the code.  Raises ProviderUnreachable, ProviderDeclined, TokenNotTrusted, ClocksDiffer."""
    async with _client(provider) as client:
        description = await _description(client, provider)
        methods = description.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        client.token_endpoint_auth_method = "client_secret_basic" if "client_secret_basic" in methods else methods[0]
        tokens = await client.fetch_token(
            _endpoint(description, "token_endpoint"),
            grant_type="authorization_code",
            code=code,
            code_verifier=ticket.code_verifier,
        )
        if not isinstance(tokens.get("id_token"), str):
            raise TokenNotTrusted("it named nobody")
        keys = await _json(client, _endpoint(description, "jwks_uri"))
        claims = checked_claims(tokens, keys, provider, ticket.nonce, now=now)
        if "email" not in claims and "userinfo_endpoint" in description:
            claims = await _more_about(client, _endpoint(description, "userinfo_endpoint"), claims)
    return _person(provider.issuer, claims)


async def address_of_sign_out(provider: Provider, come_back_to: str) -> str | None:
    """Where the provider ends its own session, if it lets others ask for that.  Raises ProviderUnreachable."""
    async with _client(provider) as client:
        endpoint = (await _description(client, provider)).get("end_session_endpoint")
    if not isinstance(endpoint, str):
        return None
    back = {"client_id": provider.client_id, "post_logout_redirect_uri": come_back_to}
    return str(add_params_to_uri(endpoint, back))


def checked_claims(
    tokens: dict[str, Any], keys: dict[str, Any], provider: Provider, nonce: str, *, now: datetime
) -> dict[str, Any]:
    """What the provider's signed statement says, once it is known to be its own, for us, for this visit and of now.

    tokens: the answer of the token endpoint.  keys: the provider's, as it publishes them (RFC 7517).
    Raises TokenNotTrusted, ClocksDiffer.
    """
    try:
        registry = JWSRegistry(algorithms=ALGORITHMS, strict_check_header=False)
        token = jwt.decode(tokens["id_token"], KeySet.import_key_set(keys), registry=registry)  # type: ignore[arg-type]
        wanted = {"iss": {"essential": True, "value": provider.issuer}, "aud": {"value": provider.client_id}}
        params = {"nonce": nonce, "client_id": provider.client_id, "access_token": tokens.get("access_token")}
        claims = CodeIDToken(token.claims, token.header, wanted, params)
        claims.validate(int(now.timestamp()), int(CLOCK_SKEW.total_seconds()))
    except ExpiredTokenError as error:
        raise ClocksDiffer from error
    except InvalidClaimError as error:
        if error.claim in ("iat", "nbf"):
            raise ClocksDiffer from error
        raise TokenNotTrusted(f"its {error.claim} is not what we asked for") from error
    except JoseError as error:
        raise TokenNotTrusted(f"{error.error.replace('_', ' ')}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise TokenNotTrusted("its keys or its words cannot be read") from error
    return dict(claims)


@asynccontextmanager
async def _client(provider: Provider) -> AsyncIterator[AsyncOAuth2Client]:
    """Asks the provider; says in our words when it does not answer."""
    client = AsyncOAuth2Client(
        provider.client_id,
        provider.client_secret.get_secret_value(),
        scope="openid email profile",
        redirect_uri=provider.return_to,
        code_challenge_method="S256",
        timeout=TIMEOUT_S,
        follow_redirects=False,
    )
    try:
        async with client:
            yield client
    except httpx2.HTTPStatusError as error:
        raise ProviderUnreachable(f"it answered {error.response.status_code}") from error
    except httpx2.TimeoutException as error:
        raise ProviderUnreachable("it took too long") from error
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise ProviderUnreachable("it did not answer") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ProviderUnreachable("its answer cannot be read") from error
    except OAuthError as error:
        raise ProviderDeclined(readable(error.error)) from error


async def _description(client: AsyncOAuth2Client, provider: Provider) -> dict[str, Any]:
    """What the provider publishes about itself (OpenID Connect Discovery 1.0, section 4)."""
    found = await _json(client, f"{provider.issuer.rstrip('/')}/.well-known/openid-configuration")
    if found.get("issuer") != provider.issuer:  # else another could speak for it: section 4.3
        raise ProviderUnreachable("it calls itself by another name than PODIUM_OIDC_ISSUER")
    return found


async def _json(client: AsyncOAuth2Client, address: str, *, shows_token: bool = False) -> dict[str, Any]:
    answer = await client.request("GET", address, withhold_token=not shows_token)
    found = answer.raise_for_status().json()
    if not isinstance(found, dict):
        raise ProviderUnreachable("its answer cannot be read")
    return found


def _endpoint(description: dict[str, Any], name: str) -> str:
    address = description.get(name)
    if not isinstance(address, str):
        raise ProviderUnreachable(f"it names no {name}")
    return address


async def _more_about(client: AsyncOAuth2Client, address: str, claims: dict[str, Any]) -> dict[str, Any]:
    """Some providers sign the subject alone and tell the address when asked again. It must be about the same person."""
    found = await _json(client, address, shows_token=True)
    if found.get("sub") != claims["sub"]:
        raise TokenNotTrusted("it spoke of two people")
    return {**found, **claims}


def _person(issuer: str, claims: dict[str, Any]) -> Person:
    subject, email, name = claims["sub"], claims.get("email"), claims.get("name")
    if not 0 < len(subject) <= LONGEST_CLAIM or "\x00" in subject:
        raise TokenNotTrusted("its sub is not what we asked for")
    return Person(
        issuer=issuer,
        subject=subject,
        email=email if isinstance(email, str) else None,
        is_email_verified=claims.get("email_verified") is True,
        name=name if isinstance(name, str) else "",
    )


def readable(error: object) -> str:
    """A provider's error code, fit for a page and for the log: it came through the person's browser."""
    text = str(error or "no reason given")[:60]
    return "".join(letter if letter.isalnum() else " " for letter in text).strip() or "no reason given"
