"""A second implementation of docs/protocol.md, on the model (tests/model.py): it shares no code with the engine.

A peer that begins sessions with Hello, gives and takes changes, finds by sketch what is gone, answers such questions,
trims, and reads bundles. It never says Again, asks about ranges or mends, and no chunk goes on from an earlier session.
"""
