"""The recipes: each a program that reads a round folder, trains or measures, and writes its result there."""
