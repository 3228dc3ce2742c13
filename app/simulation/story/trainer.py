"""What the trainer does in a story: it claims stages, reports steps and samples, and publishes results."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

from sqlalchemy import select

from app.policies.models import PolicyVersion
from app.projects.starter import inspect_starter
from app.prompts.models import Prompt, Split
from app.rounds import claims, inputs, results
from app.rounds.models import Phase, Recipe, Round
from app.simulation.crowd import shown_text
from app.simulation.gold import gold_utility
from app.simulation.story import files, numbers
from app.simulation.story.scene import HOUR, MINUTE, WRITERS, Scene, StoryWentAstray

TRAINER = "trainer@story"
ACCURACY = {1: 0.61, 2: 0.648, 3: 0.67, 4: 0.681, 5: 0.694, 6: 0.712}  # of the reward model, by round
KL_OF_SFT = 1.1  # nats a completion


class Trainer:
    """The trainer of a story, and the folder that it works in."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.encoder = files.starter_encoder()
        self.folder = Path()

    def claim(self, round: Round, recipe: Recipe) -> claims.StageClaim:
        """Claim the round's next stage and make its folder."""
        claim = claims.claim_stage(self.scene.session, owner=TRAINER, duration=HOUR, now=self.scene.now)
        stage = claims.locked_stage(self.scene.session, claim) if claim is not None else None
        if claim is None or stage is None or stage.round_id != round.id or stage.recipe is not recipe:
            raise StoryWentAstray("Another round waits for a trainer; let it end first. Nothing was kept.")
        self.folder = files.begin_folder(
            self.scene.settings, inputs.stage_inputs(self.scene.session, self.scene.settings, claim)
        )
        inputs.record_versions(self.scene.session, claim, {"code": "story"})
        self.scene.now += MINUTE
        claims.report(self.scene.session, claim, "The recipe starts.", Phase.COMPUTING)
        self.scene.session.flush()
        return claim

    def train(self, round: Round, *, until: Recipe | None = None) -> None:
        """Run the round's stages one after another, up to the one named."""
        for stage in list(round.stages):
            if stage.recipe is until:
                return
            claim = self.claim(round, stage.recipe)
            answers = self.answers(round) if stage.recipe is Recipe.EVALUATE else []
            figures = self.figures(round, stage.recipe, answers)
            self.report_steps(claim, round)
            sha256 = files.publish(self.scene.settings, self.folder, stage.recipe, figures, answers)
            starter = inspect_starter()
            result = results.StageResult(
                figures=figures,
                manifest_sha256=sha256,
                num_parameters=starter.num_parameters,
                context_tokens=starter.context_tokens,
                tokenizer_sha256=starter.tokenizer_sha256,
                completions=answers,
            )
            claims.report(
                self.scene.session, claim, "The recipe has ended; its result is checked and stored.", Phase.STORING
            )
            self.scene.session.flush()
            self.scene.now += 2 * MINUTE
            results.complete_stage(self.scene.session, claim, result, now=self.scene.now)
            self.scene.catch_up()
        self.scene.end(round)

    def report_steps(self, claim: claims.StageClaim, round: Round, num_steps: int | None = None) -> None:
        """Metrics and samples of the stage. num_steps: where it ends early; its settings' number otherwise."""
        stage = claims.locked_stage(self.scene.session, claim)
        rng = Random(f"{self.scene.seed}/{round.number}/{stage.recipe}")  # noqa: S311
        if stage.recipe is Recipe.PPO:
            planned = stage.configuration["num_steps"]
            rows = numbers.improving_rows(rng, planned, **self.ppo_ends(round))[: num_steps or planned]
        elif stage.recipe is Recipe.EVALUATE:
            rows = []
        else:
            accuracy = ACCURACY[round.number] if stage.recipe is Recipe.REWARD else None
            start, end = (0.693, 0.56) if accuracy else (3.1, 1.5)
            rows = numbers.fitting_rows(rng, 40, start=start, end=end, accuracy=accuracy)
        for row in rows:
            self.scene.now += timedelta(seconds=20)
            row["at"] = self.scene.now.timestamp()
        results.record_metrics(self.scene.session, claim, rows)
        files.write_metrics(self.folder, rows)
        if stage.recipe is Recipe.PPO:
            results.record_samples(self.scene.session, claim, self.samples(rng, round, rows))

    def ppo_ends(self, round: Round) -> dict[str, float]:
        """Where PPO ends: the less the KL costs, the further the policy goes, and the more it says."""
        config = next(stage.configuration for stage in round.stages if stage.recipe is Recipe.PPO)
        is_loose = config["kl_coef"] < 0.1
        return {"score": 2.6 if is_loose else 1.7, "kl": 9.5 if is_loose else 4.1, "tokens": 43 if is_loose else 27}

    def samples(self, rng: Random, round: Round, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """What the policy writes on the way, for four prompts, at each look at the validation prompts."""
        baseline = self.scene.session.get_one(PolicyVersion, round.baseline_id).number
        before, after = WRITERS[baseline], WRITERS[max(self.scene.told.made.values(), default=1) + 1]
        prompts = [shown_text(prompt.messages) for prompt in self.test_prompts()[:4]]
        looks = [row for row in rows if "held_out_score" in row]
        return [
            {
                "step": row["step"],
                "position": position,
                "prompt": prompt,
                "completion": (text := (after if rng.random() < row["step"] / 24 else before).write(rng, prompt)),
                "score": score_of(prompt, text),
                "kl": row["held_out_kl"],
            }
            for row in looks
            for position, prompt in enumerate(prompts)
        ]

    def test_prompts(self) -> list[Prompt]:
        wanted = Prompt.project_id == self.scene.project.id, Prompt.split == Split.TEST
        return list(self.scene.session.scalars(select(Prompt).where(*wanted).order_by(Prompt.id)))

    def answers(self, round: Round) -> list[dict[str, Any]]:
        """What candidate and current policy write for the test prompts: rows of completions.parquet."""
        rows = []
        for prompt in self.test_prompts():
            text = shown_text(prompt.messages)
            for model, version_id in (("candidate", round.candidate_id), ("current", round.baseline_id)):
                number = self.scene.session.get_one(PolicyVersion, version_id).number
                for mode in ("sampled", "greedy"):
                    rng = Random(f"{self.scene.seed}/{round.number}/{prompt.id}/{model}/{mode}")  # noqa: S311
                    written = WRITERS[number].write(rng, text)
                    rows.append(
                        {
                            "prompt_id": prompt.id,
                            "model": model,
                            "mode": mode,
                            "token_ids": self.encoder.ids(written),
                            "text": written,
                            "finish_reason": "stop",
                            "logprob": -1.2 * len(written.split()),
                            "seed": prompt.id,
                            "temperature": 1.0 if mode == "sampled" else 0.0,
                            "top_p": 1.0,
                            "score": score_of(text, written),
                        }
                    )
        return rows

    def figures(self, round: Round, recipe: Recipe, answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The final figures of a stage; those of an evaluation are counted from its completions."""
        if recipe is Recipe.SFT:
            return {"validation_loss": 1.55, "best_step": 35, "num_steps": 40}
        if recipe is Recipe.REWARD:
            return {"validation_accuracy": ACCURACY[round.number], "validation_loss": 0.61, "num_steps": 40}
        if recipe is Recipe.PPO:
            ends = self.ppo_ends(round)
            return {
                "held_out_score": ends["score"],
                "start_held_out_score": 0.0,
                "held_out_kl": ends["kl"],
                "held_out_tokens": ends["tokens"],
                "held_out_eos_rate": 0.98,
                "num_steps": 24,
                "best_step": 24,
            }
        has_ppo = any(stage.recipe is Recipe.PPO for stage in round.stages)
        return evaluation_figures(answers, kl=self.ppo_ends(round)["kl"] if has_ppo else KL_OF_SFT)


def score_of(prompt: str, text: str) -> float:
    """What the story's reward models would give: the gold utility, with 0 in the middle."""
    return gold_utility(prompt, text) - 2.5


def evaluation_figures(answers: Sequence[dict[str, Any]], *, kl: float) -> dict[str, Any]:
    """Means of each policy's sampled completions, and how often the candidate's scores higher, ties half."""
    sampled = {
        model: [row for row in answers if (row["model"], row["mode"]) == (model, "sampled")]
        for model in ("candidate", "current")
    }
    figures: dict[str, Any] = {"num_prompts": len(sampled["candidate"]), "candidate_kl": kl, "current_kl": kl / 2}
    for model, rows in sampled.items():
        figures[f"{model}_score"] = sum(row["score"] for row in rows) / len(rows)
        figures[f"{model}_tokens"] = sum(len(row["token_ids"]) for row in rows) / len(rows)
        figures[f"{model}_eos_rate"] = 1.0
    pairs = zip(sampled["candidate"], sampled["current"], strict=True)
    wins = [0.5 * ((ours["score"] > theirs["score"]) + (ours["score"] >= theirs["score"])) for ours, theirs in pairs]
    return figures | {"win_rate": sum(wins) / len(wins)}
