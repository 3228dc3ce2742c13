"""What can go wrong with projects."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from app.errors import PodiumError

if TYPE_CHECKING:
    from app.projects.settings_history import Change


class ProjectError(PodiumError):
    """Something is wrong with a project."""

    code = "project_error"


class SlugTaken(ProjectError):
    """Another project has this slug."""

    code = "slug_taken"

    def __init__(self, slug: str) -> None:
        super().__init__(f"Another project is called {slug!r}; choose another short name.")


class BadProjectSetting(ProjectError):
    """A setting of the project breaks its rule."""

    code = "bad_project_setting"

    def __init__(self, setting: str, rule: str) -> None:
        super().__init__(f"{setting}: {rule}; nothing was changed.")
        self.setting, self.rule = setting, rule


class SettingsChangedMeanwhile(ProjectError):
    """Somebody else saved settings that the form would set back.

    merged: what was typed, and theirs where nothing was.  meanwhile: their changes.  version: of the settings now.
    """

    code = "settings_changed_meanwhile"

    def __init__(self, merged: Mapping[str, Any], meanwhile: "Sequence[Change]", version: int) -> None:
        super().__init__("The settings were changed while you edited them: look at both, and save again.")
        self.merged, self.meanwhile, self.version = merged, list(meanwhile), version


class SettingsVersionNotFound(ProjectError):
    """No change of the project's settings has this number."""

    code = "not_found"

    def __init__(self) -> None:
        super().__init__("There is no such change of the settings: choose one in their history.")


class PolicyNotUsable(ProjectError):
    """The policy that a project is to start from cannot be opened, or nobody could look at it."""

    code = "policy_not_usable"


class NoSampler(PolicyNotUsable):
    """Nobody is there to look at a policy."""

    code = "no_sampler"

    def __init__(self) -> None:
        super().__init__(
            "No sampler is at work, so nobody can look at the policy. Start one (podium sampler; podium up runs one), "
            "then go on from here."
        )


class PolicyStillLookedAt(PolicyNotUsable):
    """The sampler has not answered yet: it fetches the policy, or does something else first."""

    code = "policy_still_looked_at"

    def __init__(self, source: str) -> None:
        super().__init__(
            f"The sampler is still looking at {source}; fetching a large model takes minutes. Look again in a while: "
            "it goes on meanwhile, and everything you gave stays in this form."
        )
