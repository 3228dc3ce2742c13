"""An administrator under whom the installation breaks: starts rounds, resumes what failed, promotes what came out.

Each act is sent twice at once now and then: of two rounds one must be refused, of two promotions too.
"""

import threading
from random import Random
from typing import Any

import psycopg
from psycopg.rows import dict_row

from tests.faults.person import Person

REQUEST_TIMEOUT_S = 8.0
LOOK_S = 0.5
REWARD = {
    "reward.labels": "latest_round",  # so that rounds do not grow with the labels
    "reward.patience": "1000",
    "reward.evaluations_per_epoch": "1",
    "reward.batch_size": "4",
    "reward.checkpoint_every_steps": "1",
    "reward.num_normalisation_completions": "8",
    "reward.max_completion_tokens": "4",
}
PPO = {
    "ppo.num_steps": "12",
    "ppo.batch_size": "8",
    "ppo.minibatch_size": "8",
    "ppo.samples_per_prompt": "1",
    "ppo.value_warmup_steps": "0",
    "ppo.num_evaluation_prompts": "4",
    "ppo.checkpoint_every_steps": "1",
    "ppo.max_completion_tokens": "6",
    "ppo.kl_budget": "1000000",
    "ppo.max_length_factor": "1000",
    "ppo.max_length_share": "1000",
    "ppo.max_eos_drop": "1",
}
LABELS_WANTED = 80  # before the next round
NUM_EPOCHS = 6  # over so many
NEXT = """
SELECT (SELECT count(*) FROM ranking WHERE submitted_at >
        coalesce((SELECT max(created_at) FROM round), '-infinity')) AS num_new,
       round.number, round.state, version.number AS candidate, version.state AS candidate_state,
       (SELECT error FROM stage WHERE stage.round_id = round.id AND stage.state = 'failed' LIMIT 1) AS error
FROM (SELECT 1) AS one
LEFT JOIN round ON round.id = (SELECT max(id) FROM round)
LEFT JOIN policy_version AS version ON version.id = round.candidate_id
"""


class Administrator(Person):
    """One of them. What stands in the database tells them what to do next."""

    def __init__(self, address: str, slug: str, key: str, database_url: str, rng: Random) -> None:
        self.failures: list[dict[str, Any]] = []  # what failed stages said, before they were resumed
        self.oddities: list[str] = []
        self.may_start = True
        self._slug, self._database_url, self._rng = slug, database_url, rng
        super().__init__("administrator", address, key, patience_s=REQUEST_TIMEOUT_S, oddities=self.oddities)

    def run(self) -> None:
        while not self.stopping.wait(LOOK_S):
            try:
                with psycopg.connect(self._database_url, row_factory=dict_row, connect_timeout=5) as connection:
                    [seen] = connection.execute(NEXT).fetchall()
            except psycopg.OperationalError:
                continue
            self._act(seen)

    def _act(self, seen: dict[str, Any]) -> None:
        rounds = f"/projects/{self._slug}/rounds"
        if seen["state"] in ("failed", "cancelled"):
            if seen["error"] is not None:
                self.failures.append(seen["error"])
            self._post(f"{rounds}/{seen['number']}/resume", {})
        elif seen["state"] == "succeeded" and seen["candidate_state"] == "candidate":
            self._post_twice(f"/api/v1/projects/{self._slug}/policies/{seen['candidate']}/promotion", {})
        elif seen["state"] in (None, "succeeded") and seen["num_new"] >= LABELS_WANTED and self.may_start:
            with_policy = seen["number"] is not None and seen["number"] % 2 == 0
            stages = ["reward", "ppo"] if with_policy else ["reward"]
            form = {"stages": stages, **REWARD, **(PPO if with_policy else {}), "evaluation_comparisons": "0"}
            num_epochs = max(1, NUM_EPOCHS * LABELS_WANTED // seen["num_new"])  # as long, however many came meanwhile
            form["reward.num_epochs"] = str(num_epochs)
            self._post_twice(f"{rounds}/new", form)

    def _post_twice(self, path: str, form: dict[str, Any]) -> None:
        other = threading.Thread(target=self._post, args=(path, form), daemon=True)
        if self._rng.random() < 0.5:
            other.start()
        self._post(path, form)
        if other.ident is not None:
            other.join(2 * REQUEST_TIMEOUT_S)

    def _post(self, path: str, form: dict[str, Any]) -> None:
        """Send it once: whether it was done is seen in the database, and done again if not."""
        content = {"json": form or None} if path.startswith("/api/") else {"data": form}
        answer = self._ask_once("POST", path, **content)
        if answer is not None and answer.status_code == 422:
            self._note("POST", path, answer)
