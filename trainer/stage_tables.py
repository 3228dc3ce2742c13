"""The tables of a stage's folder: what the database holds, in the tokens that the recipe reads.

Beside the worker and the sampler the only module here that touches the database: it is the worker's other half, what a
recipe is given, apart from how it is run.
"""

from collections.abc import Collection, Iterable, Iterator

from sqlalchemy.orm import Session

from app.datasets.reading import ranking_rows as frozen_rankings
from app.datasets.rows import RankingRow as FrozenRanking
from app.prompts.models import Split, Use
from app.rounds.inputs import StageInputs, demonstrations_of, prompts_for
from app.rounds.models import POLICY_RECIPES, Recipe
from app.rounds.needs import rankings_of_rounds
from app.settings import Settings
from trainer import models
from trainer.encoders import PairEncoder
from trainer.inspect_policy import describe_policy
from trainer.pretraining_text import windows_of
from trainer.round_folder import DemonstrationRow, PretrainingRow, PromptRow, RankingRow, RoundFolder
from trainer.stage_data import ALL_TIES, Encoder, Written, display_text, held_out_labelers

# What a recipe reads of the prompts.
PROMPT_SPLITS: dict[Recipe, tuple[Split, ...]] = {
    Recipe.SFT: (Split.VALIDATION,),  # to choose by score
    Recipe.REWARD: (Split.VALIDATION,),
    **dict.fromkeys(POLICY_RECIPES, (Split.TRAIN, Split.VALIDATION)),
    Recipe.EVALUATE: (Split.TEST,),
}


def write_data(session: Session, inputs: StageInputs, folder: RoundFolder, settings: Settings) -> list[str]:
    """The tables that the recipe reads; what was left out, in sentences. Raises BadPretrainingText."""
    tokenizer_of = inputs.models.get("policy") or inputs.models["reference"]
    found = describe_policy(tokenizer_of)
    encoder = Encoder(models.load_tokenizer(tokenizer_of), found.tokenizer_sha256, found.context_tokens)
    notes: list[str] = []
    if inputs.recipe == Recipe.REWARD:
        folder.write_rankings(ranking_rows(session, inputs, encoder))
        notes += take_report(encoder, "rankings")
    if inputs.recipe in (Recipe.SFT, Recipe.REWARD):
        folder.write_demonstrations(demonstration_rows(session, inputs, encoder))
        notes += take_report(encoder, "demonstrations")
    if reads_prompts(inputs):
        folder.write_prompts(prompt_rows(session, inputs, encoder))
        notes += take_report(encoder, "prompts")
    if inputs.configuration.get("ptx_coef"):
        folder.write_pretraining(pretraining_rows(session, inputs, encoder, settings))
        encoder.left_out.clear()  # demonstrations that do not fit: the policy has other text not to forget
    return notes


def reads_prompts(inputs: StageInputs) -> bool:
    return inputs.recipe is not Recipe.SFT or inputs.configuration["select_by"] == "score"


def ranking_rows(session: Session, inputs: StageInputs, encoder: Encoder) -> list[RankingRow]:
    """Every ranking that the stage learns from and that fits."""
    rankings = chosen_rankings(session, inputs)
    return encoded_rankings(rankings, held_out_labelers({ranking.pseudonym for ranking in rankings}), encoder)


