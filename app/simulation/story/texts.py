"""Replies of a policy that is as good as it is said to be: what a story's slates hold, made without any model.

Each trait of a reply that people judge (about the question, courteous, precise, finished, brief) is good or bad by a
draw of its own, so replies of one policy differ as those of a sampled one do. Knows nothing of the database.
"""

import re
from dataclasses import dataclass
from random import Random

from app.simulation.gold import STOP_WORDS, stem

KIND = ("Thank you for asking.", "Of course, I am glad to help.", "Good question!", "Sure, with pleasure.")
CURT = ("Whatever.", "Not this again.", "Everyone knows that.")
PRECISE = (
    "Set aside 20 minutes every morning and go on for 2 weeks.",
    "Begin with 3 small steps and check the result after 10 minutes.",
    "Take half of the usual amount first, then add the rest after an hour.",
    "Write the 5 most important points on one page and keep it near you.",
)
VAGUE = (
    "Maybe try something and see, it depends on many things.",
    "You could do this or that, people say a lot of stuff about it.",
    "Just do the usual thing somehow.",
)
ELSEWHERE = ("A fresh coat of paint needs a dry wall.", "Most trains are less full at noon.")
CLOSINGS = ("Let me know how it goes.", "Good luck!", "I hope this helps.")


@dataclass(frozen=True)
class Writer:
    """A policy version as a writer.

    skill: how often each trait is good, from 0 to 1.  rambling: how often it says too much.
    """

    skill: float
    rambling: float = 0.1

    def write(self, rng: Random, prompt: str) -> str:
        """One reply. The rest of it is the draw's."""
        parts = [rng.choice(KIND if self.is_good(rng) else CURT)] if rng.random() < 0.7 else []
        parts.append(f"About {subject_of(prompt)}:" if self.is_good(rng) else rng.choice(ELSEWHERE))
        parts.append(rng.choice(PRECISE if self.is_good(rng) else VAGUE))
        if rng.random() < self.rambling:
            parts += [rng.choice(VAGUE), parts[-1], rng.choice(VAGUE)]
        if rng.random() < 0.5:
            parts.append(rng.choice(CLOSINGS))
        text = " ".join(parts)
        return text if self.is_good(rng) else text[: max(20, int(len(text) * rng.uniform(0.5, 0.9)))].rstrip(" .!?:")

    def write_distinct(self, rng: Random, prompt: str, num: int) -> list[str]:
        """As many replies that all differ."""
        texts: dict[str, None] = {}
        while len(texts) < num:
            texts[self.write(rng, prompt)] = None
        return list(texts)

    def is_good(self, rng: Random) -> bool:
        return rng.random() < self.skill


def subject_of(prompt: str) -> str:
    """The last two words of the request that mean something: "the bank account"."""
    words = [word for word in re.findall(r"[A-Za-z']+", prompt) if stem(word.lower()) not in STOP_WORDS]
    return f"the {' '.join(words[-2:]).lower()}" if words else "that"
