"""What keeps a person from ranking yet, and what is wrong with a known answer."""

from app.errors import PodiumError


class GuidelinesNotAccepted(PodiumError):
    """The newest guidelines that need it are not accepted: no slate is given out. A submit is never asked this."""

    code = "guidelines_not_accepted"

    def __init__(self, slug: str) -> None:
        self.page = f"/projects/{slug}/guidelines"
        super().__init__(
            "Before the next slate, read this project's guidelines and accept them; reload this page to see them.",
            page=self.page,
        )


class OnboardingWaits(PodiumError):
    """Every try ended below the project's threshold: an admin decides what comes next."""

    code = "onboarding_waits"

    def __init__(self, slug: str) -> None:
        self.page = f"/projects/{slug}/onboarding"
        super().__init__(
            "Your onboarding rankings wait for an admin of this project, who decides how you go on; nothing is lost.",
            page=self.page,
        )


class GuidelinesNotFound(PodiumError):
    """The project has no such version of the guidelines."""

    code = "guidelines_not_found"

    def __init__(self, version: int) -> None:
        super().__init__(f"This project's guidelines have no version {version}: see the list of their versions.")


class KnownAnswerNotFound(PodiumError):
    """No such slate in the project, or not of a kind that this can be done with."""

    code = "known_answer_not_found"

    def __init__(self) -> None:
        super().__init__("This project has no such slate with a known answer: reload the page to see those it has.")


class BadKnownAnswer(PodiumError):
    """A reference ranking lacks a rank, a reason, or an order."""

    code = "bad_known_answer"

    def __init__(self, rule: str) -> None:
        super().__init__(f"A known answer {rule}; nothing was stored yet.")


class NotANewcomer(PodiumError):
    """The person does not wait to be let in."""

    code = "not_a_newcomer"

    def __init__(self) -> None:
        super().__init__("This person does not wait for you any more: reload the page to see who does.")


class LessonNotFound(PodiumError):
    """No such onboarding ranking, or someone else's."""

    code = "lesson_not_found"

    def __init__(self) -> None:
        super().__init__("You have no such lesson. Open the ranking page to go on.")
