"""The loop against a gold preference that only the simulation knows (Gao et al. 2022, arXiv:2210.10760).

No web and no database: round folders are written directly and the recipes run as they are, on the starter policy.
"""
