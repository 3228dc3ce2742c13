"""The model side of Podium: what is done to models. Its pure modules know nothing of the web product or of Postgres."""

import os

# torch's threads spin while they wait for each other, and on cores shared with the web, Postgres and another model that
# starves the very thread they wait for: fitting beside a busy process was 2 to 7 times slower than with this. OpenMP
# reads it when torch is loaded, so it has to be said before.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
