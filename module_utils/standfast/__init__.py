"""What standfast knows: the topology, the timing, and per tool a pure part and its effects."""
