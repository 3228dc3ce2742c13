"""What the quality API answers."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from app.quality.models import Step
from app.quality.pairs import Agreement
from app.quality.reports import QualityReport
from app.quality.standing import LONGEST_REASON


class EstimateOut(BaseModel):
    """A statistic with its 95 % interval. A null value is undefined, for the reason given."""

    model_config = ConfigDict(from_attributes=True)

    value: float | None
    low: float | None
    high: float | None
    num: int
    reason: str


class AgreementOut(BaseModel):
    """How alike two or more people rank."""

    model_config = ConfigDict(from_attributes=True)

    pair_agreement: EstimateOut = Field(validation_alias="alike", description="Share of comparisons, ties half.")
    kendall_tau_b: EstimateOut = Field(validation_alias="tau")
    krippendorff_alpha: EstimateOut = Field(validation_alias="alpha", description="Ordinal, within slates of one K.")


class GroupOut(BaseModel):
    """One group of rankings."""

    label: str
    agreement: AgreementOut


class QualityOut(BaseModel):
    """Agreement in the project: who with whom, by week and by prompt kind."""

    num_rankings: int
    num_shared_slates: int
    overall: list[GroupOut]
    weeks: list[GroupOut]
    prompt_kinds: list[GroupOut]
    alpha_of_qualities: float | None
    alpha_of_flags: float | None

    @classmethod
    def of(cls, report: QualityReport) -> "QualityOut":
        return cls(
            num_rankings=report.num_rankings,
            num_shared_slates=report.num_shared,
            overall=[_group(line.label, line.agreement) for line in report.overall],
            weeks=[_group(line.label, line.agreement) for line in report.weeks],
            prompt_kinds=[_group(line.label, line.agreement) for line in report.prompt_kinds],
            alpha_of_qualities=report.alpha_of_qualities,
            alpha_of_flags=report.alpha_of_flags,
        )


def _group(label: str, agreement: Agreement) -> GroupOut:
    return GroupOut(label=label, agreement=AgreementOut.model_validate(agreement))


class StepForm(BaseModel):
    """A step about a labeler. lets_work: a review's outcome."""

    step: Step
    reason: str = Field(max_length=LONGEST_REASON)
    lets_work: bool | None = None


class StepOut(BaseModel):
    """A step that was taken."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    labeler_id: int
    step: Step
    reason: str
    lets_work: bool | None
    created_at: datetime


class DecisionForm(BaseModel):
    """A researcher's decision: completion id -> rank, 1 is best, equal ranks are ties."""

    ranks: dict[UUID, int]
    reason: str = Field(max_length=LONGEST_REASON)


class DecisionOut(BaseModel):
    """A decision as stored, its ranks dense."""

    model_config = ConfigDict(from_attributes=True)

    slate_id: UUID
    ranks: dict[UUID, int]
    reason: str
    num_rankings: int
