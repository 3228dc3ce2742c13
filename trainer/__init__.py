"""The model side of Podium: what is done to models. Its pure modules know nothing of the web product or of Postgres."""
