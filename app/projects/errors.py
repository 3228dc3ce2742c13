"""What can go wrong with projects."""

from app.errors import PodiumError


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


class PolicyNotUsable(ProjectError):
    """The policy that a project is to start from cannot be opened, or nobody could look at it."""

    code = "policy_not_usable"
