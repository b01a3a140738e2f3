"""Drills: break something on purpose, measure what clients felt, prove what was lost.

A drill runs on the control machine (`run`), injects a `faults` entry through SSH, and has `programs`
running on the hosts that write what they see. What all of them saw is the `history`; the `checker` is a
pure function from a history to a verdict.
"""