def encoded_rankings(
    rankings: Iterable[FrozenRanking], held_out: Collection[str], encoder: Encoder | PairEncoder
) -> list[RankingRow]:
    """Those that fit, in tokens. held_out: labelers that nothing is fitted to."""
    rows = []
    for ranking in rankings:
        if len(set(ranking.ranks)) == 1:
            encoder.left_out[ALL_TIES] += 1  # written all the same: the recipe leaves them out and counts them too
        prompt_ids = encoder.prompt(ranking.prompt_id, ranking.messages)
        if prompt_ids is None:
            continue
        written = [
            Written(
                text=completion.text,
                token_ids=completion.token_ids,
                tokenizer_sha256=completion.tokenizer_sha256,
                finish_reason=completion.finish_reason,
            )
            for completion in ranking.completions
        ]
        completion_ids = encoder.completions(prompt_ids, written)
        if completion_ids is None:
            continue
        rows.append(
            RankingRow(
                ranking_id=str(ranking.ranking_id),
                prompt_id=ranking.prompt_id,
                group=ranking.group_key,
                split=ranking.split.value,
                labeler=ranking.pseudonym,
                held_out_labeler=ranking.pseudonym in held_out,
                prompt_ids=prompt_ids,
                completion_ids=completion_ids,
                completion_texts=[completion.text for completion in ranking.completions],
                ranks=ranking.ranks,
                is_pick=ranking.is_pick,
                margin=ranking.margin,
                weight=ranking.weight,
            )
        )
    return rows


def chosen_rankings(session: Session, inputs: StageInputs) -> list[FrozenRanking]:
    """Those of the round's snapshot; under labels=latest_round those of them that no earlier round learned from."""
    if inputs.snapshot_id is None:
        return []
    rankings = list(frozen_rankings(session, inputs.snapshot_id))
    if inputs.configuration["labels"] == "all":
        return rankings
    known = set(session.scalars(rankings_of_rounds(inputs.project_id, before=inputs.round_number)))
    return [ranking for ranking in rankings if ranking.ranking_id not in known]


def demonstration_rows(session: Session, inputs: StageInputs, encoder: Encoder) -> list[DemonstrationRow]:
    """The demonstrations of the round's snapshot that fit."""
    learns_all_turns = inputs.configuration.get("turns") == "all"
    rows = []
    for demonstration, prompt in demonstrations_of(session, inputs.snapshot_id):
        prompt_ids = encoder.prompt(prompt.id, prompt.messages)
        if prompt_ids is None:
            continue
        encoded = encoder.completions(prompt_ids, [Written(text=demonstration.text)])
        if encoded is not None:
            rows.append(
                DemonstrationRow(
                    prompt_id=prompt.id,
                    group=prompt.group_key,
                    split=prompt.split.value,
                    prompt_ids=prompt_ids,
                    completion_ids=encoded[0],
                    text=demonstration.text,
                    is_learned_in_prompt=encoder.learned_turns(prompt.messages) if learns_all_turns else [],
                )
            )
    return rows


def pretraining_rows(
    session: Session, inputs: StageInputs, encoder: Encoder, settings: Settings
) -> Iterator[PretrainingRow]:
    """Text that the policy is not to forget: the operator's, or else what the round's snapshot demonstrates."""
    if settings.pretraining_text is not None:
        for token_ids in windows_of(settings.pretraining_text, encoder.tokenizer, encoder.context_tokens):
            yield PretrainingRow(token_ids=token_ids)
        return
    for row in demonstration_rows(session, inputs, encoder):
        if row.split == "train":
            yield PretrainingRow(token_ids=row.prompt_ids + row.completion_ids)


def prompt_rows(session: Session, inputs: StageInputs, encoder: Encoder) -> list[PromptRow]:
    """The prompts that the recipe samples from: those that leave room for its longest completion."""
    use = Use.ROLL_OUT if inputs.recipe in POLICY_RECIPES else None
    room = int(inputs.configuration["max_completion_tokens"])
    rows = []
    for prompt in prompts_for(session, inputs.project_id, PROMPT_SPLITS[inputs.recipe], use=use, as_of=inputs.as_of):
        prompt_ids = encoder.prompt(prompt.id, prompt.messages, room_for=room)
        if prompt_ids is not None:
            rows.append(
                PromptRow(
                    prompt_id=prompt.id,
                    split=prompt.split.value,
                    prompt_ids=prompt_ids,
                    text=display_text(prompt.messages),
                )
            )
    return rows


def take_report(encoder: Encoder, what: str) -> list[str]:
    notes = encoder.report(what)
    encoder.left_out.clear()
    return notes
