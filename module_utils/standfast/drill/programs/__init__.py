"""Programs that a drill sends to hosts: each stands alone, with Debian's Python, and prints JSON lines.

Every line has `event` and `at`, seconds of the host's monotonic clock. SIGTERM ends a program in order:
it says what is still under way, then `end`. A history without a program's `end` is incomplete.
"""
