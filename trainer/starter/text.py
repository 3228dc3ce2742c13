"""The text that the starter policy learns: short everyday requests, and replies of deliberately mixed quality.

Each trait of a reply (manner, substance, length, repetition, contradiction, closing, ending) is drawn by itself, so
that good and bad traits meet in every combination: what the policy samples later differs visibly, nothing is good by
length alone, and the best manner of replying exists but is rare, which leaves reinforcement learning something to find.
Often the person reacts: thanks, or a word about one of the reply's faults. So the policy has read how people take what
they are told, as any model trained on real conversations has, and a reward model that starts from it learns faster.
Everything is a function of a seeded `random.Random`. Knows nothing of tokens, models or of who will judge the replies.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from trainer.starter.topics import TOPICS, Topic

GREETINGS = ("", "Hi! ", "Hello. ", "Good morning. ", "Quick question: ", "Please help me. ")
AFTERTHOUGHTS = ("", " Thank you!", " I am new to this.", " I have little time.")

POLITE_OPENINGS = (
    "Of course, I am glad to help.",
    "Thank you for asking.",
    "Sure, with pleasure.",
    "Good question!",
    "I would be happy to help.",
    "That is a nice idea.",
)
RUDE_OPENINGS = (
    "Why ask me?",
    "Not this again.",
    "Everyone knows that.",
    "Whatever.",
    "That is a silly question.",
    "I do not care, but fine.",
)
VAGUE_ADVICE = (
    "It depends on many things.",
    "There are some ways to do it somehow.",
    "Maybe try something and see.",
    "You could do this or that.",
    "People say a lot of stuff about it.",
    "Just do the usual thing.",
    "It is hard to say anything in general.",
)
OFFERS = (
    "Would you like more tips?",
    "Let me know if you have more questions.",
    "Shall I explain it step by step?",
    "Tell me how it goes.",
)
WISHES = ("Good luck!", "Have fun!", "I hope this helps.", "Enjoy!")
DISMISSALS = (
    "Now leave me alone.",
    "Do not ask me again.",
    "Figure out the rest yourself.",
    "I have better things to do.",
)
REACTIONS = {
    "rude": ("How rude.", "Please be polite."),
    "vague": ("Which way do you mean?", "What exactly should I do?"),
    "general": ("How much and how long?", "And in detail?"),
    "elsewhere": ("That is not what I asked.", "My question was another one."),
    "contradictory": ("So yes or no?", "Now I am confused."),
    "rambling": ("Too long.", "In short, please."),
    "repetitive": ("You said that already.", "Once is enough."),
    "cut short": ("Go on.", "Is that all?"),
}
THANKS = ("Thanks, that helps.", "Great, I will try it.")
WARM_THANKS = ("Very kind of you!", "Perfect, thank you so much!")
SECOND_THOUGHTS = ("On second thought, that is wrong.", "Actually, do the opposite.", "No, forget what I said.")
# First words of advice that does not begin with a verb: no "Do not …" can be made of it.
NOT_A_VERB = (
    r"(An?|Because|Before|Booking|Clean|Clear|Cool|Easy|Fixing|For|Fresh|Gentle|Good|It|Just|Layers|Light|Many|Maybe|"
    r"Most|Music|Never|One|Patience|People|Play|Regular|Rest|Short|Slow|Small|Some|Songs|Speaking|Strong|The|There|Time|"
    r"To|Too|With|You|Your) "
)


@dataclass(frozen=True)
class Request:
    """What somebody asks: the prompt's text and what it is about."""

    prompt: str
    topic: Topic
    thing: str


@dataclass(frozen=True)
class Reply:
    """A reply, what is wrong with it, and whether it was friendly."""

    text: str
    faults: tuple[str, ...]
    is_polite: bool


def all_requests() -> Iterator[Request]:
    """Every request the topics allow, in a fixed order."""
    for topic in TOPICS:
        for thing in topic.things:
            for ask in topic.asks:
                for greeting in GREETINGS:
                    for afterthought in AFTERTHOUGHTS:
                        sentence = capitalised(ask.format(x=thing))
                        yield Request(greeting + sentence + afterthought, topic, thing)


def is_held_out(prompt: str) -> bool:
    """Whether the starter must never learn from this prompt: a quarter of all prompts, by hash of the normalised text.

    This is not the split of a project's prompts: most of a project's test prompts were read here, with mixed replies.
    """
    normalised = re.sub(r"\s+", " ", prompt).strip().casefold()
    return int.from_bytes(hashlib.sha256(normalised.encode()).digest()[:8], "big") / 2**64 >= 0.75


