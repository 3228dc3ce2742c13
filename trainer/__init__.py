"""The model side of Podium: what is done to models. Its pure modules know nothing of the web product or of Postgres."""

import os

# Read by torch's OpenMP when it is loaded, so it stands here. Web, sampler, trainer and Postgres share a machine:
# threads that spin while they wait for one that is not scheduled made decoding forty times slower on two busy cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
