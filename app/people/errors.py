"""What can go wrong with people: signing in, being invited, being a member."""

from app.errors import PodiumError


class PeopleError(PodiumError):
    """Something about accounts or members cannot be done."""


class NotSignedIn(PeopleError):
    """The request carries no session and no key, or one that has ended."""

    code = "not_signed_in"

    def __init__(self) -> None:
        super().__init__(
            "You are not signed in, or your session has ended: sign in in another tab, then send this again."
        )


class TooManyAttempts(PeopleError):
    """Too many failed sign-ins for this address or from this place."""

    code = "too_many_attempts"

    def __init__(self, retry_after_s: int) -> None:
        minutes = max(1, round(retry_after_s / 60))
        super().__init__(
            f"There were too many failed attempts to sign in: wait {minutes} minutes and try again.",
            retry_after_s=retry_after_s,
        )


class UnknownKey(NotSignedIn):
    """The request carries a key that nobody issued, or one that has ended."""

    def __init__(self) -> None:
        PeopleError.__init__(
            self,
            "This key is unknown, revoked or too old, and nothing was done: make a new one on your account page.",
        )


class TooManyWrongTokens(TooManyAttempts):
    """Too many keys or links that nobody issued came from this place."""

    def __init__(self, retry_after_s: int) -> None:
        PeopleError.__init__(
            self,
            "Too many keys or links that do not exist came from where you are: wait"
            f" {max(1, round(retry_after_s / 60))} minutes, and try again with the right one.",
            retry_after_s=retry_after_s,
        )


class ProjectNotFound(PeopleError):
    """No such project, or the account is no member of it: one answer, so that names cannot be probed."""

    code = "project_not_found"

    def __init__(self, slug: str) -> None:
        super().__init__(f"There is no project {slug}, or you are not a member of it: ask its admin for an invitation.")


class RoleTooLow(PeopleError):
    """The member's role does not reach."""

    code = "role_too_low"

    def __init__(self, needed: str) -> None:
        super().__init__(f"This needs the role {needed}: ask an admin of the project to give it to you.")


class NotSiteAdmin(PeopleError):
    """Only those who run the installation may do this."""

    code = "role_too_low"

    def __init__(self) -> None:
        super().__init__("Only a site admin may do this: ask whoever runs this installation.")


class ScopeTooNarrow(PeopleError):
    """The key was made for less than this, though its account may do it."""

    code = "scope_too_narrow"

    def __init__(self, scope: str) -> None:
        super().__init__(
            f"This key has the scope {scope}, which does not reach so far, and nothing was changed: make one with a"
            " wider scope on your account page."
        )


class KeyOfOneProject(PeopleError):
    """The key was made for one project, and this belongs to none or to all."""

    code = "scope_too_narrow"

    def __init__(self) -> None:
        super().__init__(
            "This key is for one project, and this is no part of it, and nothing was changed: make one for all your"
            " projects on your account page."
        )


class MembershipPaused(PeopleError):
    """The member is paused in this project."""

    code = "membership_paused"

    def __init__(self) -> None:
        super().__init__("Your membership of this project is paused: ask an admin of the project.")


class PersonNotFound(PeopleError):
    """No such member, key, session or invitation."""

    code = "not_found"


class InvitationNotFound(PeopleError):
    """The link is unknown, used, revoked or too old: one answer for all."""

    code = "invitation_not_found"

    def __init__(self) -> None:
        super().__init__("This invitation is unknown, used or too old: ask whoever sent it for a new link.")


class UnknownInvitation(InvitationNotFound):
    """Nobody ever made this link, which the answer does not say; such ones are counted (app.people.wrong_tokens)."""


class InvitedSomeoneElse(PeopleError):
    """The invitation names another address than the account that opens it."""

    code = "invited_someone_else"

    def __init__(self, email: str) -> None:
        super().__init__(f"This invitation is for {email}: sign in with that address, or ask for one of your own.")


class EmailTaken(PeopleError):
    """An account with this address exists."""

    code = "email_taken"

    def __init__(self, email: str) -> None:
        super().__init__(f"There is an account for {email} already: sign in with it first.")


class InvalidPerson(PeopleError):
    """A name or an address that cannot be one."""

    code = "invalid_person"


class WeakPassword(PeopleError):
    """The password is too short, too long, or the address itself."""

    code = "weak_password"


class LastAdmin(PeopleError):
    """The project would be left without anyone who can run it."""

    code = "last_admin"

    def __init__(self, project: str) -> None:
        super().__init__(f"This is the last active admin of {project}: make someone else an admin first.")


class NotAResearcher(PeopleError):
    """The right to see names is for researchers: admins have it, and labelers have no use for it."""

    code = "not_a_researcher"

    def __init__(self) -> None:
        super().__init__("Only a researcher can be let see names, and nothing was changed: give them that role first.")


class NamesHidden(PeopleError):
    """Whoever asks may not see who the labelers are."""

    code = "role_too_low"

    def __init__(self) -> None:
        super().__init__("You see labelers under their pseudonyms here: an admin of the project can let you see names.")


class LastSiteAdmin(PeopleError):
    """The installation would be left without anyone who runs it."""

    code = "last_admin"

    def __init__(self) -> None:
        super().__init__("This is the installation's last site admin: make someone else one first.")


class NotManaged(PeopleError):
    """The account is in projects that whoever asks does not run."""

    code = "role_too_low"

    def __init__(self) -> None:
        super().__init__(
            "This person is also in projects that you do not run, or runs the installation: ask a site admin."
        )


class ResetLinkNotFound(PeopleError):
    """The link is unknown, used, replaced by a newer one or too old: one answer for all."""

    code = "reset_link_not_found"

    def __init__(self) -> None:
        super().__init__("This link is unknown, used or too old: ask an admin for a new one.")


class UnknownResetLink(ResetLinkNotFound):
    """Nobody ever made this link, which the answer does not say; such ones are counted (app.people.wrong_tokens)."""


class ResetLinkWithdrawn(PeopleError):
    """Whoever made the link may not set this account's password any more: they lost their role, or were closed."""

    code = "reset_link_withdrawn"

    def __init__(self) -> None:
        super().__init__(
            "Whoever made this link may not set your password any more. Your old one is as it was: sign in with it, or"
            " ask an admin for a new link."
        )


class BadAuditFilter(PeopleError):
    """The audit log is asked for something that it cannot look for."""

    code = "bad_filter"