def write_dialogue(rng: Random, request: Request) -> list[str]:
    """The request, a reply, often a reaction to it, and sometimes another reply: person and policy by turns."""
    reply = write_reply(rng, request)
    turns = [request.prompt, reply.text]
    if rng.random() < 0.7:
        turns.append(react(rng, reply))
        if rng.random() < 0.1:
            turns.append(write_reply(rng, request).text)
    return turns


def react(rng: Random, reply: Reply) -> str:
    """What the person says to the reply: something about one of its faults, or thanks."""
    if reply.faults:
        return rng.choice(REACTIONS[rng.choice(reply.faults)])
    return rng.choice(WARM_THANKS if reply.is_polite else THANKS)


def write_reply(rng: Random, request: Request) -> Reply:
    """One reply, each trait drawn independently of the others."""
    manner = rng.choices(("polite", "plain", "rude"), (0.30, 0.45, 0.25))[0]
    kind = rng.choices(("specific", "general", "vague", "elsewhere"), (0.34, 0.20, 0.22, 0.24))[0]
    end = rng.choices(("offer", "wish", "none", "dismissal"), (0.22, 0.13, 0.50, 0.15))[0]
    is_contradictory = rng.random() < 0.10
    is_rambling = rng.random() < 0.06
    is_repetitive = not is_rambling and rng.random() < 0.12
    is_cut_short = rng.random() < 0.22

    sentences = [*opening(rng, manner), *substance(rng, request, kind)]
    if is_contradictory:
        sentences.append(contradiction(rng, sentences[-1]))
    sentences += closing(rng, end)
    if is_rambling:
        sentences += ramble(rng, request)
    if is_repetitive:
        sentences = repeated(rng, sentences)
    text = cut_short(rng, " ".join(sentences)) if is_cut_short else " ".join(sentences)
    faults = {
        "rude": manner == "rude" or end == "dismissal",
        kind: kind != "specific",
        "contradictory": is_contradictory,
        "rambling": is_rambling,
        "repetitive": is_repetitive,
        "cut short": is_cut_short,
    }
    return Reply(text, tuple(fault for fault, holds in faults.items() if holds), manner == "polite" or end == "offer")


def opening(rng: Random, manner: str) -> list[str]:
    return {"polite": [rng.choice(POLITE_OPENINGS)], "plain": [], "rude": [rng.choice(RUDE_OPENINGS)]}[manner]


def substance(rng: Random, request: Request, kind: str) -> list[str]:
    """One sentence of advice, sometimes two: specific, general, vague, or about something else altogether."""
    topic, thing = request.topic, addressed(request.thing)
    if kind == "elsewhere":
        topic = rng.choice([other for other in TOPICS if other is not topic])
        thing = addressed(rng.choice(topic.things))
    choices = {"vague": VAGUE_ADVICE, "general": topic.hints}.get(kind, topic.steps)
    count = rng.choices((1, 2), (0.75, 0.25))[0]
    return [capitalised(line.format(x=thing)) for line in rng.sample(choices, count)]


def contradiction(rng: Random, sentence: str) -> str:
    """Takes the last sentence back, in words of its own or, where the sentence says what to do, in its words."""
    if re.match(NOT_A_VERB, sentence) or rng.random() < 0.5:
        return rng.choice(SECOND_THOUGHTS)
    first_clause = re.split(r"[,.;:!?]", sentence)[0]
    return f"Do not {first_clause[:1].lower()}{first_clause[1:]}."


def closing(rng: Random, end: str) -> list[str]:
    return {
        "offer": [rng.choice(OFFERS)],
        "wish": [rng.choice(WISHES)],
        "none": [],
        "dismissal": [rng.choice(DISMISSALS)],
    }[end]


def ramble(rng: Random, request: Request) -> list[str]:
    """Goes on and on, here and there: such a reply does not end within the limit of a completion."""
    lines = [line.format(x=addressed(request.thing)) for line in request.topic.steps + request.topic.hints]
    return [capitalised(line) for line in rng.sample([*lines, *VAGUE_ADVICE], 6)]


def repeated(rng: Random, sentences: list[str]) -> list[str]:
    """Says one of the sentences two to four times."""
    which = rng.randrange(len(sentences))
    return sentences[:which] + [sentences[which]] * rng.randint(2, 4) + sentences[which + 1 :]


def cut_short(rng: Random, reply: str) -> str:
    """Stops in the middle of a sentence, without punctuation."""
    words = reply.split(" ")
    kept = words[: rng.randint(max(1, len(words) // 3), max(1, len(words) - 1))]
    return " ".join(kept).rstrip(".,;:!?")


def addressed(thing: str) -> str:
    """The thing as the one who replies calls it: what is mine to you is yours to me."""
    return re.sub(r"\bI\b", "you", re.sub(r"\b(my|our)\b", "your", thing))


def capitalised(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
