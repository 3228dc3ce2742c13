"""What can go wrong with single sign-on. Each is said on the sign-in page, and stands in the audit log by its code."""

from typing import ClassVar

from app.people.errors import PeopleError

OTHER_WAY = "Nothing was changed; sign in with your password, if you have one, or try again"


class SignOnRefused(PeopleError):
    """The visit to the provider did not end in a sign-in.

    looks_forged: counts against the rate limit of where it came from; somebody else's trouble does not.
    is_kept: stands in the audit log.  names_somebody: without its words, which have an address in them.
    """

    code = "sign_on_refused"
    status: ClassVar[int] = 403
    looks_forged: ClassVar[bool] = False
    is_kept: ClassVar[bool] = True
    names_somebody: ClassVar[bool] = False


class ProviderUnreachable(SignOnRefused):
    """The provider does not answer, or not in the protocol's words."""

    code = "sign_on_unreachable"
    status = 503

    def __init__(self, what: str) -> None:
        super().__init__(f"The sign-in of your organisation cannot be reached ({what}). {OTHER_WAY} in a minute.")


class ProviderDeclined(SignOnRefused):
    """The provider sent the person back without a code, or did not take the code that it gave."""

    code = "sign_on_declined"

    def __init__(self, error: str) -> None:
        super().__init__(f"The sign-in of your organisation did not let you through ({error}). {OTHER_WAY}.")


class SignOnUnknown(SignOnRefused):
    """No visit was begun in this browser that this could be the end of."""

    code = "sign_on_unknown"
    looks_forged = True

    def __init__(self) -> None:
        super().__init__("This sign-in was not begun in this browser. Nothing was changed; begin it again here.")


class NoSuchVisit(SignOnUnknown):
    """The browser brings no cookie of ours, or a state that we never gave: any page of the web can send it here so.

    Were it counted, such a page could lock an office out; were it kept, fill the audit log.
    """

    looks_forged = False
    is_kept = False


class SignOnExpired(SignOnRefused):
    """The visit took longer than a ticket is good for."""

    code = "sign_on_expired"

    def __init__(self) -> None:
        super().__init__("This sign-in took longer than ten minutes. Nothing was changed; begin it again.")


class SignOnReplayed(SignOnRefused):
    """The end of a visit that has ended already: Back, a reload, or a stolen address."""

    code = "sign_on_replayed"
    looks_forged = True

    def __init__(self) -> None:
        super().__init__("This sign-in was used already. Nothing was changed; begin it again.")


class TokenNotTrusted(SignOnRefused):
    """The provider's statement of who came is not signed by it, not for us, or not for this visit."""

    code = "sign_on_token"
    looks_forged = True

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"What the sign-in of your organisation said about you cannot be trusted ({reason}). {OTHER_WAY};"
            " if it happens again, tell your admin."
        )
        self.reason = reason


class ClocksDiffer(SignOnRefused):
    """The provider's statement is of the future, or was over before it arrived."""

    code = "sign_on_clock"

    def __init__(self) -> None:
        super().__init__(
            "The clocks of the sign-in of your organisation and of this server differ by more than two minutes."
            f" {OTHER_WAY}; if it happens again, tell your admin."
        )


class AddressNotVerified(SignOnRefused):
    """The provider does not vouch for the person's e-mail address."""

    code = "sign_on_unverified"

    def __init__(self) -> None:
        super().__init__(
            "Your organisation does not say that your e-mail address is yours, so no account can be found by it."
            " Confirm the address there, or sign in with your password."
        )


class NotInvited(SignOnRefused):
    """Nobody has invited the address."""

    code = "sign_on_not_invited"
    names_somebody = True

    def __init__(self, email: str) -> None:
        super().__init__(f"Nobody has invited {email} yet: ask an admin of your project for an invitation.")


class AddressOfAnother(SignOnRefused):
    """The account of this address belongs to another person of the same provider."""

    code = "sign_on_other_person"
    names_somebody = True

    def __init__(self, email: str) -> None:
        super().__init__(
            f"The account of {email} belongs to someone else at your organisation, who had this address before."
            " Ask an admin to separate the two."
        )


class AccountDisabled(SignOnRefused):
    """The account was closed by an admin."""

    code = "sign_on_disabled"

    def __init__(self) -> None:
        super().__init__("Your account is closed: ask an admin to open it again.")
