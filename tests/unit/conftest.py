"""Property tests say the same every time: no randomness without a seed, no verdict that hangs on a clock."""

from hypothesis import settings

settings.register_profile("standfast", derandomize=True, max_examples=40, deadline=None, database=None)
settings.load_profile("standfast")
