"""The project that an installation begins with."""

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.policies.service import current_version
from app.projects.models import Project
from app.projects.service import current_guidelines
from app.projects.starter import ensure_starter_project, inspect_starter
from app.prompts.models import Prompt, Split
from trainer.inspect_policy import inspect_policy


def test_the_starter_project_is_made_once_with_its_prompts_and_guidelines(session: Session) -> None:
    project = ensure_starter_project(session)
    assert ensure_starter_project(session).id == project.id
    assert session.scalar(select(func.count(Project.id))) == 1
    assert (current_version(session, project).source, current_version(session, project).is_sft) == ("starter", True)
    assert len(current_guidelines(session, project).markdown) > 100
    num_prompts = dict(session.execute(select(Prompt.split, func.count()).group_by(Prompt.split)).all())
    assert sum(num_prompts.values()) >= 2000
    assert num_prompts[Split.TEST] >= 500


def test_what_is_said_of_the_starter_is_what_opening_it_says() -> None:
    found = inspect_policy("starter")
    said = inspect_starter()
    assert (said.num_parameters, said.context_tokens) == (found["num_parameters"], found["context_tokens"])
    assert (said.tokenizer_sha256, said.facts) == (found["tokenizer_sha256"], found["facts"])
